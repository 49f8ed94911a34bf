"""Rating models: pairs (b, 2) of the numbers of a user and an item, 0 = unknown, to a rating (b, 1).

Letters in shapes: b pairs, u users, i items, m members of an ensemble, d numbers of a vector, f features.
"""

from typing import Literal

import keras
import numpy as np
from keras import layers, ops
from scipy.sparse import csr_array

from aelab import backend
from aelab.config import ConfigError, Count, Level, Pairs, Share

SHRINK = 5
"""Ratings of the mean that a row's own mean counts beside."""
START = 0.05
"""Standard deviation of the first weights of vectors."""


@keras.saving.register_keras_serializable("aelab")
class Hide(layers.Layer):
    """In training a share of the numbers becomes 0: so there is a learnt answer for an unknown user or item."""

    def __init__(self, share: float, **keywords):
        super().__init__(**keywords | {"dtype": "float32"})  # half precision would round the numbers
        self.share, self.seed = share, keras.random.SeedGenerator()

    def call(self, numbers, training=False):
        """Numbers (b, 2)."""
        if not training or not self.share:
            return numbers
        return ops.where(keras.random.uniform(ops.shape(numbers), seed=self.seed) < self.share, 0, numbers)

    def get_config(self):
        """For the file of the model."""
        return super().get_config() | {"share": self.share}


@keras.saving.register_keras_serializable("aelab")
class Profile(layers.Layer):
    """What a row has rated, as a vector (b, size): the sum over its other columns of e W + V, over sqrt(count).

    e is by how much the rating is above the column's mean: with V alone it is the implicit feedback of SVD++ (Koren,
    KDD 2008, eq. 15), with W the encoder of a rating autoencoder (Sedhain et al., WWW 2015). The pair that is asked
    for is left out of its own profile. All that is known of training is kept, sparse, in weights that are not trained.
    """

    def __init__(self, size: int, entries: int, shape: list[int], **keywords):
        super().__init__(**keywords | {"dtype": "float32"})  # sparse products have no half precision
        self.size, self.entries, self.shape = size, entries, tuple(shape)
        fixed = {"trainable": False, "initializer": "zeros"}
        self.keys = self.add_weight((entries,), dtype="int64", name="keys", **fixed)
        self.explicit = self.add_weight((entries,), name="explicit", **fixed)
        self.implicit = self.add_weight((entries,), name="implicit", **fixed)
        start = keras.initializers.RandomNormal(0.01)
        self.tables = [
            self.add_weight((shape[1], size), name=name, initializer=start) for name in ("of_ratings", "of_presence")
        ]

    @classmethod
    def of(cls, ratings: csr_array, size: int, name: str) -> "Profile":
        """The layer for sparse ratings (rows, columns)."""
        rows = np.repeat(np.arange(ratings.shape[0]), np.diff(ratings.indptr))
        columns, values = ratings.indices.astype(np.int64), ratings.data - ratings.data.mean()
        means = np.bincount(columns, values, ratings.shape[1])
        means /= np.bincount(columns, minlength=ratings.shape[1]) + SHRINK
        weight = 1 / np.sqrt(np.diff(ratings.indptr))[rows]
        layer = cls(size, len(values), ratings.shape, name=name)
        layer.keys.assign(rows * ratings.shape[1] + columns)
        layer.explicit.assign((values - means[columns]) * weight)
        layer.implicit.assign(weight)
        return layer

    def call(self, row, column):
        """Numbers (b,) and (b,) to (b, size)."""
        width, key = self.shape[1], ops.cast(row, "int64") * self.shape[1] + ops.cast(column, "int64")
        place = ops.minimum(ops.searchsorted(self.keys, key), self.entries - 1)
        own = ops.cast(ops.take(self.keys, place) == key, "float32")
        index = ops.stack([self.keys // width, self.keys % width], axis=1)
        whole = 0.0
        for values, table in zip((self.explicit, self.implicit), self.tables, strict=True):
            sums = backend.sparse_product(index, values, self.shape, table)
            left_out = (own * ops.take(values, place))[:, None] * ops.take(table, column, axis=0)
            whole += ops.take(sums, row, axis=0) - left_out
        return whole

    def get_config(self):
        """For the file of the model."""
        return super().get_config() | {"size": self.size, "entries": self.entries, "shape": list(self.shape)}


@keras.saving.register_keras_serializable("aelab")
class Shrink(layers.Layer):
    """The same numbers; their squares, summed, are added to the loss: a row is held back as often as it is used."""

    def __init__(self, weight: float, **keywords):
        super().__init__(**keywords)
        self.weight = weight

    def call(self, x):
        """Any x (b, ...)."""
        self.add_loss(self.weight * ops.sum(ops.square(x)) / ops.cast(ops.shape(x)[0], x.dtype))
        return x

    def get_config(self):
        """For the file of the model."""
        return super().get_config() | {"weight": self.weight}


def counted(features: np.ndarray, ratings: csr_array) -> np.ndarray:
    """Features (n, f) and beside them how many ratings each row has, as a standardised logarithm; 0 for the unknown."""
    many = np.log1p(np.diff(ratings.indptr)[1:])
    column = np.append(0, (many - many.mean()) / (many.std() or 1))
    return np.column_stack([features, column]).astype(np.float32)


def table(values: np.ndarray, name: str) -> layers.Embedding:
    """Features (n, f) by number, not trained."""
    found = layers.Embedding(*values.shape, trainable=False, name=name)
    found.build()
    found.set_weights([values])
    return found


def vectors(number, rows: int, members: int, size: int, l2: float, name: str, start):
    """A trained vector for each number (b,), one for each member: (b, m, size)."""
    found = layers.Embedding(rows, members * size, embeddings_initializer=start, name=name)(number)
    found = Shrink(l2 / members)(found) if l2 else found
    return layers.Reshape((members, size))(found)


def embedding(
    known: Pairs,
    /,
    *,
    parts: list[Literal["bias", "dot", "dense"]],
    profiles: bool,
    bottleneck: Count,
    hidden: list[Count],
    dropout: Share,
    l2: Level,
    l2_bias: Level,
    unknown: Share,
    members: Count,
) -> keras.Model:
    """The sum of the mean rating and of `parts`: "bias" of user and item, "dot" product of their vectors, and "dense".

    A vector is a number's own, plus one made of its features (those of the catalogue, and how many ratings there are),
    plus, with `profiles`, one made of its ratings in training (see `Profile`). "dense" layers of widths `hidden` look
    at both vectors and at the features. The mean of `members` networks is the prediction. `unknown` is the share of
    users and items hidden in training; l2 weighs the squares of a number's own vector, l2_bias of its bias.
    """
    if not parts:
        raise ConfigError("model.parts=[]: expected at least one of bias, dot, dense")
    pairs = keras.Input((2,))
    numbers = ops.cast(Hide(unknown)(pairs), "int32")
    user, item = numbers[:, 0], numbers[:, 1]
    ends = {
        "user": (user, item, known.users, known.ratings),
        "item": (item, user, known.items, known.ratings.T.tocsr()),
    }
    start = keras.initializers.RandomNormal(START)
    sums, both, facts = [], [], []
    for name, (own, other, features, ratings) in ends.items():
        if "bias" in parts:
            sums.append(vectors(own, len(features), members, 1, l2_bias, f"{name}_bias", "zeros"))
        if set(parts) - {"bias"}:
            fact = table(counted(features, ratings), f"{name}_facts")(own)
            found = vectors(own, len(features), members, bottleneck, l2, f"{name}s", start)
            flat = layers.Dense(members * bottleneck, kernel_initializer=start)(fact)
            if profiles:
                flat = flat + Profile.of(ratings, members * bottleneck, f"{name}_profile")(own, other)
            both.append(layers.Identity(name=f"{name}_vectors")(found + layers.Reshape((members, bottleneck))(flat)))
            facts.append(fact)
    if "dot" in parts:
        sums.append(ops.sum(both[0] * both[1], axis=-1, keepdims=True))
    if "dense" in parts:
        x = layers.Concatenate()([*both, ops.repeat(layers.Concatenate()(facts)[:, None], members, axis=1)])
        for width in hidden:
            x = layers.EinsumDense("bkd,kde->bke", (members, width), bias_axes="ke", activation="relu")(x)
            x = layers.Dropout(dropout)(x) if dropout else x
        sums.append(layers.EinsumDense("bkd,kde->bke", (members, 1), bias_axes="ke")(x))
    rating = ops.mean(sum(sums), axis=1) + float(known.ratings.data.mean())
    return keras.Model(pairs, layers.Activation("linear", dtype="float32")(rating), name="embedding")
