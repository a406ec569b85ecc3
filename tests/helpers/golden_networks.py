"""Networks of other libraries, with weights from the recipe beside the golden values."""

from __future__ import annotations

import zlib
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np

from fairgrape_jax import models
from tests.helpers.datasets import GOLDEN_FILES

GOLDEN = np.load(GOLDEN_FILES / "torchvision_models.npz")
SEED, CLASSES = 3, 7


@cache
def shapes_of(name: str, num_classes: int = CLASSES, channels: int = 3):
    module = models.create(name, num_classes)
    side = 32 if name == "convnext_tiny" else 28
    return jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, side, side, channels)))


def zeros_of(name: str, num_classes: int = CLASSES, channels: int = 3):
    shapes = shapes_of(name, num_classes, channels)
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)


@cache
def golden_state(name: str, seed: int = SEED) -> dict[str, np.ndarray]:
    """The state dict of the golden README's recipe."""
    empty = models.to_torchvision(name, zeros_of(name))
    return {key: recipe_leaf(key, leaf.shape, seed) for key, leaf in empty.items()}


def recipe_leaf(key: str, shape: tuple[int, ...], seed: int = SEED) -> np.ndarray:
    rng = np.random.default_rng([seed, zlib.crc32(key.encode())])
    if key.endswith("running_var"):
        leaf = rng.uniform(0.5, 1.5, shape)
    elif len(shape) > 1:
        leaf = rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
    elif key.endswith("weight"):
        leaf = rng.uniform(0.3, 0.9, shape)
    else:
        leaf = rng.normal(0, 0.1, shape)
    return leaf.astype(np.float32)
