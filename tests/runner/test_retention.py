"""Which checkpoints are kept, that a run goes on with each choice, that no last good one goes."""

import dataclasses
import json
import shutil

import pytest

from fairgrape_jax.config import KeepLast, Stage
from fairgrape_jax.runner import layout, resume, retention
from fairgrape_jax.runner import run as rounds
from tests.helpers.experiments import TINY, assert_same, load_checkpoint, stage_files, with_fields
from tests.helpers.files import flip

SHORT = dataclasses.replace(
    TINY,
    seeds=(0,),
    methods=("magnitude",),
    final=Stage(),
    densities=(0.7, 0.3, 0.2, 0.02, 0.01),
    retrain=Stage((1,), (3e-3,)),
    min_keep_per_layer=1,
)
ACCURACY = {1: 90.0, 2: 92.0, 3: 92.0, 4: 80.0, 5: 70.0}


@pytest.mark.parametrize(
    ("checkpoints", "kept"),
    [
        ("all", {1, 2, 3, 4, 5}),
        (KeepLast(), {5}),
        (KeepLast(2), {4, 5}),
        (KeepLast(9), {1, 2, 3, 4, 5}),
        ("best", {3, 5}),
    ],
)
def test_which_rounds_are_kept(checkpoints, kept):
    assert retention.rounds_to_keep(ACCURACY, checkpoints) == kept
    first = {1: ACCURACY[1]}
    assert retention.rounds_to_keep(first, checkpoints) == {1}


def test_the_last_one_can_be_the_best():
    assert retention.rounds_to_keep({1: 80.0, 2: 80.0}, "best") == {2}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that keeps everything, and the validation accuracy of its rounds."""
    directory = tmp_path_factory.mktemp("retention") / "run"
    rounds.run(SHORT, directory)
    records = [record for _, record in layout.read_records(directory) if record["round"]]
    return directory, {record["round"]: record["validation_accuracy"] for record in records}


def checkpoints_of(directory):
    found = directory.glob("seed_0/magnitude/round_*/checkpoint/digests.json")
    return {int(path.parents[1].name.removeprefix("round_")) for path in found}


@pytest.mark.whole(but=1)
@pytest.mark.parametrize(
    "checkpoints",
    [
        *[pytest.param(each, marks=pytest.mark.slow) for each in ("all", KeepLast())],
        KeepLast(2),
        "best",
    ],
)
def test_a_run_keeps_them_and_goes_on_to_the_same_bits(checkpoints, whole, tmp_path, monkeypatch):
    """Stopped after the third round; what is kept is what the whole run has."""
    directory, accuracy = whole
    experiment = with_fields(SHORT, checkpoints=checkpoints)
    prune, done = retention.remove_checkpoints, []

    def stopping(root, number, checkpoints):
        prune(root, number, checkpoints)
        done.append(number)
        if number == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(retention, "remove_checkpoints", stopping)
        with pytest.raises(KeyboardInterrupt):
            rounds.run(experiment, tmp_path / "run")
    three = {n: accuracy[n] for n in (1, 2, 3)}
    assert checkpoints_of(tmp_path / "run") == retention.rounds_to_keep(three, checkpoints)
    rounds.run(experiment, tmp_path / "run")
    kept = checkpoints_of(tmp_path / "run")
    assert kept == retention.rounds_to_keep(accuracy, checkpoints)
    mine, theirs = stage_files(tmp_path / "run"), stage_files(directory)
    for name, (_, state) in mine.items():
        if state is None:  # its checkpoint is gone, its record is not
            mine[name], theirs[name] = ((records[name][0], None) for records in (mine, theirs))
    assert_same(mine, theirs)
    assert load_checkpoint(tmp_path / "run/seed_0/dense") is not None


def test_the_best_round_is_no_accident(whole):
    """Else the test above could not tell "best" from "last"."""
    _, accuracy = whole
    assert retention.rounds_to_keep(accuracy, "best") != {5}


def test_the_choice_can_change_on_the_way(whole, tmp_path):
    shutil.copytree(whole[0], tmp_path / "run")
    shutil.rmtree(tmp_path / "run/seed_0/magnitude/round_05")
    rounds.run(with_fields(SHORT, checkpoints=KeepLast(2)), tmp_path / "run")
    assert checkpoints_of(tmp_path / "run") == {4, 5}


@pytest.mark.parametrize("checkpoints", [KeepLast(), KeepLast(2), "best"])
def test_nothing_is_removed_when_the_newest_is_damaged(checkpoints, whole, tmp_path):
    root = tmp_path / "magnitude"
    shutil.copytree(whole[0] / "seed_0/magnitude", root)
    flip(next((root / "round_05/checkpoint/state/ocdbt.process_0/d").iterdir()))
    retention.remove_checkpoints(root, 5, checkpoints)
    assert len(list(root.glob("round_*/checkpoint/digests.json"))) == 5


def test_the_best_is_the_best_of_the_sound_ones(whole, tmp_path):
    root = tmp_path / "magnitude"
    shutil.copytree(whole[0] / "seed_0/magnitude", root)
    accuracy = dict(whole[1])
    best = min(retention.rounds_to_keep(accuracy, "best"))
    flip(root / f"round_0{best}/checkpoint/digests.json")
    del accuracy[best]
    retention.remove_checkpoints(root, 5, "best")
    sound = {n for n in range(1, 6) if resume.is_intact(root / f"round_0{n}")}
    assert sound == retention.rounds_to_keep(accuracy, "best")
    assert (root / f"round_0{best}/checkpoint").exists()  # damaged, but not ours to remove


def test_a_removal_that_was_interrupted_is_finished(whole, tmp_path):
    root = tmp_path / "magnitude"
    shutil.copytree(whole[0] / "seed_0/magnitude", root)
    (root / "round_02/checkpoint/digests.json").unlink()
    retention.remove_checkpoints(root, 5, KeepLast(4))
    left = {path.parent.name for path in root.glob("round_*/checkpoint")}
    assert left == {"round_01", "round_03", "round_04", "round_05"}


def test_a_run_with_the_last_round_alone_damaged_begins_that_method_anew(whole, tmp_path):
    """With last:2 it goes on from the round before."""
    for checkpoints, first in ((KeepLast(), 1), (KeepLast(2), 5)):
        run = tmp_path / f"last {checkpoints.count}"
        shutil.copytree(whole[0], run)
        retention.remove_checkpoints(run / "seed_0/magnitude", 5, checkpoints)
        flip(run / "seed_0/magnitude/round_05/checkpoint/digests.json")
        assert resume.last_intact_round(run / "seed_0/magnitude", 5) == first - 1
        record = json.loads((run / "seed_0/magnitude/round_05/metrics.json").read_text())
        assert record["validation_accuracy"] == whole[1][5]
