"""What papers print besides accuracies, and what a table will cost, against their definitions."""

import dataclasses
import json
import math
import types

import numpy as np
import pytest

from fairgrape_jax import reproduction
from fairgrape_jax.cli.main import main
from fairgrape_jax.config import Scoring, Stage
from fairgrape_jax.data.sources.writers import Writers
from fairgrape_jax.reports import results
from fairgrape_jax.reproduction import (
    SCALES,
    Cell,
    Line,
    Row,
    Table,
    compare_cell,
    cost_of,
    draw,
    drawing,
    plan_text,
    planned,
    quantities,
    read_table,
    text_of,
)
from tests.helpers import made_runs
from tests.helpers.experiments import TINY


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return made_runs.make(tmp_path_factory.mktemp("quantities") / "run")


@pytest.fixture(scope="module")
def models(run):
    found = [m for m in results.read(run) if m.record["method"] == "fairgrape"]
    return [m for m in found if m.record["round"] == 3]


def rates(predicted, group, classes):
    """FNR and FPR of a group in percent: of class 1 of two, else means over classes."""
    inside = predicted.groups == group
    labels, guesses = predicted.labels[inside, 0], predicted.predictions[inside, 0]
    pairs = []
    for one in [1] if classes == 2 else range(classes):
        is_one, says_one = labels == one, guesses == one
        with np.errstate(invalid="ignore"):
            pairs.append(
                [
                    (is_one & ~says_one).sum() / is_one.sum(),
                    (~is_one & says_one).sum() / (~is_one).sum(),
                ]
            )
    return 100 * np.nanmean(pairs, axis=0)


def test_changes_of_error_rates_and_their_spread_are_their_definitions(models):
    found = quantities.measure(["change of FNR", "change of FPR", "V"], models)
    record = models[0].record
    groups, classes = len(record["groups"]), len(record["tasks"][0][1])
    points = np.array(
        [
            [rates(m.predicted, k, classes) - rates(m.dense, k, classes) for k in range(groups)]
            for m in models
        ]
    )  # (S, G, 2)
    assert found["change of FNR"].mean == pytest.approx(points[..., 0].mean())
    assert found["change of FPR"].mean == pytest.approx(points[..., 1].mean())
    away = points - points.mean(axis=1, keepdims=True)
    assert found["V"].mean == pytest.approx(np.square(away).sum(axis=-1).mean())
    for value in found.values():
        assert value.low <= value.mean <= value.high


def test_the_other_counted_ones_are_rows_of_the_metrics(models):
    names = {"rho(A)": "rho_accuracy", "rho(F1)": "rho_f1", "rho(D)": "rho_change", "Diff": "gap"}
    found = quantities.measure(list(names), models)
    for name, row in names.items():
        expected = np.mean([model.record["test"][row] for model in models])
        assert found[name].mean == pytest.approx(expected)


def test_exemplars_shares_and_what_is_not_measured(models):
    found = quantities.measure(["PIEs", "importance of A", "SVCCA of fc"], models)
    together, dense = (
        np.stack([getattr(m, part).predictions[:, 0] for m in models])
        for part in ("predicted", "dense")
    )
    assert found["PIEs"].mean == (together != dense).all(axis=0).sum()
    assert math.isnan(found["PIEs"].low)
    assert found["SVCCA of fc"] == quantities.UNKNOWN or math.isnan(found["SVCCA of fc"].mean)
    shares = [quantities.share_of_importance(model.record, "a") for model in models]
    if not any(map(math.isnan, shares)):
        assert found["importance of A"].mean == pytest.approx(np.mean(shares))
    assert math.isnan(quantities.share_of_importance({"groups": ["a"]}, "a"))
    record = {"groups": ["a"], "importance": {"x": [1.0]}}
    assert math.isnan(quantities.share_of_importance(record, "b"))


def test_the_area_under_the_curve_counts_pairs_in_order():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 60)
    scores = np.round(rng.random(60) * 0.7 + labels * 0.3, 1)  # with ties
    predicted = types.SimpleNamespace(
        scores=np.stack([1 - scores, scores], axis=1), labels=labels[:, None]
    )
    model = types.SimpleNamespace(predicted=predicted)
    pairs = [
        1.0 if a > b else 0.5 if a == b else 0.0
        for a in scores[labels == 1]
        for b in scores[labels == 0]
    ]
    assert quantities.area_under_curve(model) == pytest.approx(100 * np.mean(pairs))
    predicted.scores = None
    assert math.isnan(quantities.area_under_curve(model))
    assert math.isnan(quantities.over_seeds([1.0]).low)


def test_verdicts_say_what_is_missing():
    nan = math.nan
    lines = {
        "agrees": Line("A", "all", 90.0, 90.5, 89.0, 91.0),
        "+2.00": Line("A", "all", 90.0, 92.0, 91.0, 93.0),
        "-1.00, no interval": Line("A", "all", 90.0, 89.0, nan, nan),
        "no number in the paper": Line("A", "all", None, 89.0, 88.0, 90.0),
        "not measured here": Line("A", "all", 0.1, nan, nan, nan),
    }
    for verdict, line in lines.items():
        assert line.verdict == verdict
    text = text_of(list(lines.values()))
    assert "nan" not in text
    assert "None" not in text


def cell_of(**fields):
    words = dict.fromkeys(("source", "dataset", "folder", "needs", "label", "group"), "")
    plain = {"model": "mlp", "sparsity": 0.9, "keep_per_round": 0.9, "groups": ()}
    return Cell(**{"name": "made", **words, **plain, **fields})


def test_a_row_without_a_method_or_numbers_has_lines_of_its_own(run):
    rows = (
        Row("Ours", "fairgrape", values={"rho(A)": None, "SVCCA": 0.3}),
        Row("CRD", "", 70.0, values={"CEV": 5.0}),
    )
    lines = compare_cell(cell_of(rows=rows), run)
    assert [(line.method, line.quantity) for line in lines] == [
        *(("Ours", name) for name in ("all", "rho(A)", "SVCCA")),
        *(("CRD", name) for name in ("all", "CEV")),
    ]
    verdicts = [line.verdict for line in lines]
    assert verdicts[:3] == [*["no number in the paper"] * 2, "not measured here"]
    assert verdicts[3:] == ["not measured here"] * 2
    assert lines[3].paper == 70.0


def test_a_figure_is_drawn_with_a_curve_for_ours_and_one_for_the_papers(tmp_path):
    rows = (Row("SNIP", "snip", 70.0, values={"rho(A)": 3.0, "none": 1.0}),)
    cells = tuple(cell_of(name=f"at {s}", sparsity=s, rows=rows) for s in (0.5, 0.9))
    table = Table("Figure 0", "somebody", "", cells, "percent pruned")
    unknown = Line("SNIP", "none", 1.0, *quantities.UNKNOWN)
    found = {cell.name: [Line("SNIP", "all", 70.0, 71.0, 70.5, 72.0), unknown] for cell in cells}
    (panel,) = drawing.curves_of(table, found).items()
    name, (ours, theirs) = panel
    assert (name, ours.name, theirs.name) == ("all", "SNIP", "SNIP (paper)")
    assert ours.x == theirs.x == [50.0, 90.0]
    assert (ours.low, theirs.y) == ([70.5] * 2, [70.0] * 2)
    draw(tmp_path / "figure.png", table, found)
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    alike = dataclasses.replace(table, cells=(cells[0], dataclasses.replace(cells[0], name="b")))
    assert drawing.across_of(alike) == "percent pruned: 1 at 0.5, 2 b"
    assert drawing.curves_of(table, {cells[0].name: [unknown]}) == {}


def test_the_cost_counts_every_epoch_of_every_round_method_and_seed():
    one = dataclasses.replace(
        TINY,
        data=Writers(limit=1000),
        methods=("magnitude", "fairgrape", "snip"),
        rounds=2,
        dense=Stage((3,), (1e-3,)),
        retrain=Stage((2,), (1e-3,)),
        final=Stage((1,), (1e-3,)),
        scoring=Scoring(fraction=0.5),
        seeds=(0, 1),
    )
    equal = cost_of(one, 12_000)
    assert equal == (2 * (1 + 3 * 2), 2 * (3 + 3 * 5) * 1000, 2 * 2 * 2 * 500)
    official = cost_of(dataclasses.replace(one, protocol="official"), 500)
    # Magnitude and SNIP in one round without retraining; FairGRAPE scores all pictures.
    assert official == (2 * (1 + 1 + 2 + 1), 2 * (3 + 1 + 5 + 1) * 500, 2 * 2 * 500)


def test_the_plan_names_cells_that_are_missing_done_and_shared(tmp_path, monkeypatch, capsys):
    for name in ("fair_face", "runs", "weights"):
        (tmp_path / name).mkdir()
    (tmp_path / "weights" / "resnet34_imagenet.safetensors").touch()
    table = read_table("figure4")
    text = plan_text(table.cells, tmp_path, SCALES["small"], 3, tmp_path / "runs")
    lines = text.splitlines()[1:]
    assert len(lines) == 5
    assert all("not known before" in line for line in lines)
    everything = [*read_table("table2").cells[:5], table.cells[-1]]
    text = plan_text(everything, tmp_path, SCALES["small"], 3, tmp_path / "runs").splitlines()
    assert text[5].endswith("not here, see below")
    assert text[6].endswith("as fairface-race-by-race")
    monkeypatch.setattr(planned, "finished", lambda run: [3600.0] * 40)
    assert "  40 " in plan_text(table.cells[:1], tmp_path, SCALES["small"], 3, tmp_path)
    assert main(["reproduce", "pw_loss", "--data", str(tmp_path), "--plan"]) == 0
    printed = capsys.readouterr().out
    assert "needs CelebA, prepared" in printed
    assert "not here" in printed


def test_the_seconds_of_finished_stages_are_those_of_their_records(run):
    stages = [json.loads(p.read_text()) for p in run.glob("seed_*/**/metrics.json")]
    found = planned.finished(run)
    assert sorted(found) == sorted(sum(stage["seconds"].values()) for stage in stages)
    assert planned.finished(run / "none") == []


def test_the_command_draws_a_figure(tmp_path, monkeypatch, capsys):
    rows = (Row("Ours", "fairgrape", 70.0),)
    table = Table("Figure 0", "somebody", "", (cell_of(rows=rows),), "percent pruned")
    monkeypatch.setattr(reproduction, "read_table", lambda name: table)
    made_runs.make(tmp_path / "small" / "made")
    words = ["reproduce", "figure4", "--only-report", "--out", str(tmp_path)]
    assert main(words) == 0
    assert "drawn: " in capsys.readouterr().out
    assert (tmp_path / "small" / "figure4.png").is_file()
