"""Capture the activations of a network, and compare two networks by SVCCA, PWCCA and CKA.

Activations are matrices (N, D), a row per sample; `rows` makes them from feature maps. Canonical
correlations need only covariances, and CKA over minibatches only sums, so both look at a split
batch by batch and never hold its activations. Sums are float64, on the host.

Sources: SVCCA, Raghu et al. (2017); PWCCA, Morcos et al. (2018); CKA, Kornblith et al. (2019);
minibatch CKA from the unbiased HSIC of Song et al. (2012), Nguyen et al. (2021).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fairgrape_jax.masks import Tree
from fairgrape_jax.metrics.similarity import (
    Moments,
    alignment,
    hsics,
    linear_kernel,
    moments,
    pwcca_distance,
    rbf_kernel,
    rows,
    svcca_distance,
)


@dataclasses.dataclass(frozen=True)
class Similarity:
    """How alike a layer is in two networks.

    Attributes:
        svcca: Distance by SVCCA, 0 for the same.
        pwcca: Distance by PWCCA, 0 for the same.
        cka: Linear CKA, 1 for the same.
        rbf_cka: CKA of Gaussian kernels, 1 for the same.
    """

    svcca: float
    pwcca: float
    cka: float
    rbf_cka: float


def compare_layers(
    module: nn.Module,
    dense: Tree,
    pruned: Tree,
    batches: Iterable[np.ndarray],
    names: Sequence[str],
    *,
    size: int = 16,
) -> dict[str, Similarity]:
    """Every measure between the outputs of modules of two networks, in evaluation.

    Args:
        module: The network.
        dense: Its variables before pruning.
        pruned: Its variables after it, the parameters with zeros.
        batches: Normalised pictures, (B, H, W, C) each.
        names: Paths of the modules.
        size: For CCA, every place of a feature map of at most size x size places is a sample
            (larger maps are averaged down); for CKA a picture is.

    Returns:
        The measures of each module.
    """
    sums: dict[str, Moments] = {}
    kernels = {name: np.zeros((2, 3)) for name in names}
    for images in batches:
        pair = [jax.device_get(_features(module, tuple(names), v, images)) for v in (dense, pruned)]
        for name in names:
            x, y = (shrink(outputs[name], size) for outputs in pair)
            new = moments(rows(x), rows(y))
            sums[name] = sums[name] + new if name in sums else new
            x, y = rows(x, places=False), rows(y, places=False)
            for row, kernel in enumerate((linear_kernel, rbf_kernel)):
                kernels[name][row] += hsics(kernel(x), kernel(y))
    return {
        name: Similarity(
            svcca_distance(sums[name]), pwcca_distance(sums[name]), *map(alignment, kernels[name])
        )
        for name in names
    }


def shrink(maps: np.ndarray, size: int) -> np.ndarray:
    """Average feature maps over blocks until no side is longer than `size`.

    Args:
        maps: (B, H, W, C); of another rank they stay as they are.
        size: The longest side.

    Returns:
        (B, h, w, C); a side that does not divide loses its last rows.

    Example:
        >>> shrink(np.ones((2, 33, 16, 3)), 16).shape
        (2, 11, 16, 3)
    """
    if maps.ndim != 4:
        return maps
    b, height, width, c = maps.shape
    down, across = -(-height // size), -(-width // size)
    cut = maps[:, : height // down * down, : width // across * across]
    return cut.reshape(b, height // down, down, width // across, across, c).mean(axis=(2, 4))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _features(
    module: nn.Module, names: tuple[str, ...], variables: Tree, images: jax.Array
) -> dict[str, jax.Array]:
    return run(module, variables, images, names)[1]


def run(
    module: nn.Module, variables: Tree, images: jax.Array, names: Sequence[str] = (), **options: Any
) -> tuple[jax.Array, dict[str, jax.Array], Tree]:
    """Apply a network, and capture the outputs of some of its modules.

    Args:
        module: The network.
        variables: Its variables.
        images: (B, H, W, C), normalised.
        names: Paths of the modules whose outputs are wanted.
        options: Further arguments of `module.apply`; `mutable` is a list of collections.

    Returns:
        The logits, the float32 outputs by name, and the changed variables.

    Example:
        >>> from fairgrape_jax import models
        >>> module = models.create("cnn", 3)
        >>> variables = module.init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)))
        >>> _, features, _ = run(module, variables, jnp.zeros((4, 8, 8, 1)), ["conv2"])
        >>> features["conv2"].shape
        (4, 4, 4, 32)
    """
    if not names:
        logits, changed = module.apply(variables, images, **{"mutable": [], **options})
        return logits, {}, changed
    mutable = [*options.pop("mutable", ()), "intermediates"]

    def is_named(inner: nn.Module, method: str) -> bool:
        return method == "__call__" and "/".join(inner.path) in names

    logits, changed = module.apply(
        variables, images, mutable=mutable, capture_intermediates=is_named, **options
    )
    features = {}
    for name in names:
        value: Tree = changed["intermediates"]
        for part in name.split("/"):
            value = value[part]
        features[name] = value["__call__"][0].astype(jnp.float32)
    return logits, features, changed


def module_names(module: nn.Module, shape: tuple[int, ...]) -> list[str]:
    """The paths of all modules inside a network.

    Args:
        module: The network.
        shape: (H, W, C) of its pictures.

    Returns:
        The paths, sorted.
    """
    paths: set[str] = set()

    def note(inner: nn.Module, method: str) -> bool:
        paths.add("/".join(inner.path))
        return False

    def init(key: jax.Array) -> Tree:
        return module.init(key, jnp.zeros((1, *shape)), capture_intermediates=note)

    jax.eval_shape(init, jax.random.key(0))
    return sorted(paths - {""})
