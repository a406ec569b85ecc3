"""The time that a run still takes: by the epochs that are left, behind the titles of bars."""

import pytest

from fairgrape_jax import progress
from fairgrape_jax.runner import pace as paces
from fairgrape_jax.runner import run as runner
from tests.helpers.experiments import TINY, with_fields


@pytest.fixture
def shown(monkeypatch):
    """What was shown, in seconds, and a clock to set."""
    seconds, clock = [], [0.0]
    monkeypatch.setattr(progress, "show_time_left", seconds.append)
    monkeypatch.setattr(paces.time, "monotonic", lambda: clock[0])
    return seconds, clock


def test_what_is_left_takes_as_long_as_what_is_done(shown):
    seconds, clock = shown
    left = {(0, "dense", 0): 8, (0, "snip", 1): 1, (0, "snip", 2): 3}
    pace = paces.Pace(left, started=0.0)
    clock[0] = 80.0
    pace.finished((0, "dense", 0))
    clock[0] = 108.0
    pace.finished((0, "snip", 1))
    pace.finished((1, "snip", 1))  # of another shard, or complete before
    clock[0] = 120.0
    pace.finished((0, "snip", 2))
    assert seconds == [0, 40.0, 36.0, 0.0]


def test_all_stages_of_a_shard_are_counted_with_their_epochs(tmp_path, monkeypatch):
    experiment = with_fields(TINY, seeds=(0, 1), devices=1)
    seen = []
    monkeypatch.setattr(runner, "Pace", lambda left: seen.append(left))
    monkeypatch.setattr(runner, "run_seed", lambda *_: None)
    for shard in ((0, 1), (0, 2), (1, 2)):
        assert not runner.run(experiment, tmp_path / "run", shard)
    whole, first, second = seen
    rounds = sum(len(runner.config.densities(experiment)) for _ in experiment.methods)
    assert len(whole) == 2 * (1 + rounds)
    dense, last = sum(experiment.dense.epochs), len(runner.config.densities(experiment))
    retrain, final = sum(experiment.retrain.epochs), sum(experiment.final.epochs)
    assert whole[0, "dense", 0] == dense
    method = experiment.methods[0]
    assert whole[1, method, 1] == retrain
    assert whole[1, method, last] == retrain + final
    assert whole.keys() == first.keys() | second.keys()


def test_the_time_stands_behind_the_title_of_a_bar(monkeypatch, capsys):
    progress.show_time_left(7500)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    with progress.bar("seed 0 dense", 4) as move:
        move(2)
    progress.show_time_left(0)
    with progress.bar("seed 1 dense", 4) as move:
        move(2)
    printed = capsys.readouterr().out
    assert "2 h 5 min left in all" in printed.partition("seed 1")[0]
    assert "left in all" not in printed.partition("seed 1")[2]
