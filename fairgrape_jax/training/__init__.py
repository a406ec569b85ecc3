"""Training: optimizers, one step, one epoch, the check for finite numbers, and evaluation."""

from fairgrape_jax.training.epoch import checked, train_epoch
from fairgrape_jax.training.optimizers import OPTIMIZERS, adam, adamw, sgd
from fairgrape_jax.training.step import State, init_state, make_train_step, run, together

__all__ = [
    "OPTIMIZERS",
    "State",
    "adam",
    "adamw",
    "checked",
    "init_state",
    "make_train_step",
    "run",
    "sgd",
    "together",
    "train_epoch",
]
