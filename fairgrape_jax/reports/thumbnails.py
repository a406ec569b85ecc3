"""Small pictures of samples as data: addresses, so that a report stays one file."""

from __future__ import annotations

import base64
import io
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from fairgrape_jax import config, data
from fairgrape_jax.data.images import decode, files
from fairgrape_jax.data.sources import arrays
from fairgrape_jax.errors import UsageError
from fairgrape_jax.reports.names import examples
from fairgrape_jax.training.evaluate import Predictions

SIDE = 96  # pixels of the longer side
EXACT = 32  # a picture up to this side is kept to the bit, as PNG
MOST = 60  # pictures of one set of models


def data_address(pixels: np.ndarray) -> str:
    """A picture as the address of an <img>.

    Args:
        pixels: (H, W, 1 or 3) uint8; shrunk to SIDE pixels where it is larger.

    >>> data_address(np.zeros((8, 8, 1), np.uint8))[:22]
    'data:image/png;base64,'
    """
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    form = "png" if max(picture.size) <= EXACT else "jpeg"
    picture.thumbnail((SIDE, SIDE))
    content = io.BytesIO()
    picture.save(content, form, **({"quality": 80} if form == "jpeg" else {}))
    return f"data:image/{form};base64,{base64.b64encode(content.getvalue()).decode('ascii')}"


def pictures_by_name(place: Path, names: Iterable[str]) -> dict[str, str]:
    """The pictures of a folder or archive that `names` name, as data: addresses.

    Args:
        place: a folder with all folders below it, or an archive.
        names: paths in it, file names, or file names without their ending.

    Returns:
        An address for each name that one readable picture has.

    Raises:
        UsageError: if no name has a picture.
    """
    names = list(dict.fromkeys(names))
    with tempfile.TemporaryDirectory(prefix="fairgrape-thumbnails-") as scratch:
        entries = files.find(place, Path(scratch), "a folder of the samples' pictures").entries
        known = _unique(entry.name for entry in entries)
        entry_of = {name: entries[known[name]] for name in names if known.get(name, -1) >= 0}
        if names and not entry_of:
            raise UsageError(
                f"{place}: no picture is called as a sample is ({examples(names)}; pictures: "
                f"{examples([entry.name for entry in entries])})"
            )
        addresses = {}
        for name, entry in entry_of.items():
            try:
                addresses[name] = data_address(decode.decode(files.read(entry)))
            except (decode.BrokenPictureError, OSError):
                continue  # it is listed without its picture
    return addresses


def pictures_of_run(
    run: Path, predicted: Predictions, rows: Sequence[int], place: Path | None = None
) -> dict[int, str]:
    """Pictures of test samples of a run.

    Args:
        run: its directory.
        predicted: its predictions on the test split.
        rows: which of them.
        place: a folder or archive of the pictures, where predictions have their names; else the
            run's dataset is loaded as it was then.

    Returns:
        A data: address by row, of the rows that have a picture.

    Raises:
        UsageError: if the pictures are not there, or are those of other samples.
    """
    if place is not None:
        if predicted.names is None:
            raise UsageError(
                f"{run}: its predictions do not name pictures (its dataset has no files, or it is "
                "a run of before); leave out --pictures to load its dataset"
            )
        addresses = pictures_by_name(place, [predicted.names[row] for row in rows])
        return {row: addresses[n] for row in rows if (n := predicted.names[row]) in addresses}
    stored = config.read(run / "config.json")
    for row in stored.get("registered", []):
        if row["kind"] == "dataset":
            raise UsageError(
                f"{run}: its dataset {row['name']!r} is registered from outside, and a report runs "
                "no code of others; give --pictures, where predictions name pictures, or leave out "
                "--thumbnails"
            )
    test = data.load(arrays.locate(config.from_dict(stored["experiment"]).data, run)).test
    places = np.arange(len(predicted.groups)) if predicted.places is None else predicted.places
    if len(places) and places.max() >= len(test):
        raise UsageError(
            f"{run}: its dataset is another one now; it has {len(test):,} test samples"
        )
    if (test.labels[places] != predicted.labels).any():
        raise UsageError(f"{run}: its dataset is another one now; its test labels differ")
    pixels = np.asarray(test.images[places[np.asarray(rows, int)]])
    return {row: data_address(one) for row, one in zip(rows, pixels, strict=True)}


def _unique(paths: Iterable[str]) -> Mapping[str, int]:
    """The place of each path, file name and stem; -1 where two paths have it."""
    places: dict[str, int] = {}
    for place, path in enumerate(paths):
        parts = PurePosixPath(path)
        keys = (path, parts.name, parts.stem, str(parts.with_suffix("")))
        for key in dict.fromkeys(keys):
            places[key] = -1 if key in places else place
    return places
