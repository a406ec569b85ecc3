"""The audit from the command line: which model is which column, and what it says of odd tables."""

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

import fairgrape_jax
from fairgrape_jax.cli.main import main

BASE = "id,label,prediction,group\n1,0,0,a\n2,1,1,a\n3,0,0,b\n4,1,1,b\n"
ID = [1, 2, 3, 4]
PACKAGE = Path(fairgrape_jax.__file__).parents[1]


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dense.csv").write_text(BASE)
    return tmp_path


def run(*words):
    return main(["audit", *map(str, words), "--replicates", "50"])


def numbers(folder="audit"):
    with open(f"{folder}/metrics.json", encoding="utf-8") as file:
        return json.load(file)


def accuracy(name, folder="audit"):
    return numbers(folder)["sets"][name]["statistics"]["accuracy"]["value"]


def parquet(name, **columns):
    pa.parquet.write_table(pa.table(columns), name)
    return name


def text(name, content):
    with open(name, "w", encoding="utf-8") as file:
        file.write(content)
    return name


NEVER = {  # predictions that are never a label, whatever the other file says
    "words": "1,no\n2,yes\n3,no\n4,yes\n",
    "sexes": "1,Male\n2,Female\n3,Male\n4,Female\n",
    "logits": "1,-1.5\n2,1.2\n3,-0.7\n4,2.25\n",
    "probabilities": "1,0.0\n2,1.0\n3,0.31\n4,0.82\n",
    "leading zeros": "1,00\n2,01\n3,00\n4,01\n",
    "truth values": "1,false\n2,true\n3,False\n4,True\n",
}


@pytest.mark.parametrize("side", ["dense", "compressed"])
@pytest.mark.parametrize("kind", NEVER)
def test_predictions_that_are_never_a_label_are_refused_for_each_file(kind, side, capsys):
    text("dense.csv", "id,label,prediction,group\n1,0,0,a\n2,1,1,a\n3,0,0,b\n4,1,1,b\n")
    bad, good = text("odd.csv", "id,prediction\n" + NEVER[kind]), "dense.csv"
    pair = ["--dense", bad, "--compressed", good] if side == "dense" else (
        ["--dense", good, "--compressed", bad]
    )  # fmt: skip
    assert run(*pair) == 2
    error = capsys.readouterr().err
    assert error.startswith("fairgrape: error: odd.csv: ")
    assert "look like scores" in error if "." in NEVER[kind] else "is ever a label" in error
    assert not os.path.exists("audit")


SAME = {  # one class however it is written
    "truth": (["False", "True"], pa.array([False, True, False, True])),
    "floats": (["0", "1"], pa.array([0.0, 1.0, 0.0, 1.0])),
    "minus zero": (["0", "1"], pa.array([-0.0, 1.0, -0.0, 1.0])),
    "float text": (["0.0", "1.00"], pa.array([0, 1, 0, 1])),
    "words": (["no", "yes"], pa.array([" no", "yes ", "no", "yes"])),
}


@pytest.mark.parametrize("kind", SAME)
def test_csv_and_parquet_agree_on_what_is_one_class(kind):
    (no, yes), column = SAME[kind]
    text("dense.csv", BASE.replace(",0,0,", f",{no},{no},").replace(",1,1,", f",{yes},{yes},"))
    parquet("b.parquet", id=ID, prediction=column)
    assert run("--dense", "dense.csv", "--compressed", "b.parquet") == 0
    assert accuracy("b") == [100.0]
    assert len(numbers()["classes"]) == 2


def test_nan_of_parquet_is_an_empty_cell(capsys):
    column = pa.array([0.0, np.nan, 0.0, 1.0], from_pandas=False)
    parquet("b.parquet", id=ID, prediction=column)
    assert run("--dense", "dense.csv", "--compressed", "b.parquet") == 2
    assert "b.parquet: 1 samples have no prediction" in capsys.readouterr().err
    group = pa.array([1.0, 1.0, np.nan, 2.0], from_pandas=False)
    parquet("c.parquet", id=ID, label=[0, 1, 0, 1], prediction=[0, 1, 1, 1], group=group)
    assert run("--dense", "c.parquet", "--compressed", "c.parquet") == 0
    found = numbers()
    assert found["groups"] == {"1": 2, "2": 1}
    assert (found["samples"], found["samples_of_no_group"]) == (4, 1)
    assert accuracy("c") == [75.0]
    assert "1 samples are in no group" in capsys.readouterr().out


@pytest.mark.whole
def test_what_is_printed_and_written_does_not_depend_on_the_hash_seed(place, capsys):
    words = ("8", "10", "nan", "9", "NaN", "1.0")
    lines = [f"{i},{words[i % 3]},{words[i // 3 % 5]},{words[i % 5]},{i % 7}\n" for i in range(60)]
    text("h.csv", "id,label,prediction,group,other\n" + "".join(lines))
    others = [f"{i},{words[i // 5 % 3]}\n" for i in range(60)]
    text("h2.csv", "id,prediction\n" + "".join(others))
    line = ["audit", "--dense", "h.csv", "--compressed", "h2.csv", "--replicates", "20"]
    lines = [[*line, *more] for more in ([], ["--group-column", "group", "other"])]
    code = "from fairgrape_jax.cli.main import main\n" + "".join(
        f"assert main({[*words, '--out', f'there{number}']}) == 0\n"
        for number, words in enumerate(lines)
    )
    # The hash seed of this process is another one at each start.
    there = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "1", "PYTHONPATH": str(PACKAGE)},
    )
    for number, words in enumerate(lines):
        assert main([*words, "--out", f"here{number}"]) == 0
    assert re.sub(r"there(?=\d)", "here", there.stdout) == capsys.readouterr().out
    for number in range(len(lines)):
        files = sorted(path for path in (place / f"here{number}").iterdir())
        assert len(files) == 4
        for path in files:
            other = place / f"there{number}" / path.name
            assert other.read_bytes() == path.read_bytes(), path.name


def test_crossed_groups_keep_their_columns():
    text(
        "d.csv",
        "id,label,prediction,g,h\n1,0,0,a / b,c\n2,1,0,a / b,c\n3,0,1,a,b / c\n4,1,1,a,b / c\n",
    )
    text("c.csv", "id,prediction\n1,1\n2,1\n3,0\n4,0\n")
    assert run("--dense", "d.csv", "--compressed", "c.csv", "--group-column", "g", "h") == 0
    found = numbers()
    assert list(found["groups"].values()) == [2, 2]
    assert sorted(found["group_values"].values()) == [["a", "b / c"], ["a / b", "c"]]
    with open("audit/pies.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {(row["group:g"], row["group:h"]) for row in rows} == {("a / b", "c"), ("a", "b / c")}


def test_a_model_that_says_one_class_is_not_praised(capsys):
    text("one.csv", "id,prediction\n1,1\n2,1\n3,1\n4,1\n")
    assert run("--dense", "dense.csv", "--compressed", "one.csv") == 0
    out = capsys.readouterr().out
    assert "note: one: says one class for everyone: 1." in out
    assert run("--dense", "one.csv", "--compressed", "dense.csv") == 0
    assert "note: dense: says one class for everyone: 1." in capsys.readouterr().out
    with open("audit/report.md", encoding="utf-8") as file:
        assert "says one class for everyone" in file.read()


def test_the_same_file_on_both_sides_is_said(capsys, place):
    os.symlink("dense.csv", "linked.csv")
    text("copy.csv", BASE)
    sets = ["--compressed", "linked.csv", "--compressed", "copy.csv", "copy.csv"]
    assert run("--dense", "dense.csv", *sets) == 0
    out = capsys.readouterr().out
    assert "note: linked: linked.csv is the dense model's own: nothing can differ." in out
    assert "note: copy: copy.csv says of every sample what the dense model says" in out
    assert "note: copy: copy.csv is there twice" in out


TABLE = "name,truth,sex,base,small,tiny\nx,0,f,0,0,1\ny,1,f,1,1,1\nz,0,m,0,1,1\nw,1,m,1,1,0\n"


@pytest.mark.parametrize("by", ["position", "dense"])
def test_one_table_with_several_columns_of_predictions(by, capsys):
    text("t.csv", TABLE)
    columns = ["--id-column", "name", "--label-column", "truth", "--group-column", "sex"]
    where = ["t.csv"] if by == "position" else ["--dense", "t.csv"]
    models = ["--dense-column", "base", "--compressed-column", "small", "least=tiny"]
    assert run(*where, *models, *columns) == 0
    assert accuracy("small") == [75.0]
    assert accuracy("least") == [25.0]
    assert numbers()["sets"]["least"]["files"] == ["t.csv (column tiny)"]
    assert "No file has a column" not in capsys.readouterr().out
    seeds = ["--dense-column", "base", "--compressed-column", "both=small", "both=tiny"]
    assert run(*where, *seeds, *columns) == 0
    assert (numbers()["sets"]["both"]["models"], accuracy("both")) == (2, [50.0])
    assert run(*where, "--dense-column", "base", "--compressed-column", "smal", *columns) == 2
    assert "t.csv: no column 'smal' (its columns: name, truth" in capsys.readouterr().err


def test_sets_are_compared_by_their_difference(place):
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, 600)
    model = {
        name: np.where(rng.random(600) < rate, label, 1 - label)
        for name, rate in (("dense", 0.99), ("good", 0.95), ("poor", 0.6), ("other", 0.95))
    }
    parquet("t.parquet", label=label, group=np.arange(600) % 2, **model)
    columns = ["--dense-column", "dense", "--compressed-column", "good", "poor"]
    assert run("t.parquet", *columns) == 0
    report = (place / "audit" / "report.md").read_text(encoding="utf-8")
    (row,) = [line for line in report.splitlines() if re.match(r"\| (good|poor) \| [-+]", line)]
    assert row.split(" | ")[1].endswith(" *")  # accuracy
    assert run("t.parquet", *columns, "other") == 0
    report = (place / "audit" / "report.md").read_text(encoding="utf-8")
    assert "that hold for all pairs together" in report
    assert run("t.parquet", *columns, "x=good", "x=other") == 0
    report = (place / "audit" / "report.md").read_text(encoding="utf-8")
    assert "different numbers of models" in report


def test_columns_of_two_files():
    text("a.csv", "id,label,group,p,q\n1,0,a,0,1\n2,1,a,1,1\n3,0,b,0,0\n4,1,b,1,0\n")
    text("b.csv", "id,r\n1,0\n2,0\n3,0\n4,1\n")
    line = ["--dense", "a.csv", "--dense-column", "p", "--compressed", "x=b.csv"]
    assert run(*line, "--compressed-column", "r") == 0
    assert accuracy("x") == [75.0]
    assert (
        run(*line[:2], "--dense-column", "p", "--compressed", "a.csv", "--compressed-column", "q")
        == 0
    )
    assert accuracy("a") == [50.0]


@pytest.mark.parametrize(
    ("line", "name"),
    [
        (["--dense", "dense.csv"], "dense"),
        (["--predictions", "mine=dense.csv"], "mine"),
        (["dense.csv"], "dense"),
        (["dense.csv", "--dense-column", "prediction"], "prediction"),
    ],
)
def test_a_model_alone(line, name, capsys):
    text("dense.csv", BASE.replace("4,1,1,b", "4,1,0,b"))
    assert run(*line) == 0
    out = capsys.readouterr().out
    assert "accuracy of b" in out
    assert "change" not in out
    one = numbers()["sets"][name]
    assert one["statistics"]["group_accuracy"]["value"] == [100.0, 50.0]
    assert "rho_change" not in one["statistics"]
    assert "excluded" not in one
    assert not os.path.exists("audit/pies.csv")
    with open("audit/report.html", encoding="utf-8") as file:
        page = file.read()
    assert "Accuracy by group" in page
    assert "rho(Delta)" not in page
    assert "CEV" not in page


def test_several_models_alone_are_side_by_side():
    text("other.csv", BASE.replace("4,1,1,b", "4,1,0,b"))
    assert run("--predictions", "dense.csv", "--predictions", "x=other.csv", "dense.csv") == 0
    assert accuracy("dense") == [100.0]
    assert accuracy("x") == [87.5]


def test_rows_are_matched_by_their_order_where_there_is_no_id(capsys):
    text("a.csv", "label,prediction,group\n0,0,a\n1,1,a\n0,0,b\n1,1,b\n")
    text("b.csv", "prediction\n0\n1\n1\n1\n")
    assert run("--dense", "a.csv", "--compressed", "b.csv") == 0
    note = "No file has a column 'id': a sample is its row, from 1; rows of different files were"
    assert note in capsys.readouterr().out
    with open("audit/report.md", encoding="utf-8") as file:
        assert note in file.read()
    with open("audit/pies.csv", encoding="utf-8") as file:
        assert [row["id"] for row in csv.DictReader(file)] == ["3"]
    assert run("--dense", "a.csv", "--compressed", "b.csv", "--id-column", "id") == 2
    assert "no column 'id'" in capsys.readouterr().err


REFUSED = {
    "nothing": ([], "name a table, or files with --dense"),
    "both": (["dense.csv", "--dense", "dense.csv"], "the table is named already"),
    "alone and dense": (["--predictions", "dense.csv", "--dense", "dense.csv"], "models alone"),
    "columns of many files": (
        ["--dense", "dense.csv", "dense.csv", "--dense-column", "a", "b"],
        "several files or several columns",
    ),
    "columns of which file": (
        ["--dense", "dense.csv", "dense.csv", "--compressed-column", "b"],
        "--dense has several files",
    ),
    "columns and sets": (
        ["--dense", "dense.csv", "--compressed", "dense.csv", "--compressed-column", "b", "c"],
        "one column for all its files",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_models_that_do_not_go_together_are_refused(kind, capsys):
    line, message = REFUSED[kind]
    assert run(*line) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error


def test_positive_may_be_written_as_in_the_file():
    text("d.csv", BASE.replace(",0,0,", ",0.0,0.0,").replace(",1,1,", ",1.0,1.0,"))
    assert run("--dense", "d.csv", "--compressed", "dense.csv", "--positive", "0.0") == 0
    assert numbers()["classes"] == ["1", "0"]
    assert run("--dense", "d.csv", "--compressed", "dense.csv", "--positive", "cat") == 2
