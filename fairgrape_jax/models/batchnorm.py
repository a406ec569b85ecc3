"""Batch norm by the statistics of the valid samples of a batch, in any network."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn


def of_valid_samples(valid: jax.Array) -> AbstractContextManager[Any]:
    """Within it, `module.apply(..., train=True)` leaves samples that are not valid out of its
    batch statistics, and drops nothing.

    valid: (B,) bool. Where no sample is valid all are used, or there would be no statistics.
    """
    counted = jnp.where(valid.any(), valid, True)

    def intercept(
        call: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext
    ) -> Any:
        if context.method_name == "__call__" and isinstance(context.module, nn.BatchNorm):
            mask = counted.reshape(-1, *[1] * (args[0].ndim - 1))
            return call(*args, **kwargs, mask=mask)
        if context.method_name == "__call__" and isinstance(context.module, nn.Dropout):
            return args[0]
        return call(*args, **kwargs)

    return nn.intercept_methods(intercept)
