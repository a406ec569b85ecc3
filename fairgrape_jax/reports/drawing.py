"""A chart drawn by matplotlib: as SVG in the colours of the page around it, or as a PNG file.

matplotlib is imported when something is drawn, not before.
"""

from __future__ import annotations

import dataclasses
import io
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from fairgrape_jax import storage
from fairgrape_jax.escape import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette, distinct for readers with any colour vision; then it repeats.
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#444444", "#8a7a00")
INK, SOFT, LINE, PAPER = "#1b1b1b", "#5c5c5c", "#d8d8d8", "#fefefe"
# What each colour is called by the style sheet of the page, which has others for the dark.
VARIABLES = {
    **{color: f"var(--s{number})" for number, color in enumerate(SERIES)},
    **{INK: "var(--ink)", SOFT: "var(--soft)", LINE: "var(--line)", PAPER: "var(--paper)"},
}
XLINK = "{http://www.w3.org/1999/xlink}"
# Inches around the axes: above, with a title, to the right, below, and of an entry of a legend.
TOP, TITLE, RIGHT, BELOW, ENTRY = 0.2, 0.32, 0.12, 0.52, 0.19
WIDTH = 5.0  # inches of a chart, 360 points: the width of a phone, so that letters stay readable
SMALL = 3.4  # of one of several that stand in a row
PER_ROW = 4  # panels of a PNG in a row
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": SOFT,
    "axes.titlecolor": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": LINE,
    "text.color": INK,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "text.parse_math": False,  # a dollar in a name is a dollar
    "svg.fonttype": "none",  # text stays text, in the font of the page
}


@dataclasses.dataclass(frozen=True)
class Chart:
    """One panel, not drawn yet.

    Attributes:
        label: what it shows, for those who cannot see it; the title of its panel in a PNG.
        height: inches of its axes; what is written around them comes on top.
        draw: draws into the axes of matplotlib that it is given.
        left: inches to the left of the axes, for the names of rows.
        series: how many of them `draw` labels, for the legend below.
        titles: of parts that `draw` has named with `set_gid(key)`: what a pointer shows there.
        width: inches, with all that is written around the axes.
        below: inches under the axes beyond those of a line of numbers and a title.
    """

    label: str
    height: float
    draw: Callable[[Axes], None]
    left: float = 0.62
    series: int = 0
    titles: dict[str, str] = dataclasses.field(default_factory=dict)
    width: float = WIDTH
    below: float = 0.0


def color(series: int) -> str:
    """The colour of a series, repeating after eight.

    Args:
        series: its number.

    Returns:
        A colour that matplotlib knows.
    """
    return SERIES[series % len(SERIES)]


def svg(chart: Chart, salt: str, *, legend: bool = True) -> str:
    """The chart as an <svg> element for the middle of a page.

    Args:
        chart: what to draw.
        salt: makes the ids within it differ from those of the other charts of the page.
        legend: whether its legend is part of it, or stands elsewhere on the page.
    """
    text = io.StringIO()
    with _drawn([chart], TOP, {"svg.hashsalt": salt}, legend=legend) as figure:
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    return _inline(text.getvalue(), chart)


def png(path: Path, charts: Sequence[Chart]) -> None:
    """Write charts side by side, PER_ROW of them, so that the file is there whole or not at all.

    Args:
        path: the file.
        charts: the panels, from the left and above.
    """
    with _drawn(charts, TITLE) as figure, storage.atomic_write(path) as partial:
        for chart, axes in zip(charts, figure.axes, strict=True):
            axes.set_title(visible(chart.label))
        figure.savefig(
            partial, dpi=130, format="png", facecolor="white", metadata={"Software": None}
        )


@contextmanager
def _drawn(
    charts: Sequence[Chart],
    top: float,
    options: dict[str, Any] | None = None,
    *,
    legend: bool = True,
) -> Iterator[Figure]:
    """A figure of charts in rows, in our style; what is saved within has it.

    Places are counted in inches from what is written around the axes: to have matplotlib measure
    every word would take longer than all the rest. The legend is that of the first chart.
    """
    import matplotlib
    from matplotlib.figure import Figure

    rows = [charts[start : start + PER_ROW] for start in range(0, len(charts), PER_ROW)]
    width = max(sum(chart.width for chart in row) for row in rows)
    columns = max(1, round(width / WIDTH))
    entries = -(-charts[0].series // columns) if legend else 0
    below = ENTRY * entries + 0.1 * (entries > 0)
    tall = [max(chart.height + chart.below for chart in row) for row in rows]
    height = sum(tall) + len(rows) * (top + BELOW) + below
    style: Any = {**STYLE, **(options or {})}
    with matplotlib.rc_context(style), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # letters that the font lacks are boxes
        figure = Figure(figsize=(width, height))
        ceiling = height
        for row, room in zip(rows, tall, strict=True):
            ceiling -= top
            edge = 0.0
            for chart in row:
                left, across = edge + chart.left, chart.width - chart.left - RIGHT
                bottom = (ceiling - chart.height) / height
                place = (left / width, bottom, across / width, chart.height / height)
                chart.draw(figure.add_axes(place))
                edge += chart.width
            ceiling -= room + BELOW
        if entries:
            handles, labels = figure.axes[0].get_legend_handles_labels()
            figure.legend(handles, labels, loc="lower left", ncols=columns, borderaxespad=0.3)
        yield figure


def _inline(text: str, chart: Chart) -> str:
    """matplotlib's file as an element: without prolog, metadata, addresses and style of its own."""
    root = ElementTree.fromstring(text)
    parents = {child: parent for parent in root.iter() for child in parent}
    for element in list(root.iter()):
        tag = element.tag.rpartition("}")[2]
        if tag in ("metadata", "style", "clipPath"):
            parents[element].remove(element)
            continue
        element.tag = tag
        element.tail = None
        if tag != "text":
            element.text = None
        attributes = {name.replace(XLINK, "xlink:"): value for name, value in element.items()}
        key = attributes.pop("id", "") if tag == "g" else ""
        attributes.pop("clip-path", None)
        if "style" in attributes:
            style = re.sub("#[0-9a-f]{6}", lambda m: VARIABLES.get(m[0], m[0]), attributes["style"])
            attributes["style"] = re.sub("font-family: [^;]*; ", "", style)
        element.attrib.clear()
        element.attrib.update(attributes)
        if key in chart.titles:
            title = ElementTree.Element("title")
            title.text = visible(chart.titles[key])
            element.insert(0, title)
    root.attrib = {"viewBox": root.attrib["viewBox"]} | {
        "role": "img",
        "aria-label": visible(chart.label),
    }
    return ElementTree.tostring(root, encoding="unicode")
