"""The similarity laboratory: what a similarity function makes of the item vectors of a finished run."""

import time

import numpy as np
import pandas as pd
from scipy.stats import skew

from aelab import account, figures, ranking, similarities
from aelab.config import AelabError, ConfigError, Count
from aelab.data import catalogue
from aelab.data.ratings import features
from aelab.evaluate import Result
from aelab.models.vectors import folder_of
from aelab.tasks.recommend import Recommend
from aelab.tasks.task import Task

ELSEWHERE = ("_target_", "data_dir", "mirrors", "fallback", "name", "delimiter", "scale")
"""Settings of a data set that do not decide which ratings a run was trained on, or not they alone."""
DRAWN = 10_000
"""Pairs of items from which the anisotropy is measured."""


class Similarity(Task):
    """Compare item vectors by one similarity function, on the data that they were learnt from.

    Measured: whether nearest items share genres; whether the mean of what a user likes is near to what it will like,
    ranked over all that it has not rated; hubness, the skew of how often an item is among the `neighbours` nearest of
    others (Radovanovic et al., 2010); anisotropy, the mean cosine of two items; and the time.
    """

    kinds = ("ratings", "vectors", "interactions")
    needs = ("similarity",)
    by_example = False

    def __init__(self, *, positive: float, at: list[Count], neighbours: Count, examples: Count):
        self.neighbours, self.examples = neighbours, examples
        plain = {"known": None, "wanted": None, "hide": "rated"}
        self.users = Recommend(positive=positive, at=at, **plain, watched=1, examples=examples)

    def prepare(self, data, cfg):
        """Likes as `task=recommend` has them; the run must have been trained on the same ratings."""
        if other := otherwise(account.config(folder_of(cfg.model.run)), cfg):
            raise AelabError(
                f"model.run={cfg.model.run} was trained on other ratings, so the test would not be one; for the same "
                f"ones type {' '.join(other)}"
            )
        if self.neighbours >= data.shape[1]:
            raise ConfigError(f"task.neighbours={self.neighbours}: expected less than the {data.shape[1]} items")
        return self.users.prepare(data, cfg)

    def pairs(self, corrupt, /):
        """Nothing is trained."""
        raise AelabError("task=similarity trains nothing")

    def predict(self, model, inputs, /):
        """Similarity (n, i) of vectors (n, d) to every item."""
        return self.compare(inputs, model.vectors)

    def retrieve(self, model, part: str, metrics) -> pd.DataFrame:
        """Metrics of lists by the similarity of each item to the mean vector of what a user likes."""
        known = self.users.known[part]
        likes = known @ model.vectors / np.maximum(known.sum(axis=1), 1)[:, None]
        lists = ranking.top(self.predict(model, likes), self.users.rated[part], max(self.users.at))
        return self.users.measure(lists, part, metrics)

    def test(self, model, data, corrupt, cfg):
        """All measures of the class's docstring."""
        items, vectors = data.catalogue.items, model.vectors
        if model.ids != list(items["id"]):
            raise AelabError(f"model.run={cfg.model.run}: has other items than {data.name}")
        self.compare = similarities.fitted(cfg.similarity, vectors, self.users.known["validation"])
        clock = time.perf_counter()
        near = self.predict(model, vectors)
        spent = time.perf_counter() - clock
        np.fill_diagonal(near, -np.inf)
        self.nearest = ranking.best(near, self.neighbours)
        examples = self.retrieve(model, "test", cfg.metric)
        metrics = {f"test/{name}": float(examples[name].mean()) for name in examples}
        examples["known"] = np.diff(self.users.known["test"].indptr)[examples.index]
        if self.users.wanted["validation"].nnz:
            known = self.retrieve(model, "validation", cfg.metric)
            metrics |= {f"val/{name}": float(known[name].mean()) for name in known}
        self.occurs = np.bincount(self.nearest.ravel(), minlength=len(vectors))
        if "genres" in items:
            metrics[f"test/genre_agreement@{self.neighbours}"] = agreement(items[["genres"]], self.nearest)
        rng = np.random.default_rng(cfg.seed)
        one, two = rng.integers(0, len(vectors), (2, DRAWN))
        unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        metrics |= {
            f"test/hubness@{self.neighbours}": float(skew(self.occurs)),
            "test/anisotropy": float((unit[one] * unit[two]).sum(axis=1)[one != two].mean()),
            "time/million_pairs_s": spent / near.size * 1e6,
        }
        return Result(None, None, None, examples, metrics)

    def figures(self, result, data, /):
        """How often items are near to others, and retrieval by how much is known of a user."""
        return {
            "hubs": figures.histogram(
                self.occurs, label=f"times among the {self.neighbours} nearest of another", title="Hubs"
            ),
            "by_activity": figures.bars(
                self.users.by_activity(result.examples),
                result.examples.columns[0],
                title="Held-out likes by the mean of known likes",
            ),
        }

    def tables(self, result, data, /):
        """The nearest of the best-known items."""
        title = catalogue.titles(data.catalogue.items)
        known = self.users.known["test"].sum(axis=0)
        rows = {
            title.iloc[item]: {"nearest": "; ".join(title.iloc[self.nearest[item]])}
            for item in np.argsort(-known, kind="stable")[: self.examples]
        }
        return {"nearest of the best-known items": pd.DataFrame.from_dict(rows, orient="index").rename_axis("item")}


def otherwise(trained, cfg) -> list[str]:
    """What to type for the ratings that a run was trained on, by its config; nothing where they are the same."""
    own, given = trained.dataset, cfg.dataset
    words = {f"dataset.{k}": v for k, v in own.items() if k not in ELSEWHERE and k in given and v != given[k]}
    if own._target_ != given._target_:
        words = {"dataset": trained.choices.dataset} | {k: v for k, v in words.items() if v is not None}
    if "path" in own and own.path != given.get("path"):
        words = {k: v for k, v in words.items() if k != "dataset.path"} | {"path": own.path}
    return [f"{k}={'null' if v is None else v}" for k, v in words.items()]


def agreement(genres: pd.DataFrame, nearest: np.ndarray) -> float:
    """Mean share of genres that an item has in common with its nearest (i, k): intersection over union."""
    flags = features(genres)
    own, others = flags[:, None], flags[nearest]
    union = np.maximum(own, others).sum(axis=-1)
    return float(
        np.divide(np.minimum(own, others).sum(axis=-1), union, out=np.zeros_like(union), where=union > 0).mean()
    )
