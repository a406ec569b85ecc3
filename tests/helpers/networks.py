"""The smallest networks that have what a test needs."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn


class Normed(nn.Module):
    """A convolution, a batch norm and a dense layer: the smallest network with statistics."""

    num_classes: int
    axis_name: str | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Conv(8, (3, 3), dtype=self.dtype, name="conv")(x)
        x = nn.BatchNorm(not train, dtype=self.dtype, axis_name=self.axis_name, name="norm")(x)
        x = nn.relu(x).mean((1, 2))
        return nn.Dense(self.num_classes, dtype=self.dtype, name="head")(x).astype(jnp.float32)
