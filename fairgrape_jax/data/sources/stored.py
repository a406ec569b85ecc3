"""Read what `fairgrape data prepare` wrote: its description, its columns, its record files."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple, TypedDict

import numpy as np

from fairgrape_jax import storage
from fairgrape_jax.data.dataset import NO_GROUP
from fairgrape_jax.data.images.records import ABOUT, COLUMNS, Records
from fairgrape_jax.errors import UsageError
from fairgrape_jax.storage import schema
from fairgrape_jax.storage.schema import JsonObject

# What NumPy raises for a .npz that is none, or that was altered; a pickle in it is a ValueError.
UNREADABLE = (
    OSError, ValueError, EOFError, KeyError, AttributeError, NotImplementedError,
    zipfile.BadZipFile, zlib.error,
)  # fmt: skip


class ColumnOf(TypedDict):
    """A column of a prepared dataset.

    Attributes:
        name: What it is called.
        classes: Names of its values, in the order of their numbers.
        group: Whether it is offered as a group column.
    """

    name: str
    classes: list[str]
    group: bool


class About(TypedDict):
    """What a prepared dataset says of itself.

    Attributes:
        builder: The row of the table of builders that made it.
        options: With which options.
        columns: What is known of every picture.
        labels: Columns that a task is by default.
        groups: Columns that a group is by default.
        mean: Per-channel mean of pictures scaled to [0, 1].
        std: Their standard deviation.
        notes: What a user should know of it.
        sha256: The checksum of each record file.
    """

    builder: str
    options: JsonObject
    columns: list[ColumnOf]
    labels: list[str]
    groups: list[str]
    mean: list[float]
    std: list[float]
    notes: list[str]
    sha256: dict[str, str]


class Stored(NamedTuple):
    """A prepared dataset as it lies on disk.

    Attributes:
        about: What it says of itself.
        columns: An entry per record for each of: name, source, split (UTF-8 bytes), values
            (N, columns) int32 with NO_GROUP where a picture is in no group, digest (sha256, V32).
        records: The files of the pictures.
    """

    about: About
    columns: dict[str, np.ndarray]
    records: Records


def stored_in(directory: Path) -> Stored:
    """Read a prepared dataset; no picture is read.

    Args:
        directory: Where it lies.

    Returns:
        Its description, its columns and its record files.

    Raises:
        UsageError: There is none, or it is not whole.
    """
    if not (directory / ABOUT).is_file():
        raise UsageError(
            f"{directory}: no prepared dataset; `fairgrape data prepare {directory.parent.name} "
            "--from DIR` makes it"
        )
    again = f"remove {directory} and prepare it again"
    about = schema.read_json(directory / ABOUT, About, "the description of a dataset", again)
    try:
        with storage.require_regular_file(directory / COLUMNS).open("rb") as file:
            arrays = np.load(file, allow_pickle=False)
            columns = {name: arrays[name] for name in arrays.files}
    except UNREADABLE as error:
        raise UsageError(f"{directory / COLUMNS}: cannot be read ({error}); {again}") from error
    if wrong := _unfit(about, columns):
        raise UsageError(f"{directory}: {wrong}; {again}")
    paths = [directory / name for name in about["sha256"]]
    if absent := [path for path in paths if not path.is_file()]:
        raise UsageError(f"{absent[0]}: missing; {again}")
    return Stored(about, columns, Records(paths))


def _unfit(about: About, columns: dict[str, np.ndarray]) -> str:
    """What does not fit in a dataset's description and its columns, "" for nothing."""
    names = [column["name"] for column in about["columns"]]
    grouped = {column["name"] for column in about["columns"] if column["group"]}
    if len(set(names)) < len(names) or not about["labels"] or not about["groups"]:
        return "columns, labels and groups must be one or more, each named once"
    if not set(about["labels"]) <= set(names) or not set(about["groups"]) <= grouped:
        return "labels or groups are not among the columns"
    if len(about["mean"]) != 3 or len(about["std"]) != 3 or min(about["std"]) <= 0:
        return "mean and std must be three numbers, std positive"
    if not about["sha256"]:
        return "it names none of its record files"
    if any(Path(name).name != name for name in about["sha256"]):
        return "its files must lie in its folder"
    if missing := {"name", "source", "split", "values", "digest"} - columns.keys():
        return f"no array {min(missing)!r}"
    values, digest = columns["values"], columns["digest"]
    count = len(values) if values.ndim == 2 else 0
    words = [columns[name] for name in ("name", "source", "split")]
    if not count or any(x.shape != (count,) or x.dtype.kind != "S" for x in words):
        return "its columns are not of one length"
    if digest.shape != (count,) or digest.dtype != "V32" or values.dtype.kind != "i":
        return "its digests or values are of another type"
    sizes = np.array([len(column["classes"]) for column in about["columns"]])
    least = [NO_GROUP if column["group"] else 0 for column in about["columns"]]
    if values.shape[1] != len(sizes) or (values < least).any() or (values >= sizes).any():
        return "its values are not classes of its columns"
    return ""
