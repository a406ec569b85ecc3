"""The densities that the rounds of an experiment come to, and the training after each of them."""

from __future__ import annotations

from fairgrape_jax.config.experiment import Experiment, Stage
from fairgrape_jax.config.protocols import method_of
from fairgrape_jax.methods import METHODS
from fairgrape_jax.selection import schedules


def retraining(experiment: Experiment) -> Stage:
    """The training after each round: `retrain`, or the last epochs of the dense training's rates.

    Args:
        experiment: the experiment.

    Source:
        Renda, Frankle, Carbin, "Comparing Rewinding and Fine-tuning in Neural Network Pruning"
        (ICLR 2020), learning rate rewinding.
    """
    left, pieces = experiment.remedy.rewind_rates, []
    if not left:
        return experiment.retrain
    dense = experiment.dense
    for count, rate in reversed(list(zip(dense.epochs, dense.rates, strict=True))):
        pieces.append((min(count, left), rate))
        left -= pieces[-1][0]
    epochs, rates = zip(*[piece for piece in reversed(pieces) if piece[0]], strict=True)
    return Stage(epochs, rates, best=experiment.retrain.best)


def densities(experiment: Experiment) -> list[float]:
    """The density after each round.

    Args:
        experiment: the experiment.

    Returns:
        Kept weights over all weights, falling.

    Raises:
        UsageError: for a schedule that is none, or densities that do not fall.
    """
    if experiment.densities:
        names = [method_of(experiment, name) for name in experiment.methods]
        nested = [name for name in names if not METHODS.find(name) or METHODS[name].nested]
        return schedules.check_falling(experiment.densities, strictly=bool(nested))
    return schedules.densities(
        experiment.sparsity,
        experiment.keep_per_round,
        schedule=experiment.schedule,
        count=experiment.rounds,
    )
