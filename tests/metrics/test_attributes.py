"""Metrics of yes-or-no attributes, against values of the code of Bias in Pruned Vision Models."""

from pathlib import Path

import numpy as np
import pytest

from fairgrape_jax.metrics import attributes
from fairgrape_jax.metrics.attributes import Training

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "vision_bias.npz")
TRAIN, VALIDATION, TEST = (
    np.unpackbits(GOLDEN[f"{split}_labels"], axis=0)[:n].astype(bool)
    for split, n in zip(("train", "val", "test"), GOLDEN["n"], strict=True)
)
LOGITS, TUNING = GOLDEN["test_logits"], GOLDEN["val_logits"]
EACH = range(TEST.shape[1])


def predictions(threshold):
    """By zero, or by the last logit that still counts, as the authors' code does."""
    bound = 0 if threshold == "zero" else GOLDEN["calibrated_threshold"]
    return np.greater(LOGITS, bound)


def test_uncertainty_and_calibration_error():
    for i in EACH:
        z = LOGITS[:, i]
        assert attributes.uncertainty(z) == pytest.approx(GOLDEN["zero.uncertainty"][i])
        error = attributes.calibration_error(z, TEST[:, i])
        assert error == pytest.approx(GOLDEN["zero.ece"][i], rel=1e-5)


def test_the_threshold_has_as_many_above_it_as_are_there():
    for i in EACH:
        z, answers = TUNING[:, i], VALIDATION[:, i]
        threshold = attributes.calibrated_threshold(z, answers)
        assert (z > threshold).sum() == answers.sum()
        # Theirs is the last logit above ours.
        assert z[z > threshold].min() == pytest.approx(GOLDEN["calibrated_threshold"][i])
    nobody = np.zeros(len(TUNING), bool)
    assert not (TUNING[:, 0] > attributes.calibrated_threshold(TUNING[:, 0], nobody)).any()
    assert (TUNING[:, 0] > attributes.calibrated_threshold(TUNING[:, 0], ~nobody)).all()


@pytest.mark.parametrize("threshold", ["zero", "calibrated"])
def test_rare_values_interdependence_and_amplification(threshold):
    predicted = predictions(threshold)
    for i in EACH:
        rare = bool(TRAIN[:, i].mean() <= 0.5)
        value = attributes.rare_value_ratio(predicted[:, i], TEST[:, i], rare=rare)
        assert value == pytest.approx(GOLDEN[f"{threshold}.rare_val_underpredict"][i])
    np.testing.assert_allclose(
        attributes.interdependence(predicted), GOLDEN[f"{threshold}.interdependence"], rtol=1e-6
    )
    for number, other in enumerate(GOLDEN["identity"]):
        for i in EACH:
            among = TRAIN[TRAIN[:, other], i].mean()
            apart = TRAIN[~TRAIN[:, other], i].mean()
            value = attributes.bias_amplification(
                predicted[:, i], TEST[:, i], TEST[:, other], Training(among, apart)
            )
            amplified = GOLDEN[f"{threshold}.bias_amplification"][number, i]
            if i != other:  # an attribute goes with itself: they leave it out by name
                assert value == pytest.approx(amplified, nan_ok=True)


def test_what_is_not_defined_is_nan_and_nothing_overflows():
    z = np.array([-1e5, 1e5, 0.0], np.float32)
    np.testing.assert_array_equal(attributes.probability(z), [0, 1, 0.5])
    yes = np.ones(40, bool)
    assert np.isnan(attributes.interdependence(np.column_stack([yes, yes]))).all()
    assert np.isnan(attributes.rare_value_ratio(yes, yes, rare=False))
    half = np.arange(40) < 20
    some = Training(0.6, 0.2)
    assert np.isnan(attributes.bias_amplification(~yes, yes, half, some))
    assert np.isnan(attributes.bias_amplification(yes, half, half, some))
    assert np.isnan(attributes.bias_amplification(yes, yes, half, Training(0.5, 0.48)))
    assert attributes.bias_amplification(half, yes, half, some) == 0.5
    assert attributes.bias_amplification(half, yes, half, Training(0.0, 0.2)) == -0.5


def test_the_last_bin_has_its_upper_end():
    certain = np.array([100.0, np.log(19)])  # 1 and 0.95
    error = attributes.calibration_error(certain, np.array([False, True]))
    assert error == pytest.approx(abs(1 - 0.05) / 2)


@pytest.mark.parametrize("yes", [1, 39])
def test_an_attribute_that_hardly_varies_may_follow_from_another(yes):
    one = np.arange(40) < yes
    np.testing.assert_allclose(attributes.interdependence(np.column_stack([one, ~one])), [1, 1])


@pytest.mark.parametrize("turned", [False, True])
def test_ten_with_and_ten_without_are_enough(turned):
    yes, some = np.ones(30, bool), Training(0.6, 0.2)
    for count, known in ((9, False), (10, True), (20, True), (21, False)):
        identity = (np.arange(30) < count) ^ turned
        value = attributes.bias_amplification(yes, yes, identity, some)
        assert value == 0 if known else np.isnan(value)


def test_what_is_a_stereotype():
    assert Training(0.55, 0.5).is_stereotype is Training(0.5, 0.55).is_stereotype is True
    assert not Training(0.54, 0.5).is_stereotype
    assert Training(0.6875, 0.625).is_stereotype  # a tenth, exactly
    assert Training(0.001, 0.0).is_stereotype
    assert not Training(0.0, 0.0).is_stereotype
    assert Training(0.2, 0.1).goes_with
    assert not Training(0.1, 0.2).goes_with
    assert not Training(0.1, 0.1).goes_with
