"""ConvNeXt-T with timm's layers, names and initial weights."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from fairgrape_jax.errors import UsageError
from fairgrape_jax.models.convolution import conv_general_dilated
from fairgrape_jax.models.vit import Mlp, dense, layer_norm

SMALLEST = 32  # pixels of a side: what the stem and the stages make smaller
conv = partial(
    nn.Conv,
    kernel_init=nn.initializers.normal(0.02),
    conv_general_dilated=conv_general_dilated,
)


class Block(nn.Module):
    """A depthwise 7x7 convolution and an MLP, scaled and added: (B, H, W, width) to the same.

    Attributes:
        width: Channels.
        dtype: Type of the computation.
    """

    width: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """The block on features.

        Args:
            x: (B, H, W, width).

        Returns:
            (B, H, W, width).
        """
        deep = conv(
            self.width,
            (7, 7),
            padding=3,
            feature_group_count=self.width,
            dtype=self.dtype,
            name="conv_dw",
        )
        y = layer_norm(dtype=self.dtype, name="norm")(deep(x))
        y = Mlp(self.width, 4 * self.width, self.dtype, name="mlp")(y)
        gamma = self.param("gamma", nn.initializers.constant(1e-6), (self.width,))
        return x + y * gamma.astype(y.dtype)


class Stage(nn.Module):
    """Blocks of one width, behind a layer norm and a 2x2 convolution with stride where one halves.

    Attributes:
        width: Channels of the output.
        depth: Blocks.
        halves: Whether the features get half of their rows and columns.
        dtype: Type of the computation.
    """

    width: int
    depth: int
    halves: bool
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """The stage on features.

        Args:
            x: (B, H, W, C).

        Returns:
            (B, H, W, width), or half of H and W.
        """
        if self.halves:
            x = layer_norm(dtype=self.dtype, name="downsample_0")(x)
            down = conv(self.width, (2, 2), (2, 2), "VALID", dtype=self.dtype, name="downsample_1")
            x = down(x)
        for index in range(self.depth):
            x = Block(self.width, self.dtype, name=f"blocks_{index}")(x)
        return x


class Head(nn.Module):
    """A layer norm and a dense layer: (B, C) to (B, num_classes).

    Attributes:
        num_classes: How many logits it gives.
        dtype: Type of the computation.
    """

    num_classes: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Logits of features.

        Args:
            x: (B, C).

        Returns:
            (B, num_classes).
        """
        x = layer_norm(dtype=self.dtype, name="norm")(x)
        return dense(self.num_classes, dtype=self.dtype, name="fc")(x)


class ConvNeXt(nn.Module):
    """ConvNeXt: images (B, H, W, C) of at least 32 x 32 to float32 logits (B, num_classes).

    Nothing is dropped in train mode.

    Attributes:
        depths: Blocks of each stage.
        widths: Channels of each stage.
        num_classes: How many logits it gives.
        axis_name: Not used; it is there for the call that all models share.
        dtype: Type of the computation.

    Source:
        Liu et al., "A ConvNet for the 2020s" (2022).
    """

    depths: tuple[int, ...]
    widths: tuple[int, ...]
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

        Raises:
            UsageError: A side of the images is shorter than 32 pixels.
        """
        if min(x.shape[1:3]) < SMALLEST:
            raise UsageError(
                f"a ConvNeXt makes pictures {SMALLEST} times smaller, and these are {x.shape[1]} x "
                f"{x.shape[2]}: give pictures of {SMALLEST} pixels or more, or another model"
            )
        x = conv(self.widths[0], (4, 4), (4, 4), "VALID", dtype=self.dtype, name="stem_0")(x)
        x = layer_norm(dtype=self.dtype, name="stem_1")(x)
        for index, (depth, width) in enumerate(zip(self.depths, self.widths, strict=True)):
            x = Stage(width, depth, index > 0, self.dtype, name=f"stages_{index}")(x)
        logits = Head(self.num_classes, self.dtype, name="head")(x.mean((1, 2)))
        return logits.astype(jnp.promote_types(self.dtype, jnp.float32))


convnext_tiny = partial(ConvNeXt, (3, 3, 9, 3), (96, 192, 384, 768))
