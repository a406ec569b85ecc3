"""SLR and ADMM against traces of the authors' code, and their projections."""

import numpy as np
import pytest

from fairgrape_jax.systems import projections, slr
from fairgrape_jax.systems.options import Approach
from tests.helpers.related import golden, to_ours, to_torch

KINDS = {"irregular": "irregular", "filter": "filter", "pattern": "pattern"}
LAYERS = ("l1", "l2")
OPTIONS = Approach(rho=0.1, step=0.01, m=300, r=0.1)


def loop(kind, variant, *, method="slr"):
    """The authors' loop on their toy problem: a row of what is compared for every epoch.

    `variant` "released" has both of the code's defects, "copied" the multipliers' graph alone: the
    penalty's gradient is multiplied by 1 + (sum of all accepted steps) / rho (of ADMM, by 1 + the
    number of updates).
    """
    file = golden("04_slr")
    ratios = file[f"{kind}.ratios"]

    def project(layers):
        pairs = zip(layers, ratios, strict=True)
        return [projections.PROJECTIONS[kind](w, q) for w, q in pairs]

    weights = [to_ours(file[f"W0.{name}"]) for name in LAYERS]
    curvature = [to_ours(file[f"h.{name}"]) for name in LAYERS]
    targets = [[to_ours(t) for t in file[f"T.{name}"]] for name in LAYERS]
    momentum = [np.zeros_like(w) for w in weights]
    state = slr.begin(OPTIONS, weights, project)
    grown, losses, rows = 0.0, [0.0, 0.0], []
    for epoch, scale in enumerate(file["c"]):
        values = []
        for batch in range(4):
            pairs = [(w - t[batch], h) for w, t, h in zip(weights, targets, curvature, strict=True)]
            values.append(float(scale * sum((h * d**2).sum() / 2 for d, h in pairs)))
            lower = None
            if batch == 0 and epoch and method == "admm":
                state, grown = slr.admm_update(OPTIONS, state, weights, project), grown + 1
            elif batch == 0 and epoch:
                before, count = state, state.accepted
                state, lower = slr.update(
                    OPTIONS, state, weights, losses, project, live=variant == "released"
                )
                grown += steps_of(before, state, count, lower) / OPTIONS.rho
            if batch == 0:
                rows.append((weights, state, lower, tuple(losses)))
            factor = 1.0 if variant == "intended" else 1 + grown
            new = []
            for i, (apart, h) in enumerate(pairs):
                u = state.multipliers[i] / np.float32(OPTIONS.rho)
                gradient = np.float32(scale) * h * apart
                gradient += np.float32(OPTIONS.rho * factor) * (weights[i] - state.pruned[i] + u)
                momentum[i] = np.float32(file["momentum"]) * momentum[i] + gradient
                new.append((weights[i] - np.float32(file["lr"]) * momentum[i]).astype(np.float32))
            weights = new
        losses = [float(np.mean(values)), losses[0]]
    return rows


def steps_of(before, after, count, lower):
    """The sum of the steps that an update took."""
    number = after.accepted - count
    if number < 2:
        return number * after.step
    return after.step + STEPS.pop()


STEPS: list[float] = []


@pytest.fixture(autouse=True)
def _first_steps(monkeypatch):
    """Where an update takes two steps, the size of the first."""
    plain = slr.take_step

    def noted(options, state, *args):
        new = plain(options, state, *args)
        STEPS[:] = [state.step] if state.accepted > 1 else []
        return new

    monkeypatch.setattr(slr, "take_step", noted)


@pytest.mark.parametrize("variant", ["released", "copied", "intended"])
@pytest.mark.parametrize("kind", KINDS)
def test_fifteen_epochs_are_those_of_the_authors_code(kind, variant):
    file = golden("04_slr")
    rows = loop(kind, variant)
    for epoch, (weights, state, lower, losses) in enumerate(rows):
        name = f"{kind}.{variant}"
        np.testing.assert_allclose(losses[0], file[f"{name}.ce"][epoch], rtol=1e-4)
        np.testing.assert_allclose(losses[1], file[f"{name}.ce_prev"][epoch], rtol=1e-4)
        assert state.accepted == file[f"{name}.k"][epoch]
        np.testing.assert_allclose(state.step, file[f"{name}.s"][epoch], rtol=1e-4)
        if epoch:
            both = (file[f"{name}.cond1"][epoch - 1], file[f"{name}.cond2"][epoch - 1])
            assert tuple(lower) == both
        for i, layer in enumerate(LAYERS):
            for key, leaf in (
                ("W", weights[i]),
                ("Z", state.pruned[i]),
                ("Lambda", state.multipliers[i]),
            ):
                expected = file[f"{name}.{key}.{layer}"][epoch]
                np.testing.assert_allclose(to_torch(leaf), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("variant", ["released", "intended"])
def test_admm_is_that_of_the_authors_code(variant):
    file = golden("04_slr")
    for epoch, (weights, state, _, _) in enumerate(loop("irregular", variant, method="admm")):
        for i, layer in enumerate(LAYERS):
            name = f"irregular.admm_{variant}"
            for key, leaf in (
                ("W", weights[i]),
                ("Z", state.pruned[i]),
                ("U", state.multipliers[i] / np.float32(OPTIONS.rho)),
            ):
                expected = file[f"{name}.{key}.{layer}"][epoch]
                np.testing.assert_allclose(to_torch(leaf), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("fraction", [0.5, 0.7])
@pytest.mark.parametrize("kind", projections.PROJECTIONS)
def test_projections_are_those_of_the_authors_code(kind, fraction):
    file = golden("04_slr")
    found = projections.PROJECTIONS[kind](to_ours(file["projection.x"]), fraction)
    np.testing.assert_array_equal(to_torch(found), file[f"projection.{kind}.{fraction}.y"])
