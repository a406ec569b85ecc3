"""The experiment behind a cell of a table, in the paper's size or in one for two cores."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fairgrape_jax import data
from fairgrape_jax.config import Execution, Experiment, KeepLast, Scoring, Stage
from fairgrape_jax.config.experiment import Clusters
from fairgrape_jax.reproduction.values import Cell


@dataclasses.dataclass(frozen=True)
class Scale:
    """How large an experiment is made.

    Attributes:
        summary: a line for the user.
        size: pixels of a picture's side.
        data: fields of the dataset's options.
        rounds: of the iterative methods; 0 for what the paper's factor needs.
        fields: of the experiment.
    """

    summary: str
    size: int
    data: Mapping[str, Any]
    rounds: int
    fields: Mapping[str, Any]


SCALES: dict[str, Scale] = {
    "paper": Scale(
        "the paper's: 224 pixels, all pictures, all rounds",
        224,
        {},
        0,
        {
            "dense": Stage((13, 3, 3), (1e-4, 1e-5, 1e-6), best=True),
            "retrain": Stage((5,), (1e-5,)),
            "final": Stage((13, 3, 3), (1e-4, 1e-5, 1e-6), best=True),
        },
    ),
    "small": Scale(
        "for two cores: 64 pixels, 8,000 training pictures, five rounds; other numbers",
        64,
        {"limit": 8000, "limit_evaluation": 2000},
        5,
        {
            "dense": Stage((4, 2), (5e-4, 1e-4), best=True),
            "retrain": Stage((1,), (2e-4,)),
            "final": Stage((2,), (1e-4,), best=True),
        },
    ),
}


def missing(cell: Cell, folder: Path) -> str:
    """What a cell lacks: its data, and how to get them; "" where they are there.

    Args:
        cell: of a table.
        folder: of the data.
    """
    if (folder / cell.folder).exists():
        return ""
    return f"{cell.name}: needs {cell.needs.replace('DATA', str(folder))}"


def experiment_of(cell: Cell, folder: Path, scale: Scale, seeds: int) -> Experiment:
    """All methods of a cell, each put through what its official code does.

    Args:
        cell: of a table.
        folder: of the data; pretrained weights are looked for in its folder weights, else in the
            cache folder.
        scale: of the experiment.
        seeds: how many.
    """
    options: dict[str, Any] = {"label": cell.label, "group": cell.group, "size": scale.size}
    if cell.source == "prepared":
        options |= {"dataset": cell.dataset, "path": str(folder)}
    elif cell.source == "utkface":
        options["path"] = str(folder / cell.folder)
    weights = folder / "weights" / f"{cell.model}_imagenet.safetensors"
    return Experiment(
        data=data.source(cell.source, **options, **scale.data),
        model=cell.model,
        pretrained=str(weights) if weights.is_file() else "imagenet",
        methods=tuple(row.method for row in cell.rows if row.method != "dense"),
        sparsity=cell.sparsity,
        keep_per_round=cell.keep_per_round,
        rounds=scale.rounds,
        protocol="official",
        scoring=Scoring(
            micro_batch=64,
            minority=cell.minority,
            groups=Clusters(cell.clusters) if cell.clusters else None,
        ),
        augmentation="flip_shift",
        batch=64,
        seeds=tuple(range(seeds)),
        execution=Execution(checkpoints=KeepLast()),
        **scale.fields,
    )
