"""Random changes of one picture: mirrored, moved, warped, blurred, and the lists made of these.

Each takes a key and a picture (H, W, C), 0 to 255, and gives one of the same shape.
"""

from __future__ import annotations

import functools

import dm_pix as pix
import jax
import jax.numpy as jnp


def flip(key: jax.Array, image: jax.Array) -> jax.Array:
    """Mirror a picture left to right with probability one half.

    Args:
        key: What is drawn from.
        image: (H, W, C), 0 to 255.

    Returns:
        A picture of the same shape, 0 to 255.
    """
    return pix.random_flip_left_right(key, image)


def shift(key: jax.Array, image: jax.Array) -> jax.Array:
    """Move a picture by up to an eighth of its side, edges repeated.

    Args:
        key: What is drawn from.
        image: (H, W, C), 0 to 255.

    Returns:
        A picture of the same shape, 0 to 255.
    """
    height, width = image.shape[:2]
    reach = max(1, height // 8)
    down, right = jax.random.randint(key, (2,), -reach, reach + 1)
    rows = jnp.clip(jnp.arange(height) + down, 0, height - 1)
    columns = jnp.clip(jnp.arange(width) + right, 0, width - 1)
    return image[rows][:, columns]


def flip_shift(key: jax.Array, image: jax.Array) -> jax.Array:
    """Mirror a picture with probability one half, then move it.

    Args:
        key: What is drawn from.
        image: (H, W, C), 0 to 255.

    Returns:
        A picture of the same shape, 0 to 255.
    """
    flip_key, shift_key = jax.random.split(key)
    return shift(shift_key, flip(flip_key, image))


def random_resized_crop(
    key: jax.Array,
    image: jax.Array,
    area: tuple[float, float] = (0.08, 1.0),
    aspect: tuple[float, float] = (3 / 4, 4 / 3),
) -> jax.Array:
    """Scale a rectangle of a random share of the area to the picture's size, bilinear.

    One draw, cut to the picture, where torchvision's RandomResizedCrop draws up to ten times.

    Args:
        key: What is drawn from.
        image: (H, W, C), 0 to 255.
        area: Least and largest share of the area.
        aspect: Least and largest width over height.

    Returns:
        (H, W, C) float32, 0 to 255.
    """
    keys = jax.random.split(key, 4)
    share = jax.random.uniform(keys[0], minval=area[0], maxval=area[1])
    ratio = jnp.exp(
        jax.random.uniform(keys[1], minval=jnp.log(aspect[0]), maxval=jnp.log(aspect[1]))
    )
    side = jnp.minimum(jnp.sqrt(share * jnp.stack([1 / ratio, ratio])), 1.0)
    start = jnp.stack([jax.random.uniform(k) for k in keys[2:]]) * (1 - side)
    shape = jnp.asarray(image.shape[:2], jnp.float32)
    return jax.image.scale_and_translate(
        image.astype(jnp.float32),
        image.shape,
        (0, 1),
        1 / side,
        -start * shape / side,
        "linear",
        antialias=False,
    )


def affine(
    key: jax.Array,
    image: jax.Array,
    *,
    scale: tuple[float, float] = (1.0, 1.0),
    translate: float = 0.0,
    rotate: float = 0.0,
    shear: float = 0.0,
    zoom: jax.Array | float = 1.0,
) -> jax.Array:
    """Scale a picture per axis, shear, rotate and move it; bilinear, edges repeated.

    Args:
        key: What is drawn from.
        image: (H, W, C), 0 to 255.
        scale: Least and largest scale of an axis.
        translate: Largest move, as a share of the side.
        rotate: Largest rotation, degrees, either way.
        shear: Largest shear, degrees, either way.
        zoom: A further scale of both axes.

    Returns:
        (H, W, C) float32, 0 to 255.
    """
    keys = jax.random.split(key, 4)
    turn = jnp.deg2rad(jax.random.uniform(keys[0], minval=-rotate, maxval=rotate))
    lean = jnp.tan(jnp.deg2rad(jax.random.uniform(keys[1], minval=-shear, maxval=shear)))
    size = jax.random.uniform(keys[2], (2,), minval=scale[0], maxval=scale[1]) * zoom
    side = jnp.asarray(image.shape[:2], jnp.float32)
    move = jax.random.uniform(keys[3], (2,), minval=-translate, maxval=translate) * side
    cos, sin = jnp.cos(turn), jnp.sin(turn)
    # Where an output pixel is taken from, about the middle: the inverse of what is done.
    matrix = jnp.array([[cos, sin], [-sin, cos]]) @ jnp.array([[1.0, 0.0], [lean, 1.0]]) / size
    middle = (side - 1) / 2
    grid = jnp.stack(jnp.meshgrid(*map(jnp.arange, image.shape[:2]), indexing="ij"), -1)
    places = (grid - middle - move) @ matrix.T + middle
    return bilinear(image.astype(jnp.float32), places)


def bilinear(image: jax.Array, places: jax.Array) -> jax.Array:
    """Interpolate a picture between its pixels, edges repeated.

    dm_pix's interpolates between channels too, and took 14 times as long on a CPU.

    Args:
        image: (H, W, C) float32.
        places: (..., 2), row and column.

    Returns:
        (..., C) float32.
    """
    last = jnp.array(image.shape[:2]) - 1
    inside = jnp.clip(places, 0, last)
    low = jnp.floor(inside).astype(jnp.int32)
    high = jnp.minimum(low + 1, last)
    part = (inside - low)[..., None]
    (top, left), (bottom, right) = (jnp.moveaxis(x, -1, 0) for x in (low, high))
    upper = image[top, left] * (1 - part[..., 1, :]) + image[top, right] * part[..., 1, :]
    lower = image[bottom, left] * (1 - part[..., 1, :]) + image[bottom, right] * part[..., 1, :]
    return upper * (1 - part[..., 0, :]) + lower * part[..., 0, :]


def grey(image: jax.Array, alpha: jax.Array) -> jax.Array:
    """Mix a picture with its grey form.

    Args:
        image: (H, W, C); other than of 3 channels it stays as it is.
        alpha: 0 is the picture, 1 is grey.

    Returns:
        A picture of the same shape.
    """
    if image.shape[-1] != 3:
        return image
    return image + alpha * (pix.rgb_to_grayscale(image, keep_dims=True) - image)


def blur(image: jax.Array, sigma: jax.Array, reach: int = 6) -> jax.Array:
    """Blur a picture by a Gaussian, edges repeated.

    A sum of moved pictures: with a strength per picture dm_pix's convolution becomes one of B
    groups, which took 9 times as long on a CPU.

    Args:
        image: (H, W, C) float32.
        sigma: Of the Gaussian, pixels; 0 is no blur.
        reach: Pixels that it reaches to either side.

    Returns:
        A picture of the same shape.
    """
    offsets = jnp.arange(-reach, reach + 1)
    weights = jnp.exp(-jnp.square(offsets / jnp.maximum(sigma, 1e-3)) / 2)
    weights /= weights.sum()
    for axis in range(2):
        pad = [(0, 0)] * 3
        pad[axis] = (reach, reach)
        wide = jnp.pad(image, pad, mode="edge")
        length = image.shape[axis]
        moved = [jax.lax.slice_in_dim(wide, i, i + length, axis=axis) for i in range(len(offsets))]
        image = functools.reduce(jnp.add, [w * x for w, x in zip(weights, moved, strict=True)])
    return image


def convolve(image: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolve each channel with a kernel, edges repeated.

    Args:
        image: (H, W, C) float32.
        kernel: (3, 3).

    Returns:
        A picture of the same shape.
    """
    height, width = image.shape[:2]
    wide = jnp.pad(image, ((1, 1), (1, 1), (0, 0)), mode="edge")
    taps = [(i, j) for i in range(3) for j in range(3)]
    moved = [wide[i : i + height, j : j + width] for i, j in taps]
    terms = [kernel[tap] * x for tap, x in zip(taps, moved, strict=True)]
    return functools.reduce(jnp.add, terms)


def paper(key: jax.Array, image: jax.Array) -> jax.Array:
    """Alter a picture as the official code's imgaug list does, as closely as can be.

    Mirrored (1/2), cropped by up to 5 % (1/2), affine (scale 1 to 1.1 per axis, 10 % translation,
    15 degrees of rotation, 8 of shear, edges repeated); then none to five of twelve: blur, sharpen,
    emboss, edges (1/2), noise, dropout, add, multiply, contrast, grey, as strong as there.
    Differences: in this order instead of a random one; crop and affine are one bilinear warp; blur
    is Gaussian alone, and edges are not directed; superpixels and piecewise affine, two of the
    twelve, do nothing; contrast is about the mean of a channel instead of 128.

    Args:
        key: What is drawn from.
        image: (H, W, C), 0 to 255.

    Returns:
        (H, W, C) float32, 0 to 255.
    """
    keys = iter(jax.random.split(key, 32))

    def uniform(low: float, high: float, shape: tuple[int, ...] = ()) -> jax.Array:
        return jax.random.uniform(next(keys), shape, minval=low, maxval=high)

    def per_channel(low: float, high: float) -> jax.Array:
        """One draw for each channel with probability one half, else one for all."""
        each = uniform(low, high, (image.shape[-1],))
        return jnp.where(jax.random.bernoulli(next(keys)), each, each[0])

    most = uniform(0, 5 + 1).astype(jnp.int32)
    chosen = jax.random.permutation(next(keys), 12) < most
    x = flip(next(keys), image)
    crop = jnp.where(jax.random.bernoulli(next(keys)), uniform(0, 0.05), 0)
    x = affine(
        next(keys),
        x,
        scale=(1.0, 1.1),
        translate=0.1,
        rotate=15.0,
        shear=8.0,
        zoom=1 / (1 - 2 * crop),
    )
    x = blur(x, jnp.where(chosen[0], uniform(0, 3.0), 0))
    lightness, strength = uniform(0.75, 1.5), uniform(0, 2)
    edges = chosen[3] & jax.random.bernoulli(next(keys))
    for used, kernel in (
        (chosen[1], [[-1, -1, -1], [-1, 8 + lightness, -1], [-1, -1, -1]]),
        (
            chosen[2],
            [[-1 - strength, -strength, 0], [-strength, 1, strength], [0, strength, 1 + strength]],
        ),
        (edges, [[0, 1, 0], [1, -4, 1], [0, 1, 0]]),
    ):
        alpha = jnp.where(used, uniform(0, 0.3), 0)
        same = jnp.zeros((3, 3)).at[1, 1].set(1)
        x = convolve(x, (1 - alpha) * same + alpha * jnp.array(kernel))
    noise = jax.random.normal(next(keys), image.shape) * uniform(0, 0.05 * 255)
    x = jnp.where(chosen[4], x + noise, x)
    kept = jax.random.uniform(next(keys), (*image.shape[:2], 1)) >= uniform(0.01, 0.02)
    x = jnp.where(chosen[5], x * kept, x)
    x = jnp.where(chosen[6], x + per_channel(-15, 15), x)
    x = jnp.where(chosen[7], x * per_channel(0.75, 1.25), x)
    mean = x.mean((0, 1), keepdims=True)
    x = jnp.where(chosen[8], mean + (x - mean) * per_channel(0.75, 1.75), x)
    x = grey(x, jnp.where(chosen[9], uniform(0, 1), 0))
    return jnp.clip(x, 0, 255)


def imagenet(key: jax.Array, image: jax.Array) -> jax.Array:
    """Crop a random 8 to 100 % of the area and mirror, as ImageNet is trained on.

    Args:
        key: What is drawn from.
        image: (H, W, C), 0 to 255.

    Returns:
        A picture of the same shape, 0 to 255.
    """
    crop_key, flip_key = jax.random.split(key)
    return flip(flip_key, random_resized_crop(crop_key, image))
