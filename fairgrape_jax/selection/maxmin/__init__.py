"""The optimum that FairGRAPE's greedy choice approximates: max-min retention, with a certificate.

Under the relative deficit greedy always serves the group with the smallest retained part
r_k = S_k / T_k (importance kept over importance alive), so it is a heuristic for

    choose K weights that maximise min_k r_k.

Relaxed to fractional weights, the problem has a dual in G variables: for lambda on the simplex,

    D(lambda) = sum of the K largest of sum_k lambda_k I[k, w] / T_k  >=  the optimum,

convex and piecewise linear, with the retained parts of the K chosen weights as a subgradient.
Where greedy looks at a maximum over groups, this looks at a weighted sum.

bundle.py minimises D, given its cuts; search.py searches a layer; rounding.py makes whole weights
of the minimum, in float64, on the host; tree.py does so for a network, the passes over its large
layers being one program on the devices.
"""

from __future__ import annotations

from fairgrape_jax.selection.maxmin.choice import certified_maxmin, select_maxmin
from fairgrape_jax.selection.maxmin.rounding import Certificate
from fairgrape_jax.selection.maxmin.tree import maxmin_tree

__all__ = [
    "Certificate",
    "certified_maxmin",
    "maxmin_tree",
    "select_maxmin",
]
