"""Methods that train towards their choice: alike on any devices, gone on with, within budget."""

import dataclasses
import json
from functools import cache

import jax
import numpy as np
import pytest

from fairgrape_jax import config, masks
from fairgrape_jax.cli.main import main
from fairgrape_jax.config import Stage
from fairgrape_jax.data import load
from fairgrape_jax.errors import UsageError
from fairgrape_jax.methods import METHODS, Problem, pruning
from fairgrape_jax.methods.structure_choice import find_in_round
from fairgrape_jax.remedies import Active
from fairgrape_jax.rounds import select
from fairgrape_jax.rounds.ingredients import APPROACH, TakingPart, Target
from fairgrape_jax.rounds.retraining import retraining_step
from fairgrape_jax.runner import run as runner
from fairgrape_jax.structures import alive_structures
from fairgrape_jax.structures.cost import Counter
from fairgrape_jax.systems.options import Approach
from fairgrape_jax.training.finite import NotFiniteError
from tests.helpers.experiments import load_checkpoint, opened
from tests.helpers.ingredient_runs import TINY, StoppedError, one_step, trained
from tests.helpers.not_finite import SHORT

ROWS = [name for name, method in METHODS.items() if method.approach is not None]
OF_WEIGHTS = [name for name in ROWS if not METHODS[name].of_structures]
OF_STRUCTURES = [name for name in ROWS if METHODS[name].of_structures]
# One row of each training; all of them run below.
DISTINCT = list({METHODS[name].approach.summary: name for name in reversed(ROWS)}.values())
DENSITY = 0.4
EPOCHS = {1: [2, 3, 4], 2: [5, 6, 7]}  # after one of dense training


@cache
def begun(devices=1, structures="none"):
    """The session of all rows, and its dense network."""
    scoring = dataclasses.replace(TINY.scoring, structures=structures)
    experiment = dataclasses.replace(TINY, optimizer="sgd", scoring=scoring)
    return opened(experiment, load(TINY.data), devices, seed=1)


@cache
def begin(name, devices=1):
    """As `ingredient_runs.begun`, for the training before a row's choice."""
    row = METHODS[name]
    session, dense = begun(devices, "flops" if row.of_structures else "none")

    def choose(network, **options):
        return select.select(session, network, name, density=DENSITY, seed=0, **options)[0]

    chosen = choose(dense) if row.chooses_first else None
    active = (Active(APPROACH, row.approach, session.experiment.approach),)
    taking = TakingPart(active, session, dense, Target(DENSITY, choose, chosen))
    step = retraining_step(
        session.steps, session.experiment.remedy, dense.state, session.dataset, active
    )
    return session, taking, step


@pytest.mark.whole(but=1)
@pytest.mark.parametrize("name", DISTINCT)
def test_a_step_is_the_same_on_one_device_and_on_eight(name):
    one, eight = (one_step(name, count, begin) for count in (1, 8))
    assert one[0] == pytest.approx(eight[0], rel=1e-5)
    for a, b in zip(*(jax.tree.leaves(found[1:]) for found in (one, eight)), strict=True):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        assert np.linalg.norm(a - b) <= 1e-4 * np.linalg.norm(a) + 1e-6


@pytest.mark.whole(but=1)
@pytest.mark.parametrize("name", DISTINCT)
def test_a_training_that_was_stopped_goes_on_to_the_same_bits(name, tmp_path):
    whole, history = trained(name, tmp_path / "whole", begin=begin)
    with pytest.raises(StoppedError):
        trained(name, tmp_path / "parts", stop_after=8, begin=begin)
    again, others = trained(name, tmp_path / "parts", begin=begin)
    assert history == others
    for a, b in zip(*map(jax.tree.leaves, (whole, again)), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("part", 0.0, r"approach.part: 0.0 is not in \(0, 1\]"),
        ("part", 1.5, "approach.part"),
        ("lasso", 0.0, "approach.lasso: 0.0 is not positive"),
        ("rho", -1.0, "approach.rho"),
        ("step", 0.0, "approach.step"),
        ("m", 1.0, "approach.m: 1.0 is not above 1"),
        ("r", 1.0, "approach.r"),
        ("skeleton", 0.0, "approach.skeleton"),
        ("skeleton_rate", 0.0, "approach.skeleton_rate"),
        ("threshold", float("nan"), "approach.threshold"),
        ("auxiliary_rate", 0.0, "approach.auxiliary_rate"),
        ("price_rate", 0.0, "approach.price_rate"),
        ("gate_rate", 0.0, "approach.gate_rate"),
        ("gate_steps", 0, "approach.gate_steps"),
        ("beta", 0.0, "approach.beta"),
        ("gamma", -1.0, "approach.gamma: -1.0 is below 0"),
    ],
)
def test_options_that_cannot_be_used_are_named(field, value, words):
    experiment = dataclasses.replace(TINY, approach=Approach(**{field: value}))
    with pytest.raises(UsageError, match=words):
        config.check(experiment)


def test_a_step_before_the_choice_that_is_not_finite_is_replayed(tmp_path, capsys):
    experiment = dataclasses.replace(SHORT, methods=("slr",), retrain=Stage((2,), (1e30,)))
    with pytest.raises(NotFiniteError):
        runner.run(experiment, tmp_path)
    place = tmp_path / "seed_0/slr/round_01/not_finite"
    known = json.loads((place / "repro.json").read_text())
    assert known["approach"]
    capsys.readouterr()
    assert main(["replay", str(place)]) == 0
    assert f"again:    {known['not_finite'][0]}" in capsys.readouterr().out


@pytest.mark.whole
def test_every_row_reaches_its_budget_in_a_run(tmp_path):
    """Two rounds of three epochs, two before the choice; no epoch is added; rows differ."""
    experiment = dataclasses.replace(
        TINY,
        methods=tuple(OF_WEIGHTS),
        densities=(0.6, DENSITY),
        retrain=Stage((3,), (1e-3,)),
        final=Stage(),
    )
    runner.run(experiment, tmp_path)
    networks = {}
    for name in OF_WEIGHTS:
        for number, density in enumerate(experiment.densities, 1):
            stage = tmp_path / f"seed_0/{name}/round_{number:02}"
            record, saved = json.loads((stage / "metrics.json").read_text()), load_checkpoint(stage)
            epochs = [row["epoch"] for row in (*record["before_choice"], *record["history"])]
            assert epochs == EPOCHS[number]
            assert record["seconds"]["approach"] > 0
            problem = Problem(None, saved["masks"], layers=begun()[0].steps.layers)
            count = (METHODS[name].counts or pruning.counts)(problem, density)
            alive = {row["layer"]: row["alive"] for row in masks.sparsity_table(saved["masks"])}
            assert alive == count
        networks[name] = saved["state"].params["conv1"]["kernel"]
    assert len({leaf.tobytes() for leaf in networks.values()}) == len(OF_WEIGHTS)


@pytest.mark.whole
def test_every_row_of_structures_reaches_its_operations_in_a_run(tmp_path):
    """As above; with any structure more the budget is used to within 3 points, or too small."""
    scoring = dataclasses.replace(TINY.scoring, structures="flops", allocation="global")
    experiment = dataclasses.replace(
        TINY,
        methods=tuple(OF_STRUCTURES),
        densities=(0.6, DENSITY),
        retrain=Stage((3,), (1e-3,)),
        final=Stage(),
        scoring=scoring,
    )
    runner.run(experiment, tmp_path)
    session, dense = begun(structures="flops")
    structures = find_in_round(select.make_problem(session, dense, seed=0))
    counter = Counter(structures)
    whole = counter(structures.full_masks()).flops
    for name in OF_STRUCTURES:
        before = structures.full_masks()
        for number, density in enumerate(experiment.densities, 1):
            stage = tmp_path / f"seed_0/{name}/round_{number:02}"
            record, saved = json.loads((stage / "metrics.json").read_text()), load_checkpoint(stage)
            epochs = [row["epoch"] for row in (*record["before_choice"], *record["history"])]
            assert epochs == EPOCHS[number]
            kept = alive_structures(structures, saved["masks"])
            assert all(not (kept[group] & ~before[group]).any() for group in kept)
            assert counter(kept).flops <= density * whole * (1 + 1e-6)
            cheapest = min(
                counter(kept | {group: kept[group] | one}).flops
                for group in kept
                for one in np.eye(kept[group].size, dtype=bool)[before[group] & ~kept[group]]
            )
            assert cheapest > (density - 0.03) * whole
            before = kept
