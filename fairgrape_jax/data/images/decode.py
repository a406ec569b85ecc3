"""Decode picture files to RGB pixels: JPEGs by simplejpeg where it can, all others by Pillow.

Either way they are scaled by the one bilinear resize of `data/images/resize.py`.
"""

from __future__ import annotations

import io
import threading
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

PIXELS = 2 * 89_478_485  # of a picture at the most: Pillow's own limit
APP1, START_OF_SCAN = b"\xe1", b"\xda"  # markers of a JPEG
LEAST_SCALE = 2  # a JPEG scaled to more than a half is decoded as slowly as the whole
WHOLE = 256 * 256  # pixels of a JPEG that is always decoded whole: there is little to save
FAST_DCT = False  # libjpeg's other one changes pixels by 1 in the mean, and saves 3 % of the time
Fit = Literal["stretch", "crop"]


class BrokenPictureError(ValueError):
    """Bytes that are no picture, or half of one."""


def decode(
    content: bytes,
    size: int = 0,
    fit: Fit = "stretch",
    *,
    reduced: bool = True,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """RGB pixels of a picture file.

    Turned as its EXIF block says; CMYK, grey, palette and 16-bit pictures become 8-bit RGB.

    Args:
        content: The bytes of the file.
        size: Side of the square in pixels; 0 for the picture's own size.
        fit: "stretch" changes the aspect; "crop" scales the shorter side and takes the middle.
        reduced: Let libjpeg scale a JPEG of more than `WHOLE` pixels and twice `size`, by
            eighths while it decodes, to no less than `size`.
        out: (size, size, 3) uint8, contiguous: where to write the pixels, as a row of a batch.

    Returns:
        (H, W, 3) uint8, or (size, size, 3): `out`, where it is given.

    Raises:
        BrokenPictureError: The bytes are not one whole picture.

    Example:
        >>> from PIL import Image
        >>> file = io.BytesIO()
        >>> Image.new("L", (40, 20), 7).save(file, "png")
        >>> decode(file.getvalue(), 8).shape
        (8, 8, 3)
    """
    if not size:
        pixels = _fast(content)
        return _pillow(content) if pixels is None else pixels
    out = np.empty((size, size, 3), np.uint8) if out is None else out
    if not _fast_into(out, content, fit, reduced):
        out[...] = fit_to_square(_pillow(content), size, fit)
    return out


def fault(content: bytes) -> str:
    """Why a file cannot be decoded. All of it is read, at an eighth of the size.

    Args:
        content: The bytes of the file.

    Returns:
        What is wrong with it; "" where it can be decoded.

    Example:
        >>> fault(b"text")
        'no picture'
    """
    try:
        if _fast(content, 1) is None:
            _pillow(content)
    except BrokenPictureError as error:
        return str(error)
    return ""


def fit_to_square(pixels: np.ndarray, size: int, fit: Fit = "stretch") -> np.ndarray:
    """Resize a picture to a square, by Pillow's bilinear filter.

    Args:
        pixels: (H, W, 3) uint8.
        size: Side of the square in pixels.
        fit: As for `decode`.

    Returns:
        (size, size, 3) uint8.
    """
    height, width = pixels.shape[:2]
    if (height, width) == (size, size):
        return pixels
    from fairgrape_jax.data.images.resize import resize  # compiled at its first use

    out = np.empty((size, size, 3), np.uint8)
    resize(pixels, _box(height, width, fit), out)
    return out


def _box(height: int, width: int, fit: Fit) -> tuple[float, float, float, float]:
    """What of a picture is taken: left, top, right, bottom."""
    if fit == "stretch":
        return 0, 0, width, height
    side = min(height, width)
    left, top = (width - side) / 2, (height - side) / 2
    return left, top, left + side, top + side


def _fast(content: bytes, size: int = 0) -> np.ndarray | None:
    """By simplejpeg; None where it is no JPEG, needs turning, or has colours that it lacks."""
    if _needs_pillow(content):
        return None
    import simplejpeg

    try:
        height, width, *_ = simplejpeg.decode_jpeg_header(content)
        if height * width > PIXELS:
            return None  # Pillow refuses it
        return simplejpeg.decode_jpeg(content, "RGB", min_height=size, min_width=size)
    except ValueError:
        return None  # Pillow decides whether it is broken


def _fast_into(out: np.ndarray, content: bytes, fit: Fit, reduced: bool) -> bool:
    """Fill `out` (size, size, 3) by simplejpeg and our resize; False where the former cannot.

    Memory that is taken and given back for every picture costs a fifth of its decoding: every
    thread keeps its own.
    """
    if _needs_pillow(content):
        return False
    import simplejpeg

    try:
        height, width, *_ = simplejpeg.decode_jpeg_header(content)
        if height * width > PIXELS:
            return False  # Pillow refuses it
        least = len(out) if reduced and height * width > WHOLE else 0
        scale = {"min_height": least, "min_width": least, "min_factor": LEAST_SCALE}
        height, width, *_ = simplejpeg.decode_jpeg_header(content, **scale)
        if (height, width) == out.shape[:2]:
            simplejpeg.decode_jpeg(content, "RGB", buffer=out, fastdct=FAST_DCT, **scale)
            return True
        memory = _thread_memory(3 * height * width)
        pixels = simplejpeg.decode_jpeg(content, "RGB", buffer=memory, fastdct=FAST_DCT, **scale)
    except ValueError:
        return False
    from fairgrape_jax.data.images.resize import resize

    resize(pixels, _box(height, width, fit), out)
    return True


def _needs_pillow(content: bytes) -> bool:
    """Whether the bytes are no JPEG, or one that its EXIF or XMP block may say to turn."""
    if content[:2] != b"\xff\xd8":
        return True
    at = 2
    while content[at : at + 1] == b"\xff" and content[at + 1 : at + 2] != START_OF_SCAN:
        length = int.from_bytes(content[at + 2 : at + 4], "big")
        if content[at + 1 : at + 2] == APP1 and _is_turned(content[at + 4 : at + 2 + length]):
            return True
        at += 2 + length
    return False


def _is_turned(block: bytes) -> bool:
    if block[:6] != b"Exif\0\0":
        return b"Orientation" in block
    from PIL import ExifTags, Image

    exif = Image.Exif()
    try:
        exif.load(block)
        return bool(exif.get(ExifTags.Base.Orientation, 1) != 1)
    except Exception:  # whatever is wrong with it: Pillow decides
        return True


_memory = threading.local()


def _thread_memory(size: int) -> np.ndarray:
    """At least `size` bytes that this thread uses again and again."""
    if getattr(_memory, "bytes", np.empty(0)).size < size:
        _memory.bytes = np.empty(size, np.uint8)
    kept: np.ndarray = _memory.bytes
    return kept


def _pillow(content: bytes) -> np.ndarray:
    from PIL import Image, ImageOps

    if not content:
        raise BrokenPictureError("no bytes")
    try:
        with Image.open(io.BytesIO(content)) as opened:
            opened.load()
            picture = ImageOps.exif_transpose(opened)
            if picture.mode == "F":
                raise BrokenPictureError("pixels of unknown range (floating point)")
            if picture.mode.startswith("I"):  # 16 bits; Pillow's own conversion clips them
                return np.repeat(np.asarray(_eight_bits(picture))[..., None], 3, -1)
            if "transparency" in picture.info:
                picture = picture.convert("RGBA")
            return np.asarray(picture.convert("RGB"))
    except Image.UnidentifiedImageError as error:
        raise BrokenPictureError("no picture") from error
    except MemoryError:
        raise
    except Exception as error:  # of a damaged file Pillow raises many kinds, TypeError among them
        raise BrokenPictureError(str(error) or type(error).__name__) from error


def _eight_bits(picture: Image.Image) -> np.ndarray:
    return (np.clip(np.asarray(picture), 0, 65535) >> 8).astype(np.uint8)
