"""Networks that are retrained with quantisers: alike on any devices, gone on with, never silent."""

import dataclasses
import json
from functools import cache

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from fairgrape_jax import config, exporters, models
from fairgrape_jax.cli.main import main
from fairgrape_jax.config import Stage
from fairgrape_jax.data import augment, batches, load
from fairgrape_jax.errors import UsageError
from fairgrape_jax.exporters.base import Model
from fairgrape_jax.exporters.measure import measure, table
from fairgrape_jax.exporters.precisions import Precisions
from fairgrape_jax.exporters.table import EXPORTERS
from fairgrape_jax.methods import METHODS
from fairgrape_jax.models import mobilenet
from fairgrape_jax.models.resnet import BasicBlock, ResNet
from fairgrape_jax.rounds.ingredients import TakingPart
from fairgrape_jax.rounds.retraining import retraining_step
from fairgrape_jax.runner import run as runner
from fairgrape_jax.runner.stage import load as load_stage
from fairgrape_jax.systems import quantised
from fairgrape_jax.systems.options import Quantisation
from fairgrape_jax.training.finite import NotFiniteError
from tests.helpers.experiments import opened
from tests.helpers.ingredient_runs import TINY, StoppedError, one_step, trained
from tests.helpers.not_finite import SHORT
from tests.helpers.related import golden

BITS = Quantisation(weights=4, activations=4)
NETWORKS = {"cnn": 1, "mlp": 1, "resnet18": 3, "mobilenet_v2": 3}


def pictures(channels, seed=0):
    x = np.random.default_rng(seed).standard_normal((4, 16, 16, channels))
    return jnp.asarray(x, jnp.float32)


def train_once(module, variables, x):
    """The variables after a forward pass in train mode."""
    _, changed = module.apply(
        variables, x, train=True, mutable=["batch_stats"], rngs={"dropout": jax.random.key(0)}
    )
    return variables | changed


def values_of_outputs(kernel):
    """The most different weights of an output."""
    return max(len(np.unique(row)) for row in np.moveaxis(np.asarray(kernel), -1, 0))


@pytest.mark.parametrize("name", NETWORKS)
def test_every_layer_of_a_network_has_quantisers_and_its_parameters_are_those_of_without(name):
    """Shapes and names of the whole networks."""
    plain, x = models.create(name, 3), pictures(NETWORKS[name])
    module = quantised.with_quantisers(plain, BITS)
    one, other = (jax.eval_shape(each.init, jax.random.key(0), x) for each in (plain, module))
    assert one["params"] == other["params"]
    without = quantised.without_quantisers(other["batch_stats"])
    assert without == one.get("batch_stats", {})
    kernels = [path for path in flatten_dict(one["params"]) if path[-1] == "kernel"]
    assert quantised.quantised_layers(other["batch_stats"]) == {"/".join(p[:-1]) for p in kernels}
    # The dense training passes them on.
    after = jax.eval_shape(lambda v: train_once(plain, v, x)["batch_stats"], other)
    assert after == other["batch_stats"]


@pytest.mark.whole(but=2)
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_with_quantisers_has_at_first_the_outputs_of_without(name, monkeypatch):
    """Networks of several blocks without the rest of them, which are like these."""
    monkeypatch.setattr(mobilenet, "STAGES", mobilenet.STAGES[:2])
    small = {"resnet18": ResNet(BasicBlock, (1, 1), 3)}
    plain, x = small.get(name) or models.create(name, 3), pictures(NETWORKS[name])
    module = quantised.with_quantisers(plain, BITS)
    one, other = (jax.jit(each.init)(jax.random.key(0), x) for each in (plain, module))
    jax.tree.map(np.testing.assert_array_equal, one["params"], other["params"])
    np.testing.assert_array_equal(plain.apply(one, x), module.apply(other, x))
    assert not quantised.is_quantised(other["batch_stats"])
    after = jax.jit(lambda v: train_once(plain, v, x))(other)["batch_stats"]
    assert jax.tree.structure(after) == jax.tree.structure(other["batch_stats"])
    assert not quantised.is_quantised(after)


@pytest.mark.whole(but=1)
@pytest.mark.parametrize("options", [BITS, Quantisation(8, 0), Quantisation(0, 3)])
def test_weights_and_activations_take_no_more_values_than_their_bits(options, monkeypatch):
    module = quantised.with_quantisers(models.create("cnn", 3), options)
    x = pictures(1)
    variables = module.init(jax.random.key(0), x)
    variables["params"]["conv2"]["kernel"] *= np.arange(32) % 2  # every other filter is pruned
    held = train_once(module, variables, x)
    params = quantised.quantise_params(held["params"], held["batch_stats"], options)
    again = quantised.quantise_params(params, held["batch_stats"], options)
    jax.tree.map(np.testing.assert_array_equal, params, again)
    exact = held | {"params": params}
    np.testing.assert_array_equal(module.apply(held, x), module.apply(exact, x))
    inputs, promote = [], nn.dtypes.promote_dtype

    def note(x, kernel, bias, dtype):
        inputs.append((x, kernel))
        return promote(x, kernel, bias, dtype=dtype)

    monkeypatch.setattr(nn.dtypes, "promote_dtype", note)
    module.apply(exact, x)
    assert len(inputs) == len(params) == 4
    for number, layer in enumerate(params.values()):
        np.testing.assert_array_equal(inputs[number][1], layer["kernel"])
        if options.activations and number:
            assert len(np.unique(inputs[number][0])) <= 2**options.activations
    np.testing.assert_array_equal(inputs[0][0], x)  # pictures stay
    for layer in params.values():
        kernel = layer["kernel"]
        assert np.isfinite(kernel).all()
        if options.weights and kernel.ndim == 4:
            assert all(
                len(np.unique(row)) <= 2**options.weights for row in np.moveaxis(kernel, -1, 0)
            )
    np.testing.assert_array_equal(params["conv2"]["kernel"][..., ::2], 0)
    if not options.weights:
        jax.tree.map(np.testing.assert_array_equal, params, held["params"])
    gradient = jax.grad(lambda p: module.apply(held | {"params": p}, x).sum())(held["params"])
    assert all(np.isfinite(leaf).all() and np.any(leaf) for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("name", ["scaler", "decimal"])
def test_what_quantisers_see_and_give_is_the_librarys(name, bits):
    """Running scales of a convolution's outputs, and a running range, over successive steps."""
    file = golden("05_qsparse")
    options = Quantisation(weights=bits, activations=bits, quantiser=name)
    kernels = np.moveaxis(file["quant.weights"], 1, -1)  # the axis with a scale of its own
    seen = quantised.first_ranges(kernels[0], options, pictures=False)
    weights, values = f"quant.{name}.{bits}.w_channel0", f"quant.adaptive.{bits}.a_tensor"
    for step in range(1, 5):
        x, kernel = jnp.asarray(file["quant.activations"][step]), jnp.asarray(kernels[step])
        seen = quantised.update_ranges(seen, x, kernel, options, None)
        scale = file[f"{weights}.scale"][step - 1]
        np.testing.assert_allclose(np.ravel(seen["scale"]), np.ravel(scale), rtol=1e-6)
        within = np.stack([seen["lower"], seen["upper"]])
        np.testing.assert_allclose(within, np.ravel(file[f"{values}.scale"][step - 1]), rtol=1e-5)
    found = quantised.quantise_kernel(jnp.asarray(kernels[4]), seen["scale"], options)
    expected = np.moveaxis(file[f"{weights}.out_last_intended"], 0, -1)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    within = quantised.Range(seen["lower"], seen["upper"])
    for train, step, key in ((True, 4, "out_last"), (False, 0, "eval")):
        x = jnp.asarray(file["quant.activations"][step])
        found = quantised.quantise_inputs(x, within, bits, train)
        np.testing.assert_allclose(found, file[f"{values}.{key}"], rtol=1e-4, atol=1e-5)


@cache
def begin(model, devices=1):
    """As `ingredient_runs.begun`, for a retraining with quantisers."""
    experiment = dataclasses.replace(TINY, model=model, optimizer="sgd", quantise=BITS)
    session, dense = opened(experiment, load(TINY.data), devices, seed=1)
    step = retraining_step(session.steps, experiment.remedy, dense.state, session.dataset)
    return session, TakingPart((), session, dense), step


def test_a_step_is_the_same_on_one_device_and_on_eight():
    one, eight = (one_step("cnn", count, begin) for count in (1, 8))
    assert one[0] == pytest.approx(eight[0], rel=1e-5)
    for a, b in zip(*(jax.tree.leaves(found[1:]) for found in (one, eight)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6)


@pytest.mark.whole
def test_a_training_that_was_stopped_goes_on_to_the_same_bits(tmp_path):
    whole, history = trained("cnn", tmp_path / "whole", begin=begin)
    with pytest.raises(StoppedError):
        trained("cnn", tmp_path / "parts", stop_after=8, begin=begin)
    again, others = trained("cnn", tmp_path / "parts", begin=begin)
    assert history == others
    jax.tree.map(np.testing.assert_array_equal, whole, again)
    seen = whole[0].batch_stats["conv1"]["quantiser"]
    assert float(seen["steps"]) == int(whole[0].step)


LAYERWISE = tuple(name for name in METHODS if name.startswith("layerwise"))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Two rounds of the layerwise rows with quantisers, and of a row that trains before it."""
    directory = tmp_path_factory.mktemp("quantised") / "run"
    experiment = dataclasses.replace(
        TINY, methods=(*LAYERWISE, "swp"), densities=(0.6, 0.4), quantise=BITS
    )
    runner.run(experiment, directory)
    return directory


@pytest.mark.whole
@pytest.mark.parametrize("name", [*LAYERWISE, "swp"])
def test_a_round_is_evaluated_with_its_quantisers(run, name):
    """Its predictions are those of the quantised network, which is not the one without."""
    images = load(TINY.data).test.images
    for number in (1, 2):
        stage = load_stage(run, f"{name}/round_{number:02}")
        assert stage.bits == BITS
        seen = stage.batch_stats["conv1"]["quantiser"]
        epochs = len(stage.record["history"])
        steps_of_round = epochs * batches.steps_per_epoch(len(load(TINY.data).train), TINY.batch)
        assert float(seen["steps"]) == steps_of_round  # of this round alone
        logits = np.asarray(stage.apply(images))
        predicted = logits.argmax(axis=-1)[:, None]
        np.testing.assert_array_equal(predicted, stage.predictions.predictions)
        scaled = augment.normalise(images, *(tuple(stage.input[k]) for k in ("mean", "std")))
        plain = models.create("cnn", 3).apply({"params": stage.params}, scaled)
        assert np.abs(plain - logits).max() > 1e-3 * np.abs(logits).max()
        kernel = stage.variables["params"]["conv2"]["kernel"]
        assert values_of_outputs(kernel) <= 2**4
        alive = stage.masks["conv2"]["kernel"]
        assert not kernel[~alive].any()


@pytest.mark.whole
def test_the_dense_network_has_no_quantisers(run, tmp_path):
    stage = load_stage(run, "seed_0/dense")
    assert stage.bits is None
    assert stage.variables["batch_stats"] == {}
    assert "quantised" not in table([measure(run / "seed_0/dense", 1)])
    exporters.export(run / "seed_0/dense", tmp_path / "dense", to="npz")
    assert "quantised" not in json.loads((tmp_path / "dense/config.json").read_text())


@pytest.mark.whole
@pytest.mark.parametrize("form", ["stablehlo", "npz", "hf", "sparse"])
def test_an_export_says_that_the_network_is_quantised_and_gives_its_predictions(
    run, form, tmp_path
):
    found = exporters.export(run / "seed_0/layerwise/round_02", tmp_path / "out", to=form)
    assert found.changed == 0
    config_of = json.loads((tmp_path / "out/config.json").read_text())
    assert config_of["quantised"] == dataclasses.asdict(BITS)
    assert "weights 4 bits, activations 4 bits" in (tmp_path / "out/README.md").read_text()


@pytest.mark.whole
def test_a_measure_says_that_bits_are_simulated(run):
    text = table([measure(run / f"seed_0/{name}", 1) for name in ("dense", "layerwise/round_02")])
    assert "weights 4 bits, activations 4 bits" in text
    assert "simulated in floating point" in text


@pytest.mark.whole
def test_an_audit_of_int8_refuses_a_stage_that_is_quantised(run):
    stage = load_stage(run, "layerwise/round_02")
    precisions = Precisions(stage.experiment, load(TINY.data))
    with pytest.raises(UsageError, match="was retrained with quantisers"):
        precisions.of_stage(stage)


def test_torchvisions_form_is_refused(tmp_path):
    module = quantised.with_quantisers(ResNet(BasicBlock, (1, 1), 3), BITS)
    x = pictures(3)
    variables = train_once(module, module.init(jax.random.key(0), x), x)
    model = Model("resnet18", variables, {}, None, np.zeros((0,)), {}, "")
    with pytest.raises(UsageError, match="--to torchvision: the network is quantised"):
        EXPORTERS["torchvision"].check(model)


@pytest.mark.whole
def test_pretrained_weights_are_taken_by_a_network_with_quantisers(run):
    """Those of a stage of a run, as everywhere."""
    experiment = dataclasses.replace(
        TINY, quantise=BITS, pretrained=str(run / "seed_0/dense/checkpoint")
    )
    _, network = opened(experiment, load(TINY.data))
    dense = load_stage(run, "seed_0/dense")
    taken = network.state.params["conv2"]["kernel"]
    np.testing.assert_array_equal(taken, dense.params["conv2"]["kernel"])
    assert quantised.quantised_layers(network.state.batch_stats)


@pytest.mark.whole
def test_a_quantised_step_that_is_not_finite_is_replayed(tmp_path, capsys):
    experiment = dataclasses.replace(SHORT, retrain=Stage((1,), (1e30,)), quantise=BITS)
    with pytest.raises(NotFiniteError):
        runner.run(experiment, tmp_path)
    place = next(tmp_path.glob("seed_0/magnitude/round_01/not_finite"))
    known = json.loads((place / "repro.json").read_text())
    assert known["quantised"]
    capsys.readouterr()
    assert main(["replay", str(place)]) == 0
    assert f"again:    {known['not_finite'][0]}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"quantise": Quantisation(1, 8)}, "quantise.weights: 1 bits; give 2 to 16, or 0"),
        ({"quantise": Quantisation(8, 17)}, "quantise.activations: 17 bits"),
        ({"quantise": Quantisation(-1)}, "quantise.weights: -1 bits"),
        ({"quantise": Quantisation(0, 8, "decimal")}, "quantise.quantiser"),
        ({"quantise": BITS, "retrain": Stage()}, "no epoch of a round of magnitude"),
        (
            {"quantise": BITS, "methods": ("slr",), "retrain": Stage((1,), (1e-3,))},
            "no epoch of a round of slr",
        ),
    ],
)
def test_options_that_cannot_be_used_are_named(fields, words):
    with pytest.raises(UsageError, match=words):
        config.check(dataclasses.replace(TINY, **fields))


class Product(nn.Module):
    """A matrix product of its own."""

    @nn.compact
    def __call__(self, x):
        return x @ self.param("kernel", nn.initializers.lecun_normal(), (4, 3))


class Rough(nn.Module):
    """A network whose head is no layer of Linen's."""

    @nn.compact
    def __call__(self, x, train=False):
        return Product(name="head")(nn.Dense(4)(x.reshape(len(x), -1)))


def test_a_layer_that_cannot_be_quantised_is_named(monkeypatch):
    monkeypatch.setattr(models, "create", lambda *args, **options: Rough())
    with pytest.raises(UsageError, match="quantise: layer head is no Linen convolution"):
        opened(dataclasses.replace(TINY, quantise=BITS), load(TINY.data))
