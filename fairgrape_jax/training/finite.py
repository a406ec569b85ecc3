"""Numbers that are not finite: found within the step that made them, and named.

A step looks at what it has computed, part by part, and returns a row of flags that stays on the
device. Where one part is not finite the step is not made: the state stays as it was before, and a
flag beside it holds up every later step. So the host, which reads the loss of a step while the
device is at the next one, still has the state that the step began with.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fairgrape_jax.errors import TrainingError
from fairgrape_jax.masks import Tree
from fairgrape_jax.training.state import Carry, State


class StepReport(NamedTuple):
    """What a training step reports.

    Attributes:
        loss: () float32, NaN if anything was not finite, so that one number tells the host.
        finite: (n,) bool, which parts were, in the order of `parts`.
    """

    loss: jax.Array
    finite: jax.Array


@dataclasses.dataclass(frozen=True)
class NotFinite:
    """A number that is not finite: which, where, and what it takes to see it again.

    Attributes:
        kind: what was under way.
        where: the place in words, as in "at step 7".
        parts: the names of what is not finite, the first one first.
        state: the network before, in NumPy arrays.
        details: what finds the samples again, in plain values: "ids", and "step", "epoch",
            "step_in_epoch" and "rate", or "seed", "micro_batch" and "over".
        carried: what ingredients of retraining carried before, in NumPy arrays; () for nothing.
    """

    kind: Literal["step", "scoring", "evaluation"]
    where: str
    parts: tuple[str, ...]
    state: State
    details: Mapping[str, Any]
    carried: Tree = ()


class NotFiniteError(TrainingError):
    """Raised for a number that is not finite.

    Attributes:
        record: what is known of it.
    """

    def __init__(self, record: NotFinite, hint: str = "") -> None:
        """Make the line that a user reads; the hint ends it."""
        super().__init__(
            f"{summary(record.parts)} not finite {record.where}: a smaller learning rate is the "
            f"usual cure, --execution.rollback.retries 3 tries it; complete rounds are kept{hint}"
        )
        self.record = record


def parts(loss: Tree, batch_stats: Tree, gradients: Tree, params: Tree, moments: Tree) -> Tree:
    """What a step computes, by name; the optimizer's counters are no numbers that can fail.

    Args:
        loss: () float32.
        batch_stats: the new running statistics.
        gradients: a tree like the parameters.
        params: the new parameters.
        moments: the optimizer's new state.
    """
    moments = jax.tree.map(lambda m: m if jnp.issubdtype(m.dtype, jnp.inexact) else None, moments)
    named = {"loss": loss, "batch statistics": batch_stats, "gradient": gradients}
    return named | {"parameters": params, "optimizer": moments}


def flags(tree: Tree) -> jax.Array:
    """(n,) bool, whether every number of each leaf is finite.

    Args:
        tree: a pytree of arrays.

    Example:
        >>> flags({"a": jnp.ones(3), "b": jnp.array([1, jnp.nan])}).tolist()
        [True, False]
    """
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)])


def flags_by_name(tree: Tree) -> jax.Array:
    """What `flags` gives, from one pass over the leaves of the same name and shape.

    A CPU takes as long for this as to read memory. What an elementwise update makes of a gradient,
    the parameter and its moments is not even written: it is computed where it is looked at.

    Args:
        tree: a dict of pytrees of arrays, as `parts` makes it; the keys below its own are the name.

    Example:
        >>> flags_by_name({"gradient": {"w": jnp.ones(2)}, "new": {"w": jnp.array([1, jnp.inf])}})
        Array([ True, False], dtype=bool)
    """
    paths, leaves = zip(*jax.tree_util.tree_flatten_with_path(tree)[0], strict=True)
    named: dict[Any, list[int]] = {}
    for place, (path, leaf) in enumerate(zip(paths, leaves, strict=True)):
        named.setdefault((_parameter_name(path).strip("/"), leaf.shape), []).append(place)
    bits = np.iinfo(np.uint8).bits
    bytes_of = [p[i : i + bits] for p in named.values() for i in range(0, len(p), bits)]
    byte, bit = np.zeros((2, len(leaves)), np.uint8 if len(bytes_of) < 256 else np.int32)
    for number, places in enumerate(bytes_of):
        byte[places], bit[places] = number, range(len(places))
    bad = jnp.stack([_which_are_bad([leaves[place] for place in places]) for places in bytes_of])
    return (bad[byte] >> bit.astype(np.uint8)) & 1 == 0


def _which_are_bad(leaves: Sequence[jax.Array]) -> jax.Array:
    """() uint8: a bit for each of up to 8 leaves of one shape, set where it is not finite."""
    each = [
        jnp.where(jnp.isfinite(leaf), jnp.uint8(0), jnp.uint8(1 << bit))
        for bit, leaf in enumerate(leaves)
    ]
    some = functools.reduce(jnp.bitwise_or, each)
    return jax.lax.reduce(some, jnp.uint8(0), jax.lax.bitwise_or, tuple(range(some.ndim)))


def accept(
    carry: Carry,
    new: State,
    loss: jax.Array,
    gradients: Tree,
    carried: Tree = (),
    *,
    make: Callable[[], State] | None = None,
) -> tuple[Carry, StepReport]:
    """The new state if all of the step is finite, else the one before it, and no step after it.

    Args:
        carry: what the step began with.
        new: the state that the step made.
        loss: () float32, over all devices.
        gradients: a tree like the parameters, over all devices.
        carried: what ingredients carry to the next step, as in `Carry`.
        make: makes `new` once more: a CPU does it in place of the old state, once it is known to be
            finite, which takes a tenth of the time of writing it elsewhere and copying it.

    Returns:
        What the step ends with, and what it reports: the loss, NaN where not all is finite, and
        which of its parts are.
    """
    computed = parts(loss, new.batch_stats, gradients, new.params, new.opt_state)
    finite = jax.lax.platform_dependent(computed, cpu=flags_by_name, default=flags)
    good = finite.all() & carry.finite
    state, carried = choose(
        good,
        (new, carried),
        (carry.state, carry.carried),
        make and (lambda: (make(), carried)),
    )
    return Carry(state, good, carried), StepReport(jnp.where(good, loss, jnp.nan), finite)


def choose(
    condition: jax.Array, new: Tree, old: Tree, make: Callable[[], Tree] | None = None
) -> Tree:
    """`new` where `condition` holds, else `old`.

    One branch on a CPU, which compiles a `where` for each leaf slowly and with much memory. A GPU's
    host would wait for the condition before it can start the next step, so there each leaf is
    chosen on the device, within the fusion that makes it.

    Args:
        condition: () bool.
        new: a tree of arrays.
        old: a tree of the same structure, shapes and dtypes.
        make: makes `new` once more, within the branch.

    Example:
        >>> choose(jnp.array(False), {"a": jnp.ones(2)}, {"a": jnp.zeros(2)})["a"].tolist()
        [0.0, 0.0]
    """

    def branch(condition: jax.Array, new: Tree, old: Tree) -> Tree:
        if make is not None:
            return jax.lax.cond(condition, make, lambda: old)
        return jax.lax.cond(condition, lambda new, _: new, lambda _, old: old, new, old)

    def each_leaf(condition: jax.Array, new: Tree, old: Tree) -> Tree:
        return jax.tree.map(functools.partial(jnp.where, condition), new, old)

    return jax.lax.platform_dependent(condition, new, old, cpu=branch, default=each_leaf)


def to_host(state: State) -> State:
    """A copy of a state in NumPy arrays; on the devices a step may take over its buffers.

    Args:
        state: on the devices.
    """
    return jax.tree.map(np.array, jax.device_get(state))


def bad_parts(state: State, finite: np.ndarray, order: Sequence[str] = ()) -> tuple[str, ...]:
    """The parts that were not finite, in the order in which a step computes them.

    The loss comes first, then batch statistics from the first layer on, gradients from the last
    layer back, and what the optimizer made of them.

    Args:
        state: any state of the structure that the step works on.
        finite: (n,) bool, the flags of `StepReport`.
        order: the names of all parameters as the network makes them.

    Example:
        >>> from types import SimpleNamespace as Net
        >>> params = {"fc1": {"kernel": jnp.ones(2)}, "fc2": {"kernel": jnp.ones(2)}}
        >>> net = Net(params=params, batch_stats={}, opt_state={})
        >>> bad_parts(net, np.array([0, 0, 1, 1, 1], bool), ["fc1/kernel", "fc2/kernel"])
        ('gradient of fc2/kernel', 'gradient of fc1/kernel')
    """
    like = parts(np.float32(0), state.batch_stats, state.params, state.params, state.opt_state)
    paths = [path for path, _ in jax.tree_util.tree_flatten_with_path(like)[0]]
    rank = {name.rpartition("/")[0]: place for place, name in reversed(list(enumerate(order)))}
    kinds = list(parts(0, 0, 0, 0, []))  # as listed there; a dict's leaves come sorted by key

    def sort_key(path: tuple[Any, ...]) -> tuple[int, int]:
        kind = kinds.index(path[0].key)
        place = rank.get(_parameter_name(path).rpartition("/")[0], len(rank))
        return kind, -place if path[0].key == "gradient" else place

    bad = [path for path, good in zip(paths, finite, strict=True) if not good]
    return tuple(dict.fromkeys(_part_name(path) for path in sorted(bad, key=sort_key)))


def _parameter_name(path: tuple[Any, ...]) -> str:
    return "/".join(str(getattr(entry, "key", "")) for entry in path[1:])


def _part_name(path: tuple[Any, ...]) -> str:
    if path[0].key in ("loss", "optimizer"):
        return {"loss": "loss", "optimizer": "moments of the optimizer"}[path[0].key]
    return f"{path[0].key} of {_parameter_name(path)}"


def summary(parts: Sequence[str]) -> str:
    """The first part by name, with the first layer, and how many there are besides.

    Args:
        parts: as `bad_parts` names them; not none.

    Example:
        >>> summary(["loss", "gradient of fc2/kernel", "gradient of fc1/kernel"])
        'loss, gradient of fc2/kernel (and 1 more)'
    """
    limit = 2 if parts[0] == "loss" else 1
    more = f" (and {len(parts) - limit} more)" if len(parts) > limit else ""
    return ", ".join(parts[:limit]) + more
