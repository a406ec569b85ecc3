"""A run's stages in bfloat16 and int8: what the table says is what the networks predict."""

import jax
import numpy as np
import pytest

import fairgrape_jax as fg
from fairgrape_jax import data
from fairgrape_jax.cli.main import main
from fairgrape_jax.data import augment
from fairgrape_jax.errors import UsageError
from fairgrape_jax.exporters.precisions import Precisions
from fairgrape_jax.runner.run import run as do
from tests.helpers.experiments import TINY, with_fields

STAGE = "fairgrape/round_02"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    directory = tmp_path_factory.mktemp("runs") / "tiny"
    do(with_fields(TINY, seeds=(0,), methods=("fairgrape",)), directory)
    return directory


@pytest.fixture(scope="module")
def rows(run):
    stage = fg.load(run, f"seed_0/{STAGE}")
    dataset = data.load(stage.experiment.data)
    precisions = Precisions(stage.experiment, dataset)
    return stage, dataset, precisions, precisions.of_stage(stage, epochs=1, rate=1e-3)


def test_every_precision_predicts_as_its_arrays_do(rows):
    stage, dataset, precisions, (float32, bfloat16, int8, trained) = rows
    names = [row.precision for row in (float32, bfloat16, int8, trained)]
    assert names == ["float32", "bfloat16", "int8", "int8, trained"]
    np.testing.assert_array_equal(float32.predictions.predictions, stage.predictions.predictions)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(stage.variables))
    assert (float32.bytes, 2 * bfloat16.bytes) == (size, size)
    assert size / 4 < int8.bytes == trained.bytes < size / 3
    for row in (float32, bfloat16, int8, trained):
        assert row.bytes_sparse < row.bytes
        assert len(row.predictions.labels) == len(dataset.test)

    def apply(variables, images):
        return stage.module.apply(variables, images, train=False)

    pictures = precisions.calibration_pictures(512)
    assert sum(map(len, pictures)) == len(dataset.train)
    network = fg.quantize_int8(stage.variables, apply=apply, inputs=pictures)
    shown = augment.normalise(jax.numpy.asarray(dataset.test.images), dataset.mean, dataset.std)
    for function in (network.apply, network.apply_integer):
        logits = np.asarray(function(network.params, shown))
        expected = np.asarray(jax.nn.softmax(logits))
        np.testing.assert_allclose(int8.predictions.scores, expected, atol=0.02)
    exact = np.asarray(stage.predictions.scores)
    assert 0 < np.abs(int8.predictions.scores - exact).max() < 0.2


def test_training_in_int8_keeps_masks_and_lowers_its_loss(rows):
    stage, _, precisions, (_, _, int8, trained) = rows
    assert trained.predictions.losses.mean() < int8.predictions.losses.mean()
    bounds = {f"params/{name}/kernel": np.float32([-1, 3]) for name in stage.masks}
    params = stage.variables["params"]
    after = precisions.train(stage, params, {"of": {}, "bounds": bounds}, 1, 1e-3)
    for name, mask in stage.masks.items():
        assert not after[name]["kernel"][~mask["kernel"]].any()
        assert (after[name]["kernel"] != np.asarray(params[name]["kernel"])).any()


@pytest.mark.whole
def test_the_table_is_that_of_the_predictions(run, rows, tmp_path, capsys):
    _, dataset, _, networks = rows
    out = tmp_path / "out"
    assert main(["quantize", str(run), STAGE, "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    lines = [line for line in printed.splitlines() if line.startswith(("dense ", STAGE))]
    assert [line.split()[0] for line in lines] == ["dense"] * 3 + [STAGE] * 3
    assert "accuracy of group 0" in printed
    assert "change of group 2" in printed
    right = networks[2].predictions.predictions[:, 0] == dataset.test.labels[:, 0]
    assert f" {100 * right.mean():.0f}" in lines[-1]
    assert {p.name for p in out.iterdir()} >= {"report.html", "metrics.json", "table.md"}
    assert (out / "table.md").read_text().count("\n") == 8
    assert f"{STAGE}, int8" in (out / "report.md").read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stages": ["fairgrape/round_09"]}, "round_09' is not finished for seed 0; there are: d"),
        ({"stages": ["seed_0/dense"]}, "names without the seed"),
        ({"epochs": -1}, "epochs is 0 or more"),
        ({"calibration": 0}, "calibration 1 or more"),
        ({"rate": float("nan")}, "rate above 0"),
        ({"run": "nowhere"}, "nowhere: not a run"),
    ],
)
def test_what_cannot_be_looked_at_is_refused(run, change, message):
    with pytest.raises(UsageError, match=message):
        fg.audit_precisions(**({"run": run} | change))


def test_by_default_the_last_round_of_each_method_is_looked_at(run):
    made = fg.audit_precisions(run, calibration=16)
    assert [row[0] for row in made.rows[::3]] == ["dense", "fairgrape/round_03"]
    assert list(made.audits) == ["class"]
