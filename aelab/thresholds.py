"""Thresholds: the score from which a row is called an anomaly, chosen on validation rows alone.

`threshold(labels, scores, /, *, knobs)` gives a number; rows with at least that score are flagged. labels are bool
(n,), True for anomalies; scores float (n,).
"""

import numpy as np

from aelab.config import DataError, Labels, Share


def best_f1(labels: Labels, scores, /) -> float:
    """The score that makes the best F1. Needs labelled anomalies among the validation rows."""
    if not np.any(labels):
        raise DataError("threshold=best_f1: validation has no anomaly; take threshold=quantile or false_positive_rate")
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(labels[order])
    f1 = 2 * hits / (np.arange(1, len(scores) + 1) + hits[-1])
    ties = np.append(np.diff(scores[order]) == 0, False)  # a threshold cannot part equal scores
    return float(scores[order][np.argmax(np.where(ties, -1, f1))])


def quantile(labels: Labels, scores, /, *, share: Share) -> float:
    """The score that a share of the normal rows stays below."""
    return float(np.quantile(scores[~labels], share))


def false_positive_rate(labels: Labels, scores, /, *, rate: Share) -> float:
    """The lowest score that flags at most a share `rate` of the normal rows."""
    calm = np.sort(scores[~labels])[::-1]
    allowed = int(np.floor(rate * len(calm) + 1e-9))  # 0.29 of 100 is 29
    return float(np.nextafter(calm[allowed], np.inf)) if allowed < len(calm) else float(calm[-1])
