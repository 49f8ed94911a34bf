"""U-Nets: encoder and decoder with skip connections at every size."""

import keras
from keras import layers

from aelab.config import Count, Image, Whole


def like(x, other):
    """Crop what a doubling of odd sides made too large: any image size works."""
    down, across = x.shape[1] - other.shape[1], x.shape[2] - other.shape[2]
    return layers.Cropping2D(((0, down), (0, across)))(x) if down or across else x


def pixels(x):
    """The output in [0, 1], in float32 whatever the layers compute in."""
    return layers.Activation("sigmoid", dtype="float32", name="pixels")(x)


def unet_mini(shape: Image, /, *, width: Count, depth: Count, blocks: Whole, bottom: Whole) -> keras.Model:
    """A small U-Net whose every convolution works at half size or below, where a CPU is quick.

    A strided convolution takes (h, w, c) to (h/2, w/2, width); each of the `depth` - 1 further levels halves the
    sides and doubles the channels. A level is `blocks` residual convolutions, the lowest one `bottom`. Skips are
    added rather than concatenated, which halves the decoder's work. Output (h, w, c) in [0, 1].
    After Ronneberger et al., MICCAI 2015 (there: skips concatenated, full size throughout).
    """

    def level(x, convolutions):
        for _ in range(convolutions):
            x = layers.Add()([x, layers.Conv2D(x.shape[-1], 3, padding="same", activation="relu")(x)])
        return x

    image = keras.Input(shape)
    x = layers.Conv2D(width, 4, strides=2, padding="same", activation="relu")(image)
    skips = []
    for i in range(1, depth):
        skips.append(level(x, blocks))
        x = layers.Conv2D(width * 2**i, 3, strides=2, padding="same", activation="relu")(skips[-1])
    x = level(x, bottom)
    for skip in reversed(skips):
        x = layers.Conv2DTranspose(skip.shape[-1], 2, strides=2, padding="same")(x)
        x = level(layers.Add()([like(x, skip), skip]), blocks)
    x = like(layers.Conv2DTranspose(shape[-1], 4, strides=2, padding="same")(x), image)
    return keras.Model(image, pixels(x), name="unet_mini")
