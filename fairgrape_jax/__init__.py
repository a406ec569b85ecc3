"""Prune networks without making them unfair, at accelerator scale, in JAX.

    import fairgrape_jax as fg

The names below are loaded when they are first used: importing the package imports no JAX.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from fairgrape_jax.config.registered import register
    from fairgrape_jax.data.builders.in_memory import from_arrays
    from fairgrape_jax.errors import TrainingError, UsageError
    from fairgrape_jax.exporters.folder import export
    from fairgrape_jax.library.audits import audit
    from fairgrape_jax.library.precisions import audit_precisions
    from fairgrape_jax.library.runs import run
    from fairgrape_jax.masks import apply_masks, full_masks, is_kernel
    from fairgrape_jax.methods.library import prune
    from fairgrape_jax.methods.structure_choice import prune_structures
    from fairgrape_jax.metrics.frame import group_metrics
    from fairgrape_jax.quantize.network import quantize_int8, simulate_int8
    from fairgrape_jax.runner.stage import load
    from fairgrape_jax.scoring.per_sample import average_importance, group_importance
    from fairgrape_jax.selection.allocation import allocate
    from fairgrape_jax.selection.schedules import falling_densities as densities
    from fairgrape_jax.structures.coupling import find_structures
    from fairgrape_jax.structures.shrinking import shrink
    from fairgrape_jax.training.masked import masked, set_masks

# Where each name is. No folder or file of the package itself may be called so: it would hide it.
_WHERE = {
    "full_masks": "masks",
    "is_kernel": "masks",
    "apply_masks": "masks",
    "group_importance": "scoring.per_sample",
    "average_importance": "scoring.per_sample",
    "prune": "methods.library",
    "allocate": "selection.allocation",
    "densities": "selection.schedules:falling_densities",
    "find_structures": "structures.coupling",
    "prune_structures": "methods.structure_choice",
    "shrink": "structures.shrinking",
    "quantize_int8": "quantize.network",
    "simulate_int8": "quantize.network",
    "masked": "training.masked",
    "set_masks": "training.masked",
    "group_metrics": "metrics.frame",
    "audit": "library.audits",
    "audit_precisions": "library.precisions",
    "run": "library.runs",
    "load": "runner.stage",
    "from_arrays": "data.builders.in_memory",
    "register": "config.registered",
    "export": "exporters.folder",
    "UsageError": "errors",
    "TrainingError": "errors",
}

__all__ = [  # noqa: RUF022
    # which weights there are
    "full_masks",
    "is_kernel",
    "apply_masks",
    # what they matter to each group
    "group_importance",
    "average_importance",
    # which of them stay
    "prune",
    "allocate",
    "densities",
    # whole channels, and the smaller network
    "find_structures",
    "prune_structures",
    "shrink",
    # weights and activations of eight bits
    "quantize_int8",
    "simulate_int8",
    # training with masks, by optax
    "masked",
    "set_masks",
    # what it did to whom
    "group_metrics",
    "audit",
    # whole experiments
    "run",
    "load",
    "audit_precisions",
    # data and rows of one's own
    "from_arrays",
    "register",
    # what leaves
    "export",
    # errors
    "UsageError",
    "TrainingError",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _WHERE[name].partition(":")
    value = getattr(importlib.import_module(f"{__name__}.{module}"), attribute or name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_WHERE})
