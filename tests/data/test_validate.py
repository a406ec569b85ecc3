"""Data that no step could use is refused with its samples."""

import dataclasses

import numpy as np
import pytest

from fairgrape_jax import data
from fairgrape_jax.errors import UsageError
from tests.helpers.not_finite import pictures


def as_float(images):
    images = images.astype(np.float32)
    images[[5, 9], 0, 0, 0] = np.nan
    return images


def labelled(labels, value):
    labels = labels.copy()
    labels[[7, 8]] = value
    return labels


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"images": as_float}, r"images are float32, not finite \(samples 5, 9\), give uint8"),
        ({"labels": lambda x: labelled(x, 9)}, r"label 9 .* out of range.*\(samples 7, 8\)"),
        ({"labels": lambda x: labelled(x * 1.0, np.nan)}, r"labels are float64, not finite \(sam"),
        ({"groups": lambda x: labelled(x, -1)}, r"group -1 is out of range.*\(samples 7, 8\)"),
        ({"groups": lambda x: x * 1.0}, "groups are float64, give integers"),
    ],
)
def test_data_that_no_step_could_use_is_refused_with_its_samples(change, said):
    dataset = pictures()
    changed = {
        name: change_one(getattr(dataset.train, name)) for name, change_one in change.items()
    }
    split = dataclasses.replace(dataset.train, **changed)
    with pytest.raises(UsageError, match=f"train: {said}"):
        data.check(dataclasses.replace(dataset, train=split))


@pytest.mark.parametrize(("name", "value"), [("mean", np.nan), ("std", 0.0), ("std", np.inf)])
def test_a_normalisation_that_is_none_is_refused(name, value):
    wrong = {name: (0.5, 0.5, value)}
    with pytest.raises(UsageError, match=f"{name}: .* cannot normalise"):
        data.check(dataclasses.replace(pictures(), **wrong))
