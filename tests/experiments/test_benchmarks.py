"""Each benchmark runs on a small network and leaves rows that say what they were measured on."""

import importlib
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SMALL = ["--model", "mlp", "--size", "8", "--repeats", "1"]
EXPECTED = {
    "importance": (
        ["--groups", "2", "--batch", "4", "--rows", "pure", "official", "--executions", "single"],
        {"gradient pass", "sum-of-squares, single", "G passes", "official procedure"},
    ),
    "train": (
        ["--batch", "4", "--blind"],
        {
            "without masks, pmap, float32",
            "with masks, pmap, float32",
            "blind, with masks, pmap, float32",
        },
    ),
    "selection": (
        ["--steps", "50", "--maxmin"],
        {"loop by group", "loop over arrays", "greedy", "threshold", "threshold, none", "max-min"},
    ),
    "pipeline": (
        ["--images", "32", "--batch", "8", "--shapes", "40x30", "--size", "16", "--workers", "0"],
        {"Pillow and NumPy", "ours", "ours, any eighth", "ours, fast DCT"},
    ),
    "checkpoint": (
        [],
        {"save", "save, until it returns", "restore", "masks, kept", "sums, kept", "sums, read"},
    ),
    "compile": (["--programs", "evaluate"], {"evaluate"}),
    "round": (
        ["--groups", "2", "--images", "20", "--batch", "4"],
        {"importance", "selection", "retraining", "evaluation", "a round"},
    ),
}


SLOW = ("importance", "train", "selection")  # they compile a program for every row


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in EXPECTED],
)
def test_a_benchmark_prints_and_writes_its_rows(name, tmp_path, monkeypatch, capsys):
    options, expected = EXPECTED[name]
    monkeypatch.syspath_prepend(ROOT)
    path = tmp_path / "rows.json"
    of_many = {
        "selection": ["--models", "mlp", *SMALL[4:]],
        "pipeline": SMALL[4:],
        "compile": ["--models", "mlp", "--sizes", "8", "--batch", "4", "--groups", "2"],
    }
    small = of_many.get(name, SMALL)
    monkeypatch.setattr(sys, "argv", [name, *small, *options, "--json", str(path)])
    importlib.import_module(f"experiments.benchmarks.{name}").main()
    (run,) = json.loads(path.read_text())
    assert expected <= {row.get("row") or row.get("part") for row in run["rows"]}
    assert run["machine"]["device"] == "cpu"
    assert run["machine"]["jax"]
    text = capsys.readouterr().out
    assert all(row in text for row in expected)
