"""Kinds of autoencoders of images beside the convolutional one: dense, variational, recurrent.

Each gives a dict with "output" (b, h, w, c) in [0, 1] and "code" (b, bottleneck), both float32; all that reaches the
output has passed through the code. Denoising, sparse and contractive autoencoders are any of these with a corruption or
another loss term.
"""

import math
from functools import partial
from typing import Literal

import keras
from keras import layers, ops, regularizers

from aelab.config import Coded, Count, Drawn, Level, Share
from aelab.models.conv import double, halve
from aelab.models.dense import Draw, whole
from aelab.models.unet import pixels


@keras.saving.register_keras_serializable("aelab")
class Mirror(layers.Dense):
    """A linear dense layer that is also gone through backwards: by its kernel transposed, and a bias of its own."""

    save_own_variables = layers.Layer.save_own_variables  # Dense's own know one bias
    load_own_variables = layers.Layer.load_own_variables

    def build(self, shape):
        """The kernel, and a bias for each direction."""
        super().build(shape)
        self.bias_back = self.add_weight(name="bias_back", shape=(shape[-1],), initializer="zeros")
        self.input_spec = None  # Dense's knows one direction

    def call(self, x, back=False, training=None):
        """(b, n) of x (b, m), or (b, m) of x (b, n)."""
        return ops.matmul(x, ops.transpose(self.kernel)) + self.bias_back if back else super().call(x)

    def compute_output_spec(self, x, back=False, training=None):
        """The shape of either direction."""
        width = self.bias_back.shape[0] if back else self.units
        return keras.KerasTensor((*x.shape[:-1], width), self.compute_dtype)


def fully_connected(
    shape: Coded,
    /,
    *,
    hidden: list[Count],
    bottleneck: Count,
    activation: Literal["relu", "elu", "gelu", "tanh", "sigmoid"],
    tied: bool,
    dropout: Share,
    l1: Level,
    l2: Level,
) -> keras.Model:
    """An autoencoder of dense layers: `hidden`, a linear code of `bottleneck` numbers, and `hidden` in reverse.

    With `tied`, the decoder's kernels are the encoder's, transposed. `l1` and `l2` are penalties on the kernels of the
    hidden layers. No `hidden` is the vanilla autoencoder.
    """
    size = math.prod(shape)
    penalty = regularizers.L1L2(l1, l2) if l1 or l2 else None

    def through(x, steps):
        for step in steps:
            x = layers.Activation(activation)(step(x))
            x = layers.Dropout(dropout)(x) if dropout else x
        return x

    image = keras.Input(shape)
    kind = Mirror if tied else layers.Dense
    down = [kind(width, kernel_regularizer=penalty) for width in hidden] + [kind(bottleneck)]
    code = layers.Activation("linear", dtype="float32")(down[-1](through(layers.Flatten()(image), down[:-1])))
    if tied:
        up = [partial(layer, back=True) for layer in reversed(down)]
    else:
        up = [*(layers.Dense(width, kernel_regularizer=penalty) for width in reversed(hidden)), layers.Dense(size)]
    output = pixels(layers.Reshape(shape)(up[-1](through(code, up[:-1]))))
    return keras.Model(image, {"output": output, "code": code}, name="fully_connected")


def conv_vae(shape: Drawn, /, *, bottleneck: Count, widths: list[Count]) -> keras.Model:
    """The convolutional autoencoder with a distribution as code, "mean" and "log_variance" (b, k); "code" is the mean.

    Trained with the term kl, whose weight is the beta of a beta-VAE. Kingma and Welling, arXiv:1312.6114.
    """
    image = keras.Input(shape)
    sizes = halve(image, widths)
    inner, x = sizes[-1].shape[1:], layers.Flatten()(sizes[-1])
    mean, log_variance = whole(x, bottleneck), ops.clip(whole(x, bottleneck), -12.0, 6.0)
    x = layers.Dense(math.prod(inner), activation="relu")(Draw(dtype="float32")(mean, log_variance))
    output = pixels(double(layers.Reshape(inner)(x), sizes))
    outputs = {"output": output, "code": mean, "mean": mean, "log_variance": log_variance}
    return keras.Model(image, outputs, name="conv_vae")


def recurrent_ae(shape: Coded, /, *, bottleneck: Count, hidden: Count) -> keras.Model:
    """An LSTM reads the rows of the image from the top, its last h becomes the code; another writes the rows from it.

    The second is given the code at each row. Both have `hidden` units. After Srivastava et al., ICML 2015.
    """
    h, w, c = shape
    image = keras.Input(shape)
    last = layers.LSTM(hidden)(layers.Reshape((h, w * c))(image))
    code = whole(last, bottleneck)
    rows = layers.LSTM(hidden, return_sequences=True)(layers.RepeatVector(h)(code))
    output = pixels(layers.Reshape(shape)(layers.Dense(w * c)(rows)))
    return keras.Model(image, {"output": output, "code": code}, name="recurrent_ae")
