"""Write golden/losses_torch.npz: distillation and its kin by torch autograd in float64.

Needs torch, which the tests do not:  python -m tests.helpers.make_golden_losses
"""

import numpy as np
import torch
from torch.nn import functional as F

from tests.helpers.datasets import GOLDEN_FILES

rng = np.random.default_rng(11)
B, C, H, W, K = 6, 5, 4, 3, 7
own = torch.tensor(rng.normal(size=(B, C, H, W)), requires_grad=True)  # torch's order
dense = torch.tensor(rng.normal(size=(B, C, H, W)))
logits = torch.tensor(rng.normal(0, 3, (B, K)), requires_grad=True)
taught = torch.tensor(rng.normal(0, 3, (B, K)))
labels = torch.tensor(rng.integers(0, K, B))
labels[0] = taught[0].argmax()
T = 4.0


def attention(features):
    return F.normalize(features.pow(2).mean(1).flatten(1))


def similarity(features):
    rows = features.flatten(1)
    return F.normalize(rows @ rows.T)


def near(features):
    rows = F.normalize(features.flatten(1))
    cosine = (rows @ rows.T + 1) / 2
    return cosine / cosine.sum(1, keepdim=True)


kd = F.kl_div(F.log_softmax(logits / T, 1), F.softmax(taught / T, 1), reduction="batchmean") * T * T
probabilities = F.softmax(taught, 1)
right = taught.argmax(1) == labels
target = torch.where(right[:, None], probabilities, F.one_hot(labels, K).double())
theta = 0.3 + 0.7 * (1 - probabilities[torch.arange(B), labels]) ** 2.5
pw = (theta * F.cross_entropy(logits, target, reduction="none")).mean()
p, q = near(dense), near(own)
found = {
    "attention": (attention(own) - attention(dense)).pow(2).mean(),
    "similarity": (similarity(own) - similarity(dense)).pow(2).sum() / B**2,
    "pkt": (p * torch.log((p + 1e-7) / (q + 1e-7))).mean(),
    "hints": F.mse_loss(own, dense),
    "kd": kd,
    "pw": pw,
}
saved = {"own": own, "dense": dense, "logits": logits, "taught": taught, "labels": labels}
values = {name: value.detach().numpy() for name, value in saved.items()}
for name, loss in found.items():
    (gradient,) = torch.autograd.grad(loss, logits if name in ("kd", "pw") else own)
    values |= {name: loss.detach().numpy(), f"{name}.gradient": gradient.numpy()}
np.savez_compressed(GOLDEN_FILES / "losses_torch.npz", **values)
