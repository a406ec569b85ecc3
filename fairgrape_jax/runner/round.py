"""One stage of a run, the dense training or a round of a method, and the steps that it is made of.

Each step returns at once if it is complete: the choice of weights is kept until the stage is over,
training goes on from its last save, a pass over data where it was stopped.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import numpy as np

from fairgrape_jax import config, masks, parallel
from fairgrape_jax.masks import Tree
from fairgrape_jax.methods import Method
from fairgrape_jax.progress import say
from fairgrape_jax.recovery import replay
from fairgrape_jax.rounds import select
from fairgrape_jax.rounds.select import Details
from fairgrape_jax.rounds.session import Network, Session, place_on_devices
from fairgrape_jax.runner import layout
from fairgrape_jax.storage import checkpoint, resumable
from fairgrape_jax.storage.resumable import Passes
from fairgrape_jax.storage.slots import Slots
from fairgrape_jax.systems.quantised import restart
from fairgrape_jax.training.state import State


@dataclasses.dataclass(frozen=True)
class Round:
    """One stage of a run.

    Attributes:
        session: the run; the experiment is that of the method.
        run: the directory of the run.
        seed: of the run.
        method: of the experiment, or "dense" for the dense training.
        number: of the round, from 1; 0 for the dense training.
        count: how many rounds the method has; 0 for the dense training.
    """

    session: Session
    run: Path
    seed: int
    method: str = "dense"
    number: int = 0
    count: int = 0

    @property
    def directory(self) -> Path:
        """Where the stage is kept."""
        return layout.stage_directory(self.run, self.seed, self.method, self.number)

    @property
    def title(self) -> str:
        """The stage in words."""
        end = f" round {self.number}/{self.count}" if self.number else ""
        return f"seed {self.seed} {self.method}{end}"

    @property
    def draw(self) -> int:
        """The seed of the scoring sample; every round draws anew."""
        return int(np.random.SeedSequence([self.seed, self.number]).generate_state(1)[0])

    @property
    def row(self) -> Method:
        """Its method's row of the table of methods."""
        return config.row_of(self.session.experiment, self.method)

    @functools.cached_property
    def slots(self) -> Slots:
        """Where training saves its place."""
        return Slots(self.directory / "partial")

    @property
    def chosen(self) -> Path:
        """Where its choice is kept until it is over."""
        return self.directory / "partial/chosen"

    @functools.cached_property
    def preparation_slots(self) -> Slots:
        """Where a training before the choice saves its place."""
        return Slots(self.directory / "partial/before")

    @functools.cached_property
    def passes(self) -> Passes:
        """Where passes over data that are stopped are kept."""
        return Passes(self.directory / "partial/passes", self.session.devices)

    def noting_not_finite(self, network: Network) -> contextlib.AbstractContextManager[None]:
        """Write down a number of the body that is not finite.

        Args:
            network: whose masks are written.
        """
        return replay.write_on_error(
            self.directory, masks=network.masks, seed=self.seed, dataset=self.session.dataset
        )


@contextlib.contextmanager
def time_into(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Write down how long the body takes.

    Args:
        seconds: by name.
        name: of what the body does.
    """
    started = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - started


def choose(
    this: Round,
    network: Network,
    *,
    session: Session,
    density: float,
    dense: Network,
    carried: Tree = None,
) -> tuple[Tree, Details]:
    """The masks of a round, on the devices, and how they were chosen; those that are kept, if any.

    Args:
        this: the round.
        network: at its start.
        session: with the groups that scores look at.
        density: of the masks.
        dense: the network before pruning.
        carried: what the ingredients of the method's preparation carried.
    """
    path, key = this.chosen, {"method": this.method, "seed": this.draw}
    key |= {"density": density}
    snapshot = resumable.read(path, key, this.session.devices)
    if snapshot:
        text, *bits = snapshot.arrays
        chosen = unpack_masks(bits, network.masks)
        return parallel.replicate(chosen, this.session.devices), json.loads(text.tobytes())
    with this.noting_not_finite(network):
        chosen, details = select.select(
            session,
            network,
            this.method,
            density=density,
            seed=this.draw,
            dense=dense,
            fold=this.passes,
            progress=(this.number - 1) / this.count,
            carried=carried,
        )
    arrays = [np.frombuffer(json.dumps(details).encode(), np.uint8)]
    arrays += [masks.pack(mask) for mask in jax.tree.leaves(chosen)]
    resumable.write(path, key, this.session.devices, resumable.Snapshot(1, arrays, finished=True))
    this.passes.clear()
    for line in select.describe_unsolved(details):
        say(f"{this.title}: {line}")
    return parallel.replicate(chosen, this.session.devices), details


def unpack_masks(bits: Sequence[np.ndarray], like: Tree) -> Tree:
    """Masks of the structure of `like`, from the packed bits of each layer.

    Args:
        bits: of each layer, as `masks.pack` makes them.
        like: masks of the same structure and shapes.
    """
    leaves, structure = jax.tree.flatten(like)
    pairs = zip(bits, leaves, strict=True)
    return jax.tree.unflatten(structure, [masks.unpack(b, leaf.shape) for b, leaf in pairs])


def prune(this: Round, network: Network, chosen: Tree, origin: State | None = None) -> Network:
    """The network with pruned weights at zero, quantisers that have seen nothing and, if so
    configured, a fresh optimizer.

    Args:
        this: the round.
        network: at its start.
        chosen: its masks.
        origin: the point to return to, with its parameters and batch statistics; the counters go
            on.
    """
    state = network.state
    if origin is not None:
        state = state._replace(params=origin.params, batch_stats=origin.batch_stats)
    state = state._replace(params=masks.apply_masks(chosen, state.params))
    if this.session.experiment.quantise.active:
        state = state._replace(batch_stats=restart(state.batch_stats))
    if this.session.experiment.reset_optimizer or origin is not None:
        state = state._replace(opt_state=this.session.steps.optimizer.init(state.params))
    return place_on_devices(this.session, Network(state, chosen))


def restore(session: Session, directory: Path, like: Network) -> Network:
    """The network of a stage that is complete, on every device.

    Args:
        session: the run.
        directory: of a stage.
        like: a network of the same shapes.
    """
    tree = {"state": like.state, "masks": like.masks}
    tree = checkpoint.restore(directory / "checkpoint", tree)
    return place_on_devices(session, Network(tree["state"], tree["masks"]))
