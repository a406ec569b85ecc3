"""Writing a listing as a TFDS dataset of ArrayRecord files; it can be killed and goes on.

Shards are written one after another into a folder of their own, `.VERSION.partial`, each under
its final name only when it is whole. When all are there they are linked into the folder in which
TFDS writes its metadata, and TFDS renames that to its place: a dataset is there whole, or not.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import json
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of packages that TFDS imports
    import tensorflow_datasets as tfds

from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

from fairgrape_jax import storage
from fairgrape_jax.data.builders import builder, files
from fairgrape_jax.data.builders.listing import (
    Listing,
    Options,
    Row,
    check_names,
    settled,
    without_empty,
)
from fairgrape_jax.data.images import decode
from fairgrape_jax.data.images.records import ABOUT, COLUMNS, THREADS, VERSION, dataset_directory
from fairgrape_jax.data.sources.prepared import stored_in
from fairgrape_jax.errors import UsageError
from fairgrape_jax.progress import Progress
from fairgrape_jax.storage import lock

SHARD_BYTES, SHARD_ROWS = 256 << 20, 20_000  # what is done again after a kill, at most
RECORD_OPTIONS = "group_size:1,uncompressed"  # pictures are compressed already


def prepare(
    name: str,
    place: Path,
    options: Options,
    *,
    data_dir: Path,
    called: str = "",
    progress: Progress | None = None,
    shard_bytes: int = SHARD_BYTES,
    tfrecord: bool = False,
) -> Path:
    """Read `place` with the builder `name`, write the dataset, and return its directory.

    called: the name to store it under; the builder's by default. A dataset that is already there,
    made with the same options, is left as it is. progress: called with (written, in all).
    tfrecord: write TFRecord files beside the ArrayRecord ones, which `tfds.load` needs.
    UsageError names what is wrong with the files or rows; nothing half-written looks whole.
    """
    read = builder(name).read
    called = called or name
    if not called.isidentifier() or called != called.lower():
        raise UsageError(f"--name {called!r}: give small letters, digits and underscores")
    if tfrecord and importlib.util.find_spec("tensorflow") is None:
        raise UsageError("--tfrecord: needs TensorFlow, as tfds.load does; install tensorflow-cpu")
    target = dataset_directory(called, data_dir)
    made_by = {"builder": name, "options": json.loads(json.dumps(dataclasses.asdict(options)))}
    if (target / ABOUT).exists():
        there: Mapping[str, Any] = stored_in(target).about
        if any(there[key] != value for key, value in made_by.items()):
            raise UsageError(
                f"{target}: was prepared by {there['builder']} with options {there['options']}; "
                "remove it, or give another --name"
            )
        return target
    partial = target.parent / f".{VERSION}.partial"
    partial.mkdir(parents=True, exist_ok=True)
    with lock.hold(partial.with_name(f"{partial.name}.lock")):
        listing = without_empty(read(place, options, partial / "unpacked"), options)
        check_names(listing)
        listing = dataclasses.replace(listing, rows=tuple(shuffled(listing.rows)))
        for stale in target.parent.glob(f"{VERSION}.incomplete*"):
            shutil.rmtree(stale)
        class_name = "".join(part.title() for part in called.split("_")) or called
        kind = type(class_name, (ListingBuilder,), {"name": called}, skip_registration=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = kind(
                listing=listing,
                partial=partial,
                made_by=made_by,
                shard_bytes=shard_bytes,
                progress=progress,
                tfrecord=tfrecord,
                data_dir=str(data_dir),
                file_format="array_record",
            )
            made.download_and_prepare()
        shutil.rmtree(partial)
    return target


def shuffled(rows: Sequence[Row]) -> list[Row]:
    """The rows in an order that follows from their names alone: no run of one class or person."""
    return sorted(rows, key=lambda row: (row.split, hashlib.sha256(row.name.encode()).digest()))


class ListingBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """A TFDS builder of the rows of a listing.

    Its examples have `image` (the bytes of the file as they are), `name`, `source`, and a class
    label for each column.
    """

    VERSION = tfds.core.Version(VERSION)

    def __init__(
        self,
        *,
        listing: Listing,
        partial: Path,
        made_by: dict[str, Any],
        shard_bytes: int,
        progress: Progress | None,
        tfrecord: bool,
        **settings: Any,
    ):
        self.listing, self.partial, self.made_by = listing, partial, made_by
        self.lenient = made_by["options"]["lenient"]
        self.shard_bytes, self.progress, self.tfrecord = shard_bytes, progress, tfrecord
        super().__init__(**settings)

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "name": tfds.features.Text(),
            "source": tfds.features.Text(),
        }
        for column in self.listing.columns:
            features[column.name] = tfds.features.ClassLabel(names=list(column.classes))
        return tfds.core.DatasetInfo(
            builder=self,
            description="\n".join(self.listing.notes) or "Pictures with labels and groups.",
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        del dl_manager
        splits = dict.fromkeys(row.split for row in self.listing.rows)
        return {split: self._generate_examples(split) for split in splits}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        for key, row in enumerate(row for row in self.listing.rows if row.split == split):
            yield key, self.example(row, files.read(row.file))

    def example(self, row: Row, content: bytes) -> dict[str, Any]:
        """What is stored of one row."""
        values = zip(self.listing.columns, row.values, strict=True)
        numbers = {column.name: value for column, value in values}
        return {"image": content, "name": row.name, "source": row.source} | numbers

    def _log_download_bytes(self) -> None:
        """Nothing: there is no download."""

    def _log_download_done(self) -> None:
        """Nothing: the command says what was made."""

    def _download_and_prepare(self, dl_manager: Any, download_config: Any) -> None:
        """Write the shards that are not there yet; then link all of them, with the columns."""
        del download_config
        rows, directory = self.listing.rows, Path(self.data_dir)
        check_plan(self.partial, self.listing)
        shards = planned(rows, self.shard_bytes)
        written: list[Shard] = []
        broken: list[str] = []
        for number, shard in enumerate(shards):
            found = self._shard(number, [rows[i] for i in shard])
            written.append(found)
            broken += found.broken
            if self.progress:
                self.progress(shard[-1] + 1, len(rows))
        notes = settled(broken, "pictures that cannot be decoded", Options(self.lenient))
        infos, sums = [], {}
        for split in self._split_generators(dl_manager):
            mine = [s for s in written if s.split == split and s.records]
            template = self._get_filename_template(split_name=split)
            for number, shard_info in enumerate(mine):
                final = template.sharded_filepath(shard_index=number, num_shards=len(mine)).name
                place(shard_info.path, directory / final)
                sums[final] = shard_info.sha256
            infos.append(
                tfds.core.SplitInfo(
                    name=split,
                    shard_lengths=[s.records for s in mine],
                    num_bytes=sum(s.path.stat().st_size for s in mine),
                    filename_template=template,
                )
            )
        self.info.set_splits(tfds.core.splits.SplitDict(infos))
        if self.tfrecord:
            for name in sums:
                copy_as_tfrecord(directory / name)
            # tfds.load reads the first format, tfds.data_source the one with random access.
            self.info.set_file_format("tfrecord", override=True, override_if_initialized=True)
            self.info.add_alternative_file_format("array_record")
        columns: Any = gathered(self.listing, shards, written)
        np.savez_compressed(directory / COLUMNS, **columns)
        said = self.made_by | about(self.listing, notes, sums)
        (directory / ABOUT).write_text(json.dumps(said, indent=1), encoding="utf-8")

    def _shard(self, number: int, rows: list[Row]) -> Shard:
        """Shard `number`, written now or before."""
        path = self.partial / f"shard-{number:05}"
        side = path.with_suffix(".json")
        if not side.exists():
            serializer = tfds.core.example_serializer.ExampleSerializer(
                self.info.features.get_serialized_info()
            )
            with ThreadPoolExecutor(THREADS) as pool:
                looked = list(pool.map(_looked_at, rows))
            kept, broken = [], []
            writer = ArrayRecordWriter(str(path), RECORD_OPTIONS)
            for row, (content, digest, fault) in zip(rows, looked, strict=True):
                kept.append("" if fault else digest)
                if fault:
                    broken.append(f"{row.file} ({row.where}: {fault})")
                    continue
                example = self.info.features.encode_example(self.example(row, content))
                writer.write(serializer.serialize_example(example))
            writer.close()
            said: dict[str, Any] = {
                "digests": kept,
                "broken": broken,
                "sha256": storage.sha256(path),
            }
            if broken and not self.lenient:
                # Not marked as done: it is looked at again once the files are repaired.
                return Shard(path, rows[0].split, 0, **said)
            half = side.with_suffix(".half")
            half.write_text(json.dumps(said), encoding="utf-8")
            half.rename(side)
        found = json.loads(side.read_text(encoding="utf-8"))
        records = sum(map(bool, found["digests"]))
        return Shard(path, rows[0].split, records, **found)


def place(path: Path, final: Path) -> None:
    """The file under a second name; a copy where the file system has no links."""
    try:
        os.link(path, final)
    except OSError:
        shutil.copyfile(path, final)


def copy_as_tfrecord(path: Path) -> None:
    """The records of an ArrayRecord file as a TFRecord file beside it."""
    from tensorflow_datasets.core.file_adapters import TfRecordFileAdapter

    records = ArrayRecordReader(str(path), "readahead_buffer_size:0")
    beside = path.with_name(path.name.replace(".array_record", ".tfrecord"))
    each = ((i, records.read([i])[0]) for i in range(records.num_records()))
    TfRecordFileAdapter.write_examples(beside, each)


class Shard(NamedTuple):
    """A written shard: how many records it has, and the digest of each row ("" if left out)."""

    path: Path
    split: str
    records: int
    broken: list[str]
    sha256: str
    digests: list[str]


def _looked_at(row: Row) -> tuple[bytes, str, str]:
    """The bytes of a row's picture, their sha256, and what is wrong with them ("" for nothing)."""
    try:
        content = files.read(row.file)
    except OSError as error:
        return b"", "", f"cannot be read, {error}"
    fault = "empty file" if not content else decode.fault(content)
    return content, hashlib.sha256(content).hexdigest(), fault


def planned(rows: Sequence[Row], shard_bytes: int) -> list[range]:
    """Consecutive rows of one split each, of about `shard_bytes` in their files."""
    shards, first, size = [], 0, 0
    for i, row in enumerate(rows):
        full = size + row.file.size > shard_bytes or i - first == SHARD_ROWS
        if i > first and (full or row.split != rows[first].split):
            shards.append(range(first, i))
            first, size = i, 0
        size += row.file.size
    return [*shards, range(first, len(rows))]


def check_plan(partial: Path, listing: Listing) -> None:
    """Forget the shards of an earlier attempt if they were of other rows."""
    digest = hashlib.sha256(repr((listing.columns, len(listing.rows))).encode())
    for row in listing.rows:
        digest.update(f"{row.name}|{row.file.size}|{row.values}|{row.source}|{row.split}".encode())
    plan = partial / "plan"
    if plan.exists() and plan.read_text(encoding="utf-8") == digest.hexdigest():
        return
    for path in partial.glob("shard-*"):
        path.unlink()
    plan.write_text(digest.hexdigest(), encoding="utf-8")


def gathered(
    listing: Listing, shards: Sequence[range], written: Sequence[Shard]
) -> dict[str, np.ndarray]:
    """Everything but the pictures, an array with an entry per record for each.

    values: (N, columns); name, source, split: UTF-8; digest: the sha256 of the file.
    """
    kept = [
        (listing.rows[i], digest)
        for rows, shard in zip(shards, written, strict=True)
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


def about(listing: Listing, notes: Sequence[str], sums: dict[str, str]) -> dict[str, Any]:
    """What fairgrape.json says of a prepared dataset."""
    return {
        "columns": [column._asdict() for column in listing.columns],
        "labels": listing.labels,
        "groups": listing.groups,
        "mean": listing.mean,
        "std": listing.std,
        "notes": [*listing.notes, *notes],
        "sha256": sums,
    }
