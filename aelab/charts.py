"""Charts of tables: lines, dots, swept values; built and captioned as those of `aelab.figures`."""

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.patches import Rectangle

from aelab import grid
from aelab.console import short
from aelab.figures import BLUE, INK, MUTED, ORANGE, PLAIN, bars, chart, number, tidy

COLOURS = (BLUE, ORANGE, "#009e73", "#cc79a7", "#56b4e9", "#e69f00", MUTED, INK)

PAPER = {"facecolor": "white", "edgecolor": "none", "pad": 1}
"""What a text that stands on lines is written on."""
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


def heat(table: pd.DataFrame, /, *, title: str, goal: str | None = None):
    """A heat map of a table, each value written into its field, the best framed; of paths the last part is shown."""
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
    best = np.unravel_index(np.nanargmin(values) if goal == "min" else np.nanargmax(values), values.shape)
    if goal:
        ax.add_patch(Rectangle((best[1] - 0.5, best[0] - 0.5), 1, 1, fill=False, ec=ORANGE, lw=2.5))
    told = ", ".join(axis[i] for axis, i in zip(names, best, strict=True))
    ends = ("lowest", np.nanmax(values), "highest") if goal == "min" else ("highest", np.nanmin(values), "lowest")
    figure.set_label(f"{title}: {ends[0]} {number(values[best])}, {told}; {ends[2]} {number(ends[1])}.")
    return figure


def swept(table: pd.DataFrame, names: list[str], metric: str, goal: str | None = None, /):
    """A metric over the swept values, given as text; the best, where `goal` is "min" or "max", is marked.

    One number of more than two values is a line, with a line for each value of a second that is none; two are a heat
    map; three and more are parallel coordinates; all else is bars. Jobs that differ in nothing else but what is a
    repeat are averaged; their sample standard deviation is a band about a line. PCA's own values, where the table has
    them as `metric`_pca, are a dashed line.
    """
    names = [name for name in names if name not in grid.REPEATS] or names
    found = table.groupby(names, sort=False)[metric].agg(["mean", "std"]).reset_index()
    means = found.rename(columns={"mean": metric})
    numeric = {name: pd.to_numeric(means[name], errors="coerce") for name in names}
    over = [name for name in names if numeric[name].notna().all() and means[name].nunique() > 2]
    if len(names) > 2 and len(means) > 2:
        return parallel(means, names, metric, goal)
    if len(names) == 2 and len(over) != 1:
        ordered = means.sort_values(names[::-1], key=lambda x: numeric[x.name]) if len(over) == 2 else means
        wide = ordered.pivot_table(index=names[1], columns=names[0], values=metric, sort=False)
        return heat(wide, title=metric, goal=goal)
    if not over:
        labelled = means.set_index(means[names].agg(", ".join, axis=1))
        return bars(labelled, metric, title=f"{metric} by {', '.join(names)}")
    rest = [name for name in names if name != over[0]]
    series = means[rest].agg(", ".join, axis=1) if rest else metric
    long = means.assign(x=numeric[over[0]], series=series)
    wide, band = (long.pivot_table(index="x", columns="series", values=v, dropna=False) for v in (metric, "std"))
    figure = lines(wide.rename_axis(over[0]), title=f"{metric} by {', '.join(names)}", ylabel=metric)
    ax, x = figure.axes[0], wide.index.to_numpy(float)
    if x[0] > 0 and (x[1:] / x[:-1]).min() >= 1.5:  # 2, 4, 8...: else the first ones stand on top of one another
        ax.set_xscale("log")
        ax.set_xticks(x, [f"{v:g}" for v in x])
        ax.minorticks_off()
    for i, name in enumerate(wide):
        if band[name].notna().any():
            low, high = wide[name] - band[name], wide[name] + band[name]
            ax.fill_between(wide.index, low, high, color=COLOURS[i % len(COLOURS)], alpha=0.18, lw=0)
    if (pca := f"{metric}_pca") in table:
        base = table.groupby(pd.to_numeric(table[over[0]]))[pca].mean()
        ax.plot(base.index, base, "--", lw=1.4, color=MUTED, label="PCA")
        ax.legend(fontsize=8, frameon=False, labelcolor=INK, loc="center left", bbox_to_anchor=(1, 0.5))
    if goal:
        best = long.loc[long[metric].idxmax() if goal == "max" else long[metric].idxmin()]
        ax.plot(best["x"], best[metric], "*", ms=13, color=INK, mfc="none", label="_best")
        figure.set_label(f"{figure.get_label()[:-1]}; best {number(best[metric])} at {number(best['x'])}.")
    return figure


def parallel(table: pd.DataFrame, names: list[str], metric: str, goal: str | None):
    """Parallel coordinates: an axis for each swept value and for the metric; a line for each job, the best thick."""
    axes, places = [*names, metric], np.empty((len(table), len(names) + 1))
    figure = chart(1.6 * len(axes) + 0.8, 3.6)
    ax = figure.add_subplot()
    for i, name in enumerate(names):
        values = pd.to_numeric(table[name], errors="coerce")
        order = table[name][values.argsort() if values.notna().all() else slice(None)].unique()
        place = {value: k / max(len(order) - 1, 1) for k, value in enumerate(order)}
        places[:, i] = table[name].map(place)
        for value, y in place.items():
            ax.text(i, y, short(value), ha="center", va="center", fontsize=7, color=INK, bbox=PAPER, zorder=5)
    v = table[metric].astype(float)
    places[:, -1] = (v - v.min()) / ((v.max() - v.min()) or 1)
    best = {"max": v.argmax, "min": v.argmin}[goal]() if goal else None
    for k, line in enumerate(places):
        look = {"color": ORANGE, "lw": 2.6, "zorder": 4} if k == best else {"color": colormaps["viridis"](line[-1])}
        ax.plot(range(len(axes)), line, **{"lw": 1.0, "alpha": 0.8} | look)
    for value, y in ((v.min(), 0), (v.max(), 1)):
        ax.text(len(axes) - 0.96, y, number(value), va="center", fontsize=7, color=INK)
    tidy(ax, f"{metric} by {', '.join(names)}")
    ax.set_xticks(range(len(axes)), axes, fontsize=8)
    ax.set_yticks([])
    ax.set_xlim(-0.4, len(axes) - 0.4)
    ax.spines["left"].set_visible(False)
    for x in range(len(axes)):
        ax.axvline(x, color=MUTED, lw=0.6, zorder=0)
    told = "" if best is None else f"; best: {', '.join(short(x) for x in table[names].iloc[best])}"
    figure.set_label(f"{metric} of {len(table)} jobs, from {number(v.min())} to {number(v.max())}{told}.")
    return figure


def families(table: pd.DataFrame, metrics: list[str]) -> dict[str, pd.DataFrame]:
    """Metrics measured at many numbers, `name@1`, `name@2`...: name -> a row for each number, a column a job."""
    parts = [(*metric.partition("@")[::2], metric) for metric in metrics if "@" in metric]
    found = {}
    for name in dict.fromkeys(name for name, _, _ in parts):
        columns = {float(at): metric for base, at, metric in parts if base == name}
        if len(columns) >= MANY and len(table) <= len(COLOURS):
            found[name] = table[list(columns.values())].T.set_axis(list(columns))
    return found
