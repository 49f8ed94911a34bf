"""Corruptions: `corrupt(x, rng, /, *, level, ...)` gives x~ of the same shape and type.

x is float32, images (n, h, w, c) in [0, 1], which x~ stays in unless it says otherwise, or rows (n, d); it is never
changed in place; `rng` is a `numpy.random.Generator`, so that a seed
fixes the noise on every backend. Level 0 leaves x as it is. Plain NumPy: a fresh draw for 54,000 images of 28 x 28
costs about half a second.
"""

from collections.abc import Callable, Mapping

import numpy as np

from aelab.call import bound
from aelab.config import Count, Level, Pixels, Rows, Share

Corruption = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def gaussian(x: Pixels, rng, /, *, level: Level, clip: bool):
    """Additive Gaussian noise of standard deviation `level`.

    Clipped to [0, 1] as in a picture; not with `clip` false, so that its mean is 0 on black and white pixels too.
    """
    noisy = rng.standard_normal(x.shape, np.float32)
    noisy *= level
    noisy += x
    return np.clip(noisy, 0, 1, out=noisy) if clip else noisy


def salt_pepper(x: Pixels, rng, /, *, level: Share):
    """A share `level` of the pixels, drawn independently, turned black or white with equal odds (all channels)."""
    draw = rng.random((*x.shape[:-1], 1), np.float32)
    return np.where(draw < level / 2, np.float32(0), np.where(draw < level, np.float32(1), x))


def speckle(x: Pixels, rng, /, *, level: Level):
    """Multiplicative noise: x (1 + level * n) with n standard normal, clipped."""
    noisy = rng.standard_normal(x.shape, np.float32)
    noisy *= level
    noisy += 1
    noisy *= x
    return np.clip(noisy, 0, 1, out=noisy)


def poisson(x: Pixels, rng, /, *, level: Level):
    """Shot noise: photon counts of mean x / level^2, scaled back, so that a white pixel's deviation is `level`."""
    if level == 0:
        return x
    peak = 1 / level**2
    return np.minimum(rng.poisson(x * peak).astype(np.float32) / np.float32(peak), np.float32(1))


def masking(x: Pixels, rng, /, *, level: Share, block: Count):
    """Black squares of `block` pixels a side on a grid, each with probability `level`: the share hidden on average."""
    n, h, w, _ = x.shape
    grid = rng.random((n, -(-h // block), -(-w // block)), np.float32) < level
    hidden = grid.repeat(block, 1).repeat(block, 2)[:, :h, :w, None]
    return np.where(hidden, np.float32(0), x)


def jitter(x: Rows, rng, /, *, level: Level):
    """Additive Gaussian noise of standard deviation `level` on every feature of a row (n, d)."""
    noisy = rng.standard_normal(x.shape, np.float32)
    noisy *= level
    noisy += x
    return noisy


def swap(x: Rows, rng, /, *, level: Share):
    """Each feature, with probability `level`, replaced by that of another row of the batch (n, d)."""
    other = x[rng.integers(0, len(x), x.shape), np.arange(x.shape[1])]
    return np.where(rng.random(x.shape, np.float32) < level, other, x)


def chain(nodes: Mapping) -> Corruption:
    """All corruptions of a config group, applied in the listed order."""
    steps = [bound(node) for node in nodes.values() if isinstance(node, Mapping)]

    def corrupt(x, rng):
        for step in steps:
            x = step(x, rng)
        return x

    return corrupt
