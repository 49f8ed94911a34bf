"""Rating prediction: what a user will say of an item, from both and from what is known of them."""

from dataclasses import replace

import keras
import numpy as np
import pandas as pd

from aelab import charts, figures
from aelab.config import Count
from aelab.data import catalogue
from aelab.data.interactions import matrix
from aelab.data.ratings import known_of
from aelab.data.record import Split
from aelab.evaluate import Result, measure
from aelab.fit import partials
from aelab.tasks.task import Task


class Rating(Task):
    """Predict ratings. Users and items count from 1; number 0 stands for all that are unknown.

    Predictions are clipped to the scale of the ratings.
    """

    kinds = ("ratings", "pairs")

    def __init__(self, *, examples: Count):
        self.examples = examples

    def prepare(self, data, cfg):
        """Rows of [user, item, rating], float32 (n, 3)."""
        self.catalogue = data.catalogue
        parts = {part: getattr(data, part).x for part in ("train", "validation", "test")}
        self.known = known_of(data.catalogue, parts["train"])
        self.rated = matrix(np.concatenate([parts["train"], parts["validation"]]), 1, data.shape)
        splits = {part: Split(np.float32(x[:, :3] + [1, 1, 0]), None) for part, x in parts.items()}
        return replace(data, **splits)

    def shape(self, data):
        """What is known of users and items, for the tables inside a model."""
        return self.known

    def pairs(self, corrupt, /):
        """Rows to (numbers of user and item, rating)."""
        return lambda x, rng: (x[:, :2], x[:, 2:])

    def predict(self, model, inputs, /):
        """Ratings float32 (n, 1) of pairs (n, 2)."""
        made = model.predict(inputs, batch_size=8192, verbose=0)
        return np.clip(made, *self.catalogue.scale)

    def test(self, model, data, corrupt, cfg):
        """Errors of each rating; the root of the mean squared error beside the means."""
        self.vectors = item_vectors(model, data.catalogue.shape[1])
        metrics, functions = {}, partials(cfg.metric, "goal")
        for short, split in (("val", data.validation), ("test", data.test)):
            if not len(split):
                continue
            pairs, ratings = split.x[:, :2], split.x[:, 2:]
            made = self.predict(model, pairs)
            values = measure(functions, ratings, made)
            metrics |= {f"{short}/{name}": float(np.mean(v, dtype=np.float64)) for name, v in values.items()}
            if "mse" in values:
                metrics[f"{short}/rmse"] = float(np.sqrt(metrics[f"{short}/mse"]))
        user, item = (pairs.astype(int) - 1).T
        counts = self.rated.sum(axis=1)[user], self.rated.sum(axis=0)[item]
        examples = pd.DataFrame({"rating": ratings[:, 0], "predicted": made[:, 0], **values})
        examples = examples.assign(user=user, item=item, by_user=counts[0], of_item=counts[1])
        return Result(pairs[:2], ratings, made, examples, metrics)

    def keep(self, folder):
        """What `aelab recommend` and `aelab similar` need beside the model."""
        catalogue.write(folder, self.catalogue, self.vectors, rated=self.rated)

    def recall(self, folder):
        """The scale, and who rated what."""
        self.catalogue, self.rated = catalogue.read(folder), catalogue.matrix(folder, "rated")

    def of_user(self, model, user: int) -> np.ndarray:
        """Predicted ratings of all items, float32 (i,)."""
        items = np.arange(1, self.catalogue.shape[1] + 1)
        return self.predict(model, np.stack([np.full(len(items), user + 1), items], axis=1).astype(np.float32))[:, 0]

    def figures(self, result, data, /):
        """Predictions by true rating, and the error by how many ratings are known of the user and of the item."""
        shown = result.examples
        spread = shown.groupby("rating")["predicted"].quantile([0.1, 0.5, 0.9]).unstack()
        spread.columns = ["lowest tenth below", "median", "highest tenth above"]
        first = next(name for name in shown if name not in ("rating", "predicted"))
        return {
            "predicted": charts.lines(spread, title="Predictions by true rating", ylabel="predicted"),
            "errors": figures.histogram(
                (shown["predicted"] - shown["rating"]).to_numpy(), label="predicted - true", title="Errors of the test"
            ),
            "by_activity": figures.bars(self.groups(shown), first, title="Error by what is known"),
        }

    def groups(self, examples: pd.DataFrame) -> pd.DataFrame:
        """Mean errors by how many ratings are known of the user, and of the item."""
        found = {}
        for name, column in (("user", "by_user"), ("item", "of_item")):
            edges = [-1, 0, 2, 10, 50, 200, np.inf]
            names = ["no", "1 to 2", "3 to 10", "11 to 50", "51 to 200", "over 200"]
            for group, rows in examples.groupby(pd.cut(examples[column], edges, labels=names), observed=True):
                measured = rows.drop(columns=["rating", "predicted", "user", "item", "by_user", "of_item"]).mean()
                found[f"{name} with {group} ratings"] = {"ratings": len(rows), **measured}
        return pd.DataFrame.from_dict(found, orient="index").rename_axis("known in training").astype({"ratings": int})

    def tables(self, result, data, /):
        """Errors by group, and the largest."""
        worst = result.examples.assign(error=(result.examples["predicted"] - result.examples["rating"]).abs())
        worst = worst.nlargest(self.examples, "error")
        users, items = data.catalogue.users["id"], catalogue.titles(data.catalogue.items)
        rows = pd.DataFrame(
            {
                "item": items.iloc[worst["item"]].to_numpy(),
                "rating": worst["rating"].to_numpy(),
                "predicted": worst["predicted"].to_numpy(),
                "item's ratings": worst["of_item"].to_numpy(),
            },
            index=pd.Index(users.iloc[worst["user"]], name="user"),
        )
        return {"by activity": self.groups(result.examples), "largest errors of the test": rows}


def item_vectors(model, items: int) -> np.ndarray | None:
    """The vectors of the items as an unknown user meets them, (i, d); None where the model has none."""
    if not any(layer.name == "item_vectors" for layer in model.layers):
        return None
    inner = keras.Model(model.input, model.get_layer("item_vectors").output)
    pairs = np.stack([np.zeros(items), np.arange(1, items + 1)], axis=1).astype(np.float32)
    return inner.predict(pairs, batch_size=8192, verbose=0).reshape(items, -1)
