"""Our resize against Pillow's: the same bits, for any sizes and any part of a picture.

Pillow is asked for one pass at a time: from version 13 on it makes the passes of some tall pictures
in the other order, with other roundings.
"""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from fairgrape_jax.data.images.resize import resize, taps

RNG = np.random.default_rng(0)
SIZES = [
    (375, 500, 224),
    (235, 313, 224),
    (224, 224, 224),
    (224, 300, 224),
    (300, 224, 224),
    (200, 200, 224),
    (1, 1, 8),
    (1, 900, 16),
    (900, 1, 16),
    (2, 3, 1),
    (17, 15, 16),
    (1023, 767, 64),
    *((int(h), int(w), int(s)) for h, w, s in RNG.integers(1, 300, (40, 3))),
]


@pytest.mark.parametrize(("height", "width", "size"), SIZES)
def test_the_pixels_are_pillows(height, width, size):
    pixels = RNG.integers(0, 256, (height, width, 3), np.uint8)
    pixels[RNG.random((height, width)) < 0.2] = 255  # to the ends of the range
    side = min(height, width)
    left, top = (width - side) / 2, (height - side) / 2
    for box in ((0, 0, width, height), (left, top, left + side, top + side)):
        across, down = (box[0], 0, box[2], height), (0, box[1], size, box[3])
        image = Image.fromarray(pixels)
        for shape, part in (((size, height), across), ((size, size), down)):
            image = image.resize(shape, Image.Resampling.BILINEAR, box=part)
        out = np.empty((size, size, 3), np.uint8)
        resize(pixels, box, out)
        np.testing.assert_array_equal(out, np.asarray(image))


def test_other_rows_of_a_batch_stay_as_they_are():
    batch = np.full((3, 8, 8, 3), 9, np.uint8)
    resize(RNG.integers(0, 9, (20, 30, 3), np.uint8), (0, 0, 30, 20), batch[1])
    assert (batch[[0, 2]] == 9).all()
    assert (batch[1] < 9).all()
    with pytest.raises(ValueError, match="copy"):  # else what is written would be lost
        resize(batch[0], (0, 0, 8, 8), batch[0].swapaxes(0, 1))


@pytest.mark.parametrize("length", [1, 2, 7, 500])
@pytest.mark.parametrize("size", [1, 3, 224])
def test_weights_add_up_to_one_and_lie_inside(length, size):
    start, weight = taps(length, 0.0, float(length), size)
    assert (np.abs(weight.sum(0) - (1 << 22)) <= len(weight)).all()
    assert start.min() >= 0
    assert (start + len(weight) <= length).all()
