"""Pretrained weights of a run: Orbax folders, a stage of another run, ImageNet's by a word."""

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp_v0
import pytest
from numpy.testing import assert_array_equal
from orbax.checkpoint import v1 as ocp
from safetensors.numpy import save_file

from fairgrape_jax import models
from fairgrape_jax.errors import UsageError
from fairgrape_jax.rounds.pretrained import load_pretrained
from fairgrape_jax.storage import checkpoint
from tests.helpers.golden_networks import golden_state, zeros_of

# Orbax leaves coroutines behind that nobody waits for, where it writes and where it cannot read.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def small(key=0, classes=3):
    module = models.create("mlp", classes)
    return jax.device_get(module.init(jax.random.key(key), jnp.zeros((1, 4, 4, 1))))


def v1(folder, tree):
    ocp.save(folder, tree)


def v0(folder, tree):
    with ocp_v0.StandardCheckpointer() as writer:
        writer.save(folder, tree)


def manager(folder, tree):
    """A step of a CheckpointManager, whose tree is an item of its own."""
    with ocp_v0.CheckpointManager(folder.parent / "steps") as writer:
        writer.save(7, args=ocp_v0.args.StandardSave(tree))
    (folder.parent / "steps/7").rename(folder)


def ours(folder, tree):
    """A stage of a run."""
    state = {"params": tree["params"], "batch_stats": {}, "step": np.int32(3)}
    masks = jax.tree.map(lambda x: np.ones(x.shape, bool), tree["params"])
    checkpoint.save(folder / "checkpoint", {"state": state, "masks": masks})


@pytest.mark.parametrize("write", [v1, v0, manager, ours])
def test_orbax_checkpoints_are_read(write, tmp_path):
    stored, fresh = small(1), small(2)
    write(tmp_path / "saved", stored)
    jax.tree.map(assert_array_equal, load_pretrained("mlp", str(tmp_path / "saved"), fresh), stored)


@pytest.mark.parametrize("entry", ["params", "state"])
def test_a_train_state_is_read(entry, tmp_path):
    stored = small(1)
    tree = {"params": stored["params"], "step": np.array(1)}
    v1(
        tmp_path / "saved",
        tree if entry == "params" else {"state": tree, "config": {"a": np.array(1)}},
    )
    loaded = load_pretrained("mlp", str(tmp_path / "saved"), small(2))
    jax.tree.map(assert_array_equal, loaded, stored)


@pytest.mark.parametrize("content", ["nothing", "text", "cut"])
def test_a_folder_that_is_no_checkpoint_is_one_line(content, tmp_path):
    folder = tmp_path / "saved"
    if content == "cut":
        v1(folder, small())
        for path in folder.rglob("*"):
            if path.is_file():
                path.write_bytes(path.read_bytes()[:7])
    else:
        folder.mkdir()
        if content == "text":
            (folder / "readme").write_text("weights")
    with pytest.raises(UsageError, match="saved: a folder that holds no Orbax checkpoint") as error:
        load_pretrained("mlp", str(folder), small())
    assert "\n" not in str(error.value)


def test_another_network_is_named(tmp_path):
    v1(tmp_path / "saved", small(classes=4))
    with pytest.raises(UsageError, match=r"saved: 'params/.*' has the shape"):
        load_pretrained("mlp", str(tmp_path / "saved"), small())


def test_imagenet_is_a_word(tmp_path, monkeypatch):
    monkeypatch.setenv("FAIRGRAPE_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    fresh = zeros_of("resnet18", 2)
    with pytest.raises(UsageError, match=r"put resnet18-f37072fd\.pth"):
        load_pretrained("resnet18", "imagenet", fresh)
    save_file(golden_state("resnet18"), tmp_path / "resnet18.safetensors")
    loaded = load_pretrained("resnet18", "imagenet", fresh)
    assert_array_equal(
        loaded["batch_stats"]["bn1"]["mean"], golden_state("resnet18")["bn1.running_mean"]
    )
