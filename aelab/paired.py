"""The difference between two sets of runs, pair by pair: by test example, or by seed; and its bootstrap interval."""

from collections.abc import Hashable, Iterable
from pathlib import Path

import numpy as np
from scipy.special import stdtrit

from aelab import account
from aelab.config import DataError
from aelab.grid import REPEATS
from aelab.query import Run

RESAMPLES = 2000
SEED = 0
LEVEL = 0.95
CELLS = 1 << 21
"""Numbers drawn at once, which bounds the memory that the bootstrap takes: 32 MB."""


def spread(values: np.ndarray) -> tuple[float, float, float, float]:
    """(mean, standard deviation, low, high) of values (n,): the interval is Student's of the mean; of one value NaN.

    The deviation is that of a sample: divided by n - 1.
    """
    if len(values) < 2:
        return (float(np.mean(values)) if len(values) else np.nan, np.nan, np.nan, np.nan)
    mean, sd = np.mean(values), np.std(values, ddof=1)
    half = stdtrit(len(values) - 1, (1 + LEVEL) / 2) * sd / np.sqrt(len(values))
    return float(mean), float(sd), float(mean - half), float(mean + half)


def by_example(run: Run, metric: str) -> tuple[Hashable, np.ndarray] | None:
    """(key of the test rows, metric of each (n,)) of a run; None where it kept none, or it is not the mean of them."""
    file = Path(run.facts.get("folder", "")) / account.EXAMPLES
    tested, column = run.facts.get("test_fingerprint"), metric.removeprefix("test/")
    if tested is None or metric not in run.metrics or not file.is_file():
        return None
    import pyarrow
    import pyarrow.parquet

    try:
        columns = set(pyarrow.parquet.read_schema(file).names) & {column, "scored"}
        table = pyarrow.parquet.read_table(file, columns=list(columns), use_pandas_metadata=True).to_pandas()
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"{file}: cannot be read as Parquet ({error}); remove it to compare without it") from error
    if column not in table:
        return None
    if table[column].dtype.kind not in "iuf":
        kind = table[column].dtype
        raise DataError(f"{file}: {column}: expected numbers, got {kind}; remove the file to compare without it")
    values = table[table["scored"]][column] if "scored" in table else table[column]  # a text's others are only read
    if not np.isclose(values.mean(), run.metrics[metric], rtol=1e-4):
        return None
    return (tested, values.index.to_numpy().tobytes()), values.to_numpy(float)


def by_seed(run: Run, metric: str) -> tuple[Hashable, np.ndarray] | None:
    """(which repeat it is, the metric (1,)) of a run; None where it has no such metric."""
    if metric not in run.metrics:
        return None
    return tuple(run.params.get(key) for key in REPEATS), np.array([run.metrics[metric]])


def differences(own: Iterable[tuple[Hashable, np.ndarray]], base: Iterable[tuple[Hashable, np.ndarray]]) -> np.ndarray:
    """Paired differences of values (n,) that have the same key, means where several have it; of all keys, (m,).

    A key stands for the things that the values were measured on, in their order; what only one side has is left out.
    """
    sides = {}, {}
    for found, side in zip((own, base), sides, strict=True):
        for key, values in found:
            side.setdefault(key, []).append(values)
    mine, theirs = sides
    parts = [np.mean(mine[key], axis=0) - np.mean(theirs[key], axis=0) for key in mine if key in theirs]
    return np.concatenate(parts) if parts else np.empty(0)


def pairs(own: list[Run], base: list[Run], samples: dict[str, dict]) -> tuple[np.ndarray, str]:
    """Paired differences (m,) in the first way in which there are two at least, and what the pairs are; or none."""
    for kind, known in samples.items():
        sides = [[known[run.id] for run in side] for side in (own, base)]
        if all(sample is not None for side in sides for sample in side):
            found = differences(*sides)
            if len(found) > 1:
                return found, f"{len(found)} {kind}"
    return np.empty(0), ""


def against(groups: list[list[Run]], base: list[Run], metric: str) -> list[tuple[float, float, float, str]]:
    """(difference, low, high, what it was paired by) of each group's metric from the baseline's.

    Paired by test example where the metric is a mean over them and all kept them of the same test rows; else by seed;
    and where neither gives two pairs, it is the plain difference of means, its interval NaN.
    """
    everyone = {run.id: run for runs in (*groups, base) for run in runs}.values()
    ways = {"examples": by_example, "seeds": by_seed}
    samples = {kind: {run.id: way(run, metric) for run in everyone} for kind, way in ways.items()}
    found = [pairs(runs, base, samples) for runs in groups]
    ends = intervals([differences_ for differences_, _ in found])
    mean = measured(base, metric).mean()
    plain = [measured(runs, metric).mean() - mean for runs in groups]
    return [
        (float(d.mean()) if len(d) else float(simple), *map(float, end), by)
        for (d, by), end, simple in zip(found, ends, plain, strict=True)
    ]


def measured(runs: list[Run], metric: str) -> np.ndarray:
    """A metric of runs, (n,): NaN where a run has none."""
    return np.array([run.metrics.get(metric, np.nan) for run in runs])


def intervals(samples: list[np.ndarray]) -> np.ndarray:
    """Ends (k, 2) of the percentile bootstrap intervals of the means of k samples (n,); nothing in them is random.

    Samples of one length share what is drawn, so that many cost little more than one.
    """
    ends = np.full((len(samples), 2), np.nan)
    lengths = np.array([len(sample) for sample in samples])
    for n in set(lengths) - {0, 1}:
        at, rng = np.flatnonzero(lengths == n), np.random.default_rng(SEED)
        table, means, step = np.stack([samples[i] for i in at], axis=1), [], max(1, CELLS // n)
        for first in range(0, RESAMPLES, step):
            count = min(step, RESAMPLES - first)
            rows = rng.integers(0, n, (count, n)) + n * np.arange(count)[:, None]
            times = np.bincount(rows.ravel(), minlength=count * n).reshape(count, n)  # each row was drawn
            means.append(times @ table / n)
        ends[at] = np.quantile(np.concatenate(means), ((1 - LEVEL) / 2, (1 + LEVEL) / 2), axis=0).T
    return ends
