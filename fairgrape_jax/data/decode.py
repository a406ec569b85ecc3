"""JPEG and other files to RGB pixels: simplejpeg where it can, Pillow for the rest."""

from __future__ import annotations

import io
from typing import Any, Literal

import numpy as np

EXIF_REACH = 1 << 16  # bytes in which an EXIF block begins, where a file has one
PIXELS = 2 * 89_478_485  # of a picture at the most: Pillow's own limit
Fit = Literal["stretch", "crop"]


class BrokenPictureError(ValueError):
    """Bytes that are no picture, or half of one."""


def decode(content: bytes, size: int = 0, fit: Fit = "stretch", *, reduced: bool = True) -> Any:
    """(H, W, 3) uint8 RGB pixels of a file, or (size, size, 3).

    fit: "stretch" changes the aspect; "crop" scales the shorter side and takes the middle.
    reduced: let libjpeg scale a large JPEG by eighths while it decodes, to no less than `size`.
    Turned as its EXIF block says; CMYK, grey, palette and 16-bit pictures become 8-bit RGB.
    BrokenPictureError if the bytes are not one whole picture.

    >>> from PIL import Image
    >>> out = io.BytesIO()
    >>> Image.new("L", (40, 20), 7).save(out, "png")
    >>> decode(out.getvalue(), 8).shape
    (8, 8, 3)
    """
    pixels = _fast(content, size if reduced else 0)
    if pixels is None:
        pixels = _pillow(content)
    return fitted(pixels, size, fit) if size else pixels


def fault(content: bytes) -> str:
    """Why a file cannot be decoded; empty if it can. All of it is read, at an eighth of the size.

    >>> fault(b"text")
    'no picture'
    """
    try:
        if _fast(content, 1) is None:
            _pillow(content)
    except BrokenPictureError as error:
        return str(error)
    return ""


def fitted(pixels: np.ndarray, size: int, fit: Fit) -> np.ndarray:
    """(size, size, 3) of (H, W, 3) pixels, Pillow's bilinear filter."""
    from PIL import Image

    height, width = pixels.shape[:2]
    if (height, width) == (size, size):
        return pixels
    box = None
    if fit == "crop":
        side = min(height, width)
        left, top = (width - side) / 2, (height - side) / 2
        box = (left, top, left + side, top + side)
    image = Image.fromarray(pixels).resize((size, size), Image.Resampling.BILINEAR, box=box)
    return np.asarray(image)


def _fast(content: bytes, size: int) -> np.ndarray | None:
    """By simplejpeg; None where it is no JPEG, needs turning, or has colours that it lacks."""
    if content[:2] != b"\xff\xd8" or content.find(b"Exif\0\0", 0, EXIF_REACH) >= 0:
        return None
    import simplejpeg

    try:
        height, width, *_ = simplejpeg.decode_jpeg_header(content)
        if height * width > PIXELS:
            return None  # Pillow refuses it
        return simplejpeg.decode_jpeg(content, "RGB", min_height=size, min_width=size)
    except ValueError:
        return None  # Pillow decides whether it is broken


def _pillow(content: bytes) -> np.ndarray:
    from PIL import Image, ImageOps

    if not content:
        raise BrokenPictureError("no bytes")
    try:
        with Image.open(io.BytesIO(content)) as opened:
            opened.load()
            picture = ImageOps.exif_transpose(opened)
            if picture.mode.startswith("I"):  # 16 bits; Pillow's own conversion clips them
                return np.repeat(np.asarray(_eight_bits(picture))[..., None], 3, -1)
            if "transparency" in picture.info:
                picture = picture.convert("RGBA")
            return np.asarray(picture.convert("RGB"))
    except Image.UnidentifiedImageError as error:
        raise BrokenPictureError("no picture") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise BrokenPictureError(str(error) or type(error).__name__) from error


def _eight_bits(picture: Any) -> np.ndarray:
    return (np.clip(np.asarray(picture), 0, 65535) >> 8).astype(np.uint8)
