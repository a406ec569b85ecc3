"""The table of what can be prepared: one small file per dataset, one row each here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from fairgrape_jax.data.builders import (
    celeb_a_attributes,
    fair_face,
    folder_csv,
    hf_parquet,
    image_folder,
    imagenet2012,
    imagenet_people,
    utk_face,
)
from fairgrape_jax.data.builders.listing import Listing, Options
from fairgrape_jax.errors import UsageError

__all__ = [
    "BUILDERS",
    "Builder",
    "Listing",
    "Options",
    "builder",
]


class Builder(NamedTuple):
    """How a dataset is read.

    Attributes:
        options: The class of its options.
        read: (place, options, scratch) -> its rows.
    """

    options: type[Options]
    read: Callable[[Path, Any, Path], Listing]


# A new dataset is one file with an options class and a read function, and one row here.
BUILDERS: dict[str, Builder] = {
    "fair_face": Builder(fair_face.FairFace, fair_face.read),
    "utk_face": Builder(utk_face.UTKFace, utk_face.read),
    "celeb_a_attributes": Builder(celeb_a_attributes.CelebAAttributes, celeb_a_attributes.read),
    "imagenet_people": Builder(imagenet_people.ImageNetPeople, imagenet_people.read),
    "imagenet2012": Builder(imagenet2012.ImageNet2012, imagenet2012.read),
    "folder_csv": Builder(folder_csv.FolderCsv, folder_csv.read),
    "image_folder": Builder(image_folder.ImageFolder, image_folder.read),
    "hf_parquet": Builder(hf_parquet.HfParquet, hf_parquet.read),
}


def builder(name: str) -> Builder:
    """A row of the table.

    Args:
        name: What it is called there.

    Returns:
        How that dataset is read.

    Raises:
        UsageError: There is no such row.

    Example:
        >>> builder("fair_face").options.__name__
        'FairFace'
    """
    if name not in BUILDERS:
        raise UsageError(f"unknown builder {name!r}: choose from {', '.join(BUILDERS)}")
    return BUILDERS[name]
