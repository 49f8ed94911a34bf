"""Drawing images: from the prior of a variational autoencoder, beside principal components and real images."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import keras
import numpy as np
import pandas as pd
from sklearn.decomposition import PCA

from aelab import account, backend, console, figures, frechet
from aelab.call import build
from aelab.config import AelabError, ConfigError, Count, ModelNode, Whole
from aelab.data.record import sample
from aelab.evaluate import evaluate, unaided
from aelab.fit import stream
from aelab.models.dense import Draw
from aelab.scores import nats
from aelab.tasks.task import Task

JUDGE = "judge.keras"
JUDGES = {"classify": "model.keras", "generate": JUDGE}
"""The classifier's file in the folder of a run, by its task."""
USED = 0.1
"""Nats from which a number of the code counts as used."""
COLUMNS = figures.COLUMNS
REACH = np.linspace(-3, 3, 9)
"""Standard deviations of the prior that a number of the code is swept over."""


class Generate(Task):
    """Draw new images from the prior of a variational autoencoder, and measure how far they are from real ones.

    Fréchet distances are taken in the last hidden layer of a classifier, the judge: to the images of a split from as
    many samples of the prior; of a Gaussian on as many principal components as the code has numbers, `_pca`; and of
    real training images, `_real`, which says how near is near.
    """

    kinds = ("drawn image",)

    def __init__(self, *, judge: str | None, judge_epochs: Count, classifier: ModelNode, kept: Whole, rows: Count):
        self.judge, self.judge_epochs, self.classifier = judge, judge_epochs, classifier
        self.kept, self.rows, self.judged = kept, rows, None

    def recall(self, folder):
        """The judge that the run had, unless another is asked for."""
        self.judged = None if self.judge else backend.restored(folder / JUDGE)

    def prepare(self, data, cfg):
        """The images as they are; the judge must be there, or labels to train one."""
        if self.judge:
            self.judged = stored_judge(self.judge, data.shape)
        elif not (self.judged or data.label_names):
            raise ConfigError(
                f"dataset={cfg.choices.dataset}: {data.source} has no labels to train a judge with; give the folder of "
                "a run that has one: task.judge=FOLDER (of task=classify, images of the same shape)"
            )
        return data

    def batches(self, model, x, pairs, cfg):
        """As ever; what cannot be drawn from, or not well, is told before it is trained."""
        halves(model)
        if not cfg.loss.get("kl", {}).get("weight"):
            console.complain(
                "loss: kl is not there, or of weight 0: no code is drawn towards the prior; add loss=[bce,kl]"
            )
        return super().batches(model, x, pairs, cfg)

    def predict(self, model, inputs, /):
        """Rebuilt images, float32 (n, h, w, c) in [0, 1]."""
        return np.asarray(model.predict(inputs, batch_size=self.at_once, verbose=0)["output"], np.float32)

    def test(self, model, data, corrupt, cfg):
        """The metrics of the rebuilt images; the divergence of their codes in nats; and the Fréchet distances."""
        result = unaided(evaluate(self, model, data.test, corrupt, cfg.metric, cfg.seed))
        self.encode, self.decode = (called(half) for half in halves(model))
        self.nats = divergence(self.encode(result.inputs))
        metrics = result.metrics | {
            "test/kl_nats": float(self.nats.sum()),
            "test/used_numbers": float((self.nats > USED).sum()),
        }
        self.judged = self.judged or self.trained_judge(data, cfg.seed)
        if len(data.validation) and data.label_names:
            said = called(self.judged)(data.validation.x).argmax(axis=1)
            metrics["val/judge_accuracy"] = float(np.mean(said == data.validation.y))
        self.features = called(keras.Model(self.judged.input, self.judged.layers[-1].input))
        self.linear = linear_sampler(data.train.x, len(self.nats), cfg.seed)
        for part, name in {"val": "validation", "test": "test"}.items():
            split = getattr(data, name)
            self.z = stream(name, cfg.seed, index=1).standard_normal((len(split), len(self.nats)), np.float32)
            if len(split):
                metrics |= {f"{part}/{k}": v for k, v in self.distances(split, data.train, cfg.seed).items()}
        return replace(result, metrics=metrics)

    def trained_judge(self, data, seed: int) -> keras.Model:
        """A classifier that has learnt the labels of the training images."""
        keras.utils.set_random_seed(seed)
        judge = build(self.classifier, (data.shape, len(data.label_names)))
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        judge.compile("adam", loss, steps_per_execution=16, jit_compile=False)
        with console.out.status("training the judge"):
            judge.fit(data.train.x, data.train.y, batch_size=128, epochs=self.judge_epochs, verbose=0)
        return judge

    def distances(self, split, train, seed: int) -> dict[str, float]:
        """Fréchet distances to the images of a split; the Gaussian's samples are of the same z as the prior's."""
        rows = sample(train.y, len(train), min(len(split), len(train)), seed)
        sets = {"": self.decode(self.z), "_pca": self.linear(self.z), "_real": train.x[rows]}
        real = self.features(split.x)
        return {f"frechet{name}": frechet.distance(self.features(x), real) for name, x in sets.items()}

    def keep(self, folder):
        """The judge, and the first samples as samples.npy, uint8 (n, h, w, c)."""
        self.judged.save(folder / JUDGE)
        if self.kept:
            np.save(folder / "samples.npy", np.rint(self.decode(self.z[: self.kept]) * 255).astype(np.uint8))

    def figures(self, result, data, /):
        """Samples, the training images nearest to some, interpolations, sweeps of the code, and the distances."""
        return {
            "samples": self.sheet(data.test.x),
            "nearest": self.nearest(data),
            "interpolation": self.interpolation(data),
            "sweep": self.sweep(),
            "divergence": self.used(),
            "frechet": distance_figure(result.metrics),
        }

    def sheet(self, real):
        """Samples of the prior, ten a row; below them samples of the Gaussian, and real images."""
        parts = {"samples": (self.decode, self.rows), "PCA": (self.linear, 2), "test images": (None, 2)}
        rows = {}
        for name, (draw, count) in parts.items():
            for i in range(0, min(COLUMNS * count, len(self.z)), COLUMNS):
                images = draw(self.z[i : i + COLUMNS]) if draw else real[i : i + COLUMNS]
                if len(images) == COLUMNS or not i:  # the last of few may be fewer
                    rows[f"{name} {i + 1} to {i + len(images)}"] = images
        figure = figures.image_grid(rows)
        figure.set_label(
            "The first samples of the prior, not chosen; of the Gaussian on principal components; and real images."
        )
        return figure

    def nearest(self, data):
        """Samples, and the training image nearest to each: where the model copied, they would be the same."""
        drawn, real = self.decode(self.z[:COLUMNS]), data.test.x[: 10 * COLUMNS]
        (near, errors), (_, usual) = (nearest(data.train.x, x) for x in (drawn, real))
        rows, told = {"sample": drawn, "nearest training image": data.train.x[near]}, [f"mse {e:.4f}" for e in errors]
        figure = figures.image_grid(rows, captions={"nearest training image": told})
        figure.set_label(
            f"Nearest by squared error: {figures.number(errors.mean())} on average, from a test image to its nearest "
            f"{figures.number(usual.mean())}."
        )
        return figure

    def interpolation(self, data):
        """From the code of one test image to that of another, of another class where there are classes."""
        y = data.test.y
        first = np.arange(len(data.test)) if y is None else np.unique(y, return_index=True)[1]
        first = first[: self.rows + 1]
        codes, rows = self.encode(data.test.x[first])["mean"], {}
        for i, (a, b) in enumerate(pairwise(first)):
            names = [data.label_names[y[n]] for n in (a, b)] if data.label_names else [f"image {n}" for n in (a, b)]
            steps = np.linspace(0, 1, COLUMNS - 2, dtype=np.float32)[:, None]
            between = self.decode((1 - steps) * codes[i] + steps * codes[i + 1])
            rows[" to ".join(names)] = np.concatenate([data.test.x[[a]], between, data.test.x[[b]]])
        steps = np.linspace(0, 1, COLUMNS - 2)
        figure = figures.image_grid(rows, titles=["image", *(f"{s:.0%}" for s in steps), "image"])
        figure.set_label(
            "Left and right test images; between them what is decoded on the straight line between their codes."
        )
        return figure

    def sweep(self):
        """The numbers of the code with the most divergence, each from -3 to 3 with the others 0."""
        rows = {}
        for k in np.argsort(-self.nats, kind="stable")[: self.rows]:
            z = np.zeros((len(REACH), len(self.nats)), np.float32)
            z[:, k] = REACH
            rows[f"{k}: {self.nats[k]:.2f} nats"] = self.decode(z)
        figure = figures.image_grid(rows, titles=[f"{r:g}" for r in REACH])
        figure.set_label(
            "A number of the code a row, those of the most nats, in standard deviations of the prior; the others at 0."
        )
        return figure

    def used(self):
        """Nats of each number of the code, most first."""
        nats, figure = np.sort(self.nats)[::-1], figures.chart(5.4, 3.2)
        used, ax = int((nats > USED).sum()), figure.add_subplot()
        for name, colour, at in (
            ("used", figures.BLUE, slice(0, used)),
            ("not used", figures.ORANGE, slice(used, None)),
        ):
            ax.bar(np.arange(len(nats))[at] + 1, nats[at], color=colour, alpha=0.8, label=f"{name} ({len(nats[at])})")
        ax.legend(fontsize=8, frameon=False, labelcolor=figures.INK)
        figures.tidy(ax, "Divergence from the prior", xlabel="numbers of the code, most first", ylabel="nats")
        figure.set_label(
            f"{used} of {len(nats)} numbers of the code have more than {USED} nats; {nats.sum():.1f} in all."
        )
        return figure

    def tables(self, result, data, /):
        """None: the metrics say it all."""
        return {}


def stored_judge(run: str, shape: tuple[int, ...]) -> keras.Model:
    """The classifier of a finished run, for images of this shape."""
    folder = Path(run)
    if not (folder / "config.yaml").exists():
        raise AelabError(f"task.judge={run}: expected the folder of a finished run of task=classify or task=generate")
    task = account.config(folder).choices.task
    file = folder / JUDGES.get(task, "")
    if not file.is_file():
        raise AelabError(f"task.judge={run}: a run of task={task} without a classifier; take one of task=classify")
    judge = backend.restored(file)
    if judge.input_shape[1:] != shape:
        raise AelabError(f"task.judge={run}: takes images {judge.input_shape[1:]}, but these are {shape}")
    return judge


def halves(model) -> tuple[keras.Model, keras.Model]:
    """The part of a model from an image to "mean" and "log_variance", and that from a code to the image."""
    outputs, draws = model.output, [layer for layer in model.layers if isinstance(layer, Draw)]
    if not (isinstance(outputs, dict) and {"output", "mean", "log_variance"} <= outputs.keys() and len(draws) == 1):
        raise AelabError(
            f'model {model.name}: expected a dict with "output", "mean" and "log_variance", and one layer Draw of '
            "aelab.models.dense"
        )
    encoder = keras.Model(model.input, {name: outputs[name] for name in ("mean", "log_variance")})
    return encoder, keras.Model(draws[0].output, outputs["output"])


def called(model) -> Callable:
    """A model as a function of arrays."""
    return lambda x: model.predict(x, batch_size=Task.at_once, verbose=0)


def divergence(code: dict) -> np.ndarray:
    """How far each number of the code is from the prior, (k,): mean over images, in nats."""
    return nats(*(np.asarray(code[name], float) for name in ("mean", "log_variance"))).mean(axis=0)


def linear_sampler(x: np.ndarray, size: int, seed: int) -> Callable:
    """From z (n, size or more) of N(0, 1) to images of the Gaussian on the principal components of images x.

    It has their mean, and their covariance as far as `size` components go; pixels are clipped to [0, 1].
    """
    flat = x.reshape(len(x), -1)
    found = PCA(min(size, *flat.shape), random_state=seed).fit(flat)
    spread = np.sqrt(found.explained_variance_)[:, None] * found.components_

    def draw(z):
        made = found.mean_ + z[:, : len(spread)] @ spread
        return made.clip(0, 1).reshape(-1, *x.shape[1:]).astype(np.float32)

    return draw


def nearest(known: np.ndarray, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each image the number of the nearest known one, and the mean squared error to it."""
    x, q = (v.reshape(len(v), -1) for v in (known, images))
    squared = np.einsum("np,np->n", x, x)[:, None] - 2 * x @ q.T
    near = squared.argmin(axis=0)
    return near, np.square(x[near] - q).mean(axis=1)


def distance_figure(metrics: dict[str, float]):
    """The Fréchet distances to the test images, smallest first."""
    names = {"_real": "training images", "": "samples", "_pca": "PCA"}
    values = {name: metrics[f"test/frechet{part}"] for part, name in names.items()}
    return figures.bars(pd.Series(values).to_frame("distance"), "distance", title="Fréchet distance to the test images")
