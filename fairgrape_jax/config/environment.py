"""Which settings of JAX and XLA change the numbers of a run: recorded, and compared on resuming."""

from __future__ import annotations

import enum
import os
from collections.abc import Mapping
from pathlib import Path

import jax

from fairgrape_jax.errors import UsageError

# Flags of JAX that change random draws, types, the order of sums or how exact a product is. One
# that this version of JAX does not have is passed over.
NUMERIC = (
    "jax_default_prng_impl",
    "jax_threefry_partitionable",
    "jax_threefry_gpu_kernel_lowering",
    "jax_random_seed_offset",
    "jax_high_dynamic_range_gumbel",
    "jax_enable_custom_prng",
    "jax_enable_x64",
    "jax_default_dtype_bits",
    "jax_numpy_dtype_promotion",
    "jax_default_matmul_precision",
    "jax_allow_f16_reductions",
    "jax_softmax_custom_jvp",
    "jax_use_direct_linearize",
    "jax_custom_vjp3",
    "jax_remat3",
    "jax_scan3",
    "eager_constant_folding",
    "jax_disable_jit",
    "jax_disable_most_optimizations",
    "jax_optimization_level",
    "jax_exec_time_optimization_effort",
    "jax_memory_fitting_effort",
    "jax_memory_fitting_level",
    "jax_compiler_enable_remat_pass",
    "jax_use_shardy_partitioner",
)
# Words in the names of XLA_FLAGS that do.
XLA = ("fast_math", "precision", "deterministic", "optimization_level", "reassociation", "ftz")

Flag = bool | int | float | str | None


def numeric_flags() -> dict[str, Flag]:
    """The settings of this process that change numbers, as plain values for JSON.

    Returns:
        The NUMERIC flags of JAX by name, and those of XLA_FLAGS that have one of the words in XLA;
        those for GPUs only where there is one.

    Example:
        >>> numeric_flags()["jax_default_prng_impl"]
        'threefry2x32'
    """
    values = jax.config.values
    flags: dict[str, Flag] = {name: _plain(values[name]) for name in NUMERIC if name in values}
    for word in os.environ.get("XLA_FLAGS", "").split():
        name, _, value = word.lstrip("-").partition("=")
        elsewhere = name.startswith("xla_gpu") and jax.default_backend() != "gpu"
        if any(part in name for part in XLA) and not elsewhere:
            flags[f"XLA_FLAGS {name}"] = value or "true"
    return flags


def flag_differences(
    then: Mapping[str, Flag], now: Mapping[str, Flag]
) -> dict[str, tuple[Flag, Flag]]:
    """The flags with another value: their names, and both values.

    A flag of JAX that one of the two does not name is no difference (another version of JAX); one
    of XLA_FLAGS is, with None for the default.

    Args:
        then: what `numeric_flags` gave when the run was begun; {} for a run that has none.
        now: what it gives now.

    Example:
        >>> flag_differences({"jax_enable_x64": False}, {"jax_enable_x64": True})
        {'jax_enable_x64': (False, True)}
    """
    names = [name for name in then if name in now] if then else []
    if then:
        either = {**then, **now}
        names += [name for name in either if name.startswith("XLA_FLAGS") and name not in names]
    pairs = {name: (then.get(name), now.get(name)) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def check_flags(then: Mapping[str, Flag], directory: Path) -> None:
    """Compare the settings of this process with those that a run was begun with.

    Args:
        then: the `flags` of its config.json.
        directory: where the run is, for the message.

    Raises:
        UsageError: if a flag that changes numbers has another value: which, and what to set.
    """
    for name, (before, here) in flag_differences(then, numeric_flags()).items():
        prefix, _, flag = name.rpartition(" ")
        variable = f"--{flag}" if prefix else flag.upper()
        cure = f"no {variable}" if before is None else f"{variable}={_as_variable(before)}"
        cure += f" in {prefix}" if prefix else ""
        raise UsageError(
            f"{directory}: was begun with {name}={before}, which is {here} here, and the numbers "
            f"would be others; set {cure} to go on, or give another --out"
        )


def _plain(value: object) -> Flag:
    """A setting as JSON holds it."""
    if isinstance(value, enum.Enum):
        value = value.value
    return value if isinstance(value, bool | int | float | str) or value is None else str(value)


def _as_variable(value: object) -> str:
    """A value as it is set in the environment."""
    return str(int(value)) if isinstance(value, bool) else str(value)
