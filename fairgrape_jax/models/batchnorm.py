"""Compute batch norm from the valid samples of a batch alone, in any network."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn


def normalise_by_valid_samples(valid: jax.Array) -> AbstractContextManager[None]:
    """Leave samples that are not valid out of the batch statistics, and drop nothing.

    Args:
        valid: (B,) bool. Where no sample is valid all are used, or there would be no statistics.

    Returns:
        A context, within which this holds of `module.apply(..., train=True)`.
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
