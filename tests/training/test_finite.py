"""Numbers that are not finite: found in the step that made them, named, kept, gone back from."""

import dataclasses
import json
import shutil
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fairgrape_jax import config, data, losses, models, parallel, storage, training
from fairgrape_jax.cli.main import main
from fairgrape_jax.config import Clusters, Rollback, Stage
from fairgrape_jax.data import batches
from fairgrape_jax.errors import UsageError
from fairgrape_jax.losses import classification
from fairgrape_jax.recovery import rollback
from fairgrape_jax.reports import results, run_report
from fairgrape_jax.rounds import score
from fairgrape_jax.rounds.predict import predict
from fairgrape_jax.rounds.session import Network, copy_on_devices, place_on_devices
from fairgrape_jax.runner.run import run
from fairgrape_jax.scoring.statistics import GRADIENT, SQUARES
from fairgrape_jax.storage import resumable
from fairgrape_jax.training import Carry, evaluate, finite
from fairgrape_jax.training.finite import NotFiniteError
from tests.helpers.experiments import TINY, assert_same, opened, stage_files, with_fields
from tests.helpers.files import flip
from tests.helpers.networks import Normed
from tests.helpers.processes import start

SHORT = dataclasses.replace(TINY, seeds=(0,), methods=("magnitude",), final=Stage(), sparsity=0.5)
plain = classification.cross_entropy


@pytest.fixture(autouse=True)
def normed(monkeypatch):
    monkeypatch.setitem(models.MODELS, "normed", Normed)


@cache
def pictures():
    return data.load(TINY.data)


def built(**changes):
    """A session, its first network and its first batch; steps are not shared between tests."""
    experiment = with_fields(TINY, **{"model": "normed", "batch": 32} | changes)
    dataset = pictures()
    session, network = opened(experiment, dataset, experiment.execution.devices)
    samples = next(batches.train_batches(dataset.train, 32, 0, 0))
    return session, network, parallel.split_batch(samples, session.devices)


def with_kernel(state, layer, scale):
    """The state with the kernel of a layer multiplied."""
    kernel = {layer: state.params[layer] | {"kernel": scale * state.params[layer]["kernel"]}}
    return state._replace(params=state.params | kernel)


def root_of_nothing(logits, labels, classes):
    """Cross-entropy with a gradient of NaN: that of the root at 0, times 0."""
    return plain(logits, labels, classes) + jnp.sqrt(0 * logits.sum(axis=1))


def times(scale):
    return lambda *args: scale * plain(*args)


# What is done to a step: (loss function, scale of the first kernel, rate, fields), and what
# is then said to be the first part that is not finite.
SOURCES = {
    "loss": ((None, 1, 0.1, {}), "loss"),
    "gradient": ((root_of_nothing, 1, 0.1, {}), "gradient of head/"),
    "batch statistics": ((None, 1e30, 0.1, {}), "batch statistics of norm/var"),
    "parameters": ((times(1e3), 1, 3e38, {"optimizer": "sgd"}), "parameters of "),
    "moments": ((times(1e25), 1, 1e-30, {"optimizer": "adam"}), "moments of the optimizer"),
}


EVERYWHERE = [(kind, *how) for kind in SOURCES for how in (("pmap", 4), ("shard_map", 2))]


@pytest.mark.parametrize(
    ("kind", "how", "devices"),
    [(kind, "pmap", 1) for kind in SOURCES]
    + [EVERYWHERE[0], EVERYWHERE[3]]
    + [pytest.param(*each, marks=pytest.mark.slow) for each in (*EVERYWHERE[1:3], *EVERYWHERE[4:])],
)
def test_each_source_is_named_and_the_step_is_not_made(kind, how, devices, monkeypatch):
    (loss, scale, rate, fields), expected = SOURCES[kind]
    monkeypatch.setattr(losses, "cross_entropy", loss or plain)
    session, network, batch = built(lift=how, devices=devices, **fields)
    state = with_kernel(network.state, "conv", np.float32(scale))
    if kind == "loss":
        state = with_kernel(state, "head", np.float32(np.inf))
    state = parallel.replicate(state, session.devices)
    before, step = finite.to_host(state), session.steps.train
    carry, report = step(Carry(state), network.masks, batch, np.float32(rate))
    assert np.isnan(report.loss)
    for _ in range(2):  # the steps that were begun before anybody looked
        assert not carry.finite
        for a, b in zip(*map(jax.tree.leaves, (before, carry.state)), strict=True):
            np.testing.assert_array_equal(a, b)
        carry, later = step(carry, network.masks, batch, np.float32(0.0))
        assert np.isnan(later.loss)
    bad = finite.bad_parts(before, np.asarray(report.finite), session.steps.parameters)
    assert bad[0].startswith(expected), bad


def test_a_finite_step_is_what_it_was_without_looking(monkeypatch):
    """Up to the rounding of another order of operations in the compiled program."""
    found = []

    def blind(carry, new, loss, gradients):
        return Carry(new, carry.finite), finite.StepReport(loss, loss[None])

    for accept in (finite.accept, blind):
        monkeypatch.setattr(finite, "accept", accept)
        session, network, batch = built()
        carry = Carry(network.state)
        for _ in range(3):
            carry, report = session.steps.train(carry, network.masks, batch, np.float32(1e-2))
        found.append(jax.device_get((carry.state, report.loss)))
    assert found[0][0].step == 3
    for a, b in zip(*map(jax.tree.leaves, found), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


TREES = (
    {
        "float": jnp.full((3, 2), jnp.nan),
        "int": jnp.arange(4),
        "bool": jnp.array(True),
        "none": None,
    },
    {"float": jnp.ones((3, 2)), "int": jnp.arange(4) + 7, "bool": jnp.array(False), "none": None},
)


@pytest.mark.parametrize("condition", [True, False])
def test_the_choice_is_the_whole_of_one_tree(condition):
    expected = TREES[0 if condition else 1]
    for choose in (finite.choose, jax.jit(finite.choose)):
        chosen = choose(jnp.array(condition), *TREES)
        jax.tree.map(np.testing.assert_array_equal, chosen, expected)
    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), TREES)
    conditions = jnp.array([condition, not condition])
    each = jax.vmap(finite.choose)(conditions, *stacked)
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x[0], y), each, expected)


@pytest.mark.parametrize(("platform", "branches"), [("cpu", True), ("cuda", False), ("tpu", False)])
def test_the_choice_is_one_branch_on_a_cpu_and_stays_on_the_device_elsewhere(platform, branches):
    lowered = jax.jit(finite.choose).trace(jnp.array(True), *TREES)
    text = lowered.lower(lowering_platforms=(platform,)).as_text()
    assert ("stablehlo.select" in text) != branches


@pytest.mark.parametrize("bad", [0, pytest.param(4, marks=pytest.mark.slow), 9])
def test_the_error_of_an_epoch_holds_the_state_before_and_the_samples(bad):
    """One step is given a rate of NaN; the state is that of an epoch stopped just before it."""
    session, network, _ = built()
    dataset, begun = session.dataset, []

    def step(carry, masks, batch, rate):
        begun.append(batch["ids"].ravel().tolist())
        rate = np.float32(np.nan) if failing() else rate
        return session.steps.train(carry, masks, batch, rate)

    def failing():
        return len(begun) - 1 == bad

    def epoch(state, step):
        return training.train_epoch(
            step,
            state,
            network.masks,
            dataset.train,
            devices=session.devices,
            batch=session.experiment.batch,
            rate=1e-2,
            seed=0,
        )

    expected = Carry(copy_on_devices(network).state)
    for samples in list(batches.train_batches(dataset.train, 32, 0, 0))[:bad]:
        batch = parallel.split_batch(samples, session.devices)
        expected, _ = session.steps.train(expected, network.masks, batch, np.float32(1e-2))
    with pytest.raises(NotFiniteError, match=f"^parameters of .* not finite at step {bad}:") as e:
        epoch(network.state, step)
    record = e.value.record
    for a, b in zip(*map(jax.tree.leaves, (expected.state, record.state)), strict=True):
        np.testing.assert_array_equal(a, b)
    assert record.details["ids"] == begun[bad]
    assert record.details["step_in_epoch"] == bad
    assert len(begun) == min(bad + 2, 10)


# --- a whole run


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A run whose first round diverges."""
    directory = tmp_path_factory.mktemp("diverged") / "run"
    broken = dataclasses.replace(SHORT, retrain=Stage((3,), (1e30,)))
    with pytest.raises(NotFiniteError) as error:
        run(broken, directory)
    return broken, directory, str(error.value)


def test_a_run_leaves_a_repro_file_that_says_what_and_replays(stopped, capsys):
    _, directory, said = stopped
    place = directory / "seed_0/magnitude/round_01/not_finite"
    assert f"fairgrape replay {place}" in said
    known = json.loads((place / "repro.json").read_text())
    assert known["not_finite"][0] == "loss"
    assert known["kind"] == "step"
    assert known["rate"] == 1e30
    assert known["seed_of_run"] == 0
    assert known["step"] == 30 + known["step_in_epoch"]
    order = batches.epoch_order(len(pictures().train), 0, known["epoch"])
    first = 32 * known["step_in_epoch"]
    assert known["ids"] == order[first : first + 32].tolist()
    capsys.readouterr()
    assert main(["replay", str(place)]) == 0
    told = capsys.readouterr().out
    line = f"{finite.summary(known['not_finite'])} not finite at step {known['step']}"
    assert f"recorded: {line}" in told
    assert f"again:    {line}" in told
    assert "forward:  first in the output of conv" in told


def test_a_replay_of_what_is_finite_says_so(stopped, tmp_path, capsys):
    _, directory, _ = stopped
    shutil.copytree(directory, tmp_path / "run")
    path = tmp_path / "run/seed_0/magnitude/round_01/not_finite/repro.json"
    known = json.loads(path.read_text())
    # With no rate, and the samples of another step, from a state that is itself sound.
    shutil.rmtree(path.parent / "checkpoint")
    shutil.copytree(tmp_path / "run/seed_0/dense/checkpoint", path.parent / "checkpoint")
    known.pop("checksum")
    storage.write_checksummed(path, known | {"rate": 1e-3})
    assert main(["replay", str(path.parent)]) == 1
    assert "every number is finite" in capsys.readouterr().err


def test_what_is_no_repro_file_is_refused(stopped, tmp_path, capsys):
    for arguments in ([], [str(tmp_path)], ["a", "b"]):
        assert main(["replay", *arguments]) == 2
    shutil.copytree(
        stopped[1] / "seed_0/magnitude/round_01/not_finite", tmp_path / "alone/not_finite"
    )
    assert main(["replay", str(tmp_path / "alone/not_finite")]) == 2
    assert "no config.json above" in capsys.readouterr().err
    shutil.copytree(stopped[1], tmp_path / "run")
    place = tmp_path / "run/seed_0/magnitude/round_01/not_finite"
    flip(place / "checkpoint/digests.json")
    assert main(["replay", str(place)]) == 2
    assert "digests.json: damaged or gone" in capsys.readouterr().err
    flip(place / "repro.json")
    assert main(["replay", str(place)]) == 2
    assert "no repro.json, or one that was altered" in capsys.readouterr().err


def test_a_stopped_run_goes_on_with_a_rollback(stopped, tmp_path, capsys):
    """At a rate that is lowered once too little and then enough; recorded, and done again alike."""
    experiment, directory, _ = stopped
    with_rollback = with_fields(experiment, rollback=Rollback(retries=2, factor=1e-16))
    shutil.copytree(directory, tmp_path / "run")
    run(with_rollback, tmp_path / "run")
    told = capsys.readouterr().out
    assert "back to its start, rates x 1e-16 (1 of 2" in told
    record = json.loads((tmp_path / "run/seed_0/magnitude/round_01/metrics.json").read_text())
    assert [one["factor"] for one in record["rollbacks"]] == [1e-16, 1e-16]
    assert [epoch["rate"] for epoch in record["history"]] == pytest.approx([1e-2] * 3)
    assert record["history"][0]["epoch"] == 4  # the order of the data is that of the first try
    line = json.loads((tmp_path / "run/metrics.jsonl").read_text().splitlines()[1])
    assert line["rollbacks"] == record["rollbacks"]
    found = run_report.rollback_notes(results.read(tmp_path / "run"))
    assert found == [
        "magnitude, seed 0, round 1: trained at rates x 1e-32, "
        f"{record['rollbacks'][0]['what']} not being finite before"
    ]
    run(with_rollback, tmp_path / "anew")
    assert_same(stage_files(tmp_path / "anew"), stage_files(tmp_path / "run"))


def test_no_more_rollbacks_than_allowed(stopped, tmp_path):
    experiment, directory, _ = stopped
    shutil.copytree(directory, tmp_path / "run")
    few = with_fields(experiment, rollback=Rollback(retries=1, factor=0.5))
    for _ in range(2):  # the second time it is not tried again
        with pytest.raises(NotFiniteError):
            run(few, tmp_path / "run")
        past = rollback.read_rollbacks(tmp_path / "run/seed_0/magnitude/round_01")
        assert len(past) == 1


def test_a_lowered_rate_survives_a_kill(stopped, tmp_path, monkeypatch):
    """The run dies in the second epoch after it went back; the partial save is at lowered rates."""
    experiment, directory, _ = stopped
    lowered = with_fields(experiment, rollback=Rollback(retries=1, factor=1e-32))
    shutil.copytree(directory, tmp_path / "whole")
    shutil.copytree(directory, tmp_path / "run")
    run(lowered, tmp_path / "whole")
    epoch, rates = training.train_epoch, []

    def stopping(*args, **options):
        rates.append(options["rate"])
        if len(rates) == 3:  # the one that is not finite, the first one at the lowered rate
            raise KeyboardInterrupt
        return epoch(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(resumable, "SAVE_EVERY", 0.0)
        patch.setattr(training, "train_epoch", stopping)
        with pytest.raises(KeyboardInterrupt):
            run(lowered, tmp_path / "run")
    assert rates[0] == 1e30
    assert rates[1:] == pytest.approx([1e-2] * 2)
    assert (tmp_path / "run/seed_0/magnitude/round_01/partial/0").exists()
    monkeypatch.setattr(
        training, "train_epoch", lambda *a, **o: rates.append(o["rate"]) or epoch(*a, **o)
    )
    run(lowered, tmp_path / "run")
    assert 1e30 not in rates[3:]
    assert_same(stage_files(tmp_path / "run"), stage_files(tmp_path / "whole"))


@pytest.mark.parametrize("wrong", [Rollback(-1), Rollback(1, 0.0), Rollback(1, 1.0)])
def test_a_rollback_that_is_none_is_refused(wrong):
    with pytest.raises(UsageError, match=r"execution\.rollback\.(retries|factor): "):
        config.check(with_fields(TINY, rollback=wrong))


@pytest.mark.multiprocess
def test_all_processes_stop_at_the_same_step(tmp_path):
    cluster = start(tmp_path, tmp_path / "run", "--dense.rates", "1e30", "--optimizer", "sgd")
    assert cluster.wait() == [1, 1], cluster.said()
    lines = [
        next(line for line in log.read_text().splitlines() if "fairgrape: stopped" in line)
        for log in cluster.logs
    ]
    assert lines[0] == lines[1]
    assert "not finite at step" in lines[0]
    known = json.loads((tmp_path / "run/seed_0/dense/not_finite/repro.json").read_text())
    assert len(known["ids"]) == 32  # those of both processes


# --- scores and evaluation


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


# --- data


def as_float(images):
    images = images.astype(np.float32)
    images[[5, 9], 0, 0, 0] = np.nan
    return images


def labelled(labels, value):
    labels = labels.copy()
    labels[[7, 8]] = value
    return labels


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"images": as_float}, r"images are float32, not finite \(samples 5, 9\), give uint8"),
        ({"labels": lambda x: labelled(x, 9)}, r"label 9 .* out of range.*\(samples 7, 8\)"),
        ({"labels": lambda x: labelled(x * 1.0, np.nan)}, r"labels are float64, not finite \(sam"),
        ({"groups": lambda x: labelled(x, -1)}, r"group -1 is out of range.*\(samples 7, 8\)"),
        ({"groups": lambda x: x * 1.0}, "groups are float64, give integers"),
    ],
)
def test_data_that_no_step_could_use_is_refused_with_its_samples(change, said):
    dataset = pictures()
    changed = {
        name: change_one(getattr(dataset.train, name)) for name, change_one in change.items()
    }
    split = dataclasses.replace(dataset.train, **changed)
    with pytest.raises(UsageError, match=f"train: {said}"):
        data.check(dataclasses.replace(dataset, train=split))


@pytest.mark.parametrize(("name", "value"), [("mean", np.nan), ("std", 0.0), ("std", np.inf)])
def test_a_normalisation_that_is_none_is_refused(name, value):
    wrong = {name: (0.5, 0.5, value)}
    with pytest.raises(UsageError, match=f"{name}: .* cannot normalise"):
        data.check(dataclasses.replace(pictures(), **wrong))
