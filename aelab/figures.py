"""Figures: plain `matplotlib.figure.Figure` objects, never pyplot, so no global state and nothing to close.

Each has a sentence about what it shows as its label, which becomes its caption and alt text on the report's page;
a task that draws its own figure does the same with `figure.set_label(...)`.
"""

import math
from collections.abc import Sequence
from numbers import Integral, Real

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

DPI = 144
COLUMNS, PANELS, BARS = 10, 6, 40  # the most that one figure shows
INK, MUTED = "#1c2330", "#5b6575"
BLUE, ORANGE = "#0072b2", "#d55e00"  # everyone can tell them apart (Okabe and Ito)
COLOURS = {"train": BLUE, "val": ORANGE}
PLAIN = {"parse_math": False}  # a "$" in a user's name is a "$"


def number(value: object) -> str:
    """`value` as people read it: 4 significant digits, a dash for None and NaN; text stays as it is."""
    if value is None or value is pd.NA or value is pd.NaT or value != value:
        return "–"
    if isinstance(value, bool) or not isinstance(value, Real):
        return str(value)
    if isinstance(value, Integral):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if value and not 1e-4 <= abs(value) < 1e7:
        return f"{value:.3e}"
    return f"{value:,.0f}" if abs(value) >= 999.95 else f"{value:#.4g}" if value else "0"


def image_grid(
    rows: dict[str, np.ndarray],
    /,
    *,
    titles: Sequence[str] = (),
    captions: dict[str, Sequence[str]] | None = None,
) -> Figure:
    """Pictures side by side: one labelled row per entry, one column per example (the first 10).

    Args:
        rows: name -> (n, h, w, c) in [0, 1], c = 1 or 3; n is the same for all, h and w may differ. The entry
            named "error" is an absolute error: its mean over c gets a colour map and a colour bar of its own.
        titles: one text above each column.
        captions: row name -> one text below each picture, such as "18.2 dB".

    Raises:
        ValueError: arrays of another shape, or of different n.
    """
    shapes = {name: np.shape(x) for name, x in rows.items()}
    if len({s[:1] for s in shapes.values()}) != 1 or any(s[3:] not in ((1,), (3,)) for s in shapes.values()):
        raise ValueError(f"expected arrays (n, h, w, 1 or 3) with one n, got {shapes or 'none'}")
    n, h, w, _ = next(iter(shapes.values()))
    n, captions = min(n, COLUMNS), captions or {}
    # In dots, and each pixel a whole number of them: else nearest-neighbour pixels come out in uneven widths.
    wide = w * max(1, round(0.95 * DPI / w)) if w <= 1.5 * DPI else round(1.2 * DPI)
    high, gap, top = round(wide * h / w), 8, 34 if titles else 12
    left = round(DPI * (0.2 + 0.085 * max(map(len, rows))))
    width = left + n * (wide + gap) + (84 if "error" in rows else 0)
    height = 4 + top + sum(high + gap + 26 * (name in captions) for name in rows)
    figure = Figure(figsize=(width / DPI, height / DPI))
    ax = figure.add_axes((0, 0, 1, 1))
    text = {"ha": "center", "va": "center", "fontsize": 8, "color": MUTED, **PLAIN}
    at = [left + i * (wide + gap) for i in range(n)]
    for x, title in zip(at, titles, strict=False):
        ax.text(x + wide / 2, top / 2, title[: wide // 8], **text | {"color": INK})  # what has room
    y = top
    for name, array in rows.items():
        pictures, look = _drawable(name, array[:n])
        # Nearest would drop pixels where a picture is larger than its place.
        how = "nearest" if pictures.shape[2] <= wide else "antialiased"
        ax.text(left - 2 * gap, y + high / 2, name, **text | {"ha": "right", "fontsize": 9.5, "color": INK})
        for x, picture in zip(at, pictures, strict=True):
            place = (x, x + wide, y + high, y)
            shown = ax.imshow(picture, extent=place, aspect="auto", interpolation=how, **look)
        if name == "error" and n:
            place = (1 - 76 / width, 1 - (y + high) / height, 12 / width, high / height)
            bar = figure.colorbar(shown, cax=figure.add_axes(place))
            bar.set_ticks([0, look["vmax"]], labels=["0", f"{look['vmax']:.2g}"], fontsize=8, color=MUTED)
            bar.outline.set_visible(False)
        y += high + gap
        for x, caption in zip(at, captions.get(name, ()), strict=False):
            ax.text(x + wide / 2, y + 6, caption, **text)
        y += 26 * (name in captions)
    ax.set(xlim=(0, width), ylim=(height, 0))
    ax.set_axis_off()
    figure.set_label(f"{', '.join(rows)}; one example a column.")
    return figure


def _drawable(name: str, array: np.ndarray) -> tuple[np.ndarray, dict]:
    """A row of `image_grid` as `imshow` takes it, and its colours; NaN is drawn black."""
    x = np.nan_to_num(np.asarray(array, "float32"))
    if name != "error":
        return x.clip(0, 1), {"cmap": "gray", "vmin": 0, "vmax": 1}
    x = x.mean(-1, keepdims=True)
    return x, {"cmap": "magma", "vmin": 0, "vmax": float(x.max(initial=0)) or 1.0}


def chart(wide: float, high: float) -> Figure:
    """An empty figure of that size in inches."""
    figure = Figure(figsize=(wide, high), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.1)
    return figure


def tidy(ax: Axes, title: str, **labels: str) -> None:
    """Title, labels of the axes, and no more lines than needed."""
    ax.set_title(title, fontsize=10, loc="left", color=INK, **PLAIN)
    for name, text in labels.items():
        getattr(ax, f"set_{name}")(text, fontsize=9, color=MUTED, **PLAIN)
    ax.tick_params(which="both", labelsize=8, colors=MUTED)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color("#b8c0cc")


def curves(history: pd.DataFrame, /) -> Figure:
    """Learning curves: a panel for each of the first 6 names, "loss" first; the best epoch is marked.

    Args:
        history: a row per epoch; columns epoch, train/<name> and val/<name>; all others are ignored. The best
            epoch is what its `attrs` say (see `aelab.fit.fit`), else that with the lowest val/loss, if any.
    """
    kept, monitor = history.attrs.get("best"), history.attrs.get("monitor", "val/loss")
    history = history.reset_index(drop=True)  # a resumed run's parts may repeat theirs
    split = (column.partition("/") for column in history.columns)
    names = dict.fromkeys(name for part, _, name in split if part in COLOURS)
    names = sorted(names, key=lambda name: name != "loss")[:PANELS] if len(history) else []
    losses = history.get("val/loss", pd.Series(dtype=float)).dropna()
    row = history.index[history["epoch"] == kept][-1] if kept else losses.idxmin() if len(losses) else None
    best = None if row is None else history.loc[row]
    across = min(len(names), 3) or 1
    down = math.ceil(len(names) / across) or 1
    figure = chart(0.4 + 3 * across, 0.2 + 2.4 * down)
    figure.subplots(down, across, squeeze=False)
    for ax, name in zip(figure.axes, names, strict=False):
        _curve(ax, name, history, best)
    for ax in figure.axes[len(names) :]:
        ax.set_axis_off()
    if names:
        figure.axes[0].legend(fontsize=8, frameon=False, labelcolor=MUTED)
    else:
        figure.text(0.5, 0.5, "no epochs", ha="center", color=MUTED)
    told = "" if best is None else f"; best {monitor} {number(best[monitor])} at epoch {best['epoch']:.0f}"
    figure.set_label(f"{', '.join(names) or 'nothing'}; epochs: {len(history)}{told}.")
    return figure


def _curve(ax: Axes, name: str, history: pd.DataFrame, best: pd.Series | None) -> None:
    """One panel of `curves`: training and validation of one name; `best` is the best epoch's row."""
    title, drawn = name, history.filter([f"train/{name}", f"val/{name}"]).astype(float)
    for column, values in drawn.items():
        part = column.partition("/")[0]
        marker = "o" if len(history) < 20 else ""
        ax.plot(history["epoch"], values, COLOURS[part], marker=marker, ms=3.5, lw=1.6, label=part)
    if best is not None:
        ax.axvline(best["epoch"], color=MUTED, lw=0.8, ls=":", zorder=0)
        if (column := f"val/{name}") in drawn:
            ax.plot(best["epoch"], best[column], "*", color=ORANGE, ms=12, mec="white", label="best epoch")
            title += f" · val {number(best[column])} at epoch {best['epoch']:.0f}"
    values = drawn.to_numpy()
    values = values[np.isfinite(values)]
    if len(values) and 0 < 50 * values.min() < values.max():
        ax.set_yscale("log")  # or one bad first epoch flattens all the others
    ax.xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1))
    ax.margins(x=0.05, y=0.1)
    tidy(ax, title, xlabel="epoch")


def histogram(values: np.ndarray, /, *, label: str, title: str) -> Figure:
    """How `values` (n,) are spread, with mean and median; the share below zero is told when there is one.

    Values that are not finite (as the PSNR of a perfect copy) are left out and counted in the caption.
    """
    values = np.asarray(values, float).ravel()
    v = values[np.isfinite(values)]
    figure = chart(5.4, 3.2)
    ax = figure.add_subplot()
    told = [f"{len(v):,} values"]
    if len(v):
        # Zero is always an edge, so that no bar stands on both sides of it.
        step = float(np.ptp(v)) / min(max(math.isqrt(len(v)), 8), 40) or abs(float(v[0])) / 8 or 1.0
        edges = step * np.arange(math.floor(v.min() / step), math.floor(v.max() / step) + 2)
        for bar in ax.hist(v, edges, alpha=0.75, edgecolor="white", lw=0.5)[2]:
            bar.set_facecolor(ORANGE if bar.get_x() + bar.get_width() / 2 < 0 else BLUE)
        for name, x, dash in (("mean", v.mean(), "-"), ("median", np.median(v), "--")):
            told += [f"{name} {number(x)}"]
            ax.axvline(x, color=INK, lw=1.4, ls=dash, label=told[-1])
        if (v < 0).any():
            told += [f"{(v < 0).mean():.2%} below zero"]
            ax.plot([], "s", color=ORANGE, alpha=0.75, label=told[-1])
        ax.legend(fontsize=8, labelcolor=INK, edgecolor="none", framealpha=0.85)
    tidy(ax, title, xlabel=label, ylabel="count")
    if len(v) < len(values):
        told += [f"{len(values) - len(v):,} not finite and left out"]
    figure.set_label(f"{title}: {', '.join(told)}.")
    return figure


def bars(table: pd.DataFrame, column: str, /, *, title: str, reference: float | None = None) -> Figure:
    """Horizontal bars of `table[column]`, one per row (such as a class) in the table's order; the first 40.

    `reference` is a value to compare with, drawn as a line: such as the mean over all images.
    """
    v = table[column].iloc[:BARS].astype(float)
    figure = chart(5.4, 1 + 0.24 * max(len(v), 4))
    ax = figure.add_subplot()
    ax.barh(range(len(v)), v.fillna(0), 0.72, color=[ORANGE if x < 0 else BLUE for x in v], alpha=0.8)
    for i, x in enumerate(v):  # in a column of their own, where no line crosses them
        ax.text(1.02, i, number(x), transform=ax.get_yaxis_transform(), va="center", fontsize=8, color=INK)
    ax.set_yticks(range(len(v)), [str(name) for name in v.index], **PLAIN)
    ax.set_ylim(len(v) - 0.4, -0.6)
    told = ""
    if reference is not None:
        ax.axvline(reference, color=INK, lw=1.2, ls="--")
        told = f"; dashed: {number(reference)}"
    tidy(ax, title, xlabel=column + told)
    ax.tick_params(axis="y", length=0, labelcolor=INK)
    figure.set_label(f"{title}: {column}, lowest {number(v.min())}, highest {number(v.max())}{told}.")
    return figure


def detection(labels: np.ndarray, scores: np.ndarray, threshold: float, /) -> Figure:
    """ROC and precision-recall curves of scores (n,) against labels (n,), with the threshold's point on both."""
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.diff(scores[order]) != 0, True)  # equal scores are called together
    found, called = np.cumsum(labels[order])[last], np.arange(1, len(scores) + 1)[last]
    positives, negatives = max(int(labels.sum()), 1), max(int((~labels).sum()), 1)
    recall, false, precision = found / positives, (called - found) / negatives, found / called
    flagged = scores >= threshold
    hits = (flagged & labels).sum()
    figure = chart(8.2, 3.8)
    roc, pr = figure.subplots(1, 2)
    roc.plot(np.append(0, false), np.append(0, recall), BLUE, lw=1.6)
    roc.plot([0, 1], [0, 1], color=MUTED, lw=0.8, ls=":", label="chance")
    pr.plot(recall, precision, BLUE, lw=1.6)
    pr.axhline(positives / len(scores), color=MUTED, lw=0.8, ls=":", label="chance")
    point = {"color": ORANGE, "ms": 8, "mec": "white", "label": "threshold"}
    roc.plot((flagged & ~labels).sum() / negatives, hits / positives, "o", **point)
    if flagged.any():
        pr.plot(hits / positives, hits / flagged.sum(), "o", **point)
    for ax in (roc, pr):
        ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        ax.legend(fontsize=8, frameon=False, labelcolor=MUTED, loc="lower right" if ax is roc else "lower left")
    tidy(roc, "ROC", xlabel="false-positive rate", ylabel="recall")
    tidy(pr, "Precision and recall", xlabel="recall", ylabel="precision")
    figure.set_label(f"{positives:,} anomalies among {len(scores):,} rows; dots: the threshold {number(threshold)}.")
    return figure


def scores_by_class(labels: np.ndarray, scores: np.ndarray, threshold: float, /) -> Figure:
    """How scores (n,) are spread among normal rows and anomalies, as shares of each, with the threshold.

    The scale is logarithmic where all scores are above zero and span more than a factor of 50.
    """
    low, high = float(scores.min()), float(scores.max())
    wide = 0 < 50 * low < high
    edges = np.geomspace(low, high, 50) if wide else np.linspace(low, high if high > low else low + 1, 50)
    figure = chart(5.4, 3.2)
    ax = figure.add_subplot()
    for name, part, colour in (("normal", scores[~labels], BLUE), ("anomalies", scores[labels], ORANGE)):
        weights = np.full(len(part), 1 / max(len(part), 1))
        ax.hist(part, edges, weights=weights, alpha=0.65, color=colour, label=f"{name} ({len(part):,})")
    ax.axvline(threshold, color=INK, lw=1.4, ls="--", label=f"threshold {number(threshold)}")
    if wide:
        ax.set_xscale("log")
    ax.legend(fontsize=8, labelcolor=INK, edgecolor="none", framealpha=0.85)
    tidy(ax, "Scores by class", xlabel="score", ylabel="share of the class")
    flagged = scores >= threshold
    figure.set_label(
        f"Flagged: {flagged[labels].mean():.1%} of anomalies, {flagged[~labels].mean():.2%} of normal rows."
    )
    return figure


def pairs(table: pd.DataFrame, /, *, title: str) -> Figure:
    """Horizontal bars for the two columns of a table side by side, one pair a row; the first 20 rows."""
    shown = table.iloc[:20]
    figure = chart(5.8, 1 + 0.3 * max(len(shown), 4))
    ax = figure.add_subplot()
    for i, (name, colour) in enumerate(zip(shown, (BLUE, ORANGE), strict=True)):
        ax.barh(np.arange(len(shown)) + 0.4 * i - 0.2, shown[name], 0.38, color=colour, alpha=0.8, label=name)
    ax.set_yticks(range(len(shown)), [str(name) for name in shown.index], **PLAIN)
    ax.set_ylim(len(shown) - 0.4, -0.6)
    ax.legend(fontsize=8, frameon=False, labelcolor=MUTED, ncols=2, loc="lower right", bbox_to_anchor=(1, 1))
    tidy(ax, title, xlabel="mean")
    ax.tick_params(axis="y", length=0, labelcolor=INK)
    figure.set_label(f"{title}: {', '.join(map(str, shown.index[:3]))} first; {len(shown)} of {len(table)} rows.")
    return figure
