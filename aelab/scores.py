"""Anomaly scores: how badly a model rebuilds a row, higher = stranger.

`score(x, outputs, /, *, knobs)` is fitted on normal training rows x (n, d) and what the model made of them, and gives
a `Score`. `outputs` is a dict with at least "output" (n, d).
"""

import numpy as np

from aelab.config import Level, Rows, Share


class Score:
    """A score that has a part for each feature: `parts` (n, d), whose mean (or maximum) is the score (n,)."""

    def __init__(self, power: int = 1, scale=1.0, precision=None, largest: bool = False):
        self.power, self.scale, self.precision, self.largest = power, scale, precision, largest

    def parts(self, x: Rows, outputs) -> np.ndarray:
        """What each feature adds, float (n, d)."""
        residual = (x - outputs["output"]) / self.scale
        if self.precision is not None:
            return residual * (residual @ self.precision)
        return np.abs(residual) if self.power == 1 else residual**2

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


def mahalanobis(x: Rows, outputs, /, *, shrinkage: Share | None) -> Score:
    """Mahalanobis distance of the error, squared, over d: errors that go together in training count once.

    The covariance of training errors about zero is shrunk towards a multiple of the identity; null: by as much as
    Ledoit and Wolf (2004) find best.
    """
    from sklearn.covariance import LedoitWolf, ShrunkCovariance

    residual = x - outputs["output"]
    way = (
        LedoitWolf(assume_centered=True)
        if shrinkage is None
        else ShrunkCovariance(shrinkage=shrinkage, assume_centered=True)
    )
    return Score(precision=way.fit(residual).precision_.astype(np.float32))


class Bound(Score):
    """Squared error beside the divergence of the code from the prior, in nats a feature."""

    def __init__(self, variance):
        super().__init__(power=2, scale=np.sqrt(2 * variance))

    def __call__(self, x: Rows, outputs) -> np.ndarray:
        """Minus the evidence lower bound, up to a constant, over d: float (n,)."""
        mean, log_variance = outputs["mean"], outputs["log_variance"]
        divergence = 0.5 * (np.square(mean) + np.exp(log_variance) - log_variance - 1).sum(axis=1)
        return super().__call__(x, outputs) + divergence / x.shape[1]


def elbo(x: Rows, outputs, /) -> Score:
    """Minus the evidence lower bound of a variational model, with the variance of its training errors.

    Errors: KeyError for a model without "mean" and "log_variance".
    """
    return Bound(np.square(x - outputs["output"]).mean())
