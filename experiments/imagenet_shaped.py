"""A run of ImageNet's shape from end to end: official tars, record files, training, one round.

Command:  python -m experiments.imagenet_shaped --folder DIR [--records 1281167] [--steps 300]
The pictures are generated and small; everything else is as with ImageNet: 1,000 classes in a tar
of tars, a validation tar, a CSV of seven groups, `fairgrape data prepare imagenet2012` on them
(which a second call passes over, and goes on with where it was killed), random access over all
record files, importance per group, one round of FairGRAPE and retraining. Prints how long each part
took, and after each epoch how long a step waited for its input.
"""

from __future__ import annotations

import argparse
import io
import resource
import tarfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from fairgrape_jax.config import Execution, Experiment, Scoring, Stage
from fairgrape_jax.data import Reading
from fairgrape_jax.data.builders.imagenet2012 import ImageNet2012
from fairgrape_jax.data.builders.prepare import prepare
from fairgrape_jax.data.sources.prepared import Prepared
from fairgrape_jax.rounds import train
from fairgrape_jax.runner.run import run

CLASSES, GROUPS = 1000, 7
POOL = 512  # distinct pictures; a comment in each file makes all files distinct


def main() -> None:
    """Build what is missing, then run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--records", type=int, default=1_281_167)
    parser.add_argument("--side", type=int, default=48, help="of the pictures on disk")
    parser.add_argument("--size", type=int, default=32, help="of the pictures in a batch")
    parser.add_argument("--steps", type=int, default=300, help="of the dense training")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--model", default="cnn")
    options = parser.parse_args()

    place, started = options.folder / "official", time.perf_counter()
    if not (place / "groups.csv").exists():
        official_tars(place, options.records, options.side)
        print_elapsed("tars", started)
    started = time.perf_counter()
    options_of_tars = ImageNet2012(groups=str(place / "groups.csv"))
    prepare("imagenet2012", place, options_of_tars, data_dir=options.folder / "prepared")
    print_elapsed("prepared", started)

    experiment = Experiment(
        data=Prepared(
            path=str(options.folder / "prepared"),
            dataset="imagenet2012",
            group="group",
            split_by="given",
            size=options.size,
            fit="crop",
            limit=options.steps * options.batch,
            limit_evaluation=max(options.steps * options.batch // 8, 1),
        ),
        model=options.model,
        methods=("fairgrape",),
        sparsity=0.5,
        keep_per_round=0.5,
        dense=Stage((1,), (1e-3,)),
        retrain=Stage((1,), (1e-4,)),
        final=Stage((1,), (1e-5,)),
        scoring=Scoring(fraction=0.1, micro_batch=16),
        batch=options.batch,
        augmentation="imagenet",
        execution=Execution(reading=Reading(cache="disk")),
    )
    train.SILENCE = 0.0  # a line after every epoch, with the wait for input
    started = time.perf_counter()
    run(experiment, options.folder / "run")
    print_elapsed("run", started)


def print_elapsed(what: str, started: float) -> None:
    """Print how long a part took, and the most memory held so far."""
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(f"{what}: {time.perf_counter() - started:.1f} s, {memory:,} MiB at most", flush=True)


def official_tars(place: Path, records: int, side: int) -> None:
    """ILSVRC2012_img_{train,val}.tar, the labels of the latter, and a CSV of groups."""
    place.mkdir(parents=True, exist_ok=True)
    pool = [small_picture(i, side) for i in range(POOL)]
    synsets = [f"n{10_000_000 + i:08}" for i in range(CLASSES)]
    lines = ["file,group"]
    with tarfile.open(place / "ILSVRC2012_img_train.tar", "w") as outer:
        for k, synset in enumerate(synsets):
            inner = io.BytesIO()
            numbers = range(k, records, CLASSES)
            names = [f"{synset}_{i}.JPEG" for i in numbers]
            write_tar(inner, names, [distinct(pool[i % POOL], i) for i in numbers])
            add(outer, f"{synset}.tar", inner.getvalue())
            lines += [f"{n},group {i % GROUPS}" for n, i in zip(names, numbers, strict=True)]
    held_out = max(records // 25, CLASSES)
    names = [f"ILSVRC2012_val_{i + 1:08}.JPEG" for i in range(held_out)]
    with (place / "ILSVRC2012_img_val.tar").open("wb") as file:
        pictures = [distinct(pool[i % POOL], records + i) for i in range(held_out)]
        write_tar(file, names, pictures)
    labels = [synsets[i % CLASSES] for i in range(held_out)]
    (place / "ILSVRC2012_validation_synsets.txt").write_text("\n".join(labels))
    lines += [f"{name},group {i % GROUPS}" for i, name in enumerate(names)]
    (place / "groups.csv").write_text("\n".join(lines) + "\n")


def write_tar(file: io.IOBase, names: list[str], contents: list[bytes]) -> None:
    """A plain tar of files."""
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, content in zip(names, contents, strict=True):
            add(archive, name, content)


def add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    """One file of a tar."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    archive.addfile(info, io.BytesIO(content))


def small_picture(number: int, side: int) -> bytes:
    """A JPEG of coarse colours."""
    rng = np.random.default_rng(number)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8))
    out = io.BytesIO()
    coarse.resize((side * 4 // 3, side), Image.Resampling.BICUBIC).save(out, "jpeg", quality=85)
    return out.getvalue()


def distinct(picture: bytes, number: int) -> bytes:
    """The JPEG with a number in a comment."""
    comment = f"{number:012}".encode()
    segment = b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment
    return picture[:2] + segment + picture[2:]


if __name__ == "__main__":
    main()
