"""Newton's method for the ends of the prefixes: every served group retains the same part."""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Bool, Float32, Int32

from fairgrape_jax.selection import blocks as bl
from fairgrape_jax.selection.blocks import Blocks, Fixed
from fairgrape_jax.selection.fixed_point.prefixes import Shells, measure
from fairgrape_jax.selection.fixed_point.sample import Guess, Layer

T = TypeVar("T")  # a tree of arrays

PASSES = 16  # at most
ENOUGH = 32  # weights that the density at an end is to be taken from
WIDEST = 2.0**23  # an octave


class Fit(NamedTuple):
    """The ends that came nearest, and how far was looked there.

    Attributes:
        shells: those ends and widths.
        misfit: how far off the worst group or the count is, in weights.
        passes: how many were made.
    """

    shells: Shells
    misfit: Float32[jax.Array, " L"]
    passes: Int32[jax.Array, " L"]

    @property
    def ray(self) -> Shells:
        """The ends, which move alike against each other as the count grows: by the widest width."""
        width = self.shells.width
        widest = width.max(axis=1, keepdims=True)
        return Shells(self.shells.ends, jnp.broadcast_to(widest, width.shape))


class State(NamedTuple):
    """Where the search stands.

    Attributes:
        shells: where to look now.
        active: the groups taken to be served.
        best: what came nearest so far.
        done: the segments that are solved.
        passes: made in each.
    """

    shells: Shells
    active: Bool[jax.Array, "L G"]
    best: Fit
    done: Bool[jax.Array, " L"]
    passes: Int32[jax.Array, " L"]


class View(NamedTuple):
    """What a pass sees at the ends.

    Attributes:
        level: what each group has retained, less half a weight, since greedy ends with a weight too
            many.
        near: weights per width that come within as an end moves on.
        single: the part that one of them has in the importance of its group.
        dense: the part of group k that comes within per width as the end of j moves on, (k, j).
        missing: weights that are still to come within.
    """

    level: Float32[jax.Array, "L G"]
    near: Float32[jax.Array, "L G"]
    single: Float32[jax.Array, "L G"]
    dense: Float32[jax.Array, "L G G"]
    missing: Float32[jax.Array, " L"]


def newton(
    blocks: Blocks,
    layer: Layer,
    guess: Guess,
    target: Int32[jax.Array, " L"],
    tolerance: Float32[jax.Array, " L"],
) -> Fit:
    """Ends near a guess at which `target` weights are within, and the served groups level.

    Only busy layers are solved. No step is longer than two widths; widths follow the steps, and
    grow where too little was seen. A step that made matters worse is taken back, and the next one
    looks less far. The best ends seen are what is returned.

    Args:
        blocks: the weights.
        layer: what is known of them.
        guess: where to begin.
        target: how many weights are to be within.
        tolerance: the misfit to be content with.
    """

    def go_on(s: State) -> jax.Array:
        return jnp.any(~s.done) & (s.passes.max() < PASSES)

    def step(s: State) -> State:
        view = look(blocks, layer, s, target)
        some = layer.totals.value() > 0
        active, moves, misfit, width = improve(view, s, some)
        worse = misfit > 2 * s.best.misfit + 2
        passes = s.passes + (~s.done).astype(jnp.int32)
        here = Fit(s.shells, misfit, passes)
        best = choose((misfit < s.best.misfit) & ~s.done, here, s.best)
        narrow = jnp.where(worse[:, None], s.best.shells.width / 16, width)
        back = choose(worse, s.best.shells.ends, s.shells.ends)
        still = (s.done | worse)[:, None]
        shells = Shells(
            back.advance(jnp.where(still, 0, moves * s.shells.width)),
            jnp.clip(narrow, 1 / blocks.size.astype(jnp.float32)[:, None], WIDEST),
        )
        return State(
            shells=shells,
            active=active,
            best=best._replace(passes=passes),
            done=s.done | (best.misfit <= tolerance),
            passes=passes,
        )

    zero = jnp.zeros(len(target), jnp.int32)
    nothing = Fit(guess.shells, jnp.full(len(target), jnp.inf, jnp.float32), zero)
    first = State(guess.shells, guess.active, nothing, ~layer.busy, zero)
    return lax.while_loop(go_on, step, first).best


def look(blocks: Blocks, layer: Layer, s: State, target: Int32[jax.Array, " L"]) -> View:
    """One pass over the weights; what it says of segments that are done means nothing.

    Args:
        blocks: the weights.
        layer: what is known of them.
        s: where the search stands.
        target: how many weights are to be within.
    """
    groups = s.shells.width.shape[1]
    measured = measure(blocks, s.shells, layer.most, ~s.done)
    sums = bl.add_floats(measured[:, :groups], layer.totals.scale[..., None], blocks)
    counts = bl.add_integers(measured[:, groups], blocks)
    totals = layer.totals.value()[..., None]
    near = bl.to_float(counts[:, :groups]) / 2  # a shell is two widths wide
    dense = sums.value()[..., :groups] / jnp.where(totals > 0, totals, 1) / 2
    single = jnp.diagonal(dense, axis1=1, axis2=2) / jnp.where(near > 0, near, 1)
    level = levels(sums.column(groups), layer.totals, layer.most) - 0.5 * single
    side = counts[:, groups]
    missing = target - jnp.where(layer.most, layer.alive - side, side)
    return View(level, near, single, dense, bl.to_float(missing))


def improve(view: View, s: State, some: Bool[jax.Array, "L G"]) -> tuple[jax.Array, ...]:
    """The next step from what a pass saw.

    Args:
        view: what it saw.
        s: where it looked.
        some: the groups of any importance.

    Returns:
        Who is served (L, G), the moves in widths (L, G), the misfit (L,), and the widths to look at
        then (L, G).
    """
    moving = some & (view.near > 0)
    trust = 1 / jnp.square(jnp.maximum(view.single, 1e-20))  # a level is known to within a weight
    first = _mean(view.level, trust, s.active & moving)
    active = s.active | (some & (view.level < first))
    served = active & moving
    mean = _mean(view.level, trust, served)
    behind = mean - view.level
    starving = some & (behind > 0) & ~moving  # nothing in sight: further on
    off = jnp.where(served, jnp.abs(behind) / jnp.where(served, view.single, 1), 0)
    worst = jnp.where(starving, jnp.inf, off).max(axis=1)
    misfit = jnp.maximum(worst, jnp.abs(view.missing) / (2 * some.shape[1]))

    due = jnp.where(served & (off > 0.5), behind, 0)
    balance, growth, crowd = solve(view, served, due)
    steps_to_count = (view.missing / crowd)[:, None]
    toward_count = growth * steps_to_count
    toward_count = toward_count / jnp.maximum(jnp.abs(toward_count).max(axis=1, keepdims=True), 1)
    far = jnp.where(active, jnp.sign(steps_to_count), 0)  # beyond what was in sight: all ends alike
    toward_count = jnp.where(jnp.abs(steps_to_count) < 1, toward_count, far)
    moves = jnp.clip(balance, -1, 1) + bl.to_float(starving) + toward_count

    # Ends that need not move now may have to as others do: half of the largest step, at least.
    steps = jnp.abs(moves) * s.shells.width
    in_sight = jnp.maximum(steps, 0.5 * jnp.where(served, steps, 0).max(axis=1, keepdims=True))
    factor = jnp.where(2 * view.near < ENOUGH, 2.0, jnp.clip(in_sight / s.shells.width, 0.25, 2.0))
    return active, moves, misfit, s.shells.width * factor


def solve(
    view: View, served: Bool[jax.Array, "L G"], due: Float32[jax.Array, "L G"]
) -> tuple[Float32[jax.Array, "L G"], Float32[jax.Array, "L G"], Float32[jax.Array, " L"]]:
    """The moves that level the served groups at one count, and those that add to the count.

    Of the unknowns, the moves and what all levels gain together, the equations are one for each
    served group's level and one for the count.

    Args:
        view: what a pass saw.
        served: the groups whose ends move.
        due: what each level should gain.

    Returns:
        The levelling moves; the growing ones, per crowd; and the crowd, the weights that come
        within per width at all ends together.
    """
    groups = served.shape[1]
    matrix = jnp.where(served[:, None], view.dense, 0)
    matrix = jnp.where(served[:, :, None], matrix, jnp.eye(groups, dtype=jnp.float32)[None])
    size = jnp.abs(matrix).max(axis=2)
    together = jnp.where(served, -size.max(axis=1, keepdims=True), 0)
    matrix = jnp.concatenate([matrix, together[..., None]], axis=2) / size[..., None]
    near = jnp.where(served, view.near, 0)
    crowd = jnp.maximum(near.sum(axis=1), 0.5)
    nobody = bl.to_float(~served.any(axis=1))  # then what all gain is anything
    last = jnp.concatenate([near / crowd[:, None], nobody[:, None]], axis=1)
    ridge = 1e-7 * jnp.eye(groups + 1, dtype=jnp.float32)
    matrix = jnp.concatenate([matrix, last[:, None]], axis=1) + ridge[None]
    level = jnp.pad(due / size, ((0, 0), (0, 1)))
    count = jnp.zeros_like(level).at[:, groups].set(1.0)
    solution = jnp.linalg.solve(matrix, jnp.stack([level, count], axis=2))[:, :groups]
    solution = jnp.where(jnp.isfinite(solution), solution, 0)
    return solution[..., 0], solution[..., 1], crowd


def levels(side: Fixed, totals: Fixed, most: Bool[jax.Array, " L"]) -> Float32[jax.Array, "L G"]:
    """What each group has retained, r_k = S_k / T_k, up to a constant of the segment.

    Args:
        side: what is retained or, where `most` is, what is lost, and the level is counted from 1:
            the smaller part rounds finer.
        totals: each group's importance alive.
        most: the segments of which more is retained than lost.

    Returns:
        The levels, infinite for a group without importance.
    """
    total = totals.value()
    some = total > 0
    part = side.value() / jnp.where(some, total, 1)
    return jnp.where(some, jnp.where(most[:, None], -part, part), jnp.inf)


def choose(which: Bool[jax.Array, " L"], new: T, old: T) -> T:
    """For each segment, the arrays of one tree or the other.

    Args:
        which: the segments of the first tree.
        new: a tree of arrays (L, ...).
        old: likewise.
    """
    return jax.tree.map(
        lambda a, b: jnp.where(which.reshape(-1, *[1] * (a.ndim - 1)), a, b), new, old
    )


def _mean(
    level: Float32[jax.Array, "L G"],
    trust: Float32[jax.Array, "L G"],
    served: Bool[jax.Array, "L G"],
) -> Float32[jax.Array, "L 1"]:
    """The mean of the served groups' levels, weighted by trust."""
    trust = jnp.where(served, trust, 0)
    trust = trust / jnp.maximum(trust.max(axis=1, keepdims=True), 1e-37)
    total = jnp.maximum(trust.sum(axis=1, keepdims=True), 1)
    return jnp.where(served, level * trust, 0).sum(axis=1, keepdims=True) / total
