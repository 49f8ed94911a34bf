"""Colourisation: from a grey image to its colours, beside the mean colour of each grey level."""

from dataclasses import replace

import keras
import numpy as np
from keras import ops

from aelab import figures, run_files
from aelab.config import AelabError, ConfigError, Count, Pixels
from aelab.evaluate import evaluate, measure
from aelab.fit import members, partials
from aelab.ops import full
from aelab.tasks.task import Task

WEIGHTS = np.array([0.299, 0.587, 0.114], np.float32)
"""Of red, green and blue in the luminance: ITU-R BT.601."""
LEVELS = 256
XYZ = np.array([[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]])
"""Of linear sRGB, a row for each of X, Y, Z."""
WHITE = np.array([0.95047, 1.0, 1.08883])
"""X, Y, Z of D65."""


class Colorize(Task):
    """Give grey images their colours back: trained on (grey, colour) pairs."""

    kinds = ("image",)

    def __init__(self, *, keep_luminance: bool, examples: Count):
        self.keep_luminance, self.examples, self.palette = keep_luminance, examples, None

    def prepare(self, data, cfg):
        """The images as they are, which must have colours; of the training ones, the mean colour of each grey level."""
        if data.shape[-1] != 3:
            shape = " x ".join(map(str, data.shape))
            raise ConfigError(
                f"dataset={cfg.choices.dataset}: images of {shape}, but task=colorize learns three colour channels; "
                "data sets that fit: cifar10, photo_patches, npz with colour images, images with dataset.channels=3"
            )
        if self.palette is None:
            self.palette = palette(data.train.x)
        return data

    def pairs(self, corrupt, /):
        """Colour images to (grey, colour); a corruption is of the grey image, before its channels are made three."""
        return lambda x, rng: (threefold(corrupt(luminance(x), rng)), x)

    def predict(self, model, inputs, /):
        """Colour images, float32 (n, h, w, 3) in [0, 1], of the luminance of the inputs; these may have colours."""
        grey = luminance(inputs)
        keyword = {"batch_size": self.at_once, "verbose": 0} if isinstance(model, keras.Model) else {}
        outputs = members(model.predict(threefold(grey), **keyword))[0]["output"].clip(0, 1).astype(np.float32)
        return relit(outputs, grey) if self.keep_luminance else outputs

    def test(self, model, data, corrupt, cfg):
        """The metrics of the coloured images, `_palette` beside each: of the mean colour of each grey level."""
        result = evaluate(self, model, data.test, corrupt, cfg.metric, cfg.seed)
        self.painted = self.palette[levels(result.inputs[..., :1])]
        beside = measure(partials(cfg.metric, "goal"), result.targets, self.painted)
        examples = result.examples.assign(**{f"{name}_palette": values for name, values in beside.items()})
        means = {f"test/{name}_palette": float(np.mean(v, dtype=np.float64)) for name, v in beside.items()}
        return replace(result, examples=examples, metrics=result.metrics | means)

    def keep(self, folder):
        """The mean colour (256, 3) of each grey level, as palette.npy."""
        np.save(folder / "palette.npy", self.palette)

    def recall(self, folder):
        """The finished run's mean colours."""
        file = folder / "palette.npy"
        self.palette = run_files.array(file)
        if self.palette.shape != (LEVELS, 3):
            raise AelabError(f"{file}: expected ({LEVELS}, 3), got {self.palette.shape}; {run_files.REMEDY}")

    def figures(self, result, data, /):
        """Examples, the error and the mean colour at each grey level, and the gain in PSNR over the mean colour."""
        examples = result.examples
        first = np.linspace(0, len(examples) - 1, min(self.examples, len(examples))).astype(int)
        rows = {"grey": result.inputs, "coloured": result.outputs, "mean colour": self.painted, "true": result.targets}
        captions, titles = {}, ()
        if "psnr" in examples:
            named = {"grey": "psnr_input", "coloured": "psnr", "mean colour": "psnr_palette"}
            captions = {row: [f"{v:.1f} dB" for v in examples[name].iloc[first]] for row, name in named.items()}
        if data.label_names and "label" in examples:
            titles = [data.label_names[i] for i in examples["label"].iloc[first]]
        rows = {name: x[first] for name, x in rows.items()}
        drawn = {
            "examples": figures.image_grid(rows, titles=titles, captions=captions),
            "grey_levels": self.by_level(result),
        }
        if "psnr" in examples:
            gain = examples["psnr"] - examples["psnr_palette"]
            drawn["psnr_gain"] = figures.histogram(
                gain, label="gain in PSNR, dB", title="Gain over the mean colour of each grey level"
            )
        return drawn

    def by_level(self, result):
        """The error at each grey level, and below it the mean colour of the level."""
        at = levels(result.inputs[..., :1]).ravel()
        count = np.bincount(at, minlength=LEVELS)
        figure = figures.chart(6.4, 3.6)
        ax, strip = figure.subplots(2, 1, sharex=True, height_ratios=(9, 1))
        for name, x, colour in (
            ("mean colour", self.painted, figures.MUTED),
            ("this model", result.outputs, figures.ORANGE),
        ):
            errors = np.bincount(at, np.square(x - result.targets).mean(-1).ravel(), LEVELS)
            ax.plot(np.sqrt(errors / np.where(count, count, np.nan)), color=colour, lw=1.4, label=name)
        ax.legend(fontsize=8, frameon=False, labelcolor=figures.INK)
        ax.set_ylim(0)
        figures.tidy(ax, "Error at each grey level", ylabel="root of mse")
        strip.imshow(self.palette[None], aspect="auto", extent=(-0.5, LEVELS - 0.5, 0, 1))
        strip.set_yticks([])
        figures.tidy(strip, "", xlabel="grey level, and its mean colour in training images")
        figure.set_label("Error of the test pixels of each grey level; the strip is the mean colour of the level.")
        return figure

    def tables(self, result, data, /):
        """None: the metrics say it all."""
        return {}


def luminance(x: np.ndarray) -> np.ndarray:
    """0.299 R + 0.587 G + 0.114 B of images (n, h, w, 3), as stored, gamma-coded: (n, h, w, 1), as grey ones are."""
    return x if x.shape[-1] == 1 else x @ WEIGHTS[:, None]


def threefold(grey: np.ndarray) -> np.ndarray:
    """Grey images (n, h, w, 1) as models of colour images take them: (n, h, w, 3)."""
    return np.repeat(grey, 3, axis=-1)


def relit(x: np.ndarray, grey: np.ndarray) -> np.ndarray:
    """Images x (n, h, w, 3) with the luminance of `grey` (n, h, w, 1), in [0, 1].

    Each pixel is moved along the greys until its luminance is right, then towards grey until it is in [0, 1]: clipping
    would change the luminance again.
    """
    colour = x - luminance(x)  # whose luminance is 0
    room = np.where(colour > 0, 1 - grey, grey) / np.maximum(np.abs(colour), 1e-6)
    return np.clip(grey + colour * room.min(axis=-1, keepdims=True).clip(0, 1), 0, 1)


def levels(grey: np.ndarray) -> np.ndarray:
    """The grey level, 0 to 255, of each pixel: (n, h, w, 1) -> (n, h, w)."""
    return np.rint(grey[..., 0] * (LEVELS - 1)).astype(np.intp)


def palette(x: np.ndarray) -> np.ndarray:
    """The mean colour, float32 (256, 3), of the pixels of each grey level; between known levels where there are none.

    Of all predictions that see nothing but the pixel's own grey level, this has the least squared error in training.
    """
    total, count = np.zeros((LEVELS, 3)), np.zeros(LEVELS)
    for part in np.array_split(x, -(-len(x) // 4096)):
        at, colours = levels(luminance(part)).ravel(), part.reshape(-1, 3)
        count += np.bincount(at, minlength=LEVELS)
        total += np.stack([np.bincount(at, channel, LEVELS) for channel in colours.T], axis=1)
    known = np.flatnonzero(count)
    mean = total[known] / count[known, None]
    return np.stack([np.interp(np.arange(LEVELS), known, m) for m in mean.T], axis=1).astype(np.float32)


def chroma(target: Pixels, output, /):
    """Mean distance in the a, b plane of CIE Lab, (b, h, w, 3) x (b, h, w, 3) -> (b,), >= 0: of colour without light.

    A distance of about 2 is just seen; a grey image is as far off as its target is colourful.
    """
    return ops.mean(ops.sqrt(ops.sum(ops.square(ab(target) - ab(output)), axis=-1) + 1e-12), axis=(1, 2))


def ab(x):
    """a and b of CIE Lab, (..., 2), of sRGB (..., 3) under D65."""
    x = full(x)
    linear = ops.where(x > 0.04045, ops.power((ops.maximum(x, 0.04045) + 0.055) / 1.055, 2.4), x / 12.92)
    x = ops.matmul(linear, ops.convert_to_tensor((XYZ / WHITE[:, None]).T, dtype=linear.dtype))
    f = ops.where(x > 0.008856, ops.power(ops.maximum(x, 0.008856), 1 / 3), 7.787 * x + 16 / 116)
    return ops.stack([500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], axis=-1)
