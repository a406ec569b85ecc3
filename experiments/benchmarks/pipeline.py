"""Pictures per second from record files to batches that a device can take, beside what others do.

Command:  python -m experiments.benchmarks.pipeline [--images 2000] [--batch 64] [--workers 2]
          [--shapes 224x224 500x375] [--size 224] [--data DIR] [--json FILE]
Rows, an epoch each, in turn in one run, for every shape of JPEG; the ratio is that of speeds:
  Pillow and NumPy           a plain loop over the same records: read, decode, resize, stack
  ours                       the batches of a training epoch, made ahead by threads
  ours, fast DCT             JPEGs decoded by libjpeg's fast transform, as tf.data does by default
  ours, N processes          the same by N worker processes, alone, once they have started
  ours, any eighth           JPEGs scaled on decoding to 5/8 and more too, not to a half at most
  tf.data                    the same JPEGs from files, all calls parallel; where TensorFlow is;
                             by default it resizes without a low-pass filter, all others with one
  tf.data, antialiased       the same with it, which is the work that ours does
  torch DataLoader           the same JPEGs from files by Pillow, N workers; where torch is
torch's worker processes are there before and live on.
cpu s: processor seconds of an epoch in this process (not of its workers), which say more than the
clock on a machine that others use. Below: the memory of this process before, and after each epoch
of ours.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import io
import itertools
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from PIL import Image

from experiments.benchmarks.timing import add_json, interleaved, show, table
from fairgrape_jax import data
from fairgrape_jax.data.batches import epoch_order, steps_per_epoch, train_batches
from fairgrape_jax.data.builders.folder_csv import FolderCsv
from fairgrape_jax.data.builders.prepare import prepare
from fairgrape_jax.data.dataset import Split
from fairgrape_jax.data.images import decode
from fairgrape_jax.data.sources import prepared

BASE = "Pillow and NumPy"
SEED = 0


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--size", type=int, default=224, help="side of the batches' pictures")
    parser.add_argument("--shapes", nargs="+", default=["224x224", "500x375"])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--data", type=Path, help="keep the pictures in this folder")
    parser.add_argument("--json", type=Path, help="append the rows to this file")
    options = parser.parse_args()

    everything = []
    with tempfile.TemporaryDirectory() as temporary:
        for shape in options.shapes:
            place = (options.data or Path(temporary)) / shape
            split = pictures(place, shape, options)
            work: dict[str, Callable[[], Any]] = {
                BASE: functools.partial(epoch, plain, split, options),
                "ours": functools.partial(epoch, package_batches, split, options),
                "ours, any eighth": functools.partial(epoch, any_eighth, split, options),
                "ours, fast DCT": functools.partial(epoch, fast_dct, split, options),
            }
            if importlib.util.find_spec("tensorflow"):
                work["tf.data"] = functools.partial(tf_data, place, options, smooth=False)
                work["tf.data, antialiased"] = functools.partial(
                    tf_data, place, options, smooth=True
                )
            if importlib.util.find_spec("torch"):
                loader = torch_loader(place, options)
                work["torch DataLoader"] = functools.partial(passed, loader)
            times = interleaved(work, options.repeats)
            rows = table(times, BASE)
            count = len(split) // options.batch * options.batch
            for row in rows:
                row["images/s"] = round(count / row["seconds"], 1)
                row["speed"] = round(1 / row.pop("ratio"), 3)
                row["best speed"] = round(1 / row.pop("ratio of least"), 3)
                row["cpu s"] = round(min(processor(work[row["row"]]) for _ in range(2)), 3)
            print(f"{shape} JPEGs to {options.size} pixels, {count} images, batch {options.batch}:")
            show(rows)
            everything += [{"shape": shape, **row} for row in rows]
            if options.workers:
                row = by_processes(pictures(place, shape, options, options.workers), options)
                show([row])
                everything.append({"shape": shape, **row})
            memory = [resident()]
            for _ in range(3):
                work["ours"]()
                memory.append(resident())
            print("MiB of this process at most, before and after epochs:", *memory)
    add_json(options.json, vars(options), everything)


def pictures(place: Path, shape: str, options: argparse.Namespace, workers: int = 0) -> Split:
    """The training split of `images` generated pictures; written once to `place`."""
    width, height = map(int, shape.split("x"))
    if not (place / "labels.csv").exists():
        (place / "pictures").mkdir(parents=True)
        lines = ["file,label,group,split"]
        for i in range(options.images + 20):
            name = f"pictures/{i:06}.jpg"
            (place / name).write_bytes(photograph(i, width, height))
            part = "train" if i < options.images else ("validation", "test")[i // 2 % 2]
            lines.append(f"{name},{i % 2},{i // 4 % 2},{part}")
        (place / "labels.csv").write_text("\n".join(lines) + "\n")
    listed = FolderCsv(split="split")
    prepare("folder_csv", place, listed, data_dir=place / "prepared")
    source = prepared.Prepared(
        path=str(place / "prepared"),
        dataset="folder_csv",
        split_by="given",
        size=options.size,
    )
    return data.load(source, reading=data.Reading(cache="disk", workers=workers)).train


def photograph(number: int, width: int, height: int) -> bytes:
    """A JPEG with about the statistics of a photograph: power falls with frequency."""
    rng = np.random.default_rng(number)
    rows, columns = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    fall = 1 / np.maximum(np.hypot(rows, columns), 1 / width) ** 1.1
    noise = rng.standard_normal((3, height, width // 2 + 1, 2)).view(np.complex128)[..., 0]
    planes = np.fft.irfft2(noise * fall, (height, width))
    planes = planes[:1] * [[[1.0]], [[0.9]], [[0.8]]] + 0.3 * planes
    pixels = np.clip(128 + 45 * planes / planes.std(), 0, 255).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(np.moveaxis(pixels, 0, -1)).save(out, "jpeg", quality=90)
    return out.getvalue()


Batches = Iterator[dict[str, np.ndarray]]


def epoch(batches: Callable[..., Batches], split: Split, options: argparse.Namespace) -> int:
    """How many pictures the batches of an epoch hold."""
    return sum(len(batch["images"]) for batch in batches(split, options))


def package_batches(split: Split, options: argparse.Namespace) -> Batches:
    """The batches of a training epoch."""
    return train_batches(split, options.batch, SEED, 0)


def by_processes(split: Split, options: argparse.Namespace) -> dict[str, Any]:
    """A row of its own: two epochs in the middle of many, by worker processes that live on.

    Not in turn with the others: between two turns they would go on and fill their buffers.
    """
    steps = steps_per_epoch(len(split), options.batch)
    batches = train_batches(split, options.batch, SEED, 0, epochs=2 + 2 + 2)
    started = time.perf_counter()
    next(batches)
    began = time.perf_counter()
    for _ in itertools.islice(batches, 2 * steps):
        pass  # what was made before it was asked for
    timed = time.perf_counter()
    count = sum(len(batch["images"]) for batch in itertools.islice(batches, 2 * steps))
    speed = count / (time.perf_counter() - timed)
    return {
        "row": f"ours, {options.workers} processes",
        "images/s": round(speed, 1),
        "seconds to start": round(began - started, 2),
    }


def order(split: Split, options: argparse.Namespace) -> Iterator[np.ndarray]:
    """The samples of each batch of an epoch."""
    numbers = epoch_order(len(split), SEED, 0)
    for step in range(steps_per_epoch(len(split), options.batch)):
        yield numbers[step * options.batch : (step + 1) * options.batch]


def plain(split: Split, options: argparse.Namespace) -> Batches:
    """The batches by a loop of Pillow and NumPy over the same records."""
    images: Any = split.images
    side = (options.size, options.size)
    for chosen in order(split, options):
        batch = []
        for number in images.numbers[chosen]:
            with Image.open(io.BytesIO(images.records.content(number))) as opened:
                small = opened.convert("RGB").resize(side, Image.Resampling.BILINEAR)
            batch.append(np.asarray(small))
        yield {"images": np.stack(batch), "labels": split.labels[chosen]}


def any_eighth(split: Split, options: argparse.Namespace) -> Batches:
    """Ours, JPEGs scaled while they are decoded as far as they can be."""
    with mock.patch.object(decode, "LEAST_SCALE", 1):
        yield from train_batches(split, options.batch, SEED, 0)


def fast_dct(split: Split, options: argparse.Namespace) -> Batches:
    """Ours, by libjpeg's fast transform."""
    with mock.patch.object(decode, "FAST_DCT", True):
        yield from train_batches(split, options.batch, SEED, 0)


def files(place: Path, options: argparse.Namespace) -> list[str]:
    """The JPEG files of the training split."""
    return [str(place / "pictures" / f"{i:06}.jpg") for i in range(options.images)]


def tf_data(place: Path, options: argparse.Namespace, smooth: bool) -> int:
    """An epoch of tf.data: shuffled files, decoded and resized in parallel, batched, prefetched."""
    import tensorflow as tf

    def read(path: Any) -> Any:
        pixels = tf.io.decode_jpeg(tf.io.read_file(path), channels=3)
        small = tf.image.resize(pixels, (options.size, options.size), antialias=smooth)
        return tf.cast(small, tf.uint8)

    paths = tf.data.Dataset.from_tensor_slices(files(place, options)).shuffle(options.images)
    batches = paths.map(read, tf.data.AUTOTUNE).batch(options.batch, drop_remainder=True)
    return sum(len(b) for b in batches.prefetch(tf.data.AUTOTUNE).as_numpy_iterator())


def torch_loader(place: Path, options: argparse.Namespace) -> Any:
    """torch's DataLoader: Pillow in worker processes that live on, default collation."""
    import torch

    return torch.utils.data.DataLoader(
        TorchFiles(files(place, options), options.size),
        batch_size=options.batch,
        shuffle=True,
        drop_last=True,
        num_workers=options.workers,
        persistent_workers=options.workers > 0,
        multiprocessing_context="forkserver" if options.workers else None,
    )


def passed(loader: Any) -> int:
    """An epoch of a loader."""
    return sum(len(batch) for batch in loader)


class TorchFiles:
    """Files as a dataset of torch."""

    def __init__(self, paths: list[str], size: int):
        self.paths, self.size = paths, size

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> np.ndarray:
        with Image.open(self.paths[i]) as opened:
            small = opened.convert("RGB").resize((self.size, self.size), Image.Resampling.BILINEAR)
        return np.asarray(small)


def processor(call: Callable[[], Any]) -> float:
    """Processor seconds that a call takes of this process."""
    started = time.process_time()
    call()
    return time.process_time() - started


def resident() -> int:
    """The most memory that this process has held, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


if __name__ == "__main__":
    main()
