"""What training changes: the state of a network, and what one step hands to the next."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from fairgrape_jax.data.dataset import Dataset
from fairgrape_jax.masks import Tree
from fairgrape_jax.training.initialise import quick_initializer


class State(NamedTuple):
    """Everything that training changes; with the masks, all that a resumed run needs.

    Attributes:
        params: the parameters, a tree of float32 arrays.
        batch_stats: the running statistics of batch norm.
        opt_state: the optimizer's moments.
        step: () int32, steps since the start of the run.
        epoch: () int32, epochs since the start of the run: the position in the data.
        key: the data of the run's random key; every step folds its number into it.
    """

    params: Tree
    batch_stats: Tree
    opt_state: Tree
    step: jax.Array
    epoch: jax.Array
    key: jax.Array


class Carry(NamedTuple):
    """What a step hands to the next one.

    Attributes:
        state: as it is after the last step whose numbers were all finite.
        finite: () bool, whether those of every step so far were; if not, no step is made any more.
        carried: by the names of ingredients of retraining what they carry from step to step.
    """

    state: State
    finite: Tree = np.True_
    carried: Tree = ()


def init_state(
    module: nn.Module, dataset: Dataset, optimizer: optax.GradientTransformation, seed: int
) -> State:
    """Fresh parameters, statistics and optimizer state, a pure function of the seed.

    Args:
        module: the network.
        dataset: for the shape of a picture.
        optimizer: whose state is made.
        seed: of the parameters and of the run's random key.
    """
    init_key, run_key = jax.random.split(jax.random.key(seed))
    variables = initializer(module, dataset.shape)(init_key)
    params = variables["params"]
    return State(
        params=params,
        batch_stats=variables.get("batch_stats", {}),
        opt_state=quick_initializer(optimizer.init)(params),
        step=jnp.zeros((), jnp.int32),
        epoch=jnp.zeros((), jnp.int32),
        key=jax.random.key_data(run_key),
    )


@functools.cache  # every seed starts anew, but compiles no more than once
def initializer(module: nn.Module, shape: tuple[int, ...]) -> Callable[[jax.Array], Tree]:
    """From a random key to the fresh variables of a network.

    Args:
        module: the network.
        shape: of a picture, (H, W, C).
    """
    return quick_initializer(
        lambda key: module.init(key, jnp.zeros((1, *shape), jnp.float32), train=False)
    )
