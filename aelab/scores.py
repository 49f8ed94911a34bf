"""Anomaly scores: how badly a model rebuilds a row, higher = stranger.

`score(x, outputs, /, *, knobs)` is fitted on normal training rows x (n, d) and what the model made of them, and gives
a `Score`. `outputs` is a dict with at least "output" (n, d).
"""

import numpy as np
from sklearn.covariance import LedoitWolf, ShrunkCovariance

from aelab.config import Level, Rows, Share


class Score:
    """A score that has a part for each feature: `parts` (n, d), whose mean (or maximum) is the score (n,)."""

    def __init__(self, power: float = 1, scale=1.0, largest: bool = False):
        self.power, self.scale, self.largest = power, scale, largest

    def parts(self, x: Rows, outputs) -> np.ndarray:
        """What each feature adds, float (n, d)."""
        return np.abs((x - outputs["output"]) / self.scale) ** self.power

    def __call__(self, x: Rows, outputs) -> np.ndarray:
        """The score of each row, float (n,)."""
        parts = self.parts(x, outputs)
        return parts.max(axis=1) if self.largest else parts.mean(axis=1)


def mse(x: Rows, outputs, /) -> Score:
    """Mean squared error of the row: a few large errors decide."""
    return Score(power=2)


def mae(x: Rows, outputs, /) -> Score:
    """Mean absolute error of the row: many small errors count too."""
    return Score()


def largest(x: Rows, outputs, /) -> Score:
    """Absolute error of the worst feature."""
    return Score(largest=True)


def scaled(x: Rows, outputs, /, *, power: Level, floor: Level) -> Score:
    """Mean of |e / s|^power, with s the standard error of each feature in training, at least `floor`.

    A feature that is always rebuilt well counts as much as one that never is.
    """
    spread = np.sqrt(np.square(x - outputs["output"]).mean(axis=0))
    return Score(power=power, scale=np.maximum(spread, floor))


class Distance(Score):
    """Mahalanobis distances: of the error, and, weighted by `code`, of the code and the error together."""

    def __init__(self, x: Rows, outputs, code: float, shrinkage: float | None):
        super().__init__()
        self.code = code
        self.spaces = [Space(v, shrinkage) for v in self._views(x, outputs)]

    def _views(self, x: Rows, outputs) -> list[np.ndarray]:
        """What is measured: the error (n, d), and after it, if at all, the error beside the code (n, d + k)."""
        error = x - outputs["output"]
        return [error, np.concatenate([error, outputs["code"]], axis=1)] if self.code else [error]

    def parts(self, x: Rows, outputs) -> np.ndarray:
        """What each feature adds to the squared distance of the error."""
        return self.spaces[0].parts(self._views(x, outputs)[0])

    def __call__(self, x: Rows, outputs) -> np.ndarray:
        """The distance, or the weighted mean of both, each over the root of its number of dimensions."""
        found = [np.sqrt(s.parts(v).mean(axis=1)) for s, v in zip(self.spaces, self._views(x, outputs), strict=True)]
        return found[0] if not self.code else (1 - self.code) * found[0] + self.code * found[1]


class Space:
    """The spread of training vectors v (n, d): mean, standard deviations, and a shrunk correlation."""

    def __init__(self, v: np.ndarray, shrinkage: float | None):
        self.mean, self.scale = v.mean(axis=0), v.std(axis=0) + 1e-6
        way = LedoitWolf() if shrinkage is None else ShrunkCovariance(shrinkage=shrinkage)
        self.precision = way.fit((v - self.mean) / self.scale).precision_.astype(np.float32)

    def parts(self, v: np.ndarray) -> np.ndarray:
        """What each dimension adds to the squared distance (n, d)."""
        z = (v - self.mean) / self.scale
        return z * (z @ self.precision)


def mahalanobis(x: Rows, outputs, /, *, code: Share, shrinkage: Share | None) -> Distance:
    """Mahalanobis distance of the error from what is usual in training: errors that go together count once.

    `code` is the weight of a second distance, that of error and code together, which also sees a row that is rebuilt
    well but from an unusual code. The correlation of training errors is shrunk towards the identity; null: by as much
    as Ledoit and Wolf (2004) find best.
    """
    return Distance(x, outputs, code, shrinkage)


class Bound(Score):
    """Squared error beside the divergence of the code from the prior, in nats a feature."""

    def __init__(self, variance):
        super().__init__(power=2, scale=np.sqrt(2 * variance))

    def __call__(self, x: Rows, outputs) -> np.ndarray:
        """Minus the evidence lower bound, up to a constant, over d: float (n,)."""
        mean, log_variance = outputs["mean"], outputs["log_variance"]
        divergence = nats(mean, log_variance).sum(axis=1)
        return super().__call__(x, outputs) + divergence / x.shape[1]


def elbo(x: Rows, outputs, /) -> Score:
    """Minus the evidence lower bound of a variational model, with the variance of its training errors.

    Errors: KeyError for a model without "mean" and "log_variance".
    """
    return Bound(np.square(x - outputs["output"]).mean())


def nats(mean: np.ndarray, log_variance: np.ndarray) -> np.ndarray:
    """KL(N(mean, exp(log_variance)) || N(0, 1)) of each number of codes (n, k), in nats; the term `kl` in NumPy."""
    return 0.5 * (np.square(mean) + np.exp(log_variance) - log_variance - 1)
