"""Charts and pages: what they show, in the page's own colours, to the same bytes each time."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import fairgrape_jax
from fairgrape_jax.reports import charts, curves, document, drawing
from fairgrape_jax.reports.charts import Interval
from fairgrape_jax.reports.curves import Curve
from fairgrape_jax.reports.document import Document, Figure
from tests.helpers.charts import CHARTS, DOCUMENT


@pytest.mark.parametrize("name", CHARTS)
def test_a_chart_is_one_element_that_takes_the_colours_of_the_page(name):
    svg = drawing.svg(CHARTS[name], name)
    assert svg == drawing.svg(CHARTS[name], name)
    assert svg.count("<svg ") == svg.count("</svg>") == 1
    assert not re.search(r"http|url\(|<style|<metadata|<!|font-family|#[0-9a-f]{6}\b(?!.*use)", svg)
    assert set(re.findall(r"(?:fill|stroke): ([^;\"]+)", svg)) <= {
        "none",
        *drawing.VARIABLES.values(),
    }
    ids = re.findall(r' id="([^"]*)"', svg)
    assert sorted(set(re.findall(r'xlink:href="#([^"]*)"', svg))) == sorted(ids)


def test_ids_of_two_charts_of_a_page_differ():
    figure = Figure("x", [CHARTS["curves"], CHARTS["curves"]])
    ids = re.findall(r' id="([^"]*)"', document.page(Document("x", [("", [figure])])))
    assert ids
    assert len(set(ids)) == len(ids)


def test_points_without_a_base_rate_are_not_drawn():
    svg = drawing.svg(CHARTS["plane"], "x")
    assert re.findall("<title>([^<]*)</title>", svg) == [
        "a: FPR +1.0 %, FNR +2.0 %",
        "b: FPR +3.0 %, FNR +4.0 %",
    ]
    assert "no class" in drawing.svg(CHARTS["plane of none"], "x")


def test_a_bar_is_as_long_as_its_value():
    values = [[Interval(-10.0), Interval(20.0), Interval(0.0)]]
    svg = drawing.svg(charts.bars("x", ["a", "b", "c"], ["s"], values, "points"), "x")
    shapes = re.findall(r'<path d="([^"]*)" style="fill: var\(--s0\)', svg)
    x = [[float(v) for v in re.findall(r"[ML] ([\d.]+)", shape)] for shape in shapes]
    widths = [max(places) - min(places) for places in x]
    assert widths[1] == pytest.approx(2 * widths[0], rel=1e-3)
    assert widths[2] == pytest.approx(0, abs=1e-6)
    assert min(x[1]) == pytest.approx(max(x[0]), abs=1e-3)


def test_intervals_far_beyond_the_values_are_cut():
    chart = curves.lines("x", [Curve("a", [3, 2], [1.0, 2.0], [0.5, -900], [1.5, 900])], "w", "y")
    svg = drawing.svg(chart, "x")
    places = [float(y) for y in re.findall(r"[ML] [\d.]+ (-?[\d.]+)", svg)]
    assert min(places) >= 0
    assert max(places) <= float(re.search(r'viewBox="0 0 360 ([\d.]+)"', svg)[1])


def test_a_picture_is_the_same_chart_to_the_same_bytes(tmp_path):
    for name in ("a.png", "b.png"):
        drawing.png(tmp_path / name, [CHARTS["curves"], CHARTS["bars"]])
    content = (tmp_path / "a.png").read_bytes()
    assert content.startswith(b"\x89PNG")
    assert content == (tmp_path / "b.png").read_bytes()


def test_one_tree_is_a_page_and_a_markdown_file(tmp_path):
    document.write(DOCUMENT, tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "report.html",
        "report.md",
        "two.png",
    ]
    assert "<h1>A <code>title</code> &amp; &lt;b&gt;</h1>" in page
    assert "<p>of <code>code</code> &amp; &lt;i&gt;words&lt;/i&gt;</p>" in page
    assert "<summary>5 more</summary>" in page
    assert page.count("<li>") == 25
    assert "<span>1.0 <small>[0.5, 1.5]</small></span></td>" in page
    assert page.count("<figcaption>two<") == 1
    assert page.count('<p class="panel">') == page.count("<svg ") == 2
    assert page.count("a note") == 1
    assert "<figcaption>&lt;name&gt;</figcaption>" in page
    assert "- item 19\n- and 5 more" in text
    assert "| a\\|b | n/a |" in text
    assert "![two](two.png)" in text
    assert "Empty in Markdown" not in text
    assert not re.search(r"<script|https?:|@import|url\(", page)


def test_the_page_is_the_same_whatever_the_hash_seed(tmp_path):
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from tests.helpers.charts import DOCUMENT, document\n"
        "print(document.page(DOCUMENT))"
    )
    root = str(Path(fairgrape_jax.__file__).parents[1])
    pages = {
        subprocess.run(
            [sys.executable, "-c", code, root],
            capture_output=True,
            check=True,
            env={"PYTHONHASHSEED": seed, "HOME": str(tmp_path), "JAX_PLATFORMS": "cpu"},
        ).stdout
        for seed in ("0", "1")
    }
    assert len(pages) == 1
