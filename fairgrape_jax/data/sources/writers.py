"""Read MNIST with who wrote it: Census Bureau employees or high-school students."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import io
import math
import zipfile
import zlib
from pathlib import Path
from typing import ClassVar

import numpy as np

from fairgrape_jax.data.dataset import Dataset, Split, Task
from fairgrape_jax.data.sources.base import (
    Reading,
    Source,
    check_options,
    group_column,
    kept_indices,
    label_column,
)
from fairgrape_jax.errors import UsageError
from fairgrape_jax.progress import Progress

GROUPS = ("employees", "students")
SIZE = 28
SAMPLE = Path(__file__).parents[1] / "samples" / "writers.npz"
SAMPLE_SHA256 = "5884ade6530b32b313cdc0c2758f11e3aa93705a1973597073453734b7d72b63"
NOTES = (
    "MNIST, Y. LeCun and C. Cortes, CC BY-SA 3.0; writer population added from the index.",
    "Test writers are in no other split; students of the training split, whose order in MNIST is"
    " shuffled, also wrote validation digits.",
)

# One block in MNIST's own order. Employees stand there writer by writer, so a block shares only
# the writers at its two ends with the rest. Students, at the even indices, are shuffled (nearest
# neighbours of a digit are no closer in index than chance), so no range can part them.
VALIDATION = range(56_100, 58_100)  # 1,000 even and 1,000 odd indices: as many of each population
STUDENTS_END_TRAIN = 58_100
STUDENTS_LAST_TEST = 5_000

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Writers(Source):
    """MNIST digits, grouped by writer: employees (0) or students (1).

    Without a path, the sample in the package; with one, a folder that holds MNIST's four IDX
    files, plain or gzipped.
    """

    name: ClassVar[str] = "writers"
    LABELS: ClassVar[tuple[str, ...]] = ("digit",)
    GROUPS: ClassVar[tuple[str, ...]] = ("writer",)


def load(
    source: Writers, progress: Progress | None = None, reading: Reading | None = None
) -> Dataset:
    """Read the digits: the embedded sample, or all of MNIST.

    The embedded sample has 12,000 training and 4,000 test digits, the full set 58,000 and 10,000;
    both have 2,000 for validation.

    Args:
        source: Its options.
        progress: Called with (digits read, digits in all).
        reading: How pictures are read; these are in memory whatever it says.

    Returns:
        The dataset; pictures are (N, 28, 28, 1), or of the size asked for.

    Raises:
        UsageError: An option, the embedded sample or an IDX file cannot be used.
    """
    label_column(source)
    group_column(source)
    check_options(source, GROUPS)
    parts = read_folder(Path(source.path)) if source.path else read_sample()
    keep = [
        kept_indices(source, groups, GROUPS, training=number == 0)
        for number, (_, _, groups) in enumerate(parts)
    ]
    total, done, splits = sum(map(len, keep)), 0, []
    for (images, labels, groups), kept in zip(parts, keep, strict=True):
        pictures = resize(images[kept], source.size or SIZE)[..., None]
        splits.append(Split(pictures, labels[kept, None].astype(np.int32), groups[kept]))
        done += len(kept)
        if progress:
            progress(done, total)
    train, validation, test = splits
    return Dataset(
        train=train,
        validation=validation,
        test=test,
        tasks=(Task("digit", tuple("0123456789")),),
        groups=GROUPS,
        mean=(0.1307,),
        std=(0.3081,),
        notes=NOTES,
    )


def population(index: np.ndarray, *, test: bool) -> np.ndarray:
    """The group of digits of MNIST.

    The rule agrees with the writers that QMNIST traced, without exception.

    Args:
        index: (N,) places in MNIST's training or test file.
        test: Whether it is the test file.

    Returns:
        (N,) int32: 0 for employees, 1 for students.

    Example:
        >>> population(np.array([0, 1, 58_100]), test=False).tolist()
        [1, 0, 0]
        >>> population(np.array([5_000, 5_001]), test=True).tolist()
        [1, 0]
    """
    if test:
        return (index <= STUDENTS_LAST_TEST).astype(np.int32)
    return ((index < STUDENTS_END_TRAIN) & (index % 2 == 0)).astype(np.int32)


def read_sample() -> list[Arrays]:
    """Read the embedded sample.

    Returns:
        Images (N, 28, 28), labels (N,) and groups (N,) of training, validation and test.

    Raises:
        UsageError: It is not as it was shipped.
    """
    try:
        content = SAMPLE.read_bytes()
        if hashlib.sha256(content).hexdigest() != SAMPLE_SHA256:
            raise ValueError("wrong checksum")
        with np.load(io.BytesIO(content)) as arrays:
            return [
                (
                    arrays[f"{split}_images"],
                    arrays[f"{split}_labels"],
                    arrays[f"{split}_groups"].astype(np.int32),
                )
                for split in ("train", "validation", "test")
            ]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise UsageError(
            f"embedded sample {SAMPLE.name} is corrupt: reinstall fairgrape_jax ({error})"
        ) from error


def read_folder(folder: Path) -> list[Arrays]:
    """Read all of MNIST.

    Args:
        folder: With its four IDX files, plain or gzipped.

    Returns:
        Images (N, 28, 28), labels (N,) and groups (N,) of training, validation and test.

    Raises:
        UsageError: It names the file that is missing or not as expected.
    """
    images, labels = read_idx(folder, "train", 60_000)
    inside = np.isin(np.arange(len(labels)), VALIDATION)
    held_out = read_idx(folder, "t10k", 10_000)
    groups = population(np.arange(len(labels)), test=False)
    return [
        (images[~inside], labels[~inside], groups[~inside]),
        (images[inside], labels[inside], groups[inside]),
        (*held_out, population(np.arange(len(held_out[1])), test=True)),
    ]


def read_idx(folder: Path, part: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Read the IDX files of one part of MNIST.

    Args:
        folder: That of the files.
        part: "train" or "t10k".
        count: How many digits it has.

    Returns:
        Images (count, 28, 28) and labels (count,), uint8.

    Raises:
        UsageError: It names the file that is missing or not as expected.
    """
    images = read_idx_file(_find(folder, f"{part}-images", 3), 0x803, (count, SIZE, SIZE))
    labels = read_idx_file(_find(folder, f"{part}-labels", 1), 0x801, (count,))
    return images, labels


def resize(images: np.ndarray, size: int) -> np.ndarray:
    """Resize grey pictures by Pillow's bilinear filter.

    Args:
        images: (N, H, W) uint8.
        size: Side of the new ones.

    Returns:
        (N, size, size) uint8.
    """
    if images.shape[1:] == (size, size):
        return images
    from PIL import Image

    out = np.empty((len(images), size, size), np.uint8)
    for i, picture in enumerate(images):
        small = Image.fromarray(picture).resize((size, size), Image.Resampling.BILINEAR)
        out[i] = np.asarray(small)
    return out


def _find(folder: Path, stem: str, rank: int) -> Path:
    for name in (f"{stem}-idx{rank}-ubyte", f"{stem}.idx{rank}-ubyte"):
        for path in (folder / name, folder / f"{name}.gz"):
            if path.is_file():
                return path
    raise UsageError(
        f"{folder}: no {stem}-idx{rank}-ubyte[.gz]; give a folder with MNIST's four IDX files"
    )


def read_idx_file(path: Path, magic: int, shape: tuple[int, ...]) -> np.ndarray:
    """Read one IDX file, and no more of it than it should hold.

    Args:
        path: The file, plain or gzipped.
        magic: The number that it must begin with.
        shape: That of its array.

    Returns:
        The array, uint8.

    Raises:
        UsageError: It cannot be read, or is not as expected.
    """
    most = 4 * (1 + len(shape)) + math.prod(shape) + 1  # more is too much, however much it is
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = file.read(most)
    except (OSError, EOFError, zlib.error) as error:
        raise UsageError(f"{path}: cannot be read ({error}); fetch the file again") from error
    head, body = content[: 4 * (1 + len(shape))], content[4 * (1 + len(shape)) :]
    expected = [magic, *shape]
    if head != np.array(expected, ">u4").tobytes():
        actual = np.frombuffer(head[: len(head) // 4 * 4], ">u4").tolist()
        raise UsageError(
            f"{path}: starts with {actual}, expected magic number and counts {expected};"
            " give MNIST's own file"
        )
    if len(body) != math.prod(shape):
        actual = f"more than {math.prod(shape)}" if len(content) == most else f"{len(body)}"
        raise UsageError(f"{path}: {actual} bytes of data, expected {math.prod(shape)}")
    return np.frombuffer(body, np.uint8).reshape(shape)
