"""What a run is: the experiment, its checks, its JSON, and what differs between methods."""

from fairgrape_jax.config.environment import check_flags, flag_differences, numeric_flags
from fairgrape_jax.config.experiment import (
    Checkpoints,
    Epoch,
    Execution,
    Experiment,
    KeepLast,
    Point,
    Rollback,
    Stage,
)
from fairgrape_jax.config.protocols import apply_protocol, method_of, row_of
from fairgrape_jax.config.registered import (
    Registered,
    check_available,
    check_same,
    describe,
    register,
    used_rows,
)
from fairgrape_jax.config.schedule import densities, retraining
from fairgrape_jax.config.scoring import Clusters, Embedding, Form, Scoring
from fairgrape_jax.config.serialize import (
    FORMAT,
    Stored,
    check_types,
    from_dict,
    identity,
    load,
    load_for_report,
    read,
    to_dict,
)
from fairgrape_jax.config.validate import LARGEST, check, check_name
from fairgrape_jax.config.variants import Variant

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
    "Registered",
    "Rollback",
    "Scoring",
    "Stage",
    "Stored",
    "Variant",
    "apply_protocol",
    "check",
    "check_available",
    "check_flags",
    "check_name",
    "check_same",
    "check_types",
    "densities",
    "describe",
    "flag_differences",
    "from_dict",
    "identity",
    "load",
    "load_for_report",
    "method_of",
    "numeric_flags",
    "read",
    "register",
    "retraining",
    "row_of",
    "to_dict",
    "used_rows",
]
