"""What is looked at before a run: notes that are no errors."""

import dataclasses

import pytest

from fairgrape_jax.config import Execution
from fairgrape_jax.runner import preflight
from tests.helpers.experiments import TINY


@pytest.mark.parametrize("platform", ["cpu", "gpu", "tpu"])
@pytest.mark.parametrize("micro_batches", ["auto", "single", "unroll", "vmap", "scan"])
def test_loops_around_convolutions_are_noted_where_they_are_slow(platform, micro_batches):
    experiment = dataclasses.replace(TINY, execution=Execution(micro_batches=micro_batches))
    notes = preflight.notes(experiment, platform)
    slow = platform == "cpu" and micro_batches == "scan"
    assert [note.partition(":")[0] for note in notes] == ["execution.micro_batches scan"] * slow
