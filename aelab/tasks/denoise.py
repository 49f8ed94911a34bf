"""Restoring images: from a corrupted image to the clean one."""

import keras
import numpy as np
import pandas as pd

from aelab import figures
from aelab.config import Count
from aelab.tasks.task import Task


class Denoise(Task):
    """Restore images from corrupted ones: trained on (corrupted, clean) pairs."""

    kinds = ("image",)

    def __init__(self, *, examples: Count):
        self.examples = examples

    def pairs(self, corrupt, /):
        """Clean images to (corrupted, clean)."""

        def pair(x, rng):
            return corrupt(x, rng), x

        return pair

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
