"""Metrics of a model's predictions by group, with intervals: from labels to differences."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np

from fairgrape_jax.metrics import columns
from fairgrape_jax.metrics.columns import Column
from fairgrape_jax.metrics.counts import (
    Counts,
    accuracy,
    class_metrics,
    f1,
    fnr,
    fpr,
    group_accuracy,
    group_f1,
    group_fnr,
    group_fpr,
    percent,
)
from fairgrape_jax.metrics.estimates import Estimate, Name, Spread, Worst, interval_text
from fairgrape_jax.metrics.extremes import Measure, between, lowest
from fairgrape_jax.metrics.resample import Metric, interval, replicate
from fairgrape_jax.metrics.samples import Samples

LARGEST = 50_000_000  # rates of classes in groups and replicates up to which parity has intervals


def group_selection_rate(counts: Counts, dense: Counts = ()) -> np.ndarray:
    """How often class 1 of two is predicted in each group.

    Args:
        counts: (..., G, 2, 3) of the one task.
        dense: takes no part.

    Returns:
        (..., G) percent.
    """
    return _selected(counts[0])


def selection_rate(counts: Counts, dense: Counts = ()) -> np.ndarray:
    """How often class 1 of two is predicted.

    Args:
        counts: (..., G, 2, 3) of the one task.
        dense: takes no part.

    Returns:
        (...) percent.
    """
    return _selected(counts[0].sum(axis=-3))


def _selected(table: np.ndarray) -> np.ndarray:
    return percent(table[..., 1, 2], table[..., 1].sum(axis=-1))


# By name: over all samples, and of each group.
RATES: dict[str, tuple[Metric, Metric]] = {
    "accuracy": (accuracy, group_accuracy),
    "fpr": (fpr, group_fpr),
    "fnr": (fnr, group_fnr),
    "f1": (f1, group_f1),
}
# Of two classes alone.
RATES_OF_TWO = RATES | {"selection_rate": (selection_rate, group_selection_rate)}


@dataclasses.dataclass(frozen=True)
class GroupMetrics:
    """Rates of a model, or their change against another model, in percent.

    Attributes:
        groups: the names of the groups, in order.
        classes: the classes, in order; FPR, FNR, F1 and selection rate of two are those of the
            second.
        counts: samples of each group.
        ungrouped: samples of no group, which count overall alone.
        overall: each rate over all samples.
        by_group: each rate of each group, `by_group[group]["accuracy"]`.
        overall_changes: where a dense model is compared, each rate minus the dense model's.
        changes: the same of each group; intervals are those of the paired bootstrap.
        parity: the difference and ratio of demographic parity and of equalized odds, as fairlearn
            defines them; of more than two classes those of the class where groups differ most.
        worst: the group of lowest accuracy.
        level: of all intervals.
    """

    groups: tuple[Name, ...]
    classes: tuple[Name, ...]
    counts: dict[Name, int]
    ungrouped: int
    overall: dict[str, Estimate]
    by_group: dict[Name, dict[str, Estimate]]
    overall_changes: dict[str, Estimate]
    changes: dict[Name, dict[str, Estimate]]
    parity: dict[str, Spread]
    worst: Worst
    level: float
    draws: dict[str, np.ndarray]  # of by_group and changes, (R, rates, G)

    def difference(self, of: Literal["by_group", "changes"] = "by_group") -> dict[str, Spread]:
        """Of each rate the highest group's minus the lowest's, in points.

        Args:
            of: rates of the groups, or their changes against the dense model.

        Raises:
            ValueError: changes, and no dense model was compared.
        """
        return self._between(of, "difference")

    def ratio(self) -> dict[str, Spread]:
        """Of each rate the lowest group's over the highest's, in percent."""
        return self._between("by_group", "ratio")

    def rows(self) -> list[dict[str, Any]]:
        """A row per group for a data frame: its samples, and each rate with its interval."""
        return [
            {"group": group, "samples": self.counts[group]}
            | {
                f"{name}{suffix}": value
                for name, estimate in self.by_group[group].items()
                for suffix, value in zip(("", "_low", "_high"), estimate, strict=True)
            }
            for group in self.groups
        ]

    def _between(self, of: Literal["by_group", "changes"], measure: Measure) -> dict[str, Spread]:
        table: Mapping[Name, Mapping[str, Estimate]] = getattr(self, of)
        if not table:
            raise ValueError("difference: of changes against a dense model; give dense=")
        result = {}
        for place, name in enumerate(self.overall):
            values = np.array([[table[group][name].value for group in self.groups]])
            draws = self.draws[of][:, place, None]
            result[name] = _spread(self.groups, values, draws, measure, self.level)
        return result

    def __repr__(self) -> str:
        overall, worst = self.overall["accuracy"], self.worst
        total = sum(self.counts.values()) + self.ungrouped
        return (
            f"GroupMetrics({total:,} samples, {len(self.groups)} groups, {len(self.classes)} "
            f"classes; accuracy {interval_text(overall)}, "
            f"worst {worst.group!r} {interval_text(worst[1:])})"
        )


def group_metrics(
    labels: Column,
    predictions: Column,
    groups: Column,
    dense: Column | None = None,
    *,
    positive: Name | None = None,
    replicates: int | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> GroupMetrics:
    """Rates of each group and between groups, with bootstrap intervals.

    Columns are NumPy's, JAX's, lists, or those of a data frame (pandas, polars, pyarrow).

    Args:
        labels: (N,) classes, numbers or words.
        predictions: (N,) classes.
        groups: (N,) names or numbers; a negative number or an empty cell (None, NaN, "") is no
            group, and counts overall alone.
        dense: (N,) predictions of the model before compression, to compare with.
        positive: the class whose FPR, FNR, F1 and selection rate these are, where there are two;
            the second in order by default. With more classes they are means over the classes.
        replicates: of the bootstrap, which draws samples within each group; 1,000 by default, 200
            where there are very many kinds of samples.
        level: of the intervals.
        seed: of the bootstrap.

    Returns:
        All rates in percent; see `GroupMetrics`.

    Raises:
        ValueError: lengths that differ, missing labels or predictions, or nothing in any group.

    Example:
        >>> labels, groups = [1, 1, 0, 0, 1, 1, 0, 0], ["a"] * 4 + ["b"] * 4
        >>> result = group_metrics(labels, [1, 1, 0, 0, 1, 0, 1, 0], groups)
        >>> result.overall["accuracy"].value, result.by_group["b"]["accuracy"].value
        (75.0, 50.0)
        >>> result.difference()["accuracy"].value, result.ratio()["accuracy"].value
        (50.0, 50.0)
        >>> result.worst.group, result.parity["equalized_odds_difference"].value
        ('b', 50.0)
    """
    _check_options(replicates, level)
    by_name = {"labels": labels, "predictions": predictions, "groups": groups}
    arrays = as_arrays(by_name if dense is None else by_name | {"dense": dense})
    names, group_codes = columns.groups(arrays.pop("groups"))
    if not names:
        raise ValueError("groups: no sample is in a group")
    classes, codes = _class_codes(arrays, positive)
    count, rates = len(names), RATES_OF_TWO if len(classes) == 2 else RATES
    samples = Samples(codes["labels"][:, None], group_codes, [len(classes)], count)
    models = codes["predictions"][None, :, None]
    unpruned = codes.get("dense", codes["predictions"])[None, :, None]
    statistic = partial(_rates, num_groups=count, rates=tuple(rates.values()))
    values = statistic(samples.tally(models), samples.tally(unpruned))
    draws = replicate(statistic, samples, models, unpruned, replicates=replicates, seed=seed)

    def estimates(place: int) -> dict[str, Estimate]:
        return {
            name: _estimate(values[i, place], draws[:, i, place], level)
            for i, name in enumerate(rates)
        }

    by_group = {name: estimates(2 + k) for k, name in enumerate(names)}
    changes = {name: estimates(2 + count + k) for k, name in enumerate(names)}
    worst, low, high = lowest(values[0, 2 : 2 + count], draws[:, 0, 2 : 2 + count], level)
    sizes = np.bincount(group_codes[group_codes >= 0], minlength=count)
    return GroupMetrics(
        groups=tuple(names),
        classes=tuple(classes),
        counts=dict(zip(names, sizes.tolist(), strict=True)),
        ungrouped=int((group_codes < 0).sum()),
        overall=estimates(0),
        by_group=by_group,
        overall_changes=estimates(1) if dense is not None else {},
        changes=changes if dense is not None else {},
        parity=_parity(names, samples, models, len(draws), level=level, seed=seed),
        worst=Worst(names[worst], by_group[names[worst]]["accuracy"].value, low, high),
        level=level,
        draws={"by_group": draws[..., 2 : 2 + count], "changes": draws[..., 2 + count :]},
    )


def _rates(
    counts: Counts, dense: Counts, *, num_groups: int, rates: Sequence[tuple[Metric, Metric]]
) -> np.ndarray:
    """(..., rates, 2 + 2 G) of one model: over all samples and its change, the same by group."""
    counts, dense = ([table[0] for table in each] for each in (counts, dense))
    rows = []
    for overall, of_groups in rates:
        whole, before = (overall(each, ())[..., None] for each in (counts, dense))
        by_group, old = (of_groups(each, ())[..., :num_groups] for each in (counts, dense))
        rows.append(np.concatenate([whole, whole - before, by_group, by_group - old], axis=-1))
    return np.stack(rows, axis=-2)


def _parity(
    names: Sequence[Name],
    samples: Samples,
    models: np.ndarray,
    replicates: int,
    *,
    level: float,
    seed: int,
) -> dict[str, Spread]:
    """Demographic parity and equalized odds: the widest spread over groups of a class's rates."""
    places: Any = slice(1, 2) if samples.classes[0] == 2 else slice(None)

    def statistic(counts: Counts, dense: Counts) -> np.ndarray:
        """(..., 3 C, G): how often each class is predicted, its FPR and its FNR (TPR)."""
        table = counts[0][0][..., : samples.num_groups, :, :]
        selected = percent(table[..., 2], table[..., 1].sum(axis=-1, keepdims=True))
        rates = class_metrics(table)
        rows = [selected, rates["fpr"], rates["recall"]]
        return np.concatenate([np.swapaxes(row[..., places], -1, -2) for row in rows], axis=-2)

    values = statistic(samples.tally(models), ())
    if values.size * replicates > LARGEST:
        draws = np.full((1, *values.shape), np.nan)
    else:
        draws = replicate(statistic, samples, models, models, replicates=replicates, seed=seed)
    width = len(values) // 3
    parts = {"demographic_parity": slice(0, width), "equalized_odds": slice(width, None)}
    measures: tuple[Measure, Measure] = ("difference", "ratio")
    return {
        f"{name}_{measure}": _spread(names, values[part], draws[:, part], measure, level)
        for name, part in parts.items()
        for measure in measures
    }


def _spread(
    names: Sequence[Name], values: np.ndarray, draws: np.ndarray, measure: Measure, level: float
) -> Spread:
    extreme = between(values, draws, measure, level)
    if extreme.row < 0:
        return Spread(extreme.value, extreme.low, extreme.high, None, None)
    return Spread(*extreme[:3], names[extreme.largest], names[extreme.smallest])


def _estimate(value: np.ndarray, draws: np.ndarray, level: float) -> Estimate:
    low, high = interval(draws, level)
    return Estimate(float(value), float(low), float(high))


def _check_options(replicates: int | None, level: float) -> None:
    if replicates is not None and replicates < 1:
        raise ValueError(f"replicates: {replicates} is not at least 1")
    if not 0 < level < 1:
        raise ValueError(f"level: {level} is not between 0 and 1")


def as_arrays(by_name: Mapping[str, Column]) -> dict[str, np.ndarray]:
    """Columns as arrays (N,), all of one length.

    Args:
        by_name: each by the name of its argument.

    Raises:
        ValueError: lengths that differ, or nothing.
    """
    arrays = {name: columns.column(name, column) for name, column in by_name.items()}
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) != 1 or not all(lengths.values()):
        raise ValueError(f"{', '.join(lengths)}: {lengths} samples; give as many of each")
    return arrays


def _class_codes(
    arrays: Mapping[str, np.ndarray], positive: Name | None
) -> tuple[list[Name], dict[str, np.ndarray]]:
    """The classes of all arrays in order, the positive of two last, and each array as numbers."""
    classes, codes = columns.classes(arrays)
    if len(classes) == 1:
        classes.append("(none)")
    if positive is not None:
        if len(classes) != 2 or positive not in classes:
            raise ValueError(f"positive: {positive!r} is not one of two classes, {classes}")
        if positive == classes[0]:
            classes.reverse()
            codes = {name: 1 - code for name, code in codes.items()}
    return classes, codes
