"""Preparations: raw rows of a table to features a network can learn, fitted on normal training rows alone.

`prepare(x, columns, /, *, knobs)` gives a fitted `Preparation`. Letters in shapes: n rows, c columns, d features.
"""

from typing import Literal

import numpy as np
from sklearn.decomposition import PCA
from sklearn.preprocessing import MinMaxScaler, QuantileTransformer, RobustScaler, StandardScaler

from aelab.config import ConfigError, Count, Level, Rows

SMALLEST = 1e-6
"""Share of the largest variance below which a principal component is left out of whitened features."""
HEAVY = 10.0
"""`log: auto` takes the columns, never negative, whose largest value is this many times the third quartile."""


class Preparation:
    """Scaled numbers, a one-hot block for each categorical column, and a flag for each column with empty cells.

    Empty cells take the median. A number that never varied in training becomes a flag: whether it differs. A
    categorical value that training did not have is a feature of its own, "other". With `whiten` all of these are
    turned into principal components of variance 1.

    `share` (d, c) says how much of each feature belongs to each column; its rows add up to 1.
    """

    def __init__(
        self, x: Rows, columns, scaler, *, log: Literal["auto"] | list[str] | None, clip: Level | None, whiten: bool
    ):
        coded = np.array([name in columns.categories for name in columns.names])
        self.numeric, self.coded, self.clip, self.scaler = np.flatnonzero(~coded), np.flatnonzero(coded), clip, scaler
        self.sizes = [len(columns.categories[columns.names[i]]) + 1 for i in self.coded]
        numbers = x[:, self.numeric]
        empty = np.isnan(numbers)
        self.median = np.array(
            [np.median(v[~e]) if not e.all() else 0.0 for v, e in zip(numbers.T, empty.T, strict=True)]
        )
        self.flagged = np.flatnonzero(empty.any(axis=0))
        numbers = np.where(empty, self.median, numbers)
        self.constant = np.flatnonzero(np.ptp(numbers, axis=0) == 0)
        self.logged = self._logged(numbers, [columns.names[i] for i in self.numeric], log)
        if len(self.numeric):
            self.scaler.fit(self._tamed(numbers))
        origin = np.concatenate([self.numeric, self.numeric[self.flagged], np.repeat(self.coded, self.sizes)])
        self.share = np.eye(len(columns.names))[origin.astype(int)]
        self.white = None
        if whiten:
            self.white = PCA(whiten=True, svd_solver="full", tol=0).fit(self._features(x))
            keep = self.white.explained_variance_ > SMALLEST * self.white.explained_variance_[0]
            if not keep.any():
                raise ConfigError("preparation.whiten: no column varies among the training rows; whiten=false")
            self.white = PCA(int(keep.sum()), whiten=True, svd_solver="full").fit(self._features(x))
            self.share = np.square(self.white.components_) @ self.share

    def _logged(self, numbers: np.ndarray, names: list[str], log) -> np.ndarray:
        """The columns of numbers that are taken the logarithm of."""
        if log == "auto":
            heavy = numbers.max(axis=0, initial=0) > HEAVY * np.quantile(numbers, 0.75, axis=0)
            return np.flatnonzero((numbers.min(axis=0, initial=0) >= 0) & heavy)
        if lacking := set(log or ()) - set(names):
            raise ConfigError(
                f"preparation.log: {sorted(lacking)[0]} is no column of numbers; there are: {', '.join(names)}"
            )
        return np.flatnonzero([name in (log or ()) for name in names])

    def _tamed(self, numbers: np.ndarray) -> np.ndarray:
        """Logarithms where they were asked for; a value below zero keeps its sign."""
        numbers = numbers.copy()
        part = numbers[:, self.logged]
        numbers[:, self.logged] = np.sign(part) * np.log1p(np.abs(part))
        return numbers

    def _features(self, x: Rows) -> np.ndarray:
        numbers = x[:, self.numeric]
        empty = np.isnan(numbers)
        numbers = np.where(empty, self.median, numbers)
        blocks = []
        if len(self.numeric):
            scaled = self.scaler.transform(self._tamed(numbers))
            scaled = scaled if self.clip is None else np.clip(scaled, -self.clip, self.clip)
            scaled[:, self.constant] = numbers[:, self.constant] != self.median[self.constant]
            blocks = [scaled]
        blocks.append(empty[:, self.flagged])
        for i, size in zip(self.coded, self.sizes, strict=True):
            blocks.append(x[:, i, None] == np.arange(size))
        return np.concatenate(blocks, axis=1, dtype=np.float32, casting="unsafe")

    def __call__(self, x: Rows) -> np.ndarray:
        """Features, float32 (n, d), of raw rows (n, c)."""
        features = self._features(x)
        return features if self.white is None else self.white.transform(features).astype(np.float32)


def standard(
    x: Rows, columns, /, *, log: Literal["auto"] | list[str] | None, clip: Level | None, whiten: bool
) -> Preparation:
    """Mean 0 and standard deviation 1."""
    return Preparation(x, columns, StandardScaler(), log=log, clip=clip, whiten=whiten)


def robust(
    x: Rows,
    columns,
    /,
    *,
    within: list[Level],
    log: Literal["auto"] | list[str] | None,
    clip: Level | None,
    whiten: bool,
) -> Preparation:
    """Median 0, and a spread of 1 by the percentiles `within`, as of a normal distribution: outliers do not move it."""
    return Preparation(
        x, columns, RobustScaler(quantile_range=tuple(within), unit_variance=True), log=log, clip=clip, whiten=whiten
    )


def minmax(
    x: Rows, columns, /, *, log: Literal["auto"] | list[str] | None, clip: Level | None, whiten: bool
) -> Preparation:
    """Training values from 0 to 1; others may lie outside."""
    return Preparation(x, columns, MinMaxScaler(), log=log, clip=clip, whiten=whiten)


def quantile(
    x: Rows,
    columns,
    /,
    *,
    quantiles: Count,
    distribution: Literal["normal", "uniform"],
    log: Literal["auto"] | list[str] | None,
    clip: Level | None,
    whiten: bool,
) -> Preparation:
    """Ranks among the training values, spread like a normal or a uniform distribution.

    Values beyond all training values become the end of the scale: how far beyond is lost.
    """
    scaler = QuantileTransformer(
        n_quantiles=min(quantiles, len(x)), output_distribution=distribution, subsample=None, random_state=0
    )
    return Preparation(x, columns, scaler, log=log, clip=clip, whiten=whiten)
