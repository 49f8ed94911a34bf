"""Which columns of the credit card data tell frauds, by the training part alone, and what choosing them is worth.

    python -m bench.columns

A column is taken while ROC-AUC + 0.3 * PR-AUC of the Mahalanobis distance on the columns so far grows. The nested check
chooses by one half of the frauds and judges by the other, on normal rows that neither choice nor distance has seen.
The rows of the test split (20 %, stratified, split seed 42) are dropped before anything else.
"""

import os
from collections import Counter

import numpy as np
import pandas as pd
from rich.table import Table
from sklearn.covariance import LedoitWolf
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.model_selection import train_test_split

from aelab.data.fetch import fetch
from aelab.data.record import Columns
from aelab.preparation import robust
from bench.denoise import console

PRECISION = 0.3  # weight of PR-AUC beside ROC-AUC
REPEATS = 12


class Judge:
    """ROC-AUC and PR-AUC of the distance from normal rows, fitted on one part of them, on any columns."""

    def __init__(self, fitted: pd.DataFrame, calm: pd.DataFrame, frauds: pd.DataFrame):
        columns = Columns(tuple(fitted.columns), {}, None)
        prepare = robust(fitted.to_numpy(), columns, within=[25, 75], log=["Amount"], clip=10, whiten=False)
        self.fitted, rows = prepare(fitted.to_numpy()), pd.concat([calm, frauds])
        self.rows, self.strange = prepare(rows.to_numpy()), np.arange(len(rows)) >= len(calm)

    def __call__(self, keep: list[int]) -> tuple[float, float]:
        """The two areas of the columns `keep`."""
        scores = LedoitWolf().fit(self.fitted[:, keep]).mahalanobis(self.rows[:, keep])
        return roc_auc_score(self.strange, scores), average_precision_score(self.strange, scores)

    def choose(self) -> list[int]:
        """Columns, the most useful first, while another one helps."""
        keep, best = [], 0.0
        while rest := [j for j in range(self.rows.shape[1]) if j not in keep]:
            worth = {j: np.dot(self([*keep, j]), (1, PRECISION)) for j in rest}
            top = max(worth, key=worth.get)
            if worth[top] <= best:
                break
            keep, best = [*keep, top], worth[top]
        return keep


def training_part() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Normal rows and frauds of the training part, without the time."""
    where = os.environ.get("AELAB_DATA_DIR")
    frame = pd.read_csv(fetch("creditcard", "creditcard.csv", urls=[], md5="", data_dir=where))
    frame, _ = train_test_split(frame, test_size=0.2, stratify=frame["Class"], random_state=42)
    rows, strange = frame.drop(columns=["Time", "Class"]).astype(float), frame["Class"] > 0
    return rows[~strange], rows[strange]


def main():
    """Prints the choice by all frauds of the training part, and the nested check."""
    calm, frauds = training_part()
    names, nested, chosen = list(calm.columns), [], Counter()
    for repeat in range(REPEATS):
        rng = np.random.default_rng(repeat)
        rows, halves = rng.permutation(len(calm)), np.array_split(rng.permutation(len(frauds)), 2)
        a, b, c = (calm.iloc[part] for part in np.array_split(rows, 3))
        keep = Judge(a, b, frauds.iloc[halves[0]]).choose()
        judge = Judge(pd.concat([a, b]), c, frauds.iloc[halves[1]])
        nested.append([*judge(list(range(len(names)))), *judge(keep), len(keep)])
        chosen[", ".join(names[j] for j in Judge(a, pd.concat([b, c]), frauds).choose())] += 1
    table = Table("other half of the frauds", "ROC-AUC", "PR-AUC", "columns")
    mean = np.mean(nested, axis=0)
    table.add_row("all columns", f"{mean[0]:.4f}", f"{mean[1]:.4f}", str(len(names)))
    table.add_row("chosen by one half", f"{mean[2]:.4f}", f"{mean[3]:.4f}", f"{mean[4]:.1f}")
    console.print(table)
    for columns, times in chosen.most_common():
        console.print(f"chosen by all frauds, {times} of {REPEATS} draws: {columns}")


if __name__ == "__main__":
    main()
