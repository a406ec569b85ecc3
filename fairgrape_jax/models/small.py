"""Two small networks for 28x28 images: a convolutional one and a multi-layer perceptron."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from fairgrape_jax.models.convolution import conv_general_dilated


def halve(x: jax.Array) -> jax.Array:
    """2x2 max pooling, an odd last row or column dropped.

    A maximum over a reshaped array: the gradient of `nn.max_pool` takes four times as long as the
    rest of this network's training step on XLA:CPU.

    Args:
        x: (B, H, W, C).

    Returns:
        (B, H // 2, W // 2, C).
    """
    batch, height, width, channels = x.shape
    x = x[:, : height // 2 * 2, : width // 2 * 2]
    return x.reshape(batch, height // 2, 2, width // 2, 2, channels).max((2, 4))


class CNN(nn.Module):
    """Two 3x3 convolutions and two dense layers, about 207,000 weights on 28x28 images.

    Images (B, H, W, C) to float32 logits (B, num_classes); there is no batch norm.

    Attributes:
        num_classes: How many logits it gives.
        axis_name: Not used; it is there for the call that all models share.
        dtype: Type of the computation.
    """

    num_classes: int
    axis_name: str | None = None
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Logits of normalised images.

        Args:
            x: (B, H, W, C).
            train: Changes nothing; it is there for the call that all models share.

        Returns:
            (B, num_classes) float32.
        """
        for index, features in enumerate((16, 32), 1):
            layer = nn.Conv(
                features,
                (3, 3),
                dtype=self.dtype,
                conv_general_dilated=conv_general_dilated,
                name=f"conv{index}",
            )
            x = halve(nn.relu(layer(x)))
        x = x.reshape(x.shape[0], -1)
        x = nn.relu(nn.Dense(128, dtype=self.dtype, name="fc1")(x))
        return nn.Dense(self.num_classes, dtype=self.dtype, name="fc2")(x).astype(
            jnp.promote_types(self.dtype, jnp.float32)
        )


class MLP(nn.Module):
    """Hidden layers of 300 and 100 units on flattened images (LeNet-300-100).

    Images (B, H, W, C) to float32 logits (B, num_classes); there is no batch norm.

    Attributes:
        num_classes: How many logits it gives.
        axis_name: Not used; it is there for the call that all models share.
        dtype: Type of the computation.

    Source:
        LeCun et al., "Gradient-Based Learning Applied to Document Recognition" (1998).
    """

    num_classes: int
    axis_name: str | None = None
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Logits of normalised images.

        Args:
            x: (B, H, W, C).
            train: Changes nothing; it is there for the call that all models share.

        Returns:
            (B, num_classes) float32.
        """
        x = x.reshape(x.shape[0], -1)
        for index, features in enumerate((300, 100), 1):
            x = nn.relu(nn.Dense(features, dtype=self.dtype, name=f"fc{index}")(x))
        return nn.Dense(self.num_classes, dtype=self.dtype, name="fc3")(x).astype(
            jnp.promote_types(self.dtype, jnp.float32)
        )
