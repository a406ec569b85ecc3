"""What a device's memory was wanted for when there was no more of it."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Iterator

import jax

from fairgrape_jax.errors import TrainingError


class OutOfMemoryError(TrainingError):
    """A device has no memory left. what: training, scoring, evaluation or "the network"."""

    def __init__(self, what: str, reason: str = "") -> None:
        super().__init__(f"{what}: out of device memory ({reason})")
        self.what, self.reason = what, reason


@contextlib.contextmanager
def name_phase(what: str) -> Iterator[None]:
    """Turn XLA's RESOURCE_EXHAUSTED within the body into OutOfMemoryError.

    What the failed calls held is let go of: a smaller batch can be tried in its place.

    >>> with contextlib.suppress(OutOfMemoryError), name_phase("training"):
    ...     raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if not is_out_of_memory(error):
            raise
        traceback.clear_frames(error.__traceback__)
        reason = str(error).splitlines()[0].partition("RESOURCE_EXHAUSTED: ")[2]
        raise OutOfMemoryError(what, reason.rstrip(".")) from None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this is XLA's way to say that a device has no memory left."""
    return isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error)
