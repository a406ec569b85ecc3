"""Allocations in experiments: those of before, and what is refused before a run begins."""

import dataclasses
import json

import jax
import pytest

from fairgrape_jax import config
from fairgrape_jax.config import Experiment, Scoring
from fairgrape_jax.data import source
from fairgrape_jax.errors import UsageError
from fairgrape_jax.masks import full_masks
from fairgrape_jax.runner import preflight
from tests.helpers.experiments import TINY


@pytest.mark.parametrize(("scope", "allocation"), [("layer", "uniform"), ("global", "global")])
def test_runs_that_have_a_scope_are_read(scope, allocation, tmp_path):
    experiment = Experiment(
        source("synthetic"), "small_cnn", scoring=Scoring(allocation=allocation)
    )
    values = config.to_dict(experiment)
    del values["scoring"]["allocation"]
    values["scoring"]["scope"] = scope
    devices = {"kind": "cpu", "platform": "cpu", "count": 1}
    stored = {"format": 2, "experiment": values, "versions": {}, "devices": devices}
    (tmp_path / "config.json").write_text(json.dumps(stored))
    assert config.load(tmp_path / "config.json") == experiment


def test_a_first_layer_that_alone_is_too_much_is_refused_before_the_run():
    shapes = {"large": (90, 100), "middle": (90, 100), "small": (2, 50)}
    kernels = {n: {"kernel": jax.ShapeDtypeStruct(s, "float32")} for n, s in shapes.items()}
    scoring = dataclasses.replace(TINY.scoring, allocation="uniform+")
    experiment = dataclasses.replace(TINY, scoring=scoring, methods=("magnitude",), sparsity=0.7)
    full = full_masks(kernels)
    with pytest.raises(UsageError, match=r"magnitude: scoring.allocation: .* first layer dense"):
        preflight.check_layers(experiment, full, ("large", "middle", "small"))
    preflight.check_layers(experiment, full, ("small", "middle", "large"))
