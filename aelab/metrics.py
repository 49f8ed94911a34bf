"""Metrics that are no mean over a formula of `aelab.ops`: of anomaly scores, and of top-K lists.

Of anomaly scores: `metric(labels, scores, /, *, knobs)` gives one number, by scikit-learn. labels are bool (n,), True
for anomalies; scores float (n,), higher = stranger.

Of top-K lists: `metric(hits, wanted, /)` gives one value for each user, float (u,), higher is better, in [0, 1]. hits
is bool (u, k), whether a place of the list, best first, holds an item that was wanted; wanted int (u,), at least 1,
how many items were. Järvelin and Kekäläinen (2002) for the gain with logarithmic discount.
"""

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from aelab.config import Count, Hits, Labels, Share


def roc_auc(labels: Labels, scores, /) -> float:
    """Area under the ROC curve: the odds that an anomaly scores above a normal row. 0.5 is chance."""
    return float(roc_auc_score(labels, scores))


def pr_auc(labels: Labels, scores, /) -> float:
    """Average precision: area under the precision-recall curve. The share of anomalies is chance."""
    return float(average_precision_score(labels, scores))


def precision_at(labels: Labels, scores, /, *, k: Count) -> float:
    """Share of anomalies among the k highest scores; among all rows where there are fewer."""
    return float(np.mean(labels[np.argsort(-scores, kind="stable")[:k]]))


def recall_at(labels: Labels, scores, /, *, rate: Share) -> float:
    """Share of anomalies found at the highest false-positive rate not above `rate`."""
    false, found, _ = roc_curve(labels, scores, drop_intermediate=False)
    return float(found[false <= rate].max())


def precision(hits: Hits, wanted, /) -> np.ndarray:
    """Share of the list that was wanted: hits / k, also where fewer than k were wanted."""
    return hits.mean(axis=1)


def recall(hits: Hits, wanted, /) -> np.ndarray:
    """Share of the wanted items that are in the list: hits / wanted; below 1 where more than k were wanted."""
    return hits.sum(axis=1) / wanted


def hit_rate(hits: Hits, wanted, /) -> np.ndarray:
    """1 where the list holds a wanted item, else 0."""
    return hits.any(axis=1).astype(float)


def mrr(hits: Hits, wanted, /) -> np.ndarray:
    """1 / place of the first wanted item, 0 where the list has none: places 2 and 3 wanted are 0.5."""
    return np.max(hits / np.arange(1, hits.shape[1] + 1), axis=1)


def average_precision(hits: Hits, wanted, /) -> np.ndarray:
    """Mean precision at the places of wanted items, over the most that the list could hold: min(wanted, k)."""
    at = np.cumsum(hits, axis=1) / np.arange(1, hits.shape[1] + 1)
    return (at * hits).sum(axis=1) / np.minimum(wanted, hits.shape[1])


def ndcg(hits: Hits, wanted, /) -> np.ndarray:
    """Sum of 1 / log2(place + 1) over the wanted items in the list, over that of the best list there could be."""
    gains = 1 / np.log2(np.arange(2, hits.shape[1] + 2))
    return hits @ gains / np.cumsum(gains)[np.minimum(wanted, hits.shape[1]) - 1]
