"""Charts as SVG text: colours come from the page (light, dark, paper), so matplotlib's do not do.

Every chart is 360 units wide, the width of a phone, so that its letters are readable there. Series
are told apart by their labels and, in lines, by the shape of their points too, never by colour
alone.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence

import numpy as np

from fairgrape_jax.escape import visible

WIDTH = 360
SERIES = 8  # colours of the page; then they repeat


def svg(height: float, label: str, parts: Sequence[str]) -> str:
    """A drawing, with a text for those who cannot see it."""
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" '
        f'aria-label="{html.escape(visible(label))}">'
        f"{''.join(parts)}</svg>"
    )


def text(x: float, y: float, words: str, anchor: str = "start", kind: str = "") -> str:
    """Words at a place; anchor is start, middle or end."""
    shown = html.escape(visible(words))
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{kind}">{shown}</text>'


def line(x1: float, y1: float, x2: float, y2: float, kind: str, more: str = "") -> str:
    """A straight line."""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}" {more}/>'


def shortened(words: str, most: int) -> str:
    """At most so many letters."""
    return words if len(words) <= most else words[: most - 1] + "…"


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Round numbers within [low, high], about `count` of them.

    >>> ticks(0, 10), ticks(-0.3, 0.2)
    ([0.0, 5.0, 10.0], [-0.2, 0.0, 0.2])
    """
    step = (high - low) / count
    size = 10.0 ** math.floor(math.log10(step)) if step > 0 else 1.0
    step = next(m * size for m in (1, 2, 5, 10) if m * size >= step)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(i * step, 10) + 0.0 for i in range(first, last + 1)]


def number(value: float) -> str:
    """A tick's label.

    >>> number(1500.0), number(-0.25), number(2e7)
    ('1.5k', '-0.25', '20M')
    """
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    """The map from [low, high] to [start, end]."""
    span = (high - low) or 1.0
    return lambda value: start + (value - low) / span * (end - start)


def limits(values: Sequence[float], *, zero: bool = True) -> tuple[float, float]:
    """A range that holds all finite values with a little room, and zero if so wanted."""
    finite = [v for v in values if math.isfinite(v)] + [0.0] * zero
    low, high = min(finite, default=0.0), max(finite, default=1.0)
    room = 0.05 * (high - low) or 1.0
    return (low if zero and low == 0 else low - room), (high if zero and high == 0 else high + room)


def bars(
    label: str,
    groups: Sequence[str],
    series: Sequence[str],
    values: Sequence[Sequence[tuple[float, float, float]]],
    unit: str,
    *,
    zero: bool = True,
    colors: Sequence[int] = (),
) -> str:
    """Horizontal bars with intervals: for each group one of each series.

    values: series x groups of (value, low, high). zero: whether bars begin at zero; else only the
    point and its interval are drawn, on a range of their own. colors: of the series.
    """
    left, right, row, head = 112, 12, 15, 16
    low, high = limits([x for of in values for triple in of for x in triple], zero=zero)
    x = scale(low, high, left, WIDTH - right)
    block = row * len(series) + head + 4
    bottom = 8 + block * len(groups)
    parts = []
    for tick in ticks(low, high):
        parts.append(line(x(tick), 6, x(tick), bottom, "axis" if tick == 0 else "grid"))
        parts.append(text(x(tick), bottom + 15, number(tick), "middle", "soft"))
    for g, group in enumerate(groups):
        top = 8 + block * g
        parts.append(text(4, top + 11, shortened(group, 50)))
        for s, name in enumerate(series):
            y = top + head + row * s + row / 2
            value, below, above = values[s][g]
            parts.append(text(left - 6, y + 4, shortened(name, 17), "end", "soft"))
            if not math.isfinite(value):
                parts.append(text(left + 4, y + 4, "n/a", "start", "soft"))
                continue
            kind = f"f{(colors[s] if colors else s) % SERIES}"
            if zero:
                a, b = sorted((x(0), x(value)))
                parts.append(
                    f'<rect x="{a:.1f}" y="{y - 5:.1f}" width="{max(b - a, 0.5):.1f}" height="10" '
                    f'class="{kind}"/>'
                )
            else:
                parts.append(f'<circle cx="{x(value):.1f}" cy="{y:.1f}" r="4" class="{kind}"/>')
            if math.isfinite(below) and math.isfinite(above):
                parts.append(line(x(below), y, x(above), y, "whisker"))
                for end in (below, above):
                    parts.append(line(x(end), y - 3, x(end), y + 3, "whisker"))
    parts.append(text(WIDTH - right, bottom + 30, unit, "end", "soft"))
    return svg(bottom + 36, label, parts)


def plane(label: str, names: Sequence[str], points: np.ndarray) -> str:
    """Changes of FPR and FNR, the line where both are alike (SDE), the ellipse of spread (CEV).

    points: (n, 2) percent, FPR and FNR; rows of NaN are left out. The ellipse has its half axes
    at one standard deviation along the principal axes: the sum of their squares is twice the CEV.
    """
    known = ~np.isnan(points).any(axis=1)
    shown, words = points[known], [name for name, k in zip(names, known, strict=True) if k]
    if not len(shown):
        return svg(40, label, [text(8, 24, "no class with a base rate to compare with")])
    centre = shown.mean(axis=0)
    sizes, axes = (
        np.linalg.eigh(np.cov(shown.T, bias=True)) if len(shown) > 1 else ([0, 0], np.eye(2))
    )
    turn = np.linspace(0, 2 * np.pi, 73)
    circle = np.stack([np.cos(turn), np.sin(turn)], axis=1)
    ring = centre + circle @ (axes * np.sqrt(np.maximum(sizes, 0))).T
    low, high = limits([*shown.ravel(), *ring.ravel()])
    x, y = scale(low, high, 52, WIDTH - 14), scale(low, high, 296, 10)
    parts = []
    for tick in ticks(low, high):
        kind = "axis" if tick == 0 else "grid"
        parts += [
            line(x(tick), 10, x(tick), 296, kind),
            line(52, y(tick), WIDTH - 14, y(tick), kind),
        ]
        parts.append(text(x(tick), 311, number(tick), "middle", "soft"))
        parts.append(text(48, y(tick) + 4, number(tick), "end", "soft"))
    parts.append(line(x(low), y(low), x(high), y(high), "axis", 'stroke-dasharray="4 4"'))
    corners = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in ring)
    parts.append(f'<polygon points="{corners}" class="line l1"/>')
    for name, (a, b) in zip(words, shown, strict=True):
        parts.append(
            f'<circle cx="{x(a):.1f}" cy="{y(b):.1f}" r="3.5" class="f0">'
            f"<title>{html.escape(visible(name))}: FPR {a:+.1f} %, FNR {b:+.1f} %</title></circle>"
        )
    named: list[tuple[float, float]] = []
    for i in np.argsort(-np.linalg.norm(shown - centre, axis=1)):  # the farthest first
        a, b = x(shown[i, 0]), y(shown[i, 1])
        if len(named) < 10 and all(abs(a - p) > 40 or abs(b - q) > 12 for p, q in named):
            named.append((a, b))
            shift, anchor = (-6, "end") if a > WIDTH * 0.7 else (6, "start")
            parts.append(text(a + shift, b - 5, shortened(words[i], 16), anchor))
    return svg(318, label, parts)


def lines(
    label: str,
    series: Sequence[tuple[str, Sequence[tuple[float, float, float, float]]]],
    across: str,
    unit: str,
    *,
    zero: bool = True,
) -> str:
    """Curves with intervals; each series is a name and points (x, value, low, high).

    zero: whether the axis holds it. Intervals that leave three times the range of values are cut.
    """
    flat = [point for _, points in series for point in points]
    low, high = limits([point[1] for point in flat], zero=zero)
    room = high - low
    ends = [min(max(v, low - room), high + room) for p in flat for v in p[2:] if math.isfinite(v)]
    low, high = limits([low, high, *ends], zero=zero)
    left = min((p[0] for p in flat), default=0.0)
    right = max((p[0] for p in flat), default=1.0)
    room = 0.04 * (right - left) or 1.0
    x, y = scale(left - room, right + room, 44, WIDTH - 10), scale(low, high, 200, 10)
    parts = []
    for tick in ticks(low, high):
        parts.append(line(44, y(tick), WIDTH - 10, y(tick), "axis" if tick == 0 else "grid"))
        parts.append(text(40, y(tick) + 4, number(tick), "end", "soft"))
    for tick in ticks(left, right, 5) or [left]:
        parts.append(text(x(tick), 216, number(tick), "middle", "soft"))
    parts.append(text(WIDTH - 10, 232, across, "end", "soft"))
    parts.append(text(4, 232, unit, "start", "soft"))
    for s, (name, points) in enumerate(series):
        kind, ordered = f"l{s % SERIES}", sorted(p for p in points if math.isfinite(p[1]))
        path = " ".join(f"{x(p[0]):.1f},{y(p[1]):.1f}" for p in ordered)
        parts.append(f'<polyline points="{path}" class="line {kind}"/>')
        shift = 2.5 * (s - (len(series) - 1) / 2)  # so that intervals at one place do not cover
        for where, value, below, above in ordered:
            place = x(where) + shift
            if math.isfinite(below) and math.isfinite(above):
                bottom, top = y(max(below, low)), y(min(above, high))
                parts.append(line(place, bottom, place, top, kind))
            parts.append(mark(place, y(value), s))
        at = 252 + 16 * s
        parts += [mark(12, at - 4, s), text(22, at, shortened(name, 44))]
    return svg(258 + 16 * len(series), label, parts)


def mark(x: float, y: float, series: int) -> str:
    """The point of a series: circle, square, diamond or triangle, in its colour."""
    kind = f"f{series % SERIES}"
    shapes = [
        "M-4,-4 h8 v8 h-8 z",
        "M0,-5 l5,5 l-5,5 l-5,-5 z",
        "M0,-5 l5,9 h-10 z",
    ]
    if series % 4 == 0:
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" class="{kind}"/>'
    path, place = shapes[series % 4 - 1], f"translate({x:.1f} {y:.1f})"
    return f'<path d="{path}" transform="{place}" class="{kind}"/>'


def shares(label: str, rows: Sequence[str], parts_of: Sequence[str], values: np.ndarray) -> str:
    """A full bar per row, cut into parts; values: (rows, parts), each row sums to one."""
    left, row = 130, 17
    x = scale(0, 1, left, WIDTH - 10)
    drawn = []
    for r, name in enumerate(rows):
        y, start = 6 + row * r, 0.0
        drawn.append(text(left - 6, y + 11, shortened(name, 20), "end", "soft"))
        for p, size in enumerate(values[r]):
            if np.isfinite(size):
                drawn.append(
                    f'<rect x="{x(start):.1f}" y="{y}" width="{x(size) - x(0):.1f}" height="13" '
                    f'class="f{p % SERIES}" stroke="var(--paper)">'
                    f"<title>{html.escape(visible(parts_of[p]))}: {100 * size:.1f} %</title></rect>"
                )
                start += float(size)
    bottom = 10 + row * len(rows)
    for tick in (0.0, 0.5, 1.0):
        drawn.append(line(x(tick), 4, x(tick), bottom, "axis", 'stroke-dasharray="2 3"'))
        anchor = "middle" if tick < 1 else "end"
        drawn.append(text(x(tick), bottom + 13, f"{100 * tick:.0f} %", anchor, "soft"))
    for p, name in enumerate(parts_of):
        at = bottom + 32 + 16 * p
        drawn.append(f'<rect x="6" y="{at - 10}" width="12" height="12" class="f{p % SERIES}"/>')
        drawn.append(
            text(
                24,
                at,
                f"{shortened(name, 30)} (in this order from the left)"
                if p == 0
                else shortened(name, 44),
            )
        )
    return svg(bottom + 24 + 16 * len(parts_of), label, drawn)
