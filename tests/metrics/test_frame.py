"""Metrics by group from columns of any library: beside fairlearn, missing groups, intervals."""

import itertools

import fairlearn.metrics as fairlearn
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import fairgrape_jax as fg
from fairgrape_jax import metrics
from fairgrape_jax.metrics import columns, extremes

GROUPS = ["a", "b", "c", "d"]
rng = np.random.default_rng(0)


def drawn(n=400, classes=2, seed=0):
    """Labels, predictions that are worst for "b", a dense model's, and groups; some in none."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    groups = rng.choice([*GROUPS, ""], n)
    right = rng.random((2, n)) < np.where(groups == "b", 0.65, 0.85)
    others = (labels + rng.integers(1, classes, n)) % classes
    predictions, dense = np.where(right, labels, others)
    return labels, predictions, groups, dense


def percent(value):
    return pytest.approx(100 * value, nan_ok=True)


@pytest.mark.parametrize("frame", [pd.DataFrame, pl.DataFrame], ids=["pandas", "polars"])
@pytest.mark.parametrize("seed", range(4))
def test_two_classes_are_as_fairlearn_has_them(frame, seed):
    y, p, g, _ = drawn(120, seed=seed)
    table = frame({"y": y, "p": p, "g": g})
    ours = fg.group_metrics(table["y"], table["p"], table["g"], replicates=10)
    inside = g != ""
    rates = {
        "accuracy": lambda y, p: np.mean(y == p),
        "selection_rate": fairlearn.selection_rate,
        "fpr": fairlearn.false_positive_rate,
        "fnr": fairlearn.false_negative_rate,
    }
    theirs = fairlearn.MetricFrame(
        metrics=rates, y_true=y[inside], y_pred=p[inside], sensitive_features=g[inside]
    )
    for name, rate in rates.items():
        for group in ours.groups:
            assert ours.by_group[group][name].value == percent(theirs.by_group[name][group])
        assert ours.overall[name].value == percent(rate(y, p))  # those of no group too
        assert ours.difference()[name].value == percent(theirs.difference()[name])
        assert ours.ratio()[name].value == percent(theirs.ratio()[name])
    assert ours.worst.value == percent(theirs.group_min()["accuracy"])
    assert ours.worst.group == theirs.by_group["accuracy"].astype(float).idxmin()
    for name in (
        "demographic_parity_difference",
        "demographic_parity_ratio",
        "equalized_odds_difference",
        "equalized_odds_ratio",
    ):
        value = getattr(fairlearn, name)(y[inside], p[inside], sensitive_features=g[inside])
        assert ours.parity[name].value == percent(value), name


@pytest.mark.parametrize("classes", [3, 7])
def test_more_classes_are_as_the_metrics_of_a_report(classes):
    y, p, g, _ = drawn(600, classes)
    ours = fg.group_metrics(y, p, g, replicates=10)
    codes = np.array([GROUPS.index(x) if x else -1 for x in g])
    counts = metrics.tally(y[:, None], p[:, None], codes, len(GROUPS), [classes])
    grouped = [table[: len(GROUPS)] for table in counts]
    for name in ("accuracy", "fpr", "fnr", "f1"):
        assert ours.overall[name].value == pytest.approx(metrics.METRICS[name](counts, counts))
        by_group = metrics.METRICS[f"group_{name}"](grouped, grouped)
        np.testing.assert_allclose([ours.by_group[k][name].value for k in GROUPS], by_group)
    for name in ("demographic_parity_difference", "equalized_odds_difference"):
        assert ours.parity[name].value == pytest.approx(metrics.METRICS[name](grouped, grouped))
    assert "selection_rate" not in ours.overall


# -- columns of any library -----------------------------------------------------------------------
def jax_or_words(values):
    return jnp.asarray(values) if values.dtype.kind in "iuf" else values.tolist()


LIBRARIES = {
    "list": lambda values: values.tolist(),
    "numpy": np.asarray,
    "column": lambda values: values[:, None],
    "objects": lambda values: values.astype(object),
    "read-only": lambda values: np.frombuffer(values.tobytes(), values.dtype),
    "strided": lambda values: np.stack([values, values], axis=1)[:, 0],
    "big-endian": lambda values: values.astype(values.dtype.newbyteorder(">")),
    "jax": jax_or_words,
    "pandas": pd.Series,
    "pandas categories": lambda values: pd.Series(values).astype("category"),
    "pandas Arrow": lambda values: pd.Series(pa.array(values.tolist()).to_pandas()),
    "pandas frame": lambda values: pd.DataFrame({"x": values}),
    "polars": pl.Series,
    "polars categories": lambda values: (
        pl.Series(values, dtype=pl.Categorical) if values.dtype.kind == "U" else pl.Series(values)
    ),
    "polars frame": lambda values: pl.DataFrame({"x": values}),
    "pyarrow": lambda values: pa.array(values.tolist()),
    "pyarrow chunks": lambda values: pa.chunked_array([values[:9].tolist(), values[9:].tolist()]),
    "pyarrow dictionary": lambda values: pa.array(values.tolist()).dictionary_encode(),
    "pyarrow table": lambda values: pa.table({"x": values.tolist()}),
    "mapping": lambda values: {"x": values},
}


@pytest.mark.parametrize("kind", [np.int64, np.uint8, np.float32, np.float16, bool, str, bytes])
@pytest.mark.parametrize("library", LIBRARIES)
def test_every_kind_of_column_gives_the_same(library, kind):
    y, p, g, _ = drawn(60)
    groups = np.array([[*GROUPS, ""].index(x) for x in g])
    convert = LIBRARIES[library]
    if kind is bytes and library in ("pandas categories", "polars categories"):
        pytest.skip("no categories of bytes")
    if kind is np.float16 and library == "pandas categories":
        pytest.skip("no categories of half floats")
    values = [convert(column.astype(kind)) for column in (y, p)]
    ours = fg.group_metrics(*values, convert(groups.astype(np.int16)), replicates=5)
    expected = fg.group_metrics(y, p, groups, replicates=5)
    assert ours.counts == expected.counts
    assert ours.by_group == expected.by_group
    assert ours.classes == (("0", "1") if kind in (str, bytes) else (0, 1)), ours.classes
    words = fg.group_metrics(*values, convert(g), replicates=5)
    assert words.ungrouped == (g == "").sum()
    assert words.groups == tuple(GROUPS)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float8_e4m3fn, np.longdouble])
def test_other_floats_are_numbers(dtype):
    y, p, g, _ = drawn(60)
    ours = fg.group_metrics(y.astype(dtype), jnp.asarray(p), g, replicates=5)
    assert ours.by_group == fg.group_metrics(y, p, g, replicates=5).by_group


MISSING = {
    "NaN": lambda codes: np.where(codes < 0, np.nan, codes),
    "negative": lambda codes: codes,
    "negative float": lambda codes: codes.astype(np.float32),
    "list with None": lambda codes: [None if x < 0 else x for x in codes.tolist()],
    "words with None": lambda codes: [None if x < 0 else f"g{x}" for x in codes.tolist()],
    "empty words": lambda codes: ["" if x < 0 else f"g{x}" for x in codes.tolist()],
    "words with NaN": lambda codes: np.array([np.nan if x < 0 else f"g{x}" for x in codes], "O"),
    "pandas Int64": lambda codes: pd.Series(codes, dtype="Int64").where(pd.Series(codes >= 0)),
    "pandas words": lambda codes: pd.Series([None if x < 0 else f"g{x}" for x in codes]),
    "pandas categories": lambda codes: pd.Series(
        [None if x < 0 else f"g{x}" for x in codes]
    ).astype("category"),
    "polars": lambda codes: pl.Series([None if x < 0 else x for x in codes.tolist()]),
    "polars words": lambda codes: pl.Series([None if x < 0 else f"g{x}" for x in codes.tolist()]),
    "pyarrow": lambda codes: pa.array([None if x < 0 else x for x in codes.tolist()]),
    "pyarrow table": lambda codes: pa.table({"g": [None if x < 0 else x for x in codes.tolist()]}),
}


@pytest.mark.parametrize("kind", MISSING)
def test_samples_of_no_group_count_overall_and_are_counted(kind):
    y, p, _, _ = drawn(90)
    codes = rng.integers(-1, 3, 90)
    ours = fg.group_metrics(y, p, MISSING[kind](codes), replicates=20)
    assert ours.ungrouped == (codes < 0).sum()
    assert list(ours.counts.values()) == np.bincount(codes[codes >= 0]).tolist()
    assert ours.overall["accuracy"].value == pytest.approx(100 * (y == p).mean())
    for k, group in enumerate(ours.groups):
        hits = (y == p)[codes == k]
        assert ours.by_group[group]["accuracy"].value == pytest.approx(100 * hits.mean())
    assert [str(group).removeprefix("g").removesuffix(".0") for group in ours.groups] == [*"012"]


def test_whole_numbers_beside_missing_ones_stay_exact():
    large = 2**53 + 1
    for make in (pl.Series, pa.array, list):
        ours = fg.group_metrics([1, 0, 1], [1, 0, 0], make([large, None, large - 1]))
        assert ours.groups == (large - 1, large)


def test_words_are_in_the_order_of_an_audit():
    ours = fg.group_metrics(["9", "10"] * 2, ["9", "10"] * 2, ["x10", "x9"] * 2)
    assert (ours.classes, ours.groups) == (("9", "10"), ("x9", "x10"))
    assert fg.group_metrics([0, 1], [1, 1], [0, 0], positive=0).classes == (1, 0)
    assert fg.group_metrics([0, 1], [1, 1], [0, 0], positive=0).overall["fnr"].value == 100


@pytest.mark.parametrize(
    ("message", "change"),
    [
        (r"labels, predictions, groups: \{.*: 3", {"groups": ["a"] * 3}),
        ("give as many of each", {"labels": [], "predictions": [], "groups": []}),
        ("predictions: 1 samples have none", {"predictions": [0, 1, None, 1]}),
        ("labels: 1 samples have none", {"labels": [0.0, 1, np.nan, 1]}),
        ("labels: 2 samples have none", {"labels": ["a", "", "", "b"]}),
        ("are of several kinds", {"predictions": ["0", "1", "0", "1"]}),
        ("labels: values of several kinds, int and str", {"labels": [0, "a", 1, "b"]}),
        ("labels: 1 samples have none", {"labels": pd.Series([0, 1, pd.NA, 1], dtype="Int64")}),
        ("no sample is in a group", {"groups": [-1] * 4}),
        ("no sample is in a group", {"groups": [None] * 4}),
        (r"labels: \(2, 2\); one value for each", {"labels": np.zeros((2, 2))}),
        (r"labels: \(\); one value", {"labels": "word"}),
        ("groups: a frame of 2 columns", {"groups": pd.DataFrame({"a": [0] * 4, "b": [0] * 4})}),
        ("two columns of one name", {"groups": pd.DataFrame([[0, 0]] * 4, columns=["a", "a"])}),
        ("dense: 4 samples have none", {"dense": [None] * 4}),
        ("positive: 2 is not one of two", {"positive": 2}),
        ("replicates: 0", {"replicates": 0}),
        ("level: 95", {"level": 95}),
        ("level: 0 is", {"level": 0}),
        ("level: 1 is", {"level": 1}),
    ],
)
def test_bad_input_is_named(message, change):
    columns = {"labels": [0, 1, 0, 1], "predictions": [0, 1, 1, 1], "groups": ["a", "a", "b", "b"]}
    with pytest.raises(ValueError, match=message):
        fg.group_metrics(**columns | change)


def test_jax_arrays_are_moved_explicitly():
    y, p, g = (jnp.asarray(x) for x in ([0, 1, 1], [0, 1, 0], [0, 0, 1]))
    with jax.transfer_guard("disallow"):
        assert fg.group_metrics(y, p, g, replicates=5).worst.group == 1


# -- intervals ------------------------------------------------------------------------------------
def test_changes_are_paired():
    """A model beside itself has changed nothing; beside another the interval is narrower."""
    y, p, g, _ = drawn(500)
    same = fg.group_metrics(y, p, g, dense=p, replicates=50)
    assert set(itertools.chain(*(c.values() for c in same.changes.values()))) == {(0.0, 0.0, 0.0)}
    nearly = np.where(np.arange(500) % 50 == 0, 1 - p, p)
    result = fg.group_metrics(y, nearly, g, dense=p, replicates=300)
    for change, alone in ((result.changes[k], result.by_group[k]) for k in GROUPS):
        width = change["accuracy"].high - change["accuracy"].low
        assert width < 0.8 * (alone["accuracy"].high - alone["accuracy"].low)
    before = fg.group_metrics(y, p, g, replicates=5)
    assert result.overall_changes["accuracy"].value == pytest.approx(
        result.overall["accuracy"].value - before.overall["accuracy"].value
    )
    changes = [result.changes[k]["accuracy"].value for k in GROUPS]
    assert result.difference("changes")["accuracy"].value == pytest.approx(np.ptp(changes))
    with pytest.raises(ValueError, match="give dense="):
        before.difference("changes")


def test_two_groups_have_the_percentile_interval_of_their_difference():
    y, p, g, _ = drawn(300)
    g = np.where(g == "b", "b", "a")
    result = fg.group_metrics(y, p, g, replicates=400, level=0.9)
    a, b = (result.draws["by_group"][:, 0, k] for k in (0, 1))
    low, high = np.percentile(a - b, [5, 95])
    assert result.difference()["accuracy"][1:] == (
        pytest.approx(low),
        pytest.approx(high),
        "a",
        "b",
    )
    low, high = np.percentile(100 * b / a, [5, 95])
    assert result.ratio()["accuracy"][1:3] == (pytest.approx(low), pytest.approx(high))


def test_an_extreme_that_was_picked_has_a_wider_interval():
    """Where no group differs, that of the largest difference of seven seldom leaves out 0."""
    wrong = corrected = worst = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        hits = rng.random(700) < 0.8
        result = fg.group_metrics(
            np.ones(700, int), hits.astype(int), np.arange(700) % 7, replicates=200, seed=seed
        )
        spread = result.difference()["accuracy"]
        draws = result.draws["by_group"][:, 0]
        raw = np.percentile(draws[:, spread.largest] - draws[:, spread.smallest], [2.5, 97.5])
        wrong += raw[0] > 0
        corrected += spread.low > 0
        worst += result.worst.high < 80
        mean, error = draws.mean(axis=0), draws.std(axis=0, ddof=1)
        deviations = (draws - mean)[:, :, None] - (draws - mean)[:, None, :]
        errors = (draws[:, :, None] - draws[:, None, :]).std(axis=0, ddof=1)
        np.fill_diagonal(errors, np.inf)
        factor = np.quantile(np.abs(deviations / errors).max(axis=(1, 2)), 0.95)
        reach = factor * errors[spread.largest, spread.smallest]
        assert spread.high - spread.value == pytest.approx(reach)
        low = (
            result.worst.value
            - np.quantile(np.abs((draws - mean) / error).max(axis=1), 0.95)
            * error[place_of_worst(result)]
        )
        assert result.worst.low == pytest.approx(low)
    assert wrong > 20
    assert corrected <= 6
    assert worst <= 6


def place_of_worst(result):
    return result.groups.index(result.worst.group)


def test_rates_that_are_undefined_take_no_part():
    """Group 2 has no positive: no FNR; group 3 is alone with one sample."""
    labels, groups = [1, 1, 0, 0, 1, 0, 0, 0, 1], [0, 0, 0, 0, 1, 1, 2, 2, 3]
    result = fg.group_metrics(labels, [1, 0, 0, 0, 1, 1, 0, 1, 1], groups, replicates=50)
    assert np.isnan(result.by_group[2]["fnr"].value)
    spread = result.difference()["fnr"]
    assert (spread.value, spread.largest, spread.smallest) == (50.0, 0, 1)
    everyone = fg.group_metrics([1, 0], [1, 0], [5, 5])
    spread = everyone.difference()["accuracy"]
    assert np.isnan(spread.value)
    assert (spread.largest, spread.smallest) == (None, None)
    assert everyone.worst[:2] == (5, 100.0)


def test_the_ratio_to_nothing_is_undefined():
    values, draws = np.array([[0.0, 0.0]]), np.zeros((5, 1, 2))
    assert np.isnan(extremes.between(values, draws, "ratio").value)
    assert extremes.between(values, draws).value == 0


def test_too_many_to_resample_have_values_alone(monkeypatch):
    y, p, g, _ = drawn(100, classes=5)
    whole = fg.group_metrics(y, p, g, replicates=10).parity
    monkeypatch.setattr("fairgrape_jax.metrics.frame.LARGEST", 100)
    for name, spread in fg.group_metrics(y, p, g, replicates=10).parity.items():
        assert spread.value == whole[name].value
        assert np.isnan(spread.low)
        assert np.isnan(spread.high)
    # 3 rates of 5 classes in 4 groups, 10 times
    monkeypatch.setattr("fairgrape_jax.metrics.frame.LARGEST", 600)
    assert fg.group_metrics(y, p, g, replicates=10).parity == whole
    monkeypatch.setattr("fairgrape_jax.metrics.frame.LARGEST", 599)
    assert np.isnan(fg.group_metrics(y, p, g, replicates=10).parity["equalized_odds_ratio"].low)


def test_the_rows_make_a_data_frame():
    y, p, g, _ = drawn(100)
    result = fg.group_metrics(y, p, g, replicates=10)
    for table in (pd.DataFrame(result.rows()), pl.DataFrame(result.rows())):
        assert list(table["group"]) == GROUPS
        assert list(table["samples"]) == [result.counts[k] for k in GROUPS]
        assert list(table["fpr_high"]) == [result.by_group[k]["fpr"].high for k in GROUPS]
    assert repr(result).startswith("GroupMetrics(100 samples, 4 groups, 2 classes; accuracy ")


def test_a_frame_is_known_by_its_columns():
    for table in (pd.DataFrame, pl.DataFrame, pa.table, dict):
        assert list(columns.frame(table({"a": [1], "b": [2]}))) == ["a", "b"]
    assert columns.frame(np.ones((2, 2))) is None
    assert columns.frame(pd.Series([1])) is None
