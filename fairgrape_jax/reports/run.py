"""What a run leaves for its reader: report.html, report.md, metrics.csv and pictures.

From the files of its rounds: every number is recomputed from the predictions of each evaluated
model; nothing needs a device.
"""

from __future__ import annotations

import csv
import functools
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from fairgrape_jax import escape, storage
from fairgrape_jax.progress import say
from fairgrape_jax.reports import document, run_report, run_results, run_summary, thumbnails
from fairgrape_jax.reports.results import Cell, Model, compare_rounds, read_all


def write(
    runs: Sequence[Path], out: Path, *, with_thumbnails: bool = False, pictures: Path | None = None
) -> None:
    """Write the report of one or several runs to `out`, and print its short table.

    Args:
        runs: their directories.
        out: a folder; made where it is not there.
        with_thumbnails: show the samples that pruning changed, from the first run's dataset.
        pictures: the same from a folder or archive, where predictions name pictures.

    Raises:
        UsageError: for a directory that is no run, is named twice, has no complete round, or was
            made on other groups or tasks than the first.
    """
    models = read_all(runs)
    first = models[0].record
    cells = compare_rounds(models)
    predicted = cells[0].models[0].predicted
    small = functools.partial(thumbnails.pictures_of_run, runs[0], predicted, place=pictures)
    shows_pictures = with_thumbnails or pictures is not None
    results = run_results.gather(runs, models, cells)
    report = run_report.report(results, small if shows_pictures else None)
    with storage.name_path_in_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        write_csv(out / "metrics.csv", models)
        document.write(report, out)
    say(run_summary.verdict_of(results).text)
    say(summary_table(cells, first["groups"]))
    say(f"report: {out / 'report.html'} (and report.md)")


def write_csv(path: Path, models: Iterable[Model]) -> None:
    """One row per model with every metric; metrics per group take a column per group.

    Args:
        path: the file.
        models: evaluated networks.
    """
    rows = []
    for model in models:
        row = {"method": model.name, "seed": model.seed, "round": model.record["round"]}
        row["density"] = model.density
        for name, value in model.record["test"].items():
            if isinstance(value, list):
                for group, number in zip(model.record["groups"], value, strict=True):
                    row[f"{name}:{group}"] = number
            else:
                row[name] = value
        rows.append(row)
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer.writerow(escape.csv_cells(names))
    writer.writerows(escape.csv_cells(row.get(name, "") for name in names) for row in rows)
    storage.write_text(path, text.getvalue())


def summary_table(cells: Sequence[Cell], groups: Sequence[str]) -> str:
    """A few columns for a terminal: the dense networks, and each method at its last round.

    Args:
        cells: a method after a round, each.
        groups: their names.

    Returns:
        The lines of a table.
    """
    last = {cell.name: cell for cell in cells}.values()  # a later round replaces an earlier one
    rows = [["method", "weights %", "overall", *groups, "rho(D)", "95 % interval"]]
    for c in last:
        numbers = [f"{c.mean['accuracy'][0]:.1f}"]
        for accuracy, change in zip(c.mean["group_accuracy"], c.mean["group_change"], strict=True):
            numbers.append(f"{accuracy:.1f} ({change:+.1f})")
        spread = f"{c.mean['rho_change'][0]:.2f}"
        interval = f"{c.low['rho_change'][0]:.2f} - {c.high['rho_change'][0]:.2f}"
        rows.append([c.name, f"{100 * c.density:.1f}", *numbers, spread, interval])
    header, *lines = rows
    return document.text_table(header, lines, numbers="left")
