"""The recipes that were confirmed on handwriting, and structures, on faces: test split.

Command:  python -m experiments.faces --data DATA           (goes on from the committed cells)
          python -m experiments.faces --recalibrate --data DATA   (and looks at finished runs anew)
          python -m experiments.faces --tables              (prints what came out; runs nothing)
DATA holds utkface/ and celeb_a_attributes/ (`fairgrape data prepare celeb_a_attributes`);
`docs/results/faces.md` says how to get them. A GPU is wanted: two cores take two hours for a seed
of two tasks.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import numpy as np

from experiments import comparison
from experiments.faces import afterwards, recalibrated, thresholds
from experiments.faces.pictures import arrays
from experiments.faces.rows import COMPARISONS, FOLDER, SEEDS, Comparison
from experiments.study import (
    Cell,
    Study,
    described,
    measured_rounds,
    pack,
    read_done,
    source_digest,
)
from fairgrape_jax.config import Experiment
from fairgrape_jax.errors import UsageError
from fairgrape_jax.runner import layout
from fairgrape_jax.runner import run as runner
from fairgrape_jax.runner.predictions import read_predictions
from fairgrape_jax.storage.files import write_json
from fairgrape_jax.training.evaluate import Predictions

OUTCOMES = comparison.MEASURES[1:3]


def main(arguments: list[str] | None = None) -> None:
    """The study from the command line.

    Args:
        arguments: of the command line.
    """
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(COMPARISONS))
    parser.add_argument("--data", type=Path, help="the folder of the pictures")
    parser.add_argument("--out", type=Path, default=Path("runs/faces"))
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--tables", action="store_true", help="print what came out, run nothing")
    parser.add_argument(
        "--recalibrate", action="store_true", help="look again at runs that are finished"
    )
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.names if name not in COMPARISONS]:
        parser.error(f"{unknown[0]}: give of {', '.join(COMPARISONS)}")
    if not options.tables and options.data is None:
        parser.error("--data is needed: the folder that holds utkface and celeb_a_attributes")
    for name in options.names or COMPARISONS:
        if options.tables:
            print(tables(name, options.seeds))
            continue
        for seed in options.seeds:
            run_seed(name, seed, options.data, options.out)
            if options.recalibrate:
                recalibrate_seed(name, seed, options.data, options.out)


def study(name: str) -> Study:
    """A comparison as the tables take it.

    Args:
        name: of COMPARISONS.
    """
    compared = COMPARISONS[name]
    return Study(
        folder=FOLDER / name,
        rows={row: kind(compared, row) for row in compared.experiment.methods},
        experiment=lambda _, share, seed: dataclasses.replace(compared.experiment, seeds=(seed,)),
        measured=compared.measured,
        base="fairgrape",
        seeds=SEEDS,
        shares=(1.0,),
        unit=compared.unit,
    )


def kind(compared: Comparison, row: str) -> str:
    """What kind of row it is: "baseline", or "recipe" where it is what the pairs are about.

    Args:
        compared: the comparison.
        row: its name.
    """
    return "recipe" if row in {pair[0] for pair in compared.pairs} else "baseline"


def run_seed(name: str, seed: int, folder: Path, out: Path) -> None:
    """Do the rows of a comparison that a seed lacks, and write their cells.

    Args:
        name: of COMPARISONS.
        seed: of the run.
        folder: of the pictures.
        out: a folder for run directories, which stay.
    """
    cells = list(study(name).cells(seeds=[seed], split="test"))
    left = [cell for cell in cells if cell.read() is None]
    if not left:
        return
    code, experiment = source_digest(), experiment_of(name, seed, folder)
    directory = out / f"{name}-{seed}"
    if len(left) < len(cells):  # the others were made elsewhere
        rows = tuple(cell.row for cell in left)
        experiment = dataclasses.replace(experiment, methods=rows)
        directory = out / "-".join([directory.name, *rows])
    runner.run(experiment, directory)
    for cell in left:
        write_json_of(cell, directory, code)


def experiment_of(name: str, seed: int, folder: Path) -> Experiment:
    """All rows of a comparison with one seed, on its pictures.

    Args:
        name: of COMPARISONS.
        seed: of the run.
        folder: of the pictures.
    """
    compared = COMPARISONS[name]
    data = arrays(compared.task, folder)
    return dataclasses.replace(compared.experiment, seeds=(seed,), data=data)


def recalibrate_seed(name: str, seed: int, folder: Path, out: Path) -> None:
    """Add to the cells of a seed what their networks say with statistics taken anew.

    Args:
        name: of COMPARISONS.
        seed: of the run.
        folder: of the pictures.
        out: the folder of the run directories.
    """
    directory, key = out / f"{name}-{seed}", recalibrated.CHANGE.key
    about = study(name)
    density = f"{about.measured[-1]:g}"
    cells = {cell.row: cell for cell in about.cells(seeds=[seed], split="test")}
    contents = {row: content for row, cell in cells.items() if (content := cell.read())}
    rows = [row for row, content in contents.items() if key not in content["pruned"][density]]
    if rows and not directory.is_dir():
        raise UsageError(f"{directory}: is not here, and its networks are needed; give --out")
    experiment = experiment_of(name, seed, folder)
    for row, predicted in recalibrated.predictions(experiment, directory, rows) if rows else ():
        right = right_of(predicted)
        contents[row]["pruned"][density][key] = pack_by_group(right, predicted)
        write_json(cells[row].path, contents[row])
        print(f"{name}, seed {seed}, {row}: {100 * right.mean():.2f} % right", flush=True)


def write_json_of(cell: Cell, directory: Path, code: str) -> None:
    """The file of a cell: which samples of the test split are right, group after group.

    Args:
        cell: which one.
        directory: of the finished run.
        code: that made it, by its digest.
    """
    place = layout.stage_directory(directory, cell.seed)
    before = layout.read_record(place)
    pruned = {}
    for density, stage, record in measured_rounds(cell.study, directory, cell.row):
        predicted = predictions_of(stage, record)
        right = pack_by_group(right_of(predicted), predicted)
        pruned[density] = {"density": record["density"], "right": right}
        after = thresholds.right_by_threshold(predicted, record)
        if after is not None:
            pruned[density]["by_threshold"] = pack_by_group(after, predicted)
    if before is None or len(pruned) < len(cell.study.measured):
        raise UsageError(f"{directory}: {cell.row} is not finished")
    predicted = predictions_of(place, before)
    sizes = np.bincount(predicted.groups, minlength=len(before["groups"])).tolist()
    groups = dict(zip(before["groups"], sizes, strict=True))
    dense = pack_by_group(right_of(predicted), predicted)
    cell.path.parent.mkdir(exist_ok=True, parents=True)
    content = {"row": cell.row, "seed": cell.seed, "split": cell.split, "groups": groups}
    results = {"dense": dense, "pruned": pruned, "code": code}
    write_json(cell.path, content | results | {"experiment": described(cell)})


def predictions_of(place: Path, record: dict) -> Predictions:
    """What a stage says of the test split.

    Args:
        place: of the stage.
        record: of it.
    """
    tasks = [(name, tuple(classes)) for name, classes in record["tasks"]]
    return read_predictions(place / "predictions.csv", tuple(record["groups"]), tasks)


def right_of(predicted: Predictions) -> np.ndarray:
    """Which samples are right in all tasks: (N,) bool.

    Args:
        predicted: of N samples.
    """
    return (predicted.predictions == predicted.labels).all(axis=1)


def pack_by_group(right: np.ndarray, predicted: Predictions) -> str:
    """Which samples are right as text, in the order of their groups.

    Args:
        right: (N,) bool.
        predicted: with the groups of the samples.
    """
    return pack(right[np.argsort(predicted.groups, kind="stable")])


def tables(name: str, seeds: list[int]) -> str:
    """What came out of a comparison, in Markdown.

    Args:
        name: of COMPARISONS.
        seeds: that count.
    """
    about, compared = study(name), COMPARISONS[name]
    done = read_done(list(about.cells(seeds=seeds, split="test")))
    if not done:
        return f"## {name}: no cell is done\n"
    sizes = next(iter(done.values()))["groups"]
    groups = np.repeat(np.arange(len(sizes)), list(sizes.values()))
    persons = ", ".join(f"{group} {size:,}" for group, size in sizes.items())
    densities = [f"{value:g}" for value in compared.measured]
    parts = [
        f"## {name}\n\n{len(groups):,} pictures in the test split: {persons}.",
        comparison.tables(about, done, groups),
        comparison.differences(
            about, done, 1.0, groups, pairs=compared.pairs, densities=densities, outcomes=OUTCOMES
        ),
        afterwards.tables(about, done, groups, thresholds.CHANGE),
        afterwards.tables(about, done, groups, recalibrated.CHANGE, compared.pairs),
    ]
    return "\n\n".join(part for part in parts if part)


if __name__ == "__main__":
    main()
