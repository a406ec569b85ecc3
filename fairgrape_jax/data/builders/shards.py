"""Write the rows of a listing as a TFDS dataset of ArrayRecord files, shard by shard.

Shards are written one after another into a folder of their own, each under its final name only when
it is whole, so that a killed attempt goes on. When all are there they are linked into the folder in
which TFDS writes its metadata.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of packages that TFDS imports
    import tensorflow_datasets as tfds

from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

from fairgrape_jax import storage
from fairgrape_jax.data.builders.listing import Listing, Options, Row, check_any, leave_out
from fairgrape_jax.data.builders.shard_plan import SHARD_BYTES, check_plan, plan_shards
from fairgrape_jax.data.images import decode, files
from fairgrape_jax.data.images.records import ABOUT, COLUMNS, THREADS, VERSION
from fairgrape_jax.progress import Progress
from fairgrape_jax.storage.schema import JsonObject

RECORD_OPTIONS = "group_size:1,uncompressed"  # pictures are compressed already


Example: TypeAlias = dict[str, bytes | str | int]  # a value for each feature of TFDS
Examples: TypeAlias = Iterator[tuple[int, Example]]


class Job(NamedTuple):
    """What is written, and where to.

    Attributes:
        listing: The rows, in the order in which they are written.
        options: What may be left out.
        made_by: The builder's name and its options, for the dataset's description.
        place: Where the pictures come from, for messages.
        partial: The folder of shards; what is whole there is kept.
        shard_bytes: Bytes of pictures in a shard, about.
        tfrecord: Whether TFRecord files are written beside the ArrayRecord ones.
        progress: Called with (rows written, rows in all).
    """

    listing: Listing
    options: Options
    made_by: JsonObject
    place: Path
    partial: Path
    shard_bytes: int = SHARD_BYTES
    tfrecord: bool = False
    progress: Progress | None = None


class Shard(NamedTuple):
    """A written shard.

    Attributes:
        path: Its file.
        split: Which part of the data it holds.
        broken: What is wrong with the pictures that were left out.
        sha256: The checksum of its file.
        digests: The sha256 of each row's picture; "" for those left out.
    """

    path: Path
    split: str
    broken: list[str]
    sha256: str
    digests: list[str]

    @property
    def records(self) -> int:
        """Pictures in it."""
        return sum(map(bool, self.digests))


def write(job: Job, name: str, folder: Path) -> Path:
    """Write a dataset, or what an earlier attempt did not write of it.

    Args:
        job: What to write.
        name: What the dataset is called.
        folder: Where to write it, as TFDS lays datasets out.

    Returns:
        Its directory.

    Raises:
        UsageError: Pictures are broken that may not be left out, or none is left.
    """
    class_name = "".join(part.title() for part in name.split("_")) or name
    kind = type(class_name, (ListingBuilder,), {"name": name}, skip_registration=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        builder = kind(job=job, data_dir=str(folder), file_format="array_record")
        builder.download_and_prepare()
    return Path(builder.data_dir)


class ListingBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """A TFDS builder of the rows of a listing.

    Its examples have `image` (the bytes of the file as they are), `name`, `source`, and a class
    label for each column.
    """

    VERSION = tfds.core.Version(VERSION)

    def __init__(self, *, job: Job, **settings: str):
        """A builder of one dataset.

        Args:
            job: What to write.
            settings: Those of TFDS.
        """
        self.job = job
        super().__init__(**settings)

    def _info(self) -> tfds.core.DatasetInfo:
        listing = self.job.listing
        features = {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "name": tfds.features.Text(),
            "source": tfds.features.Text(),
        }
        for column in listing.columns:
            features[column.name] = tfds.features.ClassLabel(names=list(column.classes))
        notes = (*listing.notes, *listing.left_out)
        return tfds.core.DatasetInfo(
            builder=self,
            description="\n".join(notes) or "Pictures with labels and groups.",
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: object) -> dict[str, Examples]:
        del dl_manager
        splits = dict.fromkeys(row.split for row in self.job.listing.rows)
        return {split: self._generate_examples(split) for split in splits}

    def _generate_examples(self, split: str) -> Examples:
        for key, row in enumerate(row for row in self.job.listing.rows if row.split == split):
            yield key, self.example(row, files.read(row.file))

    def example(self, row: Row, content: bytes) -> Example:
        """What is stored of one row.

        Args:
            row: The row.
            content: The bytes of its picture.

        Returns:
            A value for each feature.
        """
        values = zip(self.job.listing.columns, row.values, strict=True)
        numbers = {column.name: value for column, value in values}
        return {"image": content, "name": row.name, "source": row.source, **numbers}

    def _log_download_bytes(self) -> None:
        """Nothing: there is no download."""

    def _log_download_done(self) -> None:
        """Nothing: the command says what was made."""

    def _download_and_prepare(self, dl_manager: object, download_config: object) -> None:
        """Write the shards that are not there yet; then link all of them, with the columns."""
        del download_config
        job, directory = self.job, Path(self.data_dir)
        rows = job.listing.rows
        plan = plan_shards(rows, job.shard_bytes)
        check_plan(job.partial, job.listing, plan)
        written: list[Shard] = []
        for number, numbers in enumerate(plan):
            written.append(self._shard(number, [rows[i] for i in numbers]))
            if job.progress:
                job.progress(numbers[-1] + 1, len(rows))
        broken = [text for shard in written for text in shard.broken]
        left_out = (*job.listing.left_out, *leave_out(broken, "broken", job.options))
        check_any(sum(shard.records for shard in written), job.place, left_out)
        infos, sums = [], {}
        for split in self._split_generators(dl_manager):
            shards = [shard for shard in written if shard.split == split and shard.records]
            template = self._get_filename_template(split_name=split)
            for number, shard in enumerate(shards):
                path = template.sharded_filepath(shard_index=number, num_shards=len(shards))
                link(shard.path, directory / path.name)
                sums[path.name] = shard.sha256
            infos.append(
                tfds.core.SplitInfo(
                    name=split,
                    shard_lengths=[shard.records for shard in shards],
                    num_bytes=sum(shard.path.stat().st_size for shard in shards),
                    filename_template=template,
                )
            )
        self.info.set_splits(tfds.core.splits.SplitDict(infos))
        if job.tfrecord:
            for name in sums:
                copy_as_tfrecord(directory / name)
            # tfds.load reads the first format, tfds.data_source the one with random access.
            self.info.set_file_format("tfrecord", override=True, override_if_initialized=True)
            self.info.add_alternative_file_format("array_record")
        columns: Any = gather_columns(job.listing, plan, written)
        np.savez_compressed(directory / COLUMNS, **columns)
        about = job.made_by | description(job.listing, left_out, sums)
        (directory / ABOUT).write_text(json.dumps(about, indent=1), encoding="utf-8")

    def _shard(self, number: int, rows: list[Row]) -> Shard:
        """Shard `number`, written now or before."""
        path = self.job.partial / f"shard-{number:05}"
        side = path.with_suffix(".json")
        if side.exists():
            return Shard(path, rows[0].split, **json.loads(side.read_text(encoding="utf-8")))
        serializer = tfds.core.example_serializer.ExampleSerializer(
            self.info.features.get_serialized_info()
        )
        with ThreadPoolExecutor(THREADS) as pool:
            pictures = list(pool.map(_examine, rows))
        digests, broken = [], []
        writer = ArrayRecordWriter(str(path), RECORD_OPTIONS)
        for row, (content, digest, fault) in zip(rows, pictures, strict=True):
            digests.append("" if fault else digest)
            if fault:
                broken.append(f"{row.file} ({row.where}: {fault})")
                continue
            example = self.info.features.encode_example(self.example(row, content))
            writer.write(serializer.serialize_example(example))
        writer.close()
        shard = Shard(path, rows[0].split, broken, storage.sha256(path), digests)
        # Not marked as done where something must be repaired first: it is looked at again then.
        if not broken or "broken" in self.job.options.allowed:
            facts = {"broken": broken, "sha256": shard.sha256, "digests": digests}
            half = side.with_suffix(".half")
            half.write_text(json.dumps(facts), encoding="utf-8")
            half.rename(side)
        return shard


def link(path: Path, second: Path) -> None:
    """Give a file a second name; a copy where the file system has no links.

    Args:
        path: The file.
        second: Its other name.
    """
    try:
        os.link(path, second)
    except OSError:
        shutil.copyfile(path, second)


def copy_as_tfrecord(path: Path) -> None:
    """Write the records of an ArrayRecord file as a TFRecord file beside it.

    Args:
        path: The ArrayRecord file.
    """
    from tensorflow_datasets.core.file_adapters import TfRecordFileAdapter

    records = ArrayRecordReader(str(path), "readahead_buffer_size:0")
    target = path.with_name(path.name.replace(".array_record", ".tfrecord"))
    each = ((i, records.read([i])[0]) for i in range(records.num_records()))
    TfRecordFileAdapter.write_examples(target, each)


def _examine(row: Row) -> tuple[bytes, str, str]:
    """The bytes of a row's picture, their sha256, and what is wrong with them ("" for nothing)."""
    try:
        content = files.read(row.file)
    except OSError as error:
        return b"", "", f"cannot be read, {error}"
    fault = "empty file" if not content else decode.fault(content)
    return content, hashlib.sha256(content).hexdigest(), fault


def gather_columns(
    listing: Listing, plan: Sequence[range], written: Sequence[Shard]
) -> dict[str, np.ndarray]:
    """Everything but the pictures, an array with an entry per record for each.

    Args:
        listing: All rows.
        plan: Which rows each shard is of.
        written: The shards.

    Returns:
        values: (N, columns) int32; name, source, split: UTF-8; digest: the sha256 of the file.
    """
    kept = [
        (listing.rows[i], digest)
        for rows, shard in zip(plan, written, strict=True)
        for i, digest in zip(rows, shard.digests, strict=True)
        if digest
    ]
    return {
        "name": np.array([row.name.encode() for row, _ in kept]),
        "source": np.array([row.source.encode() for row, _ in kept]),
        "split": np.array([row.split.encode() for row, _ in kept]),
        "values": np.array([row.values for row, _ in kept], np.int32),
        "digest": np.array([bytes.fromhex(digest) for _, digest in kept], "V32"),
    }


def description(listing: Listing, left_out: Sequence[str], sums: dict[str, str]) -> JsonObject:
    """What fairgrape.json says of a prepared dataset, besides what made it.

    Args:
        listing: All rows and columns.
        left_out: Notes on what was left out.
        sums: The checksum of each record file.

    Returns:
        Plain values, as of `sources.stored.About`.
    """
    return {
        "columns": [column._asdict() for column in listing.columns],
        "labels": listing.labels,
        "groups": listing.groups,
        "mean": listing.mean,
        "std": listing.std,
        "notes": [*listing.notes, *left_out],
        "sha256": sums,
    }
