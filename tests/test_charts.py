"""Charts of tables: what they draw and what their captions say."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.image import AxesImage

from aelab import charts


def drawn(figure):
    """name -> (x, y) of each line, in order."""
    return {line.get_label(): tuple(map(list, line.get_data())) for line in figure.axes[0].lines}


def ticks(figure, axis="y"):
    """The words at the ticks of an axis."""
    return [t.get_text() for t in getattr(figure.axes[0], f"get_{axis}ticklabels")()]


def test_lines_have_a_line_for_each_column_and_tell_the_last_value():
    table = pd.DataFrame({"ndcg": [0.1, 0.25], "recall": [0.3, 0.5]}, pd.Index([5, 20], name="length"))
    figure = charts.lines(table, title="By length", ylabel="mean")
    assert drawn(figure) == {"ndcg": ([5, 20], [0.1, 0.25]), "recall": ([5, 20], [0.3, 0.5])}
    assert figure.get_label() == "By length; at length 20: ndcg 0.2500, recall 0.5000."
    (ax,) = figure.axes
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_title(loc="left")) == ("length", "mean", "By length")
    assert list(ax.get_xticks()) == [5, 20]
    figure.draw_without_rendering()


def test_lines_do_not_run_out_of_colours():
    wide = pd.DataFrame(np.arange(20.0).reshape(2, 10), pd.Index([1, 2], name="x"))
    assert len(drawn(charts.lines(wide, title="many", ylabel="y"))) == 10


@pytest.mark.parametrize(("logarithmic", "scale"), [(False, "linear"), (True, "symlog")])
def test_dots_stand_at_their_pairs(logarithmic, scale):
    x, y = np.array([0, 10, 1000]), np.array([3, 0, 7])
    words = {"title": "Shown", "xlabel": "known", "ylabel": "shown"}
    figure = charts.dots(x, y, **words, logarithmic=logarithmic)
    (ax,) = figure.axes
    np.testing.assert_array_equal(ax.collections[0].get_offsets(), np.column_stack([x, y]))
    assert (ax.get_xscale(), ax.get_yscale()) == (scale, scale)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("known", "shown")
    assert figure.get_label() == "Shown: 3 dots."
    assert not ax.texts
    figure.draw_without_rendering()


def test_heat_writes_each_value_and_tells_the_highest():
    table = pd.DataFrame(
        [[1.0, 4.0], [2.5, np.nan]],
        pd.Index(["cosine", "dot"], name="similarity"),
        pd.Index(["runs/one", "runs/two"], name="model.run"),
    )
    figure = charts.heat(table, title="ndcg")
    (ax,) = figure.axes
    assert [(t.get_text(), t.get_position()) for t in ax.texts] == [
        ("1.000", (0, 0)),
        ("4.000", (1, 0)),
        ("2.500", (0, 1)),
        ("–", (1, 1)),
    ]
    assert (ticks(figure, "x"), ticks(figure)) == (["one", "two"], ["cosine", "dot"])
    assert figure.get_label() == "ndcg: highest 4.000, cosine, two; lowest 1.000."
    figure.draw_without_rendering()


# ---- swept values: text, as the command line gave them


def swept(names, *rows):
    """The chart of a sweep: a row is the swept values and the metric "m"."""
    return charts.swept(pd.DataFrame(rows, columns=[*names, "m"]), names, "m")


def test_a_number_of_more_than_two_values_is_a_line():
    figure = swept(["size"], ("16", 0.5), ("4", 0.25), ("1e1", 0.75))
    assert drawn(figure) == {"m": ([4, 10, 16], [0.25, 0.75, 0.5])}
    assert figure.get_label() == "m by size; at size 16.00: m 0.5000."


@pytest.mark.parametrize(("sizes", "scale"), [("2 4 8 16", "log"), ("0 4 8", "linear"), ("8 10 12", "linear")])
def test_numbers_that_grow_by_a_factor_are_as_far_apart(sizes, scale):
    figure = swept(["size"], *((size, 0.5) for size in sizes.split()))
    assert figure.axes[0].get_xscale() == scale
    figure.draw_without_rendering()
    assert " ".join(ticks(figure, "x")) == sizes


def test_two_numbers_only_are_bars_in_the_order_of_the_sweep():
    figure = swept(["size"], ("16", 0.5), ("4", 0.25))
    assert ticks(figure) == ["16", "4"]
    assert [bar.get_width() for bar in figure.axes[0].patches] == [0.5, 0.25]
    assert not figure.axes[0].lines
    assert figure.get_label() == "m by size: m, lowest 0.2500, highest 0.5000."


def test_a_text_is_bars_however_many_values_it_has():
    figure = swept(["model"], ("b", 1.0), ("a", -2.0), ("3", 3.0))
    assert ticks(figure) == ["b", "a", "3"]
    assert [bar.get_width() for bar in figure.axes[0].patches] == [1, -2, 3]


def test_a_number_beside_a_text_is_a_line_for_each_text():
    rows = [(model, size, float(size) * k) for model, k in (("b", 1), ("a", 2)) for size in ("1", "2", "4")]
    figure = swept(["model", "size"], *rows)
    assert drawn(figure) == {"a": ([1, 2, 4], [2, 4, 8]), "b": ([1, 2, 4], [1, 2, 4])}
    assert figure.axes[0].get_xlabel() == "size"
    assert figure.get_label() == "m by model, size; at size 4: a 8.000, b 4.000."


def test_two_numbers_are_a_heat_map_in_their_order():
    rows = [(a, b, float(a) + 10 * float(b)) for a in "123" for b in "456"]
    figure = swept(["a", "b"], *rows[::-1])
    (image,) = figure.axes[0].findobj(AxesImage)
    np.testing.assert_array_equal(image.get_array(), [[41, 42, 43], [51, 52, 53], [61, 62, 63]])
    assert (ticks(figure, "x"), ticks(figure)) == (["1", "2", "3"], ["4", "5", "6"])


def test_the_best_is_marked_and_repeats_are_a_band():
    rows = pd.DataFrame([(n, s, float(n) + 2 * float(s)) for n in "123" for s in "01"], columns=["size", "seed", "m"])
    for goal, x in (("max", 3), ("min", 1)):
        figure = charts.swept(rows, ["size", "seed"], "m", goal)
        _, star = figure.axes[0].lines
        assert (star.get_xdata(), star.get_ydata()) == ([x], [x + 1])
        assert figure.get_label().endswith(f"best {x + 1}.000 at {x}.")
        (band,) = figure.axes[0].collections
        low, high = band.get_datalim(figure.axes[0].transData).intervaly
        assert (low, high) == pytest.approx((2 - 2**0.5, 4 + 2**0.5))  # sample standard deviation of n and n + 2
    heat = charts.swept(
        pd.DataFrame([("a", "x", 2.0), ("b", "x", 1.0)], columns=["k", "l", "m"]), ["k", "l"], "m", "min"
    )
    (frame,) = (patch for patch in heat.axes[0].patches if not patch.get_fill())
    assert (frame.get_x(), frame.get_y()) == (0.5, -0.5)


def test_three_values_are_parallel_coordinates():
    """Each axis runs from its first value, or its least number, below, to its last above; the metric from least."""
    rows = [("x", "10", "p", 1.0), ("x", "9", "q", 3.0), ("y", "9", "p", 2.0)]
    table = pd.DataFrame(rows, columns=["a", "b", "c", "m"])
    figure = charts.swept(table, ["a", "b", "c"], "m", "max")
    lines = [list(line.get_ydata()) for line in figure.axes[0].lines if len(line.get_ydata()) == 4]
    assert lines == [[0, 1, 0, 0], [0, 0, 1, 1], [1, 0, 0, 0.5]]
    assert figure.axes[0].lines[1].get_linewidth() > figure.axes[0].lines[0].get_linewidth()
    assert figure.get_label() == "m of 3 jobs, from 1.000 to 3.000; best: x, 9, q."


def test_two_texts_are_a_heat_map():
    figure = swept(["model", "loss"], ("b", "x", 1.0), ("b", "y", 2.0), ("a", "x", 3.0), ("a", "y", 4.0))
    (image,) = figure.axes[0].findobj(AxesImage)
    np.testing.assert_array_equal(image.get_array(), [[1, 3], [2, 4]])
    assert (ticks(figure, "x"), ticks(figure)) == (["b", "a"], ["x", "y"])
    assert figure.get_label() == "m: highest 4.000, y, a; lowest 1.000."


def test_three_texts_of_two_jobs_are_bars():
    figure = swept(["a", "b", "c"], ("x", "y", "z", 1.0), ("x", "y", "w", 2.0))
    assert ticks(figure) == ["x, y, z", "x, y, w"]


def test_seeds_and_folds_are_averaged():
    """Repeats are no series: 1 and 3 are 2, whatever the seed or the fold."""
    rows = [("s", seed, fold, v) for seed, fold, v in (("0", "u1", 1.0), ("0", "u2", 3.0), ("1", "u1", 8.0))]
    figure = swept(["model", "seed", "dataset.fold"], *rows, ("t", "0", "u1", 5.0))
    assert ticks(figure) == ["s", "t"]
    assert [bar.get_width() for bar in figure.axes[0].patches] == [4, 5]
    assert figure.get_label() == "m by model: m, lowest 4.000, highest 5.000."
    line = swept(["seed", "size"], *[(s, n, float(n) + 10 * float(s)) for s in "012" for n in "123"])
    assert drawn(line) == {"m": ([1, 2, 3], [11, 12, 13])}


def test_seeds_alone_are_shown_themselves():
    figure = swept(["seed"], ("0", 1.0), ("1", 3.0))
    assert ticks(figure) == ["0", "1"]
    assert list(drawn(swept(["seed"], ("0", 1.0), ("1", 3.0), ("2", 2.0))).values()) == [([0, 1, 2], [1, 3, 2])]
