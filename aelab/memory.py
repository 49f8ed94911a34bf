"""What a recurrent model keeps: its gates over a text, and how far back its gradient reaches."""

import keras
import numpy as np
import pandas as pd
from keras import ops

from aelab import backend, charts, figures
from aelab.inference.lstm import LanguageModel

UNITS = 16
"""Units that are drawn."""
SPECIAL = {"\n": "\u21b5", " ": "\u00b7"}
"""How tokens that cannot be seen are drawn."""


def trace(model: LanguageModel, ids: np.ndarray, layer: int) -> dict[str, np.ndarray]:
    """f, i, C~, o, C and h of a layer at each step over ids (t,), each (t, n)."""
    state, found = model.start(1), {name: [] for name in ("f", "i", "C~", "o", "C", "h")}
    for token in ids:
        x = model.embedding[[token]]
        for below in range(layer):
            x = model.cells[below].step(x, *state[below])[0]
        gates = model.cells[layer].gates(x, *state[layer])
        state = model.step(np.array([token]), state)[1]
        for name, values in zip(found, (*gates, state[layer][1], state[layer][0]), strict=True):
            found[name].append(values[0])
    return {name: np.array(values) for name, values in found.items()}


def slow(traced: dict[str, np.ndarray]) -> np.ndarray:
    """Numbers of the units that are drawn, from those whose forget gate stays open to those that forget."""
    order = np.argsort(-traced["f"].mean(axis=0), kind="stable")
    return order[np.linspace(0, len(order) - 1, min(UNITS, len(order))).astype(int)]


def gates_figure(traced: dict[str, np.ndarray], texts: list[str], layer: int):
    """A heat map for f, i, o and C: a row for each unit, a column for each token."""
    rows, told = slow(traced), {"f": "f, forget", "i": "i, input", "o": "o, output", "C": "C, cell"}
    figure = figures.chart(max(6.0, 1.4 + 0.125 * len(texts)), 1.2 + 4 * 0.135 * len(rows) + 1.2)
    axes = figure.subplots(len(told), 1, sharex=True)
    for ax, (name, title) in zip(axes, told.items(), strict=True):
        values = traced[name][:, rows].T
        bound = float(np.abs(values).max()) or 1.0
        look = (
            {"cmap": "RdBu_r", "vmin": -bound, "vmax": bound}
            if name == "C"
            else {"cmap": "Blues", "vmin": 0, "vmax": 1}
        )
        shown = ax.imshow(values, aspect="auto", interpolation="nearest", **look)
        ax.set_yticks(range(len(rows)), rows, fontsize=5)
        figures.tidy(ax, title, ylabel="unit")
        ax.tick_params(axis="y", labelsize=5)
        figure.colorbar(shown, ax=ax, pad=0.01)
    marks = [SPECIAL.get(text, text) for text in texts]
    wide = max(map(len, marks)) > 1
    axes[-1].set_xticks(range(len(marks)), marks, rotation=90 if wide else 0, family="monospace", **figures.PLAIN)
    axes[-1].tick_params(axis="x", length=0, labelsize=7)
    figure.set_label(
        f"Gates and cell of {len(rows)} units of layer {layer + 1} over a text; the upper ones keep what they have "
        f"(forget gate {traced['f'].mean(axis=0).max():.2f} on average), the lower ones forget "
        f"({traced['f'].mean(axis=0).min():.2f})."
    )
    return figure


def gates_table(traced: dict[str, np.ndarray], texts: list[str]) -> pd.DataFrame:
    """Mean gates of the drawn units, after how many tokens half of the cell is forgotten, and when each is fullest."""
    rows = slow(traced)
    means = {name: traced[name][:, rows].mean(axis=0) for name in ("f", "i", "o")}
    half = np.log(0.5) / np.log(np.clip(means["f"], 1e-6, 1 - 1e-6))
    fullest = [repr(texts[at]) for at in np.abs(traced["C"][:, rows]).argmax(axis=0)]
    table = pd.DataFrame({**means, "tokens to forget half": half, "fullest at": fullest}, index=rows)
    return table.rename_axis("unit")


def reach(model: keras.Model, inputs: np.ndarray, targets: np.ndarray, distances: list[int]) -> np.ndarray:
    """How the gradient fades with distance: for each of `distances`, relative to distance 0.

    The norm of d log p(target) / d e, with e the embedding so many tokens before the last input, in the mean over
    windows: inputs (k, t), targets (k,), the tokens after them.
    """
    embed = next(x for x in model.layers if isinstance(x, keras.layers.Embedding))
    above = keras.Model(embed.output, model.output)

    def surprise(x):
        logits = ops.cast(above(x, training=False)[:, -1], "float32")
        return ops.sum(ops.sparse_categorical_crossentropy(targets, logits, from_logits=True))

    gradient = backend.gradient(surprise, embed(inputs))
    norms = np.linalg.norm(gradient.astype(np.float64), axis=-1).mean(axis=0)[::-1]
    return norms[list(distances)] / norms[0]


def reach_figure(found: pd.DataFrame):
    """Lines over the distance, both axes logarithmic."""
    return charts.lines(
        found, title="How the gradient fades with distance", ylabel="gradient, relative to the last token", scale="log"
    )
