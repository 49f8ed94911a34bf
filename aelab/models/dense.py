"""Dense networks on rows of a table: autoencoder and variational autoencoder.

A model gives a dict: "output" (b, d), what it makes of the row, and "code" (b, bottleneck). With `members` above 1 it
gives a list of such dicts, one for each of so many networks that start from weights of their own: an ensemble.
"""

from collections.abc import Callable

import keras
from keras import layers, ops, regularizers

from aelab.config import Count, Level, Row, Share


def stack(x, widths: list[int], *, activation: str, dropout: float, l1: float, l2: float):
    """Dense layers, each followed by dropout where there is any."""
    for width in widths:
        penalty = regularizers.L1L2(l1, l2) if l1 or l2 else None
        x = layers.Dense(width, activation=activation, kernel_regularizer=penalty)(x)
        x = layers.Dropout(dropout)(x) if dropout else x
    return x


def several(shape: Row, members: int, network: Callable, name: str) -> keras.Model:
    """One network, or an ensemble of `members` on the same input."""
    row = keras.Input(shape)
    return keras.Model(row, network(row) if members == 1 else [network(row) for _ in range(members)], name=name)


def whole(x, width: int, name: str | None = None):
    """The output, linear, in float32 whatever the layers compute in."""
    return layers.Activation("linear", dtype="float32")(layers.Dense(width, name=name)(x))


def dense_ae(
    shape: Row,
    /,
    *,
    hidden: list[Count],
    bottleneck: Count,
    activation: str,
    dropout: Share,
    l1: Level,
    l2: Level,
    members: Count,
) -> keras.Model:
    """An autoencoder of dense layers: `hidden`, a linear code of `bottleneck` numbers, and `hidden` in reverse.

    `l1` and `l2` are penalties on the weights of the hidden layers.
    """
    knobs = {"activation": activation, "dropout": dropout, "l1": l1, "l2": l2}

    def network(row):
        code = layers.Dense(bottleneck, dtype="float32")(stack(row, hidden, **knobs))
        output = whole(stack(code, hidden[::-1], **knobs), shape[0])
        return {"output": output, "code": code}

    return several(shape, members, network, "dense_ae")


@keras.saving.register_keras_serializable("aelab")
class Draw(layers.Layer):
    """A draw from N(mean, exp(log_variance)) in training, the mean else."""

    def __init__(self, **keywords):
        super().__init__(**keywords)
        self.seed = keras.random.SeedGenerator()

    def call(self, mean, log_variance, training=False):
        """z (b, k) of mean and log_variance (b, k)."""
        if not training:
            return mean
        return mean + ops.exp(0.5 * log_variance) * keras.random.normal(ops.shape(mean), seed=self.seed)


def vae(
    shape: Row,
    /,
    *,
    hidden: list[Count],
    bottleneck: Count,
    activation: str,
    dropout: Share,
    l1: Level,
    l2: Level,
    members: Count,
) -> keras.Model:
    """A variational autoencoder of dense layers: the code is a distribution, "mean" and "log_variance" (b, k).

    Trained with the term kl, whose weight is the beta of a beta-VAE. Kingma and Welling, arXiv:1312.6114.
    """
    knobs = {"activation": activation, "dropout": dropout, "l1": l1, "l2": l2}

    def network(row):
        x = stack(row, hidden, **knobs)
        mean = layers.Dense(bottleneck, dtype="float32")(x)
        log_variance = ops.clip(layers.Dense(bottleneck, dtype="float32")(x), -12.0, 6.0)
        code = Draw(dtype="float32")(mean, log_variance)
        output = whole(stack(code, hidden[::-1], **knobs), shape[0])
        return {"output": output, "code": mean, "mean": mean, "log_variance": log_variance}

    return several(shape, members, network, "vae")
