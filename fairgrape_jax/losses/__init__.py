"""Losses per sample: classification of one or several tasks, and terms of two networks."""

from fairgrape_jax.losses.classification import (
    cross_entropy,
    masked_mean,
    mixed_cross_entropy,
    predictions,
    split_heads,
)
from fairgrape_jax.losses.distillation import (
    OF_PAIRS,
    TERMS,
    Outputs,
    Performance,
    attention_map,
    attention_transfer,
    distillation,
    hint,
    performance_cross_entropy,
    performance_weights,
    probabilistic_transfer,
    similarity_preservation,
)

__all__ = [
    "OF_PAIRS",
    "TERMS",
    "Outputs",
    "Performance",
    "attention_map",
    "attention_transfer",
    "cross_entropy",
    "distillation",
    "hint",
    "masked_mean",
    "mixed_cross_entropy",
    "performance_cross_entropy",
    "performance_weights",
    "predictions",
    "probabilistic_transfer",
    "similarity_preservation",
    "split_heads",
]
