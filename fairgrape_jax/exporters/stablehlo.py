"""A StableHLO program by jax.export, for CPU, CUDA and TPU, of any number of inputs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
from jax import export

from fairgrape_jax import storage
from fairgrape_jax.errors import UsageError
from fairgrape_jax.exporters.base import Exporter, Function, Model, Options

NAME = "model.stablehlo"
PLATFORMS = ("cpu", "cuda", "tpu")


def _write(model: Model, folder: Path, options: Options) -> None:
    apply, variables = model.apply, model.variables
    assert apply is not None
    (batch,) = export.symbolic_shape("batch") if not options.batch else (options.batch,)
    inputs = jax.ShapeDtypeStruct((batch, *model.inputs.shape[1:]), model.inputs.dtype)

    def program(inputs: jax.Array) -> jax.Array:
        return apply(variables, inputs)

    with _without_paths(), storage.atomic_write(folder / NAME) as partial:
        try:
            exported = export.export(jax.jit(program), platforms=PLATFORMS)(inputs)
        except Exception as error:
            raise UsageError(
                f"--to stablehlo: the network cannot be traced for {inputs.shape} on "
                f"{', '.join(PLATFORMS)} ({_first_line(error)}); where it holds only for one "
                "number of inputs, give it as --batch"
            ) from error
        partial.write_bytes(exported.serialize())


@contextlib.contextmanager
def _without_paths() -> Iterator[None]:
    """Programs of the body do not say in which files they were written, and where these lie."""
    name = "jax_traceback_in_locations_limit"
    limit = getattr(jax.config, name)
    jax.config.update(name, 0)
    try:
        yield
    finally:
        jax.config.update(name, limit)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _read(model: Model, folder: Path) -> Function:
    exported = export.deserialize(bytearray((folder / NAME).read_bytes()))
    return lambda inputs: np.asarray(exported.call(inputs))


EXPORTER = Exporter(
    f"a program for {', '.join(PLATFORMS)}, run by jax.export.deserialize",
    _write,
    _read,
    program=True,
)
