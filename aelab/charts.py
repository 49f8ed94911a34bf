"""Charts of tables: lines, dots, swept values; built and captioned as those of `aelab.figures`."""

import numpy as np
import pandas as pd

from aelab import grid
from aelab.console import short
from aelab.figures import BLUE, INK, MUTED, ORANGE, PLAIN, bars, chart, number, tidy

COLOURS = (BLUE, ORANGE, "#009e73", "#cc79a7", "#56b4e9", "#e69f00", MUTED, INK)

MANY = 5
"""So many numbers at which a metric was measured are drawn as a line."""


def lines(table: pd.DataFrame, /, *, title: str, ylabel: str, scale: str = "linear", xscale: str = ""):
    """A line for each column of a table over its index, a number; the caption says the last values.

    `scale` is Matplotlib's, of both axes, or of y alone where x has an `xscale`.
    """
    figure = chart(5.8, 3.4)
    ax = figure.add_subplot()
    for i, name in enumerate(table):
        ax.plot(table.index, table[name], "o-", ms=4, lw=1.4, color=COLOURS[i % len(COLOURS)], label=str(name))
    ax.set_yscale(scale)
    if (xscale or scale) == "linear":
        ax.set_xticks(list(table.index))
    else:
        ax.set_xscale(xscale or scale)
    ax.legend(fontsize=8, frameon=False, labelcolor=INK, loc="center left", bbox_to_anchor=(1, 0.5))
    tidy(ax, title, xlabel=str(table.index.name), ylabel=ylabel)
    told = ", ".join(f"{name} {number(table[name].iloc[-1])}" for name in table)
    figure.set_label(f"{title}; at {table.index.name} {number(table.index[-1])}: {told}.")
    return figure


def dots(x: np.ndarray, y: np.ndarray, /, *, title: str, xlabel: str, ylabel: str, logarithmic: bool):
    """A dot for each pair of x (n,) and y (n,)."""
    figure = chart(5.8, 3.8)
    ax = figure.add_subplot()
    ax.scatter(x, y, s=14, color=BLUE, alpha=0.5, lw=0)
    if logarithmic:
        ax.set_xscale("symlog")
        ax.set_yscale("symlog")
    tidy(ax, title, xlabel=xlabel, ylabel=ylabel)
    figure.set_label(f"{title}: {len(x):,} dots.")
    return figure


def heat(table: pd.DataFrame, /, *, title: str):
    """A heat map of a table, each value written into its field; of paths the last part is shown."""
    values, names = table.to_numpy(float), [[short(v) for v in axis] for axis in table.axes]
    figure = chart(2.4 + 1.1 * values.shape[1], 1.2 + 0.28 * values.shape[0])
    ax = figure.add_subplot()
    ax.imshow(values, cmap="Blues", aspect="auto")
    middle = (np.nanmin(values) + np.nanmax(values)) / 2
    for (row, column), value in np.ndenumerate(values):
        colour = "white" if value > middle else INK
        ax.text(column, row, number(value), ha="center", va="center", fontsize=8, color=colour)
    for axis, labels in zip("yx", names, strict=True):
        getattr(ax, f"set_{axis}ticks")(range(len(labels)), labels, **PLAIN)
    tidy(ax, title, xlabel=str(table.columns.name), ylabel=str(table.index.name))
    best = np.unravel_index(np.nanargmax(values), values.shape)
    told = ", ".join(axis[i] for axis, i in zip(names, best, strict=True))
    figure.set_label(f"{title}: highest {number(values[best])}, {told}; lowest {number(np.nanmin(values))}.")
    return figure


def swept(table: pd.DataFrame, names: list[str], metric: str, /):
    """A metric over the swept values, given as text: lines over a number; a heat map of two that are none; else bars.

    Jobs that differ in nothing else but what is a repeat are averaged. The number is the first swept value that is one.
    """
    names = [name for name in names if name not in grid.REPEATS] or names
    means = table.groupby(names, sort=False)[metric].mean().reset_index()
    numeric = {name: pd.to_numeric(means[name], errors="coerce") for name in names}
    over = [name for name in names if numeric[name].notna().all() and means[name].nunique() > 2]
    if not over and len(names) == 2:
        return heat(means.pivot_table(index=names[1], columns=names[0], values=metric, sort=False), title=metric)
    if not over:
        labelled = means.set_index(means[names].agg(", ".join, axis=1))
        return bars(labelled, metric, title=f"{metric} by {', '.join(names)}")
    rest = [name for name in names if name != over[0]]
    series = means[rest].agg(", ".join, axis=1) if rest else metric
    wide = means.assign(x=numeric[over[0]], series=series).pivot_table(index="x", columns="series", values=metric)
    return lines(wide.rename_axis(over[0]), title=f"{metric} by {', '.join(names)}", ylabel=metric)


def families(table: pd.DataFrame, metrics: list[str]) -> dict[str, pd.DataFrame]:
    """Metrics measured at many numbers, `name@1`, `name@2`...: name -> a row for each number, a column a job."""
    parts = [(*metric.partition("@")[::2], metric) for metric in metrics if "@" in metric]
    found = {}
    for name in dict.fromkeys(name for name, _, _ in parts):
        columns = {float(at): metric for base, at, metric in parts if base == name}
        if len(columns) >= MANY and len(table) <= len(COLOURS):
            found[name] = table[list(columns.values())].T.set_axis(list(columns))
    return found
