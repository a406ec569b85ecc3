"""Methods by which pruned weights come back: GMP, AC/DC, RigL, and whole runs of them."""

import dataclasses
import itertools
import json
from pathlib import Path

import jax
import numpy as np
import pytest

from fairgrape_jax import masks, training
from fairgrape_jax.config import KeepLast, Stage
from fairgrape_jax.data import load
from fairgrape_jax.errors import UsageError
from fairgrape_jax.methods import METHODS, Method, Preparation, Problem, base, prune, rigl
from fairgrape_jax.remedies import Active, Ingredient
from fairgrape_jax.runner.run import run
from fairgrape_jax.selection import schedules
from fairgrape_jax.storage import resumable
from tests.helpers.experiments import (
    TINY,
    assert_same,
    load_checkpoint,
    stage_files,
    with_fields,
)

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "acdc_feather.npz")
LAYERS = GOLDEN["layers"].tolist()
RETURNING = [name for name, row in METHODS.items() if not row.nested]
DENSITIES = (0.4, 0.4, 0.3)
ONE = dataclasses.replace(TINY, seeds=(0,), final=Stage(), densities=DENSITIES)


@pytest.mark.parametrize("sparsity", ["0.5", "0.9", "0.95", "0.98"])
@pytest.mark.parametrize("name", ["acdc", "gmp"])
def test_masks_of_all_weights_are_those_of_the_authors_code(name, sparsity):
    """Whatever was pruned before; their strict comparison keeps one fewer, which is asked for."""
    weights = {layer: {"kernel": GOLDEN[f"w.{layer}"]} for layer in LAYERS}

    def expected(kind, layer):
        shape = GOLDEN[f"w.{layer}"].shape
        packed = GOLDEN[f"acdc.{kind}.{sparsity}.mask.{layer}"]
        return np.unpackbits(packed)[: np.prod(shape)].reshape(shape).astype(bool)

    full = jax.tree.map(lambda w: np.ones(w.shape, bool), weights)
    pruned = jax.tree.map(lambda w: np.zeros(w.shape, bool), weights)
    kept = sum(expected("global", layer).sum() for layer in LAYERS)
    density = (kept + 0.5) / sum(w["kernel"].size for w in weights.values())
    problem = Problem(weights, full, allocation="global", alive=pruned)
    chosen = prune(METHODS[name], problem, density)
    for layer in LAYERS:
        np.testing.assert_array_equal(chosen[layer]["kernel"], expected("global", layer))
        mask = expected("layer", layer)
        alone = [{layer: tree[layer]} for tree in (weights, full)]
        one = prune(METHODS[name], Problem(*alone), (mask.sum() + 0.5) / mask.size)
        np.testing.assert_array_equal(one[layer]["kernel"], mask)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("alive", [0, 1, 5, 12, 20])
@pytest.mark.parametrize("keep", [0, 1, 5, 12, 20])
def test_rigl_drops_the_weakest_and_grows_by_the_gradient(alive, keep, share):
    """By its own words, weight by weight; ties in both orders."""
    rng = np.random.default_rng([alive, keep])
    mask = rng.permutation(20) < alive
    strength, growth = rng.integers(0, 5, (2, 20)).astype(float)
    chosen = rigl.exchange(mask, strength, growth, keep, share)
    stay = min(keep - round(share * keep), alive)
    strongest = sorted(np.flatnonzero(mask), key=lambda i: (-strength[i], i))[:stay]
    others = [i for i in range(20) if i not in strongest]
    grown = sorted(others, key=lambda i: (-growth[i], i))[: keep - stay]
    assert sorted([*strongest, *grown]) == np.flatnonzero(chosen).tolist()


def test_rigl_exchanges_less_and_less():
    shares = [rigl.exchanged(k / 20) for k in range(20)]
    assert shares[0] == 0.3
    assert shares == sorted(shares, reverse=True)
    assert not any(shares[15:])


def test_a_density_may_stay_where_weights_come_back_and_elsewhere_must_fall():
    assert schedules.check_falling((0.5, 0.5, 0.1, 0.1), strictly=False) == [0.5, 0.5, 0.1, 0.1]
    for wrong in ((0.5, 0.5), (0.1, 0.5)):
        with pytest.raises(UsageError, match="must fall"):
            schedules.check_falling(wrong)
    with pytest.raises(UsageError, match="must not rise"):
        schedules.check_falling((0.1, 0.5), strictly=False)


@pytest.mark.whole(but=1)
@pytest.mark.parametrize("name", RETURNING)
def test_a_run_is_exact_lets_weights_return_and_goes_on_to_the_same_bits(
    name, tmp_path, monkeypatch
):
    """Stopped in the second round's training, and once more in the third one's choice."""
    experiment = dataclasses.replace(ONE, methods=(name,), retrain=Stage((1,), (0.05,)))
    run(experiment, tmp_path / "whole")
    stages = [tmp_path / f"whole/seed_0/{name}/round_0{n}" for n in (1, 2, 3)]
    saved = [load_checkpoint(stage) for stage in stages]
    for tree, density in zip(saved, DENSITIES, strict=True):
        for row in masks.sparsity_table(tree["masks"]):
            assert row["alive"] == masks.kept(row["weights"], density)
        kernels = masks.select_prunable(tree["masks"], tree["state"].params)
        for weights, mask in zip(*map(jax.tree.leaves, (kernels, tree["masks"])), strict=True):
            assert np.all(weights[~mask] == 0)
    trees = [jax.tree.leaves(tree["masks"]) for tree in saved]
    pairs = [
        pair for tree, after in itertools.pairwise(trees) for pair in zip(tree, after, strict=True)
    ]
    assert any((new & ~old).any() for old, new in pairs)  # some came back
    records = [json.loads((stage / "metrics.json").read_text()) for stage in stages]
    trained_before = [len(record.get("before_choice", [])) for record in records]
    assert trained_before == ([0, 1, 1] if METHODS[name].prepares else [0, 0, 0])
    assert not list((tmp_path / "whole").rglob("hidden"))
    assert not list((tmp_path / "whole").rglob("partial"))

    monkeypatch.setattr(resumable, "SAVE_EVERY", 0.0)
    epoch, count = training.train_epoch, 0
    stops = {5, 6} if METHODS[name].prepares else {4, 5}

    def stopping(*args, **options):
        nonlocal count
        count += 1
        if count in stops:
            raise KeyboardInterrupt
        return epoch(*args, **options)

    monkeypatch.setattr(training, "train_epoch", stopping)
    for _ in stops:
        with pytest.raises(KeyboardInterrupt):
            run(experiment, tmp_path / "run")
    run(experiment, tmp_path / "run")
    assert_same(stage_files(tmp_path / "run"), stage_files(tmp_path / "whole"))
    assert not list((tmp_path / "run").rglob("partial"))


def test_hidden_weights_go_with_the_checkpoint_of_their_round(tmp_path, monkeypatch):
    experiment = with_fields(ONE, methods=("gmp",), checkpoints=KeepLast())
    epoch, there = training.train_epoch, []

    def noting(*args, **options):
        there.append(sorted(p.parent.name for p in tmp_path.rglob("hidden")))
        return epoch(*args, **options)

    monkeypatch.setattr(training, "train_epoch", noting)
    run(experiment, tmp_path)
    assert there[3:] == [["round_01"], ["round_01", "round_02"], ["round_02"]]


def test_what_a_method_prepares_is_carried_to_its_choice(tmp_path, monkeypatch):
    """A training with an ingredient before the choice, which then looks at what it carried."""
    row = Ingredient(
        "counts steps",
        options=lambda remedy: None,
        start=lambda options, setting: np.zeros(2, np.float32),
        after_step=lambda options, carried, made: carried + options,
    )
    ends = []

    def score(problem):
        ends.append(problem.carried["steps"].tolist())
        return METHODS["magnitude"].score(problem)

    preparation = Preparation(ingredients=(Active("steps", row, 2.0),))
    monkeypatch.setitem(METHODS, "counted", Method("counts", score, prepares=preparation))
    experiment = dataclasses.replace(ONE, methods=("counted",), retrain=Stage((2,), (1e-3,)))
    experiment = dataclasses.replace(experiment, densities=(0.4, 0.3, 0.2))
    run(experiment, tmp_path)
    steps = 2 * (len(load(TINY.data).train) // 32)  # two epochs
    assert [len(ends), *ends[0]] == [3, 2.0 * steps, 2.0 * steps]


def test_a_row_that_contradicts_itself_is_refused():
    for wrong in ({"remembers": True}, {"prepares": Preparation(all_weights=True)}):
        with pytest.raises(ValueError, match="nested must be False"):
            base.check_row("new", Method("a new one", lambda problem: None, **wrong))
