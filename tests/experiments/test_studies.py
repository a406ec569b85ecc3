"""The studies of recipes and of systems: every committed cell is of the row that stands there."""

import dataclasses
import json

import pytest

from experiments import study
from experiments.recipes import __main__ as run_recipes
from experiments.recipes import batch_norm
from experiments.recipes.recipes import DENSITIES, FRESH_SEEDS, MEASURED
from experiments.recipes.recipes import STUDY as RECIPES
from experiments.systems import __main__ as run_systems
from experiments.systems import timing
from experiments.systems.rows import ROWS, STRUCTURED, STRUCTURES
from experiments.systems.rows import STUDY as SYSTEMS
from fairgrape_jax import config
from fairgrape_jax.methods import METHODS

STUDIES = {
    "recipes": RECIPES,
    "batch norm": batch_norm.STUDY,
    "systems": SYSTEMS,
    "structures": STRUCTURES,
}
COMMANDS = {
    "recipes": (run_recipes, {RECIPES, batch_norm.STUDY}),
    "systems": (run_systems, {SYSTEMS, STRUCTURES}),
}
ALL_ROWS = [(name, row) for name, one in STUDIES.items() for row in one.rows]


@pytest.mark.parametrize(("name", "row"), ALL_ROWS, ids=" ".join)
def test_every_row_is_an_experiment_of_one_method(name, row):
    for share in STUDIES[name].shares:
        made = STUDIES[name].experiment(row, share, 0)
        config.check(made)
        assert len(made.methods) == 1
        assert made.seeds == (0,)


def test_what_is_measured_comes_last():
    assert DENSITIES[-len(MEASURED) :] == MEASURED
    assert all(row.densities[-len(SYSTEMS.measured) :] == SYSTEMS.measured for row in ROWS.values())
    assert all(len(row.densities) == len(STRUCTURES.measured) for row in STRUCTURED.values())


def test_every_system_is_in_the_study():
    compared = {row.method for row in (*ROWS.values(), *STRUCTURED.values())}
    rows = METHODS.items()  # of single weights or units of one layer; AutoBot is none of them
    trains = {name for name, row in rows if row.approach is not None and not row.of_structures}
    counts = {name for name, row in METHODS.items() if row.counts is not None} - {"structured"}
    assert trains | counts <= compared


@pytest.mark.parametrize("name", STUDIES)
def test_every_committed_cell_is_of_the_row_that_stands_in_the_table(name):
    one = STUDIES[name]
    tested = FRESH_SEEDS if one is RECIPES else one.seeds
    planned = [*one.cells(), *one.cells(seeds=tested, split="test")]
    paths = {cell.path: cell for cell in planned}
    assert len(paths) == len(planned)
    for path in one.folder.glob("*.json"):
        cell = paths[path]
        content = cell.read()
        assert content is not None, f"{path.name}: of another row than that of this name"
        assert list(content["pruned"]) == [f"{value:g}" for value in one.measured]
        samples = content["samples"]
        assert samples == (4000 if paths[path].split == "test" else 2000)
        for value in content["pruned"].values():
            assert len(study.unpack(value["right"], samples)) == samples


def test_structured_rows_keep_to_the_operations_that_are_asked_for():
    for path in STRUCTURES.folder.glob("*.json"):
        for budget, value in json.loads(path.read_text())["pruned"].items():
            assert 0.7 * float(budget) < value["cost"] <= float(budget), path.name


def test_a_cell_of_another_row_of_that_name_is_not_taken(tmp_path, monkeypatch):
    monkeypatch.setattr(study.Cell, "path", tmp_path / "cell.json")
    cell = study.Cell(RECIPES, RECIPES.base, 0.05, 0)
    assert cell.read() is None
    content = {"seconds": 7200.0, "experiment": study.described(cell)}
    cell.path.write_text(json.dumps(content))
    assert cell.read() == content
    assert study.read_done([cell]) == {cell: content}
    content["experiment"]["batch"] = 32
    cell.path.write_text(json.dumps(content))
    assert cell.read() is None
    assert study.read_done([cell]) == {}


def test_the_planned_hours_are_those_of_the_median_cell(tmp_path):
    one = dataclasses.replace(SYSTEMS, folder=tmp_path)
    cells = list(one.cells())
    assert one.planned_hours(cells[:60]) == 1.0  # a minute each before any was timed
    for i, seconds in enumerate((100.0, 7200.0, 9000.0)):
        (tmp_path / f"{i}.json").write_text(json.dumps({"seconds": seconds}))
    assert one.planned_hours(cells[:2]) == 4.0


def test_an_epoch_costs_what_a_long_run_takes_more_than_a_short_one(tmp_path, monkeypatch):
    def cpu_seconds(name, epochs, out):
        return 10.0 + epochs * (2.0 if name == timing.BASE else 3.0)

    monkeypatch.setattr(timing, "cpu_seconds", cpu_seconds)
    table = timing.time_rows(tmp_path)
    assert "| magnitude | 2.00 | 1.00 |" in table
    assert "| slr | 3.00 | 1.50 |" in table


@pytest.mark.whole
@pytest.mark.parametrize("name", COMMANDS)
def test_a_study_goes_on_with_its_cells_and_its_tables_run_nothing(name, monkeypatch, capsys):
    command, expected = COMMANDS[name]
    planned = []
    monkeypatch.setattr(command, "run_left", lambda cells, out: planned.extend(cells))
    command.main([])
    assert {cell.study for cell in planned} == expected
    assert len(planned) == sum(len(list(one.cells())) for one in expected)
    planned.clear()
    command.main(["--tables"])
    assert not planned
    assert "| " in capsys.readouterr().out
