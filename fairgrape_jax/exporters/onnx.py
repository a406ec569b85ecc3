"""An ONNX program by jax2onnx, tried by onnxruntime; both are the extra `onnx`."""

from __future__ import annotations

import importlib.util
import warnings
from pathlib import Path
from unittest import mock

import flax.linen as nn
import jax
import numpy as np
from flax.linen import pooling

from fairgrape_jax import storage
from fairgrape_jax.errors import UsageError
from fairgrape_jax.exporters.base import Exporter, Function, Model, Options

NAME = "model.onnx"


def check(model: Model) -> None:
    """Refuse where the packages of the format are missing.

    Args:
        model: What is exported.

    Raises:
        UsageError: The packages of the extra are missing; it names it.
    """
    missing = [n for n in ("jax2onnx", "onnxruntime") if importlib.util.find_spec(n) is None]
    if missing:
        raise UsageError(
            f"--to onnx: needs {' and '.join(missing)}, the extra `onnx`: "
            "pip install 'fairgrape-jax[onnx]'"
        )


def _write(model: Model, folder: Path, options: Options) -> None:
    import jax2onnx

    apply, variables = model.apply, model.variables
    assert apply is not None
    shape = (options.batch or "batch", *model.inputs.shape[1:])
    # jax2onnx has pools of its own in Flax's place, that take neither positional arguments nor
    # explicit padding: the program is traced with Flax's.
    pools = {name: getattr(nn, name) for name in ("max_pool", "avg_pool", "pool")}

    def program(inputs: jax.Array) -> jax.Array:
        with mock.patch.multiple(nn, **pools), mock.patch.multiple(pooling, **pools):
            return apply(variables, inputs)

    inputs = jax.ShapeDtypeStruct(shape, model.inputs.dtype)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it asks for float64 in between; the file is tried
            made = jax2onnx.to_onnx(program, inputs=[inputs], model_name=model.name or "network")
    except Exception as error:
        raise UsageError(
            f"--to onnx: jax2onnx cannot convert the network ({type(error).__name__}: "
            f"{' '.join(str(error).split())[:300]}); give stablehlo, or another network"
        ) from error
    del made.graph.value_info[:]  # shapes of its inner values, of which it writes wrong ones
    with storage.atomic_write(folder / NAME) as partial:
        partial.write_bytes(made.SerializeToString())


def _read(model: Model, folder: Path) -> Function:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors alone
    session = onnxruntime.InferenceSession(
        str(folder / NAME), options, providers=["CPUExecutionProvider"]
    )
    name = session.get_inputs()[0].name
    return lambda inputs: np.asarray(session.run(None, {name: inputs})[0])


EXPORTER = Exporter("an ONNX program (extra `onnx`)", _write, _read, check, program=True)
