"""Weights in: other libraries' names and files, and what is refused, against what they wrote."""

import hashlib
import pickle
import tempfile
import zipfile
import zlib
from functools import lru_cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import serialization
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from safetensors.numpy import save_file

from fairgrape_jax import models
from fairgrape_jax.errors import UsageError
from fairgrape_jax.exporters.torchvision import write_pth
from fairgrape_jax.models import torch_files, weights
from tests.helpers.datasets import GOLDEN_FILES
from tests.helpers.golden_networks import golden_state, recipe_leaf, zeros_of

KEYS = np.load(GOLDEN_FILES / "foreign_keys.npz")
FILES = np.load(GOLDEN_FILES / "torch_files.npz")
FOREIGN = sorted({key.rpartition(".")[0] for key in KEYS.files})
# Sizes of ConvNeXt that take XLA:CPU seconds to compile, and are like the others.
LONG = ("timm.convnext_tiny.logits80x48", "timm.convnext_tiny.logits32")


def foreign_shapes(name):
    shapes = [tuple(int(n) for n in text.split(",") if n) for text in KEYS[f"{name}.shapes"]]
    return dict(zip(KEYS[f"{name}.keys"].tolist(), shapes, strict=True))


def foreign_state(name, leaf):
    """A state dict with the arrays that `leaf` makes of their keys and shapes."""
    return {
        key: np.zeros(shape, np.int64) if key.endswith("num_batches_tracked") else leaf(key, shape)
        for key, shape in foreign_shapes(name).items()
    }


@lru_cache(maxsize=1)  # the fields of a network follow each other
def golden_foreign_state(name):
    return foreign_state(name, recipe_leaf)


def constant_leaf(key, shape):
    """A number of its own for every key, in no memory: the recipe's take seconds to draw."""
    return np.broadcast_to(np.float32(zlib.crc32(key.encode()) % 2**24), shape)


@pytest.mark.whole(but=4)
@pytest.mark.parametrize(
    "field",
    [
        pytest.param(field, marks=[pytest.mark.slow] * (field in LONG))
        for field in KEYS.files
        if ".logits" in field
    ],
)
def test_other_libraries_names_give_their_logits(field):
    foreign, _, size = field.rpartition(".logits")
    name, sides = foreign.split(".")[1], list(map(int, (size or "64").split("x"))) * 2
    images = np.random.default_rng(3).standard_normal((2, 3, *sides[:2])).transpose(0, 2, 3, 1)
    variables = models.from_torchvision(name, golden_foreign_state(foreign))
    logits = jax.jit(models.create(name, 12).apply)(variables, images.astype(np.float32))
    expected = KEYS[field]
    assert np.linalg.norm(logits - expected) <= 1e-4 * np.linalg.norm(expected)


@pytest.mark.whole(but=3)
@pytest.mark.parametrize("foreign", FOREIGN)
def test_other_names_below_a_prefix_and_without_counters(foreign):
    name, state = foreign.split(".")[1], foreign_state(foreign, constant_leaf)
    numbers = {leaf.flat[0] for key, leaf in state.items() if "num_batches" not in key}
    expected = models.from_torchvision(name, state)
    assert {leaf.flat[0] for leaf in jax.tree.leaves(expected)} <= numbers
    for prefix in ("module.", "model.", "_orig_mod."):
        few = {f"{prefix}{k}": v for k, v in state.items() if "num_batches" not in k}
        for held in (few, {"epoch": 1, "state_dict": few}):
            found = models.from_torchvision(name, held)
            assert all(jax.tree.leaves(jax.tree.map(np.array_equal, found, expected)))


@pytest.mark.parametrize("foreign", FOREIGN)
def test_a_key_that_lacks_is_named(foreign):
    state = foreign_state(foreign, constant_leaf)
    lost = next((key for key in state if key.endswith("running_mean")), list(state)[9])
    with pytest.raises(UsageError, match=r"the weights for \w+ lack '[\w.]+'"):
        models.from_torchvision(
            foreign.split(".")[1], {k: v for k, v in state.items() if k != lost}
        )


# --- PyTorch's files, as PyTorch wrote them


def golden_file(name, tmp_path):
    path = tmp_path / f"{name}.pth"
    path.write_bytes(FILES[f"file.{name}"].tobytes())
    return path


@pytest.mark.parametrize("name", ["tensors", "tensors_legacy"])
def test_tensors_of_every_kind_are_read(name, tmp_path):
    read = torch_files.read(golden_file(name, tmp_path))
    expected = {k.removeprefix("tensor."): FILES[k] for k in FILES.files if k[:7] == "tensor."}
    assert set(read) == set(expected)
    for key, array in expected.items():
        dtype = jnp.bfloat16 if key == "bfloat16" else array.dtype
        assert (read[key].dtype, read[key].shape) == (dtype, array.shape)
        assert_array_equal(read[key].astype(array.dtype), array)


@pytest.mark.parametrize("name", ["checkpoint", "checkpoint_legacy"])
def test_a_whole_checkpoint_is_read(name, tmp_path):
    read = torch_files.read(golden_file(name, tmp_path))
    assert (read["epoch"], read["best"], read["arch"]) == (3, 0.5, "resnet18")
    assert (read["size"], read["device"]) == ((1, 2), "cpu")
    assert_array_equal(read["state_dict"]["weight"], FILES["layer.weight"])
    assert read["optimizer"]["param_groups"][0]["lr"] == 1e-3


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("module", r"asks for torch\.nn\.modules\.linear\.Linear, which is refused"),
        ("module_legacy", r"asks for torch\.nn\.modules\.linear\.Linear, which is refused"),
        ("namespace", r"asks for argparse\.Namespace, which is refused"),
        ("script", "a TorchScript program, no checkpoint"),
    ],
)
def test_what_asks_for_code_is_refused_by_name(name, message, tmp_path):
    with pytest.raises(UsageError, match=message) as error:
        weights.read(golden_file(name, tmp_path))
    assert "\n" not in str(error.value)
    assert f"{name}.pth: " in str(error.value)


class Evil:
    def __init__(self, call, *arguments):
        self.how = (call, arguments)

    def __reduce__(self):
        return self.how


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("call", [exec, Path.touch, getattr, eval, __import__, pickle.loads])
def test_no_pickle_runs_anything(call, protocol, tmp_path):
    mark = tmp_path / "ran"
    argument = {Path.touch: mark, exec: f"open({str(mark)!r}, 'w')"}.get(call, "1")
    content = pickle.dumps({"w": Evil(call, argument)}, protocol)
    path = tmp_path / "evil.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", content)
    with pytest.raises(UsageError, match=r"evil\.pth: .*(refused|damaged)") as error:
        torch_files.read(path)
    assert "\n" not in str(error.value)
    assert not mark.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.",  # the name from the stack
        b"(S'true'\nios\nsystem\n.",
        b"\x80\x02ccollections\nOrderedDict\n)\x81.",
        b"\x80\x02\x82\x01.",
        b"\x80\x02]r\xff\xff\xff\x7f.",  # a memo of 16 GB
        b"\x80\x02]",
        b"\x80\x02.",
        b"",
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(K\x01K\x00K\x00K\x00tR.",
    ],
)
def test_near_pickles_are_one_line(content, tmp_path):
    path = tmp_path / "near.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", content)
    with pytest.raises(UsageError, match=r"near\.pth: ") as error:
        torch_files.read(path)
    assert "\n" not in str(error.value)


@settings(max_examples=150, deadline=None)
@given(st.data())
@pytest.mark.parametrize("name", ["checkpoint", "checkpoint_legacy"])
def test_damage_anywhere_is_one_line_or_harmless(name, data):
    content = bytearray(FILES[f"file.{name}"].tobytes())
    place = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        del content[place:]
    else:
        content[place] ^= 1 << data.draw(st.integers(0, 7))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.pth"
        path.write_bytes(content)
        message = f"{path}: one line"
        try:
            torch_files.read(path)
        except UsageError as error:
            message = str(error)
    assert "\n" not in message
    assert message.startswith(str(path))


@pytest.mark.parametrize("place", [27, 1588, 3725, 3732])  # bytes of the names in the archive
def test_names_in_an_archive_that_are_no_text_are_one_line(place, tmp_path):
    path = golden_file("checkpoint", tmp_path)
    content = bytearray(path.read_bytes())
    content[place] ^= 128
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"checkpoint\.pth: .*damaged"):
        torch_files.read(path)


def test_what_is_written_here_is_read_here(tmp_path):
    state = golden_state("resnet18") | {"bn1.num_batches_tracked": np.zeros((), np.int64)}
    write_pth(tmp_path / "x.pth", state)
    loaded = models.load_pretrained("resnet18", tmp_path / "x.pth", zeros_of("resnet18"))
    expected = models.from_torchvision("resnet18", golden_state("resnet18"))
    jax.tree.map(assert_array_equal, loaded, expected)


@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16, np.float64])
def test_a_checkpoint_of_half_precision_with_another_head(dtype, tmp_path):
    state = {f"module.{k}": v.astype(dtype) for k, v in golden_state("resnet18").items()}
    write_pth(tmp_path / "x.pth", state)
    fresh = zeros_of("resnet18", 2)
    loaded = models.load_pretrained("resnet18", tmp_path / "x.pth", fresh)
    jax.tree.map(assert_array_equal, loaded["params"]["fc"], fresh["params"]["fc"])
    expected = golden_state("resnet18")["conv1.weight"].astype(dtype).astype(np.float32)
    assert_array_equal(loaded["params"]["conv1"]["kernel"].transpose(3, 2, 0, 1), expected)


# --- official FairGRAPE's masks


def official(name):
    """A state dict as the official code saves it: a mask beside the weight of every kernel."""
    state, rng = golden_state(name), np.random.default_rng(0)
    masks = {
        key.replace(".weight", ".mask"): (rng.random(leaf.shape) < 0.3).astype(np.float32)
        for key, leaf in state.items()
        if leaf.ndim > 1
    }
    return state | masks


@pytest.mark.parametrize("name", ["resnet34", "mobilenet_v2"])
def test_official_masks_are_applied_and_read(name):
    state = official(name)
    variables = models.from_torchvision(name, state)
    masks = models.masks_from_torchvision(name, {"state_dict": state})
    back = models.to_torchvision(name, variables)
    for key, leaf in golden_state(name).items():
        mask = state.get(key.replace(".weight", ".mask")) if leaf.ndim > 1 else None
        assert_array_equal(back[key], leaf if mask is None else leaf * mask)
    kernels = [mask for mask in jax.tree.leaves(masks) if mask is not None]
    assert len(kernels) == sum(key.endswith(".mask") for key in state)
    structure = jax.tree.structure(masks, is_leaf=lambda x: x is None)
    assert structure == jax.tree.structure(variables["params"])
    params = variables["params"]
    again = jax.tree.map(
        lambda m, p: p if m is None else p * m, masks, params, is_leaf=lambda x: x is None
    )
    jax.tree.map(assert_array_equal, again, params)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("conv1.mask", np.full((64, 3, 7, 7), 0.5), "'conv1.mask' holds numbers other than 0 and"),
        ("conv1.mask", np.ones((64, 3, 7, 6)), "'conv1.mask' is no mask of 'conv1.weight'"),
        ("extra.mask", np.ones(3), "'extra.mask' is no mask of 'extra.weight'"),
    ],
)
def test_a_mask_that_is_none_is_named(key, value, message):
    with pytest.raises(UsageError, match=message):
        models.from_torchvision("resnet18", official("resnet18") | {key: value})


def test_weights_without_masks_have_none():
    with pytest.raises(UsageError, match="hold no mask"):
        models.masks_from_torchvision("resnet18", golden_state("resnet18"))


# --- hashes, ImageNet's folder, flax


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_hash_in_a_name_is_checked(suffix, tmp_path):
    plain = tmp_path / f"net.{suffix}"
    write = write_pth if suffix == "pth" else lambda path, arrays: save_file(arrays, path)
    write(plain, {"w": np.ones(3, np.float32)})
    digest = hashlib.sha256(plain.read_bytes()).hexdigest()
    good = plain.rename(tmp_path / f"net-{digest[:8]}.{suffix}")
    if any(letter in digest[:8] for letter in "abcdef"):
        assert set(weights.read(good)) == {"w"}
    bad = good.rename(tmp_path / f"net-f37072fd.{suffix}")
    with pytest.raises(UsageError, match=r"promises the SHA-256 f37072fd\.\.\., but it has"):
        weights.read(bad)
    dated = bad.rename(tmp_path / f"net-20261126.{suffix}")
    assert set(weights.read(dated)) == {"w"}


@pytest.mark.parametrize("name", list(weights.IMAGENET))
def test_imagenet_says_which_file_goes_where(name, tmp_path, monkeypatch):
    monkeypatch.setenv("FAIRGRAPE_WEIGHTS", str(tmp_path / "mine"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    with pytest.raises(UsageError, match=rf"put {weights.IMAGENET[name][0]}.* into .*/mine"):
        weights.find_imagenet(name)
    places = [
        tmp_path / "torch/hub/checkpoints" / weights.IMAGENET[name][-1],
        tmp_path / "mine" / f"{name}.safetensors",
        tmp_path / "mine" / weights.IMAGENET[name][0],
    ]
    for place in places:  # each before the one above
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()
        assert weights.find_imagenet(name) == place
    with pytest.raises(UsageError, match="no weights of ImageNet for 'cnn'"):
        weights.find_imagenet("cnn")


def test_the_users_cache_is_the_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("FAIRGRAPE_WEIGHTS", raising=False)
    monkeypatch.delenv("TORCH_HOME", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(UsageError, match=f"into {tmp_path}/fairgrape_jax/weights"):
        weights.find_imagenet("resnet18")


@pytest.mark.parametrize("entry", [None, "state", "model"])
def test_flax_checkpoints_are_read(entry, tmp_path):
    variables = models.from_torchvision("resnet18", golden_state("resnet18"))
    held = {entry: {**variables, "step": 3}} if entry else variables
    path = tmp_path / "x.msgpack"
    path.write_bytes(serialization.msgpack_serialize(held))
    fresh = zeros_of("resnet18", 2)
    loaded = models.load_pretrained("resnet18", path, fresh)
    assert_array_equal(
        loaded["batch_stats"]["bn1"]["mean"], variables["batch_stats"]["bn1"]["mean"]
    )
    assert not loaded["params"]["fc"]["kernel"].any()


def test_a_small_network_is_read_from_flax_as_it_is(tmp_path):
    module = models.create("mlp", 3)
    variables = module.init(jax.random.key(0), jnp.zeros((1, 4, 4, 1)))
    path = tmp_path / "x.msgpack"
    path.write_bytes(serialization.to_bytes(variables))
    fresh = jax.tree.map(np.zeros_like, variables)
    jax.tree.map(assert_array_equal, models.load_pretrained("mlp", path, fresh), variables)
    other = models.create("mlp", 4).init(jax.random.key(0), jnp.zeros((1, 4, 4, 1)))
    with pytest.raises(UsageError, match=r"x\.msgpack: '.*' has the shape"):
        models.load_pretrained("mlp", path, other)


@pytest.mark.parametrize("content", [b"", b"\0" * 40, b"PK\3\4" + bytes(60), b"hello", b"\x93abc"])
@pytest.mark.parametrize("suffix", ["pth", "pt", "safetensors", "msgpack", "bin"])
def test_what_is_no_checkpoint_is_one_line(content, suffix, tmp_path):
    path = tmp_path / f"x.{suffix}"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=rf"x\.{suffix}") as error:
        models.load_pretrained("resnet18", path, {})
    assert "\n" not in str(error.value)
