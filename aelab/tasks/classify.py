"""Classification: from an image to its class."""

import numpy as np
import pandas as pd
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from aelab import corruptions, figures
from aelab.config import ConfigError, Count
from aelab.data.record import Split
from aelab.evaluate import Result, measure
from aelab.fit import Batches, partials
from aelab.inference.lstm import softmax
from aelab.tasks.task import Task

MACRO = ("precision", "recall", "f1")
PARTS = {"train": "train", "val": "validation", "test": "test"}
"""What the names of metrics begin with, and the split that they are of."""


class Classify(Task):
    """Say which class an image is of; the corruptions augment training batches, and nothing else."""

    kinds = ("labelled images",)

    def __init__(self, *, examples: Count):
        self.examples = examples

    def prepare(self, data, cfg):
        """The images as they are, which must have labels."""
        if not data.label_names:
            raise ConfigError(
                f"dataset={cfg.choices.dataset}: {data.source} has no labels, which task=classify learns from; give "
                "some (in an .npz: y_train beside x_train, or y beside x), or take task=denoise"
            )
        self.train = data.train
        return data

    def shape(self, data):
        """The shape of an image, and the number of classes."""
        return data.shape, len(data.label_names)

    def held_out(self, validation):
        """The rows that `pairs` takes: images and labels."""
        return Split(validation, None)

    def batches(self, model, x, pairs, cfg):
        """Batches of augmented images with their labels."""
        augment = corruptions.chain(cfg.corruption)

        def drawn(rows, rng):
            images, labels = pairs(self.train.rows(rows), rng)
            return augment(images, rng), labels

        return Batches(np.arange(len(x)), drawn, cfg.fit.batch_size, cfg.seed)

    def pairs(self, corrupt, /):
        """Rows of a split to images (b, h, w, c) and labels (b,)."""
        return lambda split, rng: (split.x, split.y)

    def predict(self, model, inputs, /):
        """Logits float32 (n, k)."""
        return np.asarray(model.predict(inputs, batch_size=self.at_once, verbose=0), np.float32)

    def test(self, model, data, corrupt, cfg):
        """Every split's metrics side by side; what is learnt by heart is better in training."""
        functions, metrics, self.by_class = partials(cfg.metric, "goal"), {}, {}
        for short, part in PARTS.items():
            split = getattr(data, part)
            if not len(split):
                continue
            logits = self.predict(model, split.x)
            values, chances = measure(functions, split.y, logits), softmax(logits)
            examples = {"label": split.y, "predicted": chances.argmax(axis=1), "confidence": chances.max(axis=1)}
            examples = pd.DataFrame(examples | values).assign(correct=lambda x: x["label"] == x["predicted"])
            self.by_class[part] = by_class(examples, data.label_names)
            metrics |= {f"{short}/{name}": float(np.mean(v, dtype=np.float64)) for name, v in values.items()}
            metrics |= {f"{short}/{name}_macro": float(self.by_class[part][name].mean()) for name in MACRO}
        return Result(data.test.x, data.test.y, logits, examples, metrics)

    def confusion(self, result, data) -> pd.DataFrame:
        """Test images by true class, down, and predicted class."""
        names, found = list(data.label_names), result.examples
        counts = confusion_matrix(found["label"], found["predicted"], labels=range(len(names)))
        return pd.DataFrame(counts, pd.Index(names, name="true"), pd.Index(names, name="predicted"))

    def mistakes(self, result, data) -> pd.DataFrame:
        """The mistakes that the model was surest of, the surest first; the index is the row of the test."""
        wrong = result.examples[~result.examples["correct"]]
        top = wrong.nlargest(self.examples, "confidence")[["label", "predicted", "confidence"]]
        names = dict(enumerate(data.label_names))
        return top.replace({"label": names, "predicted": names}).rename_axis("row")

    def figures(self, result, data, /):
        """What is taken for what, the surest mistakes, and the classes in training and test."""
        f1 = pd.DataFrame({part: self.by_class[part]["f1"] for part in ("train", "test")})
        bars = figures.pairs(f1, title="F1 by class, training and test")
        bars.axes[0].set_xlabel("F1")
        drawn = {"confusion": confusion_figure(self.confusion(result, data)), "overfitting": bars}
        if len(top := self.mistakes(result, data)):
            drawn["mistakes"] = figures.image_grid(
                {"image": result.inputs[top.index]},
                titles=list(top["label"]),
                captions={"image": [f"{row.predicted} {row.confidence:.0%}" for row in top.itertuples()]},
            )
        return drawn

    def tables(self, result, data, /):
        """Metrics by split and by class, the confusion matrix, and the surest mistakes."""
        names = [name.removeprefix("test/") for name in result.metrics if name.startswith("test/")]
        columns = {part: [result.metrics.get(f"{short}/{n}", np.nan) for n in names] for short, part in PARTS.items()}
        return {
            "training, validation and test": pd.DataFrame(columns, pd.Index(names, name="metric")),
            "test images by class": self.by_class["test"],
            "test images by true (down) and predicted class": self.confusion(result, data),
            "surest mistakes": self.mistakes(result, data),
        }


def by_class(examples: pd.DataFrame, names) -> pd.DataFrame:
    """Images, precision, recall and F1 of each class that is there or is predicted; their means are the macro ones."""
    y, predicted = examples["label"], examples["predicted"]
    known = np.union1d(y, predicted)
    found = precision_recall_fscore_support(y, predicted, labels=known, zero_division=0)
    table = pd.DataFrame(dict(zip(MACRO, found, strict=False)), pd.Index([names[i] for i in known], name="class"))
    table.insert(0, "images", found[-1])
    return table


def confusion_figure(counts: pd.DataFrame):
    """Counts by true class, down, and predicted class, coloured by their share of the true class."""
    shares = counts.div(counts.sum(axis=1).clip(lower=1), axis=0).to_numpy()
    figure = figures.chart(1.8 + 0.52 * len(counts), 1.6 + 0.36 * len(counts))
    ax = figure.add_subplot()
    ax.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (row, column), share in np.ndenumerate(shares):
        if count := counts.iat[row, column]:
            colour = "white" if share > 0.5 else figures.INK
            ax.text(column, row, count, ha="center", va="center", fontsize=8, color=colour)
    ax.set_yticks(range(len(counts)), counts.index, **figures.PLAIN)
    ax.set_xticks(range(len(counts)), counts.columns, rotation=40, ha="right", rotation_mode="anchor", **figures.PLAIN)
    figures.tidy(ax, "Test images by true and predicted class", xlabel="predicted", ylabel="true")
    np.fill_diagonal(shares, 0)
    worst, other = np.unravel_index(shares.argmax(), shares.shape)
    told = f"{shares.max():.1%} of {counts.index[worst]} for {counts.columns[other]}" if shares.any() else "nothing"
    figure.set_label(f"Colour: share of the true class. Most often mistaken: {told}.")
    return figure
