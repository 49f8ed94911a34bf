"""Anomaly detection: trained on normal rows; what it cannot rebuild is strange."""

from dataclasses import replace

import keras
import numpy as np
import pandas as pd
from sklearn.metrics import precision_recall_curve, precision_recall_fscore_support, roc_auc_score

from aelab import archive, figures, run_files
from aelab.call import build
from aelab.config import AelabError, Count, Share, Whole
from aelab.data.record import Split
from aelab.evaluate import Result
from aelab.fit import members, partials
from aelab.tasks.task import Task

FILE = "detector.skops"


class Anomaly(Task):
    """Find the rows of a table that are unlike the normal ones it was trained on."""

    kinds = ("table",)
    needs = ("preparation", "score", "threshold")
    by_example = False

    def __init__(self, *, resamples: Whole, confidence: Share, strangest: Count):
        self.resamples, self.confidence, self.strangest = resamples, confidence, strangest
        self.preparation = self.columns = self.scores = self.threshold = None

    def prepare(self, data, cfg):
        """Features instead of raw rows; the preparation is fitted on normal training rows alone."""
        if self.preparation is None:
            self.columns = data.columns
            self.preparation = build(cfg.preparation, data.train.x[data.train.y == 0], data.columns)
        elif (data.columns.names, data.columns.categories) != (self.columns.names, self.columns.categories):
            own = self.columns.categories
            differs = [n for n in data.columns.names if data.columns.categories.get(n) != own.get(n)]
            raise AelabError(
                "the columns are not those that the run was trained on, or have other categories: "
                f"{', '.join(differs)}; use the run's own seed and data, or aelab score"
            )
        self.raw = data.test
        parts = {part: getattr(data, part) for part in ("train", "validation", "test")}
        return replace(data, **{part: Split(self.preparation(s.x), s.y) for part, s in parts.items()})

    def held_out(self, validation):
        """Normal rows: the loss says how well those are rebuilt, and nothing else."""
        return validation.rows(validation.y == 0)

    def predict(self, model, inputs, /):
        """A dict of outputs for each member of the model, NumPy arrays; none from a detector that rebuilds nothing."""
        if isinstance(model, keras.Model):
            return members(model.predict(inputs, batch_size=4096, verbose=0))
        return members(model.predict(inputs)) if hasattr(model, "predict") else []

    def fit_scores(self, model, data, cfg) -> None:
        """The score, fitted on normal training rows, and the threshold, on validation rows."""
        calm = data.train.x[data.train.y == 0]
        self.centre = np.median(calm, axis=0)
        try:
            self.scores = [build(cfg.score, calm, made) for made in self.predict(model, calm)]
            scores = self.score(model, data.validation.x)
        except KeyError as error:
            raise AelabError(
                f"score={cfg.choices.score}: model={cfg.choices.model} gives no {error}; take another score"
            ) from error
        self.threshold = build(cfg.threshold, data.validation.y > 0, scores)

    def score(self, model, x, made=None) -> np.ndarray:
        """How strange each row is, float (n,): the mean over the members of a model; `made` is what it predicted."""
        made = self.predict(model, x) if made is None else made
        if len(made) != len(self.scores):
            raise AelabError(
                f"the run's model has {len(made)} members, its detector was fitted on {len(self.scores)}: they are of "
                f"two runs; {run_files.REMEDY}"
            )
        if not made:
            return model.score(x)
        return np.mean([score(x, outputs) for score, outputs in zip(self.scores, made, strict=True)], axis=0)

    def parts(self, x, made) -> np.ndarray:
        """What each column of the table adds to the score, (n, c); a detector's own: how far it is from the median."""
        parts = [score.parts(x, outputs) for score, outputs in zip(self.scores, made, strict=True)]
        parts = np.mean(parts, axis=0) if parts else np.abs(x - self.centre)
        return parts @ self.preparation.share

    def explained(self, model, raw, count: int) -> pd.DataFrame:
        """score, flag and because of raw rows (n, c): the `count` columns that add most to each score."""
        x = self.preparation(raw)
        made = self.predict(model, x)
        scores, parts = self.score(model, x, made), self.parts(x, made)
        flags, reasons = scores >= self.threshold, because(self.columns, raw, parts, count)
        return pd.DataFrame({"score": scores, "flag": flags, "because": reasons})

    def test(self, model, data, corrupt, cfg):
        """Scores, flags by the threshold, and metrics with bootstrap intervals."""
        if self.scores is None:
            self.fit_scores(model, data, cfg)
        x, strange = data.test.x, data.test.y > 0
        made = self.predict(model, x)
        scores = self.score(model, x, made)
        if not np.isfinite(scores).all():
            raise AelabError(f"{np.sum(~np.isfinite(scores)):,} rows of the test have a score that is not finite")
        measured = partials(cfg.metric, "goal")
        metrics = {f"test/{name}": metric(strange, scores) for name, metric in measured.items()}
        known = data.validation.y > 0, self.score(model, data.validation.x)
        metrics |= {f"val/{name}": metric(*known) for name, metric in measured.items()}  # what choices are made by
        metrics |= self.intervals(measured, strange, scores, cfg.seed) | self.at_threshold(strange, scores)
        examples = pd.DataFrame({"score": scores, "flag": scores >= self.threshold, "label": data.test.y})
        self.shares = self.parts(x, made)
        return Result(x, x, made[0] if len(made) == 1 else None, examples, metrics)

    def intervals(self, measured, strange, scores, seed) -> dict[str, float]:
        """Percentile bootstrap over test rows: how far the figure would move with other rows of the same kind."""
        rng, found = np.random.default_rng(seed), {name: [] for name in measured}
        for _ in range(self.resamples):
            rows = rng.integers(0, len(scores), len(scores))
            if 0 < strange[rows].sum() < len(rows):
                for name, metric in measured.items():
                    found[name].append(metric(strange[rows], scores[rows]))
        ends = {"low": (1 - self.confidence) / 2, "high": (1 + self.confidence) / 2}
        return {
            f"test/{name}_{end}": float(np.quantile(values, share))
            for name, values in found.items()
            for end, share in ends.items()
            if values
        }

    def at_threshold(self, strange, scores) -> dict[str, float]:
        """What the validation threshold makes of the test, beside the best F1 that any threshold would have had."""
        precision, recall, f1, _ = precision_recall_fscore_support(
            strange, scores >= self.threshold, average="binary", zero_division=0
        )
        curve = precision_recall_curve(strange, scores)
        best = (2 * curve[0] * curve[1] / np.maximum(curve[0] + curve[1], 1e-12)).max()
        found = {"f1": f1, "precision": precision, "recall": recall, "f1_optimistic": best}
        found |= {"threshold": self.threshold, "positive_rate": np.mean(strange)}
        return {f"test/{name}": float(value) for name, value in found.items()}

    def keep(self, folder):
        """All that scores a new row, but the model."""
        archive.write({name: getattr(self, name) for name in KEPT}, folder / FILE)

    def recall(self, folder):
        """The preparation, score and threshold of a finished run."""
        kept = archive.read(folder / FILE)
        if not isinstance(kept, dict) or kept.keys() != set(KEPT):
            raise AelabError(f"{folder / FILE}: expected {', '.join(KEPT)}; {run_files.REMEDY}")
        for name, value in kept.items():
            setattr(self, name, value)

    def figures(self, result, data, /):
        """ROC and precision-recall curves, scores by class, and the error by column."""
        strange, scores = result.examples["label"].to_numpy() > 0, result.examples["score"].to_numpy()
        by_column = pd.DataFrame(
            {"normal": self.shares[~strange].mean(axis=0), "anomalies": self.shares[strange].mean(axis=0)},
            index=self.columns.names,
        )
        order = (by_column["anomalies"] - by_column["normal"]).sort_values(ascending=False).index
        return {
            "curves_roc_pr": figures.detection(strange, scores, self.threshold),
            "scores": figures.scores_by_class(strange, scores, self.threshold),
            "error_by_column": figures.pairs(by_column.loc[order], title="Part of the score by column"),
        }

    def tables(self, result, data, /):
        """The strangest rows with what made them so, and the families of anomalies where there are several."""
        top = result.examples.nlargest(self.strangest, "score")
        named = [data.label_names[label] for label in top["label"]]
        rows = top.assign(label=named, because=because(self.columns, self.raw.x[top.index], self.shares[top.index], 3))
        found = {"strangest rows of the test": rows.rename_axis("row")}
        if len(data.label_names) > 2:
            found["by family"] = families(result.examples, data.label_names)
        return found


KEPT = ("preparation", "columns", "scores", "threshold", "centre")


def because(columns, raw: np.ndarray, parts: np.ndarray, count: int) -> list[str]:
    """The columns that add most to the score of each row (n, c), with value and share: "V14 = -5.2 (31%), ..."."""
    top = np.argsort(-parts, axis=1)[:, :count]
    shares = np.take_along_axis(parts, top, axis=1) / np.maximum(np.abs(parts).sum(axis=1, keepdims=True), 1e-12)
    values = np.take_along_axis(raw, top, axis=1)
    return [
        ", ".join(f"{columns.names[j]} = {columns.value(j, v)} ({s:.0%})" for j, v, s in zip(*row, strict=True))
        for row in zip(top, values, shares, strict=True)
    ]


def families(examples: pd.DataFrame, names) -> pd.DataFrame:
    """How well each family of anomalies is told from normal rows, and the share of it that the threshold flags."""
    calm = examples[examples["label"] == 0]
    found = {}
    for label, rows in examples.groupby("label"):
        both = pd.concat([calm, rows]) if label else calm
        auc = roc_auc_score(both["label"] > 0, both["score"]) if label else np.nan
        found[names[label]] = {"rows": len(rows), "flagged": rows["flag"].mean(), "roc_auc": auc}
    table = pd.DataFrame.from_dict(found, orient="index").rename_axis("family")
    return table.astype({"rows": int})
