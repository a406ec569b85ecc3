"""Do distillation and the performance-weighted loss make pruned networks fairer? (Simon Says.)

Whole filters are pruned by their L1 norm on the cubic schedule to 45, 75 and 90 %, and the networks
retrained with each remedy: on handwriting of two real populations, students being 5 % of the
training pictures, with populations and with digits as groups. All remedies prune the same dense
networks. The last table asks whether the similarity of a layer to the dense one goes with CEV
within one sparsity too, or only across sparsities, where sparsity moves both.

Command:  python -m experiments.writers_remedies  (--help for a smaller one; run again to resume)
Expected: 5 seeds, 15 runs; about half an hour on 2 cores (estimated from two smaller ones)
"""

from __future__ import annotations

import argparse
import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from scipy import stats

from fairgrape_jax import models, parallel
from fairgrape_jax.config import Execution, Experiment, KeepLast, Scoring, Stage
from fairgrape_jax.data import augment, load
from fairgrape_jax.data.sources.writers import Writers
from fairgrape_jax.metrics.samples import Samples
from fairgrape_jax.models import activations
from fairgrape_jax.progress import say
from fairgrape_jax.remedies import REMEDIES
from fairgrape_jax.reports import comparison, differences
from fairgrape_jax.reports.document import markdown_table
from fairgrape_jax.reports.results import Cell, Model, cell, read
from fairgrape_jax.rounds.session import initial_network, open_session
from fairgrape_jax.runner import layout
from fairgrape_jax.runner import run as rounds
from fairgrape_jax.runner.prepare import write_config
from fairgrape_jax.runner.round import restore

SPARSITIES = (0.45, 0.75, 0.9)
COMPARED = ("none", "kd", "at", "at+kd", "pw")
MEASURES = ("svcca", "pwcca", "cka", "rbf_cka")

EXPERIMENT = Experiment(
    data=Writers(minority="students", share=0.05),
    model="cnn",
    methods=("structured",),
    sparsity=0.75,
    schedule="cubic",
    rounds=4,
    dense=Stage((8,), (1e-3,)),
    retrain=Stage((1,), (1e-3,)),
    final=Stage((4,), (1e-3,)),
    scoring=Scoring(fraction=0.2, micro_batch=16),
    batch=64,
    seeds=(0, 1, 2, 3, 4),
    execution=Execution(checkpoints=KeepLast()),
)


def study(
    experiment: Experiment, remedies: Sequence[str], sparsities: Sequence[float], out: Path
) -> str:
    """Do, or finish, every run below `out`; the tables, in Markdown."""
    first, cells, rows = None, [], []
    for sparsity in sparsities:
        for name in remedies:
            each = dataclasses.replace(experiment, sparsity=sparsity, remedy=REMEDIES[name])
            directory = out / f"{name}_{round(100 * sparsity)}"
            if first is not None:
                share_dense(first, each, directory)
            first = first or directory
            say(f"{name} at {100 * sparsity:.0f} %")
            rounds.run(each, directory)
            last = [m for m in read(directory) if m.record["round"] == m.record["rounds"]]
            pruned = [model for model in last if model.record["method"] != "dense"]
            cells.append((sparsity, name, cell(tuple(pruned), 1000), of_classes(pruned)))
            rows += [(sparsity, *row) for row in similarities(each, directory, pruned)]
    return "\n\n".join([results(cells), *against_none(cells), *correlations(rows)]) + "\n"


def share_dense(first: Path, experiment: Experiment, directory: Path) -> None:
    """The dense networks of `first` for another run: they are the same, remedy or not."""
    devices = parallel.local_devices(experiment.execution.devices)
    write_config(experiment, directory, load(experiment.data), devices)
    for path in first.glob("seed_*/dense"):
        target = directory / path.relative_to(first)
        if not layout.is_complete(target):
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(path, target)


def of_classes(pruned: Sequence[Model]) -> comparison.Comparison:
    """The same models with the classes as groups."""
    tested = pruned[0].predicted
    classes = [len(names) for _, names in pruned[0].record["tasks"]]
    return comparison.compare(
        pruned[0].name,
        Samples(tested.labels, tested.labels[:, 0], classes, classes[0]),
        np.stack([model.predicted.predictions for model in pruned]),
        np.stack([model.dense.predictions for model in pruned]),
        density=pruned[0].density,
    )


def results(
    cells: Sequence[tuple[float, str, comparison.Comparison, comparison.Comparison]],
) -> str:
    """A row per sparsity and remedy."""
    header = ["filters pruned %", "remedy", "accuracy", "rho(D) populations", "rho(D) digits"]
    header += ["CEV digits", "SDE digits", "CEV populations", "SDE populations"]
    rows = []
    for sparsity, name, groups, classes in cells:
        shown = [(groups, "accuracy"), (groups, "rho_change"), (classes, "rho_change")]
        shown += [(groups, row) for row in ("cev_classes", "sde_classes", "cev_groups")]
        shown += [(groups, "sde_groups")]
        values = [
            f"{one.mean[row][0]:.4g} [{one.low[row][0]:.4g}, {one.high[row][0]:.4g}]"
            for one, row in shown
        ]
        rows.append([f"{100 * sparsity:.0f}", name, *values])
    return markdown_table(header, rows)


def against_none(
    cells: Sequence[tuple[float, str, Cell, comparison.Comparison]],
) -> list[str]:
    """Each remedy minus none at the same sparsity, by the paired bootstrap; nothing without it."""
    header = ["filters pruned %", "remedy minus none", "accuracy"]
    header += ["rho(D) populations", "rho(D) digits"]
    rows = []
    for level in dict.fromkeys(sparsity for sparsity, *_ in cells):
        at_level = {name: groups for sparsity, name, groups, _ in cells if sparsity == level}
        if "none" not in at_level or len(at_level) == 1:
            continue
        base = list(at_level).index("none")
        models = [one.models for one in at_level.values()]
        labels, populations = models[0][0].predicted.labels, models[0][0].predicted.groups
        correct = np.stack([[m.predicted.predictions == labels for m in each] for each in models])
        dense = np.stack([m.dense.predictions == labels for m in models[0]])
        spans = []
        for groups, columns in ((populations, (0, 2)), (labels[:, 0], (2,))):
            compared = differences.compare_models(correct, dense, groups, int(groups.max()) + 1)
            for k in columns:
                low, high = differences.pairs(compared.values[:, k], compared.draws[:, :, k])
                spans.append(
                    (compared.values[:, k] - compared.values[base, k], low[:, base], high[:, base])
                )
        for row, name in enumerate(at_level):
            if row != base:
                shown = [f"{v[row]:+.2f} [{a[row]:+.2f}, {b[row]:+.2f}]" for v, a, b in spans]
                rows.append([f"{100 * level:.0f}", name, *shown])
    note = (
        "Differences on the same test samples and seeds, with 95 % bootstrap intervals that hold "
        "for all pairs of remedies of a sparsity together."
    )
    return [note, markdown_table(header, rows)] if rows else []


def similarities(
    experiment: Experiment, directory: Path, pruned: Sequence[Model]
) -> list[tuple[str, int, float, dict[str, activations.Similarity]]]:
    """Of each seed: its remedy, CEV over classes, and every layer's similarity to the dense one."""
    dataset = load(experiment.data)
    session = open_session(experiment, dataset, parallel.local_devices(1))
    names = models.FEATURES[experiment.model]
    images = jnp.asarray(dataset.test.images[: 8 * 200])
    normal = np.asarray(augment.normalise(images, dataset.mean, dataset.std))
    batches = np.array_split(normal, max(1, len(normal) // 200))
    rows = []
    for model in pruned:
        like = initial_network(session, model.seed)
        root = directory / f"seed_{model.seed}"
        stage = layout.round_directory(root / model.record["method"], model.record["round"])
        dense, after = (restore(session, path, like).variables for path in (root / "dense", stage))
        alike = activations.compare_layers(
            session.steps.module.clone(axis_name=None),
            dense,
            after,
            batches,
            names,
        )
        rows.append((directory.name, model.seed, model.record["test"]["cev_classes"], alike))
    return rows


def correlations(
    rows: Sequence[tuple[float, str, int, float, dict[str, activations.Similarity]]],
) -> list[str]:
    """Spearman's rank correlation of each similarity with CEV, across and within sparsities."""
    sparsity = np.array([row[0] for row in rows])
    cev = np.array([np.nan if row[3] is None else row[3] for row in rows])
    known = np.isfinite(cev)
    levels = sorted(set(sparsity))
    header = ["layer", "measure", "across", *[f"within {100 * level:.0f} %" for level in levels]]
    lines = []
    for layer in rows[0][4]:
        for measure in MEASURES:
            values = np.array([getattr(row[4][layer], measure) for row in rows])
            parts = [known, *[known & (sparsity == level) for level in levels]]
            ranks = [rank(values[part], cev[part]) for part in parts]
            lines.append([layer, measure, *[f"{r:+.2f} ({n})" for r, n in ranks]])
    note = (
        "Rank correlation of each layer's similarity with CEV over digits, a point per network "
        "(how many in brackets). SVCCA and PWCCA are distances, CKA is a likeness: if likeness to "
        "the dense network goes with fairness, the first two are positive and the others negative."
    )
    return [note, markdown_table(header, lines)]


def rank(a: np.ndarray, b: np.ndarray) -> tuple[float, int]:
    """Spearman's correlation, NaN where one does not vary or there are fewer than three points."""
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan"), len(a)
    return float(stats.spearmanr(a, b).statistic), len(a)


def main(arguments: list[str] | None = None) -> None:
    """The study from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--out", type=Path, default=Path("runs/remedies"))
    parser.add_argument("--seeds", type=int, nargs="+", default=list(EXPERIMENT.seeds))
    parser.add_argument("--remedies", nargs="+", choices=list(REMEDIES), default=list(COMPARED))
    parser.add_argument("--sparsities", type=float, nargs="+", default=list(SPARSITIES))
    parser.add_argument("--epochs", type=int, default=4, help="of the final retraining")
    options = parser.parse_args(arguments)
    experiment = dataclasses.replace(
        EXPERIMENT,
        seeds=tuple(options.seeds),
        final=Stage((options.epochs,), (1e-3,)),
    )
    text = study(experiment, options.remedies, options.sparsities, options.out)
    (options.out / "remedies.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
