"""Coupled channels: found in networks of every kind, and as Torch-Pruning finds them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fairgrape_jax import models
from fairgrape_jax.structures import find_structures, shrink, sum_importance
from tests.helpers.datasets import SHARED
from tests.helpers.golden_networks import golden_state
from tests.helpers.small_networks import NETWORKS


@pytest.mark.parametrize("name", [name for name in NETWORKS if NETWORKS[name]().groups])
def test_the_groups_of_a_network(name):
    network = NETWORKS[name]()
    structures = find_structures(network.apply, network.params, network.x)
    groups = {tuple(structures.members(g.name)): g.size for g in structures.groups}
    assert groups == network.groups
    assert structures.whole == network.whole


def test_a_network_without_structures_is_refused_with_every_reason():
    network = NETWORKS["over_channels"]()
    with pytest.raises(ValueError, match="no channel of this network can be pruned") as error:
        find_structures(network.apply, network.params, network.x)
    for name, reason in network.whole.items():
        assert f"{name} stays whole because of {reason}" in str(error.value)


def test_a_network_that_cannot_be_traced_is_refused_in_one_line():
    with pytest.raises(ValueError, match=r"apply: cannot be traced.*TypeError") as error:
        find_structures(lambda p, x: x @ p["a"], {"a": np.ones((3, 2))}, np.ones((2, 4)))
    assert "\n" not in str(error.value)


def test_weights_that_no_output_needs_are_no_structure():
    params = {"a": np.ones((3, 4)), "b": np.ones((4, 2)), "unused": np.ones((4, 4))}
    structures = find_structures(lambda p, x: x @ p["a"] @ p["b"], params, np.ones((1, 3)))
    assert [structures.members(g.name) for g in structures.groups] == [["a[1]", "b[0]"]]


# -- Torch-Pruning ---------------------------------------------------------------------------------
def golden():
    path = SHARED / "golden" / "related" / "09_torch_pruning.npz"
    if not path.exists():
        pytest.skip(f"{path.name} is not at hand: set FAIRGRAPE_SHARED to the folder of golden/")
    return np.load(path)


def torch_members(structures, group):
    """The members of a group as the file names them; biases and statistics are not listed there."""
    names = set()
    for member in group.members:
        collection, *modules, leaf = structures.names[member.leaf].split("/")
        if collection == "params" and leaf != "bias":
            module = ".".join(part.replace("_", ".") for part in modules)
            reads = leaf == "kernel" and member.axis != (1 if "classifier" in module else 3)
            reads = reads and (module, member.axis) != ("fc", 1)
            names.add(f"{module}|{'in' if reads else 'out'}")
    return frozenset(names)


@pytest.mark.whole(but=1)
@pytest.mark.parametrize("name", ["resnet18", "resnet50", "mobilenet_v2"])
def test_groups_choice_and_logits_are_those_of_torch_pruning(name):
    file = golden()
    seed, count = int(file["seed"]), len(file[f"{name}.group_sizes"])
    variables = models.from_torchvision(name, golden_state(name, seed))
    module = models.create(name, 7)
    pictures = np.random.default_rng(seed).standard_normal((12, 3, 64, 64)).astype(np.float32)
    x = pictures.transpose(0, 2, 3, 1)
    structures = find_structures(module.apply, variables, x)

    theirs = {frozenset(file[f"{name}.group_members"][i].split(";")): i for i in range(count)}
    numbers = {g.name: theirs[torch_members(structures, g)] for g in structures.groups}
    assert sorted(numbers.values()) == list(range(count))

    def absolute(path, leaf):
        return np.abs(leaf)[None] if path[-1].key in ("kernel", "scale") else None

    scores = sum_importance(structures, jax.tree_util.tree_map_with_path(absolute, variables))
    masks = {}
    for group in structures.groups:
        key = f"{name}.group{numbers[group.name]}."
        ours = f"{key}removed_if_depthwise_counted"
        removed = file[ours] if ours in file else file[f"{key}removed"]
        lowest = np.argsort(scores[group.name][0], kind="stable")[: len(removed)]
        np.testing.assert_array_equal(np.sort(lowest), removed)
        if ours not in file:
            np.testing.assert_allclose(scores[group.name][0], file[f"{key}score"], rtol=1e-6)
        masks[group.name] = ~np.isin(np.arange(group.size), file[f"{key}removed"])

    small = shrink(structures, variables, masks)
    assert sum(leaf.size for leaf in jax.tree.leaves(small.params["params"])) == int(
        file[f"{name}.n_params"][1]
    )
    expected = file[f"{name}.logits_pruned"]
    logits = small.apply(small.params, jnp.asarray(x))
    assert np.abs(logits - expected).max() < 1e-5 * np.abs(expected).max()
