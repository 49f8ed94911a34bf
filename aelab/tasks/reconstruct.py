"""Compression: images through a code and back, beside principal components of the same number."""

from dataclasses import replace
from typing import Literal

import keras
import numpy as np
from matplotlib import colormaps
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.manifold import TSNE
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from aelab import console, figures
from aelab.config import AelabError, Count, Whole
from aelab.data.record import Split, sample
from aelab.evaluate import evaluate, measure, unaided
from aelab.fit import partials
from aelab.tasks.task import Task

CURVE = 64
"""Principal components that the curve goes to, or twice the code's size."""


class Reconstruct(Task):
    """Compress images to a short code and rebuild them from it, beside principal components of the same number."""

    kinds = ("coded image",)

    def __init__(self, *, probe: Whole, map: Literal["pca", "tsne"], mapped: Whole, examples: Count):
        self.probe, self.map, self.mapped, self.examples = probe, map, mapped, examples

    def batches(self, model, x, pairs, cfg):
        """As ever; a code that is no shorter than the image is told before it is trained."""
        size, pixels = encoder(model).output.shape[-1], int(np.prod(x.shape[1:]))
        if size >= pixels:
            console.complain(f"the code has {size} numbers, the image {pixels}: nothing is compressed")
        return super().batches(model, x, pairs, cfg)

    def predict(self, model, inputs, /):
        """Rebuilt images, float32 (n, h, w, c) in [0, 1]."""
        return np.asarray(model.predict(inputs, batch_size=self.at_once, verbose=0)["output"], np.float32)

    def test(self, model, data, corrupt, cfg):
        """The metrics of the rebuilt images, `_pca` beside each, and how well a linear probe reads the codes."""
        result = unaided(evaluate(self, model, data.test, corrupt, cfg.metric, cfg.seed))
        encode = encoder(model)
        self.codes = coded(encode, result.inputs)
        self.linear = Linear(data.train.x, self.codes.shape[1], cfg.seed)
        self.curve = self.linear.curve(result.inputs, result.targets)
        self.rebuilt = self.linear.rebuilt(result.inputs)
        beside = measure(partials(cfg.metric, "goal"), result.targets, self.rebuilt)
        means = {f"test/{name}_pca": float(np.mean(v, dtype=np.float64)) for name, v in beside.items()}
        return replace(result, metrics=result.metrics | means | self.probed(encode, data, result.inputs, cfg.seed))

    def probed(self, encode, data, inputs, seed: int) -> dict[str, float]:
        """Accuracy of a logistic regression on codes, of test and validation images, and on principal components."""
        if not (self.probe and data.label_names):
            return {}
        train = data.train.rows(sample(data.train.y, len(data.train), min(self.probe, len(data.train)), seed))
        test = Split(inputs, data.test.y)
        ways = {"": lambda x: coded(encode, x), "_pca": self.linear.code}
        found = {}
        for name, code in ways.items():
            linear = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
            x = code(train.x)
            with threadpool_limits(1):  # the matrices are small: more threads took 20 times as long
                linear.fit(x, train.y)
            parts = {"val": data.validation, "test": test}
            found |= {
                f"{part}/probe_accuracy{name}": float(linear.score(code(split.x), split.y))
                for part, split in parts.items()
                if len(split) and not (name and part == "val")
            }
        return found

    def keep(self, folder):
        """The codes (n, k) of the test images, as codes.npy."""
        np.save(folder / "codes.npy", self.codes)

    def figures(self, result, data, /):
        """Examples beside PCA's, the error against the size of the code, and a map of the codes."""
        labels = data.test.y if data.label_names else None
        first = np.arange(len(result.inputs)) if labels is None else np.unique(labels, return_index=True)[1]
        first = first[: self.examples]
        rows = {"clean": result.targets, "noisy": result.inputs, "rebuilt": result.outputs, "PCA": self.rebuilt}
        if np.array_equal(result.inputs, result.targets):
            del rows["noisy"]
        rows = {name: x[first] for name, x in rows.items()} | {"error": np.abs(result.targets - result.outputs)[first]}
        titles = [] if labels is None else [data.label_names[i] for i in labels[first]]
        drawn = {"examples": figures.image_grid(rows, titles=titles)}
        if "test/mse" in result.metrics:
            drawn["rate_distortion"] = self.rate_distortion(result.metrics["test/mse"])
        if self.mapped and len(self.codes) > 3:
            drawn["map"] = self.mapping(labels, data.label_names)
        return drawn

    def rate_distortion(self, mse: float):
        """The error of PCA over the number of its components, and the model's at the size of its code."""
        figure, size = figures.chart(5.4, 3.4), self.codes.shape[1]
        ax = figure.add_subplot()
        ax.plot(np.arange(1, len(self.curve) + 1), self.curve, color=figures.MUTED, lw=1.4, label="PCA")
        ax.plot(size, mse, "*", ms=13, color=figures.ORANGE, label="this model")
        ax.set(xscale="log", yscale="log")
        ax.legend(fontsize=8, frameon=False, labelcolor=figures.INK)
        figures.tidy(ax, "Error against the size of the code", xlabel="numbers in the code", ylabel="mse")
        fewer = np.flatnonzero(self.curve <= mse)
        alike = f"{fewer[0] + 1}" if len(fewer) else f"more than {len(self.curve)}"
        told = f"{figures.number(mse)} with {size} numbers; PCA needs {alike} components for as little"
        figure.set_label(f"Squared error of the test images: {told}.")
        return figure

    def mapping(self, labels, names):
        """A map of the first codes in two dimensions, each class in a colour of its own."""
        codes = self.codes[: self.mapped]
        if self.map == "tsne":
            flat = TSNE(perplexity=min(30, (len(codes) - 1) / 3), random_state=0).fit_transform(codes)
        else:
            flat = PCA(min(2, codes.shape[1])).fit_transform(codes)
        flat = np.pad(flat, ((0, 0), (0, 2 - flat.shape[1])))  # a code of one number lies on a line
        labels = np.zeros(len(flat), int) if labels is None else labels[: self.mapped]
        figure = figures.chart(6.4, 4.6)
        ax = figure.add_subplot()
        for label in np.unique(labels):
            name = names[label] if names else "images"
            ax.plot(*flat[labels == label].T, ".", ms=4, alpha=0.7, color=colormaps["tab10"](label % 10), label=name)
        ax.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5), markerscale=2)
        figures.tidy(ax, f"Codes of test images, {self.map}")
        figure.set_label(f"The codes of {len(flat):,} test images in two dimensions, by {self.map}; a colour a class.")
        return figure

    def tables(self, result, data, /):
        """None: the metrics say it all."""
        return {}


class Linear:
    """Principal components of images (n, h, w, c), `size` of them: the best linear code."""

    def __init__(self, x, size: int, seed: int):
        x = x.reshape(len(x), -1)
        most = min(max(CURVE, 2 * size), *x.shape)
        self.size, self.inner = min(size, most), PCA(most, random_state=seed).fit(x)

    def code(self, x):
        """The components (n, k) of images."""
        return self.inner.transform(x.reshape(len(x), -1))[:, : self.size]

    def rebuilt(self, x):
        """Images from their components, float32, of the same shape."""
        made = self.code(x) @ self.inner.components_[: self.size] + self.inner.mean_
        return made.reshape(x.shape).astype(np.float32)

    def curve(self, inputs, targets):
        """Mean squared error of targets rebuilt from 1, 2, ... components of inputs."""
        x, y = (self.inner.transform(v.reshape(len(v), -1)).astype(float) for v in (inputs, targets))
        whole = np.square(targets.reshape(len(targets), -1) - self.inner.mean_, dtype=float).sum(axis=1)
        return np.mean(whole[:, None] + np.cumsum(x * x - 2 * x * y, axis=1), axis=0) / self.inner.n_features_in_


def encoder(model) -> keras.Model:
    """The part of a model that gives the code (n, k)."""
    outputs = model.output
    if not (isinstance(outputs, dict) and {"output", "code"} <= outputs.keys() and len(outputs["code"].shape) == 2):
        raise AelabError(f'model {model.name}: expected a dict with "output" and "code" (n, k) as its outputs')
    return keras.Model(model.input, outputs["code"])


def coded(encode, x) -> np.ndarray:
    """The codes of images, float32 (n, k)."""
    return np.asarray(encode.predict(x, batch_size=Task.at_once, verbose=0), np.float32)
