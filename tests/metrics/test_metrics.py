"""Metrics against the paper's printed tables, closed forms and plain counting."""

import json

import numpy as np
import pytest

from fairgrape_jax import metrics
from fairgrape_jax.metrics.bias import relative_changes
from tests.helpers.datasets import GOLDEN_FILES
from tests.helpers.made_predictions import predictions

GOLDEN = GOLDEN_FILES

# FairGRAPE, Table 2: accuracies of the groups as printed, then rho(A) and rho(Delta) as printed.
# The first row of each block is the unpruned network.
TABLE_2 = {
    "FairFace gender by gender": [
        ("No-pruning", [94.7, 94.5], 0.14, None),
        ("Lottery", [86.4, 85.2], 0.80, 0.65),
        ("SNIP", [91.0, 89.9], 0.78, 0.63),
        ("WS", [84.3, 83.4], 0.62, 0.47),
        ("GraSP", [88.4, 87.4], 0.75, 0.60),
        ("FairGRAPE", [91.3, 91.0], 0.20, 0.05),
    ],
    "FairFace gender by race": [
        ("No-pruning", [94.6, 90.5, 95.9, 94.7, 94.4, 96.3, 95.6], 1.93, None),
        ("Lottery", [85.1, 80.8, 88.4, 84.0, 85.5, 88.1, 89.6], 3.01, 1.55),
        ("SNIP", [91.0, 85.2, 92.6, 90.0, 90.5, 91.3, 92.6], 2.53, 0.93),
        ("WS", [82.9, 78.9, 87.2, 82.2, 82.2, 86.2, 88.3], 3.32, 2.00),
        ("GraSP", [87.5, 83.1, 89.6, 87.5, 88.0, 89.4, 90.9], 2.49, 0.93),
        ("FairGRAPE", [90.4, 85.4, 92.3, 90.1, 90.5, 91.9, 92.8], 2.47, 0.77),
    ],
    "FairFace race by gender": [
        ("No-pruning", [71.2, 72.9], 1.23, None),
        ("Lottery", [55.3, 59.1], 2.64, 1.42),
        ("SNIP", [60.4, 64.3], 2.78, 1.55),
        ("WS", [47.3, 48.5], 0.86, 0.36),
        ("GraSP", [56.0, 60.1], 2.88, 1.55),
        ("FairGRAPE", [65.3, 68.6], 2.35, 1.12),
    ],
    "FairFace race by race": [
        ("No-pruning", [73.9, 83.2, 59.6, 77.6, 66.9, 75.4, 66.2], 8.02, None),
        ("Lottery", [69.7, 78.8, 33.0, 74.1, 43.5, 61.7, 30.4], 20.0, 12.9),
        ("SNIP", [74.1, 80.8, 44.5, 73.7, 53.7, 66.0, 34.8], 17.1, 10.7),
        ("WS", [64.7, 77.9, 8.61, 78.3, 31.1, 37.8, 30.0], 26.9, 19.9),
        ("GraSP", [69.6, 77.3, 38.6, 72.0, 47.0, 62.1, 30.7], 18.0, 11.3),
        ("FairGRAPE", [72.2, 80.3, 47.5, 75.8, 56.3, 70.2, 48.6], 13.4, 6.13),
    ],
    "UTKFace gender by gender": [
        ("No-pruning", [92.4, 94.8], 1.68, None),
        ("Lottery", [83.7, 83.3], 0.34, 2.01),
        ("SNIP", [91.3, 90.6], 0.45, 2.19),
        ("WS", [81.4, 82.6], 0.89, 1.79),
        ("GraSP", [88.5, 84.9], 2.51, 4.20),
        ("FairGRAPE", [92.0, 92.5], 0.31, 1.36),
    ],
    "UTKFace gender by race": [
        ("No-pruning", [94.1, 95.1, 89.6, 93.7], 2.45, None),
        ("Lottery", [84.7, 85.8, 75.0, 85.2], 5.15, 2.79),
        ("SNIP", [91.9, 93.0, 86.0, 90.9], 3.08, 0.67),
        ("WS", [82.1, 84.9, 77.2, 82.4], 3.20, 0.92),
        ("GraSP", [86.7, 89.8, 81.4, 88.3], 3.66, 1.43),
        ("FairGRAPE", [92.7, 94.0, 87.9, 91.3], 2.61, 0.56),
    ],
    "UTKFace race by gender": [
        ("No-pruning", [90.6, 90.9], 0.24, None),
        ("Lottery", [69.4, 74.2], 3.41, 3.17),
        ("SNIP", [85.7, 88.0], 1.64, 1.40),
        ("WS", [68.3, 73.5], 3.68, 3.41),
        ("GraSP", [76.4, 79.1], 1.94, 1.70),
        ("FairGRAPE", [88.2, 89.3], 0.78, 0.54),
    ],
    "UTKFace race by race": [
        ("No-pruning", [92.2, 92.5, 93.3, 83.3], 4.69, None),
        ("Lottery", [83.8, 80.3, 61.0, 42.7], 19.0, 15.6),
        ("SNIP", [91.6, 92.5, 85.8, 70.1], 10.4, 6.28),
        ("WS", [82.7, 80.8, 59.2, 41.4], 19.6, 16.2),
        ("GraSP", [86.1, 83.3, 72.2, 56.4], 13.5, 9.81),
        ("FairGRAPE", [90.6, 92.2, 88.9, 79.0], 5.93, 2.04),
    ],
}
# Where the paper's rho(Delta) is not that of its own accuracies, and what those give.
CONTRADICTIONS = {
    ("FairFace race by gender", "GraSP"): 1.70,
    ("UTKFace gender by gender", "WS"): 0.85,
}


def counts_for(accuracies):
    """Confusion counts of 1,000 samples per group and point that have these accuracies."""
    right = np.rint(np.array(accuracies) * 1000).astype(int)
    return [metrics.from_confusion(np.stack([[[r, 100_000 - r], [0, 0]] for r in right]))]


@pytest.mark.parametrize("block", TABLE_2)
def test_rho_columns_of_table_2_follow_from_its_accuracies(block):
    dense = counts_for(TABLE_2[block][0][1])
    for method, accuracies, rho_a, rho_d in TABLE_2[block]:
        counts = counts_for(accuracies)
        # Accuracies are rounded to 0.1 (0.05 each way), the three-digit rho to 0.1 as well.
        rounding = 0.05 if rho_a >= 10 else 0.0
        assert metrics.rho_accuracy(counts) == pytest.approx(rho_a, abs=0.075 + rounding), method
        if rho_d is None:
            continue
        rounding = 0.05 if rho_d >= 10 else 0.0
        ours = metrics.rho_change(counts, dense)
        if (block, method) in CONTRADICTIONS:
            assert ours == pytest.approx(CONTRADICTIONS[block, method], abs=0.005)
            assert abs(ours - rho_d) > 0.14
        else:
            assert ours == pytest.approx(rho_d, abs=0.145 + rounding), method


def test_counts_and_accuracies_are_those_of_plain_counting():
    labels, predicted, ids, groups, classes = predictions()
    counts = metrics.tally(labels, predicted, ids, groups, classes)
    assert [table.dtype for table in counts] == [np.int64, np.int64]
    mine, label, said = ids == 2, labels[:, 1] == 3, predicted[:, 1] == 3
    expected = [np.sum(mine & label & said), np.sum(mine & label), np.sum(mine & said)]
    assert counts[1][2, 3].tolist() == expected
    right = labels == predicted
    assert metrics.accuracy(counts) == pytest.approx(100 * right.mean())
    per_group = [100 * right[ids == k].mean() for k in range(groups)]
    np.testing.assert_allclose(metrics.group_accuracy(counts), per_group)
    assert metrics.worst_group(counts) == pytest.approx(min(per_group))
    assert metrics.gap(counts) == pytest.approx(max(per_group) - min(per_group))


def test_error_rates_of_two_classes_are_those_of_the_positive_one():
    counts = [metrics.from_confusion(np.array([[[90, 10], [30, 70]], [[50, 0], [0, 0]]]))]
    assert metrics.fpr(counts) == pytest.approx(100 * 10 / 150)
    assert metrics.fnr(counts) == pytest.approx(30)
    np.testing.assert_allclose(metrics.group_fpr(counts), [10, 0])
    np.testing.assert_allclose(metrics.group_fnr(counts), [30, np.nan])


def test_rates_without_a_denominator_are_null_in_json():
    counts = [metrics.from_confusion(np.array([[[90, 10], [30, 70]], [[50, 0], [0, 0]]]))]
    values = metrics.evaluate_all(counts, counts)
    assert values["group_fnr"] == [30.0, None]
    assert json.loads(json.dumps(values, allow_nan=False)) == values


def test_error_rates_of_many_classes_are_means_over_those_that_occur():
    table = metrics.from_confusion(np.array([[[8, 2, 0], [1, 9, 0], [0, 0, 0]]]))
    np.testing.assert_allclose(metrics.group_fnr([table]), [(20 + 10) / 2])
    np.testing.assert_allclose(metrics.group_fpr([table]), [(10 + 20 + 0) / 3])


@pytest.mark.parametrize("name", metrics.METRICS)
def test_every_metric_is_finite_unchanged_by_scale_and_zero_change_against_itself(name):
    labels, predicted, ids, groups, classes = predictions()
    counts = metrics.tally(labels, predicted, ids, groups, classes)
    metric = metrics.METRICS[name]
    value = np.asarray(metric(counts, counts))
    assert value.shape == ((groups,) if name.startswith("group_") else ())
    assert np.isfinite(value).all()
    twice = [2 * table for table in counts]
    np.testing.assert_allclose(metric(twice, twice), value)
    if any(word in name for word in ("change", "cev", "sde", "excess", "pairwise")):
        np.testing.assert_array_equal(value, 0)
    perfect = metrics.tally(labels, labels, ids, groups, classes)
    np.testing.assert_allclose(metric(perfect, perfect), best(name, groups, classes), atol=1e-12)


def best(name, groups, classes):
    """The value of a metric for a perfect model, against itself."""
    if "cev" in name or "sde" in name:
        return np.nan  # no base rate to compare with, and that is counted:
    if name.startswith("intensification"):
        return np.nan  # nothing was uneven
    if name == "classes_excluded":
        return sum(classes)
    if name == "groups_excluded":
        return groups
    if name == "demographic_parity_difference":
        labels, _, ids, *_ = predictions()
        share = [
            [[np.mean(labels[ids == k, t] == c) for c in range(size)] for k in range(groups)]
            for t, size in enumerate(classes)
        ]
        return np.mean([100 * np.ptp(rates, axis=0).max() for rates in share])
    hits = ("accuracy", "group_accuracy", "worst_group", "ratio", "f1", "group_f1")
    return 100.0 if name in hits else 0.0


@pytest.mark.parametrize("name", metrics.METRICS)
def test_every_metric_works_on_many_models_and_resamplings_at_once(name):
    tables = []
    for seed in range(6):
        labels, predicted, ids, groups, classes = predictions(seed, n=90)
        tables.append(metrics.tally(labels, predicted, ids, groups, classes))
    whole = [np.stack(task).reshape(2, 3, *task[0].shape) for task in zip(*tables, strict=True)]
    other = [np.roll(task, 1, axis=1) for task in whole]
    together = metrics.METRICS[name](whole, other)
    for i, j in np.ndindex(2, 3):
        one = metrics.METRICS[name]([t[i, j] for t in whole], [t[i, j] for t in other])
        np.testing.assert_allclose(together[i, j], one, rtol=1e-12)


# What the notebook of Simon Says prints, CEV and SDE of ten ways to train (papers.md, 2.3).
PRINTED = {
    "struct": ("4237.4", "51.15"),
    "fsp": ("2901.9", "43.17"),
    "sp": ("2654.8", "41.38"),
    "pkt": ("2190.7", "38.12"),
    "at": ("1955.9", "37.00"),
    "kd": ("1536.6", "30.79"),
    "fsp_kd": ("1518.5", "30.67"),
    "sp_kd": ("1506.1", "30.97"),
    "pkt_kd": ("903.3", "25.10"),
    "at_kd": ("851.7", "25.25"),
}


@pytest.mark.parametrize("name", PRINTED)
def test_cev_and_sde_are_those_that_simon_says_prints(name):
    with np.load(GOLDEN / "simon_says_confusions.npz") as golden:
        matrices = golden[f"{name}.confusions"][:, None].astype(np.int64)  # (4, G = 1, C, C)
        models = metrics.from_confusion(matrices)
        teacher = metrics.from_confusion(golden["teacher_confusion"].astype(np.int64))
        dense = np.broadcast_to(teacher, models.shape)
        exact = golden[f"{name}.cev_sde"]
    found = [
        metrics.set_statistic(metric)([models], [dense])
        for metric in ("cev_classes", "sde_classes")
    ]
    assert (f"{found[0]:.1f}", f"{found[1]:.2f}") == PRINTED[name]
    np.testing.assert_allclose(found, exact, rtol=1e-9)
    changes = metrics.class_changes([models.sum(axis=0)], [dense.sum(axis=0)])[0]
    assert metrics.cev(changes, "measure-twice") == pytest.approx(exact[0] / 5000)
    assert metrics.sde(changes, "measure-twice") == pytest.approx(exact[1] / 100 * np.sqrt(2))
    assert metrics.set_statistic("classes_excluded")([models], [dense]) == 0


def test_a_class_whose_base_rate_is_zero_is_excluded_and_counted():
    dense = [
        metrics.from_confusion(np.array([[[8, 2, 0], [1, 9, 0], [1, 0, 9]]]))
    ]  # class 2 is never a false positive
    after = [metrics.from_confusion(np.array([[[6, 3, 1], [2, 8, 0], [3, 0, 7]]]))]
    changes = metrics.class_changes(after, dense)[0]
    np.testing.assert_array_equal(np.isnan(changes).all(axis=1), [False, False, True])
    assert metrics.classes_excluded(after, dense) == 1
    # By hand: class 0 has FPR 2/20 -> 5/20, FNR 2/10 -> 4/10; class 1 FPR 2/20 -> 3/20, FNR 1 -> 2.
    points = np.array([[1.5, 1.0], [0.5, 1.0]])
    np.testing.assert_allclose(changes[:2], points)
    assert metrics.cev_classes(after, dense) == pytest.approx(1e4 / 2 * 0.25)
    assert metrics.sde_classes(after, dense) == pytest.approx(100 * 0.5 / np.sqrt(2))
    with pytest.raises(ValueError, match="'simon' is neither"):
        metrics.cev(changes, "simon")


def test_a_change_is_unknown_where_either_rate_is_and_in_every_axis_alike():
    nan = np.nan
    rates = np.array([[3, 8], [nan, 8], [3, 8], [3, 8], [0, 8], [3, nan]])
    base = np.array([[2, 4], [2, 4], [nan, 4], [2, 0], [2, 4], [2, 4]])
    expected = np.array([[0.5, 1], [nan, nan], [nan, nan], [nan, nan], [-1, 1], [nan, nan]])
    np.testing.assert_array_equal(relative_changes(rates, base), expected)
    for shape in ((2, 3, 2), (3, 2, 1, 2), (1, 6, 2)):
        many = relative_changes(rates.reshape(shape), base.reshape(shape))
        np.testing.assert_array_equal(many, expected.reshape(shape))


def test_what_is_left_out_is_counted_of_each_model():
    """A group without samples of class 1 has no FNR, and a model without errors no base rate."""
    rng = np.random.default_rng(3)
    tables = [metrics.from_confusion(rng.integers(1, 9, (2, 3, 4, 2, 2)))]  # models, groups
    base = [tables[0] + metrics.from_confusion(rng.integers(1, 9, (2, 3, 4, 2, 2)))]
    missing = np.array([[1, 0, 2], [0, 4, 3]])
    for place in np.ndindex(2, 3):
        base[0][place][: missing[place]] = metrics.from_confusion(np.array([[9, 3], [0, 0]]))
    found = metrics.groups_excluded(tables, base)
    np.testing.assert_array_equal(found, missing)
    for place in np.ndindex(2, 3):
        one = metrics.groups_excluded([tables[0][place]], [base[0][place]])
        assert one == missing[place]
    with pytest.raises(ValueError, match=r"zip\(\)"):
        metrics.class_changes(tables * 2, base)


def test_rates_agree_with_fairlearn():
    from fairlearn import metrics as fairlearn

    labels, predicted, ids, groups, _ = predictions(n=400, classes=(2,))
    counts = metrics.tally(labels, predicted, ids, groups, [2])
    y, p = labels[:, 0], predicted[:, 0]
    wanted = {
        "accuracy": lambda y, p: np.mean(y == p),
        "fpr": fairlearn.false_positive_rate,
        "fnr": fairlearn.false_negative_rate,
    }
    frame = fairlearn.MetricFrame(metrics=wanted, y_true=y, y_pred=p, sensitive_features=ids)
    for name in wanted:
        np.testing.assert_allclose(
            metrics.METRICS[f"group_{name}"](counts, counts), 100 * frame.by_group[name].to_numpy()
        )
        overall = metrics.METRICS[name](counts, counts)
        assert overall == pytest.approx(100 * frame.overall[name])
    assert metrics.gap(counts) == pytest.approx(100 * frame.difference()["accuracy"])
    assert metrics.ratio(counts) == pytest.approx(100 * frame.ratio()["accuracy"])
    assert metrics.worst_group(counts) == pytest.approx(100 * frame.group_min()["accuracy"])
    for name in ("demographic_parity_difference", "equalized_odds_difference"):
        theirs = getattr(fairlearn, name)(y, p, sensitive_features=ids)
        assert metrics.METRICS[name](counts, counts) == pytest.approx(100 * theirs)


def test_a_statistic_of_several_models_is_a_mean_or_of_the_mean_rates():
    models, other = (
        [
            np.stack(tables)
            for tables in zip(*(metrics.tally(*predictions(s)) for s in seeds), strict=True)
        ]
        for seeds in ((0, 1, 2), (3, 4, 5))
    )
    for name, metric in metrics.METRICS.items():
        found = metrics.set_statistic(name)(models, other)
        one_by_one = [
            metric([t[i] for t in models], [t[i] for t in other]) for i in range(len(models[0]))
        ]
        summed = metric([t.sum(axis=0) for t in models], [t.sum(axis=0) for t in other])
        relative = name.startswith(("cev", "sde", "classes_excluded", "groups_excluded"))
        expected = summed if relative else np.mean(one_by_one, axis=0)
        np.testing.assert_allclose(found, expected, rtol=1e-12, err_msg=name)
        scale = {"cev": 5000, "sde": 100 / np.sqrt(2)}.get(name.partition("_")[0])
        plain = metrics.set_statistic(name, "measure-twice")(models, other)
        np.testing.assert_allclose(plain, expected / (scale or 1), rtol=1e-12, err_msg=name)
