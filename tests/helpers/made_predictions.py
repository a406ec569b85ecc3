"""Labels, predictions and groups for tests of metrics."""

import numpy as np


def predictions(seed=0, n=600, groups=3, classes=(2, 4)):
    rng = np.random.default_rng(seed)
    labels = np.stack([rng.integers(0, c, n) for c in classes], axis=1)
    guesses = np.stack([rng.integers(0, c, n) for c in classes], axis=1)
    predicted = np.where(rng.random(labels.shape) < 0.7, labels, guesses)
    return labels, predicted, rng.integers(0, groups, n), groups, classes
