"""Allocations in experiments: those of before, and what is refused before a run begins."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from fairgrape_jax import config
from fairgrape_jax.cli.main import main
from fairgrape_jax.config import Experiment, Scoring, forms
from fairgrape_jax.data import source
from fairgrape_jax.errors import UsageError
from fairgrape_jax.masks import full_masks
from fairgrape_jax.runner import layout, preflight
from fairgrape_jax.runner.run import run
from fairgrape_jax.selection import allocate
from tests.helpers.command_line import EXPERIMENT
from tests.helpers.experiments import TINY, with_fields


@pytest.mark.parametrize(("scope", "allocation"), [("layer", "uniform"), ("global", "global")])
def test_runs_that_have_a_scope_are_read(scope, allocation, tmp_path):
    experiment = Experiment(
        source("synthetic"), "small_cnn", scoring=Scoring(allocation=allocation)
    )
    values = config.to_dict(experiment)
    del values["scoring"]["allocation"]
    values["scoring"]["scope"] = scope
    devices = {"kind": "cpu", "platform": "cpu", "count": 1}
    stored = {"format": 2, "experiment": values, "versions": {}, "devices": devices}
    (tmp_path / "config.json").write_text(json.dumps(stored))
    assert config.load(tmp_path / "config.json") == experiment


def test_a_first_layer_that_alone_is_too_much_is_refused_before_the_run():
    shapes = {"large": (90, 100), "middle": (90, 100), "small": (2, 50)}
    kernels = {n: {"kernel": jax.ShapeDtypeStruct(s, "float32")} for n, s in shapes.items()}
    scoring = dataclasses.replace(TINY.scoring, allocation="uniform+")
    experiment = dataclasses.replace(TINY, scoring=scoring, methods=("magnitude",), sparsity=0.7)
    full = full_masks(kernels)
    with pytest.raises(UsageError, match=r"magnitude: scoring.allocation: .* first layer dense"):
        preflight.check_layers(experiment, full, ("large", "middle", "small"))
    preflight.check_layers(experiment, full, ("small", "middle", "large"))


# -- a table of densities by layer -----------------------------------------------------------------
TABLES = {
    "table.json": '{"fc1": 0.25, "fc2": 1}',
    "with a mark.json": '\ufeff{"fc1": 0.25, "fc2": 1.0}',
    "table.csv": "layer,density\nfc1,0.25\nfc2,1\n",
    "Other columns.CSV": "weights, density ,layer\r\n9,.25, fc1\r\n9,1e0,fc2\r\n",
}
BAD_TABLES = {
    "no.txt": ("", "nor a .json or .csv file"),
    "list.json": ("[0.1]", "the whole: \\[0.1\\] is not of type dict"),
    "word.json": ('{"fc1": "0.1"}', "fc1: '0.1' is not of type float"),
    "true.json": ('{"fc1": true}', "fc1: True is not of type float"),
    "twice.json": ('{"fc1": 0.1, "fc1": 0.2}', "layer 'fc1' is there twice"),
    "half.json": ('{"fc1": ', "Expecting value"),
    "deep.json": ('{"a":' * 100_000, "is no table of densities"),
    "huge.json": ('{"fc1": 1' + "0" * 5000 + "}", "is no table of densities"),
    "twice.csv": ("layer,density\nfc1,0.1\nfc1,0.1\n", "layer 'fc1' is there twice"),
    "empty.csv": ("", "no column 'density'"),
    "columns.csv": ("name,density\nfc1,0.1\n", "no column 'layer'"),
    "cell.csv": ("layer,density\nfc1\n", "density '' of layer 'fc1' is no number"),
    "percent.csv": ("layer,density\nfc1,10%\n", "density '10%' of layer 'fc1'"),
}


def with_table(table, **fields):
    """TINY's network: conv1, conv2, fc1, fc2."""
    scoring = dataclasses.replace(TINY.scoring, allocation=table)
    return with_fields(TINY, scoring=scoring, **fields)


@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_read_from_a_file(name, tmp_path):
    (tmp_path / name).write_bytes(TABLES[name].encode())
    table = forms.parse_allocation(str(tmp_path / name))
    assert table == {"fc1": 0.25, "fc2": 1.0}
    assert forms.parse_allocation(forms.as_word(table)) == table


@pytest.mark.parametrize("name", BAD_TABLES)
def test_a_bad_table_is_refused_by_its_file(name, tmp_path):
    content, message = BAD_TABLES[name]
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message) as error:
        forms.parse_allocation(str(tmp_path / name))
    assert name in str(error.value)


def test_a_table_is_kept_in_config_json_and_told_from_another():
    experiment = with_table({"fc1": 1, "conv1": 0.5})
    again = config.from_dict(json.loads(json.dumps(config.to_dict(experiment))))
    assert again == experiment
    assert again.scoring.allocation == {"fc1": 1.0, "conv1": 0.5}
    other = with_table({"fc1": 1.0, "conv1": 0.25})
    assert config.identity(other) != config.identity(experiment)
    assert config.identity(with_table({"conv1": 0.5, "fc1": 1})) == config.identity(experiment)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({}, "the table of densities is empty"),
        ({"fc1": 1.5}, "density 1.5 of layer 'fc1' is not in 0..1"),
        ({"fc1": -0.1}, "density -0.1 of layer 'fc1'"),
        ({"fc1": float("nan")}, "density nan of layer 'fc1'"),
        ({"fc1": "much"}, "scoring.allocation.fc1: 'much' is not of type float"),
        ([0.5], "scoring.allocation"),
        ("even", "unknown 'even': choose from 'uniform'"),
    ],
)
def test_a_bad_table_of_an_experiment_is_refused(table, message):
    with pytest.raises(UsageError, match=message):
        config.check(with_table(table))


SHAPES = {"conv1": (3, 3, 3, 8), "conv2": (3, 3, 8, 16), "fc1": (64, 32), "fc2": (32, 3)}
FULL = full_masks({n: {"kernel": jax.ShapeDtypeStruct(s, "float32")} for n, s in SHAPES.items()})


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            {"fc9": 0.5},
            "magnitude: scoring.allocation: 'fc9' is no layer; choose from conv1",
        ),
        ({"fc1": 0.01, "conv2": 0.01, "conv1": 0.01}, "leaves .* weights for the network"),
        ({"fc1": 1.0}, "leaves .* weights for the network, and density"),
        ({"fc2": 0.0}, "layer fc2 keeps none of its weights"),
        ({name: 1.0 for name in SHAPES}, "dense layers and least numbers are"),
    ],
)
def test_a_table_that_does_not_suit_the_network_is_refused_before_the_run(table, message):
    with pytest.raises(UsageError, match=message):
        preflight.check_layers(with_table(table, methods=("magnitude",)), FULL, tuple(SHAPES))


def test_what_a_table_leaves_open_is_said():
    (note,) = preflight.allocation_notes(with_table({"fc1": 0.2}), FULL)
    assert "does not name conv1, conv2, fc2; these layers share what the last round leaves" in note
    whole = dict.fromkeys(SHAPES, 0.1)
    (note,) = preflight.allocation_notes(with_table(whole), FULL)
    assert "the table keeps 0.1 of the network, and the last round 0.2" in note
    assert preflight.allocation_notes(with_table(whole, sparsity=0.9), FULL) == []
    assert preflight.allocation_notes(TINY, FULL) == []


@pytest.mark.whole(but=1)
@pytest.mark.parametrize("table", [{"fc1": 0.2, "fc2": 0.9}, dict.fromkeys(SHAPES, 0.2)], ids=len)
def test_a_run_keeps_the_numbers_of_the_table(table, tmp_path):
    experiment = with_table(table, seeds=(0,), dense=config.Stage(), final=config.Stage())
    assert run(experiment, tmp_path / "run")
    densities = config.densities(experiment)
    for method in experiment.methods:
        for number, density in enumerate(densities, 1):
            record = layout.read_record(tmp_path / f"run/seed_0/{method}/round_0{number}")
            sizes = {row["layer"]: row["weights"] for row in record["layers"]}
            alive = {row["layer"]: row["alive"] for row in record["layers"]}
            assert sum(alive.values()) == int(density * sum(sizes.values()))
        kernels = {n: {"kernel": np.empty((size, 1), np.float32)} for n, size in sizes.items()}
        assert alive == allocate(full_masks(kernels), density, table, order=tuple(sizes))
        for name, part in table.items():
            assert abs(alive[name] - part * sizes[name]) < 1


def test_the_command_takes_a_file_and_an_experiment_a_table(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.py").write_text(EXPERIMENT)
    (tmp_path / "table.csv").write_text("layer,density\nfc9,0.1\n")
    assert main(["run", "tiny.py", "--scoring.allocation", "table.csv"]) == 2
    assert "scoring.allocation: 'fc9' is no layer; choose from fc1" in capsys.readouterr().err
    table = EXPERIMENT.replace("micro_batch=16", 'micro_batch=16, allocation={"fc8": 1}')
    (tmp_path / "tiny.py").write_text(table)
    assert main(["run", "tiny.py"]) == 2
    assert "'fc8' is no layer" in capsys.readouterr().err
    assert not (tmp_path / "runs/tiny/config.json").exists()
