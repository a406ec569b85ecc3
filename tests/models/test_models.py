"""The networks against torchvision's numbers, and the properties that all of them share."""

from __future__ import annotations

import json
from functools import cache, partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from numpy.testing import assert_allclose, assert_array_equal
from safetensors.numpy import save_file

from fairgrape_jax import models
from fairgrape_jax.errors import UsageError
from fairgrape_jax.models import mobilenet
from fairgrape_jax.models.mobilenet import MobileNetV2
from fairgrape_jax.models.resnet import BasicBlock, Bottleneck, ResNet
from fairgrape_jax.models.torchvision import NETWORKS
from tests.helpers.golden_networks import CLASSES, GOLDEN, SEED, golden_state, shapes_of, zeros_of

TORCHVISION = [name for name, row in NETWORKS.items() if row.torchvision]


@pytest.mark.whole(but=1)
@pytest.mark.parametrize(
    ("suffix", "seed", "shape"),
    [("logits64", SEED, (12, 3, 64, 64)), ("logits224", SEED + 1, (2, 3, 224, 224))],
)
@pytest.mark.parametrize("name", TORCHVISION)
def test_logits_are_those_of_torchvision(name, suffix, seed, shape):
    images = np.random.default_rng(seed).standard_normal(shape).transpose(0, 2, 3, 1)
    variables = models.from_torchvision(name, golden_state(name))
    logits = jax.jit(models.create(name, CLASSES).apply)(variables, images.astype(np.float32))
    expected = GOLDEN[f"{name}.{suffix}"]
    assert np.linalg.norm(logits - expected) <= 1e-4 * np.linalg.norm(expected)


@pytest.mark.parametrize("name", TORCHVISION)
def test_torch_layout_of_converted_layers(name):
    kernels = {key for key, leaf in golden_state(name).items() if leaf.ndim > 1}
    assert kernels == set(GOLDEN[f"{name}.layers"])
    first, last = GOLDEN[f"{name}.layers"][[0, -1]]
    assert golden_state(name)[first].shape == GOLDEN[f"{name}.first.0"].shape
    assert golden_state(name)[last].shape == GOLDEN[f"{name}.last.0"].shape


def arithmetic(jaxpr):
    """The dtypes that convolutions and products of a jaxpr compute with, at any depth."""
    found = set()
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("conv_general_dilated", "dot_general"):
            found |= {variable.aval.dtype.name for variable in equation.invars}
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                found |= arithmetic(inner)
    return found


def pictures(side: int, channels: int):
    return jax.ShapeDtypeStruct((2, side, side, channels), jnp.float32)


@pytest.mark.whole(but=2)
@pytest.mark.parametrize(("dtype", "channels"), [(jnp.float32, 3), ("bfloat16", 1)])
@pytest.mark.parametrize("name", models.MODELS)
def test_every_network_computes_in_the_precision_and_keeps_float32_outside(name, dtype, channels):
    """Traced, not run: shapes and types, and how convolutions and products are computed, forward
    and backward."""
    module, key = models.create(name, 5, dtype=dtype), jax.random.key(0)
    variables = jax.eval_shape(module.init, key, pictures(32, channels))
    logits = jax.eval_shape(module.apply, variables, pictures(32, channels))
    assert (logits.shape, logits.dtype) == ((2, 5), jnp.float32)
    state = {kind: tree for kind, tree in variables.items() if kind != "params"}

    def objective(params, state, images):
        rngs = {"dropout": key}
        variables = {"params": params, **state}
        logits, updated = module.apply(
            variables, images, train=True, mutable=["batch_stats"], rngs=rngs
        )
        return logits.sum(), (logits, updated)

    # Positions of another size are interpolated in float32, whatever computes.
    images = pictures(224 if name == "vit_s_16" else 32, channels)
    traced = jax.make_jaxpr(jax.value_and_grad(objective, has_aux=True), return_shape=True)
    jaxpr, ((_, (trained, updated)), gradients) = traced(variables["params"], state, images)
    assert arithmetic(jaxpr.jaxpr) == {jnp.dtype(dtype).name}
    chex.assert_trees_all_equal_shapes_and_dtypes(
        [trained, dict(updated), gradients], [logits, state, variables["params"]]
    )
    for path, leaf in flatten_dict(variables).items():
        assert leaf.dtype == jnp.float32, path
        if path[-1] not in ("cls_token", "pos_embed"):
            assert (leaf.ndim >= 2) == (path[-1] == "kernel"), path


@pytest.fixture
def short_mobilenet(monkeypatch):
    """The network without most of its stages, which take XLA:CPU seconds to compile."""
    monkeypatch.setattr(mobilenet, "STAGES", mobilenet.STAGES[:2])


@cache
def jitted(name: str):
    """`init(key)` and `train_step(variables, key)` of the network on four 28x28 images."""
    module = models.create(name, 5)
    images = jax.random.normal(jax.random.key(1), (4, 28, 28, 1))

    def train_step(variables, key):
        rngs = {"dropout": key}
        return module.apply(variables, images, train=True, mutable=["batch_stats"], rngs=rngs)

    return jax.jit(lambda key: module.init(key, images)), jax.jit(train_step)


@pytest.mark.parametrize("name", ["mobilenet_v2", "cnn", "mlp"])
@pytest.mark.usefixtures("short_mobilenet")
def test_train_mode_updates_the_statistics_there_are(name):
    init, train_step = jitted(name)
    variables = init(jax.random.key(0))
    logits, state = train_step(variables, jax.random.key(2))
    assert logits.shape == (4, 5)
    before = flatten_dict(variables.get("batch_stats", {}))
    after = flatten_dict(state.get("batch_stats", {}))
    assert before.keys() == after.keys()
    assert bool(before) == (name == "mobilenet_v2")
    assert not any(np.array_equal(leaf, after[path]) for path, leaf in before.items())


@pytest.mark.parametrize(("name", "drops"), [("mobilenet_v2", True), ("cnn", False)])
@pytest.mark.usefixtures("short_mobilenet")
def test_dropout_in_train_mode(name, drops):
    init, train_step = jitted(name)
    variables = init(jax.random.key(0))
    one, two = (train_step(variables, jax.random.key(seed))[0] for seed in (2, 3))
    assert np.array_equal(one, two) != drops


@pytest.mark.whole
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name in ("resnet34", "resnet50")))
        for name in models.MODELS
        if name not in ("vit_s_16", "convnext_tiny")  # small ones: test_timm_networks.py
    ],
)
@pytest.mark.usefixtures("short_mobilenet", "all_passes")
def test_init_depends_on_nothing_but_the_seed(name):
    init, _ = jitted(name)
    # XLA compiles draws from `rbg` in half the time; without its passes they take 5 seconds.
    first, again, other = (init(jax.random.key(seed, impl="rbg")) for seed in (0, 0, 1))
    jax.tree.map(assert_array_equal, first, again)
    for path, leaf in flatten_dict(first["params"]).items():
        if path[-1] == "kernel":
            assert not np.array_equal(leaf, flatten_dict(other["params"])[path]), path


def test_the_small_cnn_has_207_thousand_weights():
    kernels = [leaf for leaf in jax.tree.leaves(shapes_of("cnn", 10, 1)) if leaf.ndim > 1]
    assert sum(leaf.size for leaf in kernels) == 206_736


def test_relu6_passes_gradients_strictly_above_zero():
    gradient = jax.vmap(jax.grad(mobilenet.relu6))(jnp.array([-1.0, 0.0, 1.0, 7.0]))
    assert_array_equal(gradient, [0, 0, 1, 0])


@pytest.mark.whole(but=2)
@pytest.mark.parametrize(
    "network", [partial(ResNet, BasicBlock, (1, 1)), partial(ResNet, Bottleneck, (1,)), MobileNetV2]
)
@pytest.mark.usefixtures("short_mobilenet")
def test_batch_statistics_are_synchronised(network):
    images = jax.random.normal(jax.random.key(1), (4, 16, 16, 3)) + jnp.arange(4).reshape(
        -1, 1, 1, 1
    )
    variables = jax.jit(network(num_classes=CLASSES).init)(jax.random.key(0), images)

    def statistics(images, axis_name=None):
        module = network(num_classes=CLASSES, axis_name=axis_name)
        rngs = {"dropout": jax.random.key(2)}
        return module.apply(variables, images, train=True, mutable=["batch_stats"], rngs=rngs)[1]

    whole = jax.jit(statistics)(images)
    split = jax.pmap(
        partial(statistics, axis_name="batch"), axis_name="batch", devices=jax.devices()[:2]
    )(images.reshape(2, 2, 16, 16, 3))
    for device in range(2):
        for path, leaf in flatten_dict(split["batch_stats"]).items():
            assert not np.array_equal(leaf[device], flatten_dict(variables["batch_stats"])[path])
            wanted = flatten_dict(whole["batch_stats"])[path]
            assert_allclose(leaf[device], wanted, rtol=1e-4, atol=1e-5, err_msg=str(path))


@pytest.mark.whole(but=2)
@pytest.mark.parametrize("name", NETWORKS)
def test_conversion_round_trip(name):
    state = golden_state(name)
    counted = state | {"bn1.num_batches_tracked": np.array(0)}
    variables = models.from_torchvision(name, counted)
    assert jax.tree.structure(variables) == jax.tree.structure(shapes_of(name))
    back = models.to_torchvision(name, variables)
    assert back.keys() == state.keys()
    for key, leaf in back.items():
        assert leaf.dtype == np.float32
        assert_array_equal(leaf, state[key])


@pytest.mark.parametrize("name", NETWORKS)
def test_wrong_keys_are_named(name):
    state = golden_state(name)
    key = next(key for key, leaf in state.items() if leaf.ndim == 1 and not key.endswith("bias"))
    with pytest.raises(UsageError, match=f"lack '{key}'"):
        models.from_torchvision(name, {k: v for k, v in state.items() if k != key})
    with pytest.raises(UsageError, match=r"no 'extra\.weight'"):
        models.from_torchvision(name, state | {"extra.weight": np.zeros(3)})
    size = state[key].size
    with pytest.raises(UsageError, match=rf"'{key}' .*\({size + 1},\).*\({size},\)"):
        models.from_torchvision(name, state | {key: np.zeros(size + 1)})


@pytest.mark.parametrize("shape", [(), (0, 512), (7,), (7, 511)])
def test_a_misshapen_head_is_named(shape):
    with pytest.raises(UsageError, match=r"'fc\.(weight|bias)'"):
        models.from_torchvision(
            "resnet18", golden_state("resnet18") | {"fc.weight": np.ones(shape)}
        )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: models.create("vgg", 2), "'vgg'.*resnet18.*mlp"),
        (lambda: models.create("mlp", 0), "at least 1 class, not 0"),
        (lambda: models.create("cnn", 3.0), r"'cnn' wants a whole number of classes, not 3\.0"),
        (lambda: models.create("cnn", "3"), r"a whole number of classes, not '3'"),
        (lambda: models.create("cnn", True), r"a whole number of classes, not True"),
        (lambda: models.create("cnn", None), r"a whole number of classes, not None"),
        (lambda: models.create("cnn", 3, dtype="float31"), r"in floating point, not in 'float31'"),
        (lambda: models.create("cnn", 3, dtype=int), r"in floating point, not in <class 'int'>"),
        (lambda: models.from_torchvision("mlp", {}), "'mlp' is not .*mobilenet_v2.*vit_s_16"),
        (lambda: models.to_torchvision("cnn", {}), "'cnn' is not .*mobilenet_v2"),
        (lambda: models.to_torchvision("resnet34", zeros_of("resnet18")), r"lack 'layer1\.2\."),
        (lambda: models.to_torchvision("resnet18", zeros_of("resnet34")), r"no 'layer1\.2\."),
    ],
)
def test_usage_errors(call, message):
    with pytest.raises(UsageError, match=message):
        call()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "resnet18.safetensors"
    save_file(golden_state("resnet18"), path)
    return path


def test_pretrained_weights_with_their_own_head(checkpoint):
    loaded = models.load_pretrained("resnet18", checkpoint, zeros_of("resnet18"))
    expected = models.from_torchvision("resnet18", golden_state("resnet18"))
    jax.tree.map(assert_array_equal, loaded, expected)


def test_pretrained_weights_under_a_fresh_head(checkpoint):
    fresh = zeros_of("resnet18", 2)
    loaded = models.load_pretrained("resnet18", checkpoint, fresh)
    assert jax.tree.structure(loaded) == jax.tree.structure(fresh)
    jax.tree.map(assert_array_equal, loaded["params"]["fc"], fresh["params"]["fc"])
    assert_array_equal(
        loaded["batch_stats"]["bn1"]["mean"], golden_state("resnet18")["bn1.running_mean"]
    )


def test_pretrained_weights_that_do_not_fit(checkpoint, tmp_path):
    with pytest.raises(UsageError, match=r"1 input channels.*repeat"):
        models.load_pretrained("resnet18", checkpoint, zeros_of("resnet18", channels=1))
    with pytest.raises(UsageError, match=r"lack 'layer1\.2\."):
        models.load_pretrained("resnet34", checkpoint, zeros_of("resnet34"))
    with pytest.raises(UsageError, match=r"no 'layer1\.2\."):
        models.load_pretrained("resnet18", checkpoint, zeros_of("resnet34"))
    with pytest.raises(UsageError, match=r"missing\.safetensors .*no such file.*save_file"):
        models.load_pretrained("resnet18", tmp_path / "missing.safetensors", {})
    pickle = tmp_path / "weights.pth"
    pickle.write_bytes(b"PK\3\4" + bytes(100))
    with pytest.raises(UsageError, match=r"weights\.pth: a zip archive that is cut off"):
        models.load_pretrained("resnet18", pickle, {})


def test_a_numpy_number_of_classes_is_one():
    assert models.create("mlp", np.int32(3)).num_classes == 3


PREFIXES = ("module.", "_orig_mod.", "model.", "module._orig_mod.", "model.module.", "state_dict.")


@pytest.mark.parametrize(
    ("name", "prefix"), [*(("mobilenet_v2", prefix) for prefix in PREFIXES), ("resnet18", "model.")]
)
def test_prefixes_of_every_key_are_recognised(name, prefix):
    state = golden_state(name)
    expected = models.from_torchvision(name, state)
    prefixed = {prefix + key: leaf for key, leaf in state.items()}
    prefixed[f"{prefix}bn1.num_batches_tracked"] = np.array(0)
    jax.tree.map(assert_array_equal, models.from_torchvision(name, prefixed), expected)
    for entry in ("state_dict", "model"):
        for held in (state, prefixed):
            wrapped = {"epoch": 3, entry: held, "optimizer": {"state": {}}}
            jax.tree.map(assert_array_equal, models.from_torchvision(name, wrapped), expected)
    jax.tree.map(
        assert_array_equal,
        models.from_torchvision(name, {"model": {"state_dict": state}}),
        expected,
    )


def test_prefixes_in_a_file_are_recognised(tmp_path):
    state = {f"module.{key}": leaf for key, leaf in golden_state("resnet18").items()}
    save_file(state, tmp_path / "x.safetensors")
    loaded = models.load_pretrained("resnet18", tmp_path / "x.safetensors", zeros_of("resnet18"))
    expected = models.from_torchvision("resnet18", golden_state("resnet18"))
    jax.tree.map(assert_array_equal, loaded, expected)


def test_an_error_shows_the_keys_that_are_there():
    state = golden_state("resnet18")
    other = {f"encoder.{key}": leaf for key, leaf in state.items()}
    with pytest.raises(UsageError, match=r"lack 'bn1.bias', .*are 'encoder.bn1.bias', .*in a"):
        models.from_torchvision("resnet18", other)
    few = {key: leaf for key, leaf in state.items() if not key.startswith("fc.")}
    with pytest.raises(UsageError, match=r"lack 'fc\.bias', 'fc\.weight'; there are 'bn1"):
        models.from_torchvision("resnet18", few)
    with pytest.raises(UsageError, match="there is no key"):
        models.from_torchvision("resnet18", {})
    with pytest.raises(UsageError, match=r"resnet18 has no 'loss\.weight': give a state dict"):
        models.from_torchvision("resnet18", state | {"loss.weight": np.ones(2)})


def write_safetensors(path, dtype, arrays):
    """A file of arrays under a type that safetensors' NumPy half may not know."""
    entries, at = {}, 0
    for key, array in arrays.items():
        entries[key] = {
            "dtype": dtype,
            "shape": array.shape,
            "data_offsets": [at, at + array.nbytes],
        }
        at += array.nbytes
    head = json.dumps(entries).encode()
    content = b"".join(array.tobytes() for array in arrays.values())
    path.write_bytes(len(head).to_bytes(8, "little") + head + content)


@pytest.mark.parametrize(
    ("dtype", "kind"),
    [
        ("F64", np.float64),
        ("F16", np.float16),
        ("BF16", jnp.bfloat16),
        ("F8_E4M3", jnp.float8_e4m3fn),
        ("F8_E5M2", jnp.float8_e5m2),
    ],
)
def test_weights_of_every_type_are_read(dtype, kind, tmp_path):
    state = {key: leaf.astype(kind) for key, leaf in golden_state("mobilenet_v2").items()}
    write_safetensors(tmp_path / "x.safetensors", dtype, state)
    loaded = models.load_pretrained(
        "mobilenet_v2", tmp_path / "x.safetensors", zeros_of("mobilenet_v2")
    )
    back = models.to_torchvision("mobilenet_v2", loaded)
    for key, leaf in state.items():
        assert_array_equal(back[key], leaf.astype(np.float32))


@pytest.mark.parametrize("dtype", ["F8_E8M0", "BOOL", "F4"])
def test_a_type_that_is_no_number_is_named(dtype, tmp_path):
    state = {key: np.ones(leaf.shape, np.int8) for key, leaf in golden_state("resnet18").items()}
    write_safetensors(tmp_path / "x.safetensors", dtype, state)
    with pytest.raises(UsageError, match=r"of type F8_E8M0|of type bool|cannot read pretrained"):
        models.load_pretrained("resnet18", tmp_path / "x.safetensors", zeros_of("resnet18"))
