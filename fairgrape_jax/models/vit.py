"""The vision transformer ViT-S/16 with timm's layers, names and initial weights."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.typing import DTypeLike

from fairgrape_jax.models.convolution import conv_general_dilated

HEAD = 64  # channels of an attention head
dense = partial(nn.Dense, kernel_init=nn.initializers.normal(0.02))
# The variance as the mean of squared differences: it holds for features far from zero too.
layer_norm = partial(nn.LayerNorm, epsilon=1e-6, use_fast_variance=False)


class Mlp(nn.Module):
    """Two dense layers and a GELU between them: (..., width) to (..., width).

    Attributes:
        width: Channels of the output.
        hidden: Channels between the layers.
        dtype: Type of the computation.
    """

    width: int
    hidden: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """The layers on features.

        Args:
            x: (..., C).

        Returns:
            (..., width).
        """
        x = dense(self.hidden, dtype=self.dtype, name="fc1")(x)
        x = nn.gelu(x, approximate=False)
        return dense(self.width, dtype=self.dtype, name="fc2")(x)


class Attention(nn.Module):
    """Every token looks at all: (B, T, width) to (B, T, width), in heads of HEAD channels.

    Attributes:
        width: Channels of the output.
        dtype: Type of the computation.
    """

    width: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Attention of tokens.

        Args:
            x: (B, T, width).

        Returns:
            (B, T, width).
        """
        qkv = dense(3 * self.width, dtype=self.dtype, name="qkv")(x)
        # Cut in three before it is cut into heads, so that whole heads can be pruned.
        parts = jnp.split(qkv, 3, axis=-1)
        query, key, value = (part.reshape(*part.shape[:2], -1, HEAD) for part in parts)
        scores = jnp.einsum("bqhd,bkhd->bhqk", query * HEAD**-0.5, key)
        weights = nn.softmax(scores.astype(jnp.promote_types(self.dtype, jnp.float32)))
        mixed = jnp.einsum("bhqk,bkhd->bqhd", weights.astype(value.dtype), value)
        mixed = mixed.reshape(*mixed.shape[:2], -1)
        return dense(self.width, dtype=self.dtype, name="proj")(mixed)


class Block(nn.Module):
    """Attention and an MLP, each behind a layer norm and added: (B, T, width) to the same.

    Attributes:
        width: Channels of a token.
        dtype: Type of the computation.
    """

    width: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """The block on tokens.

        Args:
            x: (B, T, width).

        Returns:
            (B, T, width).
        """
        norm = partial(layer_norm, dtype=self.dtype)
        x = x + Attention(self.width, self.dtype, name="attn")(norm(name="norm1")(x))
        return x + Mlp(self.width, 4 * self.width, self.dtype, name="mlp")(norm(name="norm2")(x))


class PatchEmbed(nn.Module):
    """A token of each patch: (B, H, W, C) to (B, ceil(H/size), ceil(W/size), width).

    A picture whose sides are no multiples of the patch's gets zeros at the right and below.

    Attributes:
        width: Channels of a token.
        size: Side of a patch.
        dtype: Type of the computation.
    """

    width: int
    size: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Tokens of pictures.

        Args:
            x: (B, H, W, C).

        Returns:
            Tokens, as the class says.
        """
        layer = nn.Conv(
            self.width,
            (self.size, self.size),
            (self.size, self.size),
            padding=[(0, -side % self.size) for side in x.shape[1:3]],
            dtype=self.dtype,
            kernel_init=nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform"),
            conv_general_dilated=conv_general_dilated,
            name="proj",
        )
        return layer(x)


class VisionTransformer(nn.Module):
    """A vision transformer: images (B, H, W, C) of any size to float32 logits (B, num_classes).

    The positions are embedded for `grid` x `grid` patches, and interpolated for pictures of other
    sizes, as timm does with `dynamic_img_size` and `dynamic_img_pad`. Nothing is dropped in train
    mode. The bias of the patches' convolution starts at 0, where timm draws it.

    Attributes:
        width: Channels of a token, a multiple of HEAD.
        depth: Blocks.
        num_classes: How many logits it gives.
        axis_name: Not used; it is there for the call that all models share.
        dtype: Type of the computation.
        patch: Side of a patch.
        grid: Patches along a side of the pictures that the positions are for.

    Source:
        Dosovitskiy et al., "An Image is Worth 16x16 Words" (2021); the small one is that of
        Touvron et al., "Training data-efficient image transformers" (2021).
    """

    width: int
    depth: int
    num_classes: int
    axis_name: str | None = None
    dtype: DTypeLike = jnp.float32
    patch: int = 16
    grid: int = 14

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Logits of normalised images.

        Args:
            x: (B, H, W, C).
            train: Changes nothing; it is there for the call that all models share.

        Returns:
            (B, num_classes) float32.
        """
        x = PatchEmbed(self.width, self.patch, self.dtype, name="patch_embed")(x)
        batch, rows, columns, width = x.shape
        first = self.param("cls_token", nn.initializers.normal(1e-6), (1, 1, self.width))
        shape = (1, 1 + self.grid**2, self.width)
        positions = self.param("pos_embed", nn.initializers.normal(0.02), shape)
        first = jnp.broadcast_to(first.astype(x.dtype), (batch, 1, width))
        x = jnp.concatenate([first, x.reshape(batch, -1, width)], axis=1)
        x = x + resize_positions(positions, (rows, columns)).astype(x.dtype)
        for index in range(self.depth):
            x = Block(self.width, self.dtype, name=f"blocks_{index}")(x)
        x = layer_norm(dtype=self.dtype, name="norm")(x[:, 0])
        head = dense(self.num_classes, dtype=self.dtype, name="head")
        return head(x).astype(jnp.promote_types(self.dtype, jnp.float32))


def resize_positions(positions: jax.Array, shape: tuple[int, int]) -> jax.Array:
    """The embedding of positions for another grid of patches.

    Args:
        positions: (1, 1 + n * n, C): of the class token, and of n x n patches row by row.
        shape: Rows and columns of the other grid.

    Returns:
        (1, 1 + rows * columns, C), interpolated by cubics that are smoothed where the grid gets
        smaller.

    Source:
        `resample_abs_pos_embed` of timm.

    Example:
        >>> resize_positions(jnp.ones((1, 1 + 4 * 4, 8)), (2, 3)).shape
        (1, 7, 8)
    """
    side = round((positions.shape[1] - 1) ** 0.5)
    if shape == (side, side):
        return positions
    width = positions.shape[-1]
    rows, columns = (cubic_weights(side, size) for size in shape)
    patches = positions[:, 1:].reshape(1, side, side, width)
    patches = jnp.einsum("ir,jc,brcw->bijw", rows, columns, patches, precision="highest")
    return jnp.concatenate([positions[:, :1], patches.reshape(1, -1, width)], axis=1)


def cubic_weights(old: int, new: int) -> np.ndarray:
    """What each old place counts for each new one, when a line of them is resized.

    `jax.image.resize` gives the same, by an operation that not every exporter knows.

    Args:
        old: How many places there are.
        new: How many there are to be; where they are fewer the cubic is as much wider.

    Returns:
        (new, old) float32, rows that add up to 1.

    Source:
        Keys, Cubic Convolution Interpolation for Digital Image Processing (1981), a = -1/2.

    Example:
        >>> cubic_weights(2, 4)[0].round(3)
        array([ 1.088, -0.088], dtype=float32)
        >>> expected = jax.image.resize(jnp.eye(14), (5, 14), "cubic", antialias=True)
        >>> bool(np.allclose(cubic_weights(14, 5), expected, atol=1e-6))
        True
    """
    places = (np.arange(new) + 0.5) * old / new - 0.5
    x = np.abs(places[:, None] - np.arange(old)) / max(old / new, 1)
    near, far = (1.5 * x - 2.5) * x * x + 1, ((2.5 - 0.5 * x) * x - 4) * x + 2
    weights = np.where(x < 1, near, np.where(x < 2, far, 0))
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


vit_s_16 = partial(VisionTransformer, 384, 12)
