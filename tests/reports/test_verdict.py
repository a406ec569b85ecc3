"""The verdict: whom it costs more, who is first, and when these data do not tell."""

import re

import numpy as np
import pytest

from fairgrape_jax.metrics.samples import Samples
from fairgrape_jax.reports.charts import Interval
from fairgrape_jax.reports.comparison import compare
from fairgrape_jax.reports.differences import compare_sets
from fairgrape_jax.reports.precision import decimals, number, with_interval
from fairgrape_jax.reports.summary import small_table
from fairgrape_jax.reports.verdict import beats_one_class, standing, verdict

SAMPLES = 2400


def sets(rates, seed=0, groups=2, classes=2, share=None, density=float("nan"), dense=0.95):
    """Sets of one model by name, right at a rate in each group, beside a dense one; compared."""
    rng = np.random.default_rng(seed)
    members = np.arange(SAMPLES) % groups
    labels = rng.integers(0, classes, SAMPLES)
    if share is not None:
        labels = (rng.random(SAMPLES) < share).astype(int)

    def model(rate):
        right = rng.random(SAMPLES) < np.broadcast_to(rate, groups)[members]
        return np.where(right, labels, (labels + 1) % classes)[None]

    samples = Samples(labels[:, None], members, [classes], groups)
    base = model(dense)
    models = {name: model(rate) for name, rate in rates.items()}
    comparisons = [
        compare(name, samples, one[..., None], base[..., None], replicates=400, density=density)
        for name, one in models.items()
    ]
    return comparisons, compare_sets(samples, list(models.values()), base, replicates=400)


def text_of(rates, groups=("a", "b"), **options):
    comparisons, compared = sets(rates, groups=len(groups), **options)
    return verdict(comparisons, groups, compared)


def test_a_clear_cost_and_a_clear_lead():
    answer = text_of({"x": (0.9, 0.7), "y": (0.8, 0.5), "z": (0.8, 0.6)}, density=0.02)
    assert re.fullmatch(
        r"At 2 % of the weights x costs b (\d+\.\d) points more than a \[(\d+\.\d), (\d+\.\d)\]; "
        r"against z, the runner-up of 3, its worst group is (\d+|\d+\.\d) points better \[.*\]\.",
        answer.text,
    )
    value, low, high = map(float, re.findall(r"(\d+\.\d)", answer.text)[:3])
    assert low < value < high
    assert low < 20 < high
    assert "corrected for picking two of 3 methods" in answer.note


def test_a_method_named_with_its_weights_has_them_once():
    """Where methods have other numbers of weights left, as at the same operations."""
    answer = text_of({"x, 2 %": (0.9, 0.7), "y, 26 %": (0.8, 0.5)}, density=0.02)
    assert answer.text.startswith("At 2 % of the weights x costs b ")


def test_what_these_data_do_not_tell():
    answer = text_of({"x": 0.8, "y": 0.8})
    assert "is not shown to cost any group more than another (" in answer.text
    assert answer.text.endswith(": these data do not tell the two apart.")
    assert "runner-up" not in answer.text  # of two it is the other one
    assert "corrected" not in answer.note


def test_a_single_set_is_compared_with_dense_alone():
    answer = text_of({"x": (0.9, 0.9, 0.6)}, groups=("a", "b", "c"))
    assert answer.text.startswith("x costs c ")
    assert "against" not in answer.text
    assert "corrected for picking two of 3 groups" in answer.note


def test_models_alone():
    comparisons, _ = sets({"x": (0.9, 0.7)})
    text = verdict(comparisons, ("a", "b"), None, alone=True).text
    assert re.match(r"x is \d+\.\d points less accurate for b than for a \[", text)


def test_who_is_no_better_than_one_class_never_leads():
    """Of 90 % of one label: always saying it is right for 90 %."""
    comparisons, compared = sets({"x": 0.9, "y": 0.95}, share=0.9)
    assert [beats_one_class(one) for one in comparisons] == [False, True]
    assert standing(comparisons, compared).leader == 1
    comparisons, compared = sets({"x": 0.8, "y": 0.85}, share=0.9)
    assert standing(comparisons, compared).leader == -1
    text = verdict(comparisons, ("a", "b"), compared).text
    assert text.startswith("none of the methods is shown to be right more often than always saying")
    assert text.endswith("nothing here can be compared.")
    text = verdict(comparisons[:1], ("a", "b"), None).text
    assert text.startswith("x is not shown to be right more often")


def test_groups_of_one_label_can_be_compared():
    """With each class a group, saying one class is right for nobody else: nothing is collapsed."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 400)
    model = np.where(rng.random(400) < 0.9, labels, 1 - labels)[None, :, None]
    one = compare("x", Samples(labels[:, None], labels, [2], 2), model, model, replicates=50)
    assert beats_one_class(one)


@pytest.mark.parametrize("seed", range(3))
def test_equal_methods_are_seldom_told_apart(seed):
    """At 95 % of eight equally good sets the first is not told from the second."""
    rates = {f"m{number}": (0.8, 0.7) for number in range(8)}
    answer = text_of(rates, seed=seed)
    assert "do not tell the two apart" in answer.text


def test_the_small_table_has_the_best_first_and_a_column_for_each_of_few_groups():
    comparisons, _ = sets({"x": (0.9, 0.6), "y": (0.9, 0.8)}, density=0.1)
    table = small_table(comparisons, ("a", "b"))
    assert table.header == ["", "weights", "all", "a", "b", "extra loss"]
    assert [row[0] for row in table.rows] == ["dense", "y", "x"]
    assert [row[1] for row in table.rows] == ["100 %", "10 %", "10 %"]
    assert table.rows[0][-1] == ""
    comparisons, _ = sets({"x": (0.9, 0.8, 0.9, 0.9, 0.6)}, groups=5)
    table = small_table(comparisons, tuple("abcde"))
    assert table.header == ["", "all", "best group", "worst group", "extra loss"]
    assert table.rows[1][3].startswith("e ")
    assert small_table(comparisons, tuple("abcde"), alone=True).header[-1] == "lowest / highest"


@pytest.mark.parametrize(
    ("half", "places"),
    [(0.01, 2), (0.49, 2), (0.5, 1), (4.9, 1), (5, 0), (60, 0), (0, 2), (float("nan"), 2)],
)
def test_digits_follow_the_interval(half, places):
    one = Interval(50.0, 50.0 - half, 50.0 + half)
    assert decimals([one]) == places
    assert decimals([one] * 3) == places


def test_numbers_that_are_not_known_and_zeros_without_a_minus():
    assert number(float("nan"), 1) == "n/a"
    assert number(-0.01, 1) == "0.0"
    assert with_interval(Interval(float("nan"), 1, 2)) == "n/a"
    assert with_interval(Interval(-3.44, -5.9, -1.12), sign=True) == "-3.4 [-5.9, -1.1]"
