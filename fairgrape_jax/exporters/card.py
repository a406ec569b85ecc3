"""The model card of an export: what the network is, whom it was tested on, what it is not for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from fairgrape_jax.config import Experiment, apply_protocol
from fairgrape_jax.data.sources.base import Source
from fairgrape_jax.errors import UsageError
from fairgrape_jax.metrics import Samples
from fairgrape_jax.reports.cautions import cautions
from fairgrape_jax.reports.comparison import Comparison, compare
from fairgrape_jax.runner.stage import LoadedStage, load
from fairgrape_jax.systems.options import Quantisation

ZEROS_SAVE_NO_TIME = (
    "Faster inference by itself: the zeros of a pruned network save storage, not time, unless a "
    "program that looks for them runs it."
)
NOT_FOR = (
    "Decisions about people. Equal accuracy over the groups of a dataset is not fairness of a "
    "system, and the groups here are those that the dataset names.",
    "Finding out a person's sex, ethnicity, age or any other group: the labels of such data are "
    "guesses, and so is what a network makes of them.",
    "People, cameras or places that the test split does not stand for: nothing was measured there.",
    ZEROS_SAVE_NO_TIME,
)


def card(run: Path, stage: LoadedStage, source: Source) -> str:
    """The model card of a finished stage.

    Args:
        run: Its run, for the dense network that it is compared with.
        stage: What is exported.
        source: The dataset of the run; its path is not named.

    Returns:
        Markdown: data, groups, method, allocation, sparsity, accuracy of every group with 95 %
        intervals, cautions, uses that it is not for.
    """
    compared, against = _comparison(run, stage)
    tasks = [(name, list(classes)) for name, classes in stage.tasks.items()]
    experiment = stage.experiment
    made = {
        "network": experiment.model,
        "data": f"{source.name}, seed {source.seed} of the split",
        "predicts": "; ".join(f"{name}: {', '.join(_few(c))}" for name, c in tasks),
        "groups": ", ".join(stage.groups),
        "method": stage.method if stage.round else "none: the dense network",
        "allocation": allocation_name(experiment, stage.method),
        "sparsity": f"{100 * (1 - stage.density):.2f} % of the weights of kernels are zero",
        **({"quantised": _bits(stage.bits)} if stage.bits else {}),
        "stage": f"{stage.name} of a run of fairgrape_jax",
    }
    return "\n".join(
        [
            f"# {experiment.model}, pruned by {stage.method}"
            if stage.round
            else f"# {experiment.model}, dense",
            "",
            *_bullets(made),
            "",
            "## Accuracy by group",
            "",
            f"On the {compared.total:,} samples of the test split; in brackets 95 % intervals of "
            f"the bootstrap{', and the change from the dense network' if against else ''}.",
            "",
            *_table(compared, stage.groups, against),
            "",
            "## Cautions",
            "",
            *[f"- {_escaped(line)}" for line in cautions([compared], stage.groups, tasks)],
            "- One run of one seed: another seed gives other numbers.",
            "",
            "## Not for",
            "",
            *[f"- {line}" for line in NOT_FOR],
            "",
        ]
    )


def _bits(bits: Quantisation) -> str:
    """How a network is quantised, in a line."""
    return (
        f"{bits}, simulated in floating point; the accuracies below are of the quantised network. "
        "Files of weights hold them quantised, each with its scale, and the ranges of activations "
        "under `quantiser`; who runs them without quantising activations runs another network"
    )


def allocation_name(experiment: Experiment, method: str) -> str:
    """How a method of a run chose the number of weights of each layer, in a word.

    Args:
        experiment: Of the run.
        method: Of the experiment, or dense.

    Returns:
        A word.
    """
    allocation = apply_protocol(experiment, method).scoring.allocation
    return allocation if isinstance(allocation, str) else "a table of densities by layer"


def plain_card(name: str, density: float | None) -> str:
    """The card of a network of the user's: what is known of it is that nothing was measured.

    Args:
        name: Of the network.
        density: Kept weights over all; None where there are no masks.

    Returns:
        The card's text.
    """
    rows = {"network": name or "a function of the user's"}
    if density is not None:
        rows["sparsity"] = f"{100 * (1 - density):.2f} % of the weights under masks are zero"
    unknown = (
        "Data, groups, method and accuracy are not known to the program that wrote this: no group "
        "was looked at. Write down here whom it was tested on before anybody relies on it."
    )
    notes = [f"- {unknown}", "", "## Not for", "", *[f"- {line}" for line in NOT_FOR], ""]
    return "\n".join(
        [f"# {name or 'A network'}", "", *_bullets(rows), "", "## Cautions", "", *notes]
    )


def _comparison(run: Path, stage: LoadedStage) -> tuple[Comparison, bool]:
    """The stage beside the dense network of its seed; beside itself where that is gone."""
    predicted = stage.predictions
    try:
        dense = load(run, f"seed_{stage.seed}/dense").predictions.predictions
    except UsageError:
        dense = predicted.predictions
    against = stage.round > 0 and dense.shape == predicted.predictions.shape
    dense = dense if against else predicted.predictions
    classes = [len(names) for names in stage.tasks.values()]
    samples = Samples(predicted.labels, predicted.groups, classes, len(stage.groups))
    compared = compare(
        stage.method,
        samples,
        predicted.predictions[None],
        dense[None],
        density=stage.density,
        replicates=1000,
    )
    return compared, against


def _table(compared: Comparison, groups: Sequence[str], against: bool) -> list[str]:
    def cell(statistic: str, place: int, form: str) -> str:
        numbers = (compared.mean, compared.low, compared.high)
        value, low, high = (float(n[statistic][place]) for n in numbers)
        return "-" if np.isnan(value) else f"{value:{form}} [{low:{form}}, {high:{form}}]"

    head = ["group", "samples", "accuracy, %", *["change, points"] * against]
    rows = [["everybody", f"{compared.total:,}", cell("accuracy", 0, ".1f"), *["-"] * against]]
    for place, (group, size) in enumerate(zip(groups, compared.sizes, strict=True)):
        change = [cell("group_change", place, "+.1f")] if against else []
        rows.append([group, f"{int(size):,}", cell("group_accuracy", place, ".1f"), *change])
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(_escaped(word) for word in line) + " |" for line in lines]


def _bullets(rows: Mapping[str, str]) -> list[str]:
    return [f"- **{name}**: {_escaped(text)}" for name, text in rows.items()]


def _escaped(text: str) -> str:
    """Names of groups and classes are text, not Markdown."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;").replace("`", "'")


def _few(names: Sequence[str], most: int = 12) -> list[str]:
    more = [f"and {len(names) - most} more"] if len(names) > most else []
    return [*names[:most], *more]
