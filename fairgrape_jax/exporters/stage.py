"""A finished stage of a run as a model to export, and its recorded predictions to compare with."""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from fairgrape_jax import data, losses
from fairgrape_jax.data import augment
from fairgrape_jax.data.batches import read_images
from fairgrape_jax.data.dataset import MOST_SCORES, Dataset
from fairgrape_jax.data.sources import arrays
from fairgrape_jax.data.sources.base import Source
from fairgrape_jax.errors import UsageError
from fairgrape_jax.exporters.base import Model
from fairgrape_jax.exporters.card import allocation_name, card
from fairgrape_jax.exporters.torchvision import timm_entries
from fairgrape_jax.masks import Tree
from fairgrape_jax.models.narrow import layer_widths, narrow
from fairgrape_jax.progress import bar
from fairgrape_jax.runner import layout
from fairgrape_jax.runner.stage import LoadedStage, load

CLOSE = 1e-3  # probabilities that may change places between two machines


@dataclasses.dataclass(frozen=True)
class Recorded:
    """What a run wrote down of the samples that an export is tried on.

    Attributes:
        classes: The number of classes of each task.
        predictions: (N, T) int, the predicted class of each task.
        scores: (N, K) float, the probability of every class of every task; None where only that of
            the predicted one was kept.
    """

    classes: tuple[int, ...]
    predictions: np.ndarray
    scores: np.ndarray | None

    def compare(self, logits: np.ndarray) -> tuple[int, float]:
        """How many predictions differ, and the largest difference of a probability.

        Args:
            logits: (N, K) of the same samples. Another class is no difference where both are as
                probable, to CLOSE.
        """
        predicted = np.asarray(losses.predictions(jax.numpy.asarray(logits), self.classes))
        other = predicted != self.predictions
        if self.scores is None:
            return int(other.sum()), float("nan")
        heads = losses.split_heads(logits, self.classes)
        scores = np.concatenate([np.asarray(jax.nn.softmax(head)) for head in heads], axis=-1)
        begins = np.cumsum([0, *self.classes[:-1]])
        rows = np.arange(len(predicted))[:, None]
        margin = (
            self.scores[rows, begins + self.predictions] - self.scores[rows, begins + predicted]
        )
        return int((other & (margin > CLOSE)).sum()), float(np.abs(scores - self.scores).max())


def read(path: Path, samples: int) -> tuple[Model, Recorded]:
    """The model of a stage, and what the run predicted.

    Args:
        path: RUN or RUN/STAGE, as `runner.stage.load` takes the stage.
        samples: How many of the test split it is tried on, at most.

    Raises:
        UsageError: There is no such stage, or its dataset cannot be read or is another one.
    """
    run, stage = find_stage(path)
    source = arrays.locate(stage.experiment.data, run)
    dataset = read_dataset(path, stage, source)
    places = stage.predictions.places
    chosen = np.arange(len(stage.predictions.groups))[:samples]
    images, good = read_images(dataset.test, chosen if places is None else places[chosen])
    chosen, images = chosen[good], images[good]
    predicted, scores = stage.predictions.predictions[chosen], stage.predictions.scores
    recorded = Recorded(
        dataset.classes,
        predicted,
        None if scores is None or sum(dataset.classes) > MOST_SCORES else scores[chosen],
    )
    model = _model(stage, dataset, images, card(run, stage, source))
    return model, recorded


def find_stage(path: Path) -> tuple[Path, LoadedStage]:
    """The directory of a run and a finished stage of it.

    Args:
        path: RUN or RUN/STAGE.

    Returns:
        The directory, and the stage as `load` reads it.

    Raises:
        UsageError: There is none.
    """
    absolute = path.absolute()
    if (run := layout.find_run(absolute)) is None:
        raise UsageError(f"{path}: not a run, and no stage of one (no config.json there or above)")
    return run, load(run, "" if run == absolute else absolute.relative_to(run).as_posix())


def read_dataset(path: Path, stage: LoadedStage, source: Source) -> Dataset:
    """The dataset of a run.

    Args:
        path: Of the run, for messages.
        stage: One of its stages.
        source: The dataset where it is now.

    Returns:
        The dataset.

    Raises:
        UsageError: It is not there, or is not what it was.
    """
    try:
        with bar("reading") as move:
            dataset = data.load(source, move, stage.experiment.execution.reading)
    except (UsageError, OSError) as error:
        raise UsageError(
            f"{path}: this compares with the run's predictions, for which the pictures of "
            f"its test split are needed ({error}); bring the data to where the run had them"
        ) from error
    labels, places = stage.predictions.labels, stage.predictions.places
    test = dataset.test.labels
    rows = np.arange(len(labels)) if places is None else places
    same = len(rows) == 0 or (rows.max() < len(test) and np.array_equal(test[rows], labels))
    tasks = {task.name: task.classes for task in dataset.tasks}
    if tasks != stage.tasks or dataset.groups != stage.groups or not same:
        raise UsageError(
            f"{path}: the dataset is not what it was: other groups, classes or test samples than "
            "the run's predictions are of; bring back the data that the run was made with"
        )
    return dataset


def _model(stage: LoadedStage, dataset: Dataset, images: np.ndarray, text: str) -> Model:
    module, mean, std = stage.module, dataset.mean, dataset.std

    def apply(variables: Tree, pictures: Any) -> Any:
        return module.apply(variables, augment.normalise(pictures, mean, std), train=False)

    def narrowed(variables: Tree) -> Callable[[Tree, Any], Any]:
        small = narrow(module, layer_widths(variables))

        def apply(variables: Tree, pictures: Any) -> Any:
            return small.apply(variables, augment.normalise(pictures, mean, std), train=False)

        return apply

    variables = jax.tree.map(np.asarray, jax.device_get(dict(stage.variables)))
    masks = {
        name: stage.masks if name == "params" else jax.tree.map(lambda _: None, tree)
        for name, tree in variables.items()
    }
    exact = stage.experiment.precision == "float32"
    return Model(
        name=stage.experiment.model,
        variables=variables,
        masks=masks,
        apply=apply,
        inputs=images,
        config=_config(stage, dataset),
        card=text,
        tolerance=1e-4 if exact else 3e-2,
        narrow=narrowed,
    )


def _config(stage: LoadedStage, dataset: Dataset) -> dict[str, Any]:
    """How the network is used, in plain values; no path, and nothing of a sample."""
    height, width, channels = dataset.shape
    values: dict[str, Any] = {
        "library": f"fairgrape_jax {importlib.metadata.version('fairgrape-jax')}",
        "model": stage.experiment.model,
        "num_classes": sum(dataset.classes),
        "tasks": {name: list(classes) for name, classes in stage.tasks.items()},
        "groups": list(stage.groups),
        "method": stage.method,
        "allocation": allocation_name(stage.experiment, stage.method),
        "density": stage.density,
        **({"quantised": dataclasses.asdict(stage.bits)} if stage.bits else {}),
        "input": {
            "shape": [height, width, channels],
            "layout": "NHWC",
            "mean": list(map(float, dataset.mean)),
            "std": list(map(float, dataset.std)),
            "meaning": "pixels divided by 255, minus mean, over std; programs (stablehlo, onnx) "
            "take the pixels from 0 to 255, uint8, and do it themselves",
        },
    }
    mean, std = values["input"]["mean"], values["input"]["std"]
    shape, count = (height, width, channels), values["num_classes"]
    return values | timm_entries(stage.experiment.model, count, shape, mean=mean, std=std)
