"""What a run is: the experiment, its checks, its JSON, and what differs between methods."""

from fairgrape_jax.config.environment import check_flags, flag_differences, numeric_flags
from fairgrape_jax.config.experiment import (
    FORMAT,
    LARGEST,
    PLACE,
    Experiment,
    Form,
    Rollback,
    Scoring,
    Stage,
    clusters,
    densities,
    kept,
    known,
    point,
)
from fairgrape_jax.config.serialize import (
    Stored,
    check_types,
    from_dict,
    identity,
    load,
    read,
    to_dict,
)
from fairgrape_jax.config.validate import check, check_remedy

__all__ = [
    "FORMAT",
    "LARGEST",
    "PLACE",
    "Experiment",
    "Form",
    "Rollback",
    "Scoring",
    "Stage",
    "Stored",
    "check",
    "check_flags",
    "check_remedy",
    "check_types",
    "clusters",
    "densities",
    "flag_differences",
    "from_dict",
    "identity",
    "kept",
    "known",
    "load",
    "numeric_flags",
    "point",
    "read",
    "to_dict",
]
