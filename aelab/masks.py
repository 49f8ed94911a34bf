"""Masks: `mask(x, rng, /, *, knobs)` says which pixels of images x (n, h, w, c) are hidden: bool (n, h, w, 1).

`rng` is a `numpy.random.Generator`, so that a seed fixes the masks. What a model is given has `HIDDEN` in every
channel of a hidden pixel: outside [0, 1], so that black and hidden differ.
"""

from typing import Literal

import keras
import numpy as np

from aelab import ops
from aelab.config import ConfigError, Count, Masked, Part

HIDDEN = np.float32(-1)
SIDES = ("left", "right", "top", "bottom")


def block(x: Masked, rng, /, *, size: Count):
    """A square of `size` pixels a side at a random place, the whole of it inside the image."""
    n, h, w, _ = x.shape
    if size > min(h, w):
        raise ConfigError(f"mask.size={size}: no such block fits into images of {h} x {w}; take at most {min(h, w)}")
    top, left = (rng.integers(0, side - size + 1, (n, 1)) for side in (h, w))
    down, across = ((i >= 0) & (i < size) for i in (np.arange(h) - top, np.arange(w) - left))
    return (down[:, :, None] & across[:, None])[..., None]


def half(x: Masked, rng, /, *, side: Literal["any", "left", "right", "top", "bottom"]):
    """One half of the image, rounded down to whole pixels; with "any", each image's own side is drawn."""
    n, h, w, _ = x.shape
    hidden = np.zeros((4, h, w, 1), bool)
    hidden[0, :, : w // 2] = hidden[1, :, w - w // 2 :] = hidden[2, : h // 2] = hidden[3, h - h // 2 :] = True
    return hidden[rng.integers(0, 4, n) if side == "any" else np.full(n, SIDES.index(side))]


def random(x: Masked, rng, /, *, level: Part):
    """Single pixels, a share `level` of each image, rounded to a whole number of them."""
    n, h, w, _ = x.shape
    hidden = np.zeros((n, h * w), bool)
    count = round(level * h * w)
    np.put_along_axis(hidden, rng.random(hidden.shape, np.float32).argsort(axis=1)[:, :count], True, axis=1)
    return hidden.reshape(n, h, w, 1)


def hidden(x):
    """Which pixels of what a model is given (n, h, w, c) are hidden, bool (n, h, w, 1)."""
    return x[..., :1] == HIDDEN


def error(batch, outputs):
    """What is wrong in hidden pixels, 0 elsewhere, (b, h, w, c): its mean square is that of the hidden pixels alone."""
    counts = keras.ops.cast(hidden(batch.input), "float32")
    share = keras.ops.mean(counts, axis=(1, 2, 3), keepdims=True)
    return counts * (ops.full(outputs["output"]) - batch.target) / keras.ops.sqrt(share)


def log_mse(batch: Masked, outputs, model, /):
    """A loss term: ln(mse) of the hidden pixels of each image, minus their PSNR up to scale and a constant."""
    mse = ops.per_example(keras.ops.square(error(batch, outputs)))
    return keras.ops.log(keras.ops.maximum(mse, ops.SMALLEST_MSE))
