"""UTKFace gender classification, fair over race: MobileNet-V2 pruned to 90 % (Table 2).

Protocol of FairGRAPE and its code: ImageNet weights, 224 pixels, Adam, 80/10/10, keep 0.975 per
round (91 rounds), 5 epochs between rounds. The split is by content, so that no picture is in two
parts; --data.split-by name splits as the paper did. The pictures and the weights are looked for
below the folder FAIRGRAPE_DATA: utkface/ and weights/mobilenet_v2_imagenet.safetensors.

Command:  fairgrape run experiments/utkface_gender_by_race.py --data.path FOLDER_OR_TAR
Small:    ... --data.size 64 --data.limit 8000 --keep-per-round 0.63 --retrain.epochs 1 (see README)
"""

import os

from fairgrape_jax.config import Execution, Experiment, KeepLast, Scoring, Stage
from fairgrape_jax.data.sources.utkface import UTKFace

DATA = os.environ.get("FAIRGRAPE_DATA", "../shared/data")

EXPERIMENT = Experiment(
    data=UTKFace(path=f"{DATA}/utkface", label="gender", group="race", size=224),
    model="mobilenet_v2",
    pretrained=f"{DATA}/weights/mobilenet_v2_imagenet.safetensors",
    methods=("magnitude", "importance", "fairgrape"),
    sparsity=0.9,
    keep_per_round=0.975,
    dense=Stage((13, 3, 3), (1e-4, 1e-5, 1e-6), best=True),
    retrain=Stage((5,), (1e-5,)),
    final=Stage((13, 3, 3), (1e-4, 1e-5, 1e-6), best=True),
    scoring=Scoring(fraction=0.2, micro_batch=64),
    augmentation="flip_shift",
    batch=64,
    seeds=(0, 1, 2),
    execution=Execution(checkpoints=KeepLast()),
)
