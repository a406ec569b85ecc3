"""What to use for some data: what is shown to be better, or that the data do not tell."""

import json

import numpy as np
import pytest

from fairgrape_jax.cli.main import main
from fairgrape_jax.errors import UsageError
from fairgrape_jax.reports import results
from fairgrape_jax.reports.recommend import recommend
from tests.helpers import made_runs

THREE = ("magnitude", "importance", "fairgrape")


def worst_group(run, method, number):
    """The mean over seeds of the accuracy of the worst group, counted here."""
    rates = []
    for model in results.read(run):
        if model.name == method and model.record["round"] == number:
            right = (model.predicted.predictions == model.predicted.labels)[:, 0]
            members = model.predicted.groups
            rates.append(min(100 * right[members == g].mean() for g in range(3)))
    return np.mean(rates)


@pytest.mark.parametrize("methods", [THREE[:2], THREE])
def test_the_method_that_is_shown_to_be_better_is_named(methods, tmp_path, capsys):
    run = made_runs.make(tmp_path / "run", methods=methods, gap=0.14, samples=900, rounds=1)
    answer = recommend([run])
    assert (answer.method, answer.density) == ("magnitude", 0.5)
    first, second = (worst_group(run, name, 1) for name in methods[:2])
    assert answer.difference.value == pytest.approx(first - second)
    low, high = answer.difference.interval
    assert 0 < low < first - second < high
    assert answer.difference.among == len(methods)
    for text in ("use magnitude at 50 % of the weights", "b, the worst group", "look at it on oth"):
        assert text in answer.text
    assert f"more accurate than that of importance, the runner-up of {len(methods)}" in answer.text
    assert main(["recommend", str(run)]) == 0
    assert capsys.readouterr().out == answer.text + "\n"


def test_what_the_data_do_not_tell_is_said(tmp_path):
    """Of methods that are equally good one is named in at most one run of twenty, or so."""
    named = 0
    for number in range(10):
        run = made_runs.make(
            tmp_path / str(number), gap=0, methods=THREE, seeds=(3 * number, 99), rounds=1
        )
        answer = recommend([run])
        low, high = answer.difference.interval
        assert bool(answer.method) == (low > 0)
        assert ("do not tell what to use" in answer.text) == (low <= 0 <= high)
        named += bool(answer.method)
    assert named <= 2
    assert f"A difference of less than about {(high - low) / 2:.0f} points" in answer.text


def test_the_density_is_the_smallest_that_all_have_or_the_one_asked_for(tmp_path):
    short = made_runs.make(tmp_path / "short", methods=("magnitude",), rounds=2)
    run = made_runs.make(tmp_path / "long", methods=THREE[1:], rounds=4, gap=0)
    answer = recommend([short, run])
    assert answer.density == 0.25
    assert "short:magnitude" in answer.text
    assert "long:" in answer.text
    deep = recommend([short, run], density=0.07)
    assert "short:magnitude has no round near 7 % of the weights." in deep.text
    assert "use short" not in deep.text


def test_seeds_that_not_all_have_are_left_out_and_said(tmp_path):
    one = made_runs.make(tmp_path / "one", methods=("magnitude",), seeds=(0, 1, 2), rounds=1)
    other = made_runs.make(tmp_path / "other", methods=("fairgrape",), seeds=(1, 2), rounds=1)
    text = recommend([one, other]).text
    assert "; 2 seeds)" in text
    assert "Compared on seeds 1, 2 alone; one:magnitude have more." in text


def test_a_method_like_one_class_for_everybody_is_never_named(tmp_path):
    run = made_runs.make(tmp_path / "run", methods=THREE, gap=0.2, rounds=1)
    text = recommend([run]).text
    assert "fairgrape is left out: it is not shown to be right more often" in text
    bad = made_runs.make(tmp_path / "bad", gap=0, rounds=9)
    answer = recommend([bad])
    assert answer.method == ""
    assert "do not tell what to use at 0.195 % of the weights: no method is shown" in answer.text


def test_two_runs_of_one_name_are_told_apart_and_equal_ones_are_equal(tmp_path):
    runs = [made_runs.make(tmp_path / place / "run", methods=THREE[:1], rounds=1) for place in "ab"]
    answer = recommend(runs)
    assert answer.method == ""
    assert f"{runs[0]}:magnitude is as accurate as that of {runs[1]}:magnitude" in answer.text


BAD = {
    "no run named": ([], "recommend: name the directory of a run"),
    "no run": (["nowhere"], "nowhere: not a run"),
    "twice": (["run", "run"], "the same run is named twice"),
    "other groups": (["run", "other"], "other:dense: made on other groups or tasks than run:dense"),
    "no shared seed": (["run", "seeds"], "share no seed"),
    "other samples": (["run", "fewer"], "or not their test samples"),
    "dense alone": (["dense"], "dense: no round is complete yet"),
    "too sparse": (["run", "--density", "0.001"], "no run has a round near 0.1 % of the weights"),
    "no part": (["run", "--density", "1.5"], "--density: 1.5 is not a part of the weights"),
    "not a number": (["run", "--density", "nan"], "--density: "),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    made_runs.make(folder / "run", rounds=1)
    made_runs.make(folder / "seeds", rounds=1, seeds=(7,))
    made_runs.make(folder / "fewer", rounds=1, samples=200)
    made_runs.make(folder / "dense", rounds=1, methods=())
    patch = pytest.MonkeyPatch()
    patch.setattr(made_runs, "GROUPS", ("a", "b", "x"))
    made_runs.make(folder / "other", rounds=1)
    patch.undo()
    return folder


@pytest.mark.parametrize("name", BAD)
def test_a_request_that_cannot_be_met_is_one_line(name, runs, monkeypatch, capsys):
    monkeypatch.chdir(runs)
    words, message = BAD[name]
    assert main(["recommend", *words]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error


def test_a_run_of_one_method_has_nothing_to_choose_from(tmp_path):
    run = made_runs.make(tmp_path / "run", methods=("fairgrape",), rounds=1)
    answer = recommend([run])
    assert (answer.method, answer.difference) == ("", None)
    assert "there is nothing to choose from at 50 % of the weights: fairgrape is the only" in (
        answer.text
    )
    with pytest.raises(UsageError, match="not a part"):
        recommend([run], density=0)


def test_reading_needs_no_code_of_others(tmp_path):
    run = made_runs.make(tmp_path / "run", rounds=1)
    stored = json.loads((run / "config.json").read_text())
    row = {"kind": "method", "name": "mine", "file": "mine.py", "sha256": "0" * 64}
    stored["registered"] = [row]
    (run / "config.json").write_text(json.dumps(stored))
    assert recommend([run]).text.startswith("For smile on synthetic (")
