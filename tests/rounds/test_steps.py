"""The layers of a run are those of its masks, whatever the network calls its kernels."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from fairgrape_jax import models
from fairgrape_jax.config import Clusters, Stage
from fairgrape_jax.data import load
from fairgrape_jax.errors import UsageError
from fairgrape_jax.masks import full_masks, layer_names
from fairgrape_jax.rounds import cluster
from fairgrape_jax.runner import run as runner
from tests.helpers.experiments import TINY, opened


class Product(nn.Module):
    """A dense layer that calls its kernel something else."""

    features: int
    kernel: str

    @nn.compact
    def __call__(self, x):
        init = nn.initializers.lecun_normal()
        return x @ self.param(self.kernel, init, (x.shape[-1], self.features))


class Named(nn.Module):
    """Layers of four names, whose order by the alphabet is not that of the network."""

    num_classes: int
    axis_name: str | None = None
    dtype: type = jnp.float32

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.relu(nn.Conv(4, (3, 3), name="stem")(x)).mean((1, 2))
        x = nn.relu(Product(5, "w", name="middle")(x))
        x = nn.Embed(3, 5, name="table")(jnp.zeros(len(x), int)) + x
        x = x @ self.param("weight", nn.initializers.lecun_normal(), (5, 6))
        return Product(self.num_classes, "w", name="head")(x)


LAYERS = ("stem", "middle/w", "weight", "head/w")
EXPERIMENT = dataclasses.replace(
    TINY,
    model="named",
    methods=("fairgrape", "structured"),
    densities=(0.8,),
    seeds=(0,),
    dense=Stage((1,), (1e-2,)),
    retrain=Stage((), ()),
    final=Stage((), ()),
    min_keep_per_layer=1,
    scoring=dataclasses.replace(TINY.scoring, groups=Clusters(2)),
)


@pytest.fixture(autouse=True)
def row(monkeypatch):
    monkeypatch.setitem(models.MODELS, "named", Named)


def test_the_layers_are_those_of_the_masks_in_the_order_of_the_network():
    session, network = opened(EXPERIMENT, load(EXPERIMENT.data))
    assert session.steps.layers == LAYERS
    assert sorted(LAYERS) == sorted(layer_names(full_masks(network.state.params)))


def test_clusters_look_at_what_goes_into_the_last_layer_of_any_name():
    session, network = opened(EXPERIMENT, load(EXPERIMENT.data))
    features = cluster.embed(session, network, batch=64)
    assert features.shape == (len(session.dataset.train), 6)
    head = np.asarray(network.state.params["head"]["w"])
    module, images = session.steps.module, session.dataset.train.images[:2]
    pictures = (images / 255 - np.array(session.dataset.mean)) / np.array(session.dataset.std)
    logits = module.apply(network.variables, pictures.astype(np.float32))
    np.testing.assert_allclose(features[:2] @ head, logits, rtol=1e-4, atol=1e-5)


class Rootless(nn.Module):
    """A network that has the kernel of its last layer itself."""

    num_classes: int
    axis_name: str | None = None
    dtype: type = jnp.float32

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.relu(nn.Conv(4, (3, 3), name="stem")(x)).mean((1, 2))
        return x @ self.param("w", nn.initializers.lecun_normal(), (4, self.num_classes))


def test_a_last_layer_that_is_no_module_is_refused_not_taken_for_the_network(monkeypatch):
    monkeypatch.setitem(models.MODELS, "named", Rootless)
    session, network = opened(EXPERIMENT, load(EXPERIMENT.data))
    assert session.steps.layers == ("stem", "w")
    with pytest.raises(UsageError, match="the last layer, 'w', is no module"):
        cluster.embed(session, network, batch=64)


@pytest.mark.whole(but=1)
@pytest.mark.parametrize("allocation", ["uniform", "uniform+"])
def test_a_run_of_such_a_network_records_every_layer(allocation, tmp_path):
    scoring = dataclasses.replace(EXPERIMENT.scoring, allocation=allocation)
    runner.run(dataclasses.replace(EXPERIMENT, scoring=scoring), tmp_path)
    for method in EXPERIMENT.methods:
        record = json.loads((tmp_path / f"seed_0/{method}/round_01/metrics.json").read_text())
        assert tuple(row["layer"] for row in record["layers"]) == LAYERS
        assert tuple(record["importance"]) == LAYERS
        kept = {row["layer"]: row["alive"] / row["weights"] for row in record["layers"]}
        assert kept["head/w" if method == "structured" else "stem"] == 1 or allocation == "uniform"
