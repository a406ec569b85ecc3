"""Programs in ONNX: converted by jax2onnx and run by onnxruntime, in `make test-onnx`."""

import dataclasses
import importlib.util

import jax
import numpy as np
import pytest
from flax import linen as nn

import fairgrape_jax as fg
from fairgrape_jax import models
from fairgrape_jax.exporters import stage
from fairgrape_jax.runner.run import run as do
from tests.helpers.experiments import TINY, with_fields

STAGE = "seed_0/fairgrape/round_02"
LACKING = [n for n in ("jax2onnx", "onnxruntime") if importlib.util.find_spec(n) is None]
pytestmark = [
    pytest.mark.onnx,
    pytest.mark.skipif(
        bool(LACKING), reason=f"{' and '.join(LACKING)}: the extra `onnx`, `make test-onnx` has it"
    ),
]


def run_by_onnxruntime(path, inputs):
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: inputs})[0]


def compare(made, function, x):
    """The file by itself, at numbers of inputs that the export did not try."""
    assert made.largest <= 1e-4
    for count in (1, 3, len(x)):
        expected = np.asarray(function(x[:count]))
        outputs = run_by_onnxruntime(made.directory / "model.onnx", x[:count])
        assert outputs.shape == expected.shape
        assert np.abs(outputs - expected).max() <= 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize(
    "name", ["mlp", "cnn", "resnet18", "mobilenet_v2", "convnext_tiny", "vit_s_16"]
)
def test_the_networks_of_the_table_leave_as_onnx_with_their_masks(name, tmp_path):
    module = models.create(name, 3)
    x = np.random.default_rng(0).normal(size=(6, 32, 32, 3)).astype("float32")
    variables = jax.device_get(jax.jit(module.init)(jax.random.key(0), x))
    masks, _ = fg.prune(variables, fg.full_masks(variables), 0.2, method="magnitude")
    made = fg.export(
        variables, tmp_path / "o", to="onnx", masks=masks, apply=module.apply, inputs=x
    )
    pruned = fg.apply_masks(masks, variables)
    compare(made, jax.jit(lambda x: module.apply(pruned, x)), x)


def test_a_stage_leaves_as_onnx_without_its_pruned_channels(tmp_path):
    scoring = dataclasses.replace(TINY.scoring, structures="flops", structure_multiple=2)
    changes = {"seeds": (0,), "methods": ("fairgrape",), "sparsity": 0.6, "scoring": scoring}
    do(with_fields(TINY, **changes), tmp_path / "run")
    place = tmp_path / "run" / STAGE
    whole, small = (
        fg.export(place, tmp_path / name, to="onnx", shrink=name == "small")
        for name in ("whole", "small")
    )
    model, _ = stage.read(place, 7)
    compare(small, model.function(), model.inputs)
    sizes = [(made.directory / "model.onnx").stat().st_size for made in (whole, small)]
    assert sizes[1] < 0.8 * sizes[0]


def test_a_network_of_ones_own_leaves_as_onnx_and_its_int8_is_refused(tmp_path):
    class Network(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.gelu(nn.Conv(4, (3, 3), strides=2)(x))
            x = nn.LayerNorm()(nn.max_pool(x, (2, 2), (2, 2)).reshape(x.shape[0], -1))
            return nn.Dense(2)(x)

    x = np.random.default_rng(0).normal(size=(6, 8, 8, 3)).astype("float32")
    params = jax.device_get(Network().init(jax.random.key(0), x))
    made = fg.export(params, tmp_path / "o", to="onnx", apply=Network().apply, inputs=x)
    compare(made, lambda x: Network().apply(params, x), x)
    # In the place of Flax's layers jax2onnx has operations of its own, which are not known as int8.
    int8 = fg.quantize_int8(params, apply=Network().apply, inputs=x)
    with pytest.raises(fg.UsageError, match=r"cannot convert the network .*calibrated network"):
        fg.export(int8.params, tmp_path / "q", to="onnx", apply=int8.apply, inputs=x)


def test_int8_of_a_plain_function_leaves_as_onnx(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(6, 8)).astype("float32")
    params = {"a": rng.normal(size=(8, 5)), "b": rng.normal(size=(5, 2))}
    params = jax.tree.map(np.float32, params)
    int8 = fg.quantize_int8(params, apply=lambda p, x: jax.nn.relu(x @ p["a"]) @ p["b"], inputs=x)
    made = fg.export(int8.params, tmp_path / "o", to="onnx", apply=int8.apply, inputs=x)
    compare(made, lambda x: int8.apply(int8.params, x), x)


@pytest.mark.parametrize("padding", ["SAME", "VALID", ((1, 0), (0, 1))])
@pytest.mark.parametrize("pool", [nn.max_pool, nn.avg_pool])
def test_pools_of_any_padding_leave_as_onnx(pool, padding, tmp_path):
    x = np.random.default_rng(0).normal(size=(6, 7, 5, 3)).astype("float32")

    def apply(params, x):
        return pool(x * params["w"], (3, 2), (2, 1), padding)

    params = {"w": np.float32([1, 2, -1])}
    made = fg.export(params, tmp_path / "o", to="onnx", apply=apply, inputs=x)
    compare(made, lambda x: apply(params, x), x)


def test_what_cannot_be_converted_is_one_line_and_leaves_nothing(tmp_path):
    x = np.ones((4, 3), np.float32)

    def callback(params, x):
        return jax.pure_callback(lambda x: x, jax.ShapeDtypeStruct(x.shape, x.dtype), x)

    with pytest.raises(fg.UsageError, match="jax2onnx cannot convert the network"):
        fg.export({"w": x[0]}, tmp_path / "o", to="onnx", apply=callback, inputs=x)
    assert not list(tmp_path.iterdir())
