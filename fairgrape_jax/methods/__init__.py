"""Pruning methods: one small file each, and one row in METHODS.

A method scores every weight, from the network, its masks, averages over the scoring sample, and a
key; see `methods.base`. Allocation, counts, ties, nesting, schedule and retraining are shared.
The tests that run over this table check a new row by themselves (docs/extending.md).
"""

from fairgrape_jax.methods import (
    autobot,
    autoprune,
    clicktrain,
    fair_lamp,
    fairgrape,
    fairgrape_fisher,
    fairgrape_maxmin,
    fairgrape_min,
    fairprune,
    grasp,
    importance,
    importance_normalised,
    layerwise,
    lottery,
    magnitude,
    random_scores,
    rigl,
    snip,
    stripes,
    structured,
    synflow,
    taylor_filters,
    undecayed,
)
from fairgrape_jax.methods.base import Method, Preparation, Problem, check_row
from fairgrape_jax.methods.minority import restrict_to_minority
from fairgrape_jax.methods.pruning import prune
from fairgrape_jax.registry import Table
from fairgrape_jax.systems import auxiliary, bottlenecks, lasso, relaxation, skeleton

FAIRGRAPE = Method(
    "each group's share of (w*g)^2 kept", fairgrape.score, fairgrape.choose, needs=("scores",)
)
SNIP = Method("largest |w*g|", snip.score, needs=("a loss",))
GRASP = Method("least -w*Hg: the flow of gradient kept", grasp.score, needs=("a run",))

_ROWS = {
    "fairgrape": FAIRGRAPE,
    "fairgrape-maxmin": Method(
        "most (w*g)^2 retained for the worst group",
        fairgrape.score,
        fairgrape_maxmin.choose,
        needs=("scores",),
    ),
    "fairgrape-fisher": Method(
        "each group's share of w^2 times its Fisher information kept",
        fairgrape_fisher.score,
        fairgrape_fisher.choose,
        needs=("a run",),
    ),
    "fairgrape-min": Method(
        "largest part of the importance of the group that needs the weight least",
        fairgrape_min.score,
        needs=("scores",),
    ),
    "fair-lamp": Method(
        "largest (w*g)^2 over all not smaller ones of the layer, for some group",
        fair_lamp.score_largest,
        needs=("scores",),
    ),
    "fair-lamp-mean": Method(
        "largest (w*g)^2 over all not smaller ones of the layer, mean over groups",
        fair_lamp.score_mean,
        needs=("scores",),
    ),
    "importance": Method("largest (w*g)^2, without groups", importance.score, needs=("scores",)),
    "importance-normalised": Method(
        "largest mean over groups of (w*g)^2 over the group's total",
        importance_normalised.score,
        needs=("scores",),
    ),
    "magnitude": Method("largest |w|", magnitude.score),
    "lottery": Method("largest |w|, then back to an earlier point", lottery.score, rewinds=True),
    "random": Method("weights drawn at random", random_scores.score, needs=("a key",)),
    "snip": SNIP,
    "grasp": GRASP,
    "undecayed": Method(
        "largest |w*g - decay*w^2|: sensitivity of the loss without decay",
        undecayed.score,
        needs=("a loss",),
    ),
    "taylor-filters": Method(
        "filters of largest |sum of w*g|: activation times gradient of their outputs",
        taylor_filters.score,
        needs=("a run",),
    ),
    "gmp": Method(
        "largest |w| of all weights, those pruned before as they were",
        magnitude.score,
        nested=False,
        remembers=True,
    ),
    "gmp-fairgrape": Method(
        "FairGRAPE's choice among all weights, those pruned before as they were",
        fairgrape.score,
        fairgrape.choose,
        needs=("scores",),
        nested=False,
        remembers=True,
    ),
    "acdc": Method(
        "largest |w| after all weights have trained once more",
        magnitude.score,
        nested=False,
        prepares=Preparation(all_weights=True, first=False),
    ),
    "acdc-fairgrape": Method(
        "FairGRAPE's choice after all weights have trained once more",
        fairgrape.score,
        fairgrape.choose,
        needs=("scores",),
        nested=False,
        prepares=Preparation(all_weights=True, first=False),
    ),
    "rigl": Method(
        "largest |w|, some exchanged for those of largest |g|",
        rigl.score,
        rigl.choose,
        needs=("a run",),
        nested=False,
    ),
    "rigl-groups": Method(
        "largest (w*g)^2, some exchanged for those of largest g^2, every group alike",
        rigl.score_groups,
        rigl.choose_by_groups,
        needs=("a run",),
        nested=False,
    ),
    "synflow": Method(
        "largest |w| dR/d|w| of the linearised network", synflow.score, needs=("a module",)
    ),
    "structured": Method(
        "filters of largest L1 norm, as wholes; every layer but the head",
        structured.score,
        structured.choose,
        structured.counts,
    ),
    "fairprune": Method(
        "least second-order saliency to the privileged, most to the others",
        fairprune.score,
        needs=("a run",),
    ),
    "fairgrape-minority": restrict_to_minority(FAIRGRAPE, needs=("scores", "a minority")),
    "snip-minority": restrict_to_minority(SNIP, needs=("a run",)),
    "grasp-minority": restrict_to_minority(GRASP, needs=("a run",)),
}
# Related systems, which train towards their choice; `fair` variants choose by groups.
_ROWS |= {
    "clicktrain": Method(
        "3x3 kernels and their four-place patterns of largest (w*g)^2, after a group lasso",
        clicktrain.score,
        clicktrain.choose,
        clicktrain.counts,
        needs=("scores", "a run"),
        approach=lasso.ROW,
        chooses_first=True,
    ),
    "clicktrain-fair": Method(
        "ClickTrain's kernels by each group's share, patterns by the group that keeps least",
        clicktrain.score,
        clicktrain.choose_fair,
        clicktrain.counts,
        needs=("scores", "a run"),
        approach=lasso.ROW,
        chooses_first=True,
    ),
    "slr": Method(
        "largest |w| after training with multipliers (SLR)",
        magnitude.score,
        needs=("a run",),
        approach=relaxation.SLR,
    ),
    "slr-filters": Method(
        "filters of largest L1 norm after training with multipliers (SLR)",
        structured.score,
        structured.choose,
        structured.counts,
        needs=("a run",),
        approach=relaxation.SLR,
    ),
    "slr-fairgrape": Method(
        "SLR whose projection is FairGRAPE's choice",
        fairgrape.score,
        fairgrape.choose,
        needs=("scores", "a run"),
        approach=relaxation.SLR,
    ),
    "admm": Method(
        "largest |w| after training with multipliers that always move (ADMM)",
        magnitude.score,
        needs=("a run",),
        approach=relaxation.ADMM,
    ),
    "layerwise": Method(
        "inputs of largest |activation|, layer after layer, of the network pruned so far",
        layerwise.score,
        layerwise.choose,
        layerwise.counts,
        needs=("a run",),
    ),
    "layerwise-once": Method(
        "inputs of largest |activation| of the network before the round, all layers at once",
        layerwise.score,
        layerwise.choose_at_once,
        layerwise.counts,
        needs=("a run",),
    ),
    "layerwise-fair": Method(
        "inputs that keep each group's share of |activation|, layer after layer",
        layerwise.score,
        layerwise.choose_fair,
        layerwise.counts,
        needs=("a run",),
    ),
    "stripes": Method(
        "stripes of largest part in the magnitudes of their filter",
        stripes.score,
        stripes.choose,
        stripes.counts,
    ),
    "stripes-fair": Method(
        "stripes that keep each group's share of (w*g)^2",
        stripes.score,
        stripes.choose_fair,
        stripes.counts,
        needs=("scores",),
    ),
    "swp": Method(
        "stripes of largest filter skeleton, after training with it (SWP)",
        stripes.score,
        stripes.choose_by_skeleton,
        stripes.counts,
        needs=("a run",),
        approach=skeleton.ROW,
    ),
    "autoprune": Method(
        "largest auxiliary parameter, after training it on the validation split",
        autoprune.score,
        needs=("a run",),
        approach=auxiliary.ROW,
    ),
    "autoprune-fair": Method(
        "the same, trained on the loss of the group that has the highest",
        autoprune.score,
        needs=("a run",),
        approach=auxiliary.FAIR,
    ),
    "autobot": Method(
        "structures of largest bottleneck, after training it towards the operations (AutoBot)",
        autobot.score,
        autobot.choose,
        needs=("a run",),
        approach=bottlenecks.ROW,
        of_structures=True,
    ),
    "autobot-fair": Method(
        "the same, trained on the loss of the group that has the highest",
        autobot.score,
        autobot.choose,
        needs=("a run",),
        approach=bottlenecks.FAIR,
        of_structures=True,
    ),
}
METHODS: Table[Method] = Table("method", _ROWS, check_row)

__all__ = [
    "METHODS",
    "Method",
    "Preparation",
    "Problem",
    "prune",
]
