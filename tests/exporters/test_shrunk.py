"""`--shrink`: a run's pruned channels stay behind, and what leaves predicts the same."""

from __future__ import annotations

import dataclasses
import json
import re

import jax
import numpy as np
import pytest
from jax import export as jax_export
from safetensors.numpy import load_file

import fairgrape_jax as fg
from fairgrape_jax import models
from fairgrape_jax.cli.main import main
from fairgrape_jax.errors import UsageError
from fairgrape_jax.exporters import measure, stage
from fairgrape_jax.exporters.shrunk import shrink_model
from fairgrape_jax.models.narrow import narrow
from fairgrape_jax.reports import results, run_results, run_summary
from fairgrape_jax.runner.run import run as do
from tests.helpers.experiments import TINY, with_fields
from tests.helpers.small_networks import NETWORKS

STAGE = "seed_0/fairgrape/round_02"
OUT = "out"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    directory = tmp_path_factory.mktemp("runs") / "channels"
    scoring = dataclasses.replace(TINY.scoring, structures="flops", structure_multiple=2)
    do(
        with_fields(TINY, seeds=(0,), methods=("fairgrape",), sparsity=0.6, scoring=scoring),
        directory,
    )
    return directory


@pytest.fixture(scope="module")
def small(run):
    return measure.measure(run / STAGE, 1, form="shrunk")


@pytest.mark.whole
def test_the_report_says_what_is_left_of_the_operations(run):
    models = results.read_all([run])
    compared = run_results.gather([run], models, results.compare_rounds(models, replicates=20))
    line = run_summary.what_was_done(compared)
    assert re.search(r" to [\d.]+ % of its weights and 40 % of its operations in 2 rounds", line)


def test_measure_shows_that_the_small_network_has_the_logits_of_the_whole(run, small):
    assert 0 <= small.difference < 1e-5
    *_, last, _ = measure.table([measure.measure(run / STAGE, 1), small]).splitlines()
    words, number = "logits differ by, of the largest", f"{small.difference:.0e}"
    assert last.split() == f"{words} {number}".split()


def test_a_stage_that_stays_whole_stands_beside_one_that_does_not(run, capsys):
    dense, pruned = str(run / "seed_0/dense"), str(run / STAGE)
    assert main(["measure", dense, pruned, "--shrink", "--repeats", "1"]) == 0
    text = capsys.readouterr().out
    assert text.splitlines()[0].split(", shrunk")[0].split() == ["seed_0/dense", STAGE, STAGE]
    assert f"note: {dense}: no channel of it is pruned as a whole" in text
    assert main(["measure", dense, "--shrink", "--repeats", "1"]) == 2
    assert "no channel of it is pruned as a whole" in capsys.readouterr().err


@pytest.mark.whole(but=1)
@pytest.mark.parametrize("to", ["safetensors", "npz", "stablehlo", "hf", "masks", "sparse"])
def test_the_small_network_leaves_and_predicts_what_the_run_did(run, small, to, tmp_path):
    made = fg.export(run / STAGE, tmp_path / OUT, to=to, shrink=True)
    assert (made.changed, made.samples) == (0, 40)
    card = (tmp_path / OUT / "README.md").read_text()
    left, whole = (
        int(number.replace(",", ""))
        for number in re.search(r"network: ([\d,]+) of ([\d,]+) numbers", card).groups()
    )
    stored = fg.load(run, STAGE)
    assert whole == sum(leaf.size for leaf in jax.tree.leaves(stored.params))
    assert 0 < left < 0.7 * whole
    assert left == small.parameters
    assert "Faster inference by itself" not in card
    assert "Faster inference by itself" in stage.read(run / STAGE, 1)[0].card
    config = json.loads((tmp_path / OUT / "config.json").read_text())
    assert config["shrunk"] == {"numbers": left, "of": whole}
    if to == "safetensors":
        arrays = load_file(tmp_path / OUT / "model.safetensors")
        assert sum(array.size for array in arrays.values()) == left
    if to == "stablehlo":  # of any number of pictures
        program = jax_export.deserialize(
            bytearray((tmp_path / OUT / "model.stablehlo").read_bytes())
        )
        model, _ = stage.read(run / STAGE, 7)
        expected = model.function()(model.inputs)
        np.testing.assert_allclose(program.call(model.inputs), expected, rtol=1e-5, atol=1e-5)


def test_a_smaller_network_with_other_logits_is_not_measured(run, monkeypatch):
    cut = measure.cut

    def wrong(*arguments):
        small, kept = cut(*arguments)
        params = jax.tree.map(lambda leaf: leaf * 1.01, small.params)
        return dataclasses.replace(small, params=params), kept

    monkeypatch.setattr(measure, "cut", wrong)
    with pytest.raises(UsageError, match=r"round_02: shrunk it gives other logits, by .*e-02 of"):
        measure.measure(run / STAGE, 1, form="shrunk")


def test_config_json_has_the_widths_that_rebuild_it(run, tmp_path):
    fg.export(run / STAGE, tmp_path / OUT, to="safetensors", shrink=True)
    config = json.loads((tmp_path / OUT / "config.json").read_text())
    module = narrow(models.create(config["model"], config["num_classes"]), config["widths"])
    shape = (1, *config["input"]["shape"])
    fresh = jax.eval_shape(module.init, jax.random.key(0), np.zeros(shape, np.float32))
    arrays = load_file(tmp_path / OUT / "model.safetensors")
    shapes = [leaf.shape for leaf in jax.tree.leaves(dict(fresh))]
    assert shapes == [arrays[name].shape for name in sorted(arrays)]


def test_the_command_shrinks_and_what_is_not_pruned_is_refused(run, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["export", "--to", "npz", "--shrink", "--out", OUT]
    assert main([*words, str(run / "seed_0/dense")]) == 2
    assert "no channel of it is pruned as a whole" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    assert main([*words, str(run / STAGE)]) == 0
    assert "0 predictions other than the run's" in capsys.readouterr().out


@pytest.mark.whole(but=1)
@pytest.mark.parametrize("to", ["torchvision", "timm"])
def test_a_librarys_own_network_has_all_channels(to, tmp_path):
    module = models.create("resnet18", 2)
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
    shapes = jax.eval_shape(module.init, jax.random.key(0), images)
    variables = jax.tree.map(lambda leaf: np.full(leaf.shape, 0.01, np.float32), shapes)
    structures = fg.find_structures(module.apply, variables, images)
    kept = {group.name: np.arange(group.size) % 2 == 0 for group in structures.groups}
    masks = fg.structures.zero_masks(structures, fg.full_masks(variables), kept)
    with pytest.raises(
        UsageError, match=rf"--to {to}: {to}'s resnet18 has the channels that --shri"
    ):
        fg.export(
            variables,
            tmp_path / OUT,
            to=to,
            name="resnet18",
            masks=masks,
            apply=module.apply,
            inputs=images,
            shrink=True,
        )
    assert not list(tmp_path.iterdir())


# --- networks of one's own


def halved(name):
    """A network and masks of its arrays of two or more axes, half of each group pruned."""
    network = NETWORKS[name]()
    structures = fg.find_structures(network.apply, network.params, network.x)
    kept = {group.name: np.arange(group.size) % 2 == 0 for group in structures.groups}
    everything = fg.full_masks(network.params, lambda path, leaf: leaf.ndim > 1)
    return network, fg.structures.zero_masks(structures, everything, kept)


@pytest.mark.parametrize("name", ["mlp", "residual", "flattened", "attention"])
def test_a_network_of_ones_own_is_shrunk(name, tmp_path):
    network, masks = halved(name)
    call = {"masks": masks, "apply": network.apply, "inputs": network.x, "shrink": True}
    made = fg.export(network.params, tmp_path / "arrays", to="npz", **call)
    assert made.largest == 0
    expected = network.apply(fg.apply_masks(masks, network.params), network.x)
    options = {} if network.reads_shapes else {"batch": len(network.x)}
    fg.export(network.params, tmp_path / OUT, to="stablehlo", **call, **options)
    program = jax_export.deserialize(bytearray((tmp_path / OUT / "model.stablehlo").read_bytes()))
    outputs = program.call(network.x)
    assert np.abs(outputs - expected).max() <= 1e-5 * np.abs(expected).max()


def test_a_network_that_needs_what_was_pruned_is_refused(tmp_path):
    """The last array has one axis and no mask: a pruned unit's bias goes through it."""
    rng = np.random.default_rng(0)
    params = {"kernel": rng.normal(size=(3, 6)), "bias": np.ones(6), "last": np.ones(6)}
    params = jax.tree.map(np.float32, params)
    masks = {"kernel": np.ones((3, 6), bool), "bias": None, "last": None}
    masks["kernel"][:, :2] = False
    x = rng.normal(size=(4, 3)).astype(np.float32)

    def apply(p, x):
        return jax.nn.relu(x @ p["kernel"] + p["bias"]) @ p["last"][:, None]

    call = {"masks": masks, "apply": apply, "inputs": x}
    with pytest.raises(UsageError, match=r"other outputs than with them .* reads their biases"):
        fg.export(params, tmp_path / OUT, to="npz", shrink=True, **call)
    assert not list(tmp_path.iterdir())
    params["bias"][:] = 0
    fg.export(params, tmp_path / OUT, to="npz", shrink=True, **call)
    assert np.load(tmp_path / OUT / "model.npz")["last"].shape == (4,)


def test_a_group_without_masks_stays_whole(tmp_path):
    network, masks = halved("mlp")
    network.params["a_bias"][:] = 0  # which the next layer reads, having no mask
    masks = dict.fromkeys(masks) | {"a": masks["a"]}
    call = {"masks": masks, "apply": network.apply, "inputs": network.x, "shrink": True}
    fg.export(network.params, tmp_path / OUT, to="npz", **call)
    with np.load(tmp_path / OUT / "model.npz") as arrays:
        assert (arrays["a"].shape, arrays["b"].shape, arrays["c"].shape) == ((3, 3), (3, 4), (4, 2))


def test_shrinking_needs_a_function_and_inputs(tmp_path):
    with pytest.raises(UsageError, match="shrink: needs apply="):
        fg.export({"w": np.ones((2, 2))}, tmp_path / OUT, to="npz", shrink=True)
    network, _ = halved("mlp")
    whole = fg.full_masks(network.params, lambda path, leaf: leaf.ndim > 1)
    call = {"apply": network.apply, "inputs": network.x, "shrink": True}
    for masks in (None, whole):
        with pytest.raises(UsageError, match="no channel of it is pruned as a whole"):
            fg.export(network.params, tmp_path / OUT, to="npz", masks=masks, **call)
    assert not list(tmp_path.iterdir())


def test_bfloat16_runs_are_compared_in_their_precision(run):
    model, _ = stage.read(run / STAGE, 4)
    assert shrink_model(dataclasses.replace(model, tolerance=3e-2)).is_whole is False
