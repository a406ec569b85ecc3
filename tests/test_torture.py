"""A run of six rounds killed ten times on its way: the short form of `make torture`."""

import numpy as np
import torture


def test_a_run_that_is_killed_again_and_again_leaves_what_an_undisturbed_one_leaves(tmp_path):
    kinds = [
        "instant",
        "before checksums",
        "instant",
        "after partial save",
        "file",
        "before metrics write",
        "after old checkpoint removed",
        "instant",
        "before report's table",
        "after log write",
    ]
    survived = torture.survive(tmp_path, kinds, np.random.default_rng(0))
    assert sorted(survived) == sorted(kinds), (tmp_path / "log.txt").read_text()[-3000:]
