"""Figures, tables and the page of a run."""

import base64
import re
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from PIL import Image
from rich.console import Console
from sklearn.metrics import precision_recall_curve, roc_curve

from aelab import figures, report

RNG = np.random.default_rng(0)
METRICS = {
    "test/psnr": 20.7,
    "test/psnr_input": 15.2,
    "test/psnr_gain": 5.5,
    "test/mse": 0.00912,
    "test/ssim": float("nan"),
    "test/information_gain": 0.25,
    "time/fit_s": 93.0,
    "val/psnr": 21.0,
}
EVIL = "<script>alert('1')</script>&\"$\\frac{"


def history(epochs):
    e = np.arange(1, epochs + 1)
    names = {"train/loss": 1 / e, "val/loss": 1 / e + 0.1 * (e > 3), "val/psnr": 10 + e, "lr": 0.1 / e}
    return pd.DataFrame({"epoch": e, **names})


def text_of(figure):
    figure.draw_without_rendering()
    return [t.get_text() for t in figure.findobj(lambda a: hasattr(a, "get_text"))]


class Page(HTMLParser):
    """Elements and text; fails on a tag that is not closed in order."""

    def __init__(self, html):
        super().__init__()
        self.open, self.elements, self.text = [], [], []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]


def write(folder, **changes):
    content = {
        "title": "denoise",
        "subtitle": "24 epochs",
        "summary": {"psnr": 20.7},
        "tables": {"Test metrics": report.metric_table(METRICS)},
        "figures": {"curves": figures.curves(history(5))},
        "facts": {"git": "0123abc"},
        "config": "seed: 1",
        "notices": [],
    }
    return report.write(folder, **content | changes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    clean = RNG.random((3, 28, 28, 1))
    folder = tmp_path_factory.mktemp("run")
    table = pd.DataFrame({"psnr": [20.123456, None], EVIL: ["<b>", None]}, index=["a", EVIL])
    drawn = {
        "examples": figures.image_grid({"clean": clean, "error": clean / 3}, titles=[EVIL]),
        "by class/ü": figures.bars(table, "psnr", title=EVIL, reference=19.0),
        "gain": figures.histogram(RNG.normal(1, 1, 99), label=EVIL, title="gain"),
    }
    facts = {"origin": "https://example.org", EVIL: EVIL, "file": "caf\udce9"}
    words = {"title": EVIL, "subtitle": EVIL, "config": EVIL, "notices": [EVIL], "summary": {EVIL: EVIL}}
    write(folder, tables={EVIL: table}, figures=drawn, facts=facts, **words)
    return folder


@pytest.fixture(scope="module")
def page(folder):
    return Page((folder / "report.html").read_text("utf-8"))


def test_every_figure_is_a_sharp_small_png_that_shows_something(folder):
    files = sorted(folder.glob("*.png"))
    assert [f.name for f in files] == ["by_class_ü.png", "examples.png", "gain.png"]
    for file in files:
        pixels = np.asarray(Image.open(file).convert("RGB"))
        assert file.stat().st_size <= report.PNG_LIMIT
        assert pixels.std() > 10
        assert (pixels[:, :2] == 255).all(), "cut off at the left"


def test_the_page_holds_every_figure_and_needs_nothing_else(folder, page):
    sources = [attrs["src"] for attrs in page.all("img")]
    head = "data:image/png;base64,"
    assert all(s.startswith(head) for s in sources)
    held = {base64.b64decode(s.removeprefix(head)) for s in sources}
    assert held == {f.read_bytes() for f in folder.glob("*.png")}
    assert all(len(attrs["alt"]) > 10 for attrs in page.all("img"))
    urls = [v for _, attrs in page.elements for k, v in attrs.items() if k in ("href", "src", "srcset", "action")]
    assert urls == sources
    assert not page.all("link")
    assert not re.search(r"url\(|@import", report.STYLE)


def test_everything_is_escaped(page):
    assert not page.all("script")
    assert len(page.all("b")) == 3  # the names in the three captions
    # Title twice, subtitle, notice, config, card twice, fact twice, a table's caption, column and row.
    assert page.text.count(EVIL) == 12
    assert "<b>" in page.text


def test_notices_stand_before_the_numbers(page):
    tags = [attrs.get("role") or attrs.get("class") for _, attrs in page.elements]
    assert tags.index("alert") < tags.index("cards")


def test_missing_cells_are_dashes_and_numbers_are_short(page):
    assert page.text.count("–") == 2
    assert "20.12" in page.text
    assert not any("nan" in t.lower() or "None" in t for t in page.text)


def test_same_input_gives_the_same_bytes_and_nothing_is_needed(tmp_path):
    one, two = write(tmp_path / "new" / "one"), write(tmp_path / "two")
    assert one.name == "report.html"
    assert one.read_bytes() == two.read_bytes()
    bare = write(tmp_path, summary={}, tables={}, figures={}, facts={}, config="")
    assert [e for e in Page(bare.read_text()).text if e.strip() in ("Results", "Figures", "Tables")] == []


def test_a_heavy_figure_is_saved_smaller(tmp_path):
    figure = figures.image_grid({name: RNG.random((8, 64, 64, 3)) for name in "abcd"})
    write(tmp_path, figures={"noise": figure})
    assert (tmp_path / "noise.png").stat().st_size < 2 * report.PNG_LIMIT
    full = BytesIO()
    figure.savefig(full, dpi=report.DPI)
    assert (tmp_path / "noise.png").stat().st_size < full.tell()


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "–"),
        (float("nan"), "–"),
        (pd.NA, "–"),
        (0.0091234, "0.009123"),
        (np.float32(18.2), "18.20"),
        (1234.56, "1,235"),
        (1.5e-7, "1.500e-07"),
        (float("inf"), "∞"),
        (-0.0, "0"),
        (7, "7"),
        (np.int64(1_234_567), "1,234,567"),
        (True, "True"),
        ("93 s", "93 s"),
    ],
)
def test_number(value, shown):
    assert figures.number(value) == shown


def test_metric_table():
    table = report.metric_table(METRICS)
    assert list(table.index) == ["psnr", "mse", "ssim", "information_gain"]
    order = ["output", "validation", "input", "gain", "low", "high"]
    assert [name for name in table if name in order] == order
    assert table.loc["psnr"].dropna().to_dict() == {"output": 20.7, "validation": 21.0, "input": 15.2, "gain": 5.5}
    assert table.loc["mse"].dropna().to_dict() == {"output": 0.00912}
    assert table.loc["information_gain"].dropna().to_dict() == {"output": 0.25}
    assert report.metric_table({}).empty


def test_metric_table_of_intervals():
    """The ends of an interval stand beside their metric, whatever order they come in."""
    metrics = {"test/auc_low": 0.8, "test/auc": 0.9, "test/auc_high": 0.95, "test/f1": 0.5, "test/too_high": 1.0}
    table = report.metric_table(metrics)
    assert set(table.index) == {"auc", "f1", "too_high"}
    assert table.loc["auc"].dropna().to_dict() == {"output": 0.9, "low": 0.8, "high": 0.95}
    assert table.loc["too_high"].dropna().to_dict() == {"output": 1.0}


def test_terminal_table():
    def shown(metrics):
        console = Console(width=80)
        with console.capture() as capture:
            console.print(report.terminal_table(metrics))
        return capture.get()

    assert re.search(r"psnr +│ +20\.70 +│ +21\.00 +│ +15\.20 +│ +5\.500", shown(METRICS))
    assert re.search(r"ssim +│ +– +│ +– +│ +– +│ +–", shown(METRICS))
    assert "fit" not in shown(METRICS)
    assert "low" not in shown(METRICS)
    plain = shown({"test/recall@[bold]": 0.5})
    assert "recall@[bold]" in plain
    assert "gain" not in plain
    interval = shown({"test/auc": 0.9, "test/auc_low": 0.85, "test/auc_high": 0.95})
    assert re.search(r"low +┃ +high", interval)
    assert re.search(r"auc +│ +0\.9000 +│ +0\.8500 +│ +0\.9500", interval)
    assert "gain" not in interval


@pytest.mark.parametrize("channels", [1, 3])
def test_image_grid_draws_every_picture_in_its_own_colours(channels):
    clean = RNG.random((4, 6, 8, channels))
    rows = {"clean": clean, "small": clean[:, ::2, ::2], "error": clean / 4}
    figure = figures.image_grid(rows, titles=list("wxyz"), captions={"small": ["18.2 dB"] * 4})
    pictures = figure.axes[0].images
    assert len(pictures) == 12
    np.testing.assert_allclose(np.squeeze(pictures[0].get_array()), np.squeeze(clean[0]), rtol=1e-6)
    np.testing.assert_allclose(np.squeeze(pictures[8].get_array()), clean[0].mean(-1) / 4, rtol=1e-6)
    assert pictures[8].get_clim() == pytest.approx((0, (clean.mean(-1) / 4).max()))
    assert pictures[8].get_cmap().name != "gray"
    assert {p.get_interpolation() for p in pictures} == {"nearest"}
    words = text_of(figure)
    assert {"clean", "small", "error", *"wxyz"} <= set(words)
    assert words.count("18.2 dB") == 4


def test_image_grid_draws_whole_pixels():
    picture = np.zeros((1, 28, 28, 1))
    picture[0, ::2, ::2] = 1
    png = BytesIO()
    figures.image_grid({"x": picture}).savefig(png, dpi=report.DPI)
    line = np.asarray(Image.open(png).convert("L"))[14]
    inside = line[np.flatnonzero(line == 0)[0] :]
    runs = np.diff(np.flatnonzero(np.diff(inside.astype(int))))
    assert len(set(runs[:-1])) == 1, runs


def test_image_grid_shows_at_most_ten_and_copes_with_nan():
    figure = figures.image_grid({"broken": np.full((30, 4, 4, 1), np.nan), "error": np.zeros((30, 4, 4, 1))})
    assert len(figure.axes[0].images) == 20
    figure.draw_without_rendering()


@pytest.mark.parametrize(
    "rows",
    [
        {},
        {"x": np.ones((2, 4, 4))},
        {"x": np.ones((2, 4, 4, 2))},
        {"x": np.ones((2, 4, 4, 1)), "y": np.ones((3, 4, 4, 1))},
    ],
)
def test_image_grid_refuses_other_shapes(rows):
    with pytest.raises(ValueError, match="expected arrays"):
        figures.image_grid(rows)


def test_curves_mark_the_epoch_of_the_lowest_validation_loss():
    figure = figures.curves(history(8))  # 1 1/2 1/3 then 1/4 + 0.1 = 0.35, 0.3 at epoch 5, ... lowest at 8
    stars = [line for ax in figure.axes for line in ax.lines if line.get_marker() == "*"]
    assert [(s.get_xdata()[0], s.get_ydata()[0]) for s in stars] == [(8, 0.225), (8, 18)]
    figure = figures.curves(history(4))
    stars = [line for ax in figure.axes for line in ax.lines if line.get_marker() == "*"]
    assert [(s.get_xdata()[0], s.get_ydata()[0]) for s in stars] == [(3, 1 / 3), (3, 13)]
    assert "loss · val 0.3333 at epoch 3" in text_of(figure)
    assert "epoch 3" in figure.get_label()
    assert not any("lr" in t for t in text_of(figure))


def test_curves_mark_the_epoch_whose_weights_were_kept():
    told = history(8)
    told.attrs |= {"best": 2, "monitor": "val/loss"}
    figure = figures.curves(told)
    stars = [line.get_xdata()[0] for ax in figure.axes for line in ax.lines if line.get_marker() == "*"]
    assert stars == [2, 2]
    assert "best val/loss 0.5000 at epoch 2" in figure.get_label()


def test_curves_of_one_epoch_are_points():
    figure = figures.curves(history(1))
    lines = [line for line in figure.axes[0].lines if line.get_label() in ("train", "val")]
    assert len(lines) == 2
    assert all(line.get_marker() == "o" for line in lines)


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
def test_curves_without_epochs_or_with_broken_losses(value):
    assert "no epochs" in text_of(figures.curves(history(0)))
    broken = history(3).assign(**{"val/loss": value, "train/loss": value})
    figures.curves(broken).draw_without_rendering()


def test_curves_draw_at_most_six_panels_and_loss_first():
    columns = {f"val/m{i}": [1.0, 2.0] for i in range(9)}
    figure = figures.curves(pd.DataFrame({"epoch": [1, 2], **columns, "train/loss": [2.0, 1.0]}))
    assert len(figure.axes) == 6
    assert figure.axes[0].get_title(loc="left") == "loss"


def test_histogram_tells_mean_median_and_the_share_below_zero():
    figure = figures.histogram([-1.0, 1.0, 2.0, 6.0, np.inf], label="gain (dB)", title="Gain")
    words = text_of(figure)
    assert {"mean 2.000", "median 1.500", "25.00% below zero"} <= set(words)
    assert "1 not finite" in figure.get_label()
    for bar in figure.axes[0].patches:
        low, high = bar.get_x(), bar.get_x() + bar.get_width()
        assert low >= 0 or high <= 1e-12
        assert to_hex(bar.get_facecolor()) == (figures.ORANGE if low < 0 else figures.BLUE)
    assert not any("below" in t for t in text_of(figures.histogram([1.0, 1.0], label="gain", title="Gain")))


@pytest.mark.parametrize("values", [[], [np.nan], [0.0], [3.0, 3.0]])
def test_histogram_of_hardly_anything(values):
    figures.histogram(values, label="gain", title="Gain").draw_without_rendering()


def test_bars_keep_the_order_and_show_a_dash():
    table = pd.DataFrame({"psnr": [20.0, np.nan, -1.0]}, index=["b", "c", "a"])
    figure = figures.bars(table, "psnr", title="PSNR by class", reference=12.5)
    words = text_of(figure)
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["b", "c", "a"]
    assert [bar.get_width() for bar in figure.axes[0].patches] == [20, 0, -1]
    assert {"20.00", "–", "-1.000", "psnr; dashed: 12.50"} <= set(words)


# ---- figures of anomaly scores

STRANGE = np.array([0, 1, 0, 1, 0, 0], bool)
SCORES = np.array([1.0, 4.0, 2.0, 3.0, 3.0, 0.5])


def line(ax, colour=figures.BLUE):
    """The points of a curve."""
    return next(np.column_stack(v.get_data()) for v in ax.lines if to_hex(v.get_color()) == colour.lower())


def point(ax):
    return next(tuple(v.get_data()[i][0] for i in (0, 1)) for v in ax.lines if v.get_marker() == "o")


def test_detection_by_hand():
    """Down from 4: one anomaly; at 3 the other and a normal row with it; then normal rows alone."""
    figure = figures.detection(STRANGE, SCORES, 3.5)
    roc, pr = figure.axes
    np.testing.assert_allclose(line(roc), [[0, 0], [0, 0.5], [0.25, 1], [0.5, 1], [0.75, 1], [1, 1]])
    np.testing.assert_allclose(line(pr), [[0.5, 1], [1, 2 / 3], [1, 2 / 4], [1, 2 / 5], [1, 2 / 6]])
    assert point(roc) == (0, 0.5)
    assert point(pr) == (0.5, 1)
    chance = next(v for v in pr.lines if v.get_label() == "chance")
    np.testing.assert_allclose(chance.get_ydata(), 2 / 6)
    assert "2 anomalies among 6 rows" in figure.get_label()


def test_detection_is_the_curve_of_scikit_learn():
    strange = RNG.random(200) < 0.3
    scores = RNG.integers(0, 20, 200) + 3 * strange.astype(float)
    roc, pr = figures.detection(strange, scores, 9.0).axes
    false, found, _ = roc_curve(strange, scores, drop_intermediate=False)
    np.testing.assert_allclose(line(roc), np.column_stack([false, found]))
    precision, recall, _ = precision_recall_curve(strange, scores)
    np.testing.assert_allclose(line(pr)[::-1], np.column_stack([recall, precision])[:-1])


@pytest.mark.parametrize("threshold", [np.inf, -np.inf])
def test_detection_when_all_or_nothing_is_flagged(threshold):
    figure = figures.detection(STRANGE, SCORES, threshold)
    figure.draw_without_rendering()
    assert point(figure.axes[0]) == ((0, 0) if threshold > 0 else (1, 1))
    assert any(v.get_marker() == "o" for v in figure.axes[1].lines) == (threshold < 0)  # no precision of nothing


def test_scores_by_class_are_shares_of_each_class():
    figure = figures.scores_by_class(STRANGE, SCORES, 3.0)
    (ax,) = figure.axes
    heights = [sum(bar.get_height() for bar in group) for group in ax.containers]
    assert heights == pytest.approx([1, 1])
    assert ax.get_xscale() == "linear"
    assert {"normal (4)", "anomalies (2)", "threshold 3.000"} <= set(text_of(figure))
    assert "100.0% of anomalies, 25.00% of normal rows" in figure.get_label()
    wide = figures.scores_by_class(STRANGE, np.exp(3 * SCORES), 3.0)
    assert wide.axes[0].get_xscale() == "log"
    assert sum(bar.get_height() for bar in wide.axes[0].containers[0]) == pytest.approx(1)
    figures.scores_by_class(STRANGE, SCORES * 0, 0.0).draw_without_rendering()


def test_pairs_stand_side_by_side():
    table = pd.DataFrame({"normal": [0.1, 0.2], "anomalies": [3.0, 0.4]}, index=["V14", EVIL])
    figure = figures.pairs(table, title="by column")
    (ax,) = figure.axes
    assert [bar.get_width() for bar in ax.patches] == [0.1, 0.2, 3.0, 0.4]
    middles = [bar.get_y() + bar.get_height() / 2 for bar in ax.patches]
    assert middles == pytest.approx([-0.2, 0.8, 0.2, 1.2])
    assert [t.get_text() for t in ax.get_yticklabels()] == ["V14", EVIL]
    many = figures.pairs(pd.DataFrame({"normal": range(50), "anomalies": range(50)}), title="many")
    assert len(many.axes[0].patches) == 40
    assert "20 of 50 rows" in many.get_label()


def test_no_pyplot():
    assert "pyplot" not in re.sub(r'""".*?"""', "", Path(report.__file__).read_text(), flags=re.DOTALL)
