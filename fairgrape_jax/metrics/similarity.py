"""How alike the inner workings of two networks are: SVCCA, PWCCA and CKA of their activations.

Activations are matrices (N, D), a row per sample; `rows` makes them from feature maps. Canonical
correlations need only covariances, and CKA over minibatches only sums, so both look at a split
batch by batch and never hold its activations. Sums are float64, on the host.

Sources: SVCCA, Raghu et al. (2017); PWCCA, Morcos et al. (2018); CKA, Kornblith et al. (2019);
minibatch CKA from the unbiased HSIC of Song et al. (2012), Nguyen et al. (2021).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable

import numpy as np
from jaxtyping import Float, Float64, Num, Shaped

Activations = Num[np.ndarray, "sample unit"]
XUnits = Num[np.ndarray, "sample x_unit"]
YUnits = Num[np.ndarray, "sample y_unit"]
Kernel = Float[np.ndarray, "sample sample"]


@dataclasses.dataclass(frozen=True)
class Moments:
    """Sums over samples of two activations: what canonical correlation needs.

    `a + b` are those of both samples.

    Attributes:
        count: samples.
        x: (Dx,) sums.
        y: (Dy,) sums.
        xx: (Dx, Dx) sums of products.
        yy: (Dy, Dy) sums of products.
        xy: (Dx, Dy) sums of products.
    """

    count: int
    x: Float64[np.ndarray, " x_unit"]
    y: Float64[np.ndarray, " y_unit"]
    xx: Float64[np.ndarray, "x_unit x_unit"]
    yy: Float64[np.ndarray, "y_unit y_unit"]
    xy: Float64[np.ndarray, "x_unit y_unit"]

    def __add__(self, other: Moments) -> Moments:
        parts = zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)
        return Moments(*(a + b for a, b in parts))

    def covariances(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The covariances of x, of y, and between them.

        Returns:
            (Dx, Dx), (Dy, Dy) and (Dx, Dy).
        """
        n = self.count
        mean_x, mean_y = self.x / n, self.y / n
        return (
            self.xx / n - np.outer(mean_x, mean_x),
            self.yy / n - np.outer(mean_y, mean_y),
            self.xy / n - np.outer(mean_x, mean_y),
        )


def moments(x: XUnits, y: YUnits) -> Moments:
    """The sums of a batch.

    Args:
        x: (N, Dx) activations.
        y: (N, Dy), of the same samples.

    Returns:
        Their sums, float64.
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    return Moments(len(x), x.sum(axis=0), y.sum(axis=0), x.T @ x, y.T @ y, x.T @ y)


def rows(
    maps: Shaped[np.ndarray, "batch *places channel"], places: bool = True
) -> Shaped[np.ndarray, "row unit"]:
    """Feature maps as a matrix of a row per sample.

    Args:
        maps: (B, ..., C).
        places: whether every place is a sample, as CCA takes convolutions; else all of a picture's
            values are in a row.

    Returns:
        (B * places, C), or (B, places * C).

    Example:
        >>> rows(np.zeros((2, 3, 3, 5))).shape, rows(np.zeros((2, 3, 3, 5)), places=False).shape
        ((18, 5), (2, 45))
    """
    maps = np.asarray(maps)
    return maps.reshape(-1, maps.shape[-1]) if places else maps.reshape(len(maps), -1)


def svcca_distance(sums: Moments, keep: float = 0.99) -> float:
    """1 - the mean canonical correlation of the leading directions.

    Args:
        sums: of two activations.
        keep: the part of each variance that the directions hold.

    Returns:
        The distance, 0 to 1.

    Raises:
        ValueError: activations that do not vary.

    Source:
        Raghu et al., "SVCCA" (2017).

    Example:
        >>> x = np.random.default_rng(0).normal(size=(50, 4))
        >>> abs(round(svcca_distance(moments(x, x @ np.diag([1, 2, 3, 4]))), 6))
        0.0
    """
    left, right, between = sums.covariances()
    return float(
        1 - _correlations(_directions(left, keep), _directions(right, keep), between)[1].mean()
    )


def pwcca_distance(sums: Moments) -> float:
    """1 - the mean canonical correlation, weighted by how much of x each direction accounts for.

    The weight of a canonical variable h of x is the sum over x's units of |<h, x_j>|: it is not
    symmetric in x and y, and a rotation of x's units changes it (one of y's does not).

    Args:
        sums: of two activations.

    Returns:
        The distance, 0 to 1.

    Raises:
        ValueError: activations that do not vary.

    Source:
        Morcos et al. (2018).
    """
    left, right, between = sums.covariances()
    whiten_x, whiten_y = _directions(left, 1.0), _directions(right, 1.0)
    axes, correlations = _correlations(whiten_x, whiten_y, between)
    weight = np.abs((whiten_x @ axes).T @ left).sum(axis=1)[: len(correlations)]
    return float(1 - (weight * correlations).sum() / weight.sum())


def _directions(covariance: np.ndarray, keep: float, eps: float = 1e-10) -> np.ndarray:
    """The principal directions that hold `keep` of the variance, scaled to variance one; (D, K)."""
    sizes, axes = np.linalg.eigh(covariance)
    sizes, axes = sizes[::-1], axes[:, ::-1]
    sizes = np.where(sizes > eps * max(sizes[0], 0.0), sizes, 0.0)
    if not sizes.any():
        raise ValueError("similarity: activations do not vary")
    part = np.cumsum(sizes) / sizes.sum()
    count = min(int(np.searchsorted(part, keep * (1 - 1e-12))) + 1, int((sizes > 0).sum()))
    return axes[:, :count] / np.sqrt(sizes[:count])


def _correlations(
    left: np.ndarray, right: np.ndarray, between: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The canonical axes in the whitened x, and the correlations, the largest first."""
    axes, correlations, _ = np.linalg.svd(left.T @ between @ right)
    return axes, np.clip(correlations, 0.0, 1.0)


def linear_kernel(x: Activations) -> Kernel:
    """The inner products of samples.

    Args:
        x: (N, D) activations.

    Returns:
        (N, N) float64.
    """
    x = np.asarray(x, np.float64)
    return x @ x.T


def rbf_kernel(x: Activations, width: float = 1.0) -> Kernel:
    """exp(-d^2 / (2 s^2)) of the distances d between samples, of whatever scale they are.

    Args:
        x: (N, D) activations.
        width: s over the median of d.

    Returns:
        (N, N) float64.

    Source:
        Kornblith et al. (2019), Sec. 3.
    """
    products = linear_kernel(x)
    norms = np.diagonal(products)
    squares = np.maximum(norms[:, None] + norms[None] - 2 * products, 0.0)
    apart = squares[~np.eye(len(squares), dtype=bool)]
    median = float(np.median(apart)) or 1.0
    return np.exp(-squares / (2 * width**2 * median))


def hsic(k: Kernel, m: Kernel) -> float:
    """The biased HSIC of two kernels, times (N - 1)^2: <H K H, M>.

    Args:
        k: (N, N).
        m: (N, N), of the same samples.

    Returns:
        Its value.
    """
    centred = k - k.mean(axis=0) - k.mean(axis=1, keepdims=True) + k.mean()
    return float((centred * m).sum())


def hsic_unbiased(k: Kernel, m: Kernel) -> float:
    """The unbiased HSIC of two kernels.

    Args:
        k: (N, N), N of 4 or more.
        m: (N, N), of the same samples.

    Returns:
        Its value.

    Raises:
        ValueError: fewer than 4 samples.

    Source:
        Song et al. (2012), Eq. 5.
    """
    n = len(k)
    if n < 4:
        raise ValueError(f"similarity: unbiased HSIC needs 4 samples or more, not {n}")
    k, m = (kernel - np.diag(np.diagonal(kernel)) for kernel in (k, m))
    both = (k * m).sum()
    product = k.sum() * m.sum() / ((n - 1) * (n - 2))
    crossed = 2 * (k.sum(axis=0) @ m.sum(axis=0)) / (n - 2)
    return float((both + product - crossed) / (n * (n - 3)))


def cka(
    x: XUnits,
    y: YUnits,
    kernel: Callable[[np.ndarray], np.ndarray] = linear_kernel,
    *,
    unbiased: bool = False,
) -> float:
    """Centred kernel alignment of two activations.

    Args:
        x: (N, Dx) activations.
        y: (N, Dy), of the same samples.
        kernel: of activations, to (N, N).
        unbiased: whether from the unbiased HSIC.

    Returns:
        The similarity; NaN for a kernel that does not vary.

    Source:
        Kornblith et al. (2019).

    Example:
        >>> x = np.random.default_rng(0).normal(size=(20, 3))
        >>> round(cka(x, 5 * x[:, ::-1]), 6)
        1.0
    """
    return minibatch_cka([(x, y)], kernel, unbiased=unbiased)


def minibatch_cka(
    batches: Iterable[tuple[np.ndarray, np.ndarray]],
    kernel: Callable[[np.ndarray], np.ndarray] = linear_kernel,
    *,
    unbiased: bool = True,
) -> float:
    """CKA from the mean HSICs of batches.

    With the unbiased HSIC its expectation does not depend on the size of a batch.

    Args:
        batches: of (N, Dx) and (N, Dy) activations of the same samples.
        kernel: of activations, to (N, N).
        unbiased: whether from the unbiased HSIC.

    Returns:
        The similarity; NaN for a kernel that does not vary.

    Source:
        Nguyen et al. (2021).
    """
    sums = np.zeros(3)
    for x, y in batches:
        sums += hsics(kernel(x), kernel(y), hsic_unbiased if unbiased else hsic)
    return alignment(sums)


def hsics(
    k: Kernel,
    m: Kernel,
    estimate: Callable[[np.ndarray, np.ndarray], float] = hsic_unbiased,
) -> Float64[np.ndarray, " 3"]:
    """HSIC of two kernels, and of each with itself.

    Args:
        k: (N, N).
        m: (N, N), of the same samples.
        estimate: of HSIC.

    Returns:
        (3,): of both, of k, of m.
    """
    return np.array([estimate(k, m), estimate(k, k), estimate(m, m)])


def alignment(sums: Float64[np.ndarray, " 3"]) -> float:
    """CKA from HSICs.

    Args:
        sums: (3,), `hsics` or their sums over batches.

    Returns:
        The similarity; NaN for a kernel that does not vary.
    """
    both = sums[1] * sums[2]
    return float(sums[0] / np.sqrt(both)) if both > 0 else float("nan")
