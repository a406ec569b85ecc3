"""Compiled facts: the document has the tables that the script prints, and they agree with a GPU."""

import json
from pathlib import Path

import pytest

from experiments import plans
from fairgrape_jax.plan import targets
from fairgrape_jax.plan.compiled import Facts
from fairgrape_jax.plan.hlo import Collectives
from fairgrape_jax.plan.requests import Answer

ROOT = Path(__file__).parents[2]


def test_the_document_has_the_tables_that_the_script_prints():
    text = (ROOT / "docs" / "scaling.md").read_text()
    assert len(plans.tables()) == 3
    for table in plans.tables():
        assert table in text


def test_no_measured_step_is_faster_than_its_floor_and_memory_is_what_was_measured():
    rows = plans.beside_measured()
    assert rows
    for row in rows:
        assert 0 < float(row["floor over measured"]) < 1
        planned, real = (
            float(row[name].replace(",", "")) for name in ("temporaries planned, MB", "on the H100")
        )
        assert planned == pytest.approx(real, rel=0.1)


def test_programs_in_the_document_fit_and_hold_what_is_promised():
    for row in plans.load_plans():
        facts = plans.facts_of(row)
        assert facts.status == "compiled"
        assert not facts.float64
        assert not facts.host_calls
        assert facts.aliases >= facts.donated
        assert facts.total <= targets.parse(row["target"]).memory
        if row["name"] == "scoring":
            assert not facts.collectives


def test_only_what_is_missing_is_compiled_and_each_program_is_written_as_it_comes(
    tmp_path, monkeypatch, capsys
):
    written = tmp_path / "plans.json"
    written.write_text(json.dumps({"jax": "0.10.2", "programs": []}))
    asked = []

    def ask(request, program, seconds):
        groups = request.description.groups
        asked.append((request.target.name, program, groups))
        assert len(json.loads(written.read_text())["programs"]) == max(len(asked) - 1, 0)
        sums = (Collectives("all-reduce", 1, 8, 8, 0),)
        status = "compiled" if groups == 7 else "not compiled"
        return Answer((), {}, Facts(program, status, collectives=sums, compile_seconds=1.26))

    monkeypatch.setattr(plans, "BENCHMARKS", tmp_path)
    monkeypatch.setattr(plans, "ask", ask)
    plans.compile_missing(["v6e", "reduction"])
    assert asked == [("v6e:2x4", "reduction", 7), ("v6e:2x4", "reduction", 14)]
    (row,) = plans.load_plans()
    assert (row["target"], row["groups"], row["compile_seconds"]) == ("v6e:2x4", 7, 1.3)
    assert plans.facts_of(row).collectives == (Collectives("all-reduce", 1, 8, 8, 0),)
    assert "14 groups: not compiled" in capsys.readouterr().out
    asked.pop(0)
    plans.compile_missing(["v6e", "reduction"])
    assert (
        asked == [("v6e:2x4", "reduction", 14)] * 2
    )  # what failed is tried again, what is there not
