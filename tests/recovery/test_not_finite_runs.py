"""A run that diverges leaves a file that replays, and goes back to lower rates if asked to."""

import dataclasses
import json
import shutil

import pytest

from fairgrape_jax import config, storage, training
from fairgrape_jax.cli.main import main
from fairgrape_jax.config import Rollback, Stage
from fairgrape_jax.data import batches
from fairgrape_jax.errors import UsageError
from fairgrape_jax.recovery import rollback
from fairgrape_jax.reports import provenance, results
from fairgrape_jax.runner.run import run
from fairgrape_jax.storage import resumable
from fairgrape_jax.training import finite
from fairgrape_jax.training.finite import NotFiniteError
from tests.helpers.experiments import TINY, assert_same, stage_files, with_fields
from tests.helpers.files import flip
from tests.helpers.not_finite import SHORT, pictures
from tests.helpers.processes import start


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A run whose first round diverges."""
    directory = tmp_path_factory.mktemp("diverged") / "run"
    broken = dataclasses.replace(SHORT, retrain=Stage((3,), (1e30,)))
    with pytest.raises(NotFiniteError) as error:
        run(broken, directory)
    return broken, directory, str(error.value)


@pytest.mark.whole
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
    found = provenance.rollback_notes(results.read(tmp_path / "run"))
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


@pytest.mark.whole
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
