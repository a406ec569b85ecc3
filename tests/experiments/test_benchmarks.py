"""Each benchmark runs on a small network and leaves rows that say what they were measured on."""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from experiments.benchmarks import sparse, timing

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
    "structures": (
        ["--batches", "2", "--flops", "0.5"],
        {"dense", "99 % zeros", "50% of the operations removed"},
    ),
    "sparse": (["--kept", "0.1", "--jax"], {"dense", "scipy", "jax BCSR", "jax BCOO"}),
    "channels": (
        ["--channels", "3", "4", "--features", "5", "20", "--shapes", "32,3,1,9"],
        {"32,3,1,9"},
    ),
    "step_profile": (["--pixels", "256"], {"mlp"}),
    "round": (
        ["--groups", "2", "--images", "20", "--batch", "4"],
        {"importance", "selection", "retraining", "evaluation", "a round"},
    ),
}


SLOW = ("importance", "train", "selection")  # they compile a program for every row


@pytest.mark.whole(but=2)
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
        "structures": ["--models", "mlp", "--size", "8", "--repeats", "2"],
        "sparse": ["--layers", "16x8", "--batches", "1", "--repeats", "2"],
        "channels": ["--repeats", "1"],
        "compile": ["--models", "mlp", "--sizes", "8", "--batch", "4", "--groups", "2"],
        "step_profile": ["--models", "mlp", "--sizes", "8", "--repeats", "1"],
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


@pytest.mark.parametrize("kind", [str, Path])
def test_a_record_has_no_path_of_the_machine(kind, tmp_path):
    place = tmp_path / "rows.json"
    options = {"json": place, "torch": kind(tmp_path / "python"), "path": kind("a/b"), "size": 8}
    timing.add_json(place, options, [])
    (run,) = json.loads(place.read_text())
    assert run["options"] == {"torch": "python", "path": "a/b", "size": 8}
    assert str(tmp_path) not in place.read_text()
    committed = (ROOT / "docs/benchmarks").glob("*.json")
    assert not [path.name for path in committed if '"/' in path.read_text()]


@pytest.mark.parametrize("folder", ["experiments", "tools", "tests"])
def test_no_script_hides_a_module_of_the_standard_library(folder):
    """A script run by its path, as those for torch are, imports its neighbours first."""
    names = {path.stem for path in (ROOT / folder).rglob("*.py")}
    assert not names & sys.stdlib_module_names


def test_the_kernels_of_a_program_are_of_their_kinds():
    profile = importlib.import_module("experiments.benchmarks.step_profile")
    text = """
%fused (a: f32[2,2]) -> f32[2,2] {
  %a = f32[2,2]{1,0} parameter(0)
  ROOT %convolution.1 = f32[2,2]{1,0} convolution(%a, %a)
}

%turned (b: f32[2,2]) -> f32[2,2] {
  %b = f32[2,2]{1,0} parameter(0)
  ROOT %transpose.3 = f32[2,2]{1,0} transpose(%b), dimensions={1,0}
}

ENTRY %main (x: f32[2,2]) -> f32[2,2] {
  %x = f32[2,2]{1,0} parameter(0)
  %dot.1 = f32[2,2]{1,0} dot(%x, %x), metadata={op_name="jit(step)/jvp(CNN)/dot_general"}
  %fusion.2 = f32[2,2]{1,0} fusion(%x), kind=kCustom, calls=%fused
  %fusion.3 = f32[2,2]{0,1} fusion(%x), kind=kLoop, calls=%turned
  %add.4 = f32[2,2]{1,0} add(%x, %x), metadata={op_name="jit(step)/transpose(jvp(CNN))/add"}
  %max.5 = f32[2,2]{1,0} maximum(%x, %x), metadata={op_name="jit(step)/jvp(CNN)/relu/max"}
  %max.6 = f32[2,2]{1,0} maximum(%x, %x), metadata={op_name="jit(step)/reduce_window_max"}
  ROOT %mul.7 = f32[2,2]{1,0} multiply(%x, %x), metadata={op_name="jit(step)/mul"}
}
"""
    kinds = profile.kinds_of(text)
    names = ["dot.1", "fusion.2", "fusion.3", "add.4", "max.5", "max.6", "mul.7"]
    expected = ["products", "products", "copies", "layers", "layers", "pooling", "update"]
    assert [kinds[name] for name in names] == expected


def test_a_step_beside_torch_is_in_the_better_of_two_layouts(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(ROOT)
    python = tmp_path / "python"  # in the place of one that has torch
    times = {"contiguous_format": [3.0, 1.0, 2.0], "channels_last": [1.5, 1.5, 9.0], "version": "0"}
    python.write_text(f"#!/bin/sh\necho '{json.dumps(times)}'\n")
    python.chmod(0o755)
    path = tmp_path / "rows.json"
    options = ["--batch", "4", "--torch", str(python), "--json", str(path)]
    monkeypatch.setattr(sys, "argv", ["train", *SMALL, *options])
    importlib.import_module("experiments.benchmarks.train").main()
    row, torch = json.loads(path.read_text())[0]["rows"]
    assert torch == {
        "row": "torch 0, channels_last",
        "CPU seconds": 1.5,
        "least": 1.5,
        "images/s": 2.7,
    }
    assert row["CPU seconds"] > 0
    assert f"{row['images/s'] / 2.7:.2f} of torch" in capsys.readouterr().out


def test_the_kernels_of_sparse_products_give_the_dense_one_and_a_break_even():
    weights = np.random.default_rng(0).normal(size=(40, 30)).astype("float32")
    x = np.random.default_rng(1).normal(size=(30, 5)).astype("float32")
    calls = sparse.kernels(weights, x, [0.1], with_jax=True)
    kept = sparse.mask(weights.shape, 0.1)
    assert kept.sum() == 120
    for name, call in calls.items():
        expected = weights @ x if name == sparse.DENSE else (weights * kept) @ x
        np.testing.assert_allclose(call(), expected, rtol=1e-4, atol=1e-5)
    speeds = {"a": {"0.2": 0.5, "0.1": 1.5, "0.01": 3.0}, "b": {"0.1": 9.0, "0.01": 0.9}}
    rows = [
        {"layer": "1x1", "batch": 1, "row": name, "kept": kept, "of the least": speed}
        for name, by_part in speeds.items()
        for kept, speed in by_part.items()
    ]
    parts = {row["row"]: row["faster up to"] for row in sparse.break_even(rows)}
    assert parts == {"a": "0.1; at 0.2 not", "b": "nothing; at 0.01 not"}


def test_parts_beside_the_official_procedure_have_their_seconds_and_memory():
    official = importlib.import_module("experiments.benchmarks.official")
    ours = {
        "first": {"importance": 9.0},
        "seconds": {"importance": 2.0},
        "first peak": {"importance": 3.0},
        "peak": {"importance": 1.5},
    }
    theirs = {"seconds": {"importance": 5.0}, "peak": {"importance": 0.5}}
    alone = {"part": "importance", "ours": 2.0, "once": 7.0, "ours, GB": 1.5, "once, GB": 3.0}
    assert official.row("importance", ours, None) == alone
    both = alone | {"theirs": 5.0, "theirs / ours": 2.5, "theirs, GB": 0.5}
    assert official.row("importance", ours, theirs) == both


def test_an_environment_without_torch_is_named_before_anything_is_measured(monkeypatch):
    options = ["official", "--path", "nowhere", "--torch", sys.executable]
    monkeypatch.setattr(sys, "argv", options)
    official = importlib.import_module("experiments.benchmarks.official")
    with pytest.raises(SystemExit, match="cannot import torch and torchvision"):
        official.main()


def test_the_peak_is_that_of_the_part():
    memory = importlib.import_module("experiments.benchmarks.peak_memory")
    memory.reset_peak()
    before = memory.peak()
    held = bytearray(b"1") * 200_000_000
    assert memory.peak() > before + 0.15
    del held
    memory.reset_peak()
    assert memory.peak() < before + 0.1
