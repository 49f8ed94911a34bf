"""Top-K lists from scores, many users at a time. Letters in shapes: u users, i items, k places of a list."""

import numpy as np
from scipy.sparse import csr_array


def best(scores: np.ndarray, k: int) -> np.ndarray:
    """The k highest of each row, best first, int (u, k), of scores (u, i); of equal ones that with the lower number."""
    found = np.sort(np.argpartition(-scores, min(k, scores.shape[1]) - 1, axis=1)[:, :k], axis=1)
    least = np.take_along_axis(scores, found, axis=1).min(axis=1, keepdims=True, initial=np.inf)
    tied = np.count_nonzero(scores >= least, axis=1) > found.shape[1]  # equal ones were left out, whichever they were
    found[tied] = np.sort(np.argsort(-scores[tied], axis=1, kind="stable")[:, :k], axis=1)
    order = np.argsort(-np.take_along_axis(scores, found, axis=1), axis=1, kind="stable")
    return np.take_along_axis(found, order, axis=1)


def top(scores: np.ndarray, seen: csr_array, k: int) -> np.ndarray:
    """The k best items of each user of scores (u, i); what is in `seen` (u, i) comes after all that is not."""
    scores = np.array(scores, np.float32)
    scores[np.repeat(np.arange(len(scores)), np.diff(seen.indptr)), seen.indices] = -np.inf
    return best(scores, k)


def hits(lists: np.ndarray, wanted: csr_array) -> np.ndarray:
    """Which places of the lists (u, k) hold an item that is in `wanted` (u, i), bool (u, k)."""
    return np.take_along_axis(wanted.toarray() != 0, lists, axis=1)
