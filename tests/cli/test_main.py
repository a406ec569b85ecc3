"""The command line: what it lists and writes, and a one-line error for every bad request."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fairgrape_jax
from fairgrape_jax import config
from fairgrape_jax.cli.data import DATA_COMMANDS
from fairgrape_jax.cli.main import COMMANDS, main
from fairgrape_jax.cli.run import load
from fairgrape_jax.data import Reading
from fairgrape_jax.data.sources import writers
from tests.helpers import unrendered
from tests.helpers.command_line import EXPERIMENT

ROOT = Path(__file__).parents[2]


@pytest.fixture
def experiment(tmp_path, monkeypatch):
    """A folder with an experiment file, as the working directory."""
    (tmp_path / "tiny.py").write_text(EXPERIMENT)
    monkeypatch.chdir(tmp_path)
    return tmp_path


DISTRIBUTED = ["run", "tiny.py", "--distributed", "--num-processes", "2"]
MEMBER = [*DISTRIBUTED, "--coordinator-address", "localhost:1", "--process-id", "1"]
BAD = {
    "unknown command": (["prune"], "unknown command 'prune'"),
    "no experiment": (["run"], "name an experiment"),
    "experiment that is not there": (["run", "nope.py"], "nope.py: no such experiment"),
    "unknown dataset": (["run", "tiny.py", "--dataset", "imagnet"], "'imagnet' is unknown"),
    "unknown model": (["run", "tiny.py", "--model", "vgg"], "unknown model 'vgg'"),
    "unknown method": (["run", "tiny.py", "--methods", "snipe"], "unknown method 'snipe'"),
    "unknown label": (["run", "tiny.py", "--data.label", "mood"], "'mood'"),
    "unknown group": (["run", "tiny.py", "--data.group", "mood"], "'mood'"),
    "sparsity 0": (["run", "tiny.py", "--sparsity", "0"], "sparsity: 0.0 is not between"),
    "sparsity 1": (["run", "tiny.py", "--sparsity", "1"], "sparsity: 1.0 is not between"),
    "keep-per-round 1": (["run", "tiny.py", "--keep-per-round", "1"], "keep_per_round: 1.0"),
    "keep-per-round 0": (["run", "tiny.py", "--keep-per-round", "0"], "keep_per_round: 0.0"),
    "fraction": (["run", "tiny.py", "--scoring.fraction", "2"], "scoring.fraction: 2.0"),
    "group without samples": (
        ["run", "tiny.py", "--data.groups", "60", "--data.samples", "70"],
        "",
    ),
    "one group": (["run", "tiny.py", "--data.groups", "1"], "group"),
    "missing folder": (
        ["run", "tiny.py", "--dataset", "utkface", "--data.path", "nowhere"],
        "nowhere",
    ),
    "empty folder": (["run", "tiny.py", "--dataset", "utkface", "--data.path", "empty"], "empty"),
    "folder without a picture": (
        ["run", "tiny.py", "--dataset", "utkface", "--data.path", "texts"],
        "age_gender_race_date.jpg",
    ),
    "no path": (["run", "tiny.py", "--dataset", "utkface"], "path"),
    "too many devices": (["run", "tiny.py", "--execution.devices", "99"], "devices: 99 asked for"),
    "batch over devices": (
        ["run", "tiny.py", "--execution.devices", "3"],
        "cut evenly over 3 devices",
    ),
    "stage": (["run", "tiny.py", "--dense.epochs", "1", "2"], "dense: 2 numbers of epochs"),
    "optimizer": (["run", "tiny.py", "--optimizer", "lion"], "unknown optimizer 'lion'"),
    "weights that are not there": (
        ["run", "tiny.py", "--model", "resnet18", "--pretrained", "no.safetensors"],
        "no.safetensors",
    ),
    "method twice": (
        ["run", "tiny.py", "--methods", "importance", "importance"],
        "each named once",
    ),
    "mixed and sharded": (
        ["run", "tiny.py", "--scoring.form", "mixed", "--execution.shard-groups"],
        "a mixed micro-batch has a term for every group",
    ),
    "report on no run": (["report", "empty"], "empty: not a run"),
    "coordinator without --distributed": (
        ["run", "tiny.py", "--coordinator-address", "localhost:1234"],
        "--coordinator-address: is for a run over many hosts; add --distributed",
    ),
    "process id without --distributed": (
        ["run", "tiny.py", "--process-id", "0"],
        "--process-id: is for a run over many hosts",
    ),
    "coordinator alone": (
        ["run", "tiny.py", "--distributed", "--coordinator-address", "localhost:1234"],
        "go together",
    ),
    "process id out of range": (
        [*DISTRIBUTED, "--coordinator-address", "localhost:1234", "--process-id", "2"],
        "--process-id: 2 is not one of the 2 processes; give 0 to 1",
    ),
    "negative process id": (
        [*DISTRIBUTED, "--coordinator-address", "localhost:1234", "--process-id", "-1"],
        "--process-id: -1 is not one of the 2 processes",
    ),
    "no processes": (
        [*MEMBER, "--num-processes", "0"],
        "--num-processes: 0 is less than 1",
    ),
    "address without a port": (
        [*DISTRIBUTED, "--coordinator-address", "localhost", "--process-id", "0"],
        "'localhost' is not HOST:PORT",
    ),
    "heartbeat": (
        ["run", "tiny.py", "--distributed", "--heartbeat-timeout", "0"],
        "must be at least 1 second",
    ),
    "coordinator that does not answer": (
        [*MEMBER, "--start-timeout", "1"],
        "nothing answers at localhost:1 after 1 s",
    ),
    "bad option of a distributed run": (
        [*MEMBER, "--sparsity", "0"],
        "sparsity: 0.0 is not between",
    ),
    "list of something": (["list", "cats"], "Unrecognized options: cats"),
    "a slip in a command": (["rnu"], "unknown command 'rnu' (did you mean run?)"),
    "a slip in a command of data": (["data", "chekc", "x"], "(did you mean check?)"),
    "a slip in a flag": (["run", "tiny.py", "--sparcity", "0.5"], "did you mean --sparsity?"),
    "a slip in a flag of a part": (
        ["run", "tiny.py", "--scoring.micro-bacth", "8"],
        "did you mean --scoring.micro-batch?",
    ),
    "a flag before the experiment": (
        ["run", "--sparsity", "0.5", "tiny.py"],
        "before all options, name an experiment",
    ),
    "a word for a number": (["run", "tiny.py", "--batch", "many"], "--batch: invalid literal"),
    "no value": (["run", "tiny.py", "--sparsity"], "Missing value for argument '--sparsity'"),
    "no run": (["report"], "name the directory of a run"),
    "an audit of nothing": (["audit"], "audit: name a table, or files with --dense"),
    "an audit with an empty set": (
        ["audit", "--dense", "a.csv", "--compressed", "--min-group", "2"],
        "--compressed: name at least",
    ),
    "a convention that is none": (
        ["audit", "--dense", "a", "--compressed", "b", "--convention", "x"],
        "invalid choice 'x' for argument '--convention'",
    ),
    "no directory to replay": (["replay"], "RUN/STAGE/not_finite"),
    "a character that would move the cursor": (["list", "\x1b[2J"], "\\x1b[2J"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_request_is_one_line_exit_code_2_and_nothing_written(name, experiment, capsys):
    arguments, message = BAD[name]
    (experiment / "empty").mkdir()
    (experiment / "texts").mkdir()
    (experiment / "texts" / "readme.txt").write_text("no picture")
    before = sorted(experiment.rglob("*"))
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("fairgrape: error: ")
    assert error.count("\n") == 1
    assert message in error
    after = [path for path in sorted(experiment.rglob("*")) if "__pycache__" not in path.parts]
    assert after == before


SLIPS = {  # of the keyboard, in the experiment file
    "retrain: True is not of type Stage": (
        "Stage((1,), (1e-3,)),\n    final",
        "(1,) < (2,),\n    final",
    ),
    "batch: '16' is not of type int": ("batch=16", "batch='16'"),
    "data.samples: 'all' is not of type int": ("samples=200", "samples='all'"),
    "holds numbers, words and tuples": ("batch=16", "batch={1, 6}"),
}


@pytest.mark.parametrize("said", SLIPS)
def test_a_field_of_another_type_in_an_experiment_file_is_named(said, experiment, capsys):
    path = experiment / "tiny.py"
    path.write_text(path.read_text().replace(*SLIPS[said]))
    assert main(["run", "tiny.py"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("fairgrape: error: tiny.py: ")
    assert said in error
    assert error.count("\n") == 1


def test_a_corrupt_embedded_file_is_named(experiment, capsys, monkeypatch):
    (experiment / "writers.npz").write_bytes(b"not a sample")
    monkeypatch.setattr(writers, "SAMPLE", experiment / "writers.npz")
    assert main(["run", "tiny.py", "--dataset", "writers"]) == 2
    assert "corrupt" in capsys.readouterr().err
    assert not (experiment / "runs").exists()


def test_run_resume_and_report(experiment, capsys):
    assert main(["run", "tiny.py"]) == 0
    run = experiment / "runs" / "tiny"
    names = {"report.md", "report.html", "metrics.csv", "metrics.jsonl", "config.json"}
    names |= {"accuracy_and_disparity.png", "accuracy_over_rounds.png", "accuracy_by_group.png"}
    names |= {"change_per_group.png", "importance_share.png"}
    assert names <= {path.name for path in run.iterdir()}
    text = (run / "report.md").read_text()
    for heading in ("## Methods by weights left", "## Every seed", "## Rates of each class"):
        assert heading in text
    page = (run / "report.html").read_text()
    for heading in ("Cautions", "disparity against weights left", "Share of importance"):
        assert heading in page
    assert "<script" not in page
    assert "http" not in page
    rows = (run / "metrics.csv").read_text().splitlines()
    assert len(rows) == 1 + 1 + 2 * 2  # header, dense, two methods of two rounds
    with unrendered.charts():  # these were just rendered
        assert main(["run", "runs/tiny"]) == 0  # a run directory resumes itself
        assert main(["run", "tiny.py", "--batch", "8"]) == 2
        assert "another configuration" in capsys.readouterr().err
        assert main(["run", "tiny.py", "--seeds", "1", "--out", "runs/other"]) == 0
        assert main(["report", "runs/tiny", "runs/other", "--out", "both"]) == 0
        both = (experiment / "both" / "report.md").read_text()
        assert "tiny:fairgrape" in both
        assert "other:fairgrape" in both


def test_a_run_may_go_on_where_and_how_it_likes_but_not_with_another_definition(experiment):
    one = load(experiment / "tiny.py")

    def differs(execution, **values):
        scores = dataclasses.replace(one.scoring, **values)
        other = dataclasses.replace(one, scoring=scores, execution=execution)
        return config.identity(other) != config.identity(one)

    elsewhere = config.Execution(
        devices=2,
        lift="shard_map",
        evaluation_batch=7,
        micro_batches="vmap",
        shard_groups=True,
        checkpoints=config.KeepLast(3),
        rollback=config.Rollback(3),
        reading=Reading("disk", workers=2),
    )
    default = config.Execution()
    assert not [
        field.name
        for field in dataclasses.fields(elsewhere)
        if getattr(elsewhere, field.name) == getattr(default, field.name)
    ]
    assert not differs(elsewhere)
    assert differs(elsewhere, form="mixed")
    assert differs(elsewhere, formula="square-of-mean")


def test_list_names_every_table(experiment, capsys):
    (experiment / "experiments").mkdir()
    (experiment / "tiny.py").rename(experiment / "experiments" / "tiny.py")
    assert main(["list"]) == 0
    text = capsys.readouterr().out
    for name in ("mobilenet_v2", "fairgrape", "utkface", "rho_change", "experiments/tiny.py"):
        assert name in text
    assert "A small experiment." in text


def test_help_shows_the_overrides_with_their_meaning(experiment, capsys):
    assert main(["run", "tiny.py", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "--keep-per-round" in text
    assert "Factor by which the density falls each round" in text
    assert "--coordinator-address" in text


HELP = [[], ["--help"], ["data"], ["data", "-h"], ["data", "prepare", "folder_csv", "--help"]]
HELP += [[name, "--help"] for name in COMMANDS] + [["data", name, "-h"] for name in DATA_COMMANDS]


@pytest.mark.parametrize("arguments", HELP, ids=" ".join)
def test_every_command_has_help(arguments, capsys):
    assert main(arguments) == 0
    said = capsys.readouterr()
    assert said.out.startswith("usage: fairgrape")
    assert not said.err


def test_the_version_is_that_of_the_package(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith(f"fairgrape {fairgrape_jax.__version__} (jax ")


@pytest.mark.whole(but=1)
@pytest.mark.parametrize(
    ("command", "unbuffered"),
    # What goes to standard error is written at once, with the variable and without.
    [("list", ""), ("list", "1"), ("run --help", ""), ("run --help", "1"), ("no", "")],
)
def test_a_reader_that_has_gone_is_no_error(command, unbuffered, tmp_path):
    """As in `fairgrape ... | head`: nothing is said of it, whichever output it read."""
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as gone:
        done = subprocess.run(
            [sys.executable, "-m", "fairgrape_jax", *command.split()],
            stdout=gone,
            stderr=gone if command == "no" else subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
        )
    assert done.returncode == 141
    assert not done.stderr


def test_the_list_is_of_use_in_a_folder_without_experiments(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["list"]) == 0
    last = capsys.readouterr().out.partition("experiments (in this folder):\n")[2]
    assert "EXPERIMENT = fairgrape_jax.config.Experiment(" in last


def test_importing_the_package_stays_light():
    code = (
        "import sys, fairgrape_jax, fairgrape_jax.cli.main, fairgrape_jax.runner.run\n"
        "import fairgrape_jax.reports.run\n"
        "heavy = {'tensorflow', 'tensorflow_datasets', 'matplotlib', 'numba', 'grain', 'torch',"
        "'pyarrow'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


EXPERIMENTS = [p for p in (ROOT / "experiments").glob("*.py") if "\nEXPERIMENT" in p.read_text()]


@pytest.mark.parametrize("path", sorted(EXPERIMENTS), ids=lambda path: path.stem)
def test_experiments_of_the_repository_load_and_survive_json(path):
    experiment = load(path)
    config.check(experiment)
    assert config.from_dict(json.loads(json.dumps(config.to_dict(experiment)))) == experiment
    assert np.isfinite(experiment.sparsity)
