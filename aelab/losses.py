"""Loss terms: `term(batch, outputs, model, /, *, knobs)` gives one value per example, (b,), lower is better.

`batch` has `.input` and `.target`; `outputs` is a dict whose "output" is compared with the target. Weighting and
averaging happen once, in `aelab.fit.Objective`.
"""

import math

import keras

from aelab import ops
from aelab.config import Count, Level, Pixels


def mse(batch, outputs, model, /):
    """Mean squared error of each example."""
    return ops.mse(batch.target, outputs["output"])


def mae(batch, outputs, model, /):
    """Mean absolute error of each example."""
    return ops.mae(batch.target, outputs["output"])


def bce(batch, outputs, model, /):
    """Binary cross-entropy of each example in nats a pixel, with values read as probabilities."""
    return ops.bce(batch.target, outputs["output"])


def charbonnier(batch, outputs, model, /, *, epsilon: Level):
    """Mean of sqrt(e^2 + epsilon^2) of each example."""
    return ops.charbonnier(batch.target, outputs["output"], epsilon=epsilon)


def ssim(batch: Pixels, outputs, model, /, *, max_value: Level, window: Count, sigma: Level):
    """1 - SSIM of each image, in [0, 2]."""
    return 1.0 - ops.ssim(batch.target, outputs["output"], max_value=max_value, window=window, sigma=sigma)


def log_mse(batch, outputs, model, /):
    """ln(mse) of each example: minus its PSNR, up to scale and a constant.

    Its mean over images is what the mean PSNR measures, where `mse` lets the hard images outweigh the rest.
    """
    return keras.ops.log(keras.ops.maximum(ops.mse(batch.target, outputs["output"]), ops.SMALLEST_MSE))


def kl(batch, outputs, model, /, *, free_bits: Level):
    """KL(N(mean, exp(log_variance)) || N(0, 1)) of each example, in nats a feature of the target.

    Divided by the number of features as the mean squared error is, so that weight 1 is the VAE's own balance for
    errors of variance 1/2. A number of the code below `free_bits` nats counts as that (Kingma et al., 2016).
    """
    mean, log_variance = ops.full(outputs["mean"]), ops.full(outputs["log_variance"])
    nats = 0.5 * (keras.ops.square(mean) + keras.ops.exp(log_variance) - log_variance - 1.0)
    size = math.prod(batch.target.shape[1:])
    return keras.ops.sum(keras.ops.maximum(nats, free_bits), axis=-1) / size


def sparsity(batch, outputs, model, /):
    """Mean absolute value of each example's code: few numbers of it are used at a time."""
    return keras.ops.mean(keras.ops.abs(ops.full(outputs["code"])), axis=-1)
