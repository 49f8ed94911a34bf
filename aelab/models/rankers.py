"""Top-K recommenders without gradient: `fit(lists)`, then `predict(known)`, scores float32 (n, w) of CSR rows (n, k).

Letters in shapes: u users, i items, d features.
"""

import numpy as np
from scipy.sparse import csr_array, diags_array

from aelab.call import build
from aelab.config import ConfigError, Count, Interactions, Level, ModelNodes, Share, SimilarityNode, Whole
from aelab.similarities import fitted

BLOCK = 1 << 23
"""Numbers in a block of matrices that are solved at once: 64 MB."""


class Popularity:
    """The same scores for everybody: how many users of the training set have each item."""

    def __init__(self, shape: Interactions, /):
        pass

    def fit(self, lists) -> None:
        """Count the users of each item."""
        self.counts = lists.wanted.sum(axis=0).astype(np.float32)

    def predict(self, known: csr_array) -> np.ndarray:
        """The counts, a row for each user."""
        return np.tile(self.counts, (known.shape[0], 1))


class Linear:
    """Scores are a sum over the items that a user has: known (u, i) times `weights` (i, i), float32."""

    def predict(self, known: csr_array) -> np.ndarray:
        """known @ weights."""
        return known @ self.weights


class Ease(Linear):
    """The best linear autoencoder with a diagonal of zeros, in closed form: B = P X'WY - P diag(...).

    P is the inverse of G = X'WX plus a diagonal, l2 + dropout / (1 - dropout) diag(G): `dropout` is the share of a
    user's items that is hidden in training, by its expected value. With known and wanted values alike, 0 is EASE
    (Steck, WWW 2019, eq. 8) and above 0 its denoising form EDLAE (Steck, NeurIPS 2020, eq. 10).

    W weighs a user of n items by n^-activity; scores are multiplied by (users of an item + 1)^popularity.
    """

    def __init__(self, shape: Interactions, /, *, l2: Level, dropout: Share, activity: Level, popularity: float):
        if dropout == 1:
            raise ConfigError("model.dropout=1: expected less than 1, so that something is left to learn from")
        self.l2, self.dropout, self.activity, self.popularity = l2, dropout, activity, popularity

    def fit(self, lists) -> None:
        """Solve for the weights; memory and time grow with the square and the cube of the number of items."""
        weight = np.maximum(np.diff(lists.wanted.indptr), 1.0) ** -self.activity
        weighted = (diags_array(weight / weight.mean()) @ lists.known).T.tocsr()
        gram = (weighted @ lists.known).toarray().astype(np.float64)
        own = np.diag_indices_from(gram)
        gram[own] += self.l2 + self.dropout / (1 - self.dropout) * gram[own]
        inverse = np.linalg.inv(gram)
        weights = inverse @ (weighted @ lists.wanted).toarray()
        weights -= inverse * (weights[own] / inverse[own])
        weights[own] = 0  # to the last bit
        counts = np.bincount(lists.wanted.indices, minlength=len(gram))
        self.weights = (weights * (counts + 1.0) ** self.popularity).astype(np.float32)


class ItemKNN(Linear):
    """The `neighbours` items nearest to each, by a similarity of who has them. Sarwar et al., WWW 2001.

    `similarity` is the config of one: `similarity=NAME` on the command line.
    """

    def __init__(self, shape: Interactions, /, *, neighbours: Count, similarity: SimilarityNode):
        self.neighbours, self.similarity = neighbours, similarity

    def fit(self, lists) -> None:
        """Compare all items with one another, by dense columns (i, u)."""
        columns = lists.known.T.toarray()
        near = fitted(self.similarity, columns, lists.known)(columns, columns).astype(np.float32)
        np.fill_diagonal(near, 0)
        if self.neighbours < len(near):
            far = np.argpartition(-near, self.neighbours - 1, axis=0)[self.neighbours :]
            np.put_along_axis(near, far, 0, axis=0)
        self.weights = near


class MatrixFactorisation:
    """Implicit feedback as confidence, by alternating least squares: user and item vectors of `bottleneck` numbers.

    Minimises the sum over all pairs of c (p - u.v)^2 + l2 (|u|^2 + |v|^2), with c = 1 + alpha max(x - floor, 0) and
    p = 1 where x, the known value, is above `floor`, else 0; l2 of a row of n items counts sqrt(n / mean n) times. Hu,
    Koren and Volinsky, ICDM 2008, eq. 3 to 5.
    """

    def __init__(
        self,
        shape: Interactions,
        /,
        *,
        bottleneck: Count,
        l2: Level,
        alpha: Level,
        floor: Level,
        rounds: Count,
        seed: Whole,
    ):
        self.bottleneck, self.l2, self.alpha, self.floor = bottleneck, l2, alpha, floor
        self.rounds, self.seed = rounds, seed

    def fit(self, lists) -> None:
        """Alternate between users and items."""
        known = self.confidence(lists.known)
        self.vectors = 0.1 * np.random.default_rng(self.seed).standard_normal((known.shape[1], self.bottleneck))
        turned, self.typical = known.T.tocsr(), (known.nnz / known.shape[0], known.nnz / known.shape[1])
        for _ in range(self.rounds):
            self.vectors = self.solve(turned, self.solve(known, self.vectors, self.typical[0]), self.typical[1])

    def confidence(self, known: csr_array) -> csr_array:
        """c - 1 where the known value is above the floor, nothing elsewhere."""
        found = known.astype(np.float64)
        found.data = np.maximum(found.data - self.floor, 0)
        found.eliminate_zeros()  # before alpha, which may be 0: they are liked all the same
        found.data *= self.alpha
        return found

    def solve(self, known: csr_array, others: np.ndarray, typical: float) -> np.ndarray:
        """The best vectors (n, d) of rows (n, k), given those of the columns (k, d), by blocks of rows."""
        size = others.shape[1]
        squares = (others[:, :, None] * others[:, None]).reshape(len(others), -1)
        step = max(1, BLOCK // size**2)
        found = []
        for first in range(0, known.shape[0], step):
            rows = known[first : first + step]
            shrink = self.l2 * np.sqrt(np.maximum(np.diff(rows.indptr), 1) / typical)
            left = (rows @ squares).reshape(-1, size, size) + others.T @ others
            left += shrink[:, None, None] * np.eye(size)
            present = rows.copy()
            present.data = 1 + present.data
            found.append(np.linalg.solve(left, (present @ others)[..., None])[..., 0])
        return np.concatenate(found)

    def predict(self, known: csr_array) -> np.ndarray:
        """The users' vectors are solved anew from what is known of them: so a new user has one too."""
        users = self.solve(self.confidence(known), self.vectors, self.typical[0])
        return (users @ self.vectors.T).astype(np.float32)


class Blend:
    """A weighted sum of other models' scores, each standardised for each user over the items that are not known.

    `members` are configs of models of this file, by names; `weights` are theirs, in order.
    """

    def __init__(self, shape: Interactions, /, *, members: ModelNodes, weights: list[float]):
        if len(members) != len(weights):
            raise ConfigError(f"model.weights: expected {len(members)}, one for each of {', '.join(members)}")
        self.members, self.weights = [build(node, shape) for node in members.values()], weights

    def fit(self, lists) -> None:
        """Each member by itself."""
        for member in self.members:
            member.fit(lists)

    def predict(self, known: csr_array) -> np.ndarray:
        """Sum of weight * (score - mean) / standard deviation, float32 (u, i)."""
        rows, total = np.repeat(np.arange(known.shape[0]), np.diff(known.indptr)), 0.0
        for member, weight in zip(self.members, self.weights, strict=True):
            scores = member.predict(known).astype(np.float32)
            open_ = np.ones(scores.shape, bool)
            open_[rows, known.indices] = False
            open_[~open_.any(axis=1)] = True  # a user who knows everything
            mean = np.mean(scores, axis=1, keepdims=True, where=open_)
            spread = np.std(scores, axis=1, keepdims=True, where=open_)
            total += weight * (scores - mean) / np.maximum(spread, 1e-9)
        return total
