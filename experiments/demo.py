"""Which recipe does least harm to a minority: handwriting of two real populations, students rare.

MNIST's writers are Census Bureau employees and high-school students; here students are 5 % of the
training pictures. One dense network per seed is pruned to 0.5 % of its weights by magnitude and by
FairGRAPE, each with one count of weights for the whole network and with the paper's one rate for
every layer, and by FairGRAPE with retraining on equally many pictures of both populations.

Command:  make demo, or: fairgrape run experiments/demo.py
Expected: about 4 minutes on 2 cores; the numbers are in the README.
"""

from fairgrape_jax.config import Execution, Experiment, KeepLast, Scoring, Stage, Variant
from fairgrape_jax.data.sources.writers import Writers
from fairgrape_jax.remedies import Remedy

EXPERIMENT = Experiment(
    data=Writers(minority="students", share=0.05),
    model="cnn",
    methods=(
        "magnitude",
        "fairgrape",
        "fairgrape-balanced",
        "magnitude-by-layer",
        "fairgrape-by-layer",
    ),
    variants={
        "fairgrape-balanced": Variant("fairgrape", remedy=Remedy(balanced=True)),
        "magnitude-by-layer": Variant("magnitude", allocation="uniform"),
        "fairgrape-by-layer": Variant("fairgrape", allocation="uniform"),
    },
    sparsity=0.995,
    keep_per_round=0.5,
    min_keep_per_layer=1,
    dense=Stage((8,), (1e-3,)),
    retrain=Stage((1,), (1e-3,)),
    final=Stage(),
    # A fifth of the rare group is 100 pictures: small micro-batches, or it would have two of them.
    scoring=Scoring(fraction=0.2, micro_batch=16, allocation="global"),
    batch=64,
    seeds=(0, 1, 2),
    execution=Execution(checkpoints=KeepLast()),
)
