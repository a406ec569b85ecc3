"""`fairgrape data`: prepare, check and list datasets, and see what a network sees of them."""

from __future__ import annotations

import dataclasses
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Self

from tyro.conf import FlagCreatePairsOff, Positional, arg

from fairgrape_jax import data
from fairgrape_jax.cli.command import Command, parse_first, with_fields_of
from fairgrape_jax.data.builders import BUILDERS, Options, builder
from fairgrape_jax.data.images.records import ABOUT, default_data_dir
from fairgrape_jax.data.sources import prepared
from fairgrape_jax.data.sources.base import Source
from fairgrape_jax.data.sources.stored import stored_in
from fairgrape_jax.errors import UsageError
from fairgrape_jax.progress import Progress, bar, say

SILENCE = 20.0  # seconds of work after which a line is printed where there is no terminal
DataDir = Annotated[
    Path | None, arg(metavar="DIR", help_behavior_hint="(default: TFDS's data folder)")
]


@dataclasses.dataclass(frozen=True)
class Prepare(Command):
    """Write a dataset as ArrayRecord files, which TFDS reads too.

    Killed, the same command goes on. `fairgrape data prepare NAME --help` shows the options of that
    dataset.
    """

    builder: Annotated[str, Positional, arg(metavar="NAME")]
    """What to prepare, of those in `fairgrape data list`."""
    place: Annotated[Path | None, arg(name="from", metavar="DIR", help_behavior_hint="")] = None
    """Where the original files are."""
    name: Annotated[str, arg(metavar="CALLED", help_behavior_hint="(default: NAME)")] = ""
    """What the prepared dataset is called."""
    data_dir: DataDir = None
    """Where prepared datasets are."""
    overwrite: FlagCreatePairsOff[bool] = False
    """Replace a dataset of that name which was made of other data, or otherwise."""
    tfrecord: FlagCreatePairsOff[bool] = False
    """Write a second copy, which tfds.load reads (needs TensorFlow)."""

    @classmethod
    def complete(cls, arguments: Sequence[str]) -> type[Self]:
        """With the options of the dataset that is named.

        Args:
            arguments: the words after the name of the command.

        Returns:
            This class, with more fields.

        Raises:
            UsageError: no dataset is named, or one that there is not.
        """
        missing = f"prepare: before its options, name what to prepare: {', '.join(BUILDERS)}"
        if (known := parse_first(cls, arguments, missing)) is None:
            return cls
        return with_fields_of(cls, "options", builder(known.builder).options())

    def run(self) -> None:
        """Write the files; notes say what was left out."""
        from fairgrape_jax.data.builders.prepare import prepare

        options: Options = self.options  # type: ignore[attr-defined]  # by `complete`
        if self.place is None:
            raise UsageError(f"--from: give {options.HINT}")
        with bar("preparing") as move:
            result = prepare(
                self.builder,
                self.place,
                options,
                data_dir=self.data_dir or default_data_dir(),
                called=self.name,
                progress=with_lines(move, "preparing"),
                overwrite=self.overwrite,
                tfrecord=self.tfrecord,
            )
        stored = stored_in(result.directory)
        for note in stored.about["notes"]:
            say(f"note: {note}")
        unchanged = "" if result.is_new else " (already there, unchanged)"
        say(f"{len(stored.columns['values']):,} pictures in {result.directory}{unchanged}")


@dataclasses.dataclass(frozen=True)
class Check(Command):
    """Look at every picture of a prepared dataset.

    Prints counts per split, label and group, broken files and equal files.
    """

    name: Annotated[str, Positional, arg(metavar="NAME")]
    """The prepared dataset."""
    data_dir: DataDir = None
    """Where prepared datasets are."""
    split_by: Annotated[str, arg(metavar="HOW")] = "content"
    """What must be on one side of a split: content, source or name."""
    fold: Annotated[str, arg(metavar="I/K", help_behavior_hint="")] = ""
    """A fold of a cross-validation in place of the split."""
    seed: Annotated[int, arg(metavar="N")] = 42
    """Seed of the split."""
    names: Annotated[Path | None, arg(metavar="FILE", help_behavior_hint="")] = None
    """Write the names of equal files to this CSV."""

    def run(self) -> None:
        """Print what is there; UsageError if something is broken."""
        from fairgrape_jax.data.builders.check import check

        source = prepared.Prepared(
            path=str(self.data_dir or ""),
            dataset=self.name,
            split_by=self.split_by,  # type: ignore[arg-type]  # looked at on reading
            fold=self.fold,
            seed=self.seed,
        )
        with bar("looking at every picture") as move:
            lines, sound = check(source, with_lines(move, "checking"), self.names)
        for line in lines:
            say(line)
        if not sound:
            raise UsageError(f"{self.name}: broken files, see above; prepare it again")


@dataclasses.dataclass(frozen=True)
class List(Command):
    """What can be prepared, and what is."""

    data_dir: DataDir = None
    """Where prepared datasets are."""

    def run(self) -> None:
        """Print both tables."""
        place = self.data_dir or default_data_dir()
        print("can be prepared:")
        for name, row in BUILDERS.items():
            print(f"  {name:<20} {' '.join((row.options.__doc__ or '').split())}")
        say(f"prepared in {place}:")
        for about in sorted(place.glob(f"*/*/{ABOUT}")):
            stored = stored_in(about.parent)
            columns = ", ".join(column["name"] for column in stored.about["columns"][:6])
            count = len(stored.columns["values"])
            say(f"  {about.parent.parent.name:<20} {count:,} pictures; {columns}")
        for partial in sorted(place.glob("*/.*.partial")):
            say(f"  {partial.parent.name:<20} not whole: the same `prepare` goes on")


@dataclasses.dataclass(frozen=True)
class Sheet(Command):
    """Draw what the network sees of a dataset; `sheet synthetic` needs no files.

    `fairgrape data sheet DATASET --help` shows the options of that dataset.
    """

    dataset: Annotated[str, Positional, arg(metavar="DATASET")] = "synthetic"
    """A dataset of `fairgrape list`."""
    out: Annotated[Path, arg(metavar="FILE")] = Path("sheet.png")
    """The picture, .png, .jpg or .webp."""
    augmentation: Annotated[str, arg(metavar="NAME")] = "paper"
    """How pictures are altered."""
    mixup: Annotated[float, arg(metavar="ALPHA")] = 0.0
    """Mix pictures in pairs by a share of Beta(alpha, alpha); 0 for none."""

    @classmethod
    def complete(cls, arguments: Sequence[str]) -> type[Self]:
        """With the options of the dataset that is named.

        Args:
            arguments: the words after the name of the command.

        Returns:
            This class, with more fields.

        Raises:
            UsageError: a dataset that there is not.
        """
        first = arguments[0] if arguments else "-"
        return with_fields_of(
            cls, "source", data.source(cls.dataset if first[:1] == "-" else first)
        )

    def run(self) -> None:
        """Write the picture."""
        source: Source = self.source  # type: ignore[attr-defined]  # by `complete`
        if self.out.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
            raise UsageError(f"--out {self.out}: end it with .png, .jpg or .webp")
        if not 0 <= self.mixup < math.inf:
            raise UsageError(f"--mixup {self.mixup}: give an alpha of 0 or more")
        from fairgrape_jax.data.contact_sheet import write

        write(self.out, data.load(source), self.augmentation, self.mixup)
        say(f"{self.out}: a row per group, the picture and how {self.augmentation} alters it")


DATA_COMMANDS: dict[str, type[Command]] = {
    "prepare": Prepare,
    "check": Check,
    "list": List,
    "sheet": Sheet,
}


def with_lines(move: Progress, title: str) -> Progress:
    """Progress that a bar shows, or a line now and then where there is no terminal.

    Args:
        move: moves the bar.
        title: of the lines.

    Returns:
        A function to call in its place.
    """
    last = time.monotonic()

    def both(done: int, total: int) -> None:
        nonlocal last
        move(done, total)
        if not sys.stdout.isatty() and time.monotonic() - last > SILENCE:
            last = time.monotonic()
            say(f"{title}: {done:,} of {total:,}")

    return both
