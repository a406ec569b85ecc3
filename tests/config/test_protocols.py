"""What a run may change about where it starts, how fast it prunes, and whose groups it looks at."""

import dataclasses
import itertools
import json

import jax
import numpy as np
import pytest

from fairgrape_jax import config, storage, training
from fairgrape_jax.cli.run import shard_of
from fairgrape_jax.config import (
    Clusters,
    Embedding,
    Epoch,
    Execution,
    KeepLast,
    Scoring,
    Stage,
    protocols,
)
from fairgrape_jax.data import load
from fairgrape_jax.errors import TrainingError, UsageError
from fairgrape_jax.methods import METHODS
from fairgrape_jax.rounds import cluster
from fairgrape_jax.runner import resume
from fairgrape_jax.runner import run as runner
from fairgrape_jax.selection import schedules
from fairgrape_jax.storage import clusters, resumable
from tests.helpers.experiments import (
    TINY,
    assert_same,
    load_checkpoint,
    opened,
    stage_files,
    with_fields,
)

# One seed, one epoch a round: what is looked at is where each round begins.
SHORT = dataclasses.replace(
    TINY, seeds=(0,), methods=("magnitude",), densities=(0.5, 0.2), final=Stage()
)


def state_of(directory, stage):
    return load_checkpoint(directory / "seed_0" / stage)


def kept(tree, alive):
    """Kernels with pruned weights at zero."""
    return jax.tree.map(
        lambda m, w: None if m is None else np.where(m, w, 0),
        alive,
        tree,
        is_leaf=lambda leaf: leaf is None,
    )


@pytest.mark.whole(but=1)
@pytest.mark.parametrize("rewind", ["initial", Epoch(2), "dense"], ids=str)
def test_lottery_returns_to_the_bits_of_the_point_it_names(tmp_path, rewind):
    """Without retraining a round's checkpoint is the network as it was rewound."""
    experiment = dataclasses.replace(SHORT, methods=("lottery",), retrain=Stage(), rewind=rewind)
    runner.run(experiment, tmp_path)
    origins = {Epoch(2): "dense/epoch_02", "dense": "dense"}
    if rewind == "initial":
        _, network = opened(experiment, load(experiment.data))
        origin = jax.device_get(network.state).params
    else:
        origin = state_of(tmp_path, origins[rewind])["state"].params
    for stage in ("lottery/round_01", "lottery/round_02"):
        found = state_of(tmp_path, stage)
        for a, b in zip(
            jax.tree.leaves(kept(found["state"].params, found["masks"])),
            jax.tree.leaves(kept(origin, found["masks"])),
            strict=True,
        ):
            np.testing.assert_array_equal(a, b)
        if rewind != "dense":
            dense = state_of(tmp_path, "dense")["state"].params
            assert np.any(dense["fc1"]["bias"] != found["state"].params["fc1"]["bias"])


@pytest.mark.parametrize("start", ["initial", Epoch(1)], ids=str)
def test_pruning_starts_at_the_point_that_is_asked_for(tmp_path, start):
    """At initialisation, or during the dense training, whose later epochs do not count."""
    experiment = dataclasses.replace(SHORT, retrain=Stage(), densities=(0.5,), start=start)
    runner.run(experiment, tmp_path)
    found = state_of(tmp_path, "magnitude/round_01")
    assert int(found["state"].epoch) == int(start == Epoch(1))
    if start == Epoch(1):
        origin = state_of(tmp_path, "dense/epoch_01")["state"].params
        for a, b in zip(
            jax.tree.leaves(kept(found["state"].params, found["masks"])),
            jax.tree.leaves(kept(origin, found["masks"])),
            strict=True,
        ):
            np.testing.assert_array_equal(a, b)
    record = json.loads((tmp_path / "seed_0/magnitude/round_01/metrics.json").read_text())
    assert record["density"] == pytest.approx(0.5, abs=0.01)


def test_a_point_is_kept_when_the_training_goes_on_after_a_stop(tmp_path, monkeypatch):
    """Stopped after the epoch of the point, and begun again, as without a stop."""
    experiment = dataclasses.replace(SHORT, methods=("lottery",), rewind=Epoch(2), densities=(0.5,))
    runner.run(experiment, tmp_path / "whole")
    monkeypatch.setattr(resumable, "SAVE_EVERY", 0.0)
    calls = []
    train_epoch = training.train_epoch

    def stopped(*args, **options):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return train_epoch(*args, **options)

    monkeypatch.setattr(training, "train_epoch", stopped)
    with pytest.raises(KeyboardInterrupt):
        runner.run(experiment, tmp_path / "run")
    runner.run(experiment, tmp_path / "run")
    assert_same(stage_files(tmp_path / "run"), stage_files(tmp_path / "whole"))


@pytest.mark.whole
def test_the_official_protocol_changes_what_its_table_says(tmp_path):
    """WS in one shot, SNIP and GraSP on the untrained network, each with its own budget."""
    names = ("magnitude", "snip", "grasp", "random")
    experiment = with_fields(
        SHORT, methods=names, protocol="official", min_keep_per_layer=1, checkpoints=KeepLast()
    )
    runner.run(experiment, tmp_path)
    read = {
        name: [
            json.loads(path.read_text())
            for path in sorted((tmp_path / "seed_0" / name).glob("*/metrics.json"))
        ]
        for name in names
    }
    assert [len(read[name]) for name in names] == [1, 1, 1, 2]
    trained = {name: len(read[name][-1]["history"]) for name in names}
    assert trained == {"magnitude": 0, "snip": 3, "grasp": 3, "random": 1}
    for name in ("snip", "grasp"):
        assert read[name][0]["density"] == pytest.approx(0.2, abs=1e-4)
        rows = {row["layer"]: row["alive"] / row["weights"] for row in read[name][0]["layers"]}
        assert max(rows.values()) > 0.3  # one threshold for the network
    said = "\n".join(protocols.describe(experiment))
    assert "snip: start initial, schedule one-shot" in said
    assert "random: has no official code" in said


@pytest.mark.parametrize("name", METHODS)
def test_every_official_variant_is_a_valid_experiment(name):
    structures = "flops" if METHODS[name].of_structures else "none"
    scoring = dataclasses.replace(TINY.scoring, structures=structures)
    experiment = dataclasses.replace(TINY, methods=(name,), protocol="official", scoring=scoring)
    config.check(protocols.apply_protocol(experiment, name))
    equal = dataclasses.replace(experiment, protocol="equal")
    assert protocols.apply_protocol(equal, name) == equal


@pytest.mark.whole
def test_clusters_stand_for_the_groups_while_pruning_alone(tmp_path):
    scoring = dataclasses.replace(TINY.scoring, groups=Clusters(4))
    experiment = dataclasses.replace(
        SHORT, methods=("fairgrape",), densities=(0.3,), scoring=scoring
    )
    runner.run(experiment, tmp_path)
    dataset = load(experiment.data)
    found = clusters.read_clusters(tmp_path / "seed_0/clusters.npz", len(dataset.train))
    sizes = np.bincount(found)
    assert len(sizes) == 4
    assert list(sizes) == sorted(sizes, reverse=True)
    record = json.loads((tmp_path / "seed_0/fairgrape/round_01/metrics.json").read_text())
    assert record["groups"] == list(dataset.groups)  # evaluated on the true ones
    plain = dataclasses.replace(experiment, scoring=dataclasses.replace(scoring, groups=None))
    runner.run(plain, tmp_path / "plain")
    masks = [
        load_checkpoint(where / "seed_0/fairgrape/round_01")["masks"]
        for where in (tmp_path, tmp_path / "plain")
    ]
    assert any(np.any(a != b) for a, b in zip(*map(jax.tree.leaves, masks), strict=True))
    storage.write_arrays(tmp_path / "other.npz", {"clusters": np.zeros(3, np.int32)})
    with pytest.raises(UsageError, match="for 3 images"):
        clusters.read_clusters(tmp_path / "other.npz", len(dataset.train))


def test_kmeans_finds_clusters_that_are_there():
    rng = np.random.default_rng(0)
    truth = np.repeat([0, 1, 2], [60, 30, 10])
    features = rng.normal(size=(100, 5)) + 20 * np.eye(3, 5)[truth]
    found = cluster.kmeans(features, 3, seed=1)
    np.testing.assert_array_equal(found, truth)  # numbered by falling size
    with pytest.raises(UsageError, match="fewer different images"):
        cluster.kmeans(np.zeros((5, 2)), 3, seed=0)


@pytest.mark.whole
def test_shards_do_every_run_once_and_share_the_dense_networks(tmp_path, monkeypatch):
    study = dataclasses.replace(
        SHORT, methods=("magnitude", "random"), seeds=(0, 1), densities=(0.5,)
    )
    whole = dataclasses.replace(study)
    runner.run(whole, tmp_path / "whole")
    parts = resume.shards(study, 3)
    assert list(itertools.chain(*parts)) == resume.shards(study, 1)[0]
    asked = []
    monkeypatch.setattr(runner.time, "sleep", asked.append)
    done = [runner.run(study, tmp_path / "run", (i, 3)) for i in range(3)]
    assert done == [False, False, True]
    assert not asked  # in this order nobody has to wait
    assert_same(stage_files(tmp_path / "run"), stage_files(tmp_path / "whole"))


def test_a_shard_waits_for_the_dense_network_of_another(tmp_path, monkeypatch, capsys):
    study = dataclasses.replace(SHORT, methods=("magnitude", "random"), densities=(0.5,))

    def other(seconds):  # in its own process, in life
        monkeypatch.setattr(runner.time, "sleep", pytest.fail)
        runner.run(study, tmp_path, (0, 2))

    monkeypatch.setattr(runner.time, "sleep", other)
    assert runner.run(study, tmp_path, (1, 2))
    assert "which shard 0/2 trains" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"densities": (0.5, 0.6)}, "must fall"),
        ({"densities": (1.0, 0.5)}, "must fall"),
        ({"densities": (0.5, 0.0)}, "must fall"),
        ({"schedule": "sudden"}, "unknown schedule"),
        ({"rounds": -1}, "negative"),
        ({"start": Epoch(4)}, "start: epoch 4 is not one of the 3 of the dense training"),
        ({"rewind": Epoch(0)}, "rewind.number: 0 is less than 1"),
        ({"rewind": "soon"}, "rewind: unknown 'soon': choose from 'dense', 'initial'"),
        ({"scoring": Scoring(groups=Clusters(1))}, "scoring.groups.count: 1 is less than 2"),
        ({"scoring": Scoring(groups=Clusters(2, Embedding("cnn", "x")))}, "'x' is no file"),
        ({"scoring": Scoring(groups=Clusters(2, Embedding("vgg", "x")))}, "unknown model 'vgg'"),
        ({"execution": Execution(checkpoints=KeepLast(0))}, "execution.checkpoints.count: 0 is"),
        ({"scoring": Scoring(advances=2)}, "several advances"),
        ({"min_keep_per_layer": -1}, "negative"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_read(changed, said):
    with pytest.raises(UsageError, match=said):
        config.check(dataclasses.replace(TINY, **changed))


def test_a_layer_that_would_be_emptied_is_refused_before_the_training(tmp_path):
    experiment = dataclasses.replace(SHORT, densities=(0.5, 0.002))
    with pytest.raises(UsageError, match=r"layer conv1 keeps none .* --min-keep-per-layer 1"):
        runner.run(experiment, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    runner.run(dataclasses.replace(experiment, min_keep_per_layer=2), tmp_path / "run")
    record = json.loads((tmp_path / "run/seed_0/magnitude/round_02/metrics.json").read_text())
    assert min(row["alive"] for row in record["layers"]) == 2


def test_a_layer_that_one_threshold_empties_stops_the_run_and_keeps_its_rounds(tmp_path):
    scoring = dataclasses.replace(TINY.scoring, allocation="global")
    experiment = dataclasses.replace(SHORT, densities=(0.5, 0.0005), scoring=scoring)
    with pytest.raises(TrainingError, match=r"magnitude: layer \w+ is left without weights"):
        runner.run(experiment, tmp_path)
    assert (tmp_path / "seed_0/magnitude/round_01/metrics.json").exists()


@pytest.mark.parametrize("schedule", schedules.SCHEDULES)
@pytest.mark.parametrize("count", [0, 1, 5])
def test_every_schedule_falls_to_the_target(schedule, count):
    found = schedules.densities(0.9, 0.7, schedule=schedule, count=count)
    assert found[-1] == 0.1
    assert all(a > b for a, b in zip([1.0, *found], found, strict=False))
    if schedule != "one-shot":
        assert len(found) == (count or schedules.rounds(0.9, 0.7))


@pytest.mark.parametrize("text", ["2/2", "1", "a/b", "-1/2", "/"])
def test_a_shard_that_is_none_is_refused(text):
    with pytest.raises(UsageError, match="is not I/N"):
        shard_of(text)
