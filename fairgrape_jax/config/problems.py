"""What is wrong with a field of an experiment, and how it is said."""

from __future__ import annotations

# What `problems` of a dataclass yields: the field, and what is wrong with it. `config.check` looks
# at every part of an experiment and raises the first, with the path of the field.
Problem = tuple[str, str]


def below(value: float, least: int) -> str:
    """That a value is too small.

    Args:
        value: of a field.
        least: what it may be.
    """
    return f"{value} is less than {least}" if least else f"{value} is negative"


def outside(value: float) -> str:
    """That a value is not within 0 and 1.

    Args:
        value: of a field.
    """
    return f"{value} is not between 0 and 1 (both excluded)"
