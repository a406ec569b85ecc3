"""Tables of papers made again: their values, the experiments behind them, paper beside ours."""

from fairgrape_jax.reproduction.against_paper import Line, compare_cell, text_of
from fairgrape_jax.reproduction.cells import SCALES, Scale, experiment_of, methods_of, missing
from fairgrape_jax.reproduction.drawing import draw
from fairgrape_jax.reproduction.planned import Cost, cost_of, plan_text
from fairgrape_jax.reproduction.values import TABLES, Cell, Row, Table, read_table

__all__ = [
    "SCALES",
    "TABLES",
    "Cell",
    "Cost",
    "Line",
    "Row",
    "Scale",
    "Table",
    "compare_cell",
    "cost_of",
    "draw",
    "experiment_of",
    "methods_of",
    "missing",
    "plan_text",
    "read_table",
    "text_of",
]
