"""What a run is: the experiment, its checks, its JSON, and what differs between methods."""

from fairgrape_jax.config.environment import check_flags, flag_differences, numeric_flags
from fairgrape_jax.config.experiment import (
    Checkpoints,
    Clusters,
    Embedding,
    Epoch,
    Execution,
    Experiment,
    Form,
    KeepLast,
    Point,
    Rollback,
    Scoring,
    Stage,
    densities,
)
from fairgrape_jax.config.serialize import (
    FORMAT,
    Stored,
    check_types,
    from_dict,
    identity,
    load,
    read,
    to_dict,
)
from fairgrape_jax.config.validate import LARGEST, check, check_name

__all__ = [
    "FORMAT",
    "LARGEST",
    "Checkpoints",
    "Clusters",
    "Embedding",
    "Epoch",
    "Execution",
    "Experiment",
    "Form",
    "KeepLast",
    "Point",
    "Rollback",
    "Scoring",
    "Stage",
    "Stored",
    "check",
    "check_flags",
    "check_name",
    "check_types",
    "densities",
    "flag_differences",
    "from_dict",
    "identity",
    "load",
    "numeric_flags",
    "read",
    "to_dict",
]
