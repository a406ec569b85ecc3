"""The audit: by hand on a small table, every bad input, any order of rows, Parquet, and speed."""

import csv
import json
import re
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from fairgrape_jax import metrics
from fairgrape_jax.cli.main import main
from fairgrape_jax.reports import audit
from fairgrape_jax.reports.audit_request import Request
from fairgrape_jax.reports.audit_sources import Source
from fairgrape_jax.reports.comparison import STATISTICS

# Two groups of ten samples, two classes. Dense: one false positive and one false negative in each
# group; pruned: in a the same, in b two false positives and three false negatives.
LABELS = [*"0000011111", *"0000011111"]
DENSE = [*"1000001111", *"1000001111"]
PRUNED = [*"0100010111", *"1100000011"]
GROUPS = [*"aaaaaaaaaa", *"bbbbbbbbbb"]


def write(
    path, predictions, labels=LABELS, groups=GROUPS, ids=None, header="id,label,prediction,group"
):
    ids = [f"img{i}" for i in range(len(labels))] if ids is None else ids
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(header.split(","))
        rows.writerows(zip(ids, labels, predictions, groups, strict=True))
    return str(path)


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return write(tmp_path / "dense.csv", DENSE), write(tmp_path / "pruned.csv", PRUNED)


def run(*arguments):
    return main(["audit", *map(str, arguments)])


def numbers(folder="audit"):
    with open(f"{folder}/metrics.json") as file:
        found = json.load(file)
    return found, {name: one["statistics"] for name, one in found["sets"].items()}


def values(statistics):
    return {
        row: [None if v is None else round(v, 6) for v in x["value"]]
        for row, x in statistics.items()
    }


def test_a_small_table_by_hand(files, capsys):
    dense, pruned = files
    assert run("--dense", dense, "--compressed", pruned, "--group-column", "group") == 0
    said = capsys.readouterr().out
    found, sets = numbers()
    got = values(sets["pruned"])
    assert found["groups"] == {"a": 10, "b": 10}
    assert got["accuracy"] == [65.0]
    assert got["group_accuracy"] == [80.0, 50.0]
    assert got["group_change"] == [0.0, -30.0]
    assert got["rho_accuracy"] == [round(30 / np.sqrt(2), 6)]
    assert got["rho_change"] == [round(30 / np.sqrt(2), 6)]
    # Group a: no change; b: FPR 1/5 -> 2/5, FNR 1/5 -> 3/5: changes of 100 % and 200 %.
    assert got["cev_groups"] == [round((50**2 + 100**2) / 2, 6)]
    assert got["sde_groups"] == [round(100 / 2 / np.sqrt(2), 6)]
    # Class 1: FPR 2/10 -> 3/10, FNR 2/10 -> 4/10; class 0 the same two exchanged: 50 %, 100 %.
    assert got["cev_classes"] == [625.0]
    assert got["sde_classes"] == [round(50 / np.sqrt(2), 6)]
    for text in ("accuracy of a", " 80 [", " 50 [", "rho(A)", " 21 [", "rho(Delta)", " 6,250 ["):
        assert text in said  # no decimals: the intervals are wide
    for text in (" 35 [", " 625 [", "Group a has 10 samples"):
        assert text in said
    with open("audit/pies.csv") as file:
        rows = list(csv.DictReader(file))
    expected = [f"img{i}" for i in range(20) if DENSE[i] != PRUNED[i]]
    assert [row["id"] for row in rows] == expected
    assert rows[0] == {
        "set": "pruned", "id": "img0", "group": "a", "label": "0", "dense": "1", "compressed": "0",
    }  # fmt: skip


def test_the_order_of_rows_and_the_way_numbers_are_written_do_not_matter(files, tmp_path):
    dense, pruned = files
    assert run("--dense", dense, "--compressed", pruned) == 0
    expected = numbers()[1]["pruned"]
    order = np.random.default_rng(0).permutation(20)

    def shuffled(column, form=str):
        return [form(column[i]) for i in order]

    write(
        tmp_path / "pruned.csv",
        shuffled(PRUNED, lambda x: f" {x}.0"),
        shuffled(LABELS, lambda x: f"{x}.0"),
        shuffled(GROUPS),
        [f"img{i}" for i in order],
    )
    assert run("--dense", dense, "--compressed", pruned) == 0
    assert numbers()[1]["pruned"] == expected


def test_parquet_scores_and_columns_by_name(files, tmp_path, capsys):
    dense, pruned = files
    assert run("--dense", dense, "--compressed", pruned) == 0
    expected = numbers()[1]["pruned"]
    scores = np.array([[0.2, 0.8] if p == "1" else [3.0, -1.0] for p in PRUNED])
    table = pa.table(
        {
            "name": [f"img{i}" for i in range(20)],
            "truth": pa.array(list(map(int, LABELS))),
            "p:0": scores[:, 0],
            "p:1": scores[:, 1],
            "sex": pa.array(GROUPS).dictionary_encode(),
        }
    )
    pa.parquet.write_table(table, tmp_path / "pruned.parquet")
    nested = table.set_column(1, "truth", pa.array([[1]] * 20))
    pa.parquet.write_table(nested, tmp_path / "nested.parquet")
    write(tmp_path / "dense.csv", DENSE, header="name,truth,prediction,sex")
    columns = ["--id-column", "name", "--label-column", "truth", "--group-column", "sex"]
    scored = ["--score-prefix", "p:", "--out", "other"]
    assert (
        run("--dense", dense, "--compressed", tmp_path / "pruned.parquet", *columns, *scored) == 0
    )
    assert numbers("other")[1]["pruned"] == expected
    assert (
        run("--dense", dense, "--compressed", tmp_path / "nested.parquet", *columns, *scored) == 2
    )
    assert "nested.parquet: not readable as Parquet" in capsys.readouterr().err


def test_several_sets_seeds_and_conventions(files, tmp_path, capsys):
    dense, pruned = files
    other = write(tmp_path / "other.csv", LABELS)
    sets = ["--compressed", f"two={pruned}", other, "--compressed", pruned]
    assert run("--dense", dense, *sets, "--convention", "measure-twice", "--replicates", 50) == 0
    found, both = numbers()
    assert list(both) == ["two", "pruned"]
    assert found["sets"]["two"]["models"] == 2
    assert values(both["two"])["accuracy"] == [(65 + 100) / 2]
    assert values(both["pruned"])["cev_groups"] == [round((0.5**2 + 1.0**2), 6)]
    # The mean rates of both models: FPR of b (2/5 + 0) / 2, FNR (3/5 + 0) / 2; of a half.
    assert values(both["two"])["sde_groups"] == [round(0.5 / 2, 6)]
    assert "Measure Twice" in capsys.readouterr().out
    assert run("--dense", dense, dense, "--compressed", pruned, other) == 0
    assert values(numbers()[1]["pruned"])["group_change"] == [10.0, -5.0]


def test_classes_as_groups_and_crossed_groups(files, tmp_path):
    dense, pruned = files
    assert run("--dense", dense, "--compressed", pruned, "--group-column", "label") == 0
    found, sets = numbers()
    assert found["groups"] == {"0": 10, "1": 10}
    assert values(sets["pruned"])["group_accuracy"] == [70.0, 60.0]
    assert run("--dense", dense, "--compressed", pruned, "--group-column", "group", "label") == 0
    assert numbers()[0]["groups"] == {"a / 0": 5, "a / 1": 5, "b / 0": 5, "b / 1": 5}


def test_what_is_left_out_is_said(files, tmp_path, capsys):
    dense, _ = files
    groups = [*GROUPS[:-3], "", "c", "c"]
    write(tmp_path / "dense.csv", DENSE, groups=groups)
    some = slice(1, None)
    few = [f"img{i}" for i in range(1, 20)]
    pruned = write(tmp_path / "p.csv", PRUNED[some], LABELS[some], groups[some], few)
    options = ["--missing", "drop", "--min-group", 5]
    assert run("--dense", dense, "--compressed", pruned, *options) == 0
    said = capsys.readouterr().out
    assert "1 samples were left out: they are not in every file" in said
    assert "1 samples are in no group (an empty cell): they count overall" in said
    assert "Group c was left out: 2 samples are fewer than 5" in said
    found, sets = numbers()
    assert found["groups"] == {"a": 9, "b": 7}
    assert (found["samples"], found["samples_of_no_group"]) == (17, 1)
    kept = [*range(1, 10), *range(10, 18)]
    right = [PRUNED[i] == LABELS[i] for i in kept]
    assert values(sets["p"])["accuracy"] == [round(100 * np.mean(right), 6)]


def test_a_zero_base_rate_is_said_and_never_nan_in_the_files(files, tmp_path, capsys):
    _, pruned = files
    perfect = write(tmp_path / "perfect.csv", LABELS)
    assert run("--dense", perfect, "--compressed", pruned) == 0
    said = capsys.readouterr().out
    assert "2 of 2 classes are left out of CEV and SDE over classes (0, 1)" in said
    assert "n/a" in said
    found, sets = numbers()
    assert sets["pruned"]["cev_classes"]["value"] == [None]
    assert found["sets"]["pruned"]["excluded"] == {"classes": 2, "groups": 2}
    assert "nan" not in (tmp_path / "audit" / "report.html").read_text().lower().replace(
        "finance", ""
    )


BAD = {
    "no such file": (["--compressed", "nope.csv"], "nope.csv: no such file"),
    "no suffix": (["--compressed", "notes.txt"], "notes.txt: neither .csv"),
    "empty file": (["--compressed", "empty.csv"], "empty.csv: not readable as CSV"),
    "no rows": (["--compressed", "header.csv"], "header.csv: no rows"),
    "not parquet": (["--compressed", "fake.parquet"], "fake.parquet: not readable as Parquet"),
    "ragged rows": (["--compressed", "ragged.csv"], "ragged.csv: not readable as CSV"),
    "no id column": (["--id-column", "key"], "no column 'key' (its columns: id, label"),
    "no group column": (["--group-column", "race"], "no column 'race', nor in the other files"),
    "no label column": (["--label-column", "truth"], "no column 'truth', nor in the other files"),
    "no prediction": (["--prediction-column", "said"], "no column 'said'"),
    "a column twice": (["--compressed", "columns.csv"], "two columns are named 'label'"),
    "an id twice": (["--compressed", "twice.csv"], "1 ids are there more than once (img3)"),
    "an empty id": (["--compressed", "noid.csv"], "1 rows have no id (the first: row 5)"),
    "missing ids": (["--compressed", "fewer.csv"], "2 ids of dense.csv are not in fewer.csv"),
    "more ids": (["--compressed", "more.csv"], "1 ids of more.csv are not in dense.csv (img20)"),
    "no id in common": (
        ["--compressed", "strangers.csv", "--missing", "drop"],
        "no id in common",
    ),
    "another label": (["--compressed", "relabelled.csv"], "1 samples have another label in relab"),
    "a label unseen": (["--compressed", "unseen.csv"], "1 samples have another label in unseen"),
    "another group": (["--compressed", "regrouped.csv"], "1 samples have another group in regr"),
    "an empty label": (["--dense", "nolabel.csv", "--compressed", "nolabel.csv"], "have no label"),
    "no guess": (["--compressed", "noguess.csv"], "noguess.csv: 2 samples have no prediction"),
    "other class names": (["--compressed", "words.csv"], ""),
    "one group": (["--group-column", "one"], ""),
    "too few": (["--min-group", "11"], "no sample is left"),
    "one is left": (["--dense", "one.csv", "--compressed", "one.csv"], "'a' is the only group"),
    "positive": (["--positive", "cat"], "--positive: 'cat' is not one of two classes (0, 1)"),
    "dense models": (
        ["--dense", "dense.csv", "dense.csv", "--compressed", "p.csv", "p.csv", "p.csv"],
        "--dense: 2 models for the 3 of p",
    ),
    "one name for two": (
        ["--compressed", "p.csv", "--compressed", "p.csv"],
        "two sets are named 'p'",
    ),
    "replicates": (["--replicates", "0"], "must be at least 1"),
}  # fmt: skip
BAD["other class names"] = (
    ["--compressed", "words.csv", "--dense", "words.csv"],
    "no prediction is ever a label (labels: 0, 1; predictions: no, yes)",
)
BAD["one group"] = (["--dense", "one.csv", "--compressed", "one.csv"], "is the only group")


def bad_files(folder):
    ids = [f"img{i}" for i in range(20)]
    write(folder / "dense.csv", DENSE)
    write(folder / "p.csv", PRUNED)
    (folder / "notes.txt").write_text("id,label")
    (folder / "empty.csv").write_text("")
    (folder / "header.csv").write_text("id,label,prediction,group\n")
    (folder / "fake.parquet").write_text("no parquet")
    (folder / "ragged.csv").write_text("id,label,prediction,group\na,0,0,a\nb,0\n")
    write(folder / "columns.csv", PRUNED, header="id,label,prediction,label")
    write(folder / "twice.csv", PRUNED, ids=[*ids[:5], "img3", *ids[6:]])
    write(folder / "noid.csv", PRUNED, ids=[*ids[:4], "", *ids[5:]])
    write(folder / "fewer.csv", PRUNED[2:], LABELS[2:], GROUPS[2:], ids[2:])
    write(folder / "more.csv", [*PRUNED, "0"], [*LABELS, "0"], [*GROUPS, "a"], [*ids, "img20"])
    write(folder / "strangers.csv", PRUNED, ids=[f"x{i}" for i in ids])
    write(folder / "relabelled.csv", PRUNED, ["1", *LABELS[1:]])
    write(folder / "unseen.csv", PRUNED, ["7", *LABELS[1:]])
    write(folder / "regrouped.csv", PRUNED, groups=["b", *GROUPS[1:]])
    write(folder / "nolabel.csv", PRUNED, ["", *LABELS[1:]])
    write(folder / "noguess.csv", ["", "", *PRUNED[2:]])
    write(folder / "words.csv", ["yes" if p == "1" else "no" for p in PRUNED])
    write(folder / "one.csv", PRUNED, groups=["a"] * 20)


@pytest.mark.parametrize("name", BAD)
def test_a_bad_input_is_one_line_and_nothing_is_written(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    bad_files(tmp_path)
    arguments, message = BAD[name]
    given = [] if "--dense" in arguments else ["--dense", "dense.csv"]
    given += [] if "--compressed" in arguments else ["--compressed", "p.csv"]
    assert run(*given, *arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("fairgrape: error: ")
    assert error.count("\n") == 1
    assert message in error
    assert not (tmp_path / "audit").exists()


def test_the_report_is_one_file_that_needs_nothing(files):
    dense, pruned = files
    assert run("--dense", dense, "--compressed", f"<b>&={pruned}") == 0
    with open("audit/report.html", encoding="utf-8") as file:
        page = file.read()
    assert not re.search(r"<script|https?://|url\(|@import|<img", page)
    assert "<b>&" not in page
    assert "&lt;b&gt;&amp;" in page
    with open("audit/report.md", encoding="utf-8") as file:
        text = file.read()
    for title in ("Who is taken", "Metrics", "Accuracy by group", "Cautions", "Samples that compr"):
        assert title in page
    assert "| accuracy of a | 10 | 80 | 80 [" in text


def million(folder, classes, seed=0, count=1_000_000):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, classes, count)
    group = rng.integers(0, 7, count)
    paths = []
    for name, right in (("dense", 0.9), ("pruned", 0.8)):
        guess = np.where(rng.random(count) < right, label, rng.integers(0, classes, count))
        table = pa.table(
            {
                "id": pa.array([f"img_{i:07d}" for i in range(count)]),
                "label": label, "prediction": guess, "group": pa.array(group).cast(pa.string()),
            }
        )  # fmt: skip
        paths.append(folder / f"{name}.parquet")
        pa.parquet.write_table(table, paths[-1])
    return paths


@pytest.mark.slow
def test_a_million_rows_take_seconds(tmp_path):
    dense, pruned = million(tmp_path, classes=10)
    started = time.perf_counter()
    assert run("--dense", dense, "--compressed", pruned, "--out", tmp_path / "out") == 0
    assert time.perf_counter() - started < 10


def test_intervals_hold_the_values_and_are_paired(files, tmp_path):
    source = Source(tmp_path / "dense.csv")
    request = Request((source,), {"same": (source,)})
    found = audit.audit(request).comparisons[0]
    np.testing.assert_array_equal(found.low["group_change"], 0)
    np.testing.assert_array_equal(found.high["rho_change"], 0)
    for row in STATISTICS:
        assert found.mean[row].shape == found.low[row].shape == found.high[row].shape
    assert found.low["accuracy"] < found.mean["accuracy"] < found.high["accuracy"]


def test_the_exemplars_are_those_of_all_models():
    said = np.array([[1, 0, 1], [1, 1, 0]])
    np.testing.assert_array_equal(metrics.pies(said, np.array([0, 0, 0])), [True, False, False])
