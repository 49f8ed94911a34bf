"""Similarities of vectors: `similarity(x, y, /, *, knobs)` compares x (n, d) with y (m, d) and gives float64 (n, m).

Higher = closer. y is the reference set, such as the items of a catalogue: what a function has to know beforehand (a
covariance, the range of a dimension, the longest vector) comes from y alone, so that a value depends on its own row of
x and on no other. Errors, of all: AelabError for arrays that are not (n, d) and (m, d), a y without rows, and NaN.
"""

import functools
import math
import warnings
from collections.abc import Callable, Mapping

import numpy as np
from scipy.spatial.distance import cdist

from aelab.call import bound
from aelab.config import AelabError, Count, Level, Share, Whole

MEMORY = 16 * 2**20
"""Bytes that the temporary arrays of a block of pairs may take; larger ones are slower, too."""
FLATTEST = 1e-6
"""Share of the mean variance below which no direction counts as narrower: a covariance has to be inverted."""


def compared(similarity):
    """A similarity whose x and y are checked first, and arrive as float64."""

    @functools.wraps(similarity)
    def checked(x, y, /, **knobs):
        return similarity(*_vectors(x, y), **knobs)

    return checked


def _vectors(x, y) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or not y.size:
        raise AelabError(f"similarity: expected x (n, d) and y (m, d), m and d above 0, got {x.shape} and {y.shape}")
    for name, rows in (("x", x), ("y", y)):
        if not (fine := np.isfinite(rows).all(axis=1)).all():
            raise AelabError(f"similarity: row {fine.argmin()} of {name} {rows.shape} has a NaN or an infinity")
    return x, y


def _blocks(part, x: np.ndarray, y: np.ndarray, numbers: int) -> np.ndarray:
    """What `part` makes of x (n, d) and y (m, d), float64 (n, m), by blocks of both.

    `numbers` is how many float64 it holds at a time for a pair: with these no block takes more than MEMORY.
    """
    pairs = max(1, MEMORY // (8 * numbers))
    width = min(pairs, len(y))
    height = pairs // width
    out = np.empty((len(x), len(y)))
    for i in range(0, len(x), height):
        for j in range(0, len(y), width):
            out[i : i + height, j : j + width] = part(x[i : i + height], y[j : j + width])
    return out


def _ratio(top, bottom) -> np.ndarray:
    """top / bottom, and 0 where bottom is 0."""
    return np.divide(top, bottom, out=np.zeros(np.broadcast(top, bottom).shape), where=bottom != 0)


def _closeness(distance: np.ndarray) -> np.ndarray:
    """A distance from 0 up as a similarity from 1 down to 0: 1 / (1 + d)."""
    return 1 / (1 + distance)


def _lengths(v: np.ndarray) -> np.ndarray:
    """Norms (n, 1)."""
    return np.linalg.norm(v, axis=1, keepdims=True)


# ---- of whole vectors


@compared
def dot(x, y, /):
    """Scalar product x.y: a long vector is close to everything on its side, and a vector need not be its own nearest.

    Symmetric; unbounded.
    """
    return x @ y.T


@compared
def cosine(x, y, /):
    """Cosine of the angle, x.y / (|x| |y|), in [-1, 1]; 0 with a zero vector.

    Symmetric; lengths do not count; 1 with itself, unless zero.
    """
    return np.clip(_ratio(x, _lengths(x)) @ _ratio(y, _lengths(y)).T, -1, 1)


@compared
def spherical(x, y, /):
    """1 - angle / pi, in [0, 1]: the distance along the sphere. A zero vector is at right angles to all: 0.5.

    Orders as the cosine does, but evenly: symmetric; lengths do not count; 1 with itself (to 1e-8), unless zero.
    """
    return 1 - np.arccos(cosine(x, y)) / np.pi


@compared
def ndd(x, y, /):
    """Dot product over the quadratic mean of the lengths, x.y / sqrt((|x|^2 + |y|^2) / 2); 0 for two zero vectors.

    |x| with itself; of two vectors in line the shorter decides. Symmetric; unbounded, at most min(|x|, |y|) sqrt 2.
    """
    return _ratio(x @ y.T, np.hypot(_lengths(x), _lengths(y).T) / math.sqrt(2))


@compared
def log_scaled(x, y, /):
    """x.y / log(1 + |x| |y|): the cosine for short vectors, nearly the dot product for long ones; 0 with a zero vector.

    Symmetric; unbounded.
    """
    return _ratio(x @ y.T, np.log1p(_lengths(x) * _lengths(y).T))


@compared
def hybrid(x, y, /):
    """Dot product that fades with Euclidean distance: x.y / (|x - y| + 1). |x|^2 with itself.

    Symmetric; unbounded.
    """
    return x @ y.T * _closeness(cdist(x, y))


@compared
def euclidean(x, y, /):
    """1 / (1 + |x - y|), in (0, 1]. Symmetric; 1 with itself."""
    return _closeness(cdist(x, y))


@compared
def manhattan(x, y, /):
    """1 / (1 + sum_i |x_i - y_i|), in (0, 1]. Symmetric; 1 with itself."""
    return _closeness(cdist(x, y, "cityblock"))


@compared
def mahalanobis(x, y, /):
    """1 / (1 + d), d the Mahalanobis distance, in (0, 1]: dimensions of y that go together count once; 1 with itself.

    The covariance of y is shrunk as Ledoit and Wolf (2004) find best; no direction has less than a millionth of the
    mean variance. A common scale does not count. Errors: AelabError where all rows of y are equal.
    """
    from sklearn.covariance import LedoitWolf  # a second that the other similarities do without

    if not np.ptp(y, axis=0).any():
        raise AelabError(f"mahalanobis: all {len(y)} rows of y are equal: they have no covariance; use euclidean")
    variances, axes = np.linalg.eigh(LedoitWolf().fit(y).covariance_)
    whiten = axes / np.sqrt(np.maximum(variances, FLATTEST * variances.mean()))
    return _closeness(cdist(x @ whiten, y @ whiten))


@compared
def hyperbolic(x, y, /, *, radius: Level):
    """1 / (1 + d), d = 2 arsinh(|u - v| / sqrt((1 - |u|^2) (1 - |v|^2))), the distance in the Poincare ball, in (0, 1].

    Into the ball: x and y are scaled by one factor, so that the longest of y has norm `radius`, below 1; a longer x is
    cut to it. Towards the rim, where long vectors go, everything is far apart (Nickel and Kiela, 2017). A common scale
    does not count; 1 with itself. Errors: AelabError for a radius that is not between 0 and 1.
    """
    if not 0 < radius < 1:
        raise AelabError(f"hyperbolic: radius {radius}: expected a number above 0 and below 1")
    longest = _lengths(y).max()
    u, v = (w * _ratio(radius, np.maximum(longest, _lengths(w))) for w in (x, y))
    rim = np.sqrt((1 - _lengths(u) ** 2) * (1 - _lengths(v).T ** 2))
    return _closeness(2 * np.arcsinh(cdist(u, v) / rim))


# ---- of each dimension, then of them all


def _pooled(values: np.ndarray, dropped: int, weights: np.ndarray | None, threshold: float | None) -> np.ndarray:
    """The mean over the last axis of all but the `dropped` lowest, or of whether they reach the threshold.

    Of equal values the first dimensions are dropped, which matters for their weights only.
    """
    if weights is None:
        values.partition(dropped, axis=-1)
    else:
        order = np.argsort(values, axis=-1, kind="stable")
        values, weights = np.take_along_axis(values, order, axis=-1), weights[order][..., dropped:]
    kept = values[..., dropped:]
    return np.average(kept if threshold is None else kept >= threshold, axis=-1, weights=weights)


def _by_dimension(near, x, y, trim: float, weights: list[float] | None, threshold: float | None) -> np.ndarray:
    """What `near` makes of |x_i - y_i| (..., d), pooled."""
    d = x.shape[1]
    dropped = math.floor(trim * d + 1e-9)  # 0.29 * 100 is 28.999...
    weights = None if weights is None else np.array(weights, np.float64)
    if weights is not None and not (weights.shape == (d,) and 0 <= weights.min() <= weights.max() < math.inf):
        raise AelabError(f"similarity: expected {d} weights, finite and at least 0, got {weights.tolist()}")
    counting = d if weights is None else np.count_nonzero(weights)
    if dropped >= counting:
        raise AelabError(f"similarity: trim {trim} drops {dropped} dimensions where {counting} count: none may be left")

    def part(x, y):
        values = x[:, None] - y
        return _pooled(near(np.abs(values, out=values)), dropped, weights, threshold)

    return _blocks(part, x, y, (4 if weights is None else 7) * d)


@compared
def exponential(x, y, /, *, trim: Share, weights: list[Level] | None, threshold: Share | None):
    """Mean over dimensions of exp(-|x_i - y_i|), in [0, 1]: one that differs much counts as one that differs more.

    Of each pair the floor(trim d) dimensions with the lowest values are dropped; `weights` has one for each of the d.
    With a `threshold` the share (by weight) of the others whose value is at least that. Symmetric; 1 with itself.
    Errors: AelabError where all is dropped, and for weights that are not d, negative, or 0 for all that may be kept.
    """
    return _by_dimension(lambda gap: np.exp(-gap), x, y, trim, weights, threshold)


@compared
def range_scaled(x, y, /, *, trim: Share, weights: list[Level] | None, threshold: Share | None):
    """Mean over dimensions of 1 - |x_i - y_i| / (max_i - min_i), at least 0, in [0, 1] (Gower, 1971); 1 with itself.

    max and min are of y; a dimension that is constant there counts 1 where x is equal to it, else 0. `trim`, `weights`,
    `threshold` and their errors are those of `exponential`. Scale and origin of a dimension do not count.
    """
    low, span = y.min(axis=0), np.ptp(y, axis=0)
    x, y = (np.where(span > 0, _ratio(v - low, span), v != low) for v in (x, y))
    return _by_dimension(lambda gap: np.maximum(1 - gap, 0), x, y, trim, weights, threshold)


# ---- learned


def _another(one: np.ndarray, sizes, rng) -> np.ndarray:
    """Places in rows of these sizes, each other than the one given."""
    return (one + 1 + rng.integers(0, sizes - 1, size=one.shape)) % sizes


class Learned:
    """The odds, in [0, 1], that a network gives two vectors for being liked together rather than drawn at random.

    One hidden layer on [|x - y|, x y], of vectors standardised as those it was fitted on: symmetric, not 1 with itself.
    """

    def __init__(self, *, hidden: Count, pairs: Count, epochs: Count, seed: Whole):
        self.hidden, self.pairs, self.epochs, self.seed = hidden, pairs, epochs, seed
        self.network = None

    def _features(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Of pairs (..., d) that broadcast: (number of pairs, 2 d)."""
        x, y = (x - self.mean) / self.scale, (y - self.mean) / self.scale
        return np.concatenate([np.abs(x - y), x * y], axis=-1).reshape(-1, 2 * len(self.mean))

    def _drawn(self, items: int, likes, rng) -> tuple[np.ndarray, np.ndarray]:
        """Two items for each pair: `pairs` of two that one user likes, and as many of any two."""
        sizes = np.diff(likes.indptr)
        first = np.flatnonzero(np.repeat(sizes, sizes) > 1)  # likes of users with another
        if likes.shape[1] != items or not len(first):
            raise AelabError(f"learned: expected likes (users, {items}), two of one user, got {likes.shape}")
        first = rng.choice(first, self.pairs)
        user = np.searchsorted(likes.indptr, first, side="right") - 1
        start, any_ = likes.indptr[user], rng.integers(0, items, self.pairs)
        second = start + _another(first - start, sizes[user], rng)
        one, two = likes.indices[first], likes.indices[second]
        return np.concatenate([one, any_]), np.concatenate([two, _another(any_, items, rng)])

    def fit(self, vectors, interactions, /) -> "Learned":
        """Train on vectors (i, d) of items and who likes them, a SciPy CSR matrix (users, i); gives itself.

        The co-liked pairs are drawn by likes: a user who has many, and an item that many have, comes more often.
        Errors: AelabError as for all, where the numbers of items differ, and where no user likes two.
        """
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.neural_network import MLPClassifier

        vectors, _ = _vectors(vectors, vectors)
        one, two = self._drawn(len(vectors), interactions.tocsr(), np.random.default_rng(self.seed))
        self.mean = vectors.mean(axis=0)
        self.scale = np.where(np.ptp(vectors, axis=0) > 0, vectors.std(axis=0), 1)
        network = MLPClassifier((self.hidden,), max_iter=self.epochs, random_state=self.seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # `epochs` is how long was asked for
            self.network = network.fit(self._features(vectors[one], vectors[two]), np.repeat([1, 0], self.pairs))
        return self

    def __call__(self, x, y, /) -> np.ndarray:
        """Similarity (n, m) of x (n, d) and y (m, d); AelabError before `fit`, or of another d."""
        if self.network is None:
            raise AelabError("learned: not fitted yet; call fit(vectors, interactions) first")
        x, y = _vectors(x, y)
        if x.shape[1] != len(self.mean):
            raise AelabError(f"learned: fitted on vectors (n, {len(self.mean)}), got x {x.shape} and y {y.shape}")

        def part(x, y):
            odds = self.network.predict_proba(self._features(x[:, None], y))[:, 1]
            return odds.reshape(len(x), len(y))

        return _blocks(part, x, y, 6 * len(self.mean) + 2 * self.hidden)


def fitted(node: Mapping, vectors: np.ndarray, likes) -> Callable:
    """The similarity of a config node, its knobs filled in; a learned one is fitted on vectors (i, d) and likes."""
    made = bound(node)
    return made().fit(vectors, likes) if isinstance(made.func, type) else made
