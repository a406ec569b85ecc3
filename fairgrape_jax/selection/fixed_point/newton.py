"""Newton's method for the ends of the prefixes: every served group retains the same part."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from fairgrape_jax.selection import blocks as bl
from fairgrape_jax.selection.blocks import Blocks, Fixed
from fairgrape_jax.selection.fixed_point.prefixes import Prefixes, measure
from fairgrape_jax.selection.fixed_point.sample import Layer

PASSES = 16  # at most
ENOUGH = 32  # weights that the density at an end is to be taken from
WIDEST = 2.0**23  # an octave


class Fit(NamedTuple):
    """The ends that came nearest, and how far was looked there; arrays over segments.

    misfit: (L,), how far off the worst group or the count is, in weights; passes: (L,).
    """

    ends: Prefixes
    width: jax.Array
    misfit: jax.Array
    passes: jax.Array

    @property
    def ray(self) -> jax.Array:
        """(L, G): how far the ends move against each other as the count grows: alike."""
        widest = self.width.max(axis=1, keepdims=True)
        return jnp.broadcast_to(widest, self.width.shape)


class State(NamedTuple):
    """Where the search stands; active: (L, G), the groups taken to be served."""

    ends: Prefixes
    width: jax.Array
    active: jax.Array
    best: Fit
    done: jax.Array
    passes: jax.Array


class View(NamedTuple):
    """What a pass sees at the ends; (L, G) but for the last two.

    level: what each group has retained, less half a weight, since greedy ends with a weight too
    many; near: weights per width that come within as an end moves on; single: the part that one of
    them has in the importance of its group; dense: (L, G, G), the part of group k that comes within
    per width as the end of j moves on; missing: (L,), weights still wanted.
    """

    level: jax.Array
    near: jax.Array
    single: jax.Array
    dense: jax.Array
    missing: jax.Array


def newton(
    blocks: Blocks,
    layer: Layer,
    ends: Prefixes,
    width: jax.Array,
    active: jax.Array,
    target: jax.Array,
    tolerance: jax.Array,
    axis: str | None,
) -> Fit:
    """Ends near `ends` at which `target` (L,) weights are within, and the served groups level.

    width: (L, G), how far to look at either side of an end; active: (L, G), the groups taken to be
    served: one that is not, because others bring it more than its share, keeps its end unless it
    falls behind. tolerance: (L,), the misfit to be content with. Only busy layers are solved.
    No step is longer than two widths; widths follow the steps, and grow where too little was seen.
    A step that made matters worse is taken back, and the next one looks less far. The best ends
    seen are what is returned.
    """

    def go_on(s: State) -> jax.Array:
        return jnp.any(~s.done) & (s.passes.max() < PASSES)

    def step(s: State) -> State:
        view = look(blocks, layer, s.ends, s.width, target, s.done, axis)
        some = layer.totals.value() > 0
        active, moves, misfit, width = improve(view, s, some)
        worse = misfit > 2 * s.best.misfit + 2
        passes = s.passes + (~s.done).astype(jnp.int32)
        here = Fit(s.ends, s.width, misfit, passes)
        best = choose((misfit < s.best.misfit) & ~s.done, here, s.best)
        narrow = jnp.where(worse[:, None], s.best.width / 16, width)
        back = choose(worse, s.best.ends, s.ends)
        still = (s.done | worse)[:, None]
        return State(
            ends=back.advance(jnp.where(still, 0, moves * s.width)),
            width=jnp.clip(narrow, 1 / blocks.size.astype(jnp.float32)[:, None], WIDEST),
            active=active,
            best=best._replace(passes=passes),
            done=s.done | (best.misfit <= tolerance),
            passes=passes,
        )

    zero = jnp.zeros(len(target), jnp.int32)
    nothing = Fit(ends, width, jnp.full(len(target), jnp.inf, jnp.float32), zero)
    return lax.while_loop(go_on, step, State(ends, width, active, nothing, ~layer.busy, zero)).best


def look(
    blocks: Blocks,
    layer: Layer,
    ends: Prefixes,
    width: jax.Array,
    target: jax.Array,
    done: jax.Array,
    axis: str | None,
) -> View:
    """One pass over the weights; what it says of segments that are `done` means nothing."""
    groups = width.shape[1]
    measured = measure(blocks, ends, width, layer.most, ~done)
    sums = bl.add(measured[:, :groups], layer.totals.scale[..., None], blocks, axis)
    counts = bl.count(measured[:, groups], blocks, axis)
    totals = layer.totals.value()[..., None]
    near = bl.to_float(counts[:, :groups]) / 2  # a shell is two widths wide
    dense = sums.value()[..., :groups] / jnp.where(totals > 0, totals, 1) / 2
    single = jnp.diagonal(dense, axis1=1, axis2=2) / jnp.where(near > 0, near, 1)
    level = levels(sums.column(groups), layer.totals, layer.most) - 0.5 * single
    side = counts[:, groups]
    missing = target - jnp.where(layer.most, layer.alive - side, side)
    return View(level, near, single, dense, bl.to_float(missing))


def improve(view: View, s: State, some: jax.Array) -> tuple[jax.Array, ...]:
    """Who is served, the next moves in widths, the misfit, and the widths to look at then.

    some: (L, G), the groups of any importance.
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
    steps_ahead = (view.missing / crowd)[:, None]
    ahead = growth * steps_ahead
    ahead = ahead / jnp.maximum(jnp.abs(ahead).max(axis=1, keepdims=True), 1)
    far = jnp.where(active, jnp.sign(steps_ahead), 0)  # beyond what was seen: all ends alike
    ahead = jnp.where(jnp.abs(steps_ahead) < 1, ahead, far)
    moves = jnp.clip(balance, -1, 1) + bl.to_float(starving) + ahead

    # Ends that need not move now may have to as others do: half of the largest step, at least.
    steps = jnp.abs(moves) * s.width
    seen = jnp.maximum(steps, 0.5 * jnp.where(served, steps, 0).max(axis=1, keepdims=True))
    factor = jnp.where(2 * view.near < ENOUGH, 2.0, jnp.clip(seen / s.width, 0.25, 2.0))
    return active, moves, misfit, s.width * factor


def solve(view: View, served: jax.Array, due: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The moves that level the served groups at one count, and those that add to the count.

    due: (L, G), what each level should gain. Of the unknowns, the moves and what all levels gain
    together, the equations are one for each served group's level and one for the count; growth is
    per `crowd`, the weights that come within per width at all ends together.
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


def levels(side: Fixed, totals: Fixed, most: jax.Array) -> jax.Array:
    """What each group has retained, r_k = S_k / T_k, up to a constant of the segment; (L, G).

    side: what is retained or, where `most` is, what is lost, and the level is counted from 1: the
    smaller part rounds finer. Infinite for a group without importance.
    """
    total = totals.value()
    some = total > 0
    part = side.value() / jnp.where(some, total, 1)
    return jnp.where(some, jnp.where(most[:, None], -part, part), jnp.inf)


def choose(which: jax.Array, new: Any, old: Any) -> Any:
    """For each segment, the arrays of one tree or the other."""
    return jax.tree.map(
        lambda a, b: jnp.where(which.reshape(-1, *[1] * (a.ndim - 1)), a, b), new, old
    )


def _mean(level: jax.Array, trust: jax.Array, served: jax.Array) -> jax.Array:
    trust = jnp.where(served, trust, 0)
    trust = trust / jnp.maximum(trust.max(axis=1, keepdims=True), 1e-37)
    total = jnp.maximum(trust.sum(axis=1, keepdims=True), 1)
    return jnp.where(served, level * trust, 0).sum(axis=1, keepdims=True) / total
