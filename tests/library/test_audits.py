"""The audit of arrays: the numbers of the command on files of the same predictions, to the byte."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from PIL import Image

import fairgrape_jax as fg
from fairgrape_jax.cli.main import main

SAMPLES = 300


def drawn(classes=2, seeds=1, words=False, missing=True):
    """Labels, predictions (S, N) of a dense and two compressed models, and two group columns."""
    rng = np.random.default_rng(classes)
    labels = rng.integers(0, classes, SAMPLES)

    def models(accuracy):
        right = rng.random((seeds, SAMPLES)) < accuracy
        return np.where(right, labels, (labels + rng.integers(1, classes, right.shape)) % classes)

    predictions = models(0.9), models(0.8), models(0.7)
    kinds = ["", "old", "young", "9", "10"] if missing else ["old", "young"]
    table = {"age": rng.choice(kinds, SAMPLES), "place": rng.choice(["north / east", "s"], SAMPLES)}
    if words:
        names = np.array(["yes", "no", "maybe"])
        return names[labels], tuple(names[p] for p in predictions), table
    return labels, predictions, table


def by_command(folder, labels, dense, compressed, groups, form, *flags):
    """What `fairgrape audit` writes of files of the same predictions."""
    folder.mkdir()
    base = {"id": [f"s{i}" for i in range(SAMPLES)], "label": labels, **groups}

    def write(name, predictions, with_labels):
        columns = base if with_labels else {"id": base["id"]}
        table = pd.DataFrame({**columns, "prediction": predictions})
        path = folder / f"{name}.{form}"
        if form == "csv":
            table.to_csv(path, index=False)
        else:
            table.to_parquet(path, index=False)
        return str(path)

    words = ["audit", "--out", str(folder / "out"), "--group-column", *groups]
    if dense is not None:
        words += ["--dense", *[write(f"dense{i}", p, True) for i, p in enumerate(dense)]]
    flag = "--predictions" if dense is None else "--compressed"
    for name, models in compressed.items():
        files = [write(f"{name}{i}", p, dense is None) for i, p in enumerate(models)]
        words += [flag, f"{name}={files[0]}", *files[1:]]
    assert main([*words, "--replicates", "40", *flags]) == 0
    return folder / "out"


def numbers(folder):
    """metrics.json but for the names of files and options."""
    stored = json.loads((folder / "metrics.json").read_text())
    for each in stored["sets"].values():
        each.pop("files")
    notes = [note for note in stored.pop("notes") if "positive" not in note and "min" not in note]
    return json.dumps(stored), notes


CASES = {
    "two classes": ({}, (), {}),
    "words": ({"words": True, "classes": 3}, (), {}),
    "ten classes, seeds": ({"classes": 10, "seeds": 3}, (), {}),
    "everybody in a group": ({"missing": False}, (), {}),
    "positive": ({}, ("--positive", "0"), {"positive": 0}),
    "small groups": ({}, ("--min-group", "60"), {"min_group": 60}),
    "convention": (
        {"classes": 4},
        ("--convention", "measure-twice"),
        {"convention": "measure-twice"},
    ),
}


@pytest.mark.whole(but=4)
@pytest.mark.parametrize("form", ["csv", "parquet"])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("alone", [False, True], ids=["compared", "alone"])
def test_the_numbers_are_those_of_the_command(case, form, alone, tmp_path, capsys):
    options, flags, arguments = CASES[case]
    labels, (dense, one, other), table = drawn(**options)
    dense = None if alone else dense
    groups = {"age": table["age"]} if case != "words" else table
    compressed = {"pruned": one, "small": other}
    expected = by_command(tmp_path / "files", labels, dense, compressed, groups, form, *flags)
    printed = capsys.readouterr().out
    result = fg.audit(
        labels,
        dense,
        compressed,
        groups,
        ids=[f"s{i}" for i in range(SAMPLES)],
        replicates=40,
        **arguments,
    )
    page = result.write(tmp_path / "arrays")
    assert page == tmp_path / "arrays" / "report.html"
    assert numbers(tmp_path / "arrays") == numbers(expected)
    assert result.metrics == json.loads((tmp_path / "arrays" / "metrics.json").read_text())
    if not alone:
        assert (page.parent / "pies.csv").read_bytes() == (expected / "pies.csv").read_bytes()
    rows = [line for line in printed.splitlines() if not line.startswith(("note", "report"))]
    assert [line for line in str(result).splitlines() if not line.startswith("note")] == rows
    ours, theirs = ((folder / "report.md").read_text() for folder in (page.parent, expected))
    tables = [[x for x in text.splitlines() if x.startswith("|")] for text in (ours, theirs)]
    assert tables[0] == tables[1]
    assert result.to_markdown() == ours


# -- columns of any library -----------------------------------------------------------------------
def frame(make):
    def convert(labels, dense, compressed, groups):
        table = make({"y": labels, "d": dense, "c": compressed, "g": groups})
        return table["y"], table["d"], table["c"], table["g"]

    return convert


LIBRARIES = {
    "numpy": lambda *columns: columns,
    "lists": lambda *columns: [column.tolist() for column in columns],
    "jax": lambda *columns: [jnp.asarray(c) if c.dtype.kind in "iuf" else c for c in columns],
    "pandas": frame(pd.DataFrame),
    "polars": frame(pl.DataFrame),
    "pyarrow": frame(pa.table),
    "floats": lambda *c: [x.astype(np.float16) if x.dtype.kind in "iuf" else x for x in c],
    "big-endian": lambda *c: [x.astype(x.dtype.newbyteorder(">")) for x in c],
    "columns": lambda *columns: [column[:, None] for column in columns],
    "read-only": lambda *columns: [np.frombuffer(c.tobytes(), c.dtype) for c in columns],
    "one of one seed": lambda y, d, c, g: (y, d[None], [c], g),
}


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("words", [False, True])
def test_every_library_gives_the_same(library, words):
    labels, (dense, one, _), table = drawn(classes=3, words=words)
    columns = labels, dense[0], one[0], table["age"]
    expected = fg.audit(*columns, replicates=10).metrics
    assert fg.audit(*LIBRARIES[library](*columns), replicates=10).metrics == expected


def test_several_models_are_rows_lists_frames_or_a_mapping():
    labels, (dense, one, other), table = drawn(seeds=2)
    groups = pd.DataFrame(table)
    expected = fg.audit(labels, dense, {"a": one, "b": other}, groups, replicates=10).metrics
    assert expected["group_columns"] == ["age", "place"]
    assert expected["sets"]["a"]["models"] == 2
    for make in (list, lambda x: pd.DataFrame({"0": x[0], "1": x[1]}), jnp.asarray):
        arguments = {"a": make(one), "b": make(other)}
        assert fg.audit(labels, make(dense), arguments, groups, replicates=10).metrics == expected
    single = fg.audit(labels, dense[0], one[0], groups, replicates=10)
    assert list(single.metrics["sets"]) == ["compressed"]


def test_negative_groups_and_empty_cells_are_no_group():
    labels, (dense, one, _), _ = drawn()
    codes = np.random.default_rng(0).integers(-1, 3, SAMPLES)
    results = [
        fg.audit(labels, dense, one, groups, replicates=10).metrics
        for groups in (codes, [None if x < 0 else x for x in codes.tolist()])
    ]
    assert results[0] == results[1]
    assert results[0]["samples_of_no_group"] == (codes < 0).sum()
    assert results[0]["samples"] == SAMPLES
    assert list(results[0]["groups"]) == ["0", "1", "2"]
    within = fg.group_metrics(labels, one[0], codes, replicates=5)
    accuracy = results[0]["sets"]["compressed"]["statistics"]["group_accuracy"]["value"]
    assert accuracy == [within.by_group[k]["accuracy"].value for k in range(3)]


def test_the_result_is_frozen_short_and_has_its_tables():
    labels, (dense, one, _), table = drawn()
    result = fg.audit(labels, dense, {"pruned": one}, table["age"], replicates=10)
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.audit = None
    assert len(repr(result).splitlines()) == 1
    assert repr(result).startswith("AuditResult(300 samples, 4 groups, 2 classes; pruned; ")
    assert result.groups == ("9", "10", "old", "young")
    main_table = pd.DataFrame(result.tables["Metrics"])
    assert {"dense", "pruned"} <= set(main_table.columns)
    verdict, _, *lines = str(result).splitlines()
    assert verdict.startswith("pruned ")
    first_rows = [line.split("  ")[0] for line in lines]
    assert main_table.iloc[:, 0].tolist() == first_rows[: len(main_table)]
    assert any("in no group" in line for line in result.cautions)
    assert isinstance(result.findings, tuple)


def test_a_model_that_is_there_twice_is_said():
    labels, (dense, one, _), table = drawn(missing=False)
    cautions = fg.audit(
        labels, dense, {"dense": dense, "b": one}, table["age"], replicates=5
    ).cautions
    assert any(line.startswith("dense: dense says of every sample what") for line in cautions)
    assert not any("dense model's own" in line for line in cautions)


BAD = {
    "labels: 1 samples have none": {"labels": [0, 1, None, 1]},
    "labels: no samples": {"labels": []},
    "compressed: 3 predictions for 4 labels": {"compressed": [0, 1, 1]},
    "dense: 3 predictions for 4 labels": {"dense": np.zeros(3)},
    r"dense, 0: 2 predictions for 4 labels": {"dense": np.zeros((4, 2))},
    "compressed: no model is there": {"compressed": np.zeros((0, 4))},
    "give each model a name of its own": {"compressed": {}},
    "dense= ?: 2 models for the 3 of compressed": {
        "dense": np.array([[0, 1, 0, 1]] * 2),
        "compressed": np.array([[0, 1, 0, 1]] * 3),
    },
    "groups: .3. for 4 labels": {"groups": ["a", "b", "a"]},
    "'a' is the only group; a comparison needs two or more$": {"groups": ["a"] * 4},
    "no sample is left in a group": {"groups": [-1] * 4},
    "compressed: 1 samples have no prediction": {"compressed": [0, 1, np.nan, 1]},
    "no prediction is ever a label": {"compressed": ["x", "y", "x", "y"]},
    "look like scores, not classes .*; give the class$": {"compressed": [0.1, 0.9, 0.2, 0.8]},
    "labels: values of several kinds, int and str": {"labels": [0, 1, "a", "b"]},
    r"labels: \(2, 2\); one value": {"labels": np.zeros((2, 2))},
    r"positive=: '2' is not one of two classes": {"positive": 2},
    "min_group= and replicates= must": {"min_group": 0},
    "convention: 'mine' is neither": {"convention": "mine"},
    r"ids: some are there more than once \(a\)": {"ids": ["a", "a", "b", "c"]},
    "ids: 3 for 4 samples": {"ids": ["a", "b", "c"]},
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input_is_named_by_its_argument(message):
    arguments = {"labels": [0, 1, 0, 1], "dense": [0, 1, 0, 1], "compressed": [0, 1, 1, 1]}
    arguments |= {"groups": ["a", "a", "b", "b"]} | BAD[message]
    with pytest.raises(ValueError, match=message) as error:
        fg.audit(**arguments)
    assert "--" not in str(error.value)
    assert "\n" not in str(error.value)


def test_no_message_names_a_flag_of_the_command():
    labels, (dense, one, _), table = drawn()
    result = fg.audit(labels, dense, one, table["age"], min_group=60, replicates=5)
    assert any("(min_group=)" in line for line in result.cautions)
    assert any("(positive=)" in line for line in result.cautions)
    assert "--" not in "".join(result.cautions)


def test_arrays_of_jax_are_moved_explicitly():
    labels, (dense, one, _), table = drawn()
    arguments = jnp.asarray(labels), jnp.asarray(dense), jnp.asarray(one[0])
    with jax.transfer_guard("disallow"):
        fg.audit(*arguments, table["age"], replicates=5)


def test_pictures_are_those_of_the_ids(tmp_path):
    labels, (dense, one, _), table = drawn()
    result = fg.audit(labels, dense, one, table["age"], replicates=5)
    with pytest.raises(ValueError, match="pictures=: there are no ids"):
        result.write(tmp_path / "out", pictures=tmp_path)
    named = fg.audit(labels, dense, one, table["age"], ids=np.arange(SAMPLES), replicates=5)
    changed = int(np.flatnonzero(dense[0] != one[0])[0])
    Image.new("L", (4, 4)).save(tmp_path / f"{changed}.png")
    page = named.write(tmp_path / "out", pictures=tmp_path)
    assert "data:image/" in page.read_text()
