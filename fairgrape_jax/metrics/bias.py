"""How compression moves errors between classes or groups: CEV, SDE, and the samples hit (PIE).

CEV (combined error variance) and SDE (symmetric distance error) look at the relative change of the
false positive and the false negative rate of each class, a point in the plane: CEV is how far the
points lie from their centre, SDE how far from the line on which both rates change alike.

Two conventions are published. "simon-says" (Blakeney et al., arXiv 2106.07849): changes in percent,
CEV halved (the mean over both coordinates), SDE over sqrt(2) (the distance to the line).
"measure-twice" (Blakeney et al., arXiv 2110.04397): changes as fractions, CEV and SDE plain.
So CEV of the first is 5,000 times, SDE 100 / sqrt(2) times, that of the second.

A relative change is undefined where the dense model's rate is zero: such a class (or group) takes
no part, and `classes_excluded` and `groups_excluded` count them. If none is left, both are NaN.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Integer

from fairgrape_jax.metrics.counts import (
    Counts,
    Value,
    class_rates,
    group_fnr,
    group_fpr,
    known_mean,
)

Convention = Literal["simon-says", "measure-twice"]
# Relative changes of FPR and FNR of each class or group, fractions.
Changes = Float[np.ndarray, "... _row 2"]


def relative_changes(
    rates: Float[np.ndarray, "*rows 2"], base: Float[np.ndarray, "*rows 2"]
) -> Float[np.ndarray, "*rows 2"]:
    """(rates - base) / base of FPR and FNR.

    Args:
        rates: (..., n, 2), FPR and FNR of each class or group.
        base: (..., n, 2), those of the unpruned model.

    Returns:
        (..., n, 2) fractions; both NaN for a class or group of which one rate is unknown, or zero
        in `base`.

    Example:
        >>> relative_changes(np.array([[3.0, 8.0], [1.0, 1.0]]), np.array([[2.0, 4.0], [0.0, 1.0]]))
        array([[0.5, 1. ],
               [nan, nan]])
    """
    known = ~np.isnan(rates) & ~np.isnan(base) & (base != 0)
    known = known.all(axis=-1, keepdims=True)
    return np.where(known, rates - base, np.nan) / np.where(known, base, 1.0)


def cev(changes: Changes, convention: Convention = "simon-says") -> Value:
    """Combined error variance of relative changes.

    Args:
        changes: (..., n, 2) fractions, of FPR and FNR; NaN rows take no part.
        convention: of the two that are published; see the module.

    Returns:
        (...), NaN where no row is known.

    Raises:
        ValueError: a convention that there is not.

    Source:
        Simon Says (arXiv 2106.07849) and Measure Twice (arXiv 2110.04397).

    Example:
        >>> points = np.array([[0.0, 0.0], [0.2, 0.4]])
        >>> cev(points).round(6), cev(points, "measure-twice").round(6)
        (np.float64(250.0), np.float64(0.05))
    """
    centre = known_mean(np.moveaxis(changes, -2, -1))[..., None, :]
    squared = known_mean(np.square(changes - centre).sum(axis=-1))
    return squared * (100.0**2 / 2 if _simon_says(convention) else 1.0)


def sde(changes: Changes, convention: Convention = "simon-says") -> Value:
    """Symmetric distance error of relative changes.

    Args:
        changes: (..., n, 2) fractions, of FPR and FNR; NaN rows take no part.
        convention: of the two that are published; see the module.

    Returns:
        (...), NaN where no row is known.

    Raises:
        ValueError: a convention that there is not.

    Source:
        Simon Says (arXiv 2106.07849) and Measure Twice (arXiv 2110.04397).

    Example:
        >>> points = np.array([[0.0, 0.0], [0.2, 0.4]])
        >>> sde(points).round(3), sde(points, "measure-twice").round(6)
        (np.float64(7.071), np.float64(0.1))
    """
    distance = known_mean(np.abs(changes[..., 0] - changes[..., 1]))
    return distance * (100.0 / np.sqrt(2) if _simon_says(convention) else 1.0)


def _simon_says(convention: Convention) -> bool:
    if convention not in ("simon-says", "measure-twice"):
        raise ValueError(f"convention: {convention!r} is neither 'simon-says' nor 'measure-twice'")
    return convention == "simon-says"


def class_changes(counts: Counts, dense: Counts) -> list[Changes]:
    """Relative changes of FPR and FNR of each class.

    Args:
        counts: of each task (..., G, C, 3); summed over several models of the same samples they
            give the changes of the models' mean rates.
        dense: those of the unpruned model, of the same shape.

    Returns:
        Of each task (..., C, 2) fractions.
    """

    def rates(table: np.ndarray) -> np.ndarray:
        return np.stack(class_rates(table.sum(axis=-3)), axis=-1)

    return [relative_changes(rates(a), rates(b)) for a, b in zip(counts, dense, strict=True)]


def group_changes(counts: Counts, dense: Counts) -> Changes:
    """Relative changes of `group_fpr` and `group_fnr`.

    Args:
        counts: of each task (..., G, C, 3).
        dense: those of the unpruned model, of the same shape.

    Returns:
        (..., G, 2) fractions.
    """

    def rates(counts: Counts) -> np.ndarray:
        return np.stack([group_fpr(counts), group_fnr(counts)], axis=-1)

    return relative_changes(rates(counts), rates(dense))


def cev_classes(counts: Counts, dense: Counts, convention: Convention = "simon-says") -> Value:
    """CEV over classes: how unevenly their error rates changed.

    Args:
        counts: of each task (..., G, C, 3).
        dense: those of the unpruned model, of the same shape.
        convention: of the two that are published; see the module.

    Returns:
        (...) percent squared, the mean over tasks.
    """
    return np.mean([cev(x, convention) for x in class_changes(counts, dense)], axis=0)


def sde_classes(counts: Counts, dense: Counts, convention: Convention = "simon-says") -> Value:
    """SDE over classes: how differently FPR and FNR changed.

    Args:
        counts: of each task (..., G, C, 3).
        dense: those of the unpruned model, of the same shape.
        convention: of the two that are published; see the module.

    Returns:
        (...) percent, the mean over tasks.
    """
    return np.mean([sde(x, convention) for x in class_changes(counts, dense)], axis=0)


def cev_groups(counts: Counts, dense: Counts, convention: Convention = "simon-says") -> Value:
    """CEV over groups: how unevenly their error rates changed.

    Args:
        counts: of each task (..., G, C, 3).
        dense: those of the unpruned model, of the same shape.
        convention: of the two that are published; see the module.

    Returns:
        (...) percent squared.
    """
    return cev(group_changes(counts, dense), convention)


def sde_groups(counts: Counts, dense: Counts, convention: Convention = "simon-says") -> Value:
    """SDE over groups: how differently FPR and FNR changed.

    Args:
        counts: of each task (..., G, C, 3).
        dense: those of the unpruned model, of the same shape.
        convention: of the two that are published; see the module.

    Returns:
        (...) percent.
    """
    return sde(group_changes(counts, dense), convention)


def classes_excluded(counts: Counts, dense: Counts) -> np.ndarray:
    """Classes that CEV and SDE leave out: a base rate is zero, or a rate is unknown.

    Args:
        counts: of each task (..., G, C, 3).
        dense: those of the unpruned model, of the same shape.

    Returns:
        (...) int, over all tasks.
    """
    return np.sum([np.isnan(x).any(axis=-1).sum(-1) for x in class_changes(counts, dense)], axis=0)


def groups_excluded(counts: Counts, dense: Counts) -> np.ndarray:
    """Groups that CEV and SDE leave out: a base rate is zero, or a rate is unknown.

    Args:
        counts: of each task (..., G, C, 3).
        dense: those of the unpruned model, of the same shape.

    Returns:
        (...) int.
    """
    return np.isnan(group_changes(counts, dense)).any(axis=-1).sum(axis=-1)


def pies(
    compressed: Integer[np.ndarray, "model sample"],
    dense: Integer[np.ndarray, " sample"] | Integer[np.ndarray, "_dense sample"],
    rule: Literal["all", "modal"] = "all",
) -> Bool[np.ndarray, " sample"]:
    """Pruning-identified exemplars: the samples on which compression changed the prediction.

    Args:
        compressed: (M, N) int, predictions of M models.
        dense: (N,) or (D, N) int, of the unpruned ones.
        rule: "all": every compressed model differs from its dense one (D is 1 or M). "modal": the
            most frequent prediction of the compressed models differs from that of the dense ones;
            of equally frequent classes the lowest counts.

    Returns:
        (N,) bool.

    Raises:
        ValueError: for "all", dense models that are neither one nor as many as the compressed.

    Source:
        "all" is what Simon Says (arXiv 2106.07849) computes; "modal" Hooker et al. (arXiv
        1911.05248).

    Example:
        >>> three = np.array([[1, 0, 2], [1, 0, 1], [1, 1, 0]])
        >>> pies(three, np.array([0, 0, 3])), pies(three, np.array([0, 0, 0]), "modal")
        (array([ True, False,  True]), array([ True, False, False]))
    """
    dense = np.atleast_2d(dense)
    if rule == "all":
        if len(dense) not in (1, len(compressed)):
            raise ValueError(f"pies: {len(dense)} dense models for {len(compressed)} compressed")
        return (compressed != dense).all(axis=0)
    return modal(compressed) != modal(dense)


def modal(predictions: Integer[np.ndarray, "model sample"]) -> Integer[np.ndarray, " sample"]:
    """The most frequent class of each sample.

    Args:
        predictions: (M, N) int, of M models.

    Returns:
        (N,) int, the lowest of equally frequent ones.

    Example:
        >>> modal(np.array([[0, 2], [1, 2], [1, 0], [0, 1]]))
        array([0, 2])
    """
    top = int(predictions.max(initial=0)) + 1
    votes = np.stack([(predictions == model).sum(axis=0) for model in predictions])
    return top - 1 - (votes * top + (top - 1 - predictions)).max(axis=0) % top
