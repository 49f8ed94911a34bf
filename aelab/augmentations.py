"""Augmentations: corruptions that leave an image of the same class; for training batches of a classifier.

`augment(x, rng, /, *, level, ...)` as in `aelab.corruptions`: images (n, h, w, c) in [0, 1] of the same shape and type,
each changed in its own way; x is not changed in place; level 0 leaves it as it is.
"""

import numpy as np

from aelab.classification import Labelled
from aelab.config import Share


def shift(x: Labelled, rng, /, *, level: Share):
    """Moved by whole pixels, up to a share `level` of the side each way, all equally likely; what comes in is black."""
    (n, h, w, c), (down, across) = x.shape, (round(level * side) for side in x.shape[1:3])
    wide = np.zeros((n, h + 2 * down, w + 2 * across, c), x.dtype)
    wide[:, down : down + h, across : across + w] = x
    windows = np.lib.stride_tricks.sliding_window_view(wide, (h, w), axis=(1, 2))
    top, left = rng.integers(0, 2 * down + 1, n), rng.integers(0, 2 * across + 1, n)
    return np.ascontiguousarray(np.moveaxis(windows[np.arange(n), top, left], 1, -1))


def flip(x: Labelled, rng, /, *, level: Share):
    """Left and right exchanged, with probability `level`."""
    return np.where(rng.random((len(x), 1, 1, 1), np.float32) < level, x[:, :, ::-1], x)


def cutout(x: Labelled, rng, /, *, level: Share):
    """One black rectangle whose sides are a share `level` of the image's; its centre may be anywhere in the image.

    What lies beyond the edge is lost, as in DeVries and Taylor, arXiv:1708.04552.
    """
    hidden = np.ones((len(x), 1, 1, 1), bool)
    for axis, side in ((1, x.shape[1]), (2, x.shape[2])):
        size, shape = round(level * side), [len(x), 1, 1, 1]
        first = rng.integers(0, side, shape) - size // 2
        shape[0], shape[axis] = 1, side
        at = np.arange(side).reshape(shape)
        hidden = hidden & (at >= first) & (at < first + size)
    return np.where(hidden, np.float32(0), x)
