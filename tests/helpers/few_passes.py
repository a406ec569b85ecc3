"""As few of XLA's passes as it can make, where `jax_disable_most_optimizations` is on.

With its older emitters of loops, in place of those that go through MLIR, XLA:CPU compiles twice to
five times as fast. An XLA that has them no longer (jaxlib 0.11) compiles as it does by itself.
"""

from __future__ import annotations

import functools
import os
from typing import Any

import jax
from jax._src import compiler

OPTION = "xla_cpu_use_fusion_emitters"


def install() -> None:
    """Let every program of this process be compiled so.

    XLA reads its flags now, so that those of `environment` are of other processes alone.
    """
    make = compiler.get_compile_options
    make(1, 1)

    @functools.wraps(make)
    def with_older_emitters(*args: Any, **options: Any) -> Any:
        made = make(*args, **options)
        if jax.config.read("jax_disable_most_optimizations") and has_option():
            made.env_option_overrides = [*made.env_option_overrides, (OPTION, False)]
        return made

    compiler.get_compile_options = with_older_emitters


@functools.cache
def has_option() -> bool:
    """Whether XLA knows the option, which it ends with an error where it does not."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", False)  # so that it is not asked for again
    try:
        jax.jit(lambda: 0).lower().compile(compiler_options={OPTION: False})
    except jax.errors.JaxRuntimeError:
        return False
    finally:
        jax.config.update("jax_disable_most_optimizations", before)
    return True


def environment() -> dict[str, str]:
    """The variables that let a process which is started compile as this one does now."""
    if not jax.config.read("jax_disable_most_optimizations"):
        return {}
    few = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    if not has_option():
        return few
    flags = f"{os.environ.get('XLA_FLAGS', '')} --{OPTION}=false"
    return few | {"XLA_FLAGS": flags.strip()}
