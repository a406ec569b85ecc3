"""Whole channels in runs: masks that are structures, within the budget, and a smaller network."""

import dataclasses
import re

import jax
import numpy as np
import pytest

import fairgrape_jax as fg
from fairgrape_jax.cli.main import main
from fairgrape_jax.config import validate
from fairgrape_jax.data import load
from fairgrape_jax.errors import UsageError
from fairgrape_jax.methods import METHODS
from fairgrape_jax.methods.structure_choice import (
    find_in_round,
    structure_problem,
    takes_structures,
)
from fairgrape_jax.rounds.select import make_problem, select
from fairgrape_jax.selection.patterns import NofM
from fairgrape_jax.structures import shrink, zero, zero_masks
from fairgrape_jax.structures.cost import Counter
from tests.helpers.experiments import TINY, opened

CHANNELS = dataclasses.replace(
    TINY,
    seeds=(0,),
    sparsity=0.6,
    scoring=dataclasses.replace(TINY.scoring, structures="flops", structure_multiple=2),
)
USABLE = [name for name, row in METHODS.items() if takes_structures(row)]


@pytest.fixture(scope="module")
def tiny():
    experiment = dataclasses.replace(CHANNELS, model="cnn")
    return opened(experiment, load(experiment.data))


@pytest.mark.whole(but=6)
@pytest.mark.parametrize("method", USABLE)
def test_every_method_prunes_whole_structures_within_the_operations(method, tiny):
    session, network = tiny
    masks, _ = select(session, network, method, density=0.5, seed=0)
    question = make_problem(session, network, seed=0)
    structures = find_in_round(question)
    kept = structure_problem(dataclasses.replace(question, masks=masks), structures).masks
    again = zero_masks(structures, fg.full_masks(question.params), kept)
    jax.tree.map(np.testing.assert_array_equal, again, masks)
    count = Counter(structures)
    assert 0.4 < count(kept).flops / count(structures.full_masks()).flops <= 0.5
    assert all(mask.sum() % 2 == 0 for mask in kept.values())
    counts = {name: int(mask.sum()) for name, mask in kept.items()}
    assert set(counts) == {"conv1", "conv2", "fc1"}
    assert counts["fc1"] < 128


@pytest.mark.whole
def test_a_run_prunes_channels_and_leaves_a_smaller_network(tmp_path, capsys):
    finished = fg.run(CHANNELS, tmp_path / "run")
    pictures = load(CHANNELS.data).test.images[:8].astype(np.float32)
    before = None
    for stage in finished.stages:
        if "fairgrape" not in stage:
            continue
        loaded = fg.load(tmp_path / "run", stage)
        structures = fg.find_structures(loaded.module.apply, dict(loaded.variables), pictures)
        masks = {"params": loaded.masks}
        alive = {
            group.name: np.array(
                [_is_alive(structures, group, i, masks) for i in range(group.size)]
            )
            for group in structures.groups
        }
        if before is not None:
            assert all(not (alive[name] & ~before[name]).any() for name in alive)
        before = alive
    count = Counter(structures)
    assert count(alive).flops <= 0.4 * count(structures.full_masks()).flops * (1 + 1e-6)
    variables = dict(loaded.variables)
    small = shrink(structures, variables, alive)
    expected = loaded.module.apply(variables, pictures)
    logits = small.apply(small.params, pictures)
    assert np.abs(logits - expected).max() <= 1e-5 * np.abs(expected).max()
    np.testing.assert_array_equal(
        loaded.module.apply(zero(structures, variables, alive), pictures), expected
    )
    parameters = [sum(w.size for w in jax.tree.leaves(p)) for p in (variables, small.params)]
    assert parameters[1] < 0.6 * parameters[0]

    stage = str(tmp_path / "run" / finished.stages[-1])
    capsys.readouterr()
    assert main(["measure", stage, "--repeats", "1", "--shrink"]) == 0
    (line,) = re.findall(r"^parameters +(.*)$", capsys.readouterr().out, re.MULTILINE)
    whole, left = (int(number.replace(",", "")) for number in line.split())
    assert [whole, left] == parameters
    dense = str(tmp_path / "run" / "seed_0" / "dense")
    assert main(["measure", dense, "--repeats", "1", "--shrink"]) == 2
    assert "no channel of it is pruned as a whole" in capsys.readouterr().err


def _is_alive(structures, group, number, masks):
    """Whether a structure has a weight that is alive, looked up one array after the other."""
    for member in group.members:
        mask = masks
        for part in structures.names[member.leaf].split("/"):
            mask = mask[part]
        if mask is not None and mask.take(member.places[number], axis=member.axis).any():
            return True
    return False


@pytest.mark.parametrize(
    ("fields", "scoring", "words"),
    [
        ({"methods": ("slr",)}, {}, "scoring.structures: slr chooses weights by"),
        ({"prunable": "1x1"}, {}, "prunable: whole channels are pruned with all kernels"),
        ({}, {"n_of_m": NofM(2, 4)}, "scoring.structures: N of M or tiles are given too"),
        ({}, {"structures": "none"}, "scoring.structure_multiple: does nothing without"),
        ({}, {"structure_multiple": 0}, "scoring.structure_multiple: 0"),
    ],
)
def test_what_cannot_be_is_refused_before_a_run(fields, scoring, words):
    changed = dataclasses.replace(CHANNELS.scoring, **scoring)
    experiment = dataclasses.replace(CHANNELS, scoring=changed, **fields)
    with pytest.raises(UsageError, match=words):
        validate.check(experiment)


@pytest.mark.parametrize(
    ("fields", "scoring", "words"),
    [
        ({"sparsity": 0.9999}, {}, "scoring.structures: budget: 0.0001 of the flops cannot be"),
        ({}, {"allocation": {"fc1": 1.0, "conv2": 1.0, "conv1": 1.0}}, "scoring.structures: alloc"),
    ],
)
def test_what_no_network_keeps_to_is_refused_before_a_run(fields, scoring, words, tmp_path):
    changed = dataclasses.replace(CHANNELS.scoring, **scoring)
    with pytest.raises(UsageError, match=words):
        fg.run(dataclasses.replace(CHANNELS, scoring=changed, **fields), tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()
