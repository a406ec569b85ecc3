"""Per-group importance against torch's numbers and closed forms, by every layout and execution."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fairgrape_jax import losses, masks, models
from fairgrape_jax.models.torchvision import NETWORKS
from fairgrape_jax.scoring import importance
from tests.helpers.golden_networks import CLASSES, GOLDEN, SEED, golden_state


@cache
def golden_importance(name, dtype="float32"):
    """Importance of each golden group, as torch names its layers: {layer: (3, *torch shape)}."""
    rng = np.random.default_rng(SEED)
    images = rng.standard_normal((12, 3, 64, 64)).transpose(0, 2, 3, 1).astype(dtype)
    labels = rng.integers(0, 7, 12)[:, None]
    np.testing.assert_array_equal(labels[:, 0], GOLDEN["labels"])
    variables = models.from_torchvision(name, golden_state(name))
    variables = jax.tree.map(lambda leaf: np.asarray(leaf, dtype), variables)
    module = models.create(name, CLASSES, dtype=dtype)
    alive = masks.full_masks(variables["params"])

    @jax.jit  # one group a call: a third of the program to compile
    def of_group(variables, valid):
        def loss(params, images, labels, valid):
            logits = module.apply({**variables, "params": params}, images)
            return losses.masked_mean(losses.cross_entropy(logits, labels, [CLASSES]), valid)

        params = variables["params"]
        batch = {"images": images, "labels": labels, "members": valid[None], "form": "mixed"}
        return importance.group_importance(loss, params, alive, **batch, execution="unroll")

    found = {}
    for group in range(3):
        tree = of_group(variables, jnp.asarray(GOLDEN["groups"] == group))
        one = jax.tree.map(lambda leaf: leaf[0], tree)
        # The inverse conversion wants every leaf; biases and norms go along as they are.
        filled = masks.map_masked(
            lambda m, i, p: p if m is None else i, alive, one, variables["params"]
        )
        torch = models.to_torchvision(name, {**variables, "params": filled})
        for layer in GOLDEN[f"{name}.layers"]:
            found.setdefault(str(layer), []).append(torch[str(layer)])
    return found


def sum_errors(name, dtype="float32"):
    """Relative error of the importance of each group (3 rows) in each layer, against torch's."""
    ours = golden_importance(name, dtype).values()
    sums = [[np.sum(group, dtype=np.float64) for group in layer] for layer in ours]
    return np.abs(np.array(sums).T / GOLDEN[f"{name}.importance_by_group"] - 1)


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.slow] * (n != "resnet18")) for n in NETWORKS],
)
def test_importance_is_that_of_torch_autograd(name):
    """The golden values are float64; where float32 flips a ReLU, layers before it feel it."""
    errors = sum_errors(name)
    assert errors.max() < 2e-2
    assert np.mean(errors < 1e-4, axis=1).min() > 0.6  # one flip reaches a part of one group
    assert np.sum(np.all(errors < 1e-4, axis=1)) >= 2  # and the other groups not at all


def layer_errors(name):
    """Distance over norm of the whole first and last layer of each group, against torch's."""
    layers = list(golden_importance(name))
    errors = []
    for place, layer in (("first", layers[0]), ("last", layers[-1])):
        for group, ours in enumerate(golden_importance(name)[layer]):
            expected = GOLDEN[f"{name}.{place}.{group}"]
            errors.append(np.linalg.norm(ours - expected) / np.linalg.norm(expected))
    return np.array(errors)


@pytest.mark.slow  # compiles four networks in all; each by itself is looked at above
@pytest.mark.parametrize("errors_of", [sum_errors, layer_errors])
def test_nearly_all_of_all_networks_is_within_1e_4_and_all_within_2e_2(errors_of):
    errors = np.concatenate([errors_of(name).ravel() for name in NETWORKS])
    assert np.mean(errors < 1e-4) >= 0.95
    assert errors.max() < 2e-2


@pytest.mark.slow
def test_in_float64_no_relu_flips_and_every_sum_is_torchs():
    """ResNet-34 has the one flip in float32: here its 37 layers and 3 groups agree, all of them."""
    with jax.enable_x64(True):
        assert sum_errors("resnet34", "float64").max() < 1e-6


def linear(groups=3, size=5, seed=0):
    """A linear softmax classifier, whose gradients are known: mean of (p - y) x."""
    rng = np.random.default_rng(seed)
    params = {"kernel": rng.normal(size=(6, 4)).astype(np.float32), "bias": np.zeros(4, np.float32)}
    images = rng.normal(size=(groups, size, 6)).astype(np.float32)
    labels = rng.integers(0, 4, (groups, size, 1))
    valid = np.ones((groups, size), bool)
    valid[1, 3:] = False

    def loss(params, images, labels, valid):
        logits = images @ params["kernel"] + params["bias"]
        return losses.masked_mean(losses.cross_entropy(logits, labels, [4]), valid)

    return loss, params, images, labels, valid


@pytest.mark.parametrize("execution", ["vmap", "unroll", "scan"])
def test_closed_form_of_a_linear_classifier(execution):
    loss, params, images, labels, valid = linear()
    alive = masks.full_masks(params)
    alive["kernel"][2, 1] = False
    batch = {"images": images, "labels": labels, "members": valid, "form": "pure"}
    found = importance.group_importance(loss, params, alive, **batch, execution=execution)
    assert found["bias"] is None
    for k in range(3):
        x, y = images[k][valid[k]], labels[k][valid[k], 0]
        p = np.exp(x @ params["kernel"])
        p /= p.sum(axis=1, keepdims=True)
        gradient = x.T @ (p - np.eye(4)[y]) / len(x)
        expected = np.where(alive["kernel"], (params["kernel"] * gradient) ** 2, 0)
        np.testing.assert_allclose(found["kernel"][k], expected, rtol=2e-4, atol=1e-9)


@pytest.mark.parametrize("execution", ["vmap", "unroll", "scan"])
def test_a_mixed_batch_through_masks_equals_group_pure_batches(execution):
    loss, params, images, labels, valid = linear(size=4)
    alive = masks.full_masks(params)
    batch = {"images": images, "labels": labels, "members": valid}
    pure = importance.group_importance(loss, params, alive, **batch, form="pure")
    group = np.where(valid, np.arange(3)[:, None], -1).reshape(-1)
    batch = {"images": images.reshape(12, 6), "labels": labels.reshape(12, 1), "form": "mixed"}
    for members, count in ((group == np.arange(3)[:, None], None), (group, 3)):
        mixed = importance.group_importance(
            loss, params, alive, **batch, members=members, num_groups=count, execution=execution
        )
        np.testing.assert_allclose(mixed["kernel"], pure["kernel"], rtol=1e-5)


def test_one_forward_pass_and_a_way_back_for_each_group():
    loss, params, images, labels, valid = linear(size=4)
    members = (np.repeat(np.arange(3), 4) == np.arange(3)[:, None]) & valid.reshape(-1)
    batch = images.reshape(12, 6), labels.reshape(12, 1), members
    forward_passes = []

    def losses_of_groups(params, images, labels, members):
        forward_passes.append(1)
        return jax.vmap(loss, (None, None, None, 0))(params, images, labels, members)

    means, gradient = importance.mixed_gradients(losses_of_groups, params, *batch)
    named = dict(zip(("images", "labels", "members"), batch, strict=True))
    expected = importance.group_gradients(loss, params, **named, form="mixed")
    for k in range(3):
        np.testing.assert_allclose(means[k], loss(params, *batch[:2], members[k]), rtol=1e-6)
        np.testing.assert_allclose(gradient(k)["kernel"], expected["kernel"][k], atol=1e-6)
    assert len(forward_passes) == 1


def test_a_group_without_samples_gets_zeros():
    loss, params, images, labels, valid = linear()
    valid[2] = False
    alive = masks.full_masks(params)
    batch = {"images": images, "labels": labels, "members": valid, "form": "pure"}
    found = importance.group_importance(loss, params, alive, **batch)
    assert np.all(np.asarray(found["kernel"][2]) == 0)
    assert np.all(np.isfinite(found["kernel"]))


BOTH = np.random.default_rng(1).random((4, 6)).astype(np.float32)
IDS, LABELS = np.array([0, 1, 1, 0]), np.zeros((4, 1), int)
MEMBERS = np.arange(2)[:, None] == IDS
# What was guessed from shapes before: (arrays, form, groups, message).
UNCLEAR = {
    "ids of form pure": ((BOTH, LABELS, IDS), "pure", 2, r"members: int.. of shape \(4,\)"),
    "ids without their number": ((BOTH, LABELS, IDS), "mixed", None, "num_groups: how many"),
    "float ids": ((BOTH, LABELS, IDS * 1.0), "mixed", 2, "members: float"),
    "ids of each group": ((BOTH, LABELS, MEMBERS * 1), "mixed", 2, r"of shape \(2, 4\)"),
    "bool of one axis": ((BOTH, LABELS, IDS > 0), "mixed", 2, "who belongs to each group"),
    "ids too high": ((BOTH, LABELS, IDS + 1), "mixed", 2, "groups 1 to 2; 0 to 1 are expected"),
    "ids too low": ((BOTH, LABELS, IDS - 2), "mixed", 2, "groups -2 to -1"),
    "another number": ((BOTH, LABELS, MEMBERS), "mixed", 4, "2 groups, but num_groups is 4"),
    "a mixed batch of form pure": ((BOTH, LABELS, MEMBERS), "pure", None, "images .* form 'pure'"),
    "sub-batches of form mixed": (
        (np.stack([BOTH] * 2), np.stack([LABELS] * 2), MEMBERS), "mixed", None, "images .* 'mixed'"
    ),
    "labels of another batch": ((BOTH, LABELS[:3], MEMBERS), "mixed", None, "labels .* 'mixed'"),
    "no form": ((BOTH, LABELS, MEMBERS), "guess", None, "'guess' is neither"),
}  # fmt: skip


@pytest.mark.parametrize("name", UNCLEAR)
def test_shapes_decide_nothing_silently(name):
    arrays, form, groups, message = UNCLEAR[name]
    loss, params, *_ = linear()
    batch = dict(zip(("images", "labels", "members"), arrays, strict=True))
    with pytest.raises(ValueError, match=message):
        importance.group_importance(
            loss, params, masks.full_masks(params), **batch, form=form, num_groups=groups
        )


def test_labels_of_two_axes_are_of_the_form_that_is_named():
    """(G, b) labels with (G, b) members, of as many groups as samples: every shape fits both."""
    rng = np.random.default_rng(0)
    images, labels = rng.random((4, 4, 6)).astype(np.float32), rng.integers(0, 4, (4, 4))
    members = rng.random((4, 4)) < 0.7
    members[:, 0] = True
    kernel = {"kernel": rng.normal(size=(6, 4)).astype(np.float32)}

    def loss(params, images, labels, valid):
        each = -jnp.take_along_axis(
            jax.nn.log_softmax(images @ params["kernel"]), labels[:, None], axis=1
        )
        return losses.masked_mean(each[:, 0], valid)

    batch = {"images": images, "labels": labels, "members": members}
    gradients = importance.group_gradients(loss, kernel, **batch, form="pure")["kernel"]
    for k in range(4):
        alone = jax.grad(loss)(kernel, images[k], labels[k], members[k])["kernel"]
        np.testing.assert_allclose(gradients[k], alone, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_importance_of_half_floats_is_that_of_their_values(dtype):
    """In half floats (w g)^2 of every weight here would be 0."""
    loss, params, images, labels, valid = linear()
    narrow = jax.tree.map(lambda leaf: jnp.asarray(leaf * 1e-3, dtype), params)
    wide = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), narrow)
    batch = {"images": images * 1e-2, "labels": labels, "members": valid, "form": "pure"}
    found, expected = (
        importance.group_importance(loss, each, masks.full_masks(params), **batch)["kernel"]
        for each in (narrow, wide)
    )
    assert found.dtype == jnp.float32
    assert np.all(found > 0)
    assert np.max(expected) < 6e-8  # the least float16
    np.testing.assert_allclose(found, expected, rtol=0.1, atol=1e-3 * np.max(expected))


def test_no_groups_have_importance_of_no_rows():
    loss, params, images, labels, _ = linear()
    batch = {"images": images[0], "labels": labels[0], "members": np.zeros((0, 5), bool)}
    for execution in ("vmap", "unroll", "scan"):
        found = importance.group_importance(
            loss, params, masks.full_masks(params), **batch, form="mixed", execution=execution
        )
        assert found["kernel"].shape == (0, 6, 4)
