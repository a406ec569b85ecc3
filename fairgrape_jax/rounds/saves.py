"""How far a training is, and the saves from which it goes on."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator

import jax

from fairgrape_jax.errors import Preempted
from fairgrape_jax.masks import Tree
from fairgrape_jax.storage.slots import Slots
from fairgrape_jax.training.state import State

EpochRecord = dict[str, float]


@dataclasses.dataclass(frozen=True)
class Place:
    """How far a training is: what a save holds.

    Attributes:
        state: on the devices.
        history: the record of each epoch that is complete.
        best: the state after the epoch of the lowest validation loss in this stage, in NumPy
            arrays; None where none is sought, or yet.
        best_loss: that loss; infinity for none.
        done: steps made of the epoch that is under way.
        total: the sum of their losses.
        trained: the record of an epoch that is trained and not yet evaluated.
        carried: what ingredients carry, on the devices; () for nothing.
    """

    state: State
    history: tuple[EpochRecord, ...] = ()
    best: State | None = None
    best_loss: float = math.inf
    done: int = 0
    total: float = 0.0
    trained: EpochRecord | None = None
    carried: Tree = ()


@contextlib.contextmanager
def save_on_stop(slots: Slots, place: Place) -> Iterator[None]:
    """Save a place if a notice comes while the body looks at what was trained.

    Args:
        slots: where places are saved.
        place: how far the training is.
    """
    try:
        yield
    except Preempted:
        save(slots, place)
        slots.wait()
        raise


def save(slots: Slots, place: Place) -> None:
    """Begin to save a place; the files are written while training goes on.

    Args:
        slots: where places are saved.
        place: how far the training is.
    """
    has_best = place.best is not None
    metadata = {"history": list(place.history), "done": place.done, "total": place.total}
    metadata |= {"trained": place.trained, "best_loss": place.best_loss if has_best else None}
    metadata |= {"step": int(place.state.step)}
    tree = {"state": place.state, "best": place.best if has_best else place.state}
    slots.save(tree | carried_part(place.carried), metadata)


def carried_part(carried: Tree) -> dict[str, Tree]:
    """What a save holds of what ingredients carry; nothing where they carry nothing.

    Args:
        carried: by name, or ().
    """
    return {"carried": carried} if jax.tree.leaves(carried) else {}
