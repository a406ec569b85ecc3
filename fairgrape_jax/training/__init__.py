"""Training: optimizers, one step, one epoch, the check for finite numbers, and evaluation."""

from fairgrape_jax.training.epoch import train_epoch
from fairgrape_jax.training.finite import NotFinite, NotFiniteError, StepReport
from fairgrape_jax.training.optimizers import OPTIMIZERS, adam, adamw, sgd
from fairgrape_jax.training.state import Carry, State, init_state
from fairgrape_jax.training.step import make_train_step, run

__all__ = [
    "OPTIMIZERS",
    "Carry",
    "NotFinite",
    "NotFiniteError",
    "State",
    "StepReport",
    "adam",
    "adamw",
    "init_state",
    "make_train_step",
    "run",
    "sgd",
    "train_epoch",
]
