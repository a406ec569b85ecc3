"""The experiment behind a cell of a table, in the paper's size or in one for two cores."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fairgrape_jax import config, data
from fairgrape_jax.config import Execution, Experiment, KeepLast, Scoring, Stage
from fairgrape_jax.config.scoring import Clusters
from fairgrape_jax.errors import UsageError
from fairgrape_jax.models import weights as pretrained
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
        paper: whether it is the paper's own, in which cells have fields of theirs.
    """

    summary: str
    size: int
    data: Mapping[str, Any]
    rounds: int
    fields: Mapping[str, Any]
    paper: bool = False


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
        paper=True,
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
    """What a cell lacks: its data or weights, and how to get them, or its method; "" for nothing.

    Args:
        cell: of a table.
        folder: of the data.
    """
    if not methods_of(cell):
        return f"{cell.name}: {cell.rows[-1].paper} is no method of this package; paper only"
    if not (folder / cell.folder).exists():
        return f"{cell.name}: needs {cell.needs.replace('DATA', str(folder))}"
    if "pretrained" in cell.changes or weights_in(folder, cell).is_file():
        return ""
    try:
        pretrained.find_imagenet(cell.model)
    except UsageError as error:
        return f"{cell.name}: {error}; or as {weights_in(folder, cell)}"
    return ""


def weights_in(folder: Path, cell: Cell) -> Path:
    """Where a cell's pretrained weights are looked for first.

    Args:
        folder: of the data.
        cell: of a table.
    """
    return folder / "weights" / f"{cell.model}_imagenet.safetensors"


def methods_of(cell: Cell) -> tuple[str, ...]:
    """What the run of a cell prunes by.

    Args:
        cell: of a table.
    """
    return cell.methods or tuple(r.method for r in cell.rows if r.method not in ("", "dense"))


def experiment_of(cell: Cell, folder: Path, scale: Scale, seeds: int) -> Experiment:
    """All methods of a cell, put through what its official code does unless the cell says other.

    Args:
        cell: of a table.
        folder: of the data; pretrained weights are looked for in its folder weights, else in the
            cache folder.
        scale: of the experiment.
        seeds: how many.
    """
    options: dict[str, Any] = {
        "label": cell.label,
        "group": cell.group,
        "size": cell.size or scale.size,
    }
    if cell.source == "prepared":
        options |= {"dataset": cell.dataset, "path": str(folder)}
    elif cell.source == "utkface":
        options["path"] = str(folder / cell.folder)
    weights = weights_in(folder, cell)
    experiment = Experiment(
        data=data.source(cell.source, **options, **scale.data),
        model=cell.model,
        pretrained=str(weights) if weights.is_file() else "imagenet",
        methods=methods_of(cell),
        sparsity=cell.sparsity,
        keep_per_round=cell.keep_per_round,
        rounds=cell.small_rounds if cell.small_rounds and not scale.paper else scale.rounds,
        protocol="official",
        scoring=Scoring(
            micro_batch=64,
            minority=cell.minority,
            groups=Clusters(cell.clusters) if cell.clusters else None,
        ),
        min_keep_per_layer=1,  # SNIP leaves small layers none at once, which would end the run
        augmentation="flip_shift",
        batch=64,
        seeds=tuple(range(seeds)),
        execution=Execution(checkpoints=KeepLast()),
        **scale.fields,
    )
    return with_changes(experiment, {**cell.changes, **(cell.paper if scale.paper else {})})


def with_changes(experiment: Experiment, changes: Mapping[str, Any]) -> Experiment:
    """The experiment with other values in some of its fields.

    Args:
        experiment: as it would be.
        changes: values by dotted field.

    Example:
        >>> from fairgrape_jax.data.sources.writers import Writers
        >>> small = Experiment(data=Writers(), model="cnn")
        >>> with_changes(small, {"scoring.fraction": 0.5, "rounds": 3}).scoring.fraction
        0.5
    """
    if not changes:
        return experiment
    values = config.to_dict(experiment)
    for path, value in changes.items():
        *outer, field = path.split(".")
        part = values
        for name in outer:
            part = part[name]
        if field not in part:
            raise KeyError(path)
        part[field] = value
    return config.from_dict(values)
