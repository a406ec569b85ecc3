"""Files to pixels: every kind of file is read right, or reported."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from fairgrape_jax.data.images import decode
from tests.helpers.layouts import jpeg


def saved(image: Image.Image, kind: str, **options) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def colours(mode: str = "RGB", size: tuple[int, int] = (40, 30)) -> Image.Image:
    """Red above, blue below, so that a turn shows."""
    image = Image.new("RGB", size, (250, 10, 10))
    image.paste((10, 10, 250), (0, size[1] // 2, size[0], size[1]))
    return image.convert(mode)


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved(colours(), "jpeg", exif=exif, quality=95)


PLAIN = np.asarray(colours())
GREY = np.asarray(colours("L").convert("RGB"))
SIXTEEN = np.linspace(0, 65535, 40 * 30).reshape(30, 40).astype(np.uint16)
KINDS = {
    "jpeg": (saved(colours(), "jpeg", quality=95), PLAIN),
    "progressive jpeg": (saved(colours(), "jpeg", quality=95, progressive=True), PLAIN),
    "grey jpeg": (saved(colours("L"), "jpeg", quality=95), GREY),
    "CMYK jpeg": (saved(colours("CMYK"), "jpeg", quality=95), PLAIN),
    "upright by EXIF": (turned(1), PLAIN),
    "upside down by EXIF": (turned(3), PLAIN[::-1, ::-1]),
    "on its side by EXIF": (turned(6), np.rot90(PLAIN, -1)),
    "png": (saved(colours(), "png"), PLAIN),
    "grey png": (saved(colours("L"), "png"), GREY),
    "png with alpha": (saved(colours("RGBA"), "png"), PLAIN),
    "palette png": (saved(colours("P"), "png"), np.asarray(colours("P").convert("RGB"))),
    "transparent palette": (
        saved(colours("P"), "png", transparency=b"\x00\x80"),
        np.asarray(colours("P").convert("RGB")),
    ),
    "16-bit png": (
        saved(Image.fromarray(SIXTEEN), "png"),
        np.repeat((SIXTEEN >> 8).astype(np.uint8)[..., None], 3, -1),
    ),
    "bmp": (saved(colours(), "bmp"), PLAIN),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file_is_read_right(kind):
    content, expected = KINDS[kind]
    pixels = decode.decode(content)
    assert pixels.dtype == np.uint8
    assert pixels.shape == expected.shape
    away = np.ones(expected.shape[:2], bool)
    if "jpeg" in kind or "EXIF" in kind:  # the edge between the colours is blurred
        rows, columns = expected.shape[:2]
        away[rows // 2 - 9 : rows // 2 + 9, columns // 2 - 9 : columns // 2 + 9] = False
        near = np.abs(np.diff(expected.astype(int), axis=0, prepend=expected[:1])).sum(-1) > 0
        assert near.any() or kind == "on its side by EXIF"
    error = np.abs(pixels.astype(int) - expected)[away]
    assert np.median(error) <= 4
    assert decode.fault(content) == ""
    assert decode.decode(content, 16).shape == (16, 16, 3)


BROKEN = {
    "text": b"no picture at all",
    "nothing": b"",
    "half a jpeg": jpeg(1, (200, 200))[:2000],
    "a jpeg's head": jpeg(1)[:30],
    "half a png": saved(colours(), "png")[:90],
    "jpeg of zeros": jpeg(1)[:200] + b"\0" * 300,
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_file_is_reported_and_never_crashes(kind):
    with pytest.raises(decode.BrokenPictureError):
        decode.decode(BROKEN[kind], 16)
    assert decode.fault(BROKEN[kind])


@pytest.mark.filterwarnings("ignore")  # Pillow's, of what is wrong with the EXIF block
def test_a_damaged_head_is_read_or_reported():
    exif, rng = Image.Exif(), np.random.default_rng(0)
    exif[0x0112], exif[0x010F], exif[0x8769] = 6, "maker", {0x9003: "2020:01:01 00:00:00"}
    whole = saved(colours(), "jpeg", exif=exif)
    outcomes = []
    for _ in range(1500):
        content = bytearray(whole)
        for _ in range(rng.integers(1, 6)):
            content[rng.integers(2, 200)] = rng.integers(256)
        try:
            outcomes.append(decode.decode(bytes(content), 16).shape)
        except decode.BrokenPictureError as error:
            outcomes.append(str(error) != "")
    assert set(outcomes) == {(16, 16, 3), True}


@pytest.mark.parametrize("side", [(200, 180), (500, 375), (64, 64)])
def test_without_scaling_pixels_are_pillows(side):
    content = jpeg(5, side)
    with Image.open(io.BytesIO(content)) as opened:
        expected = np.asarray(opened.convert("RGB").resize((224, 224), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(decode.decode(content, 224), expected)


def test_reduced_decoding_is_close_and_used(monkeypatch):
    content = jpeg(5, (500, 375))
    whole, reduced = (decode.decode(content, 160, reduced=r).astype(int) for r in (False, True))
    assert 0 < np.abs(whole - reduced).mean() < 4  # by a half
    monkeypatch.setattr(decode, "LEAST_SCALE", 1)
    fifth = decode.decode(content, 224).astype(int)
    assert 0 < np.abs(fifth - decode.decode(content, 224, reduced=False)).mean() < 4


def test_pixels_go_into_the_row_of_a_batch():
    batch = np.full((4, 32, 32, 3), 9, np.uint8)
    for i, content in enumerate((jpeg(5, (50, 40)), jpeg(6, (32, 32)), KINDS["png"][0])):
        given = decode.decode(content, 32, "crop", out=batch[i])
        assert np.shares_memory(given, batch)
        np.testing.assert_array_equal(batch[i], decode.decode(content, 32, "crop"))
    assert (batch[3] == 9).all()


@pytest.mark.parametrize("orientation", [1, 6])
def test_only_what_must_be_turned_takes_the_long_way(orientation, monkeypatch):
    monkeypatch.setattr(decode, "_pillow", lambda content: np.zeros((40, 30, 3), np.uint8))
    assert decode.decode(turned(orientation), 8).any() == (orientation == 1)
    xmp = saved(colours(), "jpeg", xmp=b"<tiff:Orientation>6</tiff:Orientation>")
    assert not decode.decode(xmp, 8).any()


def test_crop_keeps_the_aspect():
    image = Image.new("RGB", (60, 30), (0, 0, 0))
    image.paste((255, 255, 255), (15, 0, 45, 30))  # the middle square
    assert decode.decode(saved(image, "png"), 10, "crop").min() >= 200
    assert decode.decode(saved(image, "png"), 10, "stretch")[:, 0].max() <= 60
