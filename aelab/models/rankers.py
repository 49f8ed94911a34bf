"""Top-K recommenders without gradient: `fit(lists)`, then `predict(known)`, scores float32 (n, w) of CSR rows (n, k).

Letters in shapes: u users, i items, d features.
"""

import numpy as np
from scipy.sparse import csr_array
from threadpoolctl import threadpool_limits

from aelab.config import Count, Interactions, Level, Share, Whole
from aelab.similarities import fitted


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
    """The best linear autoencoder with a diagonal of zeros, in closed form: B = I - P / diag(P).

    P is the inverse of the item-item matrix G plus a diagonal, l2 + dropout / (1 - dropout) * diag(G): `dropout` is
    the share of a user's items that is hidden in training, by its expected value. 0 is EASE (Steck, WWW 2019, eq. 8),
    above 0 its denoising form EDLAE (Steck, NeurIPS 2020, eq. 10).
    """

    def __init__(self, shape: Interactions, /, *, l2: Level, dropout: Share):
        self.l2, self.dropout = l2, dropout

    def fit(self, lists) -> None:
        """Solve for the weights; memory and time grow with the square and the cube of the number of items."""
        gram = (lists.known.T @ lists.known).toarray().astype(np.float64)
        own = np.diag_indices_from(gram)
        gram[own] += self.l2 + self.dropout / (1 - self.dropout) * gram[own]
        inverse = np.linalg.inv(gram)
        weights = -inverse / inverse[own]
        weights[own] = 0
        self.weights = weights.astype(np.float32)


class ItemKNN(Linear):
    """The `neighbours` items nearest to each, by a similarity of who has them. Sarwar et al., WWW 2001.

    `similarity` is the config of one: `similarity=NAME` on the command line.
    """

    def __init__(self, shape: Interactions, /, *, neighbours: Count, similarity: dict):
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

    Minimises the sum over all pairs of c (x - p.q)^2 + l2 (|p|^2 + |q|^2), with c = 1 + alpha x. Hu, Koren and
    Volinsky, ICDM 2008, eq. 3 to 5.
    """

    def __init__(
        self, shape: Interactions, /, *, bottleneck: Count, l2: Level, alpha: Level, rounds: Count, seed: Whole
    ):
        self.bottleneck, self.l2, self.alpha, self.rounds, self.seed = bottleneck, l2, alpha, rounds, seed

    def fit(self, lists) -> None:
        """Alternate between users and items."""
        known, size = lists.known, (lists.known.shape[1], self.bottleneck)
        self.vectors = 0.1 * np.random.default_rng(self.seed).standard_normal(size)
        turned = known.T.tocsr()
        with threadpool_limits(1):  # for matrices this small, threads take longer to meet than to compute
            for _ in range(self.rounds):
                self.vectors = self.solve(turned, self.solve(known, self.vectors))

    def solve(self, known: csr_array, others: np.ndarray) -> np.ndarray:
        """The best vectors (n, d) of rows (n, k), given those of the columns (k, d)."""
        common = others.T @ others + self.l2 * np.eye(others.shape[1])
        found = np.zeros((known.shape[0], others.shape[1]))
        for row in np.flatnonzero(np.diff(known.indptr)):
            span = slice(known.indptr[row], known.indptr[row + 1])
            own, value = others[known.indices[span]], known.data[span]
            left = common + self.alpha * (own.T * value) @ own
            found[row] = np.linalg.solve(left, own.T @ (value * (1 + self.alpha * value)))
        return found

    def predict(self, known: csr_array) -> np.ndarray:
        """The users' vectors are solved anew from what is known of them: so a new user has one too."""
        return (self.solve(known, self.vectors) @ self.vectors.T).astype(np.float32)
