"""Restoring images: from a corrupted image to the clean one."""

from typing import Literal

import keras
import numpy as np
import pandas as pd

from aelab import console, corruptions, evaluate, figures
from aelab.config import Count
from aelab.tasks.task import Task

OFF = 0.02
"""A mean that noise may add to a flat image before one is told: as much as that of 64 x 64 pixels may be by chance."""


class Denoise(Task):
    """Restore images from corrupted ones: trained on (corrupted, clean) pairs.

    With the target "noisy" on two corruptions of each image instead, in validation too: what is best on average over
    the noise of the target is the clean image, which is needed for the test alone. Lehtinen et al., ICML 2018,
    "Noise2Noise".
    """

    kinds = ("image",)

    def __init__(self, *, target: Literal["clean", "noisy"], examples: Count):
        self.target, self.examples = target, examples

    def batches(self, model, x, pairs, cfg):
        """As ever; noise that is not 0 on average is told, as noisy targets teach its mean too."""
        if self.target == "noisy" and (off := bias(corruptions.chain(cfg.corruption), x.shape[-1])) > OFF:
            console.complain(
                f"task.target=noisy: the noise adds {off:.2f} on average to a flat image, and that is learnt with it; "
                "of gaussian noise corruption.gaussian.clip=false has mean 0"
            )
        return super().batches(model, x, pairs, cfg)

    def pairs(self, corrupt, /):
        """Clean images to (corrupted, clean), or to two that are corrupted independently."""

        def pair(x, rng):
            return corrupt(x, rng), x if self.target == "clean" else corrupt(x, rng)

        return pair

    def test(self, model, data, corrupt, cfg):
        """The test, against clean images whatever was trained on."""
        clean = Denoise(target="clean", examples=self.examples)
        return evaluate.evaluate(clean, model, data.test, corrupt, cfg.metric, cfg.seed)

    def predict(self, model, inputs, /):
        """Restored images, float32 (n, h, w, c), clipped to [0, 1]."""
        keyword = {"batch_size": 512, "verbose": 0} if isinstance(model, keras.Model) else {}
        outputs = model.predict(inputs, **keyword)
        outputs = outputs["output"] if isinstance(outputs, dict) else outputs
        return np.clip(outputs, 0, 1).astype(np.float32)

    def figures(self, result, data, /):
        """Clean, noisy, restored and error side by side, and the gain in PSNR over all test images."""
        first = np.arange(min(self.examples, len(result.inputs)))
        if data.label_names and "label" in result.examples:
            first = result.examples.groupby("label").head(1).index.to_numpy()[: self.examples]
        clean, noisy, restored = (a[first] for a in (result.targets, result.inputs, result.outputs))
        rows = {"clean": clean, "noisy": noisy, "restored": restored, "error": np.abs(clean - restored)}
        captions, titles, shown = {}, (), result.examples.iloc[first]
        if "psnr" in shown:
            captions = {
                "noisy": [f"{v:.1f} dB" for v in shown["psnr_input"]],
                "restored": [f"{v:.1f} dB" for v in shown["psnr"]],
            }
        if data.label_names and "label" in shown:
            titles = [data.label_names[i] for i in shown["label"]]
        drawn = {"examples": figures.image_grid(rows, titles=titles, captions=captions)}
        if "psnr" in result.examples:
            drawn["psnr_gain"] = figures.histogram(
                result.examples["psnr_gain"], label="gain in PSNR, dB", title="Gain over the noisy image"
            )
        for table in self.tables(result, data).values():
            if "psnr" in table:
                mean = result.metrics["test/psnr"]
                drawn["psnr_by_class"] = figures.bars(table, "psnr", title="PSNR by class, dB", reference=mean)
        return drawn

    def tables(self, result, data, /):
        """Mean metrics by class, where the data have classes."""
        if not data.label_names or "label" not in result.examples:
            return {}
        groups = result.examples.groupby("label")
        table = groups.mean().filter(regex="(?<!_input)$")
        table.insert(0, "images", groups.size())
        table.index = pd.Index([data.label_names[i] for i in table.index], name="class")
        return {"by class": table}


def bias(corrupt, channels: int) -> float:
    """The most that noise adds, on average, to a black, a grey and a white image."""
    flat = np.repeat(np.float32([0, 0.5, 1]), 64 * 64 * channels).reshape(3, 64, 64, channels)
    return float(np.abs((corrupt(flat, np.random.default_rng(0)) - flat).mean(axis=(1, 2, 3))).max())
