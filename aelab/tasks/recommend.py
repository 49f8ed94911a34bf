"""Top-K recommendation from implicit feedback: a list for each user of what it does not know yet."""

from dataclasses import replace
from typing import Literal

import keras
import numpy as np
import pandas as pd
from scipy.sparse import csr_array, hstack

from aelab import account, charts, declared, figures, losses, ops, ranking
from aelab.config import AelabError, ConfigError, Count
from aelab.data import catalogue
from aelab.data.interactions import Lists, matrix
from aelab.data.ratings import features
from aelab.data.record import Split
from aelab.evaluate import Result
from aelab.fit import partials
from aelab.tasks.task import Task

CELLS = 1 << 24
"""Scores held at a time, users times items, which bounds the memory of a test."""
ACTIVITY = ("least active quarter", "second", "third", "most active quarter")


class Recommend(Task):
    """Rank for each user the items that it has not rated: trained on likes, tested on likes that were held out.

    A like is a rating of at least `positive`. `known` and `wanted` say what a rating counts in a model's input and in
    what it should give: null is 1 for a like and 0 else; or knots [rating, value], with straight lines between.

    Metrics are means over the users who have a like in the test, at lists of several lengths `at`. What a user has
    rated in training is never recommended (`hide` rated); with `hide` liked only what it has liked.
    """

    kinds = ("ratings", "interactions", "items")
    may = ("similarity",)
    by_example = False
    watches = ("ndcg@{at[0]}",)

    def __init__(
        self,
        *,
        positive: float,
        known: list[list[float]] | None,
        wanted: list[list[float]] | None,
        hide: Literal["rated", "liked"],
        at: list[Count],
        watched: Count,
        examples: Count,
    ):
        self.positive, self.values = positive, {"known": known, "wanted": wanted}
        self.hide, self.at, self.watched, self.examples = hide, at, watched, examples

    def prepare(self, data, cfg):
        """Sparse rows of likes: of users, or of items with their features where the model takes these."""
        self.catalogue = data.catalogue
        if max(self.at) >= data.shape[1]:
            raise ConfigError(f"task.at: lists of {max(self.at)}, but there are {data.shape[1]} items")
        ratings = {part: getattr(data, part).x for part in ("train", "validation", "test")}
        both = np.concatenate([ratings["train"], ratings["validation"]])
        for part in ("train", "test"):
            if not (ratings[part][:, 2] >= self.positive).any():
                told = f"the highest is {ratings[part][:, 2].max():g}" if len(ratings[part]) else "there are none"
                raise AelabError(f"no {part} rating reaches task.positive={self.positive:g}; {told}")

        def rows(x: np.ndarray, how: str) -> csr_array:
            return matrix(x, self.value(x[:, 2], how), data.shape)

        train = ratings["train"]
        self.known = {"train": rows(train, "known"), "validation": rows(train, "known"), "test": rows(both, "known")}
        self.rated = {"validation": rows(train, self.hide), "test": rows(both, self.hide)}
        self.seen = rows(both, "rated")  # whatever the test hides
        self.wanted = {part: rows(ratings[part], "liked") for part in ("validation", "test")}
        self.side, self.by_item = csr_array(features(data.catalogue.items)), by_item(cfg)
        splits = {}
        for part, known in self.known.items():
            sought = rows(train, "wanted") if part == "train" else self.wanted[part]
            lists = Lists(self.turned(known), sought.T.tocsr()) if self.by_item else Lists(known, sought)
            if part != "test":  # a row without anything to find has nothing to teach
                some = np.flatnonzero(np.diff(lists.wanted.indptr))
                if part == "validation":
                    bound = min(self.watched, CELLS // lists.shape[1])
                    some = np.random.default_rng(cfg.seed).permutation(some)[: max(bound, 1)]
                lists = lists[np.sort(some)]
            splits[part] = Split(lists, None)
        return replace(data, **splits)

    def value(self, ratings: np.ndarray, how: str) -> np.ndarray:
        """What ratings (n,) count as "known", "wanted", "liked" or "rated", float (n,)."""
        knots = self.values.get(how)
        if knots:
            return np.interp(ratings, *np.transpose(sorted(knots)))
        return np.ones(len(ratings)) if how == "rated" else (ratings >= self.positive).astype(float)

    def turned(self, known: csr_array) -> csr_array:
        """A row for each item: who has it, and its features."""
        return hstack([known.T, self.side], format="csr")

    def shape(self, data):
        """(known, wanted): the widths of the rows."""
        return data.train.x.shape[1:]

    def pairs(self, corrupt, /):
        """Sparse rows to dense (known, wanted), both float32."""
        return lambda lists, rng: (lists.known.toarray(), lists.wanted.toarray())

    def watch(self):
        """NDCG of the first length, of each row of the validation."""
        k = self.at[0]

        def ndcg(batch, outputs):
            logits, wanted, open_ = losses.asked(batch, outputs)
            return ops.ndcg(wanted, keras.ops.where(open_ > 0, logits, -np.inf), k=k)

        return {f"ndcg@{k}": ndcg}

    def predict(self, model, inputs, /):
        """Scores float32 (n, w) of sparse rows (n, k)."""
        if not isinstance(model, keras.Model):
            return model.predict(inputs)
        step = max(1, CELLS // inputs.shape[1])
        parts = (inputs[i : i + step].toarray() for i in range(0, inputs.shape[0], step))
        return np.concatenate([model.predict(part, batch_size=512, verbose=0)["output"] for part in parts])

    def scores(self, model, known: csr_array):
        """(first user, scores of a chunk of users (n, i)), chunk by chunk."""
        if self.by_item:
            whole = self.predict(model, self.turned(known)).T
        step = max(1, CELLS // known.shape[1])
        for first in range(0, known.shape[0], step):
            rows = slice(first, first + step)
            yield first, whole[rows] if self.by_item else self.predict(model, known[rows])

    def lists(self, model, part: str) -> np.ndarray:
        """The best items of each user, int (u, K), without those that it has rated before."""
        found = [
            ranking.top(scores, self.rated[part][first : first + len(scores)], max(self.at))
            for first, scores in self.scores(model, self.known[part])
        ]
        return np.concatenate(found)

    def measure(self, lists, part: str, metrics) -> pd.DataFrame:
        """Each metric at each length, a row for each user who has something to find."""
        sizes = np.diff(self.wanted[part].indptr)
        users = np.flatnonzero(sizes)
        hits = np.concatenate(
            [
                ranking.hits(lists[rows], self.wanted[part][rows])
                for rows in np.array_split(users, 1 + len(users) * self.catalogue.shape[1] // CELLS)
            ]
        )
        functions = partials(metrics, "goal")
        columns = {f"{name}@{k}": f(hits[:, :k], sizes[users]) for k in self.at for name, f in functions.items()}
        return pd.DataFrame(columns, index=pd.Index(users, name="user"))

    def test(self, model, data, corrupt, cfg):
        """Lists, metrics of each user, how much of the catalogue is recommended, and how well known that is."""
        self.vectors = self.item_vectors(model)
        self.made = self.lists(model, "test")
        examples = self.measure(self.made, "test", cfg.metric)
        metrics = {f"test/{name}": float(examples[name].mean()) for name in examples}
        if self.wanted["validation"].nnz:
            known = self.measure(self.lists(model, "validation"), "validation", cfg.metric)
            metrics |= {f"val/{name}": float(known[name].mean()) for name in known}
        self.popularity = np.bincount(self.known["test"].indices, minlength=data.catalogue.shape[1])
        odds = np.maximum(self.popularity, 1) / data.catalogue.shape[0]
        for k in self.at:
            shown = self.made[examples.index, :k]
            metrics[f"test/coverage@{k}"] = len(np.unique(shown)) / data.catalogue.shape[1]
            metrics[f"test/novelty@{k}"] = float(-np.log2(odds[shown]).mean())  # bits: how surprising an item is
        examples["known"] = np.diff(self.known["test"].indptr)[examples.index]
        inputs = data.test.x[np.arange(min(2, len(data.test.x)))].known.toarray()
        return Result(inputs, None, None, examples, metrics)

    def item_vectors(self, model) -> np.ndarray | None:
        """A vector for each item, (i, d), where the model has them."""
        if not isinstance(model, keras.Model):
            return getattr(model, "vectors", None)
        if not self.by_item:
            return model.get_layer("items").kernel.numpy().T
        return model.predict(self.turned(self.known["test"]).toarray(), batch_size=512, verbose=0)["code"]

    def keep(self, folder):
        """What `aelab recommend` and `aelab similar` need beside the model."""
        catalogue.write(folder, self.catalogue, self.vectors, known=self.known["test"], rated=self.seen)

    def recall(self, folder):
        """What is known of all users, so that no data set has to be loaded."""
        self.known = {"test": catalogue.matrix(folder, "known")}
        self.catalogue = catalogue.read(folder)
        self.side = csr_array(features(self.catalogue.items))
        self.by_item = by_item(account.config(folder))

    def of_user(self, model, user: int) -> np.ndarray:
        """Scores of all items, float32 (i,)."""
        if self.by_item:
            return self.predict(model, self.turned(self.known["test"])).T[user]
        return self.predict(model, self.known["test"][[user]])[0]

    def figures(self, result, data, /):
        """Metrics by length, by activity, and how often an item is recommended against how popular it is."""
        k, first = self.at[0], result.examples.columns[0]
        groups = self.by_activity(result.examples)
        shown = np.bincount(self.made[result.examples.index, :k].ravel(), minlength=data.catalogue.shape[1])
        return {
            "metrics_by_length": self.by_length(result.examples, "Metrics by length of the list"),
            "by_activity": figures.bars(groups, first, title="Users by how much is known of them"),
            "popularity": charts.dots(
                self.popularity,
                shown,
                title=f"What is recommended (lists of {k})",
                xlabel="users of the item in training",
                ylabel="users whom it is recommended to",
                logarithmic=True,
            ),
        }

    def by_length(self, examples: pd.DataFrame, title: str):
        """A line for each metric over the lengths of the lists."""
        names, lengths = dict.fromkeys(n.partition("@")[0] for n in examples if "@" in n), sorted(self.at)
        means = {name: [examples[f"{name}@{k}"].mean() for k in lengths] for name in names}
        table = pd.DataFrame(means, lengths).rename_axis("length of the list")
        return charts.lines(table, title=title, ylabel="mean of users")

    def by_activity(self, examples) -> pd.DataFrame:
        """Mean metrics of each quarter of the users, by how many likes are known of them."""
        rank = examples["known"].rank(method="first", pct=True)
        group = pd.cut(rank, [0, 0.25, 0.5, 0.75, 1], labels=ACTIVITY)
        table = examples.groupby(group, observed=True).mean()
        table.insert(0, "users", group.value_counts())
        return table.rename_axis("users by activity")

    def tables(self, result, data, /):
        """Metrics by group of users, and some of the lists."""
        found = {"by activity": self.by_activity(result.examples)}
        for name in data.catalogue.users.columns.drop("id"):
            values = data.catalogue.users[name].iloc[result.examples.index]
            if not pd.api.types.is_numeric_dtype(values) and values.nunique() <= 5:
                grouped = result.examples.groupby(values.to_numpy())
                table = grouped.mean()
                table.insert(0, "users", grouped.size())
                found[f"by {name}"] = table.rename_axis(name)
        users = result.examples.index[: self.examples]
        hits = ranking.hits(self.made[users], self.wanted["test"][users])
        title = catalogue.titles(data.catalogue.items)
        rows = {
            data.catalogue.users["id"].iloc[user]: {
                "recommended (found ones in brackets)": "; ".join(
                    f"[{title.iloc[i]}]" if hit else str(title.iloc[i])
                    for i, hit in zip(self.made[user, : self.at[0]], hit_row, strict=False)
                )
            }
            for user, hit_row in zip(users, hits, strict=True)
        }
        found["lists of the first users"] = pd.DataFrame.from_dict(rows, orient="index").rename_axis("user")
        return found


def by_item(cfg) -> bool:
    """Whether the model takes a row for each item rather than for each user."""
    return declared.kinds("model", cfg.model._target_) == ("items",)
