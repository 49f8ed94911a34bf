"""The LSTM in NumPy: the formulas by hand, Keras beside it, and the file of its weights."""

import doctest
import json
import subprocess
import sys
import warnings
from itertools import chain, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aelab.config import AelabError
from aelab.inference import lstm
from aelab.inference import weights as files
from aelab.inference.lstm import LanguageModel, LSTMCell, sigmoid, softmax
from aelab.inference.weights import Weights, from_document, from_keras, to_document, to_keras


def layer(m, n, seed, dtype=np.float32, peepholes=False):
    rng = np.random.default_rng(seed)
    shapes = [(m + n, 4 * n), (4 * n,), (3, n)]
    W, b, p = (rng.normal(0, 0.5, shape).astype(dtype) for shape in shapes)
    return W, b, p if peepholes else None


def arrays(*shapes, seed=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape).astype(dtype) for shape in shapes]


def network(v=7, m=3, n=(4, 5), dtype=np.float32, peepholes=False):
    layers = [layer(a, b, b, dtype, peepholes) for a, b in pairwise((m, *n))]
    return Weights(*arrays((v, m), dtype=dtype), tuple(layers), *arrays((n[-1], v), (v,), seed=1, dtype=dtype))


def same(left, right):
    """Whether two models have the same weights, to the bit."""
    for one, two in zip(*([w.embedding, *chain(*w.layers), w.kernel, w.bias] for w in (left, right)), strict=True):
        assert one is two is None or (one.dtype, one.tolist()) == (two.dtype, two.tolist())


def close(left, right, within):
    np.testing.assert_allclose(left, right, rtol=0, atol=within)


# ---- the formulas


def document(z):
    """Our weights of four arguments z (4, n) for f, i, C~, o, where x is [1, 0]: in the layout of the document."""
    W = np.zeros((4, 2, 4))
    W[..., 2] = z
    return from_document(W, np.zeros((4, 2)))


def test_the_worked_example_of_the_document():
    """It prints C = (0.37727, -0.12253) and h = (0.263, -0.090).

    The second cell is a slip: 0.731058 * 0.462117 is 0.337834, not the 0.337684 that stands there. And the second
    output is 0.731058 * 0.123 where tanh(-0.122682) is -0.122070: rounded on the way.
    """
    cell = LSTMCell(*document([[1, -1], [0, 1], [0.5, -0.5], [1, 1]]))
    x, h, C = np.array([1.0, 0]), np.array([0.5, -0.1]), np.array([0.2, 0.8])
    f, i, candidate, o = cell.gates(x, h, C)
    close(f, [0.731058, 0.268942], 1e-5)
    close(i, [0.5, 0.731058], 1e-5)
    close(candidate, [0.462117, -0.462117], 1e-5)
    close(o, [0.731058, 0.731058], 1e-5)
    h, C = cell.step(x, h, C)
    close(C, [0.377270, -0.122682], 1e-5)
    close(h, [0.263426, -0.089240], 1e-5)


def test_the_example_of_the_docstring():
    assert doctest.testmod(lstm) == (0, 4)


def plain(x, h, C, W, b, p):
    """One step as the formulas have it, gate by gate, in float64."""
    W, b = W.astype(np.float64), b.astype(np.float64)
    f, i, c, o = (x @ w[: len(x)] + h @ w[len(x) :] + a for w, a in zip(np.split(W, 4, 1), np.split(b, 4), strict=True))
    pf, pi, po = (0, 0, 0) if p is None else p.astype(np.float64)
    f, i = 1 / (1 + np.exp(-f - pf * C)), 1 / (1 + np.exp(-i - pi * C))
    new = f * C + i * np.tanh(c)
    return 1 / (1 + np.exp(-o - po * new)) * np.tanh(new), new


@pytest.mark.parametrize("peepholes", [False, True])
@pytest.mark.parametrize(("dtype", "within"), [(np.float32, 1e-6), (np.float64, 1e-14)])
def test_a_step_is_the_formulas(dtype, within, peepholes):
    W, b, p = layer(3, 4, 0, dtype, peepholes)
    x, h, C = arrays(3, 4, 4, dtype=dtype)
    got = LSTMCell(W, b, p).step(x, h, C)
    assert [a.dtype for a in got] == [dtype, dtype]
    for left, right in zip(got, plain(x, h, C, W, b, p), strict=True):
        close(left, right, within)


def test_peepholes_by_hand():
    """f and i see the old cell, o the new one: with no other weight, f = sigma(C), i = sigma(2 C), and C~ = 0."""
    cell = LSTMCell(np.zeros((2, 4)), np.zeros(4), np.array([[1.0], [2.0], [3.0]]))
    x, h, C = np.zeros(1), np.zeros(1), np.array([0.7])
    f, i, candidate, o = cell.gates(x, h, C)
    new = 0.7 / (1 + np.exp(-0.7))
    close(np.ravel([f, i, o]), [1 / (1 + np.exp(-z)) for z in (0.7, 2 * 0.7, 3 * new)], 1e-15)
    assert candidate == 0
    h, C = cell.step(x, h, C)
    close([C, h], [[new], o * np.tanh(new)], 1e-15)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sigmoid_of_any_float(dtype):
    z = np.array([-np.inf, np.finfo(dtype).min, -1e4, -710, -89, 0, 89, 710, 1e4, np.finfo(dtype).max, np.inf], dtype)
    with warnings.catch_warnings(), np.errstate(over="raise", invalid="raise", divide="raise"):
        warnings.simplefilter("error")
        got = sigmoid(z)
        cell = LSTMCell(*layer(2, 3, 0, dtype))
        h, C = cell.step(np.full(2, 1e4, dtype), *arrays(3, 3, dtype=dtype))
    assert got.dtype == dtype
    close(got, [0, 0, 0, 0, 0, 0.5, 1, 1, 1, 1, 1], 1e-30)
    assert np.isfinite([h, C]).all()
    z = np.linspace(-20, 20, 999).astype(dtype)
    close(sigmoid(z), 1 / (1 + np.exp(-z.astype(np.float64))), 2 * np.finfo(dtype).eps)


def test_softmax():
    close(softmax(np.log([[1, 2, 5], [3, 3, 2]])), [[0.125, 0.25, 0.625], [0.375, 0.375, 0.25]], 1e-15)
    close(softmax(np.array([1e4, 1e4, -np.inf], np.float32)), [0.5, 0.5, 0], 0)


@given(seed=st.integers(0, 10**6), steps=st.integers(1, 30))
def test_gates_are_open_a_little_and_outputs_below_one(seed, steps):
    cell = LSTMCell(*layer(3, 4, seed))
    xs, h, C = arrays((steps, 3), 4, 4, seed=seed)
    f, i, candidate, o = cell.gates(xs[0], h, C)
    assert all(((gate > 0) & (gate < 1)).all() for gate in (f, i, o))
    assert (np.abs(candidate) <= 1).all()
    assert (np.abs(cell.run(xs, h, C)[0]) < 1).all()


def test_a_cell_that_neither_forgets_nor_takes_in_keeps_its_state_for_ever():
    W, b, _ = layer(3, 4, 0)
    W[:, :8], b[:8] = 0, np.repeat([100, -100], 4)
    xs, h, C = arrays((10_000, 3), 4, 4)
    kept = LSTMCell(W, b).run(xs, h, C)[2]
    np.testing.assert_array_equal(kept, C)


# ---- sequences and batches


@pytest.mark.parametrize("shape", [(), (5,)])
@pytest.mark.parametrize("peepholes", [False, True])
def test_a_sequence_is_its_steps(shape, peepholes):
    cell = LSTMCell(*layer(3, 4, 0, peepholes=peepholes))
    xs, h, C = arrays((20, *shape, 3), (*shape, 4), (*shape, 4))
    before = [a.copy() for a in (xs, h, C)]
    hs, last, kept = cell.run(xs, h, C)
    for left, right in zip((xs, h, C), before, strict=True):
        np.testing.assert_array_equal(left, right)
    for k, x in enumerate(xs):
        h, C = cell.step(x, h, C)
        np.testing.assert_array_equal(hs[k], h)
    np.testing.assert_array_equal([last, kept], [h, C])


@pytest.mark.parametrize("peepholes", [False, True])
def test_a_batch_is_its_rows(peepholes):
    cell = LSTMCell(*layer(3, 4, 0, peepholes=peepholes))
    xs, h, C = arrays((9, 6, 3), (6, 4), (6, 4))
    hs, last, kept = cell.run(xs, h, C)
    gates = cell.gates(xs[0], h, C)
    for row in range(6):
        one = cell.run(xs[:, row], h[row], C[row])
        for left, right in zip((hs[:, row], last[row], kept[row]), one, strict=True):
            close(left, right, 1e-6)
        close([gate[row] for gate in gates], cell.gates(xs[0, row], h[row], C[row]), 1e-6)


@given(cuts=st.lists(st.integers(0, 25), max_size=6).map(sorted), batch=st.sampled_from([(), (3,)]))
def test_any_split_of_a_sequence_gives_the_same_state(cuts, batch):
    cell = LSTMCell(*layer(3, 4, 0))
    xs, h, C = arrays((25, *batch, 3), (*batch, 4), (*batch, 4))
    whole = cell.run(xs, h, C)
    hs = []
    for part in np.split(xs, cuts):
        got, h, C = cell.run(part, h, C)
        hs.append(got)
    for left, right in zip(whole, (np.concatenate(hs), h, C), strict=True):
        np.testing.assert_array_equal(left, right)


def test_a_language_model_is_its_layers():
    model, ids = LanguageModel(*network()), np.random.default_rng(0).integers(0, 7, (12, 2))
    logits, last = model.run(ids, model.start(2))
    assert logits.shape == (12, 2, 7)
    x = model.embedding[ids]
    for cell in model.cells:
        x, *_ = cell.run(x, *cell.start(2))
    close(logits, x @ model.kernel + model.bias, 1e-6)
    state = model.start(2)
    for k, row in enumerate(ids):
        before = np.hstack([*chain(*state)])
        got, new = model.step(row, state)
        np.testing.assert_array_equal(np.hstack([*chain(*state)]), before)  # the caller's own
        close(got, logits[k], 1e-6)
        state = new
    close(np.hstack([*chain(*state)]), np.hstack([*chain(*last)]), 1e-6)


# ---- what does not fit


@pytest.mark.parametrize(
    ("x", "h", "C", "got"),
    [
        ((4,), (4,), (4,), "got x (4,) float32, h (4,) float32"),
        ((3,), (5,), (5,), "h (5,)"),
        ((3,), (4,), (2, 4), "C (2, 4)"),
        ((2, 3), (3, 4), (3, 4), "h (3, 4)"),
        ((2, 3), (4,), (4,), "x (2, 3)"),
        ((2, 2, 3), (2, 2, 4), (2, 2, 4), "x (2, 2, 3)"),
        ((), (4,), (4,), "x ()"),
    ],
)
def test_shapes_are_checked(x, h, C, got):
    cell = LSTMCell(*layer(3, 4, 0))
    state = np.zeros(h, np.float32), np.zeros(C, np.float32)
    for call, inputs in ((cell.step, x), (cell.gates, x), (cell.run, (7, *x))):
        with pytest.raises(AelabError) as error:
            call(np.zeros(inputs, np.float32), *state)
        assert got in str(error.value)
        assert "m 3, n 4" in str(error.value)


def test_dtypes_are_not_mixed():
    cell, (x, h, C) = LSTMCell(*layer(3, 4, 0)), arrays(3, 4, 4)
    for given_ in ((x.astype(float), h, C), (x, h.astype(float), C), (x, h, C.astype(float))):
        with pytest.raises(AelabError, match="float64"):
            cell.step(*given_)
    W, b, p = layer(3, 4, 0, peepholes=True)
    for given_ in ((W.astype(float), b, p), (W, b, p.astype(float)), (W.astype(int), b.astype(int), None)):
        with pytest.raises(AelabError, match="expected weights all float32 or all float64"):
            LSTMCell(*given_)


@pytest.mark.parametrize(
    ("W", "b", "p"),
    [
        ((7, 15), (15,), None),
        ((4, 16), (16,), None),
        ((7, 16), (15,), None),
        ((7, 16), (16,), (3, 5)),
        ((16,), (16,), None),
        ((), (4,), None),
        ((7, 0), (0,), None),
    ],
)
def test_weights_of_other_shapes_are_refused(W, b, p):
    with pytest.raises(AelabError) as error:
        LSTMCell(np.zeros(W), np.zeros(b), None if p is None else np.zeros(p))
    assert f"got {W}, {b}, {p}" in str(error.value)


def test_a_language_model_refuses_what_does_not_fit():
    good = network()
    for bad in (
        good._replace(embedding=np.zeros((7, 4), np.float32)),
        good._replace(layers=good.layers[::-1]),
        good._replace(layers=()),
        good._replace(kernel=np.zeros((4, 7), np.float32)),
        good._replace(kernel=np.zeros(5, np.float32)),
        good._replace(bias=np.zeros(8, np.float32)),
    ):
        with pytest.raises(AelabError, match="expected embedding"):
            LanguageModel(*bad)
    with pytest.raises(AelabError, match="all float32 or all float64"):
        LanguageModel(*good._replace(bias=np.zeros(7)))
    model = LanguageModel(*good)
    for ids, says in (([0, 7], "from 0 to 6, got 0 to 7"), ([-1, 0], "got -1 to 0"), ([[0], [1]], "int64 (2, 1)")):
        with pytest.raises(AelabError) as error:
            model.step(np.array(ids), model.start(2))
        assert says in str(error.value)
    with pytest.raises(AelabError, match="float64"):
        model.step(np.zeros(2), model.start(2))
    with pytest.raises(AelabError, match="the state of 2 layers, got 1"):
        model.step(np.zeros(2, int), model.start(2)[:1])
    with pytest.raises(AelabError, match="LSTM: expected"):
        model.step(np.zeros(3, int), model.start(2))


# ---- layouts


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_layouts_go_round(dtype):
    W, b, _ = layer(3, 4, 0, dtype)
    for back, there, shapes in (
        (from_document, to_document, [(4, 4, 7), (4, 4)]),
        (from_keras, to_keras, [(3, 16), (4, 16), (16,)]),
    ):
        stored = there(W, b)
        assert [a.shape for a in stored] == shapes
        for left, right in zip(back(*stored), (W, b), strict=True):
            np.testing.assert_array_equal(left, right, strict=True)
        for left, right in zip(there(*back(*stored)), stored, strict=True):
            np.testing.assert_array_equal(left, right, strict=True)


def test_the_layout_of_the_document_is_its_formula():
    x, h, C, W, b = arrays(3, 4, 4, (4, 4, 7), (4, 4), dtype=np.float64)
    z = W @ np.concatenate([h, x]) + b
    f, i, o = 1 / (1 + np.exp(-z[[0, 1, 3]]))
    close(LSTMCell(*from_document(W, b)).gates(x, h, C), [f, i, np.tanh(z[2]), o], 1e-14)


def test_layouts_of_other_shapes_are_refused():
    zeros = np.zeros
    for call, shapes in (
        (from_document, [(4, 4, 4), (4, 4)]),
        (from_document, [(3, 4, 7), (3, 4)]),
        (from_document, [(4, 4, 7), (16,)]),
        (to_document, [(4, 16), (16,)]),
        (to_document, [(7, 16), (4, 4)]),
        (from_keras, [(3, 16), (4, 12), (16,)]),
        (from_keras, [(3, 12), (4, 16), (16,)]),
        (from_keras, [(3, 16), (4, 16), (2, 16)]),
        (to_keras, [(7, 15), (15,)]),
    ):
        with pytest.raises(AelabError, match="weights: expected"):
            call(*map(zeros, shapes))


# ---- the file


@pytest.mark.parametrize("peepholes", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("vocabulary", [None, ["<s>", "a", "ı", "ğ", "\n", "日本", "\ud800"]])
def test_a_file_gives_back_what_was_written(tmp_path, dtype, peepholes, vocabulary):
    stored, file = network(dtype=dtype, peepholes=peepholes), tmp_path / "model.npz"
    files.write(file, stored, vocabulary)
    got, texts = files.read(file)
    assert texts == vocabulary
    assert [p.name for p in tmp_path.iterdir()] == ["model.npz"]
    same(stored, got)
    LanguageModel(*got)
    with np.load(file, allow_pickle=False) as raw:
        assert json.loads(raw["header"].tobytes()) == {
            "format": "aelab.lstm",
            "version": 1,
            "gates": "f i C o",
            "dtype": np.dtype(dtype).name,
            "v": 7,
            "m": 3,
            "n": [4, 5],
            "peepholes": [peepholes] * 2,
        }


def refused(file, *says):
    with pytest.raises(AelabError) as error:
        files.read(file)
    text = str(error.value)
    assert text.startswith(str(file))
    assert "\n" not in text
    for each in says:
        assert each in text


def changed(file, drop=(), header=None, **arrays):
    """A good file with other arrays, or with other entries of its header."""
    files.write(file, network(), list("abcdefg"))
    with np.load(file) as raw:
        kept = {name: a for name, a in raw.items() if name not in drop} | arrays
    if header is not None:
        text = json.dumps(json.loads(kept["header"].tobytes()) | header)
        kept["header"] = np.frombuffer(text.encode(), np.uint8)
    np.savez(file, **kept)
    return file


def test_a_broken_file_is_refused(tmp_path):
    file = tmp_path / "model.npz"
    refused(file, "is not there")
    files.write(file, network(), None)
    whole = file.read_bytes()
    for length in (len(whole) - 1, len(whole) // 2, 10):
        file.write_bytes(whole[:length])
        refused(file, "its end is missing")
    at = whole.index(network().embedding.tobytes())
    file.write_bytes(whole[:at] + b"\xff" + whole[at + 1 :])
    refused(file, "cannot be read")
    for content in (b"", b"no zip"):
        file.write_bytes(content)
        refused(file, "it is not a zip")
    refused(tmp_path, "cannot be read")
    np.savez(file, header=np.array([{}], object))
    refused(file, "cannot be read", "pickle")


@pytest.mark.parametrize(
    ("header", "says"),
    [
        ({"version": 2}, "version 2, where this aelab knows 1"),
        ({"format": "onnx"}, "expected the format aelab.lstm"),
        ({"gates": "i f C o"}, "header: gates: expected one of f i C o, got 'i f C o'"),
        ({"dtype": "float16"}, "header: dtype: expected one of float32, float64, got 'float16'"),
        ({"dtype": "float64"}, "embedding: expected float64 (7, 3), got float32 (7, 3)"),
        ({"v": 0}, "header: v"),
        ({"m": True}, "header: m"),
        ({"n": 4}, "header: n"),
        ({"n": [4]}, "expected n and peepholes of each layer"),
        ({"n": [], "peepholes": []}, "at least one"),
        ({"peepholes": [False, True]}, "lstm1.peepholes is missing"),
        ({"v": 8}, "embedding: expected float32 (8, 3), got float32 (7, 3)"),
    ],
)
def test_a_header_that_is_not_ours_is_refused(tmp_path, header, says):
    refused(changed(tmp_path / "model.npz", header=header), says)


def test_arrays_that_are_not_as_announced_are_refused(tmp_path):
    file = tmp_path / "model.npz"
    for name, shape in (("embedding", (7, 3)), ("lstm0.W", (7, 16)), ("lstm1.b", (20,)), ("dense.bias", (7,))):
        refused(changed(file, drop=[name]), f"{name} is missing")
        refused(changed(file, **{name: np.zeros((2, 2), np.float32)}), f"{name}: expected float32 {shape}", "(2, 2)")
        for bad in (np.nan, np.inf, -np.inf):
            a = np.zeros(shape, np.float32)
            a.flat[-1] = bad
            refused(changed(file, **{name: a}), f"{name} {shape}: 1 values are NaN or infinite")
    refused(changed(file, drop=["header"]), "expected the format aelab.lstm")
    refused(changed(file, vocabulary=np.array([0xFF], np.uint8)), "vocabulary: expected JSON in UTF-8")
    for texts in (["a"], ["a"] * 7, list(range(7)), "abcdefg"):
        stored = np.frombuffer(json.dumps(texts).encode(), np.uint8)
        refused(changed(file, vocabulary=stored), "vocabulary: expected a list of 7 texts")


def test_what_could_not_be_read_is_not_written(tmp_path):
    file, good = tmp_path / "model.npz", network()
    for bad in (
        good._replace(embedding=good.embedding[0]),
        good._replace(bias=np.full(7, np.nan, np.float32)),
        good._replace(layers=good.layers[:1]),
        good._replace(kernel=good.kernel.astype(float)),
        network(dtype=np.float16),
    ):
        with pytest.raises(AelabError):
            files.write(file, bad, None)
    with pytest.raises(AelabError, match="expected a list of 7 texts, no two alike, got 2"):
        files.write(file, good, ["a", "b"])
    assert not list(tmp_path.iterdir())


# ---- beside Keras


def trained(keras, v, m, n, functional=False):
    """A Keras language model after a few steps on random tokens, so that no weight is as it was made."""
    layers = keras.layers
    blocks = [layers.Embedding(v, m), *(layers.LSTM(k, return_sequences=True) for k in n), layers.Dense(v)]
    if functional:
        y = ids = keras.Input((None,), dtype="int32")
        for block in blocks:
            y = block(y)
        model = keras.Model(ids, y)
    else:
        model = keras.Sequential([keras.Input((None,), dtype="int32"), *blocks])
    model.compile(keras.optimizers.Adam(0.05), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    ids = np.random.default_rng(0).integers(0, v, (64, 17))
    model.fit(ids[:, :-1], ids[:, 1:], batch_size=16, epochs=3, verbose=0)
    return model


@pytest.fixture
def export(keras):
    from aelab import export

    return export


@pytest.mark.parametrize("functional", [False, True])
@pytest.mark.parametrize("n", [(32,), (24, 32)])
def test_a_thousand_steps_are_those_of_keras(keras, export, tmp_path, n, functional):
    model = trained(keras, 20, 16, n, functional)
    file = tmp_path / "model.npz"
    files.write(file, export.from_model(model), None)
    stored, _ = files.read(file)
    ids = np.random.default_rng(1).integers(0, 20, (2, 1000))
    ours = LanguageModel(*stored)
    state = ours.start(2)
    inner = keras.Model(model.inputs, [x.output for x in model.layers if isinstance(x, keras.layers.LSTM)])
    expected, logits = inner.predict(ids, verbose=0), model.predict(ids, verbose=0)
    expected = [expected] if len(n) == 1 else expected
    furthest = 0
    for t in range(1000):
        got, state = ours.step(ids[:, t], state)
        furthest = max(furthest, *(np.abs(h - want[:, t]).max() for (h, _), want in zip(state, expected, strict=True)))
        close(got, logits[:, t], 1e-5 * max(1, np.abs(logits).max()))
    assert furthest <= 1e-5


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_to_keras_and_back(export, dtype):
    stored = network(dtype=dtype)
    model = export.to_model(stored)
    same(export.from_model(model), stored)
    ids = np.random.default_rng(0).integers(0, 7, (3, 50))
    ours = LanguageModel(*stored)
    logits, _ = ours.run(ids.T, ours.start(3))
    close(model.predict(ids, verbose=0), logits.swapaxes(0, 1), 1e-5)


def test_dropout_and_softmax_are_passed_over(keras, export):
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((None,), dtype="int32"),
            layers.Embedding(7, 3),
            layers.Dropout(0.5),
            layers.LSTM(4, return_sequences=True, dropout=0.2),
            layers.Dense(7, activation="softmax"),
        ]
    )
    ids = np.random.default_rng(0).integers(0, 7, (3, 9))
    ours = LanguageModel(*export.from_model(model))
    logits, _ = ours.run(ids.T, ours.start(3))
    close(model.predict(ids, verbose=0), softmax(logits).swapaxes(0, 1), 1e-6)


def written_as_a_class(keras):
    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.blocks = trained(keras, 7, 3, (4,)).layers

        def call(self, ids):
            for block in self.blocks:
                ids = block(ids)
            return ids

    model = Model()
    model(np.zeros((1, 2), int))
    return model


def refusals(keras):
    layers = keras.layers

    def line(*blocks):
        return keras.Sequential([keras.Input((None,), dtype="int32"), *blocks])

    def lstm(**settings):
        return layers.LSTM(3, **({"return_sequences": True, "name": "memory"} | settings))

    yield line(layers.Embedding(7, 3), layers.GRU(4, return_sequences=True, name="odd"), layers.Dense(7)), "odd (GRU)"
    yield line(layers.Embedding(7, 3), layers.LayerNormalization(name="norm"), lstm(), layers.Dense(7)), "norm (Layer"
    for settings in (
        {"return_sequences": False},
        {"go_backwards": True},
        {"activation": "relu"},
        {"recurrent_activation": "hard_sigmoid"},
        {"use_bias": False},
    ):
        (key,) = settings
        yield line(layers.Embedding(7, 3), lstm(**settings), layers.Dense(7)), f"layer memory: {key}"
    yield line(layers.Embedding(7, 3, mask_zero=True), lstm(), layers.Dense(7)), "mask_zero: expected False, got True"
    yield line(layers.Embedding(7, 3), lstm(), layers.Dense(7, activation="relu")), "expected 'linear' or 'softmax'"
    yield line(layers.Embedding(7, 3), lstm()), "got Embedding, LSTM"
    yield line(layers.Embedding(7, 3), lstm(), layers.Dense(3), layers.Dense(7)), "got Embedding, LSTM, Dense, Dense"
    yield keras.Sequential([layers.Embedding(7, 3), lstm(), layers.Dense(7)]), "has no weights yet"
    yield written_as_a_class(keras), "got inputs from none"
    ids = keras.Input((None,), dtype="int32", name="ids")
    embedded = layers.Embedding(7, 3, name="e")(ids)
    first, second = lstm(name="first")(embedded), lstm(name="second")(embedded)
    yield keras.Model(ids, [layers.Dense(7)(first), second]), "layers in one line"
    again = lstm()
    yield keras.Model(ids, layers.Dense(7)(again(again(embedded)))), "layers in one line"


def test_other_keras_models_are_refused(keras, export):
    for model, says in refusals(keras):
        with pytest.raises(AelabError) as error:
            export.from_model(model)
        assert says in str(error.value)
    with pytest.raises(AelabError, match="peepholes"):
        export.to_model(network(peepholes=True))


# ---- light


def test_it_imports_numpy_alone():
    code = """
import sys, numpy
before = set(sys.modules)
import aelab.inference.lstm, aelab.inference.weights
print(sorted({name.split(".")[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)))
print([name for name in ("tensorflow", "keras", "scipy", "pandas") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["['aelab']", "[]"]
