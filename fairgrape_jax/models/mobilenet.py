"""MobileNet-V2 with torchvision's layers, names and initial weights."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from fairgrape_jax.models.resnet import conv_norm

# Expansion, channels, number of blocks and first stride of each stage (table 2 of the paper).
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def relu6(x: jax.Array) -> jax.Array:
    """The rectified input, at most 6; the gradient at 0 is 0.

    Args:
        x: Features of any shape.

    Returns:
        The same shape.
    """
    # `nn.relu6` passes half the gradient where a pruned channel is exactly 0; torch passes none.
    return jnp.minimum(nn.relu(x), 6)


class InvertedResidual(nn.Module):
    """1x1 up, strided depthwise 3x3, 1x1 down: (B, H, W, C) to (B, H/stride, W/stride, width).

    Attributes:
        expansion: Hidden channels for each of the input.
        width: Channels of the output.
        stride: Of the strided convolution.
        adds: Whether the input is added to the output.
        axis_name: The mapped axis over which batch norm averages in train mode.
        dtype: Type of the computation.
    """

    expansion: int
    width: int
    stride: int
    adds: bool
    axis_name: str | None
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """The block on features.

        Args:
            x: (B, H, W, C).
            train: Whether batch norm takes the statistics of the batch, and updates its own.

        Returns:
            Features, as the class says.
        """
        layer = partial(conv_norm, train=train, axis_name=self.axis_name, dtype=self.dtype)
        hidden = self.expansion * x.shape[-1]
        y, index = x, 0
        if self.expansion != 1:
            y, index = relu6(layer(x, ("conv_0_0", "conv_0_1"), hidden)), 1
        names = f"conv_{index}_0", f"conv_{index}_1"
        y = relu6(layer(y, names, hidden, 3, self.stride, feature_group_count=hidden))
        y = layer(y, (f"conv_{index + 1}", f"conv_{index + 2}"), self.width)
        return x + y if self.adds else y


class MobileNetV2(nn.Module):
    """MobileNet-V2: images (B, H, W, C) to float32 logits (B, num_classes).

    In train mode a fifth of the last features is dropped, which needs the rng `dropout`. The
    running variance is flax's, the biased one (torch's is larger by n / (n - 1) of a batch's n
    values per channel).

    Attributes:
        num_classes: How many logits it gives.
        axis_name: The mapped axis over which batch norm averages in train mode.
        dtype: Type of the computation.

    Source:
        Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks" (2018).
    """

    num_classes: int
    axis_name: str | None = None
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Logits of normalised images.

        Args:
            x: (B, H, W, C).
            train: Whether batch norm takes the statistics of the batch, and features are dropped.

        Returns:
            (B, num_classes) float32.
        """
        layer = partial(conv_norm, train=train, axis_name=self.axis_name, dtype=self.dtype)
        x = relu6(layer(x, ("features_0_0", "features_0_1"), 32, 3, 2))
        index = 1
        for expansion, width, blocks, first_stride in STAGES:
            for number in range(blocks):
                # The first block of each stage has other channels, and adds nothing.
                stride, adds = (1, True) if number else (first_stride, False)
                name = f"features_{index}"
                block = InvertedResidual(
                    expansion, width, stride, adds, self.axis_name, self.dtype, name=name
                )
                x = block(x, train)
                index += 1
        x = relu6(layer(x, (f"features_{index}_0", f"features_{index}_1"), 1280))
        x = nn.Dropout(0.2, deterministic=not train)(x.mean((1, 2)))
        kernel_init = nn.initializers.normal(0.01)
        head = nn.Dense(
            self.num_classes, dtype=self.dtype, kernel_init=kernel_init, name="classifier_1"
        )
        return head(x).astype(jnp.promote_types(self.dtype, jnp.float32))
