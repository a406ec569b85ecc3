"""Metrics of yes-or-no attributes and their scores: how sure a model is, and what it confuses.

Of one attribute unless said otherwise, as fractions; z are logits, larger for yes.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Bool, Float

from fairgrape_jax.metrics.counts import Value

Answers: TypeAlias = Bool[np.ndarray, " sample"]
Logits: TypeAlias = Float[np.ndarray, " sample"]

SURE = 0.4  # |p - 1/2| from which an answer counts as sure
BINS = 10  # of the expected calibration error
FEWEST = 10  # samples of an attribute with, and without, the other one; fewer tell nothing
APART = 0.1  # relative difference of the frequencies in training; less is no stereotype


def probability(logits: np.ndarray) -> Value:
    """The logistic function, without overflow.

    Args:
        logits: (...) floats.

    Returns:
        (...) float64, from 0 to 1.
    """
    z = np.asarray(logits, np.float64)
    e = np.exp(-np.abs(z))
    return np.where(z >= 0, 1, e) / (1 + e)


def uncertainty(logits: Logits) -> float:
    """The share of samples of which the model is not sure: p between 0.1 and 0.9.

    Args:
        logits: (N,) floats.

    Returns:
        A fraction.

    Source:
        Iofinova, Peste, Alistarh, "Bias in Pruned Vision Models" (CVPR 2023, arXiv 2304.12622).

    Example:
        >>> uncertainty(np.array([-5.0, 0.1, 0.2, 9.0]))
        0.5
    """
    return float(np.mean(np.abs(probability(logits) - 0.5) < SURE))


def calibration_error(logits: Logits, answers: Answers) -> float:
    """ECE: how far probabilities are from the frequencies of yes, the mean over samples.

    Args:
        logits: (N,) floats.
        answers: (N,) bool, the labels.

    Returns:
        The sum over ten bins of p, of equal width, of their share times |mean p - share of yes|.

    Source:
        Naeini et al., "Obtaining Well Calibrated Probabilities Using Bayesian Binning" (AAAI 2015);
        bins as Iofinova et al. (arXiv 2304.12622).

    Example:
        >>> round(calibration_error(np.zeros(4), np.array([True, True, True, False])), 3)
        0.25
    """
    p = probability(logits)
    place = np.minimum((BINS * p).astype(int), BINS - 1)
    excess = np.bincount(place, p - np.asarray(answers, np.float64), BINS)
    return float(np.abs(excess).sum() / len(p))


def calibrated_threshold(logits: Logits, answers: Answers) -> float:
    """The threshold at which as many are answered yes as there are, on a validation split.

    Args:
        logits: (N,) floats.
        answers: (N,) bool, the labels.

    Returns:
        Halfway between the last logit above and the first below, so that `logits > threshold` has
        as many as `answers`, where no two logits there are equal; infinite where all or none are.

    Source:
        Iofinova et al. (arXiv 2304.12622), whose code takes the last logit itself, and so answers
        yes once less often.

    Example:
        >>> calibrated_threshold(np.array([3.0, 1.0, 2.0]), np.array([True, False, False]))
        2.5
    """
    descending = np.sort(np.asarray(logits, np.float64))[::-1]
    yes = int(np.sum(answers))
    if yes in (0, len(descending)):
        return -np.inf if yes else np.inf
    return float((descending[yes - 1] + descending[yes]) / 2)


def rare_value_ratio(predicted: Answers, answers: Answers, *, rare: bool) -> float:
    """How often the rare value is predicted over how often it is there; below 1 it is forgotten.

    Args:
        predicted: (N,) bool.
        answers: (N,) bool, the labels.
        rare: the value that is rarer in training.

    Returns:
        A ratio; NaN where the value is not there.

    Source:
        Iofinova et al. (arXiv 2304.12622).

    Example:
        >>> answers = np.array([True, True, False, False])
        >>> rare_value_ratio(np.array([True, False, False, False]), answers, rare=True)
        0.5
    """
    there = int(np.sum(np.asarray(answers) == rare))
    return float(np.sum(np.asarray(predicted) == rare) / there) if there else np.nan


def interdependence(predicted: Bool[np.ndarray, "sample attribute"]) -> np.ndarray:
    """How well each attribute's answers follow from the answers to all others: R^2.

    Args:
        predicted: (N, A) bool.

    Returns:
        (A,) R^2 of the linear regression on the other A - 1; NaN where all answers are one.

    Source:
        Iofinova et al. (arXiv 2304.12622).
    """
    answers = np.asarray(predicted, np.float64)
    result = np.full(answers.shape[1], np.nan)
    for i, y in enumerate(answers.T):
        if (spread := np.square(y - y.mean()).sum()) > 0:
            others = np.delete(answers, i, axis=1)
            design = np.column_stack([others, np.ones(len(y))])
            fit = design @ np.linalg.lstsq(design, y)[0]
            result[i] = 1 - np.square(y - fit).sum() / spread
    return result


class Training(NamedTuple):
    """How an attribute and another one, who somebody is, go together in the training labels.

    Attributes:
        among: the share of the attribute among those with the other one.
        apart: its share among all others.
    """

    among: float
    apart: float

    @property
    def goes_with(self) -> bool:
        """Whether the attribute is more frequent with the other one than without."""
        return self.among > self.apart

    @property
    def is_stereotype(self) -> bool:
        """Whether the two shares differ enough to speak of one."""
        least = min(self.among, self.apart)
        return (
            abs(self.among - self.apart) >= APART * least if least > 0 else self.among != self.apart
        )


def bias_amplification(
    predicted: Answers, answers: Answers, identity: Answers, training: Training
) -> float:
    """By how much a model exaggerates with whom an attribute went in training.

    Args:
        predicted: (N,) bool, the predictions of the attribute.
        answers: (N,) bool, its labels.
        identity: (N,) bool, the labels of the other attribute.
        training: how the two go together in training.

    Returns:
        P(identity | predicted yes) - P(identity | truly yes), of the other identity where training
        had the attribute more often there; above 0 the stereotype grows. NaN where fewer than ten
        with the attribute have, or have not, the identity, where training has no stereotype, or
        where nothing is predicted.

    Source:
        Iofinova et al. (arXiv 2304.12622), after Zhao et al., "Men Also Like
        Shopping" (EMNLP 2017).
    """
    predicted, answers, identity = map(np.asarray, (predicted, answers, identity))
    with_it = int(np.sum(answers & identity))
    if min(with_it, int(answers.sum()) - with_it) < FEWEST or not training.is_stereotype:
        return np.nan
    if not predicted.any():
        return np.nan
    side = identity == training.goes_with
    return float(np.mean(side[predicted]) - np.mean(side[answers]))
