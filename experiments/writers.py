"""How far each method hurts each group: handwriting of two real populations, students rare.

MNIST's writers are Census Bureau employees and high-school students; here students are 5 % of the
training pictures. One dense network per seed is pruned by magnitude, by importance without groups
and by FairGRAPE, at one schedule to 98 %.

Command:  make demo, or: fairgrape run experiments/writers.py
Expected: about 3 minutes on 2 cores; the numbers are in the README.
"""

from fairgrape_jax.config import Execution, Experiment, KeepLast, Scoring, Stage
from fairgrape_jax.data.sources.writers import Writers

EXPERIMENT = Experiment(
    data=Writers(minority="students", share=0.05),
    model="cnn",
    methods=("magnitude", "importance", "fairgrape"),
    sparsity=0.98,
    keep_per_round=0.75,
    dense=Stage((8,), (1e-3,)),
    retrain=Stage((1,), (1e-3,)),
    final=Stage(),
    # A fifth of the rare group is 100 pictures: small micro-batches, or it would have two of them.
    scoring=Scoring(fraction=0.2, micro_batch=16),
    batch=64,
    seeds=(0, 1, 2),
    execution=Execution(checkpoints=KeepLast()),
)
