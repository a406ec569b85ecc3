"""The remedies of retraining as options of an experiment."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from fairgrape_jax.losses.distillation import TERMS, Performance
from fairgrape_jax.remedies.duals import Duals


@dataclasses.dataclass(frozen=True)
class Remedy:
    """The weights of the terms of the retraining loss; plain cross-entropy by default.

    Source of the terms but the last: "Simon Says" (arXiv 2106.07849); `REMEDIES` has its weights.
    """

    ce: float = 1.0
    """Cross-entropy with the labels (or its performance-weighted form)."""
    kd: float = 0.0
    """Distillation: divergence from the dense network's probabilities at `temperature`."""
    temperature: float = 4.0
    """That of the distillation."""
    attention: float = 0.0
    """Attention transfer: where the features are large."""
    similarity: float = 0.0
    """Similarity preservation: which samples of a batch are alike; on the last feature."""
    pkt: float = 0.0
    """Probabilistic knowledge transfer: the same as conditional probabilities; likewise."""
    hints: float = 0.0
    """Hints: the features themselves ("all hints": every one that `features` names)."""
    features: tuple[str, ...] = ()
    """The modules whose outputs are compared; empty for the ends of the network's stages."""
    pw: Performance = dataclasses.field(default_factory=Performance)
    balanced: bool = False
    """Retrain on equally many samples of every group in each epoch."""
    dro: float = 0.0
    """Group DRO: the step size of the weights of the groups, 0.01 in the paper; 0 for none."""
    duals: Duals = dataclasses.field(default_factory=Duals)
    """Constraints on how unequally groups are hurt."""
    transplant: float = 0.0
    """The last layer stays as it was, and the features before it are matched with this weight,
    alike for every group (DeTT)."""
    recalibrate: int = 0
    """Batches over which running statistics of batch norm are taken anew after each choice, before
    retraining."""
    recalibrate_after: int = 0
    """The same after each round's retraining, before the round is evaluated."""
    rewind_rates: int = 0
    """Retrain in each round at the learning rates of so many last epochs of the dense training, in
    place of `retrain`; 0 for `retrain`."""

    def problems(self) -> Iterator[tuple[str, str]]:
        """The fields that cannot be used, and what is wrong with each."""
        weights = {name: getattr(self, name) for name in ("ce", "kd", *TERMS)}
        for name, weight in weights.items():
            if weight < 0:
                yield name, f"{weight} is negative"
        if not any(weights.values()) and not self.transplant:
            yield "", "all its weights are zero; give --remedy.ce 1"
        if self.temperature <= 0:
            yield "temperature", f"{self.temperature} is not positive"
        for name in ("dro", "transplant", "recalibrate", "recalibrate_after", "rewind_rates"):
            if getattr(self, name) < 0:
                yield name, f"{getattr(self, name)} is negative"

    @property
    def of_features(self) -> bool:
        """Whether a term compares features."""
        return any(getattr(self, name) for name in (*TERMS, "transplant"))

    @property
    def teaches(self) -> bool:
        """Whether a term of the loss needs the dense network."""
        return bool(self.kd) or self.of_features or (self.pw.on and self.pw.retrain)

    @property
    def compatible_with_mixup(self) -> bool:
        """Whether it can be used on pictures of two samples.

        Not where samples weigh by how probable the dense network finds their one true class: of a
        mixed picture it finds neither, and the weights would say nothing. Nor where samples weigh
        by their group: the two of a mixed picture may be of two.
        """
        return not (self.pw.on and self.pw.retrain) and not self.by_group

    @property
    def by_group(self) -> bool:
        """Whether samples weigh by their group."""
        return bool(self.dro or self.duals.rate or self.transplant)

    @property
    def scores(self) -> bool:
        """Whether importance needs the dense network."""
        return self.pw.on and self.pw.prune


# The published weights. "+KD" adds distillation of weight 1 to a term of features.
REMEDIES: dict[str, Remedy] = {
    "none": Remedy(),
    "kd": Remedy(ce=0.1, kd=0.9),
    "at": Remedy(attention=1000.0),
    "sp": Remedy(similarity=3000.0),
    "pkt": Remedy(pkt=30000.0),
    "hints": Remedy(hints=1.0),
    "at+kd": Remedy(kd=1.0, attention=1000.0),
    "sp+kd": Remedy(kd=1.0, similarity=3000.0),
    "pkt+kd": Remedy(kd=1.0, pkt=30000.0),
    "hints+kd": Remedy(kd=1.0, hints=1.0),
    "pw": Remedy(pw=Performance(weights=True, labels=True)),
}
