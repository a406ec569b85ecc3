"""The picture of docs/selection.md: both ways to the same choice, for two groups.

Command:  python -m experiments.selection_picture [docs/images/selection_paths.png]
Greedy's way is drawn pick by pick, Newton's from ends that are far off, pass by pass.
"""

from __future__ import annotations

import sys
from pathlib import Path

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from fairgrape_jax.selection import blocks as bl
from fairgrape_jax.selection import select_greedy
from fairgrape_jax.selection.fixed_point.newton import WIDEST, Fit, State, improve, look
from fairgrape_jax.selection.fixed_point.prefixes import Prefixes, Shells
from fairgrape_jax.selection.fixed_point.threshold import survey

N, KEEP = 20_000, 6_000


def layer() -> np.ndarray:
    """(2, N) importances that the groups share in part; the second group's fall off faster."""
    rng = np.random.default_rng(1)
    apart = np.exp(rng.standard_normal((N, 2)) * [0.9, 1.6])
    together = np.exp(1.2 * rng.standard_normal((N, 1)))
    return np.ascontiguousarray((together * apart).T.astype(np.float32))


def greedy_path(importance: np.ndarray) -> np.ndarray:
    """(KEEP / 50, 2): how far down each group's order greedy has gone, every 50 picks."""
    everyone, lengths = np.ones(N, bool), []
    for keep in range(50, KEEP + 1, 50):
        chosen = select_greedy(importance, everyone, keep)
        lengths.append([_prefix(importance[k], chosen) for k in range(2)])
    return np.array(lengths)


def _prefix(scores: np.ndarray, chosen: np.ndarray) -> int:
    """The length of the longest run of chosen weights from the top of a group's order."""
    in_order = chosen[np.argsort(-scores, kind="stable")]
    return int(np.argmin(in_order)) if not in_order.all() else N


def newton_path(importance: np.ndarray, lengths: tuple[int, int], passes: int) -> np.ndarray:
    """(passes + 1, 2): the prefix lengths after each pass, from the `lengths` to begin with."""
    blocks, _ = bl.pack([jnp.asarray(importance)], [jnp.ones(N, bool)], [0])
    known = survey(blocks, jnp.array([KEEP]))
    sorted_down = -np.sort(-importance, axis=1)
    first = np.array([sorted_down[k, lengths[k]] for k in range(2)], np.float32)
    ends = Prefixes(jnp.asarray(first.view(np.int32))[None], jnp.zeros((1, 2)))
    shells = Shells(ends, jnp.full((1, 2), WIDEST / 4))
    passes_made = jnp.zeros(1, jnp.int32)
    nothing = Fit(shells, jnp.array([jnp.inf]), passes_made)
    state = State(shells, jnp.ones((1, 2), bool), nothing, jnp.zeros(1, bool), passes_made)
    some, path = known.totals.value() > 0, []
    for _ in range(passes + 1):
        ends, width = state.shells
        keys = np.asarray(ends.key)[0].astype(np.int32).view(np.float32)
        path.append([int((importance[k] > keys[k]).sum()) for k in range(2)])
        view = look(blocks, known, state, known.keep)
        active, moves, _, wider = improve(view, state, some)
        state = state._replace(shells=Shells(ends.advance(moves * width), wider), active=active)
    return np.array(path)


def curves(importance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For prefix lengths of the first group: the second's at count KEEP, and at equal retention."""
    ranks = np.argsort(np.argsort(-importance, axis=1, kind="stable"), axis=1)
    parts = importance / importance.sum(axis=1, keepdims=True)
    count, level = [], []
    for length in range(0, KEEP, 100):
        inside = ranks[0] < length
        rest = np.sort(ranks[1, ~inside])
        if inside.sum() < KEEP:
            count.append((length, rest[KEEP - inside.sum() - 1] + 1))
        order = np.argsort(ranks[1])
        new = ~inside[order]
        gain = parts[:, order] * new
        retained = parts[:, inside].sum(axis=1, keepdims=True) + np.cumsum(gain, axis=1)
        equal = np.flatnonzero(retained[1] >= retained[0])
        if len(equal) and equal[0] < KEEP:
            level.append((length, equal[0] + 1))
    return np.array(count), np.array(level)


def main() -> None:
    """Draw."""
    path = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/images/selection_paths.png")
    importance = layer()
    greedy = greedy_path(importance)
    newton = newton_path(importance, (900, 3600), 7)
    count, level = curves(importance)
    figure, axes = plt.subplots(figsize=(6.4, 5.0), constrained_layout=True)
    axes.plot(*count.T, color="0.55", linestyle="--", label=f"{KEEP} weights in the union")
    axes.plot(*level.T, color="0.55", linestyle=":", label="equal parts retained")
    axes.plot(*greedy.T, color="#0072B2", linewidth=2, label="greedy, pick by pick")
    axes.plot(*newton.T, "o-", color="#D55E00", label="Newton, pass by pass")
    for number, point in enumerate(newton[:3]):
        axes.annotate(str(number), point, textcoords="offset points", xytext=(7, 4))
    axes.set(xlabel="prefix of group 1 (weights)", ylabel="prefix of group 2 (weights)")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    print(f"greedy ends at {greedy[-1].tolist()}, Newton at {newton[-1].tolist()}: {path}")


if __name__ == "__main__":
    main()
