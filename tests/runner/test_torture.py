"""A run killed once, and one of six rounds killed ten times on its way: short `make torture`s."""

import numpy as np
import pytest

from tests.helpers import torture

# In the order in which a run comes to these places.
WAY = [
    "after configuration",
    "after training step",
    "before checksums",
    "after partial save",
    "before selection",
    "file",
    "before metrics write",
    "after old checkpoint removed",
    "instant",
    "before report's table",
]

ONE_ROUND = '''"""One round on very few digits."""
from fairgrape_jax.config import Execution, Experiment, Stage
from fairgrape_jax.data.sources.writers import Writers

EXPERIMENT = Experiment(
    data=Writers(limit=600, limit_evaluation=60, size=8),
    model="mlp",
    methods=("magnitude",),
    sparsity=0.5,
    rounds=1,
    dense=Stage((2,), (1e-3,), best=True),
    retrain=Stage((1,), (1e-3,)),
    final=Stage(),
    execution=Execution(devices=1),
)
'''


@pytest.mark.parametrize("point", torture.POINTS)
def test_every_place_where_a_run_can_be_killed_is_a_function(point):
    thing, name = torture.find(torture.POINTS[point][0])
    assert callable(getattr(thing, name))


@pytest.mark.whole
def test_a_run_that_is_killed_goes_on_to_the_same_bits(tmp_path):
    plan, rng = ["after partial save"], np.random.default_rng(0)
    survived = torture.survive(tmp_path, plan.copy(), rng, ONE_ROUND)
    assert survived == plan, (tmp_path / "log.txt").read_text()[-3000:]


@pytest.mark.multiprocess
def test_a_run_that_is_killed_again_and_again_leaves_what_an_undisturbed_one_leaves(tmp_path):
    survived = torture.survive(tmp_path, WAY[::-1], np.random.default_rng(0))
    assert sorted(survived) == sorted(WAY), (tmp_path / "log.txt").read_text()[-3000:]
