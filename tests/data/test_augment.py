"""Augmentation: a function of run, epoch and sample; each operation against what it must do."""

from __future__ import annotations

import functools
import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from fairgrape_jax import data
from fairgrape_jax.cli.main import main
from fairgrape_jax.data import augment, contact_sheet, transforms

PRESETS = [name for name, alter in augment.AUGMENTATIONS.items() if alter is not None]
KEY = jax.random.key(3)


def pictures(count: int = 6, side: int = 24) -> jax.Array:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (count, 6, 6, 3), np.uint8)
    return jnp.asarray(np.kron(coarse, np.ones((1, side // 6, side // 6, 1), np.uint8)))


@pytest.mark.parametrize("name", PRESETS)
def test_a_sample_is_altered_alike_in_any_batch_and_otherwise_in_another_epoch(name):
    alter = augment.AUGMENTATIONS[name]
    augmented = jax.jit(functools.partial(augment.augment_batch, alter))
    images, ids = pictures(), jnp.array([5, 0, 17, 3, 200, 1])
    epoch = jnp.int32(2)
    whole = np.asarray(augmented(KEY, epoch, ids, images), np.float32)
    assert whole.shape == images.shape
    assert whole.min() >= 0
    assert whole.max() <= 255
    some = jnp.array([4, 2])
    part = augmented(KEY, epoch, ids[some], images[some])
    np.testing.assert_allclose(np.asarray(part, np.float32), whole[some], atol=2e-2)
    others = [
        augmented(key, e, i, images)
        for key, e, i in (
            (KEY, jnp.int32(3), ids),
            (jax.random.key(4), epoch, ids),
            (KEY, epoch, ids + 1),
        )
    ]
    assert all(np.abs(np.asarray(o, np.float32) - whole).max() > 1 for o in others)


def test_flip_mirrors_half_of_the_samples():
    images = jnp.tile(jnp.arange(4, dtype=jnp.uint8)[None, None, :, None], (400, 2, 1, 1))
    out = np.asarray(
        augment.augment_batch(augment.flip, KEY, jnp.int32(0), jnp.arange(400), images)
    )
    mirrored = out[:, 0, 0, 0] == 3
    np.testing.assert_array_equal(out[mirrored], np.asarray(images)[mirrored][:, :, ::-1])
    np.testing.assert_array_equal(out[~mirrored], np.asarray(images)[~mirrored])
    assert 150 < mirrored.sum() < 250


def test_affine_of_nothing_is_the_picture_and_of_something_is_scipys():
    image = pictures(1)[0]
    np.testing.assert_allclose(transforms.affine(KEY, image), image, atol=1e-3)
    moved = np.asarray(transforms.affine(KEY, image, rotate=15.0, shear=8.0, scale=(1.0, 1.1)))
    keys = jax.random.split(KEY, 4)
    turn = np.deg2rad(float(jax.random.uniform(keys[0], minval=-15.0, maxval=15.0)))
    lean = np.tan(np.deg2rad(float(jax.random.uniform(keys[1], minval=-8.0, maxval=8.0))))
    zoom = np.asarray(jax.random.uniform(keys[2], (2,), minval=1.0, maxval=1.1))
    forward = (
        np.diag(zoom)
        @ np.linalg.inv([[1, 0], [lean, 1]])
        @ np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    )
    inverse = np.linalg.inv(forward)
    middle = (np.array(image.shape[:2]) - 1) / 2
    for c in range(3):
        expected = ndimage.affine_transform(
            np.asarray(image[..., c], np.float32),
            inverse,
            offset=middle - inverse @ middle,
            order=1,
            mode="nearest",
        )
        np.testing.assert_allclose(moved[..., c], expected, atol=0.1)


def test_blur_is_scipys_gaussian_and_none_of_it_the_picture():
    image = pictures(1)[0].astype(jnp.float32)
    np.testing.assert_allclose(transforms.blur(image, jnp.float32(0)), image, atol=1e-4)
    expected = ndimage.gaussian_filter(np.asarray(image), (1.5, 1.5, 0), mode="nearest", radius=6)
    np.testing.assert_allclose(transforms.blur(image, jnp.float32(1.5)), expected, atol=1e-2)


def test_a_kernel_is_scipys_correlation():
    image = pictures(1)[0].astype(jnp.float32)
    kernel = np.array([[-1, -2, 0], [-2, 1, 2], [0, 2, 3]], np.float32)
    expected = ndimage.correlate(np.asarray(image), kernel[..., None], mode="nearest")
    np.testing.assert_allclose(transforms.convolve(image, jnp.asarray(kernel)), expected, atol=1e-1)


def test_grey_mixes_towards_luminance():
    image = jnp.zeros((2, 2, 3)).at[..., 0].set(100.0)
    np.testing.assert_allclose(transforms.grey(image, jnp.float32(0)), image)
    np.testing.assert_allclose(transforms.grey(image, jnp.float32(1)), 29.89, rtol=1e-3)
    one_channel = jnp.ones((2, 2, 1))
    assert transforms.grey(one_channel, jnp.float32(1)) is one_channel


def test_random_resized_crop_of_the_whole_is_the_picture_and_of_a_part_is_inside():
    image = pictures(1)[0]
    whole = transforms.random_resized_crop(KEY, image, area=(1.0, 1.0), aspect=(1.0, 1.0 + 1e-6))
    np.testing.assert_allclose(whole, image, atol=0.1)
    ramp = jnp.broadcast_to(jnp.arange(32.0)[:, None, None], (32, 32, 3))
    crop = jax.jit(transforms.random_resized_crop)
    parts = np.stack([crop(jax.random.key(seed), ramp)[:, 0, 0] for seed in range(20)])
    assert np.all(np.diff(parts, axis=1) >= -1e-4)
    heights = parts[:, -1] - parts[:, 0]
    assert 8 < np.median(heights) < 30
    assert heights.min() < 16


def test_paper_takes_pictures_of_one_channel_and_an_even_one_keeps_its_edges():
    images = jnp.full((40, 8, 8, 1), 128, jnp.uint8)
    augmented = jax.jit(functools.partial(augment.augment_batch, augment.paper))
    out = np.asarray(augmented(KEY, jnp.int32(0), jnp.arange(40), images))
    assert out.shape == images.shape
    # What only moves, blurs or leaves it alone keeps an even picture as it is.
    kept = np.abs(out - 128).max((1, 2, 3)) < 0.1
    assert 5 < kept.sum() < 35


def test_a_contact_sheet_shows_a_row_per_group(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert (
        main(
            [
                "data",
                "sheet",
                "synthetic",
                "--groups",
                "3",
                "--size",
                "20",
                "--augmentation",
                "shift",
            ]
        )
        == 0
    )
    with Image.open(io.BytesIO((tmp_path / "sheet.png").read_bytes())) as opened:
        assert opened.size == (8 * 24 + 4, 3 * 24 + 4)
    dataset = data.load(data.source("synthetic", samples=100, groups=2, size=20))
    plain = contact_sheet.contact_sheet(dataset, "none", columns=3)
    mixed = contact_sheet.contact_sheet(dataset, "none", columns=3, mixup=1.0)
    assert mixed.shape == plain.shape
    assert (mixed != plain).any()
    assert main(["data", "sheet", "synthetic", "--mixup", "-1"]) == 2
    np.testing.assert_array_equal(plain[:, :24], plain[:, 24:48])
    first = dataset.train.images[np.flatnonzero(dataset.train.groups == 0)[0]]
    np.testing.assert_array_equal(plain[4:24, 4:24], first)
