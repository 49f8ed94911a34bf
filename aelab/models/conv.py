"""Convolutional autoencoders: with a dense code, and with a spatial one."""

import math

import keras
from keras import layers

from aelab.config import Count, Image
from aelab.models.unet import like, pixels


def conv_ae(shape: Image, /, *, bottleneck: Count, widths: list[Count]) -> keras.Model:
    """A convolutional autoencoder with a dense code of `bottleneck` numbers, the layer named "code".

    One strided 3x3 convolution for each of the `widths`, a dense layer to the code and one back, and transposed
    convolutions: all that reaches the output has passed through the code. Output (h, w, c) in [0, 1].
    """
    image = x = keras.Input(shape)
    sizes = [image]
    for width in widths:
        x = layers.Conv2D(width, 3, strides=2, padding="same", activation="relu")(x)
        sizes.append(x)
    inner = x.shape[1:]
    x = layers.Dense(bottleneck, name="code")(layers.Flatten()(x))
    x = layers.Dense(math.prod(inner), activation="relu")(x)
    x = layers.Reshape(inner)(x)
    for i, width in reversed(list(enumerate([shape[-1], *widths[:-1]]))):
        activation = "relu" if i else None
        x = like(layers.Conv2DTranspose(width, 3, strides=2, padding="same", activation=activation)(x), sizes[i])
    return keras.Model(image, pixels(x), name="conv_ae")


def conv_ae_spatial(shape: Image, /, *, widths: list[Count]) -> keras.Model:
    """A convolutional autoencoder whose code keeps its place in the image: (h/4, w/4, 64) with widths 32, 64.

    Convolution and max-pooling for each of the `widths`, then as many transposed convolutions and a last 3x3
    convolution; no dense layer. With 28 x 28 images the code, 7 x 7 x 64, is larger than the image: what it
    restores it does by convolving, not by compressing. Output (h, w, c) in [0, 1].

    The last convolution is a transposed one of stride 1: the same map with its kernel turned by 180 degrees, whose
    gradient a CPU computes three times as fast where there is a single output channel.
    """
    image = x = keras.Input(shape)
    sizes = []
    for width in widths:
        sizes.append(x)
        x = layers.Conv2D(width, 3, padding="same")(x)
        x = layers.ReLU()(layers.MaxPooling2D(padding="same")(x))  # the same as ReLU first, on a quarter of the pixels
    for width, size in zip(reversed(widths), reversed(sizes), strict=True):
        x = like(layers.Conv2DTranspose(width, 3, strides=2, padding="same", activation="relu")(x), size)
    x = layers.Conv2DTranspose(shape[-1], 3, padding="same")(x)
    return keras.Model(image, pixels(x), name="conv_ae_spatial")
