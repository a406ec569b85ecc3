"""The table of networks, and the ways to make one and to give it torchvision's weights."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from fairgrape_jax.errors import UsageError
from fairgrape_jax.models.small import CNN, MLP
from fairgrape_jax.models.torchvision import (
    NETWORKS,
    Constructor,
    from_torchvision,
    load_pretrained,
    to_torchvision,
)

__all__ = [
    "FEATURES",
    "MODELS",
    "create",
    "from_torchvision",
    "load_pretrained",
    "to_torchvision",
]

MODELS: dict[str, Constructor] = NETWORKS | {"cnn": CNN, "mlp": MLP}

# The ends of a network's stages: what terms of a loss and measures of similarity compare.
FEATURES: dict[str, tuple[str, ...]] = {
    "resnet18": ("layer1_1", "layer2_1", "layer3_1", "layer4_1"),
    "resnet34": ("layer1_2", "layer2_3", "layer3_5", "layer4_2"),
    "resnet50": ("layer1_2", "layer2_3", "layer3_5", "layer4_2"),
    "mobilenet_v2": ("features_3", "features_6", "features_13", "features_17"),
    "cnn": ("conv1", "conv2"),
    "mlp": ("fc1", "fc2"),
}


def create(
    name: str, num_classes: int, *, axis_name: str | None = None, dtype: Any = jnp.float32
) -> nn.Module:
    """The network `name` of `MODELS`, called as `module.apply(variables, images, train=False)`.

    Shapes: images (B, H, W, C), float32 and normalised, to float32 logits (B, num_classes).
    `axis_name` is the mapped axis over which batch norm averages in train mode; `dtype` is that
    of the computation, parameters stay float32. Train mode wants `mutable=["batch_stats"]` and
    `rngs={"dropout": key}` for every network, whether it uses them or not.

    Raises `UsageError` for an unknown name and for fewer than one class.

    >>> import jax
    >>> module = create("mlp", 10)
    >>> variables = module.init(jax.random.key(0), jnp.zeros((1, 28, 28, 1)))
    >>> module.apply(variables, jnp.zeros((4, 28, 28, 1))).shape
    (4, 10)
    """
    if name not in MODELS:
        raise UsageError(f"unknown model {name!r}: choose one of {', '.join(MODELS)}")
    if num_classes < 1:
        raise UsageError(f"model {name!r} wants at least 1 class, not {num_classes}")
    return MODELS[name](num_classes=num_classes, axis_name=axis_name, dtype=dtype)
