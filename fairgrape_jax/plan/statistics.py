"""The passes over the scoring sample that the methods of a run ask for."""

from __future__ import annotations

import contextlib
from typing import Any

import jax
import numpy as np

from fairgrape_jax import config
from fairgrape_jax.masks import Tree
from fairgrape_jax.methods import Problem
from fairgrape_jax.plan.shapes import Shapes
from fairgrape_jax.scoring.statistics import GRADIENT, SQUARES, Statistic


class _EnoughSeenError(Exception):
    """A method has requested for its samples, and what it makes of them is not looked at."""


def statistics_of(shapes: Shapes) -> list[tuple[Statistic, Any, Tree, list[str]]]:
    """The passes over the scoring sample that the methods of an experiment ask for.

    Each method is put to a network of zeros, and what it asks for is written down.

    Args:
        shapes: of the network, its data and its devices.

    Returns:
        Of each pass the statistic, over what it is averaged, its extra arrays, and the methods that
        ask for it.
    """
    experiment, dataset = shapes.session.experiment, shapes.session.dataset
    requested: list[tuple[str, Statistic, Any, Tree]] = []

    def zeros(tree: Tree, lead: tuple[int, ...] = ()) -> Tree:
        return jax.tree.map(
            lambda x: np.broadcast_to(np.zeros((), x.dtype), (*lead, *x.shape)), tree
        )

    for method in experiment.methods:

        def average(
            statistic: Statistic,
            over: Any = "all",
            extra: Tree = None,
            params: Tree = None,
            method: str = method,
        ) -> Tree:
            requested.append((method, statistic, over, extra))
            rows = len(dataset.groups) if over == "groups" else 1
            masks = shapes.network.masks
            floats = jax.tree.map(lambda m: jax.ShapeDtypeStruct(m.shape, np.float32), masks)
            return zeros(floats, (rows,))

        def importance(over: Any, method: str = method) -> Tree:
            squares = experiment.scoring.formula == "sum-of-squares"
            requested.append((method, SQUARES if squares else GRADIENT, over, None))
            raise _EnoughSeenError

        row = config.row_of(experiment, method)
        if not {"scores", "a loss", "a run"} & set(row.needs):
            continue
        question = Problem(
            params=zeros(shapes.network.state.params),
            masks=zeros(shapes.network.masks),
            importance=importance,
            average=average,
            module=shapes.session.steps.module,
            batch_stats=zeros(shapes.network.state.batch_stats),
            shape=dataset.shape,
            key=jax.random.key(0),
            layers=shapes.session.steps.layers,
            groups=len(dataset.groups),
            minority=(0,),
            official=experiment.protocol == "official",
        )
        with contextlib.suppress(_EnoughSeenError):
            row.score(question)
    passes: list[tuple[Statistic, Any, Tree, list[str]]] = []
    for method, statistic, over, extra in requested:
        kind = "groups" if over == "groups" else "all"
        for known, known_over, _, methods in passes:
            if known == statistic and ("groups" if known_over == "groups" else "all") == kind:
                methods.append(method)
                break
        else:
            passes.append((statistic, over, extra, [method]))
    return passes
