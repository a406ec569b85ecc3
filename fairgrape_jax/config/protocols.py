"""What differs between methods: nothing by the equal protocol, much by the official one."""

from __future__ import annotations

import dataclasses
from typing import Any

from fairgrape_jax.config.experiment import Epoch, Experiment, Stage
from fairgrape_jax.config.forms import as_word

# What the code of the FairGRAPE paper does for each method, as fields of the experiment; synflow
# as its own authors' code does. Not reproduced are the defects of that code, docs/method.md.
OFFICIAL: dict[str, dict[str, Any]] = {
    "fairgrape": {
        "start": "dense",
        "scoring.allocation": "uniform",
        "scoring.deficit": "absolute",
        "scoring.select": "greedy",
        "scoring.advances": 2,
        "scoring.fraction": 1.0,
        "scoring.formula": "sum-of-squares",
    },
    "magnitude": {
        "start": "dense",
        "schedule": "one-shot",
        "densities": (),
        "scoring.allocation": "uniform",
        "retrain": Stage(),
    },
    "lottery": {"start": "dense", "rewind": "dense", "scoring.allocation": "uniform"},
    "snip": {
        "start": "initial",
        "schedule": "one-shot",
        "densities": (),
        "scoring.allocation": "global",
        "scoring.samples": 64,
        "scoring.micro_batch": 64,
        "retrain": Stage(),
    },
    "grasp": {
        "start": "initial",
        "schedule": "one-shot",
        "densities": (),
        "scoring.allocation": "global",
        "scoring.samples": 10,
        "retrain": Stage(),
    },
    "synflow": {
        "start": "initial",
        "schedule": "geometric",
        "rounds": 100,
        "densities": (),
        "scoring.allocation": "global",
        "retrain": Stage(),
    },
}
OFFICIAL |= {f"{name}-minority": OFFICIAL[name] for name in ("fairgrape", "snip", "grasp")}


def of_method(experiment: Experiment, name: str) -> Experiment:
    """The experiment as `name` is put through it; methods without official code as by "equal".

    Where the official code prunes an untrained network, training comes after: the final stage, or
    where that is empty the dense one.
    """
    if experiment.protocol == "equal" or name not in OFFICIAL:
        return experiment
    outer = {key: value for key, value in OFFICIAL[name].items() if "." not in key}
    inner = {
        key.removeprefix("scoring."): value for key, value in OFFICIAL[name].items() if "." in key
    }
    if experiment.densities and "densities" in outer:
        outer["sparsity"] = round(1 - experiment.densities[-1], 12)
    if outer["start"] == "initial" and not experiment.final.epochs:
        outer["final"] = experiment.dense
    scoring = dataclasses.replace(experiment.scoring, **inner)
    return dataclasses.replace(experiment, scoring=scoring, **outer)


def points(experiment: Experiment) -> set[int]:
    """The epochs of the dense training that methods start from or return to."""
    variants = [of_method(experiment, name) for name in experiment.methods]
    return {
        point.number
        for variant in variants
        for point in (variant.start, variant.rewind)
        if isinstance(point, Epoch)
    }


def describe(experiment: Experiment) -> list[str]:
    """A line for each method of the experiment on what its protocol changes, for the report."""
    if experiment.protocol == "equal":
        return [
            "Protocol: equal. Every method has the same start, layer allocation, schedule and "
            "training budget; only the choice of weights differs."
        ]
    lines = ["Protocol: official. What the official code does for each method:"]
    for name in experiment.methods:
        changed = OFFICIAL.get(name)
        text = ", ".join(f"{key} {_short(value)}" for key, value in (changed or {}).items())
        lines.append(f"- {name}: {text or 'has no official code; as by the equal protocol'}")
    return lines


def _short(value: Any) -> str:
    return "none" if value in ((), Stage()) else as_word(value)
