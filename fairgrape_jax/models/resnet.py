"""ResNet-18, -34 and -50 with torchvision's layers, names and initial weights."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from fairgrape_jax.models.convolution import conv_general_dilated
from fairgrape_jax.models.pooling import max_pool


def conv_norm(
    x: jax.Array,
    names: tuple[str, str],
    features: int,
    size: int = 1,
    stride: int = 1,
    *,
    train: bool,
    axis_name: str | None,
    dtype: DTypeLike,
    **conv: Any,
) -> jax.Array:
    """A convolution padded by half its kernel, then batch norm, inside the calling module.

    Args:
        x: (B, H, W, C).
        names: Of the two submodules.
        features: Channels of the output.
        size: Side of the kernel, odd.
        stride: Of both axes.
        train: Whether batch norm takes the statistics of the batch, and updates its own.
        axis_name: The mapped axis over which batch norm averages in train mode.
        dtype: Type of the computation.
        conv: Further arguments of `flax.linen.Conv`.

    Returns:
        (B, ceil(H/stride), ceil(W/stride), features).
    """
    conv_name, norm_name = names
    x = nn.Conv(
        features,
        (size, size),
        (stride, stride),
        padding=size // 2,
        use_bias=False,
        dtype=dtype,
        kernel_init=nn.initializers.variance_scaling(2.0, "fan_out", "normal"),
        conv_general_dilated=conv_general_dilated,
        name=conv_name,
        **conv,
    )(x)
    return nn.BatchNorm(
        use_running_average=not train,
        momentum=0.9,
        epsilon=1e-5,
        dtype=dtype,
        axis_name=axis_name,
        name=norm_name,
    )(x)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: (B, H, W, C) to (B, H/stride, W/stride, width).

    Attributes:
        width: Channels of the output.
        stride: Of the strided convolution.
        projects: Whether the shortcut is a convolution, where its channels or places are others.
        axis_name: The mapped axis over which batch norm averages in train mode.
        dtype: Type of the computation.
    """

    width: int
    stride: int
    projects: bool
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
        y = nn.relu(layer(x, ("conv1", "bn1"), self.width, 3, self.stride))
        y = layer(y, ("conv2", "bn2"), self.width, 3)
        if self.projects:
            x = layer(x, ("downsample_0", "downsample_1"), self.width, 1, self.stride)
        return nn.relu(x + y)


class Bottleneck(nn.Module):
    """1x1, strided 3x3, 1x1 and a shortcut: (B, H, W, C) to (B, H/stride, W/stride, 4 width).

    Attributes:
        width: A quarter of the channels of the output.
        stride: Of the strided convolution.
        projects: Whether the shortcut is a convolution, where its channels or places are others.
        axis_name: The mapped axis over which batch norm averages in train mode.
        dtype: Type of the computation.
    """

    width: int
    stride: int
    projects: bool
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
        y = nn.relu(layer(x, ("conv1", "bn1"), self.width))
        y = nn.relu(layer(y, ("conv2", "bn2"), self.width, 3, self.stride))
        y = layer(y, ("conv3", "bn3"), 4 * self.width)
        if self.projects:
            x = layer(x, ("downsample_0", "downsample_1"), 4 * self.width, 1, self.stride)
        return nn.relu(x + y)


class ResNet(nn.Module):
    """A residual network: images (B, H, W, C) to float32 logits (B, num_classes).

    The running variance is flax's, the biased one (torch's is larger by n / (n - 1) of a batch's
    n values per channel). The bias of the head starts at 0, where torch draws it.

    Attributes:
        block: What its stages are made of.
        stage_sizes: Blocks of each stage.
        num_classes: How many logits it gives.
        axis_name: The mapped axis over which batch norm averages in train mode.
        dtype: Type of the computation.

    Source:
        He et al., "Deep Residual Learning for Image Recognition" (2016), with the stride of a
        bottleneck on its 3x3 convolution, as in torchvision.
    """

    block: type[BasicBlock] | type[Bottleneck]
    stage_sizes: tuple[int, ...]
    num_classes: int
    axis_name: str | None = None
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Logits of normalised images.

        Args:
            x: (B, H, W, C).
            train: Whether batch norm takes the statistics of the batch, and updates its own.

        Returns:
            (B, num_classes) float32.
        """
        layer = partial(conv_norm, train=train, axis_name=self.axis_name, dtype=self.dtype)
        x = nn.relu(layer(x, ("conv1", "bn1"), 64, 7, 2))
        x = max_pool(x, size=3, stride=2, padding=1)
        for stage, blocks in enumerate(self.stage_sizes):
            for index in range(blocks):
                stride = 2 if stage > 0 and index == 0 else 1
                # Not by the shapes of the features: those of a narrower network may be equal.
                projects = index == 0 and (stage > 0 or self.block is Bottleneck)
                name = f"layer{stage + 1}_{index}"
                block = self.block(
                    64 << stage, stride, projects, self.axis_name, self.dtype, name=name
                )
                x = block(x, train)
        kernel_init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
        head = nn.Dense(self.num_classes, dtype=self.dtype, kernel_init=kernel_init, name="fc")
        return head(x.mean((1, 2))).astype(jnp.promote_types(self.dtype, jnp.float32))


resnet18 = partial(ResNet, BasicBlock, (2, 2, 2, 2))
resnet34 = partial(ResNet, BasicBlock, (3, 4, 6, 3))
resnet50 = partial(ResNet, Bottleneck, (3, 4, 6, 3))
