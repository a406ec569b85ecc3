"""What int8 and bfloat16 do to each group: finished stages of a run, audited like compression."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fairgrape_jax import config
from fairgrape_jax.data.sources import arrays
from fairgrape_jax.errors import UsageError
from fairgrape_jax.exporters.precisions import AtPrecision, Precisions
from fairgrape_jax.exporters.stage import read_dataset
from fairgrape_jax.library.audits import AuditResult, audit
from fairgrape_jax.progress import say
from fairgrape_jax.reports.charts import Interval
from fairgrape_jax.reports.document import markdown_table, text_table
from fairgrape_jax.reports.precision import with_interval
from fairgrape_jax.runner.stage import load
from fairgrape_jax.runner.stage import stages as finished_stages

DENSE, FLOAT32 = "dense", "float32"
HEADER = ("network", "weights %", "precision", "kB", "kB, sparse", "accuracy")


@dataclasses.dataclass(frozen=True, repr=False)
class PrecisionAudit:
    """What precision did to each group; printed, it is the table of `fairgrape quantize`.

    Attributes:
        audits: of each task every network at every precision against the dense one in float32: a
            report to write.
        header: of the table.
        rows: of the table, a network at a precision each: accuracies and changes are means over
            seeds with 95 % intervals over seeds and test samples; the changes of a pruned network
            in float32 are those from the dense one, all others from the same network in float32.
    """

    audits: dict[str, AuditResult]
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def to_markdown(self) -> str:
        """The table in Markdown."""
        return markdown_table(self.header, self.rows)

    def __str__(self) -> str:
        return text_table(self.header, self.rows)


@dataclasses.dataclass(frozen=True)
class _Network:
    """A stage at a precision: a network of each seed."""

    stage: str
    density: float
    of_seeds: tuple[AtPrecision, ...]

    @property
    def precision(self) -> str:
        return self.of_seeds[0].precision

    @property
    def title(self) -> str:
        return f"{self.stage}, {self.precision}"

    def predictions(self, task: int) -> list[np.ndarray]:
        return [each.predictions.predictions[:, task] for each in self.of_seeds]


def audit_precisions(
    run: str | Path,
    stages: Sequence[str] = (),
    *,
    epochs: int = 0,
    rate: float = 1e-4,
    calibration: int = 512,
) -> PrecisionAudit:
    """Audit finished stages of a run in float32, bfloat16 and int8, over all of its seeds.

    Weights and what layers take are int8 (`quantize_int8`), calibrated on the training split.

    Args:
        run: the directory of the run; its dataset must be where the run had it.
        stages: their names without the seed, like "dense" or "fairgrape/round_05"; by default the
            dense network and the last round of each method.
        epochs: of training in int8, for a further row.
        rate: its learning rate.
        calibration: pictures of the training split that activations are measured on.

    Returns:
        The table, and the audit behind it; see `PrecisionAudit`.

    Raises:
        UsageError: no run, a stage that is not finished for every seed, or another dataset.
    """
    if epochs < 0 or calibration < 1 or not 0 < rate < np.inf:
        raise UsageError("quantize: epochs is 0 or more, calibration 1 or more, rate above 0")
    path = Path(run)
    if not (path / "config.json").exists():
        raise UsageError(f"{path}: not a run (no config.json)")
    seeds = config.load(path / "config.json").seeds
    names = _names(path, stages, seeds)
    networks: list[_Network] = []
    precisions: Precisions | None = None
    for name in names:
        of_seeds, density = [], 1.0
        for seed in seeds:
            stage = load(path, f"seed_{seed}/{name}")
            if precisions is None:
                source = arrays.locate(stage.experiment.data, path)
                precisions = Precisions(stage.experiment, read_dataset(path, stage, source))
            of_seeds.append(
                precisions.of_stage(stage, epochs=epochs, rate=rate, calibration=calibration)
            )
            density = stage.density
            say(f"{stage.name}: {', '.join(row.precision for row in of_seeds[-1])}")
        networks += [_Network(name, density, rows) for rows in zip(*of_seeds, strict=True)]
    assert precisions is not None  # there is a stage
    dataset = precisions.dataset
    first = networks[0].of_seeds[0].predictions
    groups = np.where(first.groups < 0, "", np.asarray([*dataset.groups, ""], object)[first.groups])
    audits, rows = {}, []
    for number, task in enumerate(dataset.tasks):
        labels = np.asarray(task.classes, object)[first.labels[:, number]]
        made, changes = _audits(networks, number, labels, groups, task.classes)
        audits[task.name] = made
        title = f"{task.name}: " if len(dataset.tasks) > 1 else ""
        rows += [_table_row(network, title, made, changes[network.title]) for network in networks]
    audited = next(iter(audits.values())).groups
    by_group = (f"{kind} of {group}" for group in audited for kind in ("accuracy", "change"))
    return PrecisionAudit(audits, (*HEADER, *by_group), tuple(rows))


def _names(run: Path, stages: Sequence[str], seeds: Sequence[int]) -> list[str]:
    """The stages that are looked at, the dense one first; UsageError where one is not finished."""
    finished = finished_stages(run)
    by_seed = {seed: [n for n in finished if n.startswith(f"seed_{seed}/")] for seed in seeds}
    there = [name.partition("/")[2] for name in by_seed[seeds[0]]]
    last = {name.partition("/")[0]: name for name in sorted(there) if name != DENSE}
    names = [DENSE, *(name for name in stages or last.values() if name != DENSE)]
    for name in dict.fromkeys(names):
        if lacking := [seed for seed in seeds if f"seed_{seed}/{name}" not in by_seed[seed]]:
            raise UsageError(
                f"{run}: stage {name!r} is not finished for seed {lacking[0]}; there are: "
                f"{', '.join(there) or 'none'} (names without the seed)"
            )
    return list(dict.fromkeys(names))


def _audits(
    networks: Sequence[_Network],
    task: int,
    labels: np.ndarray,
    groups: np.ndarray,
    classes: Sequence[str],
) -> tuple[AuditResult, dict[str, dict[str, Any]]]:
    """All networks against the dense one in float32, and the statistics of each for the table:
    accuracies, and changes from the dense one or from itself in float32."""
    predicted = {
        network.title: [np.asarray(classes, object)[each] for each in network.predictions(task)]
        for network in networks
    }
    dense = networks[0].title
    alone = audit(labels, None, predicted, groups).metrics["sets"]
    others = {title: each for title, each in predicted.items() if title != dense}
    made = audit(labels, predicted[dense], others, groups)
    statistics = {title: dict(alone[title]["statistics"]) for title in predicted}
    for network in networks:
        if network.title == dense:
            continue
        base = dense if network.precision == FLOAT32 else f"{network.stage}, {FLOAT32}"
        compared = {network.title: predicted[network.title]}
        change = audit(labels, predicted[base], compared, groups).metrics["sets"]
        key = "group_change"
        statistics[network.title][key] = change[network.title]["statistics"][key]
    return made, statistics


def _table_row(
    network: _Network, title: str, made: AuditResult, statistics: dict[str, Any]
) -> tuple[str, ...]:
    kilobytes = [
        f"{np.mean([getattr(each, size) for each in network.of_seeds]) / 1000:,.1f}"
        for size in ("bytes", "bytes_sparse")
    ]
    accuracy = _intervals(statistics["accuracy"])[0]
    by_group = _intervals(statistics["group_accuracy"])
    changes = _intervals(statistics["group_change"]) if "group_change" in statistics else []
    cells = [with_interval(accuracy)]
    for place in range(len(made.groups)):
        cells.append(with_interval(by_group[place]))
        cells.append(with_interval(changes[place], sign=True) if changes else "")
    density = f"{100 * network.density:.4g}"
    return (title + network.stage, density, network.precision, *kilobytes, *cells)


def _intervals(statistic: dict[str, list[float]]) -> list[Interval]:
    columns = (statistic[key] for key in ("value", "low", "high"))
    return [
        Interval(*(np.nan if x is None else x for x in row)) for row in zip(*columns, strict=True)
    ]
