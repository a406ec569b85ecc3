"""Names that others wrote: shown, but not obeyed, wherever they come to stand."""

import ast
import re
from pathlib import Path
from xml.etree import ElementTree

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fairgrape_jax
from fairgrape_jax import data, escape, models
from fairgrape_jax.cli import main
from fairgrape_jax.errors import UsageError
from fairgrape_jax.reports import charts, curves, document, drawing
from fairgrape_jax.reports.curves import Curve
from tests.helpers import layouts
from tests.helpers.fuzzing import FOREIGN, Elements

PACKAGE = Path(fairgrape_jax.__file__).parent


@given(st.text())
def test_shown_names_control_nothing(name):
    assert not re.search(r"[\x00-\x1f\x7f\u202e\ud800-\udfff]", escape.visible(name))
    escape.visible(name).encode()
    text = escape.markdown(name)
    assert not re.search(r"<|\]\(|[\x00-\x1f]|(?<!\\)\|", text.replace("\\\\", ""))
    (cell,) = escape.csv_cells([name])
    assert not re.match(r"[=@]|[+-](?!\d|\.|inf|nan|Inf|NaN)", cell) or float(cell) is not None


@pytest.mark.parametrize(
    ("header", "cells", "said"),
    [
        (["file", "../../owned", "group", "part"], ["a", "a", "train"], "cannot be stored"),
        (["file", "image", "group", "part"], ["a", "a", "train"], "cannot be stored"),
        (["file", "label", "label", "part"], ["a", "a", "train"], "two columns are named 'label'"),
        (["file", "label", "group", "part"], ["a\nb", "a", "train"], "is no name for a value"),
        (["file", "label", "group", "part"], ["a", "\x1b[2J", "train"], "is no name for a value"),
        (["file", "label", "group", "part"], ["a", "a", "../../owned"], "is no name for a split"),
        (["file", "label", "group", "part"], ["a", "a", ".."], "is no name for a split"),
    ],
)
def test_names_in_a_table_of_pictures_name_no_files(header, cells, said, tmp_path, capsys):
    place = tmp_path / "a" / "b"
    (place / "from").mkdir(parents=True)
    for i in range(4):
        (place / "from" / f"{i}.jpg").write_bytes(layouts.jpeg(i))
    layouts.table(place / "from" / "labels.csv", header, [(f"{i}.jpg", *cells) for i in range(4)])
    line = ["data", "prepare", "folder_csv", "--from", str(place / "from"), "--name", "x"]
    line += ["--data-dir", str(place / "to"), "--split", "part"]
    assert main.main([*line, "--labels", header[1], "--groups", header[2]]) == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.rglob("*owned*"))
    assert not list(place.glob("to/x/1.0.0*"))


@pytest.mark.parametrize(
    ("tasks", "groups", "said"),
    [
        ((data.Task("a", ("0", "1")),) * 2, ("a", "b"), "tasks: 'a' is there twice"),
        ((data.Task("group", ("0", "1")),), ("a", "b"), "predictions.csv has a column"),
        ((data.Task("a", ("0", "0")),), ("a", "b"), "classes of task 'a': '0' is there twice"),
        ((data.Task("a", ("0", "1")),), ("a", "a"), "groups: 'a' is there twice"),
        ((data.Task("a", ("0", "\ud800")),), ("a", "b"), "is not Unicode"),
    ],
)
def test_names_that_predictions_could_not_be_told_by_are_refused(tasks, groups, said):
    split = data.Split(
        np.zeros((2, 1, 1, 1), np.uint8), np.zeros((2, len(tasks)), int), np.arange(2)
    )
    dataset = data.Dataset(split, split, split, tasks, groups, (0.0,), (1.0,))
    with pytest.raises(UsageError, match=said):
        data.check(dataset)


@pytest.mark.whole(but=1)
@pytest.mark.parametrize(
    ("value", "said"),
    [
        (np.nan, "holds NaN or infinity"),
        (np.inf, "holds NaN or infinity"),
        (True, "it must be numbers"),
        (1j, "it must be numbers"),
    ],
)
def test_weights_that_are_no_numbers_are_refused(value, said):
    fresh = models.create("resnet18", 2).lazy_init(
        jax.random.key(0), jax.ShapeDtypeStruct((1, 32, 32, 3), np.float32)
    )
    weights = models.to_torchvision("resnet18", fresh)
    assert models.from_torchvision("resnet18", weights)
    weights["fc.bias"] = np.full(2, value)
    with pytest.raises(UsageError, match=said):
        models.from_torchvision("resnet18", weights)


ODD = (
    "<script>alert(1)</script>",
    "a|b\n# c",
    "$\\frac{$",
    "\x1b[31m",
    "=cmd|' /C calc'!A0",
    "Ä 名",
)


def test_a_report_holds_odd_names_as_words():
    table = document.Table(["group", *ODD], [[name, *ODD] for name in ODD])
    text = document.Document(ODD[0], [(ODD[1], [table, document.Text(ODD[1])])])
    page = document.page(text)
    assert "<script" not in page
    assert "\x1b" not in page
    markdown = document.markdown(text)
    assert "<script" not in markdown
    rows = [line for line in markdown.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {len(ODD) + 2}


def test_a_plot_draws_dollars_as_dollars(tmp_path):
    """Which to matplotlib begin a formula, and a broken one is an error."""
    drawn = [
        curves.lines(name, [Curve(word, [2, 1], [0, 1]) for word in ODD], name, name)
        for name in ODD
    ]
    drawing.png(tmp_path / "x.png", drawn)
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
    for chart in drawn:
        text = drawing.svg(chart, "x")
        shown = ["".join(e.itertext()) for e in ElementTree.fromstring(declared(text)).iter("text")]
        assert {escape.visible(name) for name in ODD} <= set(shown)


def declared(svg):
    """An element of a page as XML of its own."""
    return svg.replace("<svg ", '<svg xmlns:xlink="http://www.w3.org/1999/xlink" ', 1)


@given(st.text(min_size=1, max_size=12))
@settings(max_examples=30, deadline=None)
def test_any_name_in_a_chart_is_text(name):
    points = np.array([[1.0, 2.0], [3.0, -4.0]])
    chart = charts.plane(name, [name, name[::-1]], points)
    page = document.page(document.Document(name, [(name, [document.Figure(name, [chart])])]))
    _, _, body = page.partition("</style>")
    seen = Elements()
    seen.feed(body)
    assert seen.tags["svg"] == 1
    assert not seen.tags.keys() & FOREIGN


def test_files_are_read_and_written_as_utf8_whatever_the_locale():
    """Every open, read_text and write_text of the package names its encoding, or is binary."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Call(func=ast.Attribute(attr="read_text" | "write_text" as name)):
                    text = ast.unparse(node.func) != f"storage.{name}"
                case ast.Call(func=ast.Attribute(attr="open" | "fdopen")):
                    modes = [ast.unparse(argument) for argument in node.args]
                    opened = ast.unparse(node.func).split(".")[0]
                    binary = opened in ("tarfile", "gzip", "Image", "archive") or (
                        opened == "os" and not modes
                    )
                    text = not binary and not any("b" in m for m in modes if m[0] in "'")
                    text &= ast.unparse(node.func) != "os.open"
                case _:
                    text = False
            named = text and any(word.arg == "encoding" for word in node.keywords)
            assert named or not text, f"{path}:{node.lineno}"
