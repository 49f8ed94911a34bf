"""N-gram language models: counts of what followed, smoothed; the baselines of `task=language`.

Letters in shapes: n tokens, k windows, t steps, v vocabulary.
"""

import numpy as np
from scipy.sparse import csr_array

from aelab.config import Tokens, Whole

BLOCK = 1 << 23
"""Probabilities that are worked out at once: 64 MB."""


class KneserNey:
    """Interpolated, modified Kneser-Ney (Chen and Goodman, 1999): how often it followed, less a discount.

        P_n(w | c) = max(count(c w) - D, 0) / count(c) + gamma(c) P_{n-1}(w | c without its first token)

    At the highest order counts are of occurrences; below it, of the different tokens that came before, so that
    "Francisco" is likely after "San" alone. Discounts for counts of 1, 2 and more come from how many n-grams have
    counts of 1 to 4. P_0 is uniform: order 0 is that alone, order 1 the unigram model.
    """

    def __init__(self, tokens: Tokens, /, *, order: Whole):
        self.v, self.order = tokens[0], order

    def fit(self, x: np.ndarray) -> None:
        """Count the n-grams of a text, int (n,)."""
        grams, self.keys, followed = np.asarray(x, np.int64), [], []
        contexts = np.zeros(len(x), np.int64)
        for _ in range(self.order):
            # An n-gram is a pair: the (n-1)-gram before its last token, and that token.
            keys, ids, counts = np.unique(contexts * self.v + x, return_inverse=True, return_counts=True)
            suffixes = np.zeros(len(keys), np.int64)
            suffixes[ids] = grams if self.keys else 0
            followed.append((keys, counts, suffixes))
            self.keys.append(keys)
            grams, contexts = ids, np.concatenate([[-1], ids[:-1]])
            kept = slice(1, None)
            x, grams, contexts = x[kept], grams[kept], contexts[kept]
        self.levels = []
        for n, (keys, counts, _) in enumerate(followed):
            if n + 1 < self.order:
                counts = np.bincount(followed[n + 1][2], minlength=len(keys))
            rows = len(self.keys[n - 1]) if n else 1
            self.levels.append(level(keys // self.v, keys % self.v, counts, (rows, self.v)))

    def predict(self, inputs: np.ndarray) -> np.ndarray:
        """Log-probabilities float32 (k, t, v) of the next token after each of inputs (k, t)."""
        k, t = inputs.shape
        found = np.empty((k, t, self.v), np.float32)
        step = max(1, BLOCK // (t * self.v))
        for first in range(0, k, step):
            rows = inputs[first : first + step].astype(np.int64)
            found[first : first + step] = np.log(self.probabilities(rows))
        return found

    def probabilities(self, inputs: np.ndarray) -> np.ndarray:
        """P of the next token, (k, t, v), after each of inputs (k, t); the context begins with the row."""
        p = np.full((inputs.size, self.v), 1 / self.v)
        context = np.zeros(inputs.shape, np.int64)
        for n in range(self.order):
            if n:  # the n tokens that end here: the n - 1 that ended one before, and this one
                before = np.pad(context, ((0, 0), (1, 0)), constant_values=-1)[:, :-1] if n > 1 else context
                context = find(self.keys[n - 1], np.where(before < 0, -1, before * self.v + inputs))
            seen = np.flatnonzero(context.ravel() >= 0)
            rows = context.ravel()[seen]
            shares, rest = self.levels[n]
            p[seen] = p[seen] * rest[rows, None] + shares[rows].toarray()
        return p.reshape(*inputs.shape, self.v)


def find(keys: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The places of `wanted` in ascending `keys`, -1 where they are not."""
    if not len(keys):
        return np.full(wanted.shape, -1)
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[at] == wanted, at, -1)


def level(rows: np.ndarray, columns: np.ndarray, counts: np.ndarray, shape: tuple[int, int]):
    """(discounted shares (contexts, v), sparse; gamma (contexts,)) of counts of n-grams, by ascending row."""
    of = [np.count_nonzero(counts == c) for c in range(1, 5)]
    y = of[0] / max(of[0] + 2 * of[1], 1)
    steps = [c - (c + 1) * y * of[c] / of[c - 1] if of[c - 1] else 0.0 for c in (1, 2, 3)]
    steps = [s if s > 0 else c / 2 for c, s in enumerate(steps, 1)]  # of few counts: something is left for the unseen
    discount = np.clip(steps, 0, [1, 2, 3])[np.minimum(counts, 3) - 1] * (counts > 0)
    total = np.bincount(rows, counts, shape[0])
    taken = np.bincount(rows, discount, shape[0])
    whole = np.maximum(total, 1)
    indptr = np.searchsorted(rows, np.arange(shape[0] + 1))
    shares = csr_array(((counts - discount) / whole[rows], columns, indptr), shape=shape)
    return shares, np.where(total > 0, taken / whole, 1.0)
