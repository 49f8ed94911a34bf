"""Convolutional autoencoders: with a dense code, and with a spatial one."""

import math

import keras
from keras import layers

from aelab.config import Coded, Count, Image
from aelab.models.dense import whole
from aelab.models.unet import like, pixels

KERNEL = 4
"""Side of the strided kernels: a multiple of the stride, so that every pixel is covered equally often."""


def halve(x, widths: list[int]) -> list:
    """A strided convolution for each of the `widths`; the input and every result, largest first."""
    sizes = [x]
    for width in widths:
        sizes.append(layers.Conv2D(width, KERNEL, strides=2, padding="same", activation="relu")(sizes[-1]))
    return sizes


def double(x, sizes: list):
    """The way back, a strided transposed convolution for each halving; the last one is linear."""
    for size in reversed(sizes[:-1]):
        activation = "relu" if size is not sizes[0] else None
        up = layers.Conv2DTranspose(size.shape[-1], KERNEL, strides=2, padding="same", activation=activation)
        x = like(up(x), size)
    return x


def conv_ae(shape: Coded, /, *, bottleneck: Count, widths: list[Count]) -> keras.Model:
    """A convolutional autoencoder with a dense code of `bottleneck` numbers, the layer named "code".

    One strided convolution for each of the `widths`, a dense layer to the code and one back, and transposed
    convolutions: all that reaches the output has passed through the code. "output" (h, w, c) in [0, 1].
    """
    image = keras.Input(shape)
    sizes = halve(image, widths)
    inner = sizes[-1].shape[1:]
    code = whole(layers.Flatten()(sizes[-1]), bottleneck, "code")
    x = layers.Dense(math.prod(inner), activation="relu")(code)
    return keras.Model(image, {"output": pixels(double(layers.Reshape(inner)(x), sizes)), "code": code}, name="conv_ae")


def conv_ae_spatial(shape: Image, /, *, widths: list[Count]) -> keras.Model:
    """A convolutional autoencoder whose code keeps its place in the image: (h/4, w/4, 64) with widths 32, 64.

    Strided convolutions and as many transposed ones; no dense layer. With 28 x 28 images the code, 7 x 7 x 64, is
    larger than the image: what it restores it does by convolving, not by compressing. Output (h, w, c) in [0, 1].
    Strides rather than pooling: docs/decisions/0007.
    """
    image = keras.Input(shape)
    sizes = halve(image, widths)
    return keras.Model(image, pixels(double(sizes[-1], sizes)), name="conv_ae_spatial")
