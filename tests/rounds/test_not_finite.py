"""Scores and evaluations that are not finite name their samples, and are none."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fairgrape_jax import losses, models
from fairgrape_jax.cli.main import main
from fairgrape_jax.config import Clusters, Rollback, Stage
from fairgrape_jax.rounds import score
from fairgrape_jax.rounds.predict import predict
from fairgrape_jax.rounds.session import Network, place_on_devices
from fairgrape_jax.runner.run import run
from fairgrape_jax.scoring.statistics import GRADIENT, SQUARES
from fairgrape_jax.training import evaluate
from fairgrape_jax.training.finite import NotFiniteError
from tests.helpers.experiments import TINY, with_fields
from tests.helpers.networks import Normed
from tests.helpers.not_finite import SHORT, built, plain, times, with_kernel


@pytest.fixture(autouse=True)
def normed(monkeypatch):
    monkeypatch.setitem(models.MODELS, "normed", Normed)


def marked(labels, number):
    """Labels of two classes, and the third for one sample alone."""
    changed = np.minimum(labels, 1)
    changed[number] = 2
    return changed


def poisoned(logits, labels, classes):
    """Cross-entropy whose gradient is not finite for samples of the third class."""
    return plain(logits, labels, classes) + jnp.sqrt(
        jnp.where(labels[:, 0] == 2, 0 * logits.sum(1), 1)
    )


@pytest.mark.parametrize(
    ("devices", "fields"),
    [(1, {}), (4, {}), (2, {"shard_groups": True}), (2, {"form": "mixed"})],
)
@pytest.mark.parametrize("statistic", [SQUARES, pytest.param(GRADIENT, marks=pytest.mark.slow)])
def test_a_micro_batch_whose_score_is_not_finite_is_found(devices, fields, statistic, monkeypatch):
    monkeypatch.setattr(losses, "cross_entropy", poisoned)
    shard = fields.get("shard_groups", False)
    options = dataclasses.replace(TINY.scoring, fraction=1.0, form=fields.get("form", "pure"))
    session, network, _ = built(devices=devices, scoring=options, shard_groups=shard)
    lone, dataset = 77, session.dataset
    labels = marked(dataset.train.labels, lone)

    def average(labels):
        train = dataclasses.replace(dataset.train, labels=labels)
        changed = dataclasses.replace(session, dataset=dataclasses.replace(dataset, train=train))
        return score.average(changed, network, statistic, over="groups", seed=3)

    with pytest.raises(NotFiniteError, match="statistic of conv") as error:
        average(labels)
    details = error.value.record.details
    assert lone in details["ids"]
    assert len(details["ids"]) <= 16
    assert details["micro_batch"] >= 0
    found = average(marked(labels, np.zeros(0, int)))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))


@pytest.mark.parametrize("groups", [None, pytest.param(Clusters(2), marks=pytest.mark.slow)])
def test_scores_that_are_not_finite_leave_a_repro_file(groups, tmp_path, monkeypatch, capsys):
    """The gradients of the dense network overflow when they are squared."""
    scoring = dataclasses.replace(SHORT.scoring, groups=groups)
    experiment = dataclasses.replace(SHORT, methods=("fairgrape",), scoring=scoring)
    run(dataclasses.replace(experiment, methods=("magnitude",)), tmp_path / "run")
    stored = tmp_path / "run/config.json"
    known = json.loads(stored.read_text())
    known["experiment"]["methods"] = ["fairgrape"]
    stored.write_text(json.dumps(known))
    monkeypatch.setattr(losses, "cross_entropy", times(1e30))
    with pytest.raises(NotFiniteError, match=r"statistic of conv1 .*\(micro-batch 0\)"):
        run(experiment, tmp_path / "run")
    place = tmp_path / "run/seed_0/fairgrape/round_01/not_finite"
    assert json.loads((place / "repro.json").read_text())["kind"] == "scoring"
    assert main(["replay", str(place)]) == 0
    assert "again:    statistic of conv1" in capsys.readouterr().out


def test_an_evaluation_that_is_not_finite_is_none():
    """The class with the largest of scores that are all NaN would be the first one."""
    session, network, _ = built()
    state = with_kernel(network.state, "head", np.float32(np.inf))
    network = place_on_devices(session, Network(state, network.masks))
    with pytest.raises(NotFiniteError, match="loss not finite in the evaluation of 40 samples"):
        predict(session, network, "test")


def test_an_evaluation_in_training_is_gone_back_from(tmp_path, monkeypatch):
    """The validation loss of the second epoch is NaN once."""
    said, calls = evaluate.predict, []

    def failing(*args, **options):
        calls.append(1)
        found = said(*args, **options)
        if len(calls) == 2:
            found.losses[3] = np.nan
        return found

    monkeypatch.setattr(evaluate, "predict", failing)
    dense = Stage((2, 1), (1e-2, 1e-3), best=True)
    lowered = with_fields(SHORT, dense=dense, rollback=Rollback(retries=1))
    run(lowered, tmp_path / "run")
    record = json.loads((tmp_path / "run/seed_0/dense/metrics.json").read_text())
    assert "step" not in record["rollbacks"][0]
    assert record["history"][0]["rate"] == 5e-3
    place = tmp_path / "run/seed_0/dense/not_finite/repro.json"
    assert json.loads(place.read_text())["ids"] == [3]
