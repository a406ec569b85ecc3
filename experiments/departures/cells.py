"""The cells of the study: a grouping and a variant, run once; a small JSON file is left."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from experiments.departures.variants import GROUPINGS, MEASURED, PAPER, VARIANTS, experiment
from experiments.study import pack, read_cell, source_digest, typical_seconds
from experiments.writers_remedies import share_dense
from fairgrape_jax import config
from fairgrape_jax.reports import results
from fairgrape_jax.runner import layout
from fairgrape_jax.runner import run as runner
from fairgrape_jax.storage import checkpoint
from fairgrape_jax.storage.files import write_json

FOLDER = Path(__file__).parent / "cells"


@dataclasses.dataclass(frozen=True)
class Cell:
    """All seeds of a variant, with some groups."""

    grouping: str
    variant: str

    @property
    def stem(self) -> str:
        """Of its file and its run's directory."""
        return re.sub(r"\W+", "_", f"{self.grouping}-{self.variant}")

    @property
    def path(self) -> Path:
        """Its file."""
        return FOLDER / f"{self.stem}.json"

    def read(self) -> dict[str, Any] | None:
        """What it holds; None where it is not done, or was done by another experiment."""
        return read_cell(self.path, described(self))


def described(cell: Cell) -> dict[str, Any]:
    """What is done in a cell, as plain values.

    Args:
        cell: which one.
    """
    return config.identity(experiment(cell.grouping, cell.variant))


def cells() -> Iterator[Cell]:
    """The cells of the study; of each grouping the paper's own comes first."""
    for grouping in GROUPINGS:
        yield from (Cell(grouping, variant) for variant in VARIANTS)


def planned_seconds(left: int) -> float:
    """How long so many cells will take, as long as the median of those that are done.

    Args:
        left: how many are to be done.
    """
    return left * typical_seconds(FOLDER)


def run_cell(cell: Cell, out: Path) -> None:
    """Do a cell and write its file; the paper's own run, which it is compared with, is done first.

    Args:
        cell: which one.
        out: a folder for run directories.
    """
    started, code = time.perf_counter(), source_digest()
    paper, study = out / Cell(cell.grouping, PAPER).stem, experiment(cell.grouping, cell.variant)
    directory = out / cell.stem
    if directory != paper:
        runner.run(experiment(cell.grouping, PAPER), paper)
        share_dense(paper, study, directory)
    runner.run(study, directory)
    models = [model for model in results.read(directory) if model.record["method"] != "dense"]
    FOLDER.mkdir(exist_ok=True)
    write_json(
        cell.path,
        {
            "grouping": cell.grouping,
            "variant": cell.variant,
            "samples": len(models[0].predicted.labels),
            "seeds": {
                str(seed): of_seed([model for model in models if model.seed == seed], paper)
                for seed in study.seeds
            },
            "seconds": round(time.perf_counter() - started, 1),
            "code": code,
            "experiment": described(cell),
        },
    )


def of_seed(models: list[results.Model], paper: Path) -> dict[str, Any]:
    """What is kept of a seed: who is right, and how many of the kept weights the paper's run drops.

    Args:
        models: of every round, in their order.
        paper: the run of the paper's own.
    """

    def right(predicted: Any) -> str:
        return pack((predicted.predictions == predicted.labels).all(axis=1))

    measured = models[-len(MEASURED) :]
    return {
        "dense": right(measured[0].dense),
        "pruned": {
            f"{density:g}": right(model.predicted)
            for density, model in zip(MEASURED, measured, strict=True)
        },
        "other": [other_weights(models[place], paper) for place in (0, -1)],
    }


def other_weights(model: results.Model, paper: Path) -> list[int]:
    """How many kept weights are none of the paper's at that round, and how many are kept.

    Args:
        model: after a round.
        paper: the run of the paper's own.
    """
    assert model.directory is not None
    here = checkpoint.load_masks(model.directory / "masks.npz")
    stage = layout.stage_directory(paper, model.seed, "fairgrape", model.record["round"])
    there = checkpoint.load_masks(stage / "masks.npz")
    other = sum(int((mask & ~there[name]).sum()) for name, mask in here.items())
    return [other, sum(int(mask.sum()) for mask in here.values())]
