"""A report as data, and its two forms: Markdown, and one HTML file that needs nothing else."""

from __future__ import annotations

import dataclasses
import html
import re
from collections.abc import Iterable, Sequence

from fairgrape_jax import escape


@dataclasses.dataclass(frozen=True)
class Text:
    """A paragraph; `backticks` mark code."""

    text: str


@dataclasses.dataclass(frozen=True)
class Bullets:
    """A list. most: how many are shown in Markdown; HTML folds a longer list, but holds it all."""

    items: Sequence[str]
    most: int = 20


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of words and numbers; the first column names the row."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclasses.dataclass(frozen=True)
class Figure:
    """A drawing: SVG for HTML; in Markdown a picture beside it, or nothing."""

    title: str
    svg: str
    note: str = ""
    picture: str = ""


Block = Text | Bullets | Table | Figure


@dataclasses.dataclass(frozen=True)
class Document:
    """A title and sections, each a heading and its blocks."""

    title: str
    sections: Sequence[tuple[str, Sequence[Block]]]


def markdown(document: Document) -> str:
    """The document in Markdown.

    >>> print(markdown(Document("A", [("", [Text("b")]), ("C", [Bullets(["d"])])])).strip())
    # A
    <BLANKLINE>
    b
    <BLANKLINE>
    ## C
    <BLANKLINE>
    - d
    """
    parts = [f"# {escape.markdown(document.title)}"]
    for heading, blocks in document.sections:
        texts = [text for block in blocks if (text := _markdown(block))]
        parts += [f"## {heading}"] * bool(heading and texts) + texts
    return "\n\n".join(parts) + "\n"


def _markdown(block: Block) -> str:
    if isinstance(block, Text):
        return escape.markdown(block.text)
    if isinstance(block, Bullets):
        lines = [f"- {escape.markdown(item)}" for item in block.items[: block.most]]
        left = len(block.items) - len(lines)
        return "\n".join(lines + [f"- and {left:,} more"] * (left > 0))
    if isinstance(block, Table):
        return table(block.header, block.rows)
    return f"![{block.title}]({block.picture})" if block.picture else ""


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown.

    >>> print(table(["a", "b"], [["1", "2"]]))
    | a | b |
    | --- | --- |
    | 1 | 2 |
    """
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(escape.markdown, line)) + " |" for line in lines)


def text_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: str = "right"
) -> str:
    """A table for a terminal: the first column to the left, the others to `numbers`.

    >>> print(text_table(["", "b"], [["a", "1"], ["aa", "10"]]))
         b
    a    1
    aa  10
    """
    lines = [header, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    rest = str.rjust if numbers == "right" else str.ljust
    pads = [str.ljust, *[rest] * (len(header) - 1)]
    return "\n".join(
        "  ".join(pad(cell, w) for pad, cell, w in zip(pads, line, widths, strict=True)).rstrip()
        for line in lines
    )


def page(document: Document) -> str:
    """The document as one HTML file: no script, no network; light and dark, screen and paper."""
    body = [f"<h1>{_inline(document.title)}</h1>"]
    for heading, blocks in document.sections:
        inside: list[str] = []
        figures: list[str] = []
        for block in blocks:
            (figures if isinstance(block, Figure) else inside).append(_html(block))
        if figures:
            inside.append(f'<div class="figures">{"".join(figures)}</div>')
        title = f"<h2>{_inline(heading)}</h2>" if heading else ""
        body.append(f"<section>{title}{''.join(inside)}</section>")
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<link rel="icon" href="data:,">'  # else a browser asks a server for one
        f"<title>{html.escape(escape.visible(document.title))}</title><style>{STYLE}</style></head>"
        f"<body><main>\n{chr(10).join(body)}\n</main></body></html>\n"
    )


def _inline(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(escape.visible(text)))


def _html(block: Block) -> str:
    if isinstance(block, Text):
        return f"<p>{_inline(block.text)}</p>"
    if isinstance(block, Bullets):
        items = [f"<li>{_inline(item)}</li>" for item in block.items]
        shown = f"<ul>{''.join(items[: block.most])}</ul>"
        if len(items) <= block.most:
            return shown
        rest = f"<ul>{''.join(items[block.most :])}</ul>"
        return (
            f"{shown}<details><summary>{len(items) - block.most:,} more</summary>{rest}</details>"
        )
    if isinstance(block, Table):
        head = "".join(f'<th scope="col">{_inline(cell)}</th>' for cell in block.header)
        rows = [
            f'<tr><th scope="row">{_inline(first)}</th>'
            + "".join(f"<td>{_cell(cell)}</td>" for cell in rest)
            + "</tr>"
            for first, *rest in block.rows
        ]
        return (
            f'<div class="wide"><table><thead><tr>{head}</tr></thead>'
            f"<tbody>{''.join(rows)}</tbody></table></div>"
        )
    note = f"<p>{_inline(block.note)}</p>" if block.note else ""
    return f"<figure><figcaption>{_inline(block.title)}</figcaption>{block.svg}{note}</figure>"


def _cell(text: str) -> str:
    """A value, and its interval smaller beside it."""
    value, bracket, rest = text.partition(" [")
    return f"{_inline(value)} <small>[{_inline(rest)}</small>" if bracket else _inline(value)


# Series: Okabe and Ito's palette, distinct for readers with any colour vision, darkened or
# lightened where it would vanish in the background.
STYLE = """
:root { color-scheme: light dark; --paper: #ffffff; --ink: #1b1b1b; --soft: #5c5c5c;
  --line: #d8d8d8; --tint: #f4f4f2; --s0: #0072b2; --s1: #d55e00; --s2: #009e73; --s3: #cc79a7;
  --s4: #e69f00; --s5: #56b4e9; --s6: #444444; --s7: #8a7a00; }
@media (prefers-color-scheme: dark) { :root { --paper: #16181b; --ink: #ececec; --soft: #a8a8a8;
  --line: #3a3d42; --tint: #202327; --s0: #4aa8e0; --s1: #ff8a3c; --s2: #2cc79a; --s3: #e59fc6;
  --s4: #f2b632; --s5: #9bd4f5; --s6: #c8c8c8; --s7: #f0e442; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, Helvetica, Arial, sans-serif; }
main { max-width: 76rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.6rem; line-height: 1.25; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin-top: 2.2rem; border-bottom: 1px solid var(--line); }
p, li { max-width: 46rem; overflow-wrap: anywhere; }
code { background: var(--tint); padding: 0 .25em; border-radius: 3px; overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .6rem; border-bottom: 1px solid var(--line); text-align: right;
  white-space: nowrap; }
thead th { color: var(--soft); font-weight: 600; }
th[scope=row], thead th:first-child { text-align: left; font-weight: 600; position: sticky; left: 0;
  background: var(--paper); }
small { color: var(--soft); font-size: .8em; }
.figures { display: grid; gap: 1.2rem; margin-top: 1.2rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 22rem), 1fr)); }
figure { margin: 0; padding: .6rem; border: 1px solid var(--line); border-radius: 6px;
  break-inside: avoid; }
figcaption { font-weight: 600; margin-bottom: .3rem; }
figure p { color: var(--soft); font-size: .85rem; margin: .3rem 0 0; }
svg { display: block; width: 100%; height: auto; font-size: 12px; fill: var(--ink); }
svg .soft { fill: var(--soft); }
svg .grid { stroke: var(--line); stroke-width: 1; }
svg .axis { stroke: var(--soft); stroke-width: 1; }
svg .whisker { stroke: var(--ink); stroke-width: 1.3; }
svg .f0 { fill: var(--s0); } svg .f1 { fill: var(--s1); } svg .f2 { fill: var(--s2); }
svg .f3 { fill: var(--s3); } svg .f4 { fill: var(--s4); } svg .f5 { fill: var(--s5); }
svg .f6 { fill: var(--s6); } svg .f7 { fill: var(--s7); }
svg .l0 { stroke: var(--s0); } svg .l1 { stroke: var(--s1); } svg .l2 { stroke: var(--s2); }
svg .l3 { stroke: var(--s3); } svg .l4 { stroke: var(--s4); } svg .l5 { stroke: var(--s5); }
svg .l6 { stroke: var(--s6); } svg .l7 { stroke: var(--s7); }
svg .line { fill: none; stroke-width: 2; }
@media (max-width: 40rem) { th[scope=row] { white-space: normal; max-width: 8.5rem; }
  th, td { padding: .3rem .4rem; } }
@media print { :root { --paper: #fff; --ink: #000; --soft: #444; --line: #bbb; --tint: #eee;
  --s0: #0072b2; --s1: #d55e00; --s2: #009e73; --s3: #cc79a7; --s4: #e69f00; --s5: #56b4e9;
  --s6: #444; --s7: #8a7a00; }
  main { max-width: none; padding: 0; } .wide { overflow: visible; }
  table { font-size: .7rem; } th, td { padding: .15rem .3rem; white-space: normal; }
  tr, figure { break-inside: avoid; } h2 { break-after: avoid; } }
"""
