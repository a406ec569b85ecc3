"""UTKFace: faces whose file names give age, gender and race."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import ClassVar, Literal, NamedTuple

import numpy as np

from fairgrape_jax.data.dataset import Dataset, Split, Task
from fairgrape_jax.data.images import archives, decode
from fairgrape_jax.data.sources.base import (
    SPLIT_STREAM,
    Source,
    check_options,
    group_column,
    kept_indices,
    label_column,
    stream,
    three_ways,
)
from fairgrape_jax.errors import UsageError
from fairgrape_jax.progress import Progress

SIZE = 224
GENDERS = ("male", "female")
RACES = ("White", "Black", "Asian", "Indian", "Others")
OTHERS = RACES.index("Others")
AGE_STARTS = (0, 3, 10, 20, 30, 40, 50, 60, 70)  # the bands of FairFace
AGE_BANDS = ("0-2", "3-9", "10-19", "20-29", "30-39", "40-49", "50-59", "60-69", "70+")
HIGHEST = (130, len(GENDERS) - 1, len(RACES) - 1)
PICTURES = (".jpg", ".jpeg", ".png")
ARCHIVES = (".tar", ".tar.gz", ".tgz")
EXPECTED = "pictures named age_gender_race_date.jpg, as UTKFace's are"
NAMED = 10  # skipped files that a note names
REPORT_EVERY = 256  # pictures between two calls of progress
THREADS = 2


@dataclasses.dataclass(frozen=True)
class UTKFace(Source):
    """UTKFace: 22,013 faces without race "Others"; for non-commercial research.

    The path is a folder, searched with its subfolders, or a .tar, .tar.gz or .tgz archive.
    """

    others: bool = False
    """Keep the pictures of race "Others"."""
    split_by: Literal["content", "name"] = "content"
    """content: equal pictures fall into one split; name: files are split, as in the paper."""

    name: ClassVar[str] = "utkface"
    LABELS: ClassVar[tuple[str, ...]] = ("gender", "race", "age")
    GROUPS: ClassVar[tuple[str, ...]] = ("race", "gender", "both")


class Picture(NamedTuple):
    """One file: base name, age, gender and race of its name, its sha256 and its bytes."""

    name: str
    age: int
    gender: int
    race: int
    digest: bytes
    content: bytes


def load(source: UTKFace, progress: Progress | None = None) -> Dataset:
    """Splits of 80/10/10 by seed, pictures (N, size, size, 3) RGB; only what is kept is decoded.

    A folder and an archive of the same files give the same bits. Files whose name or picture
    cannot be read are skipped and listed in the notes; an unreadable picture leaves its split one
    smaller. Memory: the files as they are, and 3 size^2 bytes per picture (3.3 GB for all at 224).
    UsageError if an option or the path cannot be used.
    """
    races = RACES if source.others else RACES[:OTHERS]
    tasks, names = (_task(label_column(source), races),), _group_names(group_column(source), races)
    check_options(source, names)
    if source.split_by not in ("content", "name"):
        raise UsageError(f"split_by={source.split_by!r}: give content or name")
    pictures, misnamed = read(source.path)
    kept = [picture for picture in pictures if source.others or picture.race != OTHERS]
    if not kept:
        raise UsageError(f"{source.path}: only pictures of race Others; set others=True")
    labels = _column(kept, tasks[0].name)[:, None]
    groups = _column(kept, group_column(source))
    chosen = [
        members[kept_indices(source, groups[members], names, training=number == 0)]
        for number, members in enumerate(_parts(kept, source))
    ]
    order = np.concatenate(chosen)
    images, bad = _decoded([kept[i].content for i in order], source.size or SIZE, progress)
    if bad.all():
        raise UsageError(f"{source.path}: no picture of {len(bad)} can be decoded; {EXPECTED}")
    splits = []
    ends = np.cumsum([len(part) for part in chosen])[:-1]
    for part, pixels, lost in zip(chosen, np.split(images, ends), np.split(bad, ends), strict=True):
        good = part[~lost]
        splits.append(Split(pixels[~lost] if lost.any() else pixels, labels[good], groups[good]))
    train, validation, test = splits
    return Dataset(
        train=train,
        validation=validation,
        test=test,
        tasks=tasks,
        groups=names,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        notes=(
            "UTKFace is for non-commercial research: do not publish its pictures.",
            *_skipped("name not understood", misnamed),
            *_skipped("cannot be decoded", sorted(kept[i].name for i in order[bad])),
            *_composition(kept, len(pictures) - len(kept), source.split_by),
        ),
    )


def fields(name: str) -> tuple[int, int, int] | None:
    """Age, gender and race of a base name, or None if its first three fields are not that.

    >>> fields("55_0_0_20170116232725357jpg.chip.jpg")
    (55, 0, 0)
    >>> fields("61_1_20170109142408075.jpg") is None
    True
    """
    parts = name.split("_")[:3]
    if len(parts) < 3 or not all(part.isascii() and part.isdecimal() for part in parts):
        return None
    age, gender, race = map(int, parts)
    if any(value > most for value, most in zip((age, gender, race), HIGHEST, strict=True)):
        return None
    return age, gender, race


def age_band(age: int) -> int:
    """The number of FairFace's age band that holds an age in years.

    >>> [AGE_BANDS[age_band(age)] for age in (2, 3, 69, 116)]
    ['0-2', '3-9', '60-69', '70+']
    """
    return int(np.searchsorted(AGE_STARTS, age, "right")) - 1


def read(path: str) -> tuple[list[Picture], list[str]]:
    """Pictures sorted by base name, and the base names whose fields cannot be read.

    UsageError if there is no such path, it holds no picture, or no picture has a usable name.
    """
    if not path:
        raise UsageError(f"path is empty: give utkface a folder or .tar[.gz] of {EXPECTED}")
    place = Path(path)
    if not place.exists():
        raise UsageError(
            f"{path}: no such file or folder; give a folder or .tar[.gz] of {EXPECTED}"
        )
    pictures, misnamed = [], []
    for name, content in _files(place):
        values = fields(name)
        if values is None:
            misnamed.append(name)
        else:
            pictures.append(Picture(name, *values, hashlib.sha256(content).digest(), content))
    if not pictures:
        found = f"{len(misnamed)} pictures, none with a usable name" if misnamed else "no picture"
        raise UsageError(f"{path}: {found}; expected {EXPECTED}")
    # The digest decides between equal names in two folders, wherever those folders lie.
    return sorted(pictures, key=lambda p: (p.name, p.digest)), sorted(misnamed)


def _files(place: Path) -> Iterator[tuple[str, bytes]]:
    if place.is_file():
        if not place.name.lower().endswith(ARCHIVES):
            raise UsageError(f"{place}: not a .tar, .tar.gz or .tgz; expected {EXPECTED}")
        return _archived(place)
    paths = [path for path in place.rglob("*") if path.is_file()]
    pictures = [path for path in paths if path.suffix.lower() in PICTURES]
    packed = [path for path in place.iterdir() if path.name.lower().endswith(ARCHIVES)]
    if not pictures and len(packed) == 1 and packed[0].is_file():
        return _archived(packed[0])
    return ((path.name, path.read_bytes()) for path in pictures)


def _archived(place: Path) -> Iterator[tuple[str, bytes]]:
    """Pictures of an archive in one pass, as a compressed archive cannot be read at random."""
    try:
        with (
            archives.unpacked(place) as content,
            tarfile.open(fileobj=content, mode="r|") as archive,
        ):
            for member in archives.regular(archive):
                name = PurePosixPath(member.name)
                if name.suffix.lower() not in PICTURES:
                    continue
                archives.check_size(f"{place}:{member.name}", member.size)
                if file := archive.extractfile(member):
                    yield name.name, file.read()
    except UsageError:
        raise
    except (tarfile.TarError, OSError, EOFError, zlib.error, ValueError) as error:
        raise UsageError(f"{place}: cannot be read ({error}); fetch the archive again") from error


def _parts(pictures: Sequence[Picture], source: UTKFace) -> list[np.ndarray]:
    """Ascending indices of the training, validation and test pictures."""
    rng = stream(source.seed, SPLIT_STREAM)
    if source.split_by == "name":
        part = three_ways(len(pictures), rng)
    else:
        digests = [picture.digest.hex() for picture in pictures]
        unique, content = np.unique(digests, return_inverse=True)
        part = three_ways(len(unique), rng)[content]
    return [np.flatnonzero(part == number) for number in range(3)]


def _column(pictures: Sequence[Picture], column: str) -> np.ndarray:
    """(N,) int32 values of a label or group column."""
    values = {
        "gender": lambda p: p.gender,
        "race": lambda p: p.race,
        "age": lambda p: age_band(p.age),
        "both": lambda p: p.race * len(GENDERS) + p.gender,
    }[column]
    return np.array([values(picture) for picture in pictures], np.int32)


def _task(column: str, races: tuple[str, ...]) -> Task:
    return Task(column, {"gender": GENDERS, "race": races, "age": AGE_BANDS}[column])


def _group_names(column: str, races: tuple[str, ...]) -> tuple[str, ...]:
    both = tuple(f"{race} {gender}" for race in races for gender in GENDERS)
    return {"gender": GENDERS, "race": races, "both": both}[column]


def _decoded(
    contents: Sequence[bytes], size: int, progress: Progress | None
) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (N, size, size, 3) uint8, and a mask (N,) of the files that are no picture."""
    images = np.empty((len(contents), size, size, 3), np.uint8)
    bad = np.zeros(len(contents), bool)

    def fill(i: int) -> None:
        pixels = _pixels(contents[i], size)
        bad[i] = pixels is None
        if pixels is not None:
            images[i] = pixels

    with ThreadPoolExecutor(THREADS) as pool:  # Pillow decodes and resizes outside Python's lock
        for done, _ in enumerate(pool.map(fill, range(len(contents))), 1):
            if progress and (done % REPORT_EVERY == 0 or done == len(contents)):
                progress(done, len(contents))
    return images, bad


def _pixels(content: bytes, size: int) -> np.ndarray | None:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content)) as picture:
            rgb = np.asarray(picture.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None
    return decode.fitted(rgb, size)


def _skipped(reason: str, names: Sequence[str]) -> Iterator[str]:
    if names:
        shown = ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")
        yield f"{len(names):,} skipped, {reason}: {shown}"


def _composition(kept: Sequence[Picture], left_out: int, split_by: str) -> Iterator[str]:
    if left_out:
        yield f"{left_out:,} pictures of race Others left out (others=True keeps them)."
    duplicates = len(kept) - len({picture.digest for picture in kept})
    if duplicates:
        fate = "in the split of their equals" if split_by == "content" else "in any split"
        yield f"{duplicates:,} pictures equal others: {fate} (split_by={split_by})."
