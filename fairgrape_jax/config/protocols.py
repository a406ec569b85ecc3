"""What differs between methods: their variants, and what the official code does for each."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, TypedDict

from fairgrape_jax.config.experiment import Epoch, Experiment, Point, Stage
from fairgrape_jax.config.forms import as_word
from fairgrape_jax.config.variants import Allocation
from fairgrape_jax.methods import METHODS, Method
from fairgrape_jax.scoring.importance import Formula
from fairgrape_jax.selection import Deficit, Select


class ScoringChanges(TypedDict, total=False):
    """Fields of `Scoring`, with the values that a method's official code has for them."""

    allocation: Allocation
    deficit: Deficit
    select: Select
    advances: int
    fraction: float
    formula: Formula
    samples: int
    micro_batch: int


class Changes(TypedDict, total=False):
    """Fields of `Experiment`, with the values that a method's official code has for them."""

    start: Point
    rewind: Point
    schedule: str
    rounds: int
    densities: tuple[float, ...]
    retrain: Stage
    scoring: ScoringChanges


# What the code of the FairGRAPE paper does for each method, as fields of the experiment; synflow
# as its own authors' code does. Not reproduced are the defects of that code, docs/method.md.
OFFICIAL: dict[str, Changes] = {
    "fairgrape": {
        "start": "dense",
        "scoring": {
            "allocation": "uniform",
            "deficit": "absolute",
            "select": "greedy",
            "advances": 2,
            "fraction": 1.0,
            "formula": "sum-of-squares",
        },
    },
    "magnitude": {
        "start": "dense",
        "schedule": "one-shot",
        "densities": (),
        "scoring": {"allocation": "uniform"},
        "retrain": Stage(),
    },
    "lottery": {"start": "dense", "rewind": "dense", "scoring": {"allocation": "uniform"}},
    "snip": {
        "start": "initial",
        "schedule": "one-shot",
        "densities": (),
        "scoring": {"allocation": "global", "samples": 64, "micro_batch": 64},
        "retrain": Stage(),
    },
    "grasp": {
        "start": "initial",
        "schedule": "one-shot",
        "densities": (),
        "scoring": {"allocation": "global", "samples": 10},
        "retrain": Stage(),
    },
    "synflow": {
        "start": "initial",
        "schedule": "geometric",
        "rounds": 100,
        "densities": (),
        "scoring": {"allocation": "global"},
        "retrain": Stage(),
    },
}
OFFICIAL |= {f"{name}-minority": OFFICIAL[name] for name in ("fairgrape", "snip", "grasp")}


def method_of(experiment: Experiment, name: str) -> str:
    """The row of the table of methods that a name stands for.

    Args:
        experiment: the experiment.
        name: of its methods: a row, or a variant.
    """
    variant = (experiment.variants or {}).get(name)
    return variant.method if variant else name


def row_of(experiment: Experiment, name: str) -> Method:
    """What a name stands for in the table of methods.

    Args:
        experiment: the experiment.
        name: of its methods: a row, or a variant.
    """
    return METHODS[method_of(experiment, name)]


def apply_protocol(experiment: Experiment, name: str) -> Experiment:
    """The experiment as a method is put through it: its protocol's and its variant's changes.

    Without official code a method goes as by "equal". Where the official code prunes an untrained
    network, training comes after: the final stage, or where that is empty the dense one.

    Args:
        experiment: the experiment.
        name: of the method, or of a variant.

    Returns:
        The experiment with the fields that its protocol and its variant name.
    """
    method = method_of(experiment, name)
    if experiment.protocol == "official" and method in OFFICIAL:
        experiment = _as_official(experiment, OFFICIAL[method])
    variant = (experiment.variants or {}).get(name)
    if variant is None:
        return experiment
    fields: dict[str, Any] = {}
    if variant.remedy is not None:
        fields["remedy"] = variant.remedy
    if variant.allocation is not None:
        fields["scoring"] = dataclasses.replace(experiment.scoring, allocation=variant.allocation)
    return dataclasses.replace(experiment, **fields)


def _as_official(experiment: Experiment, changes: Changes) -> Experiment:
    scoring = dataclasses.replace(experiment.scoring, **changes.get("scoring", {}))
    fields: dict[str, Any] = {**changes, "scoring": scoring}
    if experiment.densities and "densities" in changes:
        fields["sparsity"] = round(1 - experiment.densities[-1], 12)
    if changes["start"] == "initial" and not experiment.final.epochs:
        fields["final"] = experiment.dense
    return dataclasses.replace(experiment, **fields)


def starting_epochs(experiment: Experiment) -> set[int]:
    """The epochs of the dense training that methods start from or return to.

    Args:
        experiment: the experiment.

    Returns:
        Their numbers.
    """
    variants = [apply_protocol(experiment, name) for name in experiment.methods]
    return {
        point.number
        for variant in variants
        for point in (variant.start, variant.rewind)
        if isinstance(point, Epoch)
    }


def describe(experiment: Experiment) -> list[str]:
    """What the protocol changes for each method, and what each variant does.

    Args:
        experiment: the experiment.

    Returns:
        The lines, for the report.
    """
    variants = [
        f"- {name}: {variant.method}, {_changes(experiment, name)}"
        for name, variant in (experiment.variants or {}).items()
    ]
    if experiment.protocol == "equal":
        rest = " but for:" if variants else "; only the choice of weights differs."
        return [
            "Protocol: equal. Every method has the same start, layer allocation, schedule and "
            f"training budget{rest}",
            *variants,
        ]
    lines = ["Protocol: official. What the official code does for each method:"]
    for name in dict.fromkeys(method_of(experiment, name) for name in experiment.methods):
        text = ", ".join(f"{field} {_word(value)}" for field, value in _fields(name))
        lines.append(f"- {name}: {text or 'has no official code; as by the equal protocol'}")
    return lines + variants


def _changes(experiment: Experiment, name: str) -> str:
    """What a variant has that the experiment has not."""
    changed = apply_protocol(experiment, name)
    parts = []
    if changed.scoring.allocation != experiment.scoring.allocation:
        parts.append(f"allocation {as_word(changed.scoring.allocation)}")
    default = type(changed.remedy)()
    if changed.remedy != experiment.remedy:
        fields = dataclasses.fields(default)
        values = [(one.name, getattr(changed.remedy, one.name)) for one in fields]
        parts += [f"{k} {v}" for k, v in values if v != getattr(experiment.remedy, k)]
    return ", ".join(parts) or "as in the experiment"


def _fields(method: str) -> Iterator[tuple[str, object]]:
    """The dotted fields that the official protocol of a method sets, with their values."""
    for field, value in OFFICIAL.get(method, {}).items():
        if isinstance(value, dict):
            yield from ((f"{field}.{inner}", part) for inner, part in value.items())
        else:
            yield field, value


def _word(value: object) -> str:
    return "none" if value in ((), Stage()) else as_word(value)
