"""Budgets of operations for methods that keep whole units of single layers."""

import dataclasses

import jax
import numpy as np
import pytest

import fairgrape_jax as fg
from fairgrape_jax.data import load
from fairgrape_jax.errors import UsageError
from fairgrape_jax.masks import full_masks, layer_names
from fairgrape_jax.methods import METHODS, Problem
from fairgrape_jax.methods.unit_flops import (
    density_within_flops,
    operations,
    output_places,
    weight_costs,
)
from fairgrape_jax.models import create
from fairgrape_jax.rounds.select import make_problem, select
from fairgrape_jax.structures.cost import Counter
from tests.helpers.experiments import TINY, opened

ROWS = [name for name, row in METHODS.items() if row.counts is not None]
PLACES = {"conv1": 64, "conv2": 16, "fc1": 1, "fc2": 1}  # 8x8, halved, one
FLOPS = dataclasses.replace(
    TINY,
    seeds=(0,),
    densities=(0.6, 0.3),
    min_keep_per_layer=1,
    scoring=dataclasses.replace(TINY.scoring, structures="flops"),
)


@pytest.fixture(scope="module")
def tiny():
    return opened(FLOPS, load(FLOPS.data))


def left(masks):
    """The operations of masks, of those of all weights."""
    sums = {name: (mask["kernel"].sum(), mask["kernel"].size) for name, mask in masks.items()}
    kept, whole = (sum(PLACES[n] * s[i] for n, s in sums.items()) for i in range(2))
    return kept / whole


@pytest.mark.parametrize("budget", [0.5, 0.3])
@pytest.mark.parametrize("name", ROWS)
def test_a_choice_is_the_largest_within_the_operations(name, budget, tiny):
    session, network = tiny
    masks, _ = select(session, network, name, density=budget, seed=0)
    question = make_problem(session, network, seed=0)
    density = density_within_flops(question, budget, METHODS[name].counts)
    more = METHODS[name].counts(question, density * (1 + 1e-9))
    costs = weight_costs(question)
    assert costs == PLACES
    sizes = {layer: mask["kernel"].size for layer, mask in question.masks.items()}
    whole = operations(sizes, costs)
    assert left(masks) <= budget
    assert left(masks) == pytest.approx(
        operations(METHODS[name].counts(question, density), costs) / whole
    )
    assert operations(more, costs) / whole > budget


@pytest.mark.parametrize(("model", "size"), [("cnn", 28), ("resnet18", 33), ("mobilenet_v2", 32)])
def test_operations_are_those_that_are_counted_on_the_program(model, size):
    """Strides, odd sides and depthwise convolutions, against the counter of structures."""
    module, shape = create(model, 5), (size, size, 1 if model == "cnn" else 3)
    picture = jax.ShapeDtypeStruct((1, *shape), np.float32)
    variables = jax.eval_shape(module.init, jax.random.key(0), picture)
    masks = full_masks(variables["params"])
    costs = weight_costs(Problem(variables["params"], masks, module=module, shape=shape))
    leaves = jax.tree.leaves(masks)
    sizes = {n: mask.size for n, mask in zip(layer_names(masks), leaves, strict=True)}
    structures = fg.find_structures(module.apply, variables, picture)
    counted = Counter(structures)(structures.full_masks()).flops
    assert 2 * operations(sizes, costs) == counted


@pytest.mark.whole
def test_a_run_keeps_to_its_operations_in_every_round(tmp_path):
    experiment = dataclasses.replace(FLOPS, methods=("stripes-fair", "swp", "layerwise"))
    finished = fg.run(experiment, tmp_path / "run")
    for stage in finished.stages:
        loaded = fg.load(tmp_path / "run", stage)
        if loaded.round:
            budget = experiment.densities[loaded.round - 1]
            masks = {
                name: layer for name, layer in loaded.masks.items() if layer["kernel"] is not None
            }
            assert 0.8 * budget < left(masks) <= budget


@pytest.mark.parametrize(
    ("fields", "scoring", "words"),
    [
        ({"densities": (1e-6,)}, {}, "scoring.structures: budget: 1e-06 of the operations cannot"),
        ({"densities": (0.01,), "methods": ("layerwise",)}, {}, "cannot be kept to"),
        ({}, {"allocation": "global"}, "scoring.structures: allocation: stripes are counted"),
        ({}, {"structure_multiple": 8}, "scoring.structure_multiple: stripes counts units"),
    ],
)
def test_budgets_that_cannot_be_are_refused_before_a_run(fields, scoring, words, tmp_path):
    changed = dataclasses.replace(FLOPS.scoring, **scoring)
    experiment = dataclasses.replace(
        FLOPS, **{"methods": ("stripes",), "scoring": changed} | fields
    )
    with pytest.raises(UsageError, match=words):
        fg.run(experiment, tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()


def test_places_of_an_output_that_is_no_array_are_left_out():
    assert "" in output_places(create("cnn", 3), (8, 8, 1))
    with pytest.raises(ValueError, match="operations are counted on a module"):
        weight_costs(Problem(None, {"a": np.ones((2, 2), bool)}))
    other = Problem(None, {"a": np.ones((2, 2), bool)}, module=create("cnn", 3), shape=(8, 8, 1))
    with pytest.raises(ValueError, match="layer a is no module"):
        weight_costs(other)
