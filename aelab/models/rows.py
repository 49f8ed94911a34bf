"""Autoencoders of interactions: from what is known of a user (or of an item) to a logit for each item (or user).

A model gives a dict: "output" (b, w), the logits, and "code" (b, bottleneck). The layer of the logits is named "items":
the columns of its kernel are the vectors of the items.
"""

import keras
from keras import layers, ops

from aelab.config import ByItem, Count, Interactions, Share
from aelab.models.dense import Draw, stack, whole


def given(known, *, normalise: bool, dropout: float):
    """The input, to unit length if asked for, a share of it hidden in training."""
    x = layers.UnitNormalization()(known) if normalise else known
    return layers.Dropout(dropout)(x) if dropout else x


def user_ae(
    shape: Interactions,
    /,
    *,
    hidden: list[Count],
    bottleneck: Count,
    activation: str,
    normalise: bool,
    dropout: Share,
) -> keras.Model:
    """Rows of users: dense layers around a code, with `dropout` on the input. Wu et al., WSDM 2016 (CDAE)."""
    known, knobs = keras.Input(shape[:1]), {"activation": activation, "dropout": 0.0, "l1": 0.0, "l2": 0.0}
    x = stack(given(known, normalise=normalise, dropout=dropout), hidden, **knobs)
    code = layers.Dense(bottleneck, activation=activation)(x)
    logits = whole(stack(code, hidden[::-1], **knobs), shape[1], "items")
    return keras.Model(known, {"output": logits, "code": code}, name="user_ae")


def item_ae(
    shape: ByItem,
    /,
    *,
    hidden: list[Count],
    bottleneck: Count,
    activation: str,
    normalise: bool,
    dropout: Share,
) -> keras.Model:
    """Rows of items: who has an item, with what is known of it as side input, to who will. Sedhain et al., WWW 2015."""
    knobs = {"hidden": hidden, "bottleneck": bottleneck, "activation": activation}
    return user_ae(shape, **knobs, normalise=normalise, dropout=dropout)


def mult_vae(
    shape: Interactions,
    /,
    *,
    hidden: list[Count],
    bottleneck: Count,
    activation: str,
    normalise: bool,
    dropout: Share,
) -> keras.Model:
    """Rows of users: the code is a distribution, "mean" and "log_variance" (b, k). Liang et al., WWW 2018.

    Trained with the terms multinomial and kl, whose weight is beta and rises over `warmup` epochs.
    """
    known, knobs = keras.Input(shape[:1]), {"activation": activation, "dropout": 0.0, "l1": 0.0, "l2": 0.0}
    x = stack(given(known, normalise=normalise, dropout=dropout), hidden, **knobs)
    mean = layers.Dense(bottleneck, dtype="float32")(x)
    log_variance = ops.clip(layers.Dense(bottleneck, dtype="float32")(x), -12.0, 6.0)
    code = Draw(dtype="float32")(mean, log_variance)
    logits = whole(stack(code, hidden[::-1], **knobs), shape[1], "items")
    outputs = {"output": logits, "code": mean, "mean": mean, "log_variance": log_variance}
    return keras.Model(known, outputs, name="mult_vae")
