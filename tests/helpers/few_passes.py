"""As few of XLA's passes as it can make, where `jax_disable_most_optimizations` is on.

With its older emitters of loops, in place of those that go through MLIR, XLA:CPU compiles twice to
five times as fast.
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
        if jax.config.read("jax_disable_most_optimizations"):
            made.env_option_overrides = [*made.env_option_overrides, (OPTION, False)]
        return made

    compiler.get_compile_options = with_older_emitters


def environment() -> dict[str, str]:
    """The variables that let a process which is started compile as this one does now."""
    if not jax.config.read("jax_disable_most_optimizations"):
        return {}
    flags = f"{os.environ.get('XLA_FLAGS', '')} --{OPTION}=false"
    return {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "XLA_FLAGS": flags.strip()}
