"""Whole runs with ingredients of retraining: label-free, repeated when not finite, recorded."""

import dataclasses
import json

import numpy as np
import pytest

from fairgrape_jax.cli.main import main
from fairgrape_jax.config import Stage
from fairgrape_jax.config.scoring import Clusters
from fairgrape_jax.remedies import Duals, Remedy
from fairgrape_jax.rounds import retraining
from fairgrape_jax.runner.run import run
from fairgrape_jax.training.finite import NotFiniteError
from tests.helpers.experiments import with_fields
from tests.helpers.not_finite import SHORT

DUALS = Remedy(balanced=True, duals=Duals(rate=1.0, buffer=8, held_out=True), kd=1.0)


def test_clusters_stand_for_groups_in_retraining_too(tmp_path, monkeypatch):
    """No label of a group is looked at: the tables of the steps are the clusters."""
    tables, original = [], retraining.group_tables

    def noting(dataset, ingredients, devices):
        tables.append((dataset.groups, np.bincount(dataset.train.groups).tolist()))
        return original(dataset, ingredients, devices)

    monkeypatch.setattr(retraining, "group_tables", noting)
    remedy = Remedy(balanced=True, dro=0.5, transplant=1.0)
    experiment = dataclasses.replace(
        SHORT, remedy=remedy, scoring=dataclasses.replace(SHORT.scoring, groups=Clusters(4))
    )
    run(experiment, tmp_path)
    clusters = np.load(tmp_path / "seed_0/clusters.npz")
    sizes = np.bincount(next(clusters[k] for k in clusters.files if clusters[k].ndim == 1))
    assert tables == [(tuple(f"cluster {k}" for k in range(4)), sizes.tolist())]


@pytest.mark.whole
def test_a_step_that_is_not_finite_is_replayed_with_what_was_carried(tmp_path, capsys):
    broken = dataclasses.replace(SHORT, remedy=DUALS, retrain=Stage((3,), (1e30,)))
    with pytest.raises(NotFiniteError):
        run(broken, tmp_path)
    place = tmp_path / "seed_0/magnitude/round_01/not_finite"
    known = json.loads((place / "repro.json").read_text())
    capsys.readouterr()
    assert main(["replay", str(place)]) == 0
    assert f"again:    {known['not_finite'][0]}" in capsys.readouterr().out


@pytest.mark.whole
def test_on_two_devices_a_run_is_whole_and_its_remedy_changes_it(tmp_path):
    histories = []
    for name, remedy in (("with", DUALS), ("without", Remedy(kd=1.0))):
        run(with_fields(SHORT, remedy=remedy, devices=2), tmp_path / name)
        stage = tmp_path / name / "seed_0/magnitude/round_01/metrics.json"
        histories.append([epoch["loss"] for epoch in json.loads(stage.read_text())["history"]])
    assert len(histories[0]) == len(histories[1])
    assert histories[0] != histories[1]
