"""Metrics of a model's predictions by group, with intervals: from labels to differences."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from fairgrape_jax.metrics.counts import (
    Counts,
    accuracy,
    f1,
    fnr,
    fpr,
    group_accuracy,
    group_f1,
    group_fnr,
    group_fpr,
    percent,
)
from fairgrape_jax.metrics.resample import Metric, interval, replicate
from fairgrape_jax.metrics.samples import Samples

Column: TypeAlias = ArrayLike  # numbers or words: a list, an array, a column of a data frame
Name: TypeAlias = str | int | float | bool  # of a class or a group, as its column has it
Numbers: TypeAlias = np.ndarray  # of each replicate, or a scalar

# By name: over all samples, and of each group.
RATES: dict[str, tuple[Metric, Metric]] = {
    "accuracy": (accuracy, group_accuracy),
    "fpr": (fpr, group_fpr),
    "fnr": (fnr, group_fnr),
    "f1": (f1, group_f1),
}


class Estimate(NamedTuple):
    """A value and its bootstrap interval.

    Attributes:
        value: percent, or percentage points for differences; NaN where undefined.
        low: the lower end of the interval.
        high: the upper end.
    """

    value: float
    low: float
    high: float


class Worst(NamedTuple):
    """The group that fares worst.

    Attributes:
        group: its name.
        value: its accuracy, percent.
    """

    group: Name
    value: float


@dataclasses.dataclass(frozen=True)
class GroupMetrics:
    """Rates of a model, or their change against another model, in percent.

    Attributes:
        groups: the names of the groups, in order.
        classes: the classes, in order; FPR and FNR of two are those of the second.
        counts: samples of each group.
        overall: each rate over all samples.
        by_group: each rate of each group, `by_group[group]["accuracy"]`.
        changes: where a dense model is compared, each rate of each group minus the dense model's.
        worst: the group of lowest accuracy.
    """

    groups: tuple[Name, ...]
    classes: tuple[Name, ...]
    counts: dict[Name, int]
    overall: dict[str, Estimate]
    by_group: dict[Name, dict[str, Estimate]]
    changes: dict[Name, dict[str, Estimate]]
    worst: Worst
    draws: dict[str, np.ndarray] = dataclasses.field(repr=False)  # (R, G) of each rate
    level: float = 0.95

    def difference(self) -> dict[str, Estimate]:
        """Of each rate the highest group's minus the lowest's, in points.

        The interval is that of these two groups, which the samples chose: it is not one of the
        largest difference of any two.
        """
        return self._between(lambda high, low: high - low)

    def ratio(self) -> dict[str, Estimate]:
        """Of each rate the lowest group's over the highest's, in percent; as `difference`."""

        return self._between(lambda high, low: percent(low, high))

    def _between(self, combine: Callable[[Numbers, Numbers], Numbers]) -> dict[str, Estimate]:
        result = {}
        for name in self.overall:
            values = np.array([self.by_group[group][name].value for group in self.groups])
            if np.isnan(values).all():
                result[name] = Estimate(np.nan, np.nan, np.nan)
                continue
            high, low = int(np.nanargmax(values)), int(np.nanargmin(values))
            draws = combine(self.draws[name][:, high], self.draws[name][:, low])
            result[name] = _estimate(combine(values[high], values[low]), draws, self.level)
        return result


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

    Args:
        labels: (N,) classes: numbers, words, a column of a data frame.
        predictions: (N,) classes.
        groups: (N,) names or numbers; a negative number or None is no group, and counts overall
            alone.
        dense: (N,) predictions of the model before compression, to compare with.
        positive: the class whose FPR, FNR and F1 these are, where there are two; the second in
            order by default. With more classes they are means over the classes.
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
        >>> result.difference()["accuracy"].value, result.ratio()["accuracy"].value, result.worst
        (50.0, 50.0, Worst(group='b', value=50.0))
    """
    columns = {"labels": labels, "predictions": predictions, "groups": groups}
    if dense is not None:
        columns["dense"] = dense
    arrays = _columns(columns)
    names, group_codes = _group_codes(arrays.pop("groups"))
    classes, codes = _class_codes(arrays, positive)
    samples = Samples(codes["labels"][:, None], group_codes, [len(classes)], len(names))
    models = codes["predictions"][None, :, None]
    unpruned = codes.get("dense", codes["predictions"])[None, :, None]
    rates = partial(_rates, num_groups=len(names))
    values = rates(samples.tally(models), samples.tally(unpruned))
    draws = replicate(rates, samples, models, unpruned, replicates=replicates, seed=seed)

    def estimates(column: int) -> dict[str, Estimate]:
        return {
            name: _estimate(values[i, column], draws[:, i, column], level)
            for i, name in enumerate(RATES)
        }

    count = len(names)
    by_group = {name: estimates(1 + k) for k, name in enumerate(names)}
    worst = min(names, key=lambda name: by_group[name]["accuracy"].value)
    changes = {name: estimates(1 + count + k) for k, name in enumerate(names)}
    sizes = np.bincount(group_codes[group_codes >= 0], minlength=count)
    return GroupMetrics(
        groups=tuple(names),
        classes=tuple(classes),
        counts=dict(zip(names, sizes.tolist(), strict=True)),
        overall=estimates(0),
        by_group=by_group,
        changes=changes if dense is not None else {},
        worst=Worst(worst, by_group[worst]["accuracy"].value),
        draws={name: draws[:, i, 1 : 1 + count] for i, name in enumerate(RATES)},
        level=level,
    )


def _rates(counts: Counts, dense: Counts, *, num_groups: int) -> np.ndarray:
    """(..., rates, 1 + 2 G) of one model: over all samples, of each group, and its change."""
    rows = []
    for overall, of_groups in RATES.values():
        of_each, of_dense = (of_groups(x, ())[0, ..., :num_groups] for x in (counts, dense))
        whole = overall(counts, ())[0, ..., None]
        rows.append(np.concatenate([whole, of_each, of_each - of_dense], axis=-1))
    return np.stack(rows, axis=-2)


def _estimate(value: Numbers, draws: np.ndarray, level: float) -> Estimate:
    low, high = interval(draws, level)
    return Estimate(float(value), float(low), float(high))


def _columns(columns: Mapping[str, Column]) -> dict[str, np.ndarray]:
    """Columns as arrays (N,), all of one length."""
    arrays = {name: _as_array(name, column) for name, column in columns.items()}
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) != 1 or not lengths["labels"]:
        raise ValueError(f"labels, predictions, groups: {lengths} samples; give as many of each")
    return arrays


def _as_array(name: str, column: Column) -> np.ndarray:
    array = np.asarray(column)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise ValueError(f"{name}: {array.shape}; one value for each sample, (N,), is expected")
    return array


def _missing(array: np.ndarray) -> np.ndarray:
    if array.dtype.kind == "f":
        return np.isnan(array)
    if array.dtype.kind == "O":
        return np.array([x is None or x != x for x in array.tolist()], bool)
    return np.zeros(len(array), bool)


def _class_codes(
    arrays: Mapping[str, np.ndarray], positive: Name | None
) -> tuple[list[Name], dict[str, np.ndarray]]:
    """The classes of all arrays in order, the positive of two last, and each array as numbers."""
    for name, array in arrays.items():
        if (count := int(_missing(array).sum())) > 0:
            raise ValueError(f"{name}: {count} samples have none")
    kinds = {name: "words" if a.dtype.kind in "OUS" else "numbers" for name, a in arrays.items()}
    if len(set(kinds.values())) > 1:
        raise ValueError(f"labels, predictions: classes are of several kinds, {kinds}")
    classes: list[Name] = sorted(set().union(*[array.tolist() for array in arrays.values()]))
    if len(classes) == 1:
        classes.append("(none)")
    if positive is not None:
        if len(classes) != 2 or positive not in classes:
            raise ValueError(f"positive: {positive!r} is not one of two classes, {classes}")
        classes.sort(key=lambda name: name == positive)
    place = {name: code for code, name in enumerate(classes)}
    return classes, {
        name: np.array([place[x] for x in array.tolist()], np.int64)
        for name, array in arrays.items()
    }


def _group_codes(array: np.ndarray) -> tuple[list[Name], np.ndarray]:
    """The names of the groups, and the number of each sample's, -1 for none."""
    ungrouped = _missing(array)
    if array.dtype.kind in "if":
        ungrouped = ungrouped | (array < 0)
    names = sorted(set(array[~ungrouped].tolist()))
    if not names:
        raise ValueError("groups: no sample is in a group")
    place = {name: code for code, name in enumerate(names)}
    cells = zip(array.tolist(), ungrouped.tolist(), strict=True)
    return names, np.array([-1 if none else place[cell] for cell, none in cells], np.int64)
