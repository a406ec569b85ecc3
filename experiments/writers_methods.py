"""Every method for single weights on handwriting of two populations, to a hundredth of them.

As experiments/writers.py, with all rows of the table of methods but `structured`, which prunes
whole filters, and those of whole structures, five seeds, and a schedule that stops at 10, 5, 2 and
1 % of the weights; the equal protocol. docs/results/writers.md has what came out.

Command:  fairgrape run experiments/writers_methods.py
          (with --shard 0/4 to --shard 3/4 in four processes: a quarter of the runs each)
Expected: an hour or two on 2 cores.
"""

import dataclasses

from writers import EXPERIMENT as WRITERS

from fairgrape_jax.methods import METHODS

EXPERIMENT = dataclasses.replace(
    WRITERS,
    methods=tuple(
        name for name, row in METHODS.items() if name != "structured" and not row.of_structures
    ),
    densities=(0.7, 0.5, 0.35, 0.25, 0.18, 0.14, 0.1, 0.07, 0.05, 0.035, 0.027, 0.02, 0.014, 0.01),
    seeds=(0, 1, 2, 3, 4),
)
