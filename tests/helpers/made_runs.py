"""A run directory with predictions that are drawn at random: what a report reads, in no time."""

import json

import numpy as np

from fairgrape_jax import config, metrics
from fairgrape_jax.config import Experiment
from fairgrape_jax.data import Dataset, Split, Task, source
from fairgrape_jax.runner import layout
from fairgrape_jax.runner.predictions import write_predictions
from fairgrape_jax.training.evaluate import Predictions

GROUPS = ("a", "b", "c / d")
CLASSES = ("no", "yes")
LAYERS = ("conv1", "fc1")


def dataset(samples=240, ungrouped=True, named=True):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, len(CLASSES), (samples, 1)).astype(np.int32)
    groups = rng.integers(0, len(GROUPS), samples).astype(np.int32)
    groups[:7] = -1 if ungrouped else 0
    names = np.array([f"faces/{i}.jpg".encode() for i in range(samples)]) if named else None
    split = Split(np.zeros((samples, 2, 2, 1), np.uint8), labels, groups, names)
    return Dataset(split, split, split, (Task("smile", CLASSES),), GROUPS, (0.0,), (1.0,))


def predicted(made, right, rng, less=0.0):
    """Right with a probability that is `less` lower in the second group."""
    labels = made.test.labels
    wrong = rng.random(labels.shape) > right - less * (made.test.groups[:, None] == 1)
    names = made.test.names
    return Predictions(
        labels,
        np.where(wrong, 1 - labels, labels).astype(np.int32),
        made.test.groups,
        np.zeros(len(labels), np.float32),
        rng.random((len(labels), 2)).astype(np.float32),
        np.arange(len(labels)),
        None if names is None else tuple(name.decode() for name in names.tolist()),
    )


def make(
    directory, *, methods=("magnitude", "fairgrape"), seeds=(0, 1), rounds=3, gap=0.02, **options
):
    """A complete run, some rounds of each method, each worse by `gap` than the one before."""
    made = dataset(**options)
    pictures = source("synthetic", groups=len(GROUPS))
    experiment = Experiment(data=pictures, model="mlp", methods=methods, seeds=seeds)
    directory.mkdir(parents=True)
    stored = {
        "format": config.FORMAT,
        "experiment": config.to_dict(experiment),
        "versions": {"fairgrape-jax": "0", "jax": "0"},
        "devices": {"kind": "cpu", "platform": "cpu", "count": 1, "processes": 1},
    }
    (directory / "config.json").write_text(json.dumps(stored))
    for seed in seeds:
        rng = np.random.default_rng(seed)
        dense = predicted(made, 0.95, rng)
        stage(layout.stage_directory(directory, seed), made, dense, dense, seed, "dense", 0, rounds)
        for place, method in enumerate(methods):
            for number in range(1, rounds + 1):
                one = predicted(made, 0.9 - 0.05 * number - gap * place, rng, less=0.3)
                where = layout.stage_directory(directory, seed, method, number)
                stage(where, made, one, dense, seed, method, number, rounds)
    return directory


def stage(directory, made, one, dense, seed, method, number, rounds):
    directory.mkdir(parents=True)
    (directory / "checkpoint").mkdir()
    for name in ("checkpoint/digests.json", "masks.npz"):
        (directory / name).write_text("{}")
    write_predictions(directory / "predictions.csv", one, made)
    counts, base = (
        metrics.tally(p.labels, p.predictions, p.groups, len(GROUPS), made.classes)
        for p in (one, dense)
    )
    record = {
        "seed": seed,
        "method": method,
        "round": number,
        "rounds": rounds,
        "seconds": {"train": 1.0},
        "density": 0.5**number,
        "test": metrics.evaluate_all(counts, base, len(GROUPS)),
        "groups": list(GROUPS),
        "tasks": [["smile", list(CLASSES)]],
        "layers": [{"layer": name, "weights": 8, "alive": 4} for name in LAYERS],
    }
    if number in (0, rounds):
        record["importance"] = {
            name: [1.0 + place % 2 for place, _ in enumerate(GROUPS)] for name in LAYERS
        }
    layout.write_record(directory, record)
