"""Runs with rows of the user's own files: what they record, who may go on, and their reports."""

import csv
import dataclasses
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import fairgrape_jax as fg
from fairgrape_jax import config
from fairgrape_jax.cli.main import main
from fairgrape_jax.errors import UsageError
from fairgrape_jax.reports import thumbnails
from fairgrape_jax.runner.stored import read_stage
from tests.helpers import plugins
from tests.helpers.command_line import EXPERIMENT

RUN = ["run", "tiny.py", "--methods", "smallest", "magnitude"]
PLUGINS = {"my_method.py": plugins.METHOD, "my_metrics.py": plugins.METRICS}
PLUGINS["my_data.py"] = plugins.DATASET
ALL = ["--plugin", *PLUGINS, "--dataset", "my_npz", "--model", "small"]


def write_files(folder):
    (folder / "tiny.py").write_text(EXPERIMENT)
    for name, code in PLUGINS.items():
        (folder / name).write_text(code)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run in which everything is somebody else's, in a process that has forgotten all of it."""
    folder = tmp_path_factory.mktemp("plugins")
    write_files(folder)
    with pytest.MonkeyPatch.context() as patch, plugins.tables_as_before():
        patch.chdir(folder)
        assert main([*RUN, *ALL, "--out", "run"]) == 0
    for name in PLUGINS:
        (folder / name).unlink()  # a report must not need them
    return folder / "run"


@pytest.fixture
def half(finished, tmp_path, monkeypatch):
    """The same without its last round, and the files beside it."""
    shutil.copytree(finished, tmp_path / "run")
    shutil.rmtree(tmp_path / "run/seed_0/magnitude/round_02")
    write_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    with plugins.tables_as_before():
        yield tmp_path


def test_the_files_are_recorded_with_their_digests(finished):
    recorded = json.loads((finished / "config.json").read_text())["registered"]
    assert recorded == [
        {
            "kind": kind,
            "name": name,
            "file": file,
            "sha256": hashlib.sha256(PLUGINS[file].encode()).hexdigest(),
        }
        for kind, name, file in (
            ("method", "smallest", "my_method.py"),
            ("model", "small", "my_data.py"),
            ("dataset", "my_npz", "my_data.py"),
            ("metric", "group_twice", "my_metrics.py"),
            ("metric", "middle_group", "my_metrics.py"),
        )
    ]


@pytest.mark.whole
def test_a_report_needs_the_directory_alone(finished, tmp_path):
    """In a process that has never seen the files, which are gone."""
    shutil.copytree(finished, tmp_path / "elsewhere")
    for name in ("report.md", "report.html", "metrics.csv"):
        (tmp_path / "elsewhere" / name).unlink()
    code = "import sys; from fairgrape_jax.__main__ import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", code, "report", "elsewhere"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(Path.cwd()), *sys.path])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    for name in ("report.md", "metrics.csv"):
        again = (tmp_path / "elsewhere" / name).read_text()
        assert again == (finished / name).read_text().replace("(run)", "(elsewhere)")


def test_own_metrics_reach_the_report_and_the_table(finished):
    with (finished / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 5
    for row in rows:
        each = [float(row[f"group_accuracy:group {k}"]) for k in (0, 1)]
        assert float(row["middle_group"]) == pytest.approx(sum(each) / 2)
        assert float(row["group_twice:group 1"]) == pytest.approx(2 * each[1])
    report = (finished / "report.md").read_text()
    section = report.partition("## Metrics from outside, after the last round")[2]
    table = section.partition("\n## ")[0]
    dense, *pruned = (row for row in rows if row["round"] in ("0", "2"))
    for name in ("middle_group", "group_twice:group 0", "group_twice:group 1"):
        numbers = " +\\| +".join(f"{float(row[name]):.2f}" for row in (dense, *pruned))
        assert re.search(rf"{name.replace(':', ' ')} +\| +{numbers}", table), table
    assert "middle_group" in (finished / "report.html").read_text()
    assert "method `smallest`: of my_method.py (sha256 " in report


def test_a_stage_is_read_without_the_files(finished):
    stage = read_stage(finished / "seed_0/smallest/round_02")
    variables, masks = stage.network()
    assert variables["params"].keys() == masks.keys() == {"fc1", "fc2"}
    assert stage.experiment.methods == ("smallest", "magnitude")


def test_a_report_runs_nobodys_code_for_pictures(finished):
    predicted = read_stage(finished / "seed_0/dense").predictions()
    with pytest.raises(UsageError, match="'my_npz' is registered from outside, and a report runs"):
        thumbnails.pictures_of_run(finished, predicted, [0])


def test_a_stage_is_exported_with_the_files_and_says_what_is_missing(half, capsys):
    words = ["export", "run/seed_0/smallest/round_02", "--to", "npz", "--out", "out"]
    assert main(words) == 2
    assert "dataset 'my_npz' is unknown" in capsys.readouterr().err
    assert main([*words, "--plugin", "my_data.py"]) == 0
    assert "my_npz" in (half / "out/README.md").read_text()


@pytest.mark.whole
def test_a_run_goes_on_with_the_same_files(half, capsys):
    before = (half / "run/config.json").read_text()
    assert main(["run", "run", "--plugin", *PLUGINS]) == 0
    assert (half / "run/config.json").read_text() == before
    assert "complete: run" in capsys.readouterr().out


@pytest.mark.parametrize("left_out", PLUGINS)
def test_a_run_without_a_file_says_which(left_out, half, capsys):
    rest = [name for name in PLUGINS if name != left_out]
    assert main(["run", "run", "--plugin", *rest]) == 2
    error = capsys.readouterr().err
    assert f"of {left_out} (sha256 " in error
    assert f"is not known here; give --plugin and the path of {left_out}" in error


@pytest.mark.parametrize(
    "row",
    [
        {"kind": "spell", "name": "x"},
        {"kind": "method"},
        {"kind": "method", "name": 3},
        {"kind": "method", "name": "x", "before": [3]},
        "magnitude",
    ],
)
def test_a_record_of_rows_that_is_none_is_refused(row, half, capsys):
    path = half / "run/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"registered": [row]}))
    for command in (["report", "run"], ["run", "run", "--plugin", *PLUGINS]):
        assert main(command) == 2
        error = capsys.readouterr().err
        assert "run/config.json: not the config.json of a run (registered.0" in error
        assert error.count("\n") == 1


def test_the_same_command_without_a_file_says_which(half, capsys):
    rest = [word for word in ALL if word != "my_method.py"]
    assert main([*RUN, *rest, "--out", "run"]) == 2
    error = capsys.readouterr().err
    assert "method 'smallest' of my_method.py (sha256 " in error
    assert "give --plugin and the path of my_method.py" in error


def test_what_was_typed_into_a_session_is_said(half, capsys):
    code = plugins.METHOD + EXPERIMENT.replace('("magnitude", "fairgrape")', '("smallest",)')
    names = {"__name__": "__main__"}
    exec(compile(code, "<cell 1>", "exec"), names)
    few = {"rounds": 1, "dense": config.Stage(), "retrain": config.Stage()}
    experiment = dataclasses.replace(names["EXPERIMENT"], **few)
    fg.run(experiment, half / "typed")
    assert "note: method 'smallest' was typed into a session" in capsys.readouterr().out
    (row,) = config.read(half / "typed/config.json")["registered"]
    assert row == {"kind": "method", "name": "smallest", "file": "a session", "sha256": ""}


def test_an_unknown_method_says_how_one_is_registered(half, capsys):
    assert main([*RUN, "--out", "new"]) == 2
    error = capsys.readouterr().err
    assert "unknown method 'smallest': choose from fairgrape" in error
    assert "registered by a file that --plugin names" in error


@pytest.mark.parametrize("changed", PLUGINS)
def test_a_run_does_not_go_on_with_another_file_unless_told(changed, half, capsys):
    (half / changed).write_text(PLUGINS[changed] + "# another one\n")
    assert main(["run", "run", "--plugin", *PLUGINS]) == 2
    error = capsys.readouterr().err
    assert (
        f"of {changed} (sha256 {hashlib.sha256(PLUGINS[changed].encode()).hexdigest()[:12]}"
        in error
    )
    assert "go on all the same with --accept-changed-plugins" in error
    assert not (half / "run/seed_0/magnitude/round_02").exists()


@pytest.mark.whole
def test_an_accepted_change_is_recorded_and_reported(half, capsys):
    (half / "my_method.py").write_text(plugins.METHOD + "# another one\n")
    assert main(["run", "run", "--plugin", *PLUGINS, "--accept-changed-plugins"]) == 0
    (row,) = [
        row
        for row in config.read(half / "run/config.json")["registered"]
        if row["name"] == "smallest"
    ]
    digests = [
        hashlib.sha256(text.encode()).hexdigest()
        for text in (plugins.METHOD, plugins.METHOD + "# another one\n")
    ]
    assert row["before"] == [{"file": "my_method.py", "sha256": digests[0]}]
    assert row["sha256"] == digests[1]
    report = (half / "run/report.md").read_text()
    assert "method smallest was changed while the run was being made" in report
    capsys.readouterr()
    assert main(["run", "run", "--plugin", *PLUGINS]) == 0  # the new file is the recorded one now
    (half / "my_method.py").write_text(plugins.METHOD)
    assert main(["run", "run", "--plugin", *PLUGINS]) == 2


@pytest.mark.whole
def test_a_metric_that_comes_later_is_left_out(half, capsys):
    text = plugins.METRICS.replace("middle_group", "other_middle").replace("twice", "again")
    (half / "more.py").write_text(text)
    assert main(["run", "run", "--plugin", *PLUGINS, "more.py"]) == 0
    assert "note: metric 'other_middle' of more.py" in capsys.readouterr().out
    record = json.loads((half / "run/seed_0/magnitude/round_02/metrics.json").read_text())
    assert "middle_group" in record["test"]
    assert "other_middle" not in record["test"]


def test_an_experiment_file_may_register_by_itself_and_import_what_does(half, capsys):
    (half / "own.py").write_text(
        plugins.METHOD
        + "import my_metrics\n"
        + EXPERIMENT.replace('("magnitude", "fairgrape")', '("smallest",)')
    )
    try:
        assert main(["run", "own.py", "--rounds", "1", "--retrain.epochs", "--retrain.rates"]) == 0
    finally:
        sys.modules.pop("my_metrics", None)
    recorded = config.read(half / "runs/own/config.json")["registered"]
    assert {(row["name"], row["file"]) for row in recorded} == {
        ("smallest", "own.py"),
        ("middle_group", "my_metrics.py"),
        ("group_twice", "my_metrics.py"),
    }


def test_the_list_names_whose_a_row_is(half, monkeypatch, capsys):
    monkeypatch.syspath_prepend(half / "site")
    rows = {"methods": {"broken": "no_such_module:ROW"}}
    plugins.install(half / "site", "fair-things", "fair_module", "", rows)
    assert main(["list", "--plugin", *PLUGINS]) == 0
    listed = capsys.readouterr().out
    for name, summary, file in (
        ("smallest", "smallest |w|", "my_method.py"),
        ("my_npz", "Pictures of mine.", "my_data.py"),
        ("small", "A network of mine.", "my_data.py"),
        ("middle_group", "Median over groups of accuracy.", "my_metrics.py"),
    ):
        assert re.search(rf"{name} +{re.escape(summary)} \({file} \(sha256 ", listed)
    assert re.search("broken +method 'broken' of fair-things 1.0: cannot be loaded", listed)


def test_a_metric_that_fails_in_a_run_stops_it_with_its_name(half, capsys):
    text = plugins.METRICS.replace("return 2 *", "assert counts[0].sum() < 300\n    return 2 *")
    (half / "my_metrics.py").write_text(text)
    words = ["--plugin", "my_metrics.py", "--methods", "magnitude", "--out", "new"]
    assert main(["run", "tiny.py", *words, "--data.samples", "1200"]) == 1
    error = capsys.readouterr().err
    assert "metric 'group_twice' of my_metrics.py" in error
    assert "AssertionError" in error
