"""Preparations: raw rows of a table to features a network can learn, fitted on normal training rows alone.

`prepare(x, columns, /, *, knobs)` gives a fitted `Preparation`. Letters in shapes: n rows, c columns, d features.
"""

from typing import Literal

import numpy as np
from sklearn.preprocessing import MinMaxScaler, QuantileTransformer, RobustScaler, StandardScaler

from aelab.config import ConfigError, Count, Level, Rows

HEAVY = 3.0
"""Skewness above which `log: auto` takes the logarithm of a column that is never negative."""


class Preparation:
    """Scaled numbers, a one-hot block for each categorical column, and a flag for each column with empty cells.

    Empty cells take the median. A categorical value that training did not have is a feature of its own, "other".
    """

    def __init__(self, x: Rows, columns, scaler, *, log: Literal["auto"] | list[str] | None, clip: Level | None):
        coded = np.array([name in columns.categories for name in columns.names])
        self.numeric, self.coded, self.clip, self.scaler = np.flatnonzero(~coded), np.flatnonzero(coded), clip, scaler
        self.sizes = [len(columns.categories[columns.names[i]]) + 1 for i in self.coded]
        numbers = x[:, self.numeric]
        names = [columns.names[i] for i in self.numeric]
        self.median = np.nanmedian(numbers, axis=0)
        self.flagged = np.flatnonzero(np.isnan(numbers).any(axis=0))
        numbers = np.where(np.isnan(numbers), self.median, numbers)
        if log == "auto":
            spread = numbers.std(axis=0)
            skew = ((numbers - numbers.mean(axis=0)) ** 3).mean(axis=0) / np.where(spread > 0, spread, 1) ** 3
            self.logged = np.flatnonzero((numbers.min(axis=0, initial=0) >= 0) & (skew > HEAVY))
        else:
            if lacking := set(log or ()) - set(names):
                raise ConfigError(f"preparation.log: {lacking.pop()} is no column of numbers; there are: {names}")
            self.logged = np.flatnonzero([name in (log or ()) for name in names])
        if len(names):
            self.scaler.fit(self._tamed(numbers))
        self.features, self.origin = self._named(columns, names)

    def _named(self, columns, names: list[str]) -> tuple[list[str], np.ndarray]:
        """The names of the features, and the number of the column that each comes from."""
        told = [(name, i) for name, i in zip(names, self.numeric, strict=True)]
        told += [(f"{names[i]} is empty", self.numeric[i]) for i in self.flagged]
        for i in self.coded:
            told += [(f"{columns.names[i]}={v}", i) for v in (*columns.categories[columns.names[i]], "other")]
        return [name for name, _ in told], np.array([i for _, i in told])

    def _tamed(self, numbers: np.ndarray) -> np.ndarray:
        """Logarithms where they were asked for; a value below zero keeps its sign."""
        numbers = numbers.copy()
        part = numbers[:, self.logged]
        numbers[:, self.logged] = np.sign(part) * np.log1p(np.abs(part))
        return numbers

    def __call__(self, x: Rows) -> np.ndarray:
        """Features, float32 (n, d), of raw rows (n, c)."""
        numbers = x[:, self.numeric]
        empty = np.isnan(numbers)
        blocks = []
        if len(self.numeric):
            scaled = self.scaler.transform(self._tamed(np.where(empty, self.median, numbers)))
            blocks = [scaled if self.clip is None else np.clip(scaled, -self.clip, self.clip)]
        blocks.append(empty[:, self.flagged])
        for i, size in zip(self.coded, self.sizes, strict=True):
            blocks.append(x[:, i, None] == np.arange(size))
        return np.concatenate(blocks, axis=1, dtype=np.float32, casting="unsafe")


def standard(x: Rows, columns, /, *, log: Literal["auto"] | list[str] | None, clip: Level | None) -> Preparation:
    """Mean 0 and standard deviation 1."""
    return Preparation(x, columns, StandardScaler(), log=log, clip=clip)


def robust(
    x: Rows, columns, /, *, within: list[Level], log: Literal["auto"] | list[str] | None, clip: Level | None
) -> Preparation:
    """Median 0, and 1 between the percentiles `within`: few outliers do not move it."""
    return Preparation(x, columns, RobustScaler(quantile_range=tuple(within)), log=log, clip=clip)


def minmax(x: Rows, columns, /, *, log: Literal["auto"] | list[str] | None, clip: Level | None) -> Preparation:
    """Training values from 0 to 1; others may lie outside."""
    return Preparation(x, columns, MinMaxScaler(), log=log, clip=clip)


def quantile(
    x: Rows,
    columns,
    /,
    *,
    quantiles: Count,
    distribution: Literal["normal", "uniform"],
    log: Literal["auto"] | list[str] | None,
    clip: Level | None,
) -> Preparation:
    """Ranks among the training values, spread like a normal or a uniform distribution.

    Values beyond all training values become the end of the scale: how far beyond is lost.
    """
    scaler = QuantileTransformer(
        n_quantiles=min(quantiles, len(x)), output_distribution=distribution, subsample=None, random_state=0
    )
    return Preparation(x, columns, scaler, log=log, clip=clip)
