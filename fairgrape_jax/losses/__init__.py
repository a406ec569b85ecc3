"""Losses per sample: classification of one or several tasks, and the remedies of retraining."""

from fairgrape_jax.losses.classification import (
    cross_entropy,
    masked_mean,
    mixed_cross_entropy,
    predictions,
    split_heads,
)
from fairgrape_jax.losses.distillation import (
    OF_PAIRS,
    REMEDIES,
    TERMS,
    Outputs,
    Performance,
    Remedy,
    attention_map,
    attention_transfer,
    distillation,
    hint,
    performance_cross_entropy,
    performance_weights,
    probabilistic_transfer,
    retraining_loss,
    similarity_preservation,
)

__all__ = [
    "OF_PAIRS",
    "REMEDIES",
    "TERMS",
    "Outputs",
    "Performance",
    "Remedy",
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
    "retraining_loss",
    "similarity_preservation",
    "split_heads",
]
