"""The study on faces, with pictures of chance in place of faces."""

import dataclasses
import json

import numpy as np
import pytest

from experiments import study
from experiments.faces import __main__ as faces
from experiments.faces.rows import COMPARISONS
from fairgrape_jax.config import Stage, check
from fairgrape_jax.data.builders.in_memory import from_arrays
from fairgrape_jax.errors import UsageError
from tests.helpers.experiments import TINY


def test_every_comparison_can_be_run_and_compares_rows_that_it_has():
    for name, compared in COMPARISONS.items():
        check(compared.experiment)
        rows = faces.study(name).rows
        assert {row for pair in compared.pairs for row in pair} <= set(rows)
        assert compared.measured == compared.experiment.densities[-len(compared.measured) :]


@pytest.mark.whole
def test_a_seed_is_run_its_cells_are_read_back_and_make_the_tables(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    source = from_arrays(
        rng.integers(0, 256, (120, 8, 8, 1), np.uint8),
        {"smile": rng.integers(0, 2, 120)},
        rng.integers(0, 2, 120),
        splits=np.repeat([0, 1, 2], 40),
        classes=["no", "yes"],
        group_names=["a", "b"],
    )
    compared = COMPARISONS["gender-by-race"]
    small = dataclasses.replace(
        compared,
        experiment=dataclasses.replace(
            compared.experiment,
            data=TINY.data,
            model="cnn",
            pretrained="",
            densities=(0.5, 0.2),
            dense=Stage((1,), (1e-3,)),
            retrain=Stage((1,), (1e-3,)),
            scoring=dataclasses.replace(compared.experiment.scoring, select="greedy"),
            augmentation="none",
            batch=16,
        ),
        measured=(0.5, 0.2),
    )
    monkeypatch.setitem(COMPARISONS, "gender-by-race", small)
    monkeypatch.setattr(faces, "FOLDER", tmp_path / "cells")
    monkeypatch.setattr(faces, "arrays", lambda task, folder: source)
    command = ["gender-by-race", "--data", str(tmp_path), "--out", str(tmp_path / "out")]
    faces.main([*command, "--seeds", "0"])
    cells = sorted((tmp_path / "cells" / "gender-by-race").glob("*.json"))
    assert len(cells) == len(small.experiment.methods)
    sizes = json.loads(cells[0].read_text())["groups"]
    assert sum(sizes.values()) == 40
    for path in cells:  # right by thresholds as often as the run's record says
        content = json.loads(path.read_text())
        for number, value in enumerate(content["pruned"].values(), 1):
            stage = tmp_path / "out" / "gender-by-race-0" / "seed_0" / content["row"]
            record = json.loads((stage / f"round_{number:02d}" / "metrics.json").read_text())
            after = study.unpack(value["by_threshold"], 40)
            assert 100 * after.mean() == pytest.approx(record["thresholds_by_group"]["accuracy"])

    # What is lacking is done alone, on a dense network of its own.
    lacking = tmp_path / "cells" / "gender-by-race" / "importance_balanced-0-test.json"
    before = lacking.read_bytes()
    lacking.unlink()
    faces.main([*command, "--seeds", "0"])
    assert lacking.read_bytes() == before
    alone = tmp_path / "out" / "gender-by-race-0-importance-balanced" / "seed_0"
    assert sorted(path.name for path in alone.iterdir() if path.is_dir()) == [
        "dense",
        "importance-balanced",
    ]

    def not_again(*_):
        raise AssertionError

    monkeypatch.setattr(faces.runner, "run", not_again)
    faces.main([*command, "--seeds", "0"])
    printed = faces.tables("gender-by-race", [0])
    assert all(f"| {row} |" in printed for row in small.experiment.methods)
    assert "students" not in printed
    assert "| accuracy | fairgrape, thresholds | fairgrape | " in printed
    assert "Running statistics" not in printed
    with pytest.raises(UsageError, match="its networks are needed"):
        faces.main([*command[:3], "--seeds", "0", "--recalibrate", "--out", str(tmp_path / "no")])
    before = {path: json.loads(path.read_text()) for path in cells}
    faces.main([*command, "--seeds", "0", "--recalibrate"])
    for path, content in before.items():
        after = json.loads(path.read_text())
        # The network has no batch norm: what is right stays as it is.
        assert after["pruned"]["0.2"].pop("recalibrated") == content["pruned"]["0.2"]["right"]
        assert after == content
    printed = faces.tables("gender-by-race", [0])
    row = "fairgrape-balanced, recalibrated | fairgrape, recalibrated"
    assert f"| 20 % | worst group | {row} | " in printed
    assert "| 20 % | accuracy | fairgrape, recalibrated | fairgrape | +0.00 ± 0.00 |" in printed
