"""The two ways in which a run is stopped on purpose."""


class UsageError(ValueError):
    """A request that cannot be met. The message is one line that names the thing and the cure."""


class TrainingError(RuntimeError):
    """A run that must not go on (a loss that is not finite). What was completed before stays."""
