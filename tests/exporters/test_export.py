"""What leaves: every format of a run and of networks of one's own, and what is refused."""

import importlib.util
import json
import shutil
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export as jax_export
from safetensors.numpy import load_file

import fairgrape_jax as fg
from fairgrape_jax import exporters, models
from fairgrape_jax.data import load as load_data
from fairgrape_jax.errors import UsageError
from fairgrape_jax.exporters import EXPORTERS, stage
from fairgrape_jax.exporters.arrays import read_masks
from fairgrape_jax.exporters.base import Exporter
from fairgrape_jax.models import torch_files
from tests.helpers.experiments import TINY
from tests.helpers.golden_networks import GOLDEN, golden_state

OF_ANY_NETWORK = [name for name in EXPORTERS if name not in ("torchvision", "timm", "onnx")]
STAGE = "seed_0/fairgrape/round_03"


def content(folder):
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("to", OF_ANY_NETWORK)
def test_every_format_of_a_stage_is_read_back_and_compared(run, to, tmp_path):
    made = fg.export(run / STAGE, tmp_path / "out", to=to)
    assert (made.changed, made.samples) == (0, 40)
    assert made.largest <= 1e-5
    assert str(made).count("\n") >= 3
    card = (tmp_path / "out/README.md").read_text()
    for part in ("fairgrape", "synthetic", "uniform", "80.0", "group 2 | 9 | ", "[", "Not for"):
        assert part in card
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert config["density"] == pytest.approx(0.2, 1e-2)
    left = content(tmp_path / "out")
    for place in (run, tmp_path, Path(exporters.__file__).parents[1], Path.home()):
        assert str(place).encode() not in left


def test_the_arrays_of_a_stage_are_those_of_its_checkpoint(run, tmp_path):
    stage = fg.load(run)
    fg.export(run, tmp_path / "a", to="safetensors")
    fg.export(run, tmp_path / "b", to="npz")
    fg.export(run, tmp_path / "c", to="masks")
    one, masks = load_file(tmp_path / "a/model.safetensors"), read_masks(tmp_path / "c/masks.npz")
    with np.load(tmp_path / "b/model.npz") as other:
        assert set(other.files) == set(one)
        for name, array in one.items():
            np.testing.assert_array_equal(array, other[name])
            leaf = stage.params
            for key in name.split("/")[1:]:
                leaf = leaf[key]
            np.testing.assert_array_equal(array, leaf)
    assert set(masks) == {f"params/{layer}/kernel" for layer in ("conv1", "conv2", "fc1", "fc2")}
    for name, mask in masks.items():
        assert not one[name][~mask].any()
        np.testing.assert_array_equal(mask, stage.masks[name.split("/")[1]]["kernel"])


def test_a_program_holds_for_any_number_of_pictures(run, tmp_path):
    fg.export(run, tmp_path / "out", to="stablehlo")
    exported = jax_export.deserialize(bytearray((tmp_path / "out/model.stablehlo").read_bytes()))
    assert exported.platforms == ("cpu", "cuda", "tpu")
    images, stage = load_data(TINY.data).test.images, fg.load(run)
    for count in (1, 3, 40):
        outputs = exported.call(images[:count])
        np.testing.assert_allclose(outputs, stage.apply(images[:count]), rtol=1e-5, atol=1e-5)


def test_the_dense_network_leaves_too(run, tmp_path):
    made = fg.export(run / "seed_0/dense", tmp_path / "out", to="npz")
    assert made.changed == 0
    assert "none: the dense network" in (tmp_path / "out/README.md").read_text()


@pytest.mark.whole(but=1)
@pytest.mark.parametrize(
    ("name", "to"),
    [
        *(("resnet18", to) for to in ("torchvision", "timm", "hf")),
        *(("mobilenet_v2", to) for to in ("torchvision", "hf")),
    ],
)
def test_a_state_dict_has_torchvisions_keys_and_gives_its_logits(name, to, tmp_path):
    state = golden_state(name)
    module = models.create(name, 7)
    inputs = np.random.default_rng(3).standard_normal((12, 3, 64, 64)).transpose(0, 2, 3, 1)

    def apply(variables, images):
        return module.apply(variables, images, train=False)

    fg.export(
        models.from_torchvision(name, state),
        tmp_path / "out",
        to=to,
        name=name,
        apply=apply,
        inputs=inputs.astype(np.float32),
    )
    config = json.loads((tmp_path / "out/config.json").read_text())
    if name == "resnet18":
        layers = {"num_classes": 7, "first_conv": "conv1", "classifier": "fc"}
        assert config["architecture"] == "resnet18"
        assert config["pretrained_cfg"] == {"input_size": [3, 64, 64], **layers}
    else:
        assert "architecture" not in config
    if to != "hf":
        read = torch_files.read(tmp_path / "out/model.pth")
    else:
        read = load_file(tmp_path / "out/model.safetensors")
    counters = {key for key in read if key.endswith("num_batches_tracked")}
    assert len(counters) == sum(key.endswith("running_var") for key in state)
    assert all(read[key].dtype == np.int64 and read[key].shape == () for key in counters)
    assert set(read) - counters == set(state)
    for key, leaf in state.items():
        np.testing.assert_array_equal(read[key], leaf)
    logits = jax.jit(apply)(models.from_torchvision(name, read), inputs.astype(np.float32))
    expected = GOLDEN[f"{name}.logits64"]
    assert np.linalg.norm(logits - expected) <= 1e-4 * np.linalg.norm(expected)


@pytest.mark.whole(but=1)
@pytest.mark.parametrize("to", ["timm", "hf"])
@pytest.mark.parametrize("name", ["vit_s_16", "convnext_tiny"])
def test_a_state_dict_has_timms_keys(name, to, tmp_path):
    state = golden_state(name)
    fg.export(models.from_torchvision(name, state), tmp_path / "out", to=to, name=name)
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert config["architecture"] == models.NETWORKS[name].timm
    assert "input_size" not in config["pretrained_cfg"]
    pth = tmp_path / "out/model.pth"
    read = torch_files.read(pth) if to == "timm" else load_file(tmp_path / "out/model.safetensors")
    assert set(read) == set(state)
    for key, leaf in state.items():
        np.testing.assert_array_equal(read[key], leaf)


@pytest.mark.parametrize(
    ("name", "to", "message"),
    [
        ("vit_s_16", "torchvision", "'vit_s_16' is none of resnet18, .*; give timm, safetensors"),
        ("convnext_tiny", "torchvision", "'convnext_tiny' is none of .*; give timm, safetensors"),
        ("mobilenet_v2", "timm", "'mobilenet_v2' is none of .*vit_s_16.*; give torchvision, safe"),
        ("cnn", "timm", "'cnn' is none of .*convnext_tiny; give safetensors or npz"),
        ("", "timm", "a network of your own is none of .*; give safetensors or npz"),
    ],
)
def test_a_library_that_has_not_the_network_is_named(name, to, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        fg.export({"w": np.ones(3)}, tmp_path / "out", to=to, name=name)
    assert not list(tmp_path.iterdir())


# --- networks of one's own


def dense(rng):
    w = rng.normal(size=(5, 4)).astype(np.float32)
    return {"w": np.asfortranarray(w)}, lambda p, x: x @ p["w"]


def listed(rng):
    params = [
        {"w": jnp.asarray(rng.normal(size=(5, 6)), jnp.float32)},
        ({"w": rng.normal(size=(6, 2)).astype(">f4")}, np.float32(0.5)),
    ]
    return params, lambda p, x: jax.nn.relu(x @ p[0]["w"]) @ p[1][0]["w"] * p[1][1]


def equinox(rng):
    network = eqx.nn.MLP(5, 3, 8, 1, key=jax.random.key(0))
    return network, lambda model, x: jax.vmap(model)(x)


def half(rng):
    params = {"w": jnp.asarray(rng.normal(size=(5, 4)), jnp.bfloat16)}
    return params, lambda p, x: x.astype(jnp.bfloat16) @ p["w"]


@pytest.mark.parametrize("network", [dense, listed, equinox])
@pytest.mark.parametrize("to", OF_ANY_NETWORK)
def test_a_network_of_ones_own_leaves(network, to, tmp_path):
    rng = np.random.default_rng(0)
    params, apply = network(rng)
    full = fg.full_masks(params)
    masks, _ = fg.prune(params, full, 0.5, method="magnitude")
    if network is equinox:  # its functions are no arguments of a compiled one
        arrays, rest = eqx.partition(params, eqx.is_array)
        whole = apply
        params, masks = arrays, eqx.filter(masks, eqx.is_array)
        apply = lambda p, x: whole(eqx.combine(p, rest), x)  # noqa: E731
    x = rng.normal(size=(9, 5)).astype(np.float32)
    made = fg.export(params, tmp_path / "o", to=to, masks=masks, apply=apply, inputs=x)
    assert made.largest <= 1e-5
    assert made.changed is None
    assert "50.00 %" in (tmp_path / "o/README.md").read_text()


@pytest.mark.parametrize("to", ["safetensors", "hf", "stablehlo", "sparse"])
def test_bfloat16_leaves(to, tmp_path):
    params, apply = half(np.random.default_rng(0))
    x = np.ones((3, 5), np.float32)
    masks = fg.full_masks(params)
    made = fg.export(params, tmp_path / "o", to=to, apply=apply, inputs=x, masks=masks)
    assert made.largest <= 1e-6


def test_weights_leave_without_a_function(tmp_path):
    made = fg.export({"w": np.ones((2, 3))}, tmp_path / "o", to="npz", card="# Mine\n")
    assert made.samples == 0
    assert (tmp_path / "o/README.md").read_text().startswith("# Mine\n")


# --- what is refused


def fixed(p, x):
    return (x.reshape(2, 10) @ jnp.concatenate([p["w"], p["w"]])).repeat(2, 0)


def branching(p, x):
    return x @ p["w"] if len(x) > 3 else x


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"to": "tflite"}, "'tflite' is no format: choose one of torchvision, "),
        ({"to": "torchvision"}, r"a network of your own is none of resnet18"),
        ({"to": "torchvision", "name": "cnn"}, r"'cnn' is none of resnet18"),
        ({"to": "torchvision", "name": "resnet18"}, "the weights for resnet18|resnet18 has no"),
        ({"to": "stablehlo"}, "a program needs apply="),
        ({"to": "masks"}, "there are none; give masks="),
        ({"to": "npz", "inputs": np.ones((1, 5))}, "inputs= are for apply="),
        ({"to": "npz", "values": "int8"}, "'int8' is none of exact, float16"),
        ({"to": "npz", "samples": 0}, "samples is 1 or more"),
        (
            {"to": "stablehlo", "apply": fixed, "inputs": np.ones((4, 5), np.float32)},
            r"does not hold for . inputs.* give it as --batch",
        ),
        (
            {"to": "stablehlo", "apply": branching, "inputs": np.ones((4, 5), np.float32)},
            r"cannot be traced for \(batch, 5\).*give it as --batch",
        ),
    ],
)
def test_what_cannot_be_is_one_line_and_leaves_nothing(options, message, tmp_path):
    with pytest.raises(UsageError, match=message) as error:
        fg.export({"w": np.ones((5, 4), np.float32)}, tmp_path / "o", **options)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_a_program_of_one_number_of_inputs(tmp_path):
    x, params = np.ones((5, 5), np.float32), {"w": np.ones((5, 4), np.float32)}
    made = fg.export(params, tmp_path / "o", to="stablehlo", apply=fixed, inputs=x, batch=4)
    assert made.largest <= 1e-6


@pytest.mark.parametrize("params", [{}, {"w": None}, [], {"f": jnp.tanh}])
def test_parameters_without_an_array_are_refused(params, tmp_path):
    with pytest.raises(UsageError, match="hold no array"):
        fg.export(params, tmp_path / "o", to="npz")


def test_two_leaves_of_one_name_are_refused(tmp_path):
    params = {"a": {"b/c": np.ones(2)}, "a/b": {"c": np.ones(2)}}
    with pytest.raises(UsageError, match="two leaves are called 'a/b/c'"):
        fg.export(params, tmp_path / "o", to="npz")


@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_nothing_is_overwritten(kind, run, tmp_path):
    out = tmp_path / "out"
    {
        "folder": out.mkdir,
        "file": lambda: out.write_text("mine"),
        "link": lambda: out.symlink_to(tmp_path / "nowhere"),
    }[kind]()
    for source in (run, {"w": np.ones(3)}):
        with pytest.raises(UsageError, match="is there already"):
            fg.export(source, out, to="npz")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_no_folder_above_is_made(tmp_path):
    with pytest.raises(UsageError, match="no such folder to write out to"):
        fg.export({"w": np.ones(3)}, tmp_path / "a/out", to="npz")


@pytest.mark.parametrize(
    ("alter", "message"),
    [
        (lambda tree: jax.tree.map(lambda x: x + np.float32(1e-7), tree), "another array when it"),
        (lambda tree: {"params": tree["params"]["conv1"]}, "is another array"),
    ],
)
def test_what_reads_back_otherwise_is_not_kept(alter, message, run, tmp_path, monkeypatch):
    npz = EXPORTERS["npz"]
    bad = Exporter("", npz.write, lambda model, folder: alter(npz.read(model, folder)))
    monkeypatch.setitem(EXPORTERS, "npz", bad)
    with pytest.raises(UsageError, match=message):
        fg.export(run, tmp_path / "o", to="npz")
    assert not list(tmp_path.iterdir())


def test_a_program_that_gives_other_outputs_is_not_kept(run, tmp_path, monkeypatch):
    good = EXPORTERS["stablehlo"]

    def read(model, folder):
        function = good.read(model, folder)
        return lambda inputs: function(inputs) * 1.001

    monkeypatch.setitem(EXPORTERS, "stablehlo", Exporter("", good.write, read, program=True))
    with pytest.raises(UsageError, match="other outputs than the network"):
        fg.export(run, tmp_path / "o", to="stablehlo")
    assert not list(tmp_path.iterdir())


def test_predictions_other_than_the_runs_are_not_kept(run, tmp_path, monkeypatch):
    real = stage.read

    def changed(path, samples):
        model, recorded = real(path, samples)
        recorded.predictions[0] = (recorded.predictions[0] + 1) % 3
        recorded.scores[0] = np.eye(3)[recorded.predictions[0, 0]]
        return model, recorded

    monkeypatch.setattr(stage, "read", changed)
    with pytest.raises(UsageError, match=r"1 of 40 predictions are other than those that the run"):
        fg.export(run, tmp_path / "o", to="npz")
    assert not list(tmp_path.iterdir())


def test_data_that_is_not_the_runs_is_refused(run, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    stored = json.loads((copy / "config.json").read_text())
    stored["experiment"]["data"]["seed"] = 7
    (copy / "config.json").write_text(json.dumps(stored))
    with pytest.raises(UsageError, match="the dataset is not what it was"):
        fg.export(copy, tmp_path / "o", to="npz")


def test_onnx_names_its_extra_where_it_is_missing(run, tmp_path):
    if importlib.util.find_spec("jax2onnx"):
        made = fg.export(run, tmp_path / "o", to="onnx")
        assert made.changed == 0
        assert str(tmp_path).encode() not in content(tmp_path / "o")
    else:
        with pytest.raises(UsageError, match=r"the extra `onnx`: pip install .*\[onnx\]"):
            fg.export(run, tmp_path / "o", to="onnx")
        assert not list(tmp_path.iterdir())
