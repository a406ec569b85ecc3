"""Every row of METHODS within N:M and tiles, in a run's rounds and in the library."""

import dataclasses

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

import fairgrape_jax as fg
from fairgrape_jax import config, data, masks, models
from fairgrape_jax.config import Experiment, Scoring
from fairgrape_jax.data import source
from fairgrape_jax.errors import UsageError
from fairgrape_jax.masks import kept
from fairgrape_jax.methods import METHODS
from fairgrape_jax.rounds import select
from fairgrape_jax.rounds.parameters import initial_shapes, prunable_layers
from fairgrape_jax.rounds.session import Network
from fairgrape_jax.selection.patterns import (
    NofM,
    Tiles,
    block_numbers,
    blocks_of_layers,
    most_in_block,
)
from tests.helpers.experiments import opened
from tests.helpers.odd_network import Odd, alive_in, built, with_scoring

PATTERNS = [NofM(2, 4), NofM(1, 4, offset=3), Tiles(4, 2)]
WEIGHTS = [name for name, method in METHODS.items() if not method.counts]
CASES = [(name, pattern, "uniform") for name in WEIGHTS for pattern in PATTERNS[::2]]
CASES += [
    (name, pattern, allocation)
    for name in ("magnitude", "fairgrape", "fairgrape-maxmin")
    for pattern in PATTERNS
    for allocation in ("global", "erk", "lamp")
]
CASES += [("fairgrape", PATTERNS[1], "uniform")]


@pytest.fixture(autouse=True)
def _odd(monkeypatch):
    monkeypatch.setitem(models.MODELS, "odd", Odd)


@pytest.mark.whole(but=25)
@pytest.mark.parametrize(
    ("name", "pattern", "allocation"), CASES, ids=lambda value: str(value).replace("+", "plus")
)
def test_rounds_of_every_method_keep_to_the_pattern(name, pattern, allocation):
    """Down to a density within it; `select` itself checks the exact counts, and nesting."""
    session, network = built(1)
    field = "n_of_m" if isinstance(pattern, NofM) else "tiles"
    session = with_scoring(session, allocation=allocation, select="greedy", **{field: pattern})
    session = dataclasses.replace(
        session, experiment=dataclasses.replace(session.experiment, min_keep_per_layer=1)
    )
    for density in (0.7, 0.25):
        chosen, _ = select.select(session, network, name, density=density, seed=0)
        if isinstance(pattern, NofM):
            assert density > 0.25 or most_in_block(pattern, chosen) <= pattern.kept
        else:
            for mask, tiles in zip(
                jax.tree.leaves(chosen), blocks_of_layers(pattern, chosen), strict=True
            ):
                share = np.bincount(tiles, mask.reshape(-1)) / np.bincount(tiles)
                assert set(share) <= {0, 1}
        assert min(alive_in(chosen).values()) >= 1
        network = Network(network.state, jax.device_put(chosen))


def test_half_of_every_block_where_half_is_kept():
    rng = np.random.default_rng(0)
    params = [{"kernel": rng.normal(size=shape)} for shape in ((3, 3, 8, 4), (16, 5))]
    scores = jax.tree.map(lambda w: rng.lognormal(0, 2, (3, *w.shape)), params)
    for method in ("fairgrape", "magnitude", "importance", "fairgrape-maxmin", "fair-lamp"):
        chosen, info = fg.prune(
            params, fg.full_masks(params), 0.5, method=method, scores=scores, pattern="2:4"
        )
        assert info["most"] == 2
        for mask in jax.tree.leaves(chosen):
            blocks = block_numbers(NofM(2, 4), mask.shape)
            assert set(np.bincount(blocks, mask.reshape(-1))) == {2}


def test_fairer_within_the_pattern():
    """Each group's share is kept better by FairGRAPE within 1:4 than by the sum of importance."""
    rng = np.random.default_rng(0)
    params = {"kernel": rng.normal(size=(64, 16))}
    scores = {"kernel": rng.lognormal(0, 2, (3, 64, 16)) * np.array([10, 1, 0.1])[:, None, None]}
    lost = {}
    for method in ("fairgrape", "importance"):
        chosen, _ = fg.prune(
            params, fg.full_masks(params), 0.2, method=method, scores=scores, pattern="1:4"
        )
        of_groups = scores["kernel"].reshape(3, -1)
        before = of_groups.sum(axis=1) / of_groups.sum()
        after = of_groups[:, chosen["kernel"].reshape(-1)].sum(axis=1)
        lost[method] = ((after / after.sum() - before) / before).min()
    assert lost["fairgrape"] > lost["importance"] + 0.1


def test_tiles_in_the_library():
    params = {"kernel": np.ones((9, 6)), "bias": np.zeros(6)}
    params["kernel"][:4, 2:4] = 5
    chosen, info = fg.prune(
        params, fg.full_masks(params), 0.2, method="magnitude", pattern=Tiles(4, 2)
    )
    assert masks.sparsity_table(chosen)[0]["alive"] == 8  # one of nine tiles
    assert chosen["kernel"][:4, 2:4].all()
    assert kept(9, 0.2) == 1
    assert "most" not in info


def test_what_cannot_be_is_refused_before_any_compute():
    def refused(match, methods=("fairgrape",), sparsity=0.9, **scoring):
        experiment = Experiment(
            source("synthetic"), "mlp", methods, sparsity=sparsity, scoring=Scoring(**scoring)
        )
        with pytest.raises(UsageError, match=match):
            config.check(experiment)

    refused("structured keeps whole filters, no 2:4", ("structured",), n_of_m=NofM())
    refused("structured keeps whole filters, no 4x4", ("structured",), tiles=Tiles())
    refused(
        r"2:4 keeps at most 0.5 .* last density is 0.6; .* at least 0.5",
        sparsity=0.4,
        n_of_m=NofM(),
    )
    refused("tiles: N of M is given too", n_of_m=NofM(), tiles=Tiles())
    refused("n_of_m.*4:4 is no pattern", n_of_m=NofM(4, 4))
    refused("tiles.*1x1 is no tile", tiles=Tiles(1, 1))
    params = {"kernel": np.ones((4, 4))}
    with pytest.raises(ValueError, match="4:4 is no pattern"):
        fg.prune(params, fg.full_masks(params), 0.5, method="magnitude", pattern=NofM(4, 4))
    with pytest.raises(ValueError, match="'half' is not none, N:M"):
        fg.prune(params, fg.full_masks(params), 0.5, method="magnitude", pattern="half")
    with pytest.raises(ValueError, match="2:4 is none for whole filters"):
        fg.prune(params, fg.full_masks(params), 0.5, method="structured", pattern="2:4")


def test_1x1_alone():
    """MobileNet-V2 without its depthwise kernels, its first convolution and its head."""
    dataset = data.load(source("synthetic", samples=40, groups=2, size=32, channels=3))
    module = models.create("mobilenet_v2", 7)
    order, shapes = initial_shapes(module, dataset)
    every, pointwise = (prunable_layers(order, shapes, p) for p in ("kernels", "1x1"))
    sizes = {
        name: mask.shape
        for name, mask in flatten_dict(fg.full_masks(shapes), sep="/").items()
        if mask is not None
    }
    assert set(pointwise) == {name for name, shape in sizes.items() if shape[:2] == (1, 1)}
    assert 30 < len(pointwise) < len(every)
    with pytest.raises(UsageError, match="no kernel of a 1x1 convolution"):
        opened(Experiment(source("synthetic"), "odd", prunable="1x1"), dataset, 1)
