"""Datasets that `fairgrape data prepare` wrote: splits, folds and columns are chosen on reading."""

from __future__ import annotations

import dataclasses
import zipfile
import zlib
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, TypedDict

import numpy as np

from fairgrape_jax import storage
from fairgrape_jax.data.dataset import Dataset, Split, Task
from fairgrape_jax.data.images.decode import Fit
from fairgrape_jax.data.images.records import (
    ABOUT,
    COLUMNS,
    Pictures,
    Records,
    dataset_directory,
    default_data_dir,
    expanded,
)
from fairgrape_jax.data.sources.base import (
    SPLIT_STREAM,
    Source,
    check_options,
    kept_indices,
    stream,
    three_ways,
)
from fairgrape_jax.errors import UsageError
from fairgrape_jax.progress import Progress
from fairgrape_jax.storage import schema

SIZE = 224
CACHE_BYTES = 4 << 30  # decoded pictures that cache="auto" holds in memory
GIVEN = ("train", "validation", "test")
NAMED = 10
# What NumPy raises for a .npz that is none, or that was altered; a pickle in it is a ValueError.
UNREADABLE = (
    OSError, ValueError, EOFError, KeyError, AttributeError, NotImplementedError,
    zipfile.BadZipFile, zlib.error,
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Prepared(Source):
    """Any dataset made by `fairgrape data prepare`: FairFace, UTKFace, CelebA, ImageNet, your own.

    path: the folder of prepared datasets; empty: TFDS's own (TFDS_DATA_DIR). label and group are
    columns of the dataset: several labels with commas between them are several tasks, "all" is
    every label; a group may be a product, "race+gender".
    """

    dataset: str = ""
    """Its name: fair_face, utk_face, celeb_a_attributes, imagenet2012, ... or your own."""
    split_by: Literal["content", "source", "given"] = "content"
    """content: 80/10/10 by seed, with all pictures of one source, and all equal files, on one side;
    source: equal files of several sources may fall apart, as in the paper; given: as its authors
    split it, a tenth of train for what they did not give."""
    fold: str = ""
    """i/k, from 1/k to k/k: test on part i of k, validate on the next, train on the rest."""
    fit: Fit = "stretch"
    """stretch a picture to the square, or crop: scale its shorter side and take the middle."""
    cache: Literal["auto", "memory", "disk"] = "auto"
    """Hold decoded pictures in memory, or read them when needed; auto: memory up to 4 GiB."""
    broken: Literal["error", "skip"] = "error"
    """A picture that cannot be decoded: stop and name it, or leave it out and count it."""
    workers: int = 0
    """Processes that read ahead; 0: threads of this one. The results are the same."""

    name: ClassVar[str] = "prepared"


class ColumnOf(TypedDict):
    """A column of a prepared dataset."""

    name: str
    classes: list[str]
    group: bool


class About(TypedDict):
    """What a prepared dataset says of itself."""

    builder: str
    options: dict[str, Any]
    columns: list[ColumnOf]
    labels: list[str]
    groups: list[str]
    mean: list[float]
    std: list[float]
    notes: list[str]
    sha256: dict[str, str]


class Stored(NamedTuple):
    """A prepared dataset as it lies on disk: what it says of itself, its columns, its files."""

    about: About
    columns: dict[str, np.ndarray]
    records: Records


def load(source: Prepared, progress: Progress | None = None) -> Dataset:
    """Splits of what is kept, pictures in memory or on disk (then some 200 bytes of memory each).

    UsageError if an option or the files cannot be used.
    """
    for option in ("split_by", "fit", "cache", "broken"):
        _check_literal(source, option)
    if source.workers < 0:
        raise UsageError(f"workers={source.workers}: give 0 or more")
    stored = read(source)
    tasks, labels = label_columns(stored, source)
    names, groups = group_column(stored, source)
    check_options(source, names)
    size = source.size or SIZE
    splits, notes = [], list(stored.about["notes"])
    parts = [
        members[kept_indices(source, groups[members], names, training=number == 0)]
        for number, members in enumerate(sides(stored.columns, source))
    ]
    wanted = sum(map(len, parts)) * size * size * 3
    hold = source.cache == "memory" or (source.cache == "auto" and wanted <= CACHE_BYTES)
    done, total = 0, sum(map(len, parts))
    evidence = stored.columns["digest"].view(np.uint8).reshape(-1, 32)
    for part in parts:
        pictures = Pictures(
            stored.records,
            part,
            stored.columns["name"][part],
            evidence[part],
            size=size,
            fit=source.fit,
            broken=source.broken,
            workers=source.workers,
        )
        images: Any = pictures
        if hold:
            images, good = pictures.in_memory(_shifted(progress, done, total))
            part, images = part[good], images if good.all() else images[good]
            notes += _lost(pictures)
        done += len(part)
        splits.append(Split(images, labels[part], groups[part]))
    train, validation, test = splits
    return Dataset(
        train=train,
        validation=validation,
        test=test,
        tasks=tasks,
        groups=names,
        mean=tuple(stored.about["mean"]),
        std=tuple(stored.about["std"]),
        notes=tuple(notes),
    )


def read(source: Prepared) -> Stored:
    """What lies under the name of the source. UsageError if there is no whole dataset."""
    place = expanded(source.path) if source.path else default_data_dir()
    if not source.dataset:
        raise UsageError(
            f"dataset is empty: name one of those in {place} (`fairgrape data list` shows them)"
        )
    return stored_in(dataset_directory(source.dataset, place))


def stored_in(directory: Path) -> Stored:
    """The dataset in `directory`. UsageError if there is none, or it is not whole."""
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
    if values.shape[1] != len(sizes) or (values < 0).any() or (values >= sizes).any():
        return "its values are not classes of its columns"
    return ""


def label_columns(stored: Stored, source: Prepared) -> tuple[tuple[Task, ...], np.ndarray]:
    """The tasks asked for, or the dataset's first label, and their labels (N, T) int32."""
    known = {column["name"]: i for i, column in enumerate(stored.about["columns"])}
    asked = source.label.split(",") if source.label else stored.about["labels"][:1]
    if source.label == "all":
        asked = stored.about["labels"]
    at = [known[_known("label", name.strip(), tuple(known), source)] for name in asked]
    columns = [stored.about["columns"][i] for i in at]
    tasks = tuple(Task(column["name"], tuple(column["classes"])) for column in columns)
    return tasks, stored.columns["values"][:, at].astype(np.int32)


def group_column(stored: Stored, source: Prepared) -> tuple[tuple[str, ...], np.ndarray]:
    """Names of the groups asked for, or of the dataset's first column of groups, and (N,) ids.

    A product "a+b" has the groups of a, each cut by those of b.
    """
    columns = stored.about["columns"]
    known = {c["name"]: i for i, c in enumerate(columns) if c["group"]}
    names: tuple[str, ...] = ("",)
    ids = np.zeros(len(stored.columns["values"]), np.int32)
    for asked in (source.group or stored.about["groups"][0]).split("+"):
        at = known[_known("group", asked.strip(), tuple(known), source)]
        classes = columns[at]["classes"]
        names = tuple(f"{name} {c}".strip() for name in names for c in classes)
        ids = ids * len(classes) + stored.columns["values"][:, at]
    return names, ids.astype(np.int32)


def sides(columns: dict[str, np.ndarray], source: Prepared) -> list[np.ndarray]:
    """Record numbers of the training, validation and test pictures, sorted by name."""
    order = np.lexsort((columns["digest"].view("S32"), columns["name"]))
    if source.split_by == "given":
        if source.fold:
            raise UsageError("fold: needs splits by seed; leave out split_by=given")
        side = _given(columns, source)
    else:
        units = unit_of(columns, content=source.split_by == "content")
        side = _by_seed(units, source)
    return [order[side[order] == number] for number in range(3)]


def unit_of(columns: dict[str, np.ndarray], *, content: bool) -> np.ndarray:
    """(N,) numbers of what must not be split: a source; with content, what equals it too.

    Numbered by the least name of a source, or by the least digest, so that a split does not depend
    on the order of the records.
    """
    sources, by_source = np.unique(columns["source"], return_inverse=True)
    if not content:
        return by_source
    digests, by_digest = np.unique(columns["digest"].view("S32"), return_inverse=True)
    if len(sources) == len(by_source):
        return by_digest
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    # Sources and digests are the nodes of a graph, records its edges.
    nodes = len(sources) + len(digests)
    edges = coo_matrix(
        (np.ones(len(by_source), bool), (by_source, by_digest + len(sources))), (nodes, nodes)
    )
    part = connected_components(edges, directed=False)[1][by_source]
    least = np.full(part.max() + 1, len(digests))
    np.minimum.at(least, part, by_digest)
    return np.unique(least[part], return_inverse=True)[1]


def _by_seed(units: np.ndarray, source: Prepared) -> np.ndarray:
    rng = stream(source.seed, SPLIT_STREAM)
    count = int(units.max()) + 1
    if not source.fold:
        return three_ways(count, rng)[units]
    i, k = parsed_fold(source.fold)
    if k > count:
        raise UsageError(f"fold={source.fold}: only {count} sources to make folds of")
    fold = np.empty(count, np.int64)
    fold[rng.permutation(count)] = np.arange(count) * k // count
    side = np.zeros(count, np.int64)
    side[fold == i % k] = 1
    side[fold == i - 1] = 2
    return side[units]


def parsed_fold(text: str) -> tuple[int, int]:
    """(i, k) of "i/k". UsageError unless 1 <= i <= k and k >= 3.

    >>> parsed_fold("2/5")
    (2, 5)
    """
    i, _, k = text.partition("/")
    if not (i.isdecimal() and k.isdecimal() and 1 <= int(i) <= int(k) and int(k) >= 3):
        raise UsageError(f"fold={text!r}: give i/k with i from 1 to k and k at least 3, as 1/5")
    return int(i), int(k)


def _given(columns: dict[str, np.ndarray], source: Prepared) -> np.ndarray:
    """The authors' splits; validation and test that they did not give are tenths of train."""
    given = set(np.unique(columns["split"]).astype(str).tolist())
    if not given <= set(GIVEN) or "train" not in given:
        raise UsageError(
            f"split_by=given: {source.dataset} has the splits {', '.join(sorted(given))}; "
            "train, validation and test are needed; leave out split_by"
        )
    side = np.array([GIVEN.index(split) for split in columns["split"].astype(str).tolist()])
    units = unit_of(columns, content=True)
    rng = stream(source.seed, SPLIT_STREAM)
    free = rng.permutation(np.unique(units[side == 0]))
    tenth = len(free) // 10
    for number, split in enumerate(GIVEN):
        if split not in given:
            taken, free = free[:tenth], free[tenth:]
            side[np.isin(units, taken) & (side == 0)] = number
    return side


def _check_literal(source: Prepared, option: str) -> None:
    known = {
        "split_by": ("content", "source", "given"),
        "fit": ("stretch", "crop"),
        "cache": ("auto", "memory", "disk"),
        "broken": ("error", "skip"),
    }[option]
    if getattr(source, option) not in known:
        raise UsageError(f"{option}={getattr(source, option)!r}: give {', '.join(known)}")


def _known(kind: str, asked: str, known: tuple[str, ...], source: Prepared) -> str:
    if asked not in known:
        raise UsageError(
            f"{kind}={asked!r}: {source.dataset} has no such column; known: {', '.join(known)}"
        )
    return asked


def _shifted(progress: Progress | None, done: int, total: int) -> Progress | None:
    return None if progress is None else lambda i, _: progress(done + i, total)


def _lost(pictures: Pictures) -> list[str]:
    names = sorted(pictures.lost)
    shown = ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")
    return [f"{len(names):,} skipped, cannot be decoded: {shown}"] if names else []
