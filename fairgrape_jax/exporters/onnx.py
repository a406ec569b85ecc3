"""An ONNX program by jax2onnx, tried by onnxruntime; both are the extra `onnx`."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import itertools
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import flax.linen as nn
import jax
import numpy as np
from flax.linen import pooling

from fairgrape_jax import storage
from fairgrape_jax.errors import UsageError
from fairgrape_jax.exporters.base import Exporter, Function, Model, Options
from fairgrape_jax.structures.program import Atom, Scalar, trace

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

    def program(inputs: jax.Array) -> jax.Array:
        return _with_plain_windows(lambda inputs: apply(variables, inputs), inputs)

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


# Flax's pools, in whose place jax2onnx has its own, without positional arguments and padding.
_POOLS = {name: getattr(nn, name) for name in ("max_pool", "avg_pool", "pool")}
# Of jax2onnx these are pools over all axes, which onnxruntime does not have.
_WINDOWS = {"reduce_window_max": jax.lax.max, "reduce_window_sum": jax.lax.add}


def _with_plain_windows(function: Callable[[jax.Array], jax.Array], inputs: jax.Array) -> Any:
    """The outputs of a function, whose windows are slices that are added up or compared."""
    with mock.patch.multiple(nn, **_POOLS), mock.patch.multiple(pooling, **_POOLS):
        traced, result = trace(function, inputs)
    values: dict[int, Any] = {**traced.constants, traced.inputs[0]: inputs}

    def read(atom: Atom) -> Any:
        return atom.value if isinstance(atom, Scalar) else values[atom]

    for equation in traced.equations:
        arguments = list(map(read, equation.inputs))
        if equation.name in _WINDOWS and _is_plain(equation.params):
            outputs = _window(arguments[0], equation.name, equation.params)
        else:
            outputs = equation.call(*arguments, **equation.params)
        several = outputs if isinstance(outputs, list | tuple) else [outputs]
        values.update(zip(equation.outputs, several, strict=True))
    return jax.tree.unflatten(jax.tree.structure(result), list(map(read, traced.outputs)))


def _is_plain(params: Mapping[str, Any]) -> bool:
    """Whether every place of a window is beside another, and every window has one of the input."""
    dilations = {*params["base_dilation"], *params["window_dilation"]}
    sizes = zip(params["window_dimensions"], params["padding"], strict=True)
    return dilations == {1} and all(0 <= min(pads) <= max(pads) < size for size, pads in sizes)


def _window(x: jax.Array, name: str, params: Mapping[str, Any]) -> jax.Array:
    """What `jax.lax.reduce_window` gives, from one strided slice for each place of the window.

    jax2onnx cannot pad a batch of any number. The border of a sum is zeros, made of the input; that
    of a maximum is the outermost place again, which is in every window that has a part of it.
    """
    keys = ("window_dimensions", "window_strides", "padding")
    axes = list(enumerate(zip(*(params[key] for key in keys), strict=True)))
    axes = [(axis, sizes) for axis, sizes in axes if sizes != (1, 1, (0, 0))]
    padded = x
    for axis, (_, _, (low, high)) in axes:
        ends = [jax.lax.slice_in_dim(padded, i, i + 1, axis=axis) for i in (0, x.shape[axis] - 1)]
        if name == "reduce_window_sum":
            ends = [end - end for end in ends]
        parts = [*[ends[0]] * low, padded, *[ends[1]] * high]
        padded = jax.lax.concatenate(parts, axis) if len(parts) > 1 else padded

    def part(offsets: Sequence[int]) -> jax.Array:
        sliced = padded
        for (axis, (size, stride, _)), offset in zip(axes, offsets, strict=True):
            count = (padded.shape[axis] - size) // stride + 1
            end = offset + (count - 1) * stride + 1
            sliced = jax.lax.slice_in_dim(sliced, offset, end, stride, axis)
        return sliced

    places = itertools.product(*(range(sizes[0]) for _, sizes in axes))
    return functools.reduce(_WINDOWS[name], map(part, places))


def _read(model: Model, folder: Path) -> Function:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors alone

    with _in_one_line():
        session = onnxruntime.InferenceSession(
            str(folder / NAME), options, providers=["CPUExecutionProvider"]
        )
    name = session.get_inputs()[0].name

    def run(inputs: np.ndarray) -> np.ndarray:
        with _in_one_line():
            return np.asarray(session.run(None, {name: inputs})[0])

    return run


@contextlib.contextmanager
def _in_one_line() -> Iterator[None]:
    """What onnxruntime refuses, as a UsageError."""
    try:
        yield
    except Exception as error:
        raise UsageError(
            f"--to onnx: onnxruntime cannot run what jax2onnx has made ({type(error).__name__}: "
            f"{' '.join(str(error).split())[:300]}); give stablehlo, or another network"
        ) from error


EXPORTER = Exporter("an ONNX program (extra `onnx`)", _write, _read, check, program=True)
