"""Finished stages of a run in bfloat16 and in int8, and what they then predict of the test split.

int8 is that of `quantize/`, calibrated on pictures of the training split; with epochs of training
it is trained further in int8 under the stage's masks, with the running statistics of batch norm
held.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from fairgrape_jax import models, parallel, passes
from fairgrape_jax.config import Experiment
from fairgrape_jax.data import augment, batches
from fairgrape_jax.data.dataset import Dataset
from fairgrape_jax.errors import UsageError
from fairgrape_jax.exporters.base import leaves
from fairgrape_jax.exporters.sparse import encode
from fairgrape_jax.masks import Tree, apply_masks
from fairgrape_jax.quantize import simulate, simulate_int8
from fairgrape_jax.runner.stage import LoadedStage
from fairgrape_jax.training import evaluate
from fairgrape_jax.training.epoch import train_epoch
from fairgrape_jax.training.optimizers import OPTIMIZERS
from fairgrape_jax.training.state import State
from fairgrape_jax.training.step import make_train_step

PIECE = 128  # pictures of one call in calibration


@dataclasses.dataclass(frozen=True)
class AtPrecision:
    """A stage at a precision.

    Attributes:
        precision: float32, bfloat16, int8, or "int8, trained".
        bytes: of all its arrays.
        bytes_sparse: in the form that keeps no zeros (`exporters.sparse`).
        predictions: of the test split.
    """

    precision: str
    bytes: int
    bytes_sparse: int
    predictions: evaluate.Predictions


class Rounded(nn.Module):
    """A network in simulated int8, whose batch statistics stay as they are.

    Its collection `batch_stats` is {"of": the network's, "bounds": of what each layer takes}.

    Attributes:
        network: (variables, normalised pictures) to logits.
    """

    network: Callable[[Tree, Any], Any]

    def apply(self, variables: Any, *args: Any, **options: Any) -> Any:
        """The logits, and the collections that are asked for as mutable.

        Args:
            variables: parameters and statistics.
            args: (B, H, W, C) pictures, normalised.
            options: of `flax.linen.Module.apply`.
        """
        still = variables["batch_stats"]
        of_network = {"params": variables["params"], "batch_stats": still["of"]}
        logits = simulate(self.network, of_network, still["bounds"], args[0])
        return (logits, {"batch_stats": still}) if options.get("mutable") else logits


class Precisions:
    """The networks of one run at every precision: what is compiled serves all of its stages."""

    def __init__(self, experiment: Experiment, dataset: Dataset) -> None:
        if jax.process_count() > 1:
            raise UsageError("quantize: one process does it; start it alone")
        self.experiment, self.dataset = experiment, dataset
        self.devices = parallel.local_devices(1)
        self.lift = functools.partial(
            parallel.lift, devices=self.devices, out_axes=None, by=experiment.execution.lift
        )
        classes = sum(dataset.classes)
        plain, self.bfloat16 = (
            models.create(experiment.model, classes, dtype=dtype)
            for dtype in ("float32", "bfloat16")
        )
        self.float32 = plain

        def network(variables: Tree, images: Any) -> Any:
            return plain.apply(variables, images, train=False)

        self.network = network  # one object, by which compiled functions are known
        self.rounded = Rounded(network)

    def of_stage(
        self, stage: LoadedStage, *, epochs: int = 0, rate: float = 1e-4, calibration: int = 512
    ) -> list[AtPrecision]:
        """A stage in float32, bfloat16, int8, and trained in int8.

        Args:
            stage: a finished stage of the run.
            epochs: of training in int8; 0 for none.
            rate: the learning rate of that.
            calibration: pictures of the training split that activations are measured on.

        Returns:
            What it is and predicts at each of them.

        Raises:
            UsageError: no layer of the network can be int8.
        """
        if stage.bits:
            raise UsageError(
                f"{stage.name}: was retrained with quantisers ({stage.bits}), and its float32 is "
                "not what the run evaluated; give a stage of a run without --quantise"
            )
        variables = jax.device_get(dict(stage.variables))
        params, stats = variables["params"], variables["batch_stats"]
        halved = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
        widened = jax.tree.map(lambda leaf: leaf.astype(np.float32), halved)
        try:
            simulated = simulate_int8(
                variables, apply=self.network, inputs=self.calibration_pictures(calibration)
            )
        except ValueError as error:
            raise UsageError(f"{stage.name}: {error}") from error
        bounds = {name: np.asarray(pair, np.float32) for name, pair in simulated.bounds.items()}
        with_bounds = {"of": stats, "bounds": bounds}
        rows = [
            self._row("float32", params, stats, stage, variables),
            self._row("bfloat16", widened, stats, stage, variables | {"params": halved}),
            self._row("int8", params, with_bounds, stage, simulated.convert(variables).params),
        ]
        if epochs:
            trained = self.train(stage, params, with_bounds, epochs, rate)
            held = simulated.convert(variables | {"params": trained}).params
            rows.append(self._row("int8, trained", trained, with_bounds, stage, held))
        return rows

    @functools.cache  # noqa: B019 (as long as the command)
    def calibration_pictures(self, count: int) -> tuple[np.ndarray, ...]:
        """Normalised pictures of the training split, evenly from it, in batches of few.

        Args:
            count: how many, at most.
        """
        split = self.dataset.train
        places = np.unique(np.linspace(0, len(split) - 1, count).astype(int))
        images, _ = batches.read_images(split, places)
        shown = augment.normalise(jnp.asarray(images), self.dataset.mean, self.dataset.std)
        return tuple(np.asarray(shown[i : i + PIECE]) for i in range(0, len(images), PIECE))

    def train(
        self, stage: LoadedStage, params: Tree, still: Tree, epochs: int, rate: float
    ) -> Tree:
        """Train further as int8 rounds it: the run's optimizer, augmentation and order of data.

        Args:
            stage: whose masks hold.
            params: where it begins.
            still: the batch statistics of `Rounded`.
            epochs: over the training split.
            rate: the learning rate.

        Returns:
            The parameters after it, zero where pruned.
        """
        optimizer, step = self._train_step
        params = jax.tree.map(np.array, jax.device_get(params))  # steps take over their buffers
        state = State(
            params=params,
            batch_stats=still,
            opt_state=optimizer.init(params),
            step=jnp.zeros((), jnp.int32),
            epoch=jnp.zeros((), jnp.int32),
            key=jax.random.key_data(jax.random.key(stage.seed)),
        )
        state, masks = parallel.replicate((state, stage.masks), self.devices)
        for _ in range(epochs):
            state, _, _ = train_epoch(
                step,
                state,
                masks,
                self.dataset.train,
                devices=self.devices,
                batch=self.experiment.batch,
                rate=rate,
                seed=stage.seed,
            )
        return jax.device_get(apply_masks(stage.masks, jax.device_get(state.params)))

    @functools.cached_property
    def _train_step(self) -> tuple[optax.GradientTransformation, Callable[..., Any]]:
        run = self.experiment
        optimizer = OPTIMIZERS[run.optimizer](run.momentum, run.weight_decay)
        step = make_train_step(self.rounded, self.dataset, optimizer, augmentation=run.augmentation)
        return optimizer, self.lift(step, in_axes=(None, None, 0, None), donate=(0,))

    @functools.cache  # noqa: B019
    def _evaluation(self, precision: str) -> Callable[..., tuple[jax.Array, ...]]:
        module = {"float32": self.float32, "bfloat16": self.bfloat16}.get(precision, self.rounded)
        step = evaluate.make_evaluate_step(module, self.dataset)
        return self.lift(step, in_axes=(None, None, None, 0))

    def _row(
        self, precision: str, params: Tree, stats: Tree, stage: LoadedStage, held: Tree
    ) -> AtPrecision:
        """What a network predicts, and the size of what it is held as."""
        step = self._evaluation("int8" if precision.startswith("int8") else precision)
        placed = parallel.replicate((params, stats, stage.masks), self.devices)
        predictions = evaluate.predict(
            lambda batch: step(*placed, batch),
            self.dataset.test,
            per_device=self.experiment.execution.evaluation_batch,
            devices=self.devices,
            key={"pass": "evaluation", "precision": precision},
            fold=passes.fold,
        )
        arrays = leaves(held)
        zeros = {name: array != 0 for name, array in arrays.items() if _is_pruned(array)}
        size = sum(array.nbytes for array in arrays.values())
        return AtPrecision(precision, size, len(encode(arrays, zeros)), predictions)


def _is_pruned(array: np.ndarray) -> bool:
    """Whether it is worth to keep the places of what is not zero."""
    return array.ndim > 1 and bool(np.count_nonzero(array) < array.size)
