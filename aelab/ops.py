"""Shared maths: one value per example, from a target and an output of the same shape (b, ...).

Each formula serves as a metric as it stands and as a loss through `aelab.losses`. All of it is `keras.ops`, in
float32 or float64: a bfloat16 output is raised first.
"""

import functools

import numpy as np
from keras import ops

from aelab.config import Count, Pixels, Tokens, Values

SMALLEST_MSE = 1e-10
"""Squared errors below this count as this: PSNR ends at 100 dB instead of infinity for identical images."""


def full(x):
    """At least float32: half precision is for layers, not for sums."""
    x = ops.convert_to_tensor(x)
    return x if x.dtype in ("float32", "float64") else ops.cast(x, "float32")


def per_example(x):
    """Mean over all but the first axis: (b, ...) -> (b,)."""
    return ops.mean(ops.reshape(x, (ops.shape(x)[0], -1)), axis=1)


def mse(target: Values, output, /):
    """Mean squared error, (b, ...) x (b, ...) -> (b,), >= 0, in squared units of the data."""
    return per_example(ops.square(full(target) - full(output)))


def mae(target: Values, output, /):
    """Mean absolute error, (b, ...) x (b, ...) -> (b,), >= 0, in units of the data."""
    return per_example(ops.abs(full(target) - full(output)))


def charbonnier(target, output, /, *, epsilon: float):
    """Mean of sqrt(e^2 + epsilon^2), >= epsilon: an absolute error that is smooth at zero.

    Charbonnier et al., ICIP 1994, "Two deterministic half-quadratic regularization algorithms".
    """
    return per_example(ops.sqrt(ops.square(full(target) - full(output)) + epsilon**2))


def bce(target, output, /):
    """Mean binary cross-entropy in nats, with target and output read as probabilities in [0, 1].

    Outputs are clipped to [1e-7, 1 - 1e-7]. Not for logits.
    """
    p, t = ops.clip(full(output), 1e-7, 1 - 1e-7), full(target)
    return per_example(-t * ops.log(p) - (1 - t) * ops.log(1 - p))


def psnr(target: Pixels, output, /, *, max_value: float):
    """Peak signal-to-noise ratio in dB, higher is better: 10 log10(max_value^2 / mse), at most 100 for max_value 1.

    Averaged over images it is not the PSNR of the average error: the logarithm is taken for each image.
    """
    error = ops.maximum(mse(target, output), SMALLEST_MSE)
    return 10.0 * (2 * float(np.log10(max_value)) - ops.log10(error))


def ndcg(wanted, scores, /, *, k: int):
    """Normalised discounted cumulative gain of the k highest scores, (b, i) x (b, i) -> (b,), in [0, 1].

    wanted is 1 or 0; rows without anything wanted give 0. As `aelab.metrics.ndcg`, from scores instead of lists.
    """
    gains = 1 / np.log2(np.arange(2, k + 2)).astype(np.float32)
    best = ops.top_k(scores, k)[1]
    found = ops.sum(ops.take_along_axis(full(wanted), best, axis=-1) * gains, axis=-1)
    count = ops.cast(ops.clip(ops.sum(full(wanted), axis=-1), 1, k), "int32")
    return found / ops.take(ops.convert_to_tensor(np.cumsum(gains)), count - 1)


@functools.cache
def _window(size: int, window: int, sigma: float) -> np.ndarray:
    """A Gaussian filter without padding as a matrix, (size, size - window + 1): one column per output pixel."""
    if size < window:
        raise ValueError(f"SSIM needs images of at least {window} pixels a side, got {size}")
    kernel = np.exp(-0.5 * ((np.arange(window) - (window - 1) / 2) / sigma) ** 2)
    rows = np.zeros((size, size - window + 1), np.float32)
    for i in range(rows.shape[1]):
        rows[i : i + window, i] = kernel / kernel.sum()
    return rows


def ssim(target: Pixels, output, /, *, max_value: float, window: int, sigma: float):
    """Structural similarity, (b, h, w, c) x (b, h, w, c) -> (b,), in [-1, 1], 1 for identical images.

    Means and variances under a Gaussian `window` of standard deviation `sigma`, no padding, K1 = 0.01, K2 = 0.03
    (Wang et al., IEEE TIP 2004, eq. 13): the values of `tf.image.ssim`. The separable filter is two matrix
    products, which on a CPU is much faster than a depthwise convolution.
    """
    x, y = (ops.transpose(full(v), (0, 3, 1, 2)) for v in (target, output))
    down, across = (_window(v, window, sigma) for v in x.shape[2:])
    maps = ops.concatenate([x, y, x * y, x * x + y * y], axis=1)  # filtered together: one product a direction
    maps = ops.swapaxes(ops.tensordot(maps, ops.cast(across, x.dtype), 1), 2, 3)
    mean_x, mean_y, both, squares = ops.split(ops.tensordot(maps, ops.cast(down, x.dtype), 1), 4, axis=1)

    c1, c2 = (0.01 * max_value) ** 2, (0.03 * max_value) ** 2
    covariance, spread = both - mean_x * mean_y, squares - mean_x**2 - mean_y**2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return per_example(luminance * (2 * covariance + c2) / (spread + c2))


def nll(target: Tokens, logits, /):
    """Mean negative log-likelihood in nats, (b, t) x (b, t, v) -> (b,), of ids and logits; ids below 0 do not count."""
    counts = ops.cast(target >= 0, "float32")
    own = ops.sparse_categorical_crossentropy(ops.maximum(target, 0), full(logits), from_logits=True)
    return ops.sum(own * counts, axis=-1) / ops.maximum(ops.sum(counts, axis=-1), 1.0)


def accuracy(target: Tokens, logits, /, *, k: Count):
    """Share of ids among the k of the highest logits, (b, t) x (b, t, v) -> (b,), in [0, 1]; ids below 0 do not count.

    Equal logits share their places: of v logits that are all alike an id is among the first k with k / v.
    """
    counts, logits = ops.cast(target >= 0, "float32"), full(logits)
    own = ops.take_along_axis(logits, ops.maximum(target, 0)[..., None], axis=-1)
    above, alike = (ops.sum(ops.cast(x, "float32"), axis=-1) for x in (logits > own, logits == own))
    found = ops.clip((k - above) / alike, 0, 1)
    return ops.sum(found * counts, axis=-1) / ops.maximum(ops.sum(counts, axis=-1), 1.0)
