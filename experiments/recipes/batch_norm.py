"""Two ingredients that the screen's network cannot show: recalibrated batch norm, rewound rates."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

import fairgrape_jax as fg
from experiments.recipes import recipes
from experiments.study import Study
from fairgrape_jax.config import Experiment, Stage
from fairgrape_jax.models.small import halve
from fairgrape_jax.remedies import Remedy

MODEL = "cnn-batch-norm"


class NormedCNN(nn.Module):
    """The table's "cnn" with batch norm after each convolution.

    Attributes:
        num_classes: how many logits it gives.
        axis_name: the mapped axis over which batch norm averages.
        dtype: of the computation.
    """

    num_classes: int
    axis_name: str | None = None
    dtype: DTypeLike = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Logits of normalised images.

        Args:
            x: (B, H, W, C).
            train: whether batch norm takes the statistics of the batch.

        Returns:
            (B, num_classes) float32.
        """
        for index, features in enumerate((16, 32), 1):
            x = nn.Conv(features, (3, 3), use_bias=False, dtype=self.dtype, name=f"conv{index}")(x)
            norm = nn.BatchNorm(
                use_running_average=not train,
                momentum=0.9,
                axis_name=self.axis_name,
                dtype=self.dtype,
                name=f"bn{index}",
            )
            x = halve(nn.relu(norm(x)))
        x = nn.relu(nn.Dense(128, dtype=self.dtype, name="fc1")(x.reshape(x.shape[0], -1)))
        logits = nn.Dense(self.num_classes, dtype=self.dtype, name="fc2")(x)
        return logits.astype(jnp.promote_types(self.dtype, jnp.float32))


fg.register("model", MODEL, NormedCNN)

ROWS = {
    "batch norm": ("baseline", Remedy()),
    "recalibrated": ("retraining", Remedy(recalibrate=40)),
    "recalibrated after": ("retraining", Remedy(recalibrate_after=40)),
    "rewound rates": ("retraining", Remedy(rewind_rates=2)),
}


def experiment(name: str, share: float, seed: int) -> Experiment:
    """One cell: FairGRAPE with one count for the network, in the screen's rounds.

    Args:
        name: of a row.
        share: of students among the training pictures.
        seed: of the run.
    """
    return dataclasses.replace(
        recipes.experiment("fairgrape", share, seed),
        model=MODEL,
        # The last two epochs, to which rates are rewound, have two rates.
        dense=Stage((7, 1), (1e-3, 1e-4)),
        remedy=ROWS[name][1],
    )


STUDY = Study(
    folder=recipes.STUDY.folder / "batch_norm",
    rows={name: part for name, (part, _) in ROWS.items()},
    experiment=experiment,
    measured=recipes.MEASURED,
    base="batch norm",
    seeds=recipes.STUDY.seeds,
    shares=recipes.STUDY.shares,
)
