"""Image completion: hidden pixels from those that can be seen, measured on the hidden ones alone."""

import keras
import numpy as np
import pandas as pd
from keras import ops
from matplotlib.colors import to_rgb

from aelab import figures, masks
from aelab.config import AelabError, ConfigError, Count
from aelab.evaluate import Result, measure
from aelab.fit import members, partials, stream
from aelab.models.filters import Biharmonic
from aelab.tasks.task import Task


class Inpaint(Task):
    """Fill the hidden pixels of images from those that can be seen; these stay as they are."""

    kinds = ("image", "masked image")
    needs = ("mask",)
    by_example = False
    watches = ("psnr",)

    def __init__(self, *, examples: Count, biharmonic: bool):
        self.examples, self.biharmonic, self.beside = examples, biharmonic, None

    def prepare(self, data, cfg):
        """The images as they are; the mask is tried on one of them."""
        self.metrics, self.draw = cfg.metric, partials({"mask": cfg.mask})["mask"]
        self.told = ", ".join(f"mask.{k}={v}" for k, v in cfg.mask.items() if k != "_target_") or "mask"
        self.mask(data.test.x[:1], stream("test", cfg.seed))
        return data

    def mask(self, x, rng) -> np.ndarray:
        """Which pixels of images (n, h, w, c) are hidden, bool (n, h, w, 1): in each image some, and not all."""
        drawn = self.draw(x, rng)
        counts, (h, w) = drawn.sum(axis=(1, 2, 3)), x.shape[1:3]
        for wrong, which, way in ((counts == 0, "nothing", "more"), (counts == h * w, "all", "less")):
            if wrong.any():
                raise ConfigError(f"{self.told}: hides {which} of an image of {h} x {w} pixels; let it hide {way}")
        return drawn

    def pairs(self, corrupt, /):
        """Clean images to (corrupted, with the hidden pixels marked; clean)."""

        def pair(x, rng):
            return np.where(self.mask(x, rng), masks.HIDDEN, corrupt(x, rng)), x

        return pair

    def watch(self):
        """The PSNR of the hidden pixels, where it is among the metrics."""

        def psnr(batch, outputs):
            error = masks.error(batch, outputs)
            return known["psnr"](ops.zeros_like(error), error)

        known = partials(self.metrics, "goal")
        return {"psnr": psnr} if "psnr" in known else {}

    def predict(self, model, inputs, /):
        """Filled images, float32 (n, h, w, c); a pixel with a NaN in it is hidden too. What can be seen stays."""
        inputs = np.where(np.isnan(inputs).any(axis=-1, keepdims=True), masks.HIDDEN, inputs)
        keyword = {"batch_size": self.at_once, "verbose": 0} if isinstance(model, keras.Model) else {}
        outputs = members(model.predict(inputs, **keyword))[0]["output"]
        if outputs.shape != inputs.shape:
            raise AelabError(f"the model gives {outputs.shape}, but the images are {inputs.shape}")
        return np.where(masks.hidden(inputs), np.clip(outputs, 0, 1), inputs).astype(np.float32)

    def test(self, model, data, corrupt, cfg):
        """The metrics of the hidden pixels; `_biharmonic` beside each, and the gain over it."""
        inputs, targets = self.pairs(corrupt)(data.test.x, stream("test", cfg.seed))
        outputs = self.predict(model, inputs)
        columns = values = measured(cfg.metric, inputs, targets, outputs)
        if self.biharmonic and not isinstance(model, Biharmonic):
            self.beside = self.predict(Biharmonic(data.shape), inputs)
            columns = {}
            for name, other in measured(cfg.metric, inputs, targets, self.beside).items():
                gain = (values[name] - other) * (1 if cfg.metric[name]["goal"] == "max" else -1)
                columns |= {name: values[name], f"{name}_biharmonic": other, f"{name}_gain": gain}
        examples = pd.DataFrame(columns)
        if data.test.y is not None:
            examples["label"] = data.test.y
        means = {f"test/{name}": float(np.mean(v, dtype=np.float64)) for name, v in columns.items()}
        return Result(inputs, targets, outputs, examples, means)

    def figures(self, result, data, /):
        """Clean, masked, filled, biharmonic and error side by side, and the gain in PSNR over all test images."""
        labels = result.examples["label"] if data.label_names else pd.Series(range(len(result.inputs)))
        first = labels.drop_duplicates().index[: self.examples].to_numpy()
        clean, inputs, filled = (a[first] for a in (result.targets, result.inputs, result.outputs))
        masked = np.where(masks.hidden(inputs), to_rgb(figures.BLUE), inputs)  # no grey: a pixel may be of any
        rows = {"clean": clean, "masked": masked, "filled": filled}
        rows |= {} if self.beside is None else {"biharmonic": self.beside[first]}
        rows |= {"error": np.abs(clean - filled)}
        captions, shown = {}, result.examples.iloc[first]
        for name, column in (("filled", "psnr"), ("biharmonic", "psnr_biharmonic")):
            captions |= {name: [f"{v:.1f} dB" for v in shown[column]]} if column in shown else {}
        titles = [data.label_names[i] for i in labels.iloc[first]] if data.label_names else ()
        drawn = {"examples": figures.image_grid(rows, titles=titles, captions=captions)}
        for name, title in (("psnr", "PSNR of the hidden pixels"), ("psnr_gain", "Gain over biharmonic inpainting")):
            if name in result.examples:
                drawn[name] = figures.histogram(result.examples[name], label="dB", title=title)
        for table in self.tables(result, data).values() if "psnr" in result.examples else ():
            mean = result.metrics["test/psnr"]
            drawn["psnr_by_class"] = figures.bars(table, "psnr", title="PSNR by class, dB", reference=mean)
        return drawn

    def tables(self, result, data, /):
        """Mean metrics by class, where the data have classes."""
        if not data.label_names:
            return {}
        groups = result.examples.groupby("label")
        table = groups.mean()
        table.insert(0, "images", groups.size())
        return {"by class": table.set_axis([data.label_names[i] for i in table.index]).rename_axis("class")}


def measured(metrics, inputs, targets, outputs) -> dict[str, np.ndarray]:
    """Each metric of the hidden pixels of each image, name -> (n,); one with a window, of the whole image."""
    functions = partials(metrics, "goal")
    whole = {name: function for name, function in functions.items() if "window" in metrics[name]}
    alone = {name: function for name, function in functions.items() if name not in whole}
    hidden = masks.hidden(inputs)[..., 0]
    counts = hidden.sum(axis=(1, 2))
    found = measure(whole, targets, outputs) | {name: np.empty(len(inputs), np.float32) for name in alone}
    for count in np.unique(counts):
        rows = counts == count
        pair = (x[rows][hidden[rows]].reshape(rows.sum(), count, 1, -1) for x in (targets, outputs))
        for name, values in measure(alone, *pair).items():
            found[name][rows] = values
    return {name: found[name] for name in functions}
