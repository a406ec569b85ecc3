"""How alike the inner workings of two networks are: SVCCA, PWCCA and CKA of their activations.

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
from fairgrape_jax.models import activations


@dataclasses.dataclass(frozen=True)
class Similarity:
    """How alike a layer is in two networks: distances (0 the same), and CKA (1 the same)."""

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
    size: int = 16,
) -> dict[str, Similarity]:
    """Every measure between the outputs of the modules `names` of two networks, in evaluation.

    dense, pruned: their variables (the pruned one's parameters with zeros). batches: normalised
    pictures (B, H, W, C). For CCA, every place of a feature map of at most `size` x `size` places
    is a sample (larger maps are averaged down); for CKA a picture is.
    """
    sums: dict[str, Moments] = {}
    kernels = {name: np.zeros((2, 3)) for name in names}
    for images in batches:
        pair = [jax.device_get(_features(module, tuple(names), v, images)) for v in (dense, pruned)]
        for name in names:
            x, y = (smaller(seen[name], size) for seen in pair)
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


def smaller(maps: np.ndarray, size: int) -> np.ndarray:
    """Feature maps (B, H, W, C) averaged over blocks until no side is longer than `size`.

    A side that does not divide loses its last rows; (B, C) stays as it is.

    >>> smaller(np.ones((2, 33, 16, 3)), 16).shape
    (2, 11, 16, 3)
    """
    if maps.ndim != 4:
        return maps
    b, height, width, c = maps.shape
    down, across = -(-height // size), -(-width // size)
    cut = maps[:, : height // down * down, : width // across * across]
    return cut.reshape(b, height // down, down, width // across, across, c).mean(axis=(2, 4))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _features(module: nn.Module, names: tuple[str, ...], variables: Tree, images: Any) -> Any:
    return activations.run(module, variables, images, names)[1]


def run(
    module: nn.Module, variables: Any, images: jax.Array, names: Sequence[str] = (), **how: Any
) -> tuple[Any, dict[str, jax.Array], Any]:
    """Logits, the float32 outputs of the modules `names` (their paths), and changed variables.

    how: further arguments of `module.apply`; `mutable` is a list of collections.

    >>> from fairgrape_jax import models
    >>> module = models.create("cnn", 3)
    >>> variables = module.init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)))
    >>> _, features, _ = run(module, variables, jnp.zeros((4, 8, 8, 1)), ["conv2"])
    >>> features["conv2"].shape
    (4, 4, 4, 32)
    """
    if not names:
        logits, found = module.apply(variables, images, **{"mutable": [], **how})
        return logits, {}, found
    mutable = [*how.pop("mutable", ()), "intermediates"]

    def wanted(inner: nn.Module, method: str) -> bool:
        return method == "__call__" and "/".join(inner.path) in names

    logits, found = module.apply(
        variables, images, mutable=mutable, capture_intermediates=wanted, **how
    )
    features = {}
    for name in names:
        value: Any = found["intermediates"]
        for part in name.split("/"):
            value = value[part]
        features[name] = value["__call__"][0].astype(jnp.float32)
    return logits, features, found


def module_names(module: nn.Module, shape: tuple[int, ...]) -> list[str]:
    """The paths of all modules inside a network that takes pictures of `shape`, sorted."""
    known: set[str] = set()

    def see(inner: nn.Module, method: str) -> bool:
        known.add("/".join(inner.path))
        return False

    def look(key: jax.Array) -> Any:
        return module.init(key, jnp.zeros((1, *shape)), capture_intermediates=see)

    jax.eval_shape(look, jax.random.key(0))
    return sorted(known - {""})
