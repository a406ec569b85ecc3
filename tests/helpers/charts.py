"""A chart of every kind, and a document with a part of every kind."""

import numpy as np

from fairgrape_jax.reports import charts, curves, document
from fairgrape_jax.reports.charts import Interval
from fairgrape_jax.reports.curves import Curve
from fairgrape_jax.reports.document import Bullets, Document, Figure, Pictures, Table, Text

__all__ = ["CHARTS", "DOCUMENT", "document"]

NAN = float("nan")
RNG = np.random.default_rng(0)
CHARTS = {
    "bars": charts.bars(
        "bars", ["a", "b"], ["x", "_y"], [[Interval(-3, -5, -1), Interval(NAN)]] * 2, "points"
    ),
    "dots": charts.bars(
        "dots", ["a"], ["x"], [[Interval(93.0)]], "%", zero=False, dots=[[[92.0, 94.0]]]
    ),
    "nothing known": charts.bars("none", ["a"], ["x"], [[Interval(NAN)]], "%", zero=False),
    "curves": curves.lines(
        "curves", [Curve("_x", [9, 3], [1, 2], [0, NAN], [3, NAN], thin=[[1, 3]])], "w", "rho"
    ),
    "one point": curves.lines("one", [Curve("x", [9], [NAN])], "w", "rho", zero=False),
    "plane": charts.plane("plane", list("abc"), np.array([[1.0, 2], [3, 4], [NAN, NAN]])),
    "plane of many": charts.plane("many", ["c"] * 300, RNG.normal(0, 9, (300, 2))),
    "plane of none": charts.plane("none", ["a"], np.full((1, 2), NAN)),
    "shares": charts.shares("shares", ["fc1", "fc2"], ["a", "b"], np.array([[0.3, 0.7], [NAN, 1]])),
}
DOCUMENT = Document(
    "A `title` & <b>",
    [
        ("", [Text("of `code` & <i>words</i>")]),
        ("List", [Bullets([f"item {i}" for i in range(25)], most=20)]),
        ("Table", [Table(["", "n"], [["row", "1.0 [0.5, 1.5]"], ["a|b", "n/a"]])]),
        ("Charts", [Figure("two", [CHARTS["bars"], CHARTS["dots"]], "a note", "two.png")]),
        ("Empty in Markdown", [Pictures([("<name>", "data:image/png;base64,AA==")])]),
    ],
)
