"""What of JAX's settings changes numbers is recorded, and compared when a run goes on."""

import json
from pathlib import Path

import jax
import pytest

from fairgrape_jax.config import environment
from fairgrape_jax.errors import UsageError

CHANGES = {
    "jax_default_prng_impl": "rbg",
    "jax_threefry_partitionable": False,
    "jax_random_seed_offset": 7,
    "jax_enable_x64": True,
    "jax_default_matmul_precision": "bfloat16",
    "jax_numpy_dtype_promotion": "strict",
    "jax_disable_jit": True,
    "jax_softmax_custom_jvp": True,
    "jax_use_direct_linearize": False,
    "jax_exec_time_optimization_effort": -1.0,
}


@pytest.mark.parametrize("name", CHANGES)
def test_each_setting_is_recorded_compared_and_named_with_its_cure(name):
    before = json.loads(json.dumps(environment.numeric_flags()))
    environment.check_flags(before, Path("run"))
    default = getattr(jax.config, name)
    jax.config.update(name, CHANGES[name])
    try:
        with pytest.raises(UsageError, match=f"run: was begun with {name}=") as error:
            environment.check_flags(before, Path("run"))
        environment.check_flags(environment.numeric_flags(), Path("run"))
    finally:
        jax.config.update(name, default)
    assert f" {name.upper()}" in str(error.value)
    environment.check_flags(before, Path("run"))


@pytest.mark.parametrize(
    ("then", "now", "said"),
    [
        ("", "--xla_cpu_enable_fast_math=true", "no --xla_cpu_enable_fast_math in XLA_FLAGS"),
        ("--xla_allow_excess_precision=false", "", "--xla_allow_excess_precision=false"),
        ("--xla_cpu_enable_fast_math", "--xla_cpu_enable_fast_math=0", "=true in XLA_FLAGS"),
    ],
)
def test_flags_of_xla_are_compared_too(then, now, said, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", then)
    flags = environment.numeric_flags()
    monkeypatch.setenv("XLA_FLAGS", now)
    with pytest.raises(UsageError, match=said):
        environment.check_flags(flags, Path("run"))


def test_what_changes_no_number_is_no_difference(monkeypatch):
    flags = environment.numeric_flags()
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=x --xla_force_host_platform_device_count=4")
    assert flags.keys() >= CHANGES.keys()
    with jax.debug_nans(True), jax.log_compiles(True):
        environment.check_flags(flags, Path("run"))
    environment.check_flags(flags | {"jax_of_another_version": True}, Path("run"))
    environment.check_flags({}, Path("run"))  # a run of before, which recorded none
