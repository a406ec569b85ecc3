"""Compiled facts: the document has the tables that the script prints, and they agree with a GPU."""

from pathlib import Path

import pytest

from experiments import plans
from fairgrape_jax.plan import targets

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
