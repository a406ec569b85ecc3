"""What structures matter to each group: against sums over their weights written out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fairgrape_jax as fg
from fairgrape_jax.structures import find_structures, gated_loss, gates, sum_importance
from tests.helpers.small_networks import NETWORKS

GROUPS = 2
SOME = ["mlp", "residual", "depthwise_twice", "concatenation", "flattened", "square", "tied"]


def by_hand(structures, rows):
    """Sums over the sets of weights of each structure, one weight after the other."""
    result = {}
    for group in structures.groups:
        sums = np.zeros((GROUPS, group.size))
        for number in range(group.size):
            weights = set()
            for member in group.members:
                name = structures.names[member.leaf]
                for place in member.places[number]:
                    if name in rows:
                        mask = np.zeros(rows[name].shape[1:], bool)
                        mask[(slice(None),) * member.axis + (place,)] = True
                        weights |= {(name, int(i)) for i in np.flatnonzero(mask)}
            for name, i in weights:
                sums[:, number] += rows[name].reshape(GROUPS, -1)[:, i]
        result[group.name] = sums
    return result


def case(name):
    network = NETWORKS[name]()
    structures = find_structures(network.apply, network.params, network.x)
    masks = {k: np.ones(w.shape, bool) if w.ndim > 1 else None for k, w in network.params.items()}
    return network, structures, masks


@pytest.mark.parametrize("name", SOME)
def test_the_sum_over_a_structure_counts_every_weight_once(name):
    _, structures, masks = case(name)
    rng = np.random.default_rng(0)
    scores = {
        k: None if m is None else rng.exponential(size=(GROUPS, *m.shape)).astype(np.float32)
        for k, m in masks.items()
    }
    sums = sum_importance(structures, scores)
    expected = by_hand(structures, {k: v for k, v in scores.items() if v is not None})
    for key, rows in sums.items():
        np.testing.assert_allclose(rows, expected[key], rtol=1e-6)


@pytest.mark.whole(but=2)
@pytest.mark.parametrize("name", SOME)
def test_gates_give_the_square_of_the_sum_per_group(name):
    network, structures, masks = case(name)
    x = np.concatenate([network.x] * 2)
    groups = np.arange(len(x)) % GROUPS

    def loss_fn(params, x):
        return (network.apply(params, x) ** 2).reshape(len(x), -1).sum(axis=1)

    loss = gated_loss(structures, loss_fn, network.params, masks)
    squares = fg.average_importance(
        loss, gates(structures), structures.full_masks(), [(x, groups)], num_groups=GROUPS
    )
    gradients = [
        jax.grad(lambda p, k=k: loss_fn(p, jnp.asarray(x[groups == k])).mean())(network.params)
        for k in range(GROUPS)
    ]
    products = {
        key: np.stack([np.asarray(network.params[key] * g[key], np.float64) for g in gradients])
        for key, mask in masks.items()
        if mask is not None
    }
    for key, sums in by_hand(structures, products).items():
        np.testing.assert_allclose(squares[key], sums**2, rtol=2e-3, atol=1e-6 * (sums**2).max())


@pytest.mark.parametrize(
    ("scores", "words"),
    [
        ({"a": None}, "scores: are all None"),
        ({"z": np.ones((1, 2))}, "scores: 'z' is no array of the network, whose arrays are a,"),
        ({"a": np.ones((3, 6))}, r"scores of a: \(3, 6\) is not \(G, \*\(3, 6\)\)"),
        ({"a": np.full((1, 3, 6), np.nan)}, "scores of a: are not finite"),
        ({"a": np.ones((1, 3, 6)), "b": np.ones((2, 6, 4))}, "scores of b: .* equally many"),
    ],
)
def test_scores_that_do_not_fit(scores, words):
    _, structures, _ = case("mlp")
    with pytest.raises(ValueError, match=words):
        sum_importance(structures, scores)
