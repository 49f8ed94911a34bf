"""Loss terms: `term(batch, outputs, model, /, *, knobs)` gives one value per example, (b,), lower is better.

`batch` has `.input` and `.target`; `outputs` is a dict whose "output" is compared with the target. Weighting and
averaging happen once, in `aelab.fit.Objective`.
"""

import keras

from aelab import ops
from aelab.config import Count, Level


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


def ssim(batch, outputs, model, /, *, max_value: Level, window: Count, sigma: Level):
    """1 - SSIM of each image, in [0, 2]."""
    return 1.0 - ops.ssim(batch.target, outputs["output"], max_value=max_value, window=window, sigma=sigma)


def log_mse(batch, outputs, model, /):
    """ln(mse) of each example: minus its PSNR, up to scale and a constant.

    Its mean over images is what the mean PSNR measures, where `mse` lets the hard images outweigh the rest.
    """
    return keras.ops.log(keras.ops.maximum(ops.mse(batch.target, outputs["output"]), ops.SMALLEST_MSE))
