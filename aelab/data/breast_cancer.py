"""Breast cancer, the table of cell nuclei that scikit-learn carries: no download."""

import numpy as np

from aelab.config import Count, Share, Whole
from aelab.data.record import Table
from aelab.data.table import assemble, cut, mark


def breast_cancer(
    *, test: Share, validation: Share, contamination: Share, limit: Count | None, split_seed: Whole, seed: Whole
) -> Table:
    """569 rows of 30 numbers, of which the 212 malignant ones are the anomalies. Source: UCI, Street et al. 1993."""
    from sklearn.datasets import load_breast_cancer

    found = load_breast_cancer(as_frame=True)
    frame, y = found.data, (found.target.to_numpy() == 0).astype(np.int64)
    rest, held = cut(np.arange(len(y)), y, test, split_seed, None)
    rows, kept = cut(rest, y, validation, seed, None)
    parts = {"train": rows, "validation": kept, "test": held}
    return assemble(
        "breast_cancer",
        {part: (frame.iloc[r], y[r]) for part, r in parts.items()},
        ("normal", "malignant"),
        list(frame.columns),
        None,
        {"names": None, "header": True, "delimiter": ",", "missing": []},
        mark(frame.assign(label=y)),
        repair=None,
        contamination=contamination,
        limit=limit,
        seed=seed,
        where=dict.fromkeys(parts, "breast_cancer"),
        source="https://archive.ics.uci.edu/dataset/17",
        licence="CC BY 4.0",
    )
