"""A run of six rounds killed ten times on its way: the short form of `make torture`."""

import numpy as np

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


def test_a_run_that_is_killed_again_and_again_leaves_what_an_undisturbed_one_leaves(tmp_path):
    survived = torture.survive(tmp_path, WAY[::-1], np.random.default_rng(0))
    assert sorted(survived) == sorted(WAY), (tmp_path / "log.txt").read_text()[-3000:]
