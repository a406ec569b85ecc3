"""The results of runs: every model with its record, and the models of one cell with intervals."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

import numpy as np

from fairgrape_jax import config, storage
from fairgrape_jax.errors import UsageError
from fairgrape_jax.metrics.samples import Samples
from fairgrape_jax.reports.comparison import Comparison, compare
from fairgrape_jax.runner import layout
from fairgrape_jax.runner.record import check_record, read_checked_predictions
from fairgrape_jax.storage import schema
from fairgrape_jax.storage.schema import JsonObject
from fairgrape_jax.training import evaluate

# The parts of weights at which methods are compared: of the rounds of a run, the nearest ones.
LEVELS = (0.5, 0.25, 0.1, 0.05, 0.02, 0.01)
COST = "cost.json"  # of a stage that was measured


class Cost(TypedDict):
    """cost.json: what `fairgrape measure --save` has measured of a stage, of one picture."""

    bytes_sparse: float
    flops: float
    milliseconds: float


@dataclasses.dataclass(frozen=True)
class Model:
    """One evaluated network: a stage of a run, with its record and its test predictions."""

    name: str  # the method, behind the run's name where several runs are compared
    seed: int
    record: JsonObject
    predicted: evaluate.Predictions
    dense: evaluate.Predictions
    directory: Path | None = None  # of the stage, where it is from a run

    @property
    def density(self) -> float:
        """Weights alive over all prunable weights."""
        return self.record["density"]


@dataclasses.dataclass(frozen=True)
class Cell(Comparison):
    """One method at one density: the comparison of its models, one per seed."""

    models: tuple[Model, ...]

    @property
    def dense_itself(self) -> bool:
        """Whether these are the unpruned networks."""
        return self.models[0].record["method"] == "dense"


def read(run: Path, label: bool = False) -> list[Model]:
    """All complete stages of a run; dense networks first, then by method, seed and round.

    Args:
        run: its directory.
        label: put the run's name before that of each method.

    Returns:
        The networks with their records and predictions.

    Raises:
        UsageError: what is no run, has no complete stage, or stages that do not belong together.
    """
    if not (run / "config.json").exists():
        raise UsageError(f"{run}: not a run (no config.json)")
    order = config.load_for_report(run / "config.json").methods
    stages = [(record, directory) for directory, record in layout.read_records(run)]
    if not stages:
        raise UsageError(f"{run}: no stage is complete yet")
    for record, directory in stages:
        check_record(run, directory, record)
        if record["method"] not in ("dense", *order):
            raise UsageError(f"{directory}: of a method that is not in the run's config.json")
    rank = {"dense": -1} | {name: place for place, name in enumerate(order)}
    stages.sort(key=lambda x: (rank[x[0]["method"]], x[0]["seed"], x[0]["round"]))
    dense: dict[int, evaluate.Predictions] = {}
    models = []
    for record, directory in stages:
        predicted = read_checked_predictions(directory, record)
        if record["method"] == "dense":
            dense[record["seed"]] = predicted
        if record["seed"] not in dense:
            raise UsageError(
                f"{run}: the dense network of seed {record['seed']} is damaged or gone"
            )
        if len(predicted.groups) != len(dense[record["seed"]].groups):
            raise UsageError(f"{directory}: not the samples of the dense network's predictions")
        name = f"{run.name}:{record['method']}" if label else record["method"]
        models.append(
            Model(name, record["seed"], record, predicted, dense[record["seed"]], directory)
        )
    return models


def read_all(runs: Sequence[Path]) -> list[Model]:
    """All complete stages of one or several runs of the same groups and tasks.

    Args:
        runs: their directories; of several, a method is called RUN:METHOD, by the run's path where
            two runs have one name.

    Returns:
        The networks of each run in turn.

    Raises:
        UsageError: for a directory that is no run, is named twice, has no complete round, or was
            made on other groups or tasks than the first.
    """
    if len({run.resolve() for run in runs}) < len(runs):
        raise UsageError("the same run is named twice")
    models = []
    for run in runs:
        same_name = sum(other.name == run.name for other in runs) > 1
        prefix = "" if len(runs) == 1 else f"{run if same_name else run.name}:"
        models += [dataclasses.replace(x, name=f"{prefix}{x.name}") for x in read(run)]
    if all(model.record["method"] == "dense" for model in models):
        raise UsageError(f"{runs[0]}: no round is complete yet; run it on first")
    first = models[0]
    for model in models:
        if any(model.record[key] != first.record[key] for key in ("groups", "tasks")):
            raise UsageError(f"{model.name}: made on other groups or tasks than {first.name}")
    return models


def compare_rounds(models: Sequence[Model], replicates: int = 1000) -> list[Cell]:
    """A cell per method and compared density, the dense networks first.

    Args:
        models: evaluated networks.
        replicates: of the bootstrap.

    Returns:
        The cells.
    """
    cells = []
    for name in dict.fromkeys(model.name for model in models):
        of_method = [model for model in models if model.name == name]
        for number in rounds_to_compare(of_method):
            networks = tuple(model for model in of_method if model.record["round"] == number)
            cells.append(cell(networks, replicates))
    return cells


def rounds_to_compare(models: Sequence[Model]) -> list[int]:
    """The rounds nearest to LEVELS, and the last one; of those that every seed has completed.

    Args:
        models: evaluated networks of one method.

    Returns:
        The numbers of the rounds, in order.
    """
    seeds = {model.seed for model in models}
    density: dict[int, float] = {}
    for number in dict.fromkeys(model.record["round"] for model in models):
        here = [model for model in models if model.record["round"] == number]
        if {model.seed for model in here} == seeds:
            density[number] = here[0].density
    if not density:
        return []
    nearest = [min(density, key=lambda n: abs(np.log(density[n] / level))) for level in LEVELS]
    close = [n for n, level in zip(nearest, LEVELS, strict=True) if 0.7 < density[n] / level < 1.5]
    return sorted({*close, max(density)})


def cell(models: tuple[Model, ...], replicates: int) -> Cell:
    """Mean over seeds and 95 % bootstrap interval of every statistic, for one method and round.

    Args:
        models: of one method after one round, a network per seed.
        replicates: of the bootstrap.

    Returns:
        The comparison.
    """
    record, first = models[0].record, models[0].predicted
    comparison = compare(
        models[0].name,
        Samples(
            first.labels,
            first.groups,
            [len(classes) for _, classes in record["tasks"]],
            len(record["groups"]),
        ),
        np.stack([model.predicted.predictions for model in models]),
        np.stack([model.dense.predictions for model in models]),
        density=models[0].density,
        replicates=replicates,
    )
    fields = {
        field.name: getattr(comparison, field.name) for field in dataclasses.fields(comparison)
    }
    return Cell(**fields, models=models)


def measured_costs(cells: Sequence[Cell]) -> dict[str, dict[str, float]]:
    """What `fairgrape measure --save` has stored with the stages of cells.

    Args:
        cells: a method after a round, each.

    Returns:
        By name of those that have a network that was measured: bytes in sparse storage, operations
        and milliseconds of a picture.

    Raises:
        UsageError: what was stored is not as it was written.
    """
    measured = {}
    for cell in cells:
        for model in cell.models:
            path = model.directory / COST if model.directory else None
            if path is None or not path.is_file():
                continue
            content = storage.read_checksummed(path)
            if content is None or schema.misfit(content, Cost):
                raise UsageError(f"{path}: damaged; delete it, or measure the stage again")
            measured[cell.name] = {
                "bytes": content["bytes_sparse"],
                "flops": content["flops"],
                "milliseconds": content["milliseconds"],
            }
            break
    return measured
