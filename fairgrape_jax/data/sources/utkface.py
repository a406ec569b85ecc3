"""UTKFace: faces whose file names give age, gender and race."""

from __future__ import annotations

import dataclasses
import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

import numpy as np

from fairgrape_jax.data.dataset import Dataset, Split, Task
from fairgrape_jax.data.images import decode, files
from fairgrape_jax.data.images.records import THREADS
from fairgrape_jax.data.sources.base import (
    SPLIT_STREAM,
    Reading,
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
NAMES = "pictures named age_gender_race_date.jpg, as UTKFace's are"
EXPECTED = f"a folder, .tar[.gz] or .zip of {NAMES}"
NAMED = 10  # skipped files that a note names
REPORT_EVERY = 256  # pictures between two calls of progress


@dataclasses.dataclass(frozen=True)
class UTKFace(Source):
    """UTKFace: 22,013 faces without race "Others"; for non-commercial research.

    The path is a folder, searched with its subfolders, or a .tar, .tar.gz, .tgz or .zip archive.
    """

    others: bool = False
    """Keep the pictures of race "Others"."""
    split_by: Literal["content", "name"] = "content"
    """content: equal pictures fall into one split; name: files are split, as in the paper."""

    name: ClassVar[str] = "utkface"
    LABELS: ClassVar[tuple[str, ...]] = ("gender", "race", "age")
    GROUPS: ClassVar[tuple[str, ...]] = ("race", "gender", "both")


class Face(NamedTuple):
    """One picture, and what its name says.

    Attributes:
        name: Its base name.
        file: Where its bytes are.
        age: Years.
        gender: Number of its name in `GENDERS`.
        race: Number of its name in `RACES`.
    """

    name: str
    file: files.Entry
    age: int
    gender: int
    race: int


class Faces(NamedTuple):
    """All pictures of a place.

    Attributes:
        faces: Those whose names can be read, by name.
        misnamed: The files whose names cannot.
        notes: What a user should know of what else lies there.
    """

    faces: list[Face]
    misnamed: list[str]
    notes: tuple[str, ...]


def load(
    source: UTKFace, progress: Progress | None = None, reading: Reading | None = None
) -> Dataset:
    """Read UTKFace into splits of 80/10/10 by seed; only what is kept is decoded.

    A folder and an archive of the same files give the same bits, and so does the dataset that
    `fairgrape data prepare utk_face` makes of them. Files whose name or picture cannot be read are
    skipped before the split, as that command skips them, and listed in the notes. Memory: the files
    as they are, and 3 size^2 bytes per picture (3.3 GB for all at 224); a compressed archive is
    unpacked into the folder for temporary files meanwhile.

    Args:
        source: Its options.
        progress: Called now and then with (pictures decoded, pictures in all).
        reading: How pictures are read; these are in memory whatever it says.

    Returns:
        The dataset; pictures are (N, size, size, 3) uint8 RGB.

    Raises:
        UsageError: An option or the path cannot be used.
    """
    races = RACES if source.others else RACES[:OTHERS]
    tasks, names = (_task(label_column(source), races),), _group_names(group_column(source), races)
    check_options(source, names)
    if source.split_by not in ("content", "name"):
        raise UsageError(f"split_by={source.split_by!r}: give content or name")
    if not source.path:
        raise UsageError(f"path is empty: give utkface {EXPECTED}")
    kept, contents, left_out, notes = _read(source)
    digests = [hashlib.sha256(content).digest() for content in contents]
    labels = _column(kept, tasks[0].name)[:, None]
    groups = _column(kept, group_column(source))
    called = np.array([face.name.encode() for face in kept])
    chosen = [
        members[kept_indices(source, groups[members], names, training=number == 0)]
        for number, members in enumerate(_parts(digests, source))
    ]
    order = np.concatenate(chosen)
    images = _decode([kept[i] for i in order], [contents[i] for i in order], source, progress)
    ends = np.cumsum([len(part) for part in chosen])[:-1]
    splits = [
        Split(pixels, labels[part], groups[part], called[part])
        for part, pixels in zip(chosen, np.split(images, ends), strict=True)
    ]
    train, validation, test = splits
    equal = len(kept) - len(set(digests))
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
            *notes,
            *_composition(left_out, equal, source.split_by),
        ),
    )


def _read(source: UTKFace) -> tuple[list[Face], list[bytes], int, tuple[str, ...]]:
    """The faces of a source, their files, how many are of another race, and what was skipped."""
    with tempfile.TemporaryDirectory(prefix="fairgrape-") as scratch:
        listed = faces(Path(source.path), Path(scratch))
        kept = [face for face in listed.faces if source.others or face.race != OTHERS]
        if not kept:
            raise UsageError(f"{source.path}: only pictures of race Others; set others=True")
        with ThreadPoolExecutor(THREADS) as pool:
            contents = list(pool.map(_content, kept))
            faults = list(pool.map(decode.fault, contents))
    left_out = len(listed.faces) - len(kept)
    broken = [face.name for face, fault in zip(kept, faults, strict=True) if fault]
    if len(broken) == len(kept):
        raise UsageError(f"{source.path}: no picture of {len(kept)} can be decoded; {EXPECTED}")
    kept = [face for face, fault in zip(kept, faults, strict=True) if not fault]
    contents = [content for content, fault in zip(contents, faults, strict=True) if not fault]
    notes = (
        *listed.notes,
        *_skipped("name not understood", listed.misnamed),
        *_skipped("cannot be decoded", broken),
    )
    return kept, contents, left_out, notes


def faces(place: Path, scratch: Path) -> Faces:
    """List the pictures of UTKFace; none is opened.

    Args:
        place: A folder or an archive.
        scratch: The folder for unpacked tars.

    Returns:
        The pictures, sorted by name.

    Raises:
        UsageError: There is no such place, two pictures have the same name, it holds no picture, or
            no picture has a usable name.
    """
    listed = files.find(place, scratch, EXPECTED)
    named, misnamed = [], []
    for name, entry in sorted(files.by_name(listed.entries).items()):
        values = fields(name)
        if values is None:
            misnamed.append(name)
        else:
            named.append(Face(name, entry, *values))
    if not named:
        raise UsageError(
            f"{place}: {len(misnamed)} pictures, none with a usable name; give {EXPECTED}"
        )
    return Faces(named, misnamed, listed.notes)


def fields(name: str) -> tuple[int, int, int] | None:
    """Age, gender and race of a base name.

    Args:
        name: The name of a file of UTKFace.

    Returns:
        Years, number of the gender, number of the race; None if its first three fields are not
        that.

    Example:
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
    """The band of FairFace that holds an age.

    Args:
        age: Years.

    Returns:
        Its number in `AGE_BANDS`.

    Example:
        >>> [AGE_BANDS[age_band(age)] for age in (2, 3, 69, 116)]
        ['0-2', '3-9', '60-69', '70+']
    """
    return int(np.searchsorted(AGE_STARTS, age, "right")) - 1


def _content(face: Face) -> bytes:
    try:
        return files.read(face.file)
    except OSError as error:
        raise UsageError(f"{face.file}: cannot be read ({error}); fetch it again") from error


def _parts(digests: Sequence[bytes], source: UTKFace) -> list[np.ndarray]:
    """Ascending indices of the training, validation and test pictures."""
    rng = stream(source.seed, SPLIT_STREAM)
    if source.split_by == "name":
        part = three_ways(len(digests), rng)
    else:
        unique, content = np.unique([digest.hex() for digest in digests], return_inverse=True)
        part = three_ways(len(unique), rng)[content]
    return [np.flatnonzero(part == number) for number in range(3)]


def _column(pictures: Sequence[Face], column: str) -> np.ndarray:
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


def _decode(
    pictures: Sequence[Face],
    contents: Sequence[bytes],
    source: UTKFace,
    progress: Progress | None,
) -> np.ndarray:
    """Pixels (N, size, size, 3) uint8."""
    size = source.size or SIZE
    images = np.empty((len(contents), size, size, 3), np.uint8)

    def fill(i: int) -> None:
        try:
            decode.decode(contents[i], size, out=images[i])
        except decode.BrokenPictureError as error:
            raise UsageError(
                f"{pictures[i].file}: cannot be decoded at size={size} ({error}); remove it"
            ) from error

    with ThreadPoolExecutor(THREADS) as pool:
        for done, _ in enumerate(pool.map(fill, range(len(contents))), 1):
            if progress and (done % REPORT_EVERY == 0 or done == len(contents)):
                progress(done, len(contents))
    return images


def _skipped(reason: str, names: Sequence[str]) -> Iterator[str]:
    if names:
        shown = ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")
        yield f"{len(names):,} skipped, {reason}: {shown}"


def _composition(left_out: int, equal: int, split_by: str) -> Iterator[str]:
    if left_out:
        yield f"{left_out:,} pictures of race Others left out (others=True keeps them)."
    if equal:
        fate = "in the split of their equals" if split_by == "content" else "in any split"
        yield f"{equal:,} pictures equal others: {fate} (split_by={split_by})."
