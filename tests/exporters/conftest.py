"""A run that is exported and measured, one for each file."""

import pytest

from fairgrape_jax.runner.run import run as do
from tests.helpers.experiments import TINY, with_fields


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    directory = tmp_path_factory.mktemp("runs") / "tiny"
    do(with_fields(TINY, seeds=(0,), methods=("fairgrape",)), directory)
    return directory
