"""Channels by the activations that come in, layer after layer: who starts when, at which sparsity.

Source: Zhang, Colbert, Das (Applied Sciences 2022) and its library qsparse, `devise_layerwise_
pruning_schedule` and `prune`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Float


def activity(values: Float[jax.Array, "*b c"]) -> Float[jax.Array, " c"]:
    """The mean of |x| of each channel, over samples and places.

    Args:
        values: (..., C) activations.
    """
    return jnp.abs(values).reshape(-1, values.shape[-1]).mean(axis=0)


def share_active(values: Float[jax.Array, "*b c"]) -> Float[jax.Array, " c"]:
    """The part of each channel's activations that are not zero (the library's l0).

    Args:
        values: (..., C) activations.
    """
    return (values != 0).reshape(-1, values.shape[-1]).astype(values.dtype).mean(axis=0)


def layer_start(number: int, begin: int, interval: int) -> int:
    """The step at which a layer's statistics begin: the layers before it are frozen then.

    Args:
        number: of the layer, front to back, from 0.
        begin: that of the first layer.
        interval: steps over which a layer's mask is set anew.

    Example:
        >>> [layer_start(i, 1, 2) for i in range(3)]
        [1, 4, 7]
    """
    return begin + (interval + 1) * number


def sparsity_at(
    step: int,
    sparsity: float,
    *,
    begin: int,
    interval: int,
    repetitions: int,
    rampup: bool = False,
) -> float:
    """The sparsity that a step asks for: cubic, at every interval; 0 before the first.

    Args:
        step: of training.
        sparsity: the last one.
        begin: where the steps begin.
        interval: between two of them.
        repetitions: how many there are.
        rampup: wait one interval first.

    Example:
        >>> steps = {"begin": 2, "interval": 2, "repetitions": 3}
        >>> [round(sparsity_at(n, 0.5, **steps), 4) for n in range(1, 8)]
        [0.0, 0.3519, 0.3519, 0.4815, 0.4815, 0.5, 0.5]
    """
    passed = (step - begin) // interval - int(rampup)
    if passed < 0:
        return 0.0
    done = min(passed + 1, repetitions)
    return sparsity * (1 - (1 - done / repetitions) ** 3)
