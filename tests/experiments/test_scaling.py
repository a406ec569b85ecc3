"""Scaling on paper: the document says what the script prints; the counts are the network's."""

import importlib.util
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from fairgrape_jax import masks, models

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def scaling():
    spec = importlib.util.spec_from_file_location("scaling", ROOT / "experiments" / "scaling.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["scaling"] = module  # where a dataclass looks for its types
    spec.loader.exec_module(module)
    return module


def test_the_document_has_the_tables_that_the_script_prints(scaling):
    assert scaling.tables() in (ROOT / "docs" / "scaling.md").read_text()


def test_the_counts_are_those_of_our_resnet50(scaling):
    module = models.create("resnet50", 1000)
    image = jnp.zeros((1, 224, 224, 3))
    variables = jax.eval_shape(module.init, jax.random.key(0), image)
    counted = scaling.resnet50()
    params = variables["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == counted.parameters
    kernels = masks.select_prunable(masks.full_masks(params), params)
    assert sum(leaf.size for leaf in jax.tree.leaves(kernels)) == counted.weights
    operations = jax.jit(module.apply).lower(variables, image).cost_analysis()["flops"]
    # XLA also counts norms and additions, and leaves out products with the padding.
    assert operations == pytest.approx(2 * counted.multiplications, rel=0.03)


def test_communication_does_not_grow_with_images_and_importance_not_with_groups(scaling):
    network, chip = scaling.resnet50(), scaling.CHIP
    two, fourteen = (scaling.scoring_row(network, chip, 64, groups) for groups in (2, 14))
    assert two["gradients, s"] == fourteen["gradients, s"]
    assert scaling.all_reduce(chip, 1, 1e9) == 0
    ring = scaling.all_reduce(chip, 8, chip.near)  # a second's worth of bytes
    assert ring == pytest.approx(2 * 7 / 8)
