"""The table of networks: make one, and give it weights of torchvision's or timm's."""

from __future__ import annotations

import operator

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from fairgrape_jax.errors import UsageError
from fairgrape_jax.models.small import CNN, MLP
from fairgrape_jax.models.torchvision import (
    NETWORKS,
    Constructor,
    fit_pretrained,
    from_torchvision,
    load_pretrained,
    masks_from_torchvision,
    to_torchvision,
)
from fairgrape_jax.registry import Table

__all__ = [
    "FEATURES",
    "MODELS",
    "create",
    "fit_pretrained",
    "from_torchvision",
    "load_pretrained",
    "masks_from_torchvision",
    "to_torchvision",
]


def _check_row(name: str, row: Constructor) -> None:
    """ValueError for what is no row of the table of networks."""
    try:
        module = row(num_classes=2, axis_name=None, dtype=jnp.float32)
    except Exception as error:
        raise ValueError(
            "cannot be made with num_classes, axis_name and dtype, as a network is "
            f"({type(error).__name__}: {error})"
        ) from error
    if not isinstance(module, nn.Module):
        raise ValueError(f"makes {module!r:.60}, and a network is a flax.linen.Module")


_ROWS: dict[str, Constructor] = {name: network.make for name, network in NETWORKS.items()}
MODELS: Table[Constructor] = Table("model", _ROWS | {"cnn": CNN, "mlp": MLP}, _check_row)

# The ends of a network's stages: what terms of a loss and measures of similarity compare.
FEATURES: dict[str, tuple[str, ...]] = {
    "resnet18": ("layer1_1", "layer2_1", "layer3_1", "layer4_1"),
    "resnet34": ("layer1_2", "layer2_3", "layer3_5", "layer4_2"),
    "resnet50": ("layer1_2", "layer2_3", "layer3_5", "layer4_2"),
    "mobilenet_v2": ("features_3", "features_6", "features_13", "features_17"),
    "vit_s_16": ("blocks_2", "blocks_5", "blocks_8", "blocks_11"),
    "convnext_tiny": ("stages_0", "stages_1", "stages_2", "stages_3"),
    "cnn": ("conv1", "conv2"),
    "mlp": ("fc1", "fc2"),
}


def create(
    name: str, num_classes: int, *, axis_name: str | None = None, dtype: DTypeLike = jnp.float32
) -> nn.Module:
    """A network of the table.

    Args:
        name: A row of `MODELS`.
        num_classes: How many logits it gives.
        axis_name: The mapped axis over which batch norm averages in train mode.
        dtype: Type of the computation; parameters stay float32.

    Returns:
        A module, called as `module.apply(variables, images, train=False)`: images (B, H, W, C),
        float32 and normalised, to float32 logits (B, num_classes). Train mode wants
        `mutable=["batch_stats"]` and `rngs={"dropout": key}` for every network, whether it uses
        them or not.

    Raises:
        UsageError: There is no such row, the number of classes is no whole number of 1 or more, or
            the type is none of floating point.

    Example:
        >>> import jax
        >>> module = create("mlp", 10)
        >>> variables = module.init(jax.random.key(0), jnp.zeros((1, 28, 28, 1)))
        >>> module.apply(variables, jnp.zeros((4, 28, 28, 1))).shape
        (4, 10)
    """
    if not MODELS.find(name):
        raise UsageError(f"unknown model {name!r}: choose one of {', '.join(MODELS)}")
    if isinstance(num_classes, bool) or not hasattr(num_classes, "__index__"):
        raise UsageError(f"model {name!r} wants a whole number of classes, not {num_classes!r}")
    if num_classes < 1:
        raise UsageError(f"model {name!r} wants at least 1 class, not {num_classes}")
    try:
        is_float = jnp.issubdtype(jnp.dtype(dtype), jnp.floating)
    except TypeError:
        is_float = False
    if not is_float:
        raise UsageError(f"model {name!r} computes in floating point, not in {dtype!r}")
    return MODELS[name](num_classes=operator.index(num_classes), axis_name=axis_name, dtype=dtype)
