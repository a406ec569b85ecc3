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
