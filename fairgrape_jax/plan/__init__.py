"""What a run will need on devices that are not here: its programs compiled ahead of time.

`fairgrape plan` is `make_plan` on an experiment: each program is lowered and compiled in a process
of its own for abstract devices (targets.py), its text and memory are read (compiled.py, hlo.py),
and the chip's data sheet (chips.py) gives the least time that it takes (floors.py).
"""

from fairgrape_jax.plan.described import Description, describe
from fairgrape_jax.plan.planning import Options, Plan, check_fit, make_plan, to_json
from fairgrape_jax.plan.requests import Request
from fairgrape_jax.plan.targets import Target, parse
from fairgrape_jax.plan.text import text

__all__ = [
    "Description",
    "Options",
    "Plan",
    "Request",
    "Target",
    "check_fit",
    "describe",
    "make_plan",
    "parse",
    "text",
    "to_json",
]
