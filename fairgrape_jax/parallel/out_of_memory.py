"""Out-of-memory errors of a device, with the phase of the run that met them."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Iterator

import jax

from fairgrape_jax.errors import TrainingError


class OutOfMemoryError(TrainingError):
    """A device has no memory left.

    Attributes:
        phase: training, scoring, evaluation or "the network".
        reason: what XLA says of it.
    """

    def __init__(self, phase: str, reason: str = "") -> None:
        super().__init__(f"{phase}: out of device memory ({reason})")
        self.phase, self.reason = phase, reason


@contextlib.contextmanager
def name_phase(phase: str) -> Iterator[None]:
    """Turn XLA's RESOURCE_EXHAUSTED within the body into OutOfMemoryError of a phase.

    What the failed calls held is let go of: a smaller batch can be tried in its place.

    Args:
        phase: of the run, in a word.

    Example:
        >>> with contextlib.suppress(OutOfMemoryError), name_phase("training"):
        ...     raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if not is_out_of_memory(error):
            raise
        traceback.clear_frames(error.__traceback__)
        raise OutOfMemoryError(phase, first_reason(str(error))) from None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this is how XLA reports that a device has no memory left.

    Args:
        error: what was raised.
    """
    return isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error)


def first_reason(text: str) -> str:
    """The first line that says why, in XLA's report of a device without memory.

    On a GPU the status stands below other lines, and may end its own.

    Args:
        text: the message of the error.

    Example:
        >>> first_reason("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes.\\nBuffers: ...")
        'Out of memory allocating 8 bytes'
        >>> first_reason("Autotuning failed:\\nRESOURCE_EXHAUSTED: \\n\\nOut of memory.\\n")
        'Out of memory'
    """
    lines = text.partition("RESOURCE_EXHAUSTED:")[2].splitlines()
    return next((line.strip().rstrip(".") for line in lines if line.strip()), "")
