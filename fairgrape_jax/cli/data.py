"""`fairgrape data`: prepare, check and list datasets, and see what a network sees of them."""

from __future__ import annotations

import argparse
import math
import sys
import time
from pathlib import Path

import tyro

from fairgrape_jax import data
from fairgrape_jax.data.builders import BUILDERS, builder
from fairgrape_jax.data.builders import check as verify
from fairgrape_jax.data.images.records import ABOUT, default_data_dir
from fairgrape_jax.data.sources import prepared
from fairgrape_jax.errors import UsageError
from fairgrape_jax.progress import Progress, bar, say

SILENCE = 20.0  # seconds of work after which a line is printed where there is no terminal
USAGE = """usage: fairgrape data COMMAND ...

  prepare NAME --from DIR [--name CALLED] [--data-dir DIR] [--tfrecord] [OPTIONS]
                      write a dataset as ArrayRecord files, which TFDS reads too; killed, the
                      same command goes on; `fairgrape data prepare NAME --help` shows OPTIONS;
                      --tfrecord: a second copy that tfds.load reads (needs TensorFlow)
  check NAME [--data-dir DIR] [--split-by HOW] [--fold i/k] [--seed N] [--names FILE]
                      counts per split, label and group; broken files; equal files
  list [--data-dir DIR]
                      what can be prepared, and what is
  sheet [DATASET] [--out FILE] [--augmentation NAME] [--mixup ALPHA] [DATASET'S OPTIONS]
                      a picture of what the network sees; `sheet synthetic` needs no files"""


def command(arguments: list[str]) -> None:
    """`fairgrape data ...`."""
    commands = {"prepare": prepare, "check": check, "list": show, "sheet": sheet}
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        return
    if arguments[0] not in commands:
        raise UsageError(f"unknown command {arguments[0]!r}: choose from {', '.join(commands)}")
    commands[arguments[0]](arguments[1:])


def prepare(arguments: list[str]) -> None:
    """`fairgrape data prepare NAME --from DIR ...`."""
    parser = argparse.ArgumentParser(prog="fairgrape data prepare", add_help=False)
    parser.add_argument("builder", nargs="?")
    parser.add_argument("--from", dest="place", type=Path)
    parser.add_argument("--name", default="")
    parser.add_argument("--tfrecord", action="store_true")
    parser.add_argument("--data-dir", type=Path, default=default_data_dir())
    options, rest = parser.parse_known_args(arguments)
    if options.builder is None:
        raise UsageError(f"prepare: name what to prepare: {', '.join(BUILDERS)}")
    kind = builder(options.builder).options
    given = tyro.cli(kind, args=rest, prog=f"fairgrape data prepare {options.builder} --from DIR")
    if options.place is None:
        raise UsageError(f"--from: give {kind.HINT}")
    from fairgrape_jax.data.builders.prepare import prepare as write

    with bar("preparing") as move:
        made = write(
            options.builder,
            options.place,
            given,
            data_dir=options.data_dir,
            called=options.name,
            progress=spoken(move, "preparing"),
            tfrecord=options.tfrecord,
        )
    about = prepared.stored_in(made)
    for note in about.about["notes"]:
        say(f"note: {note}")
    say(f"{len(about.columns['values']):,} pictures in {made}")


def spoken(move: Progress, title: str) -> Progress:
    """`move`, and where it shows nothing a line now and then."""
    said = time.monotonic()

    def both(done: int, total: int) -> None:
        nonlocal said
        move(done, total)
        if not sys.stdout.isatty() and time.monotonic() - said > SILENCE:
            said = time.monotonic()
            say(f"{title}: {done:,} of {total:,}")

    return both


def check(arguments: list[str]) -> None:
    """`fairgrape data check NAME ...`; UsageError if something is broken."""
    parser = argparse.ArgumentParser(prog="fairgrape data check")
    parser.add_argument("name")
    parser.add_argument("--data-dir", default="")
    parser.add_argument("--split-by", default="content")
    parser.add_argument("--fold", default="")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--names", type=Path)
    options = parser.parse_args(arguments)
    source = prepared.Prepared(
        path=options.data_dir,
        dataset=options.name,
        split_by=options.split_by,
        fold=options.fold,
        seed=options.seed,
    )
    with bar("looking at every picture") as move:
        lines, sound = verify.check(source, spoken(move, "checking"), options.names)
    for line in lines:
        say(line)
    if not sound:
        raise UsageError(f"{options.name}: broken files, see above; prepare it again")


def show(arguments: list[str]) -> None:
    """`fairgrape data list`."""
    parser = argparse.ArgumentParser(prog="fairgrape data list")
    parser.add_argument("--data-dir", type=Path, default=default_data_dir())
    place = parser.parse_args(arguments).data_dir
    print("can be prepared:")
    for name, row in BUILDERS.items():
        print(f"  {name:<20} {' '.join((row.options.__doc__ or '').split())}")
    say(f"prepared in {place}:")
    for about in sorted(place.glob(f"*/*/{ABOUT}")):
        stored = prepared.stored_in(about.parent)
        columns = ", ".join(column["name"] for column in stored.about["columns"][:6])
        count = len(stored.columns["values"])
        say(f"  {about.parent.parent.name:<20} {count:,} pictures; {columns}")
    for partial in sorted(place.glob("*/.*.partial")):
        say(f"  {partial.parent.name:<20} not whole: the same `prepare` goes on")


def sheet(arguments: list[str]) -> None:
    """`fairgrape data sheet [DATASET] ...`."""
    parser = argparse.ArgumentParser(prog="fairgrape data sheet", add_help=False)
    parser.add_argument("dataset", nargs="?", default="synthetic")
    parser.add_argument("--out", type=Path, default=Path("sheet.png"))
    parser.add_argument("--augmentation", default="paper")
    parser.add_argument("--mixup", type=float, default=0.0)
    options, rest = parser.parse_known_args(arguments)
    if options.out.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise UsageError(f"--out {options.out}: end it with .png, .jpg or .webp")
    kind = type(data.source(options.dataset))
    source = tyro.cli(kind, args=rest, prog=f"fairgrape data sheet {options.dataset}")
    from fairgrape_jax.data.contact_sheet import write

    dataset = data.load(source)
    if not 0 <= options.mixup < math.inf:
        raise UsageError(f"--mixup {options.mixup}: give an alpha of 0 or more")
    write(options.out, dataset, options.augmentation, options.mixup)
    say(f"{options.out}: a row per group, the picture and how {options.augmentation} alters it")
