"""Numbers that are not finite: seen within the step that made them, and said by name.

A step looks at what it has computed, part by part, and says so in a row of flags that stays on the
device. Where one is not finite the step is not made: the state stays as it was before, with a mark
that holds up every later step. So the host, which reads the loss of a step while the device is at
the next one, still finds the state that the step began with.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fairgrape_jax.errors import TrainingError
from fairgrape_jax.masks import Tree


class Seen(NamedTuple):
    """What a training step says of itself.

    loss: () float32, NaN if anything was not finite, so that one number tells the host; finite:
    (n,) bool, which parts were, in the order of `parts`.
    """

    loss: jax.Array
    finite: jax.Array


class NotFiniteError(TrainingError):
    """A number that is not finite, and where: what a repro file is written from.

    what: the parts that are not, the first one first; state: the network before, None if nobody
    has set it yet; place: the kind ("step", "scoring" or "evaluation") and what finds the samples
    again (step, epoch, ids); finite: the flags of a step; file: what was written of it.
    """

    def __init__(
        self, what: Sequence[str], state: Any, place: dict[str, Any], finite: Any = None
    ) -> None:
        super().__init__()
        self.what, self.state, self.place, self.finite = list(what), state, place, finite
        self.file: Path | None = None

    def __str__(self) -> str:
        where = self.place["where"]
        kept = f"; to look at it: fairgrape replay {self.file}" if self.file else ""
        return (
            f"{said(self.what)} not finite {where}: a smaller learning rate is the usual cure, "
            f"--rollback.retries 3 tries it; complete rounds are kept{kept}"
        )


def parts(loss: Any, batch_stats: Tree, gradients: Tree, params: Tree, moments: Tree) -> Tree:
    """What a step computes, by name; the optimizer's counters are no numbers that can fail."""
    moments = [m for m in jax.tree.leaves(moments) if jnp.issubdtype(m.dtype, jnp.inexact)]
    named = {"loss": loss, "batch statistics": batch_stats, "gradient": gradients}
    return named | {"parameters": params, "optimizer": moments}


def flags(tree: Tree) -> jax.Array:
    """(n,) bool, whether every number of each leaf is finite.

    >>> flags({"a": jnp.ones(3), "b": jnp.array([1, jnp.nan])}).tolist()
    [True, False]
    """
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)])


def made(old: Any, new: Any, loss: jax.Array, gradients: Tree) -> tuple[Any, Seen]:
    """The state after a step, or if that is not finite the one before it, marked.

    old, new: `train.State` before and after; the mark is a step of -1 - its number, and no step is
    made on a marked state.
    """
    found = flags(parts(loss, new.batch_stats, gradients, new.params, new.opt_state))
    good = found.all() & (old.step >= 0)
    held = old._replace(step=jnp.where(old.step < 0, old.step, -1 - old.step))
    state = jax.tree.map(lambda a, b: jnp.where(good, a, b), new, held)
    return state, Seen(jnp.where(good, loss, jnp.nan), found)


def in_step(state: Any, seen: Seen, place: dict[str, Any]) -> NotFiniteError:
    """What to raise for a step that was not made; state: marked, on the devices."""
    before, found = unmarked(state), np.asarray(seen.finite)
    return NotFiniteError(bad_parts(before, found), before, place | {"kind": "step"}, found)


def unmarked(state: Any) -> Any:
    """The state before the step that was not made, on the host, its number as it was."""
    state = jax.tree.map(np.asarray, jax.device_get(state))
    return state._replace(step=np.where(state.step < 0, -1 - state.step, state.step).astype("i4"))


def bad_parts(state: Any, finite: np.ndarray, order: Sequence[str] = ()) -> list[str]:
    """The parts that were not finite, in the order in which a step computes them.

    finite: the row of flags of a step on a state of this structure. order: the names of all
    parameters as the network makes them. The loss comes first, then batch statistics from the first
    layer on, gradients from the last layer back, and what the optimizer made of them.

    >>> from types import SimpleNamespace as Net
    >>> params = {"fc1": {"kernel": jnp.ones(2)}, "fc2": {"kernel": jnp.ones(2)}}
    >>> net = Net(params=params, batch_stats={}, opt_state={})
    >>> bad_parts(net, np.array([0, 0, 1, 1, 1], bool), ["fc1/kernel", "fc2/kernel"])
    ['gradient of fc2/kernel', 'gradient of fc1/kernel']
    """
    like = parts(np.float32(0), state.batch_stats, state.params, state.params, state.opt_state)
    paths = [path for path, _ in jax.tree_util.tree_flatten_with_path(like)[0]]
    rank = {name.rpartition("/")[0]: place for place, name in reversed(list(enumerate(order)))}
    kinds = list(parts(0, 0, 0, 0, []))  # as listed there; a dict's leaves come sorted by key

    def key(path: tuple[Any, ...]) -> tuple[int, int]:
        kind = kinds.index(path[0].key)
        place = rank.get(_name(path).rpartition("/")[0], len(rank))
        return kind, -place if path[0].key == "gradient" else place

    bad = [path for path, good in zip(paths, finite, strict=True) if not good]
    words = [_words(path) for path in sorted(bad, key=key)]
    return list(dict.fromkeys(words))


def _name(path: tuple[Any, ...]) -> str:
    return "/".join(str(getattr(entry, "key", "")) for entry in path[1:])


def _words(path: tuple[Any, ...]) -> str:
    if path[0].key in ("loss", "optimizer"):
        return {"loss": "loss", "optimizer": "moments of the optimizer"}[path[0].key]
    return f"{path[0].key} of {_name(path)}"


def said(what: Sequence[str]) -> str:
    """The first part by name, with the first layer, and how many there are besides.

    >>> said(["loss", "gradient of fc2/kernel", "gradient of fc1/kernel"])
    'loss, gradient of fc2/kernel (and 1 more)'
    """
    limit = 2 if what[0] == "loss" else 1
    more = f" (and {len(what) - limit} more)" if len(what) > limit else ""
    return ", ".join(what[:limit]) + more
