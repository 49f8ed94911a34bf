"""Metrics of anomaly scores: `metric(labels, scores, /, *, knobs)` gives one number, by scikit-learn.

labels are bool (n,), True for anomalies; scores float (n,), higher = stranger.
"""

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from aelab.config import Count, Labels, Share


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
