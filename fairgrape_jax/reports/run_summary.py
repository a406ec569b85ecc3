"""The first screen of a report of runs: what was done, the verdict, a picture, a small table."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from fairgrape_jax import config
from fairgrape_jax.reports import cautions, run_figures, summary
from fairgrape_jax.reports.blocks import Block, Text, Verdict
from fairgrape_jax.reports.run_results import Results, bare_names
from fairgrape_jax.reports.verdict import beats_one_class, verdict


def title(results: Results) -> str:
    """What the report is of.

    Args:
        results: what it is made from.
    """
    stored = config.read(results.runs[0] / "config.json")["experiment"]
    names = ", ".join(run.name for run in results.runs)
    return f"What pruning {stored['model']} costs whom on {stored['data']['name']} ({names})"


def first_screen(results: Results) -> list[Block]:
    """What was done, the verdict, a picture, a small table.

    Args:
        results: what it is made from.
    """
    last, groups = results.last, results.groups
    blocks: list[Block] = [Text(what_was_done(results)), verdict_of(results)]
    grave = cautions.gravest(cautions.collect(last, groups, results.tasks))
    if grave:
        blocks.append(Text(f"Read with care: {grave} More under Cautions."))
    names = bare_names(results, results.ranked)
    blocks.append(run_figures.summary(results.models, results.cells, names))
    blocks.append(summary.small_table(last, groups))
    return blocks


def verdict_of(results: Results) -> Verdict:
    """The verdict on the methods of a run.

    Args:
        results: what it is made from.
    """
    dense_is = ""
    if not any(beats_one_class(cell) for cell in results.cells if cell.dense_itself):
        dense_is = "the dense network is not shown to do better than one class for everybody"
    answer = verdict(results.last, results.groups, results.compared, one_class=dense_is)
    if len(results.last) > 1 and results.compared is None:
        reason = "The methods share no seed, or not their samples: they are not compared. "
        return dataclasses.replace(answer, note=reason + answer.note)
    return answer


def what_was_done(results: Results) -> str:
    """Data, task, groups, network, methods, weights left and seeds, in a line.

    Args:
        results: what it is made from.
    """
    stored = config.read(results.runs[0] / "config.json")["experiment"]
    first = results.cells[0]
    tasks = [f"{name} ({len(classes)} classes)" for name, classes in results.tasks]
    shown = ", ".join(tasks[:3]) + f" and {len(tasks) - 3} more" * (len(tasks) > 3)
    group = stored["data"].get("group")
    shown += f" by {group}" * (isinstance(group, str) and bool(group))
    seeds = sorted({model.seed for model in results.models})
    densities = sorted({f"{100 * cell.density:.3g}" for cell in results.last}, key=float)
    rounds = sorted({cell.models[0].record["round"] for cell in results.last})
    numbered = f"seeds {', '.join(map(str, seeds))}" if len(seeds) > 1 else f"seed {seeds[0]}"
    return (
        f"{stored['data']['name']}: {shown}; {first.total:,} test samples "
        f"({summary.sizes(first, results.groups)}). {stored['model']} pruned by "
        f"{', '.join(dict.fromkeys(bare_names(results, results.last)))} to "
        f"{' or '.join(densities)} % of its weights{_operations(stored)} in "
        f"{' or '.join(map(str, rounds))} round{'s' * (rounds != [1])}; {numbered}."
    )


def _operations(stored: Mapping[str, Any]) -> str:
    """What a run that counts operations was to leave of them; nothing for others."""
    if stored["scoring"].get("structures") != "flops":  # earlier versions do not have it
        return ""
    left = stored["densities"][-1] if stored.get("densities") else 1 - stored["sparsity"]
    return f" and {100 * left:.3g} % of its operations"
