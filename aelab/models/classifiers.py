"""Classifiers of images: from an image (h, w, c) to a logit for each of k classes, float32 (b, k)."""

import keras
from keras import layers

from aelab.classification import Labelled
from aelab.config import Count, Share, Whole


def logits(image, x, classes: int, name: str) -> keras.Model:
    """The model that ends in the linear layer to the classes, whose sums are float32 whatever the others compute in."""
    return keras.Model(image, layers.Dense(classes, dtype="float32", name="logits")(x), name=name)


def hidden_layers(x, widths: list[int], dropout: float):
    """Dense layers, each followed by dropout where there is any."""
    for width in widths:
        x = layers.Dense(width, activation="relu")(x)
        x = layers.Dropout(dropout)(x) if dropout else x
    return x


def mlp(given: Labelled, /, *, hidden: list[Count], dropout: Share) -> keras.Model:
    """Dense layers on the pixels."""
    shape, classes = given
    image = keras.Input(shape)
    return logits(image, hidden_layers(layers.Flatten()(image), hidden, dropout), classes, "mlp")


def convolution(x, width: int, *, kernel: int = 3, strides: int = 1):
    """A convolution with ReLU."""
    return layers.Conv2D(width, kernel, strides, "same", activation="relu", kernel_initializer="he_normal")(x)


def cnn(given: Labelled, /, *, widths: list[Count], blocks: Whole, hidden: list[Count], dropout: Share) -> keras.Model:
    """For each of the `widths` a strided convolution and `blocks` more of 3 x 3; then dense layers.

    Strides rather than pooling: no convolution works at full size.
    """
    shape, classes = given
    image = x = keras.Input(shape)
    for i, width in enumerate(widths):
        x = convolution(x, width, kernel=3 if i else 4, strides=2)
        for _ in range(blocks):
            x = convolution(x, width)
    return logits(image, hidden_layers(layers.Flatten()(x), hidden, dropout), classes, "cnn")


def resnet_mini(given: Labelled, /, *, widths: list[Count], blocks: Count, dropout: Share) -> keras.Model:
    """For each of the `widths` a strided convolution and `blocks` residual pairs of 3 x 3; then the mean over places.

    After He et al., CVPR 2016, without batch normalisation, which on a CPU takes longer than the convolutions: the
    second convolution of a pair begins small instead, so that the network begins near the identity (as in Zhang et
    al., ICLR 2019, "Fixup").
    """
    shape, classes = given
    image = x = keras.Input(shape)
    depth = len(widths) * blocks
    small = keras.initializers.VarianceScaling(0.1 / depth)
    for i, width in enumerate(widths):
        x = convolution(x, width, kernel=3 if i else 4, strides=2)
        for _ in range(blocks):
            inner = layers.Conv2D(width, 3, padding="same", kernel_initializer=small)(convolution(x, width))
            x = layers.ReLU()(layers.Add()([x, inner]))
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dropout(dropout)(x) if dropout else x
    return logits(image, x, classes, "resnet_mini")
