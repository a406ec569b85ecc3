"""The cells of the study: each is run once, and what is left of it is a small JSON file."""

from __future__ import annotations

import base64
import dataclasses
import json
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.recipes.recipes import MEASURED, RECIPES, SEEDS, SHARES, experiment
from fairgrape_jax import config, parallel
from fairgrape_jax.data import load
from fairgrape_jax.rounds.predict import SplitName, predict
from fairgrape_jax.rounds.session import Network, initial_network, open_session
from fairgrape_jax.runner import layout
from fairgrape_jax.runner import run as runner
from fairgrape_jax.runner.prepare import write_config
from fairgrape_jax.runner.round import restore
from fairgrape_jax.storage.files import write_json

FOLDER = Path(__file__).parent / "cells"
TYPICAL = 60.0  # seconds of a cell before any was timed


@dataclasses.dataclass(frozen=True)
class Cell:
    """A recipe, a share of students, a seed, and the split that is looked at."""

    recipe: str
    share: float
    seed: int
    split: SplitName = "validation"

    @property
    def path(self) -> Path:
        """Its file."""
        name = re.sub(r"\W+", "_", self.recipe)
        end = "" if self.split == "validation" else f"-{self.split}"
        return FOLDER / f"{name}-{100 * self.share:g}-{self.seed}{end}.json"

    def read(self) -> dict[str, Any] | None:
        """What it holds; None where it is not done, or was done by another recipe of that name."""
        if not self.path.is_file():
            return None
        content: dict[str, Any] = json.loads(self.path.read_text(encoding="utf-8"))
        done = config.identity(config.from_dict(content["experiment"]))
        return content if done == described(self) else None


def described(cell: Cell) -> dict[str, Any]:
    """What is done in a cell, as plain values.

    Args:
        cell: which one.
    """
    return config.identity(experiment(RECIPES[cell.recipe], cell.share, cell.seed))


def cells(
    recipes: Sequence[str] = tuple(RECIPES),
    shares: Sequence[float] = SHARES,
    seeds: Sequence[int] = SEEDS,
    split: SplitName = "validation",
) -> Iterator[Cell]:
    """The cells of the study, a seed of all recipes before the next.

    Args:
        recipes: names of recipes.
        shares: of students.
        seeds: of runs.
        split: that is looked at.
    """
    for share in shares:
        for seed in seeds:
            yield from (Cell(recipe, share, seed, split) for recipe in recipes)


def planned_hours(left: Sequence[Cell]) -> float:
    """How long cells will take, as long as the median of those that are done.

    Args:
        left: what is to be done.
    """
    times = [json.loads(path.read_text())["seconds"] for path in FOLDER.glob("*.json")]
    return len(left) * float(np.median(times or [TYPICAL])) / 3600


def pack(right: np.ndarray) -> str:
    """Which samples are right as text.

    Args:
        right: (N,) bool.

    Example:
        >>> unpack(pack(np.array([True, False, True])), 3).tolist()
        [True, False, True]
    """
    return base64.b64encode(np.packbits(right).tobytes()).decode()


def unpack(text: str, count: int) -> np.ndarray:
    """The inverse of `pack`.

    Args:
        text: as `pack` makes it.
        count: of samples.
    """
    packed = np.frombuffer(base64.b64decode(text), np.uint8)
    return np.unpackbits(packed)[:count].astype(bool)


def run_cell(cell: Cell, out: Path) -> None:
    """Do a cell and write its file; the dense network of a seed is trained once.

    Args:
        cell: which one.
        out: a folder for run directories; that of the cell is removed when it is done.
    """
    started = time.perf_counter()
    study = experiment(RECIPES[cell.recipe], cell.share, cell.seed)
    dense = out / f"dense-{cell.share}-{cell.seed}"
    directory = out / cell.path.stem
    if not layout.is_complete(layout.stage_directory(dense, cell.seed)):
        train_dense(study, dense, cell.seed)
    dataset = load(study.data)
    devices = parallel.local_devices(1)
    write_config(study, directory, dataset, devices)
    stage = layout.stage_directory(directory, cell.seed)
    if not layout.is_complete(stage):
        shutil.copytree(layout.stage_directory(dense, cell.seed), stage, dirs_exist_ok=True)
    runner.run(study, directory)
    session = open_session(study, dataset, devices)
    like = initial_network(session, cell.seed)

    def right_of(place: Path) -> np.ndarray:
        network: Network = restore(session, place, like)
        measured = predict(session, network, cell.split)
        return (measured.predictions == measured.labels).all(axis=1)

    method, pruned = RECIPES[cell.recipe].method, {}
    for place, record in layout.read_records(directory):
        density = record["density"]
        if record["method"] == method and record["round"] > record["rounds"] - len(MEASURED):
            pruned[f"{MEASURED[record['round'] - record['rounds'] - 1 + len(MEASURED)]:g}"] = {
                "density": density,
                "right": pack(right_of(place)),
            }
    content = {
        "recipe": cell.recipe,
        "share": cell.share,
        "seed": cell.seed,
        "split": cell.split,
        "samples": len(getattr(dataset, cell.split)),
        "dense": pack(right_of(stage)),
        "pruned": pruned,
        "seconds": round(time.perf_counter() - started, 1),
        "experiment": described(cell),
    }
    FOLDER.mkdir(exist_ok=True)
    write_json(cell.path, content)
    shutil.rmtree(directory, ignore_errors=True)


def train_dense(like: config.Experiment, directory: Path, seed: int) -> None:
    """The dense network of a seed, which all recipes prune.

    Args:
        like: the experiment of a cell.
        directory: where to.
        seed: of the run.
    """
    alone = dataclasses.replace(
        like, methods=("magnitude",), densities=(0.5,), retrain=config.Stage()
    )
    alone = dataclasses.replace(
        alone,
        remedy=type(like.remedy)(),
        scoring=dataclasses.replace(like.scoring, groups=None, allocation="global"),
    )
    runner.run(alone, directory)
