"""Layers of every kind to choose from, and how a choice compares with greedy's."""

import dataclasses

import numpy as np

from fairgrape_jax.selection import select_greedy, shares


# Families are drawn (n, G), a weight after the other.
def correlated(rng, n, groups):
    return rng.lognormal(0, 2, (n, 1)) * rng.lognormal(0, 0.7, (n, groups))


def heavy(rng, n, groups):
    return (rng.pareto(0.8, (n, 1)) + 1e-3) * rng.lognormal(0, 1, (n, groups))


def mixed(rng, n, groups):  # saturates: some groups hang on few weights, others on many
    return rng.lognormal(0, 1, (n, 1)) * rng.lognormal(0, np.linspace(0.5, 3, groups), (n, groups))


def skewed(rng, n, groups):
    return correlated(rng, n, groups) * np.where(np.arange(groups), 1, 1e-3)


def sparse(rng, n, groups):
    return correlated(rng, n, groups) * (rng.random((n, groups)) < 0.15)


FAMILIES = {
    "lognormal": correlated,
    "independent": lambda rng, n, groups: rng.lognormal(0, 1.5, (n, groups)),
    "skewed": skewed,
    "heavy": heavy,
    "heavy independent": lambda rng, n, groups: rng.pareto(0.8, (n, groups)) + 1e-6,
    "sparse": sparse,
    "tied": lambda rng, n, groups: rng.integers(0, 6, (n, groups)),
    "constant": lambda rng, n, groups: np.ones((n, groups)),
    "mixed": mixed,
}


@dataclasses.dataclass(frozen=True)
class Case:
    """One layer: its kind and size, the part of all weights to keep, and the part alive before."""

    family: str
    n: int
    groups: int
    density: float
    alive: float
    seed: int

    def draw(self):
        rng = np.random.default_rng(self.seed)
        columns = FAMILIES[self.family](rng, self.n, self.groups).astype(np.float32)
        previous = rng.random(self.n) < self.alive
        previous[0] = True
        keep = min(max(1, int(self.n * self.density)), int(previous.sum()))
        return np.ascontiguousarray(columns.T), previous, keep


def share_error(importance, previous, mask):
    """The worst |P - P*| / P*, and the largest part that one kept weight has in a group."""
    target, achieved = shares(importance, previous), shares(importance, mask)
    some = target > 0
    kept = importance[:, mask].sum(axis=1, dtype=float)
    largest = (importance[:, mask].max(axis=1) / np.where(kept > 0, kept, 1)).max()
    change = np.abs(achieved[some] / target[some] - 1).max(initial=0) if achieved.any() else 0.0
    return change, largest


@dataclasses.dataclass(frozen=True)
class Comparison:
    """differ: weights that greedy keeps and the choice does not; allowed: how many may be; error
    and greedy: the share errors; weight: the largest share of a kept weight."""

    case: Case
    differ: int
    allowed: float
    error: float
    greedy: float
    weight: float
    passes: int
    converged: bool

    @property
    def fair(self):
        """The share error is not above greedy's by more than one weight's share."""
        return self.error <= self.greedy + self.weight + 1e-6

    @property
    def close(self):
        return self.differ <= self.allowed or abs(self.error - self.greedy) <= 1e-6


def compare(case, solve, finish):
    """Hold `solve(importance, previous, keep, finish=...)` against greedy."""
    importance, previous, keep = case.draw()
    mask, info = solve(importance, previous, keep, finish=finish)
    mask = np.asarray(mask)
    assert mask.sum() == keep, case
    assert not np.any(mask & ~previous), case
    reference = select_greedy(importance, previous, keep)
    part = 1e-4 if finish == "greedy" else 0.005 if case.n >= 10_000 else 0.02
    error, weight = share_error(importance, previous, mask)
    assert abs(float(info.share_error) - error) <= 1e-4 * max(error, 1e-2), case
    return Comparison(
        case=case,
        differ=int((reference & ~mask).sum()),
        allowed=max(2 * case.groups, part * keep),
        error=error,
        greedy=share_error(importance, previous, reference)[0],
        weight=weight,
        passes=int(info.passes),
        converged=bool(info.converged),
    )


def table(found):
    """Lines: for each family, how many layers are identical and not converged, and the worst."""
    lines = ["family             layers  identical  not found  worst/allowed  passes  of layer"]
    for family in FAMILIES:
        mine = [c for c in found if c.case.family == family]
        if not mine:
            continue
        worst = max(mine, key=lambda c: c.differ / c.allowed)
        lines.append(
            f"{family:18} {len(mine):6} {sum(c.differ == 0 for c in mine):10} "
            f"{sum(not c.converged for c in mine):10} {worst.differ / worst.allowed:14.2f} "
            f"{sum(c.passes for c in mine) / len(mine):7.1f}  "
            f"n {worst.case.n}, G {worst.case.groups}, density {worst.case.density}, "
            f"alive {worst.case.alive}: {worst.differ} differ"
        )
    return "\n".join(lines)


N = 12_000  # weights of a layer that is no small one


def drawn(family="lognormal", n=N, groups=3, density=0.2, alive=0.8, seed=5):
    return Case(family, n, groups, density, alive, seed).draw()


def tree(seed=0, groups=3):
    shapes = {"conv": (3, 5, 16, 50), "dense": (100, 120), "head": (10, 5)}
    rng = np.random.default_rng(seed)
    importance, mask = {}, {}
    for name, shape in shapes.items():
        mask[name] = {"kernel": rng.random(shape) < 0.9, "bias": None}
        scores = rng.lognormal(0, 2, (1, *shape)) * rng.lognormal(0, 1, (groups, *shape))
        importance[name] = {"kernel": (scores * mask[name]["kernel"]).astype(np.float32)}
        importance[name]["bias"] = None
    return importance, mask
