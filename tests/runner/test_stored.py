"""A finished stage is found, and what is none is refused in one line."""

import re
from pathlib import Path

import numpy as np
import pytest

from fairgrape_jax.errors import UsageError
from fairgrape_jax.runner.stored import read_stage
from tests.helpers import made_runs


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return made_runs.make(tmp_path_factory.mktemp("runs") / "a", seeds=(0, 1), rounds=2)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "b"
    return made_runs.make(folder, methods=("magnitude",), seeds=(3,), rounds=2)


@pytest.mark.parametrize("stage", ["seed_0/dense", "seed_1/fairgrape/round_01"])
def test_a_stage_is_found_by_its_directory(run, stage):
    read = read_stage(run / stage)
    assert (read.name, read.run) == (stage, run)
    assert read.record["method"] == stage.split("/")[1]
    assert len(read.predictions().labels) == 240
    assert read.module().num_classes == 2


def test_a_stage_is_found_from_inside(run, monkeypatch):
    monkeypatch.chdir(run / "seed_0/dense")
    assert read_stage(Path()).name == "seed_0/dense"


def test_a_run_of_one_method_and_seed_stands_for_its_last_round(small):
    assert read_stage(small).name == "seed_3/magnitude/round_02"


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("", r"name a stage of it, as RUN/STAGE: one of seed_0/fairgrape/round_02, seed_0/mag"),
        ("seed_0", r"no finished stage .*one of seed_0/dense, .*\(10 in all\)"),
        ("seed_7/dense", "no finished stage"),
        ("..", "not a run, and no stage of one"),
    ],
)
def test_what_is_no_stage_is_refused(run, place, message):
    with pytest.raises(UsageError, match=message) as error:
        read_stage(run / place if place != ".." else run.parent)
    assert "\n" not in str(error.value)


def test_a_checkpoint_that_is_not_kept_is_named(run):
    stage = read_stage(run / "seed_0/dense")
    with pytest.raises(UsageError, match=r"seed_0/dense/checkpoint: no checkpoint of a network"):
        stage.network()


def test_a_changed_record_is_no_stage(small):
    path = small / "seed_3/dense/metrics.json"
    text = path.read_text()
    path.write_text(text.replace("0", "1", 1))
    with pytest.raises(UsageError, match=re.escape("no finished stage (no sound metrics.json)")):
        read_stage(path.parent)
    path.write_text(text)
    assert np.isclose(read_stage(path.parent).record["density"], 1.0)
