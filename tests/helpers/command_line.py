"""An experiment file as a user would write it."""

EXPERIMENT = '''"""A small experiment."""
from fairgrape_jax.config import Execution, Experiment, Scoring, Stage
from fairgrape_jax.data import source

EXPERIMENT = Experiment(
    data=source("synthetic", samples=200, groups=2, classes=2, size=8),
    model="mlp",
    methods=("magnitude", "fairgrape"),
    sparsity=0.75,
    keep_per_round=0.5,
    dense=Stage((1,), (1e-3,)),
    retrain=Stage((1,), (1e-3,)),
    final=Stage(),
    scoring=Scoring(fraction=0.5, micro_batch=16, select="greedy"),
    batch=16,
    execution=Execution(devices=1),
)
'''
