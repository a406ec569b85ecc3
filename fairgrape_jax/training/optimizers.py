"""The table of optimizers, each a direction before the learning rate.

The rate is an argument of the step. With `optax.inject_hyperparams` it would be part of the
optimizer's state, and so of every checkpoint: those of before could not be restored.
"""

from __future__ import annotations

from collections.abc import Callable

import optax


def sgd(momentum: float, weight_decay: float) -> optax.GradientTransformation:
    """SGD with momentum and coupled weight decay, before the learning rate.

    Args:
        momentum: SGD's momentum, Adam's decay of the first moment.
        weight_decay: its factor.
    """
    return optax.chain(optax.add_decayed_weights(weight_decay), optax.trace(momentum))


def adam(momentum: float, weight_decay: float) -> optax.GradientTransformation:
    """Adam with L2 weight decay in the gradient (torch's Adam), before the learning rate.

    Args:
        momentum: SGD's momentum, Adam's decay of the first moment.
        weight_decay: its factor.
    """
    return optax.chain(optax.add_decayed_weights(weight_decay), optax.scale_by_adam(b1=momentum))


def adamw(momentum: float, weight_decay: float) -> optax.GradientTransformation:
    """Adam with decoupled weight decay, before the learning rate.

    Args:
        momentum: SGD's momentum, Adam's decay of the first moment.
        weight_decay: its factor.
    """
    return optax.chain(optax.scale_by_adam(b1=momentum), optax.add_decayed_weights(weight_decay))


# An optimizer gives directions; the learning rate is an input of the step, so that stages at
# different rates share one compiled step.
OPTIMIZERS: dict[str, Callable[[float, float], optax.GradientTransformation]] = {
    "adam": adam,
    "adamw": adamw,
    "sgd": sgd,
}
