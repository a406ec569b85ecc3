"""Read pictures from ArrayRecord files as from an array: indexing reads and decodes."""

from __future__ import annotations

import functools
import os
import sys
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fairgrape_jax.data.images import buffers, decode
from fairgrape_jax.errors import TrainingError, UsageError
from fairgrape_jax.progress import Progress

if TYPE_CHECKING:
    from array_record.python.array_record_data_source import ArrayRecordDataSource
    from tensorflow_datasets.proto import tf_example_pb2

ABOUT, COLUMNS = "fairgrape.json", "columns.npz"  # beside the record files of a prepared dataset
VERSION = "1.0.0"
THREADS = os.cpu_count() or 1
CHUNK = 256  # pictures decoded between two calls of progress


def dataset_directory(name: str, data_dir: Path) -> Path:
    """Where a prepared dataset lies, as TFDS lays it out.

    Args:
        name: What it is called.
        data_dir: The folder of prepared datasets.

    Returns:
        Its directory, whether it is there or not.
    """
    return data_dir / name / VERSION


def default_data_dir() -> Path:
    """Where TFDS keeps datasets: TFDS_DATA_DIR, or tensorflow_datasets in the home folder.

    Returns:
        The folder, whether it is there or not.
    """
    return expand_home(os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets"))


def expand_home(path: str) -> Path:
    """A local path, its ~ being the home folder.

    Args:
        path: The path.

    Returns:
        The path without ~.

    Raises:
        UsageError: It needs a home folder, and there is none; or it is on an object store.
    """
    if "://" in path:
        raise UsageError(f"{path}: data must be on a local disk; copy them to every host")
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UsageError(f"{path}: no home folder is known; set TFDS_DATA_DIR or HOME") from error


@functools.cache
def example_type() -> type[tf_example_pb2.Example]:
    """The protobuf message of a record.

    Returns:
        Its class.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of packages that TFDS imports
        from tensorflow_datasets.proto import tf_example_pb2
    return tf_example_pb2.Example


class Records:
    """The raw files of a dataset, by number; may be sent to another process, and read by threads.

    Attributes:
        paths: Its ArrayRecord files in order.
    """

    def __init__(self, paths: Sequence[Path]):
        """The records of these files.

        Args:
            paths: ArrayRecord files in order.
        """
        self.paths = [str(path) for path in paths]

    @functools.cached_property
    def _source(self) -> ArrayRecordDataSource:
        from array_record.python.array_record_data_source import ArrayRecordDataSource

        return ArrayRecordDataSource(self.paths)

    def __getstate__(self) -> dict[str, list[str]]:
        return {"paths": self.paths}

    def __repr__(self) -> str:
        return f"Records({self.paths!r})"

    def __len__(self) -> int:
        return len(self._source)

    def content(self, number: int | np.integer) -> bytes:
        """The file of a picture.

        One at a time: for many, the source starts threads, and the memory of many files is taken
        and given back; that costs three times as much as their reading.

        Args:
            number: The picture's place in the records.

        Returns:
            Its bytes; none where its record is damaged.
        """
        try:
            record = self._source[int(number)]
        except RuntimeError:  # a block of a record file is not as it was written
            return b""
        example = example_type().FromString(record)
        return bytes(example.features.feature["image"].bytes_list.value[0])


class Pictures:
    """Pictures on disk as an array (N, size, size, 3) of uint8: what a Split holds as `images`.

    Attributes:
        records: What they are read from.
        numbers: (N,) where each is in the records.
        names: (N,) UTF-8 bytes, for messages.
        evidence: (N, 32) uint8, the sha256 of each file.
        size: Side of a picture in pixels.
        fit: How a picture is made square, as for `decode.decode`.
        broken: "error" or "skip", what to do where a picture cannot be decoded any more.
        workers: Processes that read ahead of training; 0 for threads.
        lost: How often each picture was skipped, by name; a worker process counts its own, and each
            is said once.
    """

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(
        self,
        records: Records,
        numbers: np.ndarray,
        names: np.ndarray,
        evidence: np.ndarray,
        *,
        size: int,
        fit: decode.Fit = "stretch",
        broken: str = "error",
        workers: int = 0,
    ):
        """Pictures of these records; see the attributes of the class."""
        self.records, self.numbers, self.names, self.evidence = records, numbers, names, evidence
        self.size, self.fit, self.broken, self.workers = size, fit, broken, workers
        self.lost: dict[str, int] = {}

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, H, W, C)."""
        return (len(self.numbers), self.size, self.size, 3)

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, indices: Any) -> np.ndarray:
        """Pixels (*indices.shape, size, size, 3); a picture that is lost is black."""
        return self.read(np.asarray(indices))[0]

    def take(self, indices: np.ndarray) -> Pictures:
        """Some of the pictures, still on disk.

        Args:
            indices: (M,) places.

        Returns:
            These pictures, in that order.
        """
        return Pictures(
            self.records,
            self.numbers[indices],
            self.names[indices],
            self.evidence[indices],
            size=self.size,
            fit=self.fit,
            broken=self.broken,
            workers=self.workers,
        )

    def read(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Decode some of the pictures.

        Args:
            indices: Places, of any shape.

        Returns:
            Pixels (*indices.shape, size, size, 3) uint8, black where a picture is lost, and which
            of them could be read.

        Raises:
            TrainingError: A picture could not, and `broken` is "error"; it is named.
        """
        flat = indices.reshape(-1)
        pixels = buffers.empty((len(flat), self.size, self.size, 3))
        good = np.ones(len(flat), bool)
        for i, number in enumerate(self.numbers[flat]):
            try:
                decode.decode(self.records.content(number), self.size, self.fit, out=pixels[i])
            except decode.BrokenPictureError as error:
                pixels[i], good[i] = 0, False
                self._lose(self.names[flat[i]].decode(), error)
        shape = indices.shape
        return pixels.reshape(*shape, *pixels.shape[1:]), good.reshape(shape)

    def _lose(self, name: str, error: Exception) -> None:
        if self.broken == "error":
            raise TrainingError(
                f"picture {name} cannot be decoded ({error}); prepare the dataset again, or count "
                "and skip such pictures with --data.broken skip"
            )
        if name not in self.lost:  # said here, as this may be a worker's own copy
            print(f"note: picture {name} is skipped: {error}", file=sys.stderr, flush=True)
        self.lost[name] = self.lost.get(name, 0) + 1

    def in_memory(self, progress: Progress | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Decode all of them, by threads.

        Args:
            progress: Called with (pictures decoded, pictures in all).

        Returns:
            As `read`, for all.
        """
        pixels, good = np.empty(self.shape, np.uint8), np.empty(len(self), bool)

        def fill(first: int) -> int:
            part = np.arange(first, min(first + CHUNK, len(self)))
            pixels[part], good[part] = self.read(part)
            return int(part[-1]) + 1

        with ThreadPoolExecutor(THREADS) as pool:
            for done in pool.map(fill, range(0, len(self), CHUNK)):
                if progress:
                    progress(done, len(self))
        return pixels, good
