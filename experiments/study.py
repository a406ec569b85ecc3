"""The cells of a study: each is run once, and what is left of it is a small JSON file."""

from __future__ import annotations

import base64
import dataclasses
import functools
import hashlib
import json
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import fairgrape_jax
from fairgrape_jax import config, parallel
from fairgrape_jax.data import load
from fairgrape_jax.masks import Tree
from fairgrape_jax.rounds.predict import SplitName, predict
from fairgrape_jax.rounds.session import Network, initial_network, open_session
from fairgrape_jax.runner import layout
from fairgrape_jax.runner import run as runner
from fairgrape_jax.runner.prepare import write_config
from fairgrape_jax.runner.round import restore
from fairgrape_jax.storage.files import write_json

TYPICAL = 60.0  # seconds of a cell before any was timed


@dataclasses.dataclass(frozen=True, eq=False)
class Study:
    """Rows that are compared on the same data, seeds and rounds.

    Attributes:
        folder: of the JSON files of its cells.
        rows: what kind each row is, by its name, in the order of the tables.
        experiment: (row, share of students, seed) to the experiment, of one method.
        measured: what the last rounds are called, one name for each.
        unit: what those names are parts of: "of the weights", or "of the operations".
        cost: masks to the part of the unit that is left, where the density does not say it.
        base: the row that the others are compared with.
        seeds: of its runs.
        shares: of students; 1 for data that have none.
    """

    folder: Path
    rows: Mapping[str, str]
    experiment: Callable[[str, float, int], config.Experiment]
    measured: tuple[float, ...]
    base: str
    seeds: tuple[int, ...]
    shares: tuple[float, ...] = (0.05,)
    unit: str = "of the weights"
    cost: Callable[[Tree], float] | None = None

    def cells(
        self,
        rows: Sequence[str] = (),
        shares: Sequence[float] = (),
        seeds: Sequence[int] = (),
        split: SplitName = "validation",
    ) -> Iterator[Cell]:
        """The cells of the study, a seed of all rows before the next.

        Args:
            rows: their names; none for all.
            shares: of students; none for all.
            seeds: of runs; none for all.
            split: that is looked at.
        """
        for share in shares or self.shares:
            for seed in seeds or self.seeds:
                yield from (Cell(self, row, share, seed, split) for row in rows or self.rows)

    def planned_hours(self, left: Sequence[Cell]) -> float:
        """How long cells will take, as long as the median of those that are done.

        Args:
            left: what is to be done.
        """
        return len(left) * typical_seconds(self.folder) / 3600


@dataclasses.dataclass(frozen=True)
class Cell:
    """A row of a study, a share of students, a seed, and the split that is looked at."""

    study: Study = dataclasses.field(repr=False)
    row: str
    share: float
    seed: int
    split: SplitName = "validation"

    @property
    def path(self) -> Path:
        """Its file."""
        name = re.sub(r"\W+", "_", self.row)
        share = f"-{100 * self.share:g}" if self.share < 1 else ""
        end = "" if self.split == "validation" else f"-{self.split}"
        return self.study.folder / f"{name}{share}-{self.seed}{end}.json"

    def read(self) -> dict[str, Any] | None:
        """What it holds; None where it is not done, or was done by another row of that name."""
        return read_cell(self.path, described(self))


def described(cell: Cell) -> dict[str, Any]:
    """What is done in a cell, as plain values.

    Args:
        cell: which one.
    """
    return config.identity(cell.study.experiment(cell.row, cell.share, cell.seed))


def read_cell(path: Path, experiment: dict[str, Any]) -> dict[str, Any] | None:
    """What the file of a cell holds; None where it is not there, or of another experiment.

    Args:
        path: of the file.
        experiment: its `config.identity`.
    """
    if not path.is_file():
        return None
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    done = config.identity(config.from_dict(content["experiment"]))
    return content if done == experiment else None


def typical_seconds(folder: Path) -> float:
    """How long a cell takes: the median of those that are done.

    Args:
        folder: of their files.
    """
    times = [json.loads(path.read_text())["seconds"] for path in folder.glob("*.json")]
    return float(np.median(times or [TYPICAL]))


def read_done(planned: Sequence[Cell]) -> dict[Cell, dict[str, Any]]:
    """What is left of the cells that are done.

    Args:
        planned: cells.
    """
    return {cell: content for cell in planned if (content := cell.read()) is not None}


def run_left(planned: Sequence[Cell], out: Path) -> None:
    """Do the cells that are not done, after saying how long they will take.

    Args:
        planned: cells.
        out: a folder for run directories.
    """
    left = [cell for cell in planned if cell.read() is None]
    hours = sum(cell.study.planned_hours([cell]) for cell in left)
    print(f"{len(planned) - len(left)} of {len(planned)} cells are done; the rest takes about "
          f"{hours:.1f} hours", flush=True)  # fmt: skip
    for cell in left:
        run_cell(cell, out)


@functools.cache
def source_digest() -> str:
    """Which code makes the cells of this process: twelve digits of the package's SHA-256."""
    package, whole = Path(fairgrape_jax.__file__).parent, hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        whole.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes())
    return whole.hexdigest()[:12]


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
    started, code = time.perf_counter(), source_digest()
    study = cell.study
    experiment = study.experiment(cell.row, cell.share, cell.seed)
    dense = out / f"dense-{cell.share}-{cell.seed}"
    directory = out / cell.path.stem
    if not layout.is_complete(layout.stage_directory(dense, cell.seed)):
        train_dense(experiment, dense, cell.seed)
    dataset = load(experiment.data)
    devices = parallel.local_devices(1)
    write_config(experiment, directory, dataset, devices, config.used_rows(experiment))
    stage = layout.stage_directory(directory, cell.seed)
    if not layout.is_complete(stage):
        shutil.copytree(layout.stage_directory(dense, cell.seed), stage, dirs_exist_ok=True)
    runner.run(experiment, directory)
    session = open_session(experiment, dataset, devices)
    like = initial_network(session, cell.seed)

    def right_of(network: Network) -> np.ndarray:
        measured = predict(session, network, cell.split)
        return (measured.predictions == measured.labels).all(axis=1)

    pruned: dict[str, dict[str, Any]] = {}
    for density, place, record in measured_rounds(study, directory, experiment.methods[0]):
        network = restore(session, place, like)
        pruned[density] = {
            "density": record["density"],
            **({"cost": study.cost(network.masks)} if study.cost else {}),
            "right": pack(right_of(network)),
        }
    content = {
        "row": cell.row,
        "share": cell.share,
        "seed": cell.seed,
        "split": cell.split,
        "samples": len(getattr(dataset, cell.split)),
        "dense": pack(right_of(restore(session, stage, like))),
        "pruned": pruned,
        "seconds": round(time.perf_counter() - started, 1),
        "code": code,
        "experiment": described(cell),
    }
    study.folder.mkdir(exist_ok=True, parents=True)
    write_json(cell.path, content)
    shutil.rmtree(directory, ignore_errors=True)


def measured_rounds(
    study: Study, directory: Path, method: str
) -> Iterator[tuple[str, Path, layout.Record]]:
    """The last rounds of a method: what each is called, its directory and its record.

    Args:
        study: of the cell.
        directory: of the finished run.
        method: of the run.
    """
    for place, record in layout.read_records(directory):
        number = record["round"] - record["rounds"] - 1 + len(study.measured)
        if record["method"] == method and number >= 0:
            yield f"{study.measured[number]:g}", place, record


def train_dense(like: config.Experiment, directory: Path, seed: int) -> None:
    """The dense network of a seed, which all rows prune.

    Args:
        like: the experiment of a cell.
        directory: where to.
        seed: of the run.
    """
    alone = dataclasses.replace(
        like,
        methods=("magnitude",),
        densities=(0.5,),
        retrain=config.Stage(),
        remedy=type(like.remedy)(),
        scoring=dataclasses.replace(
            like.scoring, groups=None, allocation="global", structures="none"
        ),
    )
    runner.run(alone, directory)
