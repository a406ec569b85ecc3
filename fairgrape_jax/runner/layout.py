"""Where everything is in a run's directory, and the records that vouch for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fairgrape_jax import storage

Record = dict[str, Any]  # of a stage, as its metrics.json holds it

# What the record of a stage vouches for; the list of digests does so for the checkpoint.
FILES = ("checkpoint/digests.json", "masks.npz", "predictions.csv")


def find_run(path: Path) -> Path | None:
    """The directory of the run that a path is in, or is.

    Args:
        path: absolute.

    Returns:
        The nearest directory with a config.json; None where there is none up to the root.
    """
    return next((p for p in (path, *path.parents) if (p / "config.json").is_file()), None)


def round_directory(root: Path, number: int) -> Path:
    """Where round `number` of a method is.

    Args:
        root: the directory of the method's rounds.
        number: of the round.
    """
    return root / f"round_{number:02d}"


def stage_directory(run: Path, seed: int, method: str = "dense", number: int = 0) -> Path:
    """Where a stage of a run is: the dense training, or a round of a method.

    Args:
        run: the directory of the run.
        seed: of the stage.
        method: of the experiment, or dense.
        number: of the round; 0 for the dense training.

    Example:
        >>> stage_directory(Path("run"), 0).as_posix()
        'run/seed_0/dense'
        >>> stage_directory(Path("run"), 0, "magnitude", 3).as_posix()
        'run/seed_0/magnitude/round_03'
    """
    root = run / f"seed_{seed}" / method
    return round_directory(root, number) if number else root


def epoch_directory(dense: Path, epoch: int) -> Path:
    """Where the dense training at an epoch is, for methods that start there or return to it.

    Args:
        dense: the directory of the dense training.
        epoch: its number.
    """
    return dense / f"epoch_{epoch:02d}"


def write_record(directory: Path, record: Record) -> None:
    """Write a stage's metrics.json, which makes it complete and vouches for its FILES.

    Args:
        directory: of the stage.
        record: what metrics.json says.
    """
    digests = {name: storage.sha256_or_empty(directory / name) for name in FILES}
    storage.write_checksummed(directory / "metrics.json", record | {"files": digests})


def read_record(directory: Path) -> Record | None:
    """A stage's record; None if it is not complete, or its metrics.json was changed.

    Args:
        directory: of a stage.
    """
    content = storage.read_checksummed(directory / "metrics.json")
    return content if content and isinstance(content.get("files"), dict) else None


def is_complete(directory: Path) -> bool:
    """Whether a stage was finished.

    Args:
        directory: of a stage.
    """
    return read_record(directory) is not None


def changed_files(directory: Path, *names: str) -> list[str]:
    """The names of files of a complete stage that are gone or not as they were written.

    Args:
        directory: that of the stage.
        names: of the files to look at.
    """
    digests = (read_record(directory) or {}).get("files", {})
    return storage.changed_files(directory, {name: digests.get(name, "?") for name in names})


def read_records(directory: Path) -> list[tuple[Path, Record]]:
    """The directory and record of every complete stage of a run, in order of their names.

    Args:
        directory: of the run.
    """
    stages = sorted(path.parent for path in directory.glob("seed_*/**/metrics.json"))
    records = ((stage, read_record(stage)) for stage in stages)
    return [(stage, record) for stage, record in records if record is not None]


def complete_rounds(root: Path, count: int) -> int:
    """The number of the last round of the unbroken sequence of complete ones; 0 for none.

    Args:
        root: the directory of the method's rounds.
        count: how many there are to be.
    """
    done = 0
    while done < count and is_complete(round_directory(root, done + 1)):
        done += 1
    return done


def remove_partial(directory: Path) -> None:
    """Remove what a stage that is complete has kept in between.

    Args:
        directory: of a stage.
    """
    storage.remove_tree(directory / "partial", ignore_errors=True)


def write_log(directory: Path) -> None:
    """Write RUN/metrics.jsonl, a line per complete stage, unless it holds just that.

    Args:
        directory: of the run.
    """
    lines = []
    for _, record in read_records(directory):
        for key in ("layers", "importance", "selection", "files"):
            record.pop(key, None)
        lines.append(json.dumps(record))
    path, text = directory / "metrics.jsonl", "".join(line + "\n" for line in lines)
    if not path.is_file() or path.read_bytes() != text.encode():
        storage.write_text(path, text)
