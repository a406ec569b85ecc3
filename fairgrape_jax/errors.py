"""The ways in which a run is stopped on purpose."""


class UsageError(ValueError):
    """A request that cannot be met. The message is one line that names the thing and the cure."""


class TrainingError(RuntimeError):
    """A run that must not go on (a loss that is not finite). What was completed before stays."""


class Preempted(Exception):  # noqa: N818 (no error, but a stop that was asked for)
    """The machine is wanted back: the run has saved its place, and ends. The message says where."""
