"""How ingredients of retraining take part in a training of a run, outside of its steps."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, cast

import jax
import numpy as np

from fairgrape_jax import config, parallel, passes
from fairgrape_jax.config import Experiment
from fairgrape_jax.data.batches import Order, epoch_order
from fairgrape_jax.data.dataset import Split
from fairgrape_jax.masks import Tree
from fairgrape_jax.methods import Problem
from fairgrape_jax.methods.structure_choice import find_in_round
from fairgrape_jax.passes import Fold
from fairgrape_jax.remedies import Active, Measured, Setting, active
from fairgrape_jax.rounds.predict import SplitName, predict
from fairgrape_jax.rounds.session import Network, Session
from fairgrape_jax.structures import Structures
from fairgrape_jax.training.state import State


@dataclasses.dataclass(frozen=True)
class Target:
    """The masks that a training leads to.

    Attributes:
        density: of them.
        choose: (network, fold=) to the masks that the round's method would choose now, on the host.
        chosen: those that were chosen before; None if they are chosen afterwards.
    """

    density: float
    choose: Callable[..., Tree]
    chosen: Tree = None


@dataclasses.dataclass(frozen=True)
class TakingPart:
    """The ingredients of a training, and what they look at.

    Attributes:
        active: the rows with their options.
        session: the run, with the groups that scores look at.
        dense: the network before pruning; None only where nothing is active.
        target: of a training that comes before a round's choice.
    """

    active: tuple[Active, ...]
    session: Session | None = None
    dense: Network | None = None
    target: Target | None = None

    @property
    def order(self) -> Order:
        """The order in which an epoch meets the samples, of the last ingredient that has one."""
        functions = [row.order for _, row, _ in self.active if row.order is not None]
        if not functions or self.session is None:
            return epoch_order
        dataset = self.session.dataset
        return BalancedOrder(functions[-1], dataset.train.groups, len(dataset.groups))

    @property
    def held_out(self) -> Split | None:
        """The split of which steps get batches as well, if an ingredient looks at it."""
        held = any(row.held_out(options) for _, row, options in self.active)
        return self.session.dataset.validation if held and self.session else None


NOBODY = TakingPart(())
APPROACH = "approach"  # the name of what a method's training before its choice carries


class BalancedOrder:
    """An order of samples that looks at their groups; it can be sent to other processes."""

    def __init__(
        self,
        function: Callable[[np.ndarray, int, int, int], np.ndarray],
        groups: np.ndarray,
        count: int,
    ) -> None:
        """By a row's function, over the groups of all samples."""
        self._function, self._groups, self._count = function, groups, count

    def __call__(self, samples: int, seed: int, epoch: int) -> np.ndarray:
        """The places of an epoch.

        Args:
            samples: how many there are.
            seed: of the run.
            epoch: its number.
        """
        return self._function(self._groups[:samples], self._count, seed, epoch)


def approach_ingredients(experiment: Experiment, method: str) -> tuple[Active, ...]:
    """What takes part in the training before a method's choice: its row, and the remedy's.

    Args:
        experiment: as the method is put through it.
        method: of the experiment, one that has such a training.

    Raises:
        ValueError: a method that has none.
    """
    row = config.row_of(experiment, method).approach
    if row is None:
        raise ValueError(f"{method}: has no training before its choice")
    return (*active(experiment.remedy), Active(APPROACH, row, experiment.approach))


def make_setting(
    taking: TakingPart,
    network: Network,
    *,
    epoch: int,
    epochs: int,
    fold: Fold = passes.fold,
) -> Setting:
    """What is known at some point of a training; a network is evaluated when it is asked for.

    Args:
        taking: who takes part.
        network: as it is now.
        epoch: epochs of the training that are done.
        epochs: how many it has.
        fold: how passes over a split are made.

    Raises:
        ValueError: nobody takes part.
    """
    session, dense = taking.session, taking.dense
    if session is None or dense is None:
        raise ValueError("ingredients of retraining need the session and the dense network")
    target = taking.target

    def choose(params: Tree) -> Tree:
        placed = parallel.replicate(jax.device_get(params), session.devices)
        here = Network(network.state._replace(params=placed), network.masks)
        return cast(Target, target).choose(here, fold=fold)

    leads = {"density": target.density, "chosen": target.chosen, "choose": choose} if target else {}
    of = session.experiment.scoring.structures
    if target and of != "none":
        leads |= {"structures": functools.partial(_structures, session, network), "counted": of}
    return Setting(
        num_groups=len(session.dataset.groups),
        params=network.state.params,
        masks=network.masks,
        epoch=epoch,
        epochs=epochs,
        dense=functools.cache(functools.partial(measure, session, dense, fold=fold)),
        current=functools.cache(functools.partial(measure, session, network, fold=fold)),
        **cast(Any, leads),
    )


def _structures(session: Session, network: Network) -> Structures:
    state = network.state
    problem = Problem(
        params=jax.device_get(state.params),
        masks=network.masks,
        module=session.steps.module,
        batch_stats=state.batch_stats,
        shape=session.dataset.shape,
    )
    return find_in_round(problem)


def measure(
    session: Session, network: Network, split: SplitName, *, fold: Fold = passes.fold
) -> Measured:
    """How a network does on a split.

    Args:
        session: the run, with the groups to look at.
        network: on its devices.
        split: which samples.
        fold: how the pass is made.
    """
    predictions = predict(session, network, split, fold)
    right = (predictions.predictions == predictions.labels).mean(axis=1)
    return Measured(right, np.asarray(predictions.losses, np.float64), predictions.groups)


def start(
    taking: TakingPart, network: Network, epochs: int, devices: Sequence[jax.Device], fold: Fold
) -> Tree:
    """What the ingredients carry when a training begins, by name, on the devices.

    Args:
        taking: who takes part.
        network: where it begins.
        epochs: how many it has.
        devices: those of this process.
        fold: how passes over a split are made.
    """
    if not taking.active:
        return ()
    setting = make_setting(taking, network, epoch=0, epochs=epochs, fold=fold)
    carried = {
        name: row.start(options, setting)
        for name, row, options in taking.active
        if row.start is not None
    }
    if not carried:
        return ()
    return parallel.replicate(parallel.broadcast_from_process_0(jax.device_get(carried)), devices)


def after_epoch(
    taking: TakingPart, carried: Tree, setting: Setting, devices: Sequence[jax.Device]
) -> Tree:
    """What is carried on from an epoch.

    Args:
        taking: who takes part.
        carried: by name, on the devices.
        setting: at the end of the epoch.
        devices: those of this process.
    """
    rows = [(name, row.after_epoch, options) for name, row, options in taking.active]
    rows = [one for one in rows if one[1] is not None]
    if not rows:
        return carried
    new = dict(jax.device_get(carried))
    for name, function, options in rows:
        if function is not None:
            new[name] = function(options, new.get(name, ()), setting)
    return parallel.replicate(parallel.broadcast_from_process_0(new), devices)


def finish(taking: TakingPart, carried: Tree, state: State, devices: Sequence[jax.Device]) -> State:
    """The state at the end of a training.

    Args:
        taking: who takes part.
        carried: by name, on the devices.
        state: after the last step.
        devices: those of this process.
    """
    rows = [(name, row.finish, options) for name, row, options in taking.active]
    params = state.params
    for name, function, options in rows:
        if function is not None:
            params = function(options, dict(carried).get(name, ()), params)
    return (
        state
        if params is state.params
        else state._replace(params=parallel.replicate(jax.device_get(params), devices))
    )
