"""Next-token prediction: batches and windows, the networks beside Keras and NumPy, gates, gradients, and writing."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from contract import component, frozen, node
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2
from sklearn.metrics import log_loss, top_k_accuracy_score

from aelab import memory, ops
from aelab.config import ConfigError
from aelab.inference.lstm import LanguageModel, softmax
from aelab.inference.tokens import UNKNOWN
from aelab.inference.weights import Weights, from_keras
from aelab.inference.writing import choose, write
from aelab.streams import MASKED, Streams, windows

CELLS = ("lstm", "gates", "gru", "rnn")
V, B = 11, 3
PLAIN = {"embedding": 6, "hidden": 8, "layers": 1, "dropout": 0.0, "recurrent_dropout": 0.0}


def model_of(choice, **values):
    """A network for V tokens and B streams, without dropout unless asked for, its weights drawn at their usual size."""
    model = component("model", choice, **PLAIN | values)((V, B))
    rng = np.random.default_rng(1)
    for weight in model.trainable_weights:
        weight.assign(rng.normal(0, 0.4, weight.shape))
    return model


def ids_of(b, t, seed=0):
    return frozen(np.random.default_rng(seed).integers(0, V, (b, t)).astype(np.int32))


def logits_of(model, ids, training=False):
    return np.array(model(ids, training=training))


def carried(model):
    """The layers that carry their state."""
    return [layer for layer in model.layers if hasattr(layer, "reset_state")]


def close(left, right, within):
    np.testing.assert_allclose(left, right, rtol=0, atol=within)


# ---- streams


def batches_of(n, b, t, seed=0, x=None):
    x = np.arange(n) if x is None else x
    return Streams(SimpleNamespace(layers=[]), frozen(x), lambda rows, rng: (rows[:, 0], rows[:, 1]), b, t, seed)


@given(n=st.integers(10, 300), b=st.integers(1, 6), t=st.integers(1, 9), epoch=st.integers(0, 3))
def test_each_stream_goes_on_where_it_stopped(n, b, t, epoch):
    batches = batches_of(n, b, t)
    batches.start(epoch)
    if len(batches) == 0:
        return
    read = [batches[i] for i in range(len(batches))]
    inputs, targets = (np.concatenate(each, axis=1) for each in zip(*read, strict=True))
    assert inputs.shape == targets.shape == (b, t * len(batches))
    np.testing.assert_array_equal(np.diff(inputs, axis=1), 1)  # the text counts: each row is contiguous
    np.testing.assert_array_equal(targets, inputs + 1)
    assert len(np.unique(inputs)) == inputs.size  # no token is read twice
    assert inputs.min() >= 0
    assert targets.max() < n
    assert inputs[0, 0] < t
    assert n - inputs.size < t * (b + 1)  # little is left out


def test_streams_by_hand():
    """16 tokens in 2 streams, 3 steps a batch: (16 - 3) // 6 = 2 batches; the streams are (15 - offset) // 2 apart."""
    batches = batches_of(16, 2, 3)
    offset = int(batches.begins[0, 0])
    assert len(batches) == 2
    assert batches.begins.tolist() == [[offset], [offset + (15 - offset) // 2]]
    inputs, targets = batches[1]
    assert inputs[0].tolist() == [offset + 3, offset + 4, offset + 5]
    assert targets[0].tolist() == [offset + 4, offset + 5, offset + 6]


def test_each_epoch_begins_elsewhere_and_the_seed_decides_where():
    def begun(seed):
        batches = batches_of(2000, 4, 50, seed)
        return [batches.start(epoch) or int(batches.begins[0, 0]) for epoch in range(8)]

    assert begun(0) == begun(0)
    assert begun(0) != begun(1)
    assert len(set(begun(0))) > 4
    assert all(0 <= first < 50 for first in begun(0) + begun(1))
    first, again = batches_of(2000, 4, 50), batches_of(2000, 4, 50)
    again.start(5)
    again.start(0)
    for index in range(len(first)):
        np.testing.assert_array_equal(first[index], again[index])


def test_streams_read_tokens_not_places():
    x = np.random.default_rng(0).integers(0, V, 40)
    inputs, targets = batches_of(40, 2, 5, x=x)[0]
    first = batches_of(40, 2, 5).begins[:, 0]
    assert inputs.tolist() == [x[at : at + 5].tolist() for at in first]
    assert targets.tolist() == [x[at + 1 : at + 6].tolist() for at in first]


def test_training_reads_each_epoch_in_order_from_the_zero_state(keras):
    """With a learning rate of 0 the state after two epochs is that of one long read of the second one's streams."""
    model, x, read = model_of("gru"), ids_of(1, 100)[0], []
    pairs = lambda rows, rng: read.append(rows) or (rows[:, 0], rows[:, 1])  # noqa: E731
    batches = Streams(model, x, pairs, B, 5, 0)
    model.compile(keras.optimizers.SGD(0.0), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    begin = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: batches.start(epoch))
    model.fit(batches, epochs=2, shuffle=False, verbose=0, callbacks=[begin])
    last = batches_of(100, B, 5, x=x)
    last.start(1)
    expected = np.concatenate([last[i][0] for i in range(len(last))], axis=1)
    assert any((rows[:, 0] == expected[:, :5]).all() for rows in read)
    (layer,) = carried(model)
    hs = layer.rnn(model.layers[1](expected))[0]
    close(layer.state[0], hs[:, -1], 1e-6)


# ---- windows


@given(n=st.integers(2, 80), first=st.integers(0, 79), context=st.integers(0, 12), scored=st.integers(1, 12))
def test_each_held_out_token_is_scored_once_with_its_context_before_it(n, first, context, scored):
    first = min(first, n - 1)
    if n - max(first, 1) < 1:
        return
    found = windows(frozen(np.arange(n)), first, context, scored)  # a text that counts: a token is its place
    assert found.dtype == np.int32
    inputs, targets = found[:, 0], found[:, 1]
    counted = targets != MASKED
    assert targets[counted].tolist() == list(range(max(first, 1), n))  # once, and in order
    np.testing.assert_array_equal(np.diff(inputs, axis=1), 1)
    np.testing.assert_array_equal(targets[counted], inputs[counted] + 1)
    assert counted.sum(axis=1).max() <= scored
    for row, mask in zip(inputs, counted, strict=True):
        place = np.flatnonzero(mask)
        assert np.diff(place).tolist() == [1] * (len(place) - 1)  # side by side, at the end
        assert place[-1] == len(row) - 1 or row[0] == 0
        assert place[0] >= min(context, row[place[0]])  # so many before the first target's own input, or all there are


def test_windows_by_hand():
    """Tokens 0 to 9, from 5 on, 3 at a time, after at least 2: the five are cut into 5 6 7 and 8 9, each read as 5."""
    found = windows(np.arange(10), 5, 2, 3)
    assert found[0].tolist() == [[2, 3, 4, 5, 6], [-1, -1, 5, 6, 7]]
    assert found[1].tolist() == [[4, 5, 6, 7, 8], [-1, -1, -1, 8, 9]]


def test_the_first_window_of_a_text_is_read_from_nothing():
    found = windows(np.arange(6), 0, 3, 2)
    assert found[0].tolist() == [[0, 1, 2, 3, 4], [1, 2, -1, -1, -1]]  # token 0 itself is not predicted
    assert found[-1].tolist() == [[0, 1, 2, 3, 4], [-1, -1, -1, -1, 5]]


def test_nothing_to_score_gives_no_window():
    assert windows(np.arange(6), 6, 3, 2).shape[:2] == (0, 2)


# ---- metrics


def scored_rows(b=5, t=9, hidden=True):
    rng = np.random.default_rng(0)
    logits, target = rng.normal(0, 3, (b, t, V)).astype(np.float32), rng.integers(0, V, (b, t))
    target[0] = np.arange(t)  # so that every token is there, which scikit-learn likes
    if hidden:
        target[rng.random((b, t)) < 0.4] = MASKED
        target[-1] = MASKED
    return frozen(target), frozen(logits)


@pytest.mark.parametrize("hidden", [False, True])
def test_nll_is_the_log_loss_of_what_counts(keras, hidden):
    target, logits = scored_rows(hidden=hidden)
    got = np.array(ops.nll(target, logits))
    assert got.dtype == np.float32
    for row, scores, value in zip(target, logits, got, strict=True):
        counts = row >= 0
        if not counts.any():
            assert value == 0
            continue
        assert value == pytest.approx(log_loss(row[counts], softmax(scores[counts].astype(float)), labels=range(V)))


@pytest.mark.parametrize("k", [1, 3, V])
@pytest.mark.parametrize("hidden", [False, True])
def test_accuracy_is_the_share_among_the_k_highest(keras, k, hidden):
    target, logits = scored_rows(hidden=hidden)
    got = np.array(ops.accuracy(target, logits, k=k))
    for row, scores, value in zip(target, logits, got, strict=True):
        counts = row >= 0
        expected = (
            0
            if not counts.any()
            else np.mean([t in np.argsort(-s)[:k] for t, s in zip(row, scores, strict=True) if t >= 0])
        )
        assert value == pytest.approx(expected)
        if 1 < k < V and counts.any():
            assert value == pytest.approx(top_k_accuracy_score(row[counts], scores[counts], k=k, labels=range(V)))


def test_metrics_by_hand(keras):
    """Chances 1/2, 1/4, 1/4: -log 1/2 and -log 1/4 are 0.693 and 1.386; the last target does not count."""
    logits = np.log([[[2, 1, 1], [2, 1, 1], [2, 1, 1]]]).astype(np.float32)
    target = np.array([[0, 2, MASKED]])
    assert float(ops.nll(target, logits)[0]) == pytest.approx(1.5 * np.log(2))
    assert float(ops.accuracy(target, logits, k=1)[0]) == 0.5
    assert float(ops.accuracy(target, logits, k=2)[0]) == 0.75  # two share the places 2 and 3
    large = np.array([[[1e4, -1e4, 0]]], np.float32)
    assert float(ops.nll(np.array([[1]]), large)[0]) == 2e4


def test_what_is_hidden_changes_nothing(keras):
    target, logits = scored_rows()
    other = np.where((target < 0)[..., None], 99, logits)
    np.testing.assert_array_equal(ops.nll(target, logits), ops.nll(target, other))
    np.testing.assert_array_equal(ops.accuracy(target, logits, k=2), ops.accuracy(target, other, k=2))


def test_the_choices_are_these_functions(keras):
    target, logits = scored_rows()
    for name, expected in (
        ("nll", ops.nll(target, logits)),
        ("accuracy", ops.accuracy(target, logits, k=1)),
        ("top_k_accuracy", ops.accuracy(target, logits, k=5)),
    ):
        values = component("metric", name)(target, logits)
        np.testing.assert_array_equal(values, expected)
    assert [node("metric", n)["goal"] for n in ("nll", "accuracy", "top_k_accuracy")] == ["min", "max", "max"]
    batch, outputs = SimpleNamespace(target=target), {"output": logits}
    np.testing.assert_array_equal(component("loss", "nll")(batch, outputs, None), ops.nll(target, logits))


# ---- the state that is carried


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("choice", CELLS)
def test_two_batches_are_one_long_read_from_the_zero_state(keras, choice, layers):
    model, ids = model_of(choice, layers=layers), ids_of(B, 14)
    whole = logits_of(model, ids)
    parts = [logits_of(model, part, training=True) for part in (ids[:, :5], ids[:, 5:])]
    close(np.concatenate(parts, axis=1), whole, 1e-5)
    close(logits_of(model, ids[:, :5]), whole[:, :5], 1e-6)  # out of training it begins at zeros whatever is carried
    close(logits_of(model, ids[:2, :5]), whole[:2, :5], 1e-6)  # and with any number of rows


def test_what_is_carried_is_forgotten_on_request(keras):
    model, ids = model_of("lstm"), ids_of(B, 6)
    first, second = (logits_of(model, ids, training=True) for _ in range(2))
    assert np.abs(first - second).max() > 1e-3
    for layer in carried(model):
        layer.reset_state()
    close(logits_of(model, ids, training=True), first, 1e-6)
    for layer in carried(model):
        for state in layer.state:
            assert state.shape == (B, 8)
            assert not state.trainable


def test_the_start_of_an_epoch_empties_the_state(keras):
    model, x = model_of("lstm", layers=2), ids_of(1, 100)[0]
    batches = Streams(model, x, lambda rows, rng: (rows[:, 0], rows[:, 1]), B, 5, 0)
    logits_of(model, batches[0][0], training=True)
    states = [state for layer in carried(model) for state in layer.state]
    assert len(states) == 4
    assert all(np.any(state) for state in states)
    batches.start(1)
    assert not any(np.any(state) for state in states)


def test_recurrent_dropout_changes_training_alone(keras):
    model, ids = model_of("lstm", recurrent_dropout=0.5), ids_of(B, 6)
    plain = logits_of(model_of("lstm"), ids)

    def trained():
        for layer in carried(model):
            layer.reset_state()
        return logits_of(model, ids, training=True)

    one, two = trained(), trained()
    close(logits_of(model, ids), plain, 1e-6)
    close(one[:, 0], plain[:, 0], 1e-6)  # no state has been multiplied yet
    assert np.abs(one[:, 1:] - plain[:, 1:]).max() > 1e-3
    assert np.abs(one[:, 1:] - two[:, 1:]).max() > 1e-3


@pytest.mark.parametrize("choice", ["gates", "gru", "rnn"])
def test_recurrent_dropout_is_for_the_lstm(keras, choice):
    with pytest.raises(ConfigError, match=rf"model.recurrent_dropout=0.2: is for the LSTM; 0 with cell={choice}"):
        model_of(choice, recurrent_dropout=0.2)


def test_dropout_hides_the_same_numbers_at_each_step(keras):
    model, ids = model_of("lstm", dropout=0.5, hidden=40), ids_of(B, 9)
    close(logits_of(model, ids), logits_of(model_of("lstm", hidden=40), ids), 1e-6)
    (drop,) = (layer for layer in model.layers if isinstance(layer, keras.layers.SpatialDropout1D))
    hidden = np.array(drop(np.ones((2, 9, 40), np.float32), training=True)) == 0
    assert 0.3 < hidden.mean() < 0.7
    assert (hidden == hidden[:, :1]).all()


# ---- gradients


def lstm_arrays(keras, m=5, n=4, t=7):
    layer = keras.layers.LSTM(n, return_sequences=True, return_state=True)
    layer.build((B, t, m))
    rng = np.random.default_rng(2)
    for weight in layer.trainable_weights:
        weight.assign(rng.normal(0, 0.5, weight.shape))
    return layer, [rng.normal(size=s).astype(np.float32) for s in ((B, t, m), (B, n), (B, n))]


def test_the_written_out_gradient_is_that_of_keras(keras):
    """Of a loss of every h, of the last h and of the last C: with respect to inputs, first state and weights."""
    import tensorflow as tf

    from aelab import backend

    layer, (x, h, C) = lstm_arrays(keras)
    rng = np.random.default_rng(3)
    towards = [rng.normal(size=s).astype(np.float32) for s in ((B, 7, 4), (B, 4), (B, 4))]
    kernel, recurrent, bias = (w.value for w in layer.trainable_weights)

    def ours(x, h, C):
        return backend.lstm(tf.matmul(x, kernel) + bias, recurrent, h, C)

    found = []
    for outputs in (ours, lambda x, h, C: layer(x, initial_state=[h, C])):
        given_ = [tf.constant(a) for a in (x, h, C)]
        with tf.GradientTape() as tape:
            tape.watch(given_)
            got = outputs(*given_)
            loss = sum(tf.reduce_sum(a * b) for a, b in zip(got, towards, strict=True))
        gradients = tape.gradient(loss, [*given_, kernel, recurrent, bias])
        found.append([np.array(a) for a in (*got, *gradients)])
    assert len(found[0]) == 9
    for one, other in zip(*found, strict=True):
        assert np.abs(other).max() > 0.1
        close(one, other, 1e-5)


def test_no_gradient_goes_back_beyond_the_batch_and_each_reaches_every_weight(keras):
    """After a batch the gradients are those of Keras's layer that is given its last state as a constant."""
    import tensorflow as tf

    model, ids = model_of("lstm"), ids_of(B, 6)
    (layer,) = carried(model)
    for _ in range(2):  # from the zero state, and from a carried one
        before = [np.array(state) for state in layer.state]

        def of_keras(before=before):
            embed, *_, dense = (x for x in model.layers if x.trainable_weights)
            return dense(layer.rnn(embed(ids), initial_state=before)[0])

        found = []
        for outputs in (of_keras, lambda: model(ids, training=True)):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(ops.nll(ids, outputs()))
            gradients = tape.gradient(loss, [w.value for w in model.trainable_weights])
            found.append([np.array(tf.convert_to_tensor(gradient)) for gradient in gradients])
        for one, other in zip(*found, strict=True):
            assert np.any(other)
            close(one, other, 1e-6)
    assert all(np.any(state) for state in before)


def test_in_bfloat16_training_is_near_and_all_else_stays_float32(keras):
    keras.config.set_dtype_policy("mixed_bfloat16")
    half = model_of("lstm")
    keras.config.set_dtype_policy("float32")
    whole, ids = model_of("lstm"), ids_of(B, 6)
    np.testing.assert_array_equal(logits_of(half, ids), logits_of(whole, ids))
    one, two = logits_of(half, ids, training=True), logits_of(whole, ids, training=True)
    assert one.dtype == np.float32
    assert 1e-5 < np.abs(one - two).max() < 0.05
    assert {w.dtype for layer in (half, *half.layers) for w in layer.weights if "seed" not in w.path} == {"float32"}


# ---- the cells


def test_our_gates_are_the_lstm_of_keras(keras):
    from aelab.models.language import GateCell

    layer, (x, h, C) = lstm_arrays(keras)
    ours = keras.layers.RNN(GateCell(4), return_sequences=True, return_state=True)
    ours.build(x.shape)
    W, b = from_keras(*layer.get_weights())
    for name, kernel, bias in zip(GateCell.GATES, np.split(W, 4, axis=1), np.split(b, 4), strict=True):
        getattr(ours.cell, f"W_{name}").assign(kernel)
        getattr(ours.cell, f"b_{name}").assign(bias)
    for one, other in zip(ours(x, initial_state=[h, C]), layer(x, initial_state=[h, C]), strict=True):
        close(one, other, 1e-6)


def test_the_forget_gate_begins_open(keras):
    model = component("model", "gates", **PLAIN)((V, B))
    (layer,) = carried(model)
    cell = layer.rnn.cell
    assert [float(np.mean(getattr(cell, f"b_{gate}"))) for gate in cell.GATES] == [1, 0, 0, 0]


@pytest.mark.parametrize("choice", CELLS)
def test_a_model_survives_a_file(keras, choice, tmp_path):
    dropped = {"dropout": 0.2, "recurrent_dropout": 0.2 if choice == "lstm" else 0.0, "layers": 2}
    model, ids = model_of(choice, **dropped), ids_of(B, 9)
    logits_of(model, ids, training=True)  # so that it carries something
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    np.testing.assert_allclose(logits_of(again, ids), logits_of(model, ids), atol=1e-6)
    for one, other in zip(carried(again), carried(model), strict=True):
        for key in ("streams", "recurrent_dropout", "products"):
            assert getattr(one, key) == getattr(other, key)
    assert logits_of(again, ids, training=True).shape == (B, 9, V)


@pytest.mark.parametrize("choice", CELLS)
def test_the_seed_fixes_the_weights(keras, choice):
    def weights(seed):
        keras.utils.set_random_seed(seed)
        return np.concatenate([w.numpy().ravel() for w in component("model", choice, **PLAIN)((V, B)).weights])

    np.testing.assert_array_equal(weights(1), weights(1))
    assert not np.array_equal(weights(1), weights(2))


# ---- in NumPy


@pytest.mark.parametrize("choice", ["lstm", "gates"])
def test_a_thousand_steps_in_numpy_are_those_of_keras(keras, choice):
    from aelab import export

    model, ids = model_of(choice, layers=2, dropout=0.3), ids_of(2, 1000)
    assert export.can(model)
    ours = LanguageModel(*export.from_model(model))
    logits, _ = ours.run(ids.T, ours.start(2))
    close(logits.swapaxes(0, 1), model.predict(ids, verbose=0), 1e-5)


def test_recurrent_dropout_can_be_exported(keras):
    from aelab import export

    plain, dropped = model_of("lstm"), model_of("lstm", recurrent_dropout=0.5)
    for one, other in zip(export.from_model(plain).layers[0], export.from_model(dropped).layers[0], strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("choice", ["gru", "rnn"])
def test_other_cells_cannot_be_exported(keras, choice):
    from aelab import export

    assert not export.can(model_of(choice))
    assert not export.can(component("model", "unigram")((V, B)))


# ---- looking inside


def numpy_model(seed=0, n=(4, 5), dtype=np.float64):
    rng = np.random.default_rng(seed)
    shapes = [(m + k, 4 * k) for m, k in itertools.pairwise((3, *n))]
    layers = tuple((rng.normal(0, 0.7, s).astype(dtype), rng.normal(size=s[1]).astype(dtype), None) for s in shapes)
    rest = [rng.normal(size=s).astype(dtype) for s in ((V, 3), (n[-1], V), (V,))]
    return LanguageModel(*Weights(rest[0], layers, *rest[1:]))


@pytest.mark.parametrize("layer", [0, 1])
def test_a_trace_is_the_gates_step_by_step(layer):
    model, ids = numpy_model(), ids_of(1, 12)[0]
    traced = memory.trace(model, ids, layer)
    assert list(traced) == ["f", "i", "C~", "o", "C", "h"]
    below = model.embedding[ids]
    for cell in model.cells[:layer]:
        below = cell.run(below, *(s[0] for s in cell.start(1)))[0]
    cell = model.cells[layer]
    h, C = np.zeros(cell.n), np.zeros(cell.n)
    for t, x in enumerate(below):
        gates = cell.gates(x, h, C)
        h, C = cell.step(x, h, C)
        for name, expected in zip(traced, (*gates, C, h), strict=True):
            close(traced[name][t], expected, 1e-12)
    assert {values.shape for values in traced.values()} == {(12, cell.n)}


def test_drawn_units_go_from_those_that_keep_to_those_that_forget():
    rng = np.random.default_rng(0)
    for n in (3, 16, 50):
        open_ = rng.permutation(np.linspace(0.1, 0.9, n))
        rows = memory.slow({"f": np.tile(open_, (4, 1))})
        assert len(rows) == min(n, memory.UNITS) == len(set(rows))
        assert (rows[0], rows[-1]) == (open_.argmax(), open_.argmin())
        assert (np.diff(open_[rows]) < 0).all()


def test_the_gates_table_by_hand():
    """A forget gate of 1/2 halves the cell at each step, one of 1/4 in half a step, one of 0.9 in 6.58 steps."""
    f = np.tile([0.25, 0.9, 0.5], (2, 1))
    C = np.array([[3.0, 0.1, -1], [0, -0.2, 0.5]])
    table = memory.gates_table({"f": f, "i": f / 2, "o": 1 - f, "C": C}, ["a", "\n"])
    assert table.index.tolist() == [1, 2, 0]
    np.testing.assert_allclose(table["tokens to forget half"], [np.log(0.5) / np.log(0.9), 1, 0.5])
    assert table["fullest at"].tolist() == ["'\\n'", "'a'", "'a'"]
    np.testing.assert_allclose(table["i"], [0.45, 0.25, 0.125])


def chance_of(model, embedded, target):
    """log p(target) after the last of embedded tokens (t, m), in float64."""
    for cell in model.cells:
        embedded = cell.run(embedded, np.zeros(cell.n), np.zeros(cell.n))[0]
    return np.log(softmax(embedded[-1] @ model.kernel + model.bias)[target])


def test_reach_is_the_gradient_by_finite_differences(keras):
    """In NumPy, in float64: each number of each embedding is moved by 1e-5 both ways."""
    from aelab import export

    model, ids, targets = model_of("lstm", layers=2), ids_of(3, 6), np.array([1, 7, 4])
    found = export.from_model(model)
    layers = [(W.astype(float), b.astype(float), None) for W, b, _ in found.layers]
    double = LanguageModel(found.embedding.astype(float), layers, found.kernel.astype(float), found.bias.astype(float))
    norms = np.zeros((3, 6))
    for row, (tokens, target) in enumerate(zip(ids, targets, strict=True)):
        embedded = double.embedding[tokens]
        gradient = np.zeros_like(embedded)
        for at in np.ndindex(gradient.shape):
            ends = []
            for way in (1e-5, -1e-5):
                moved = embedded.copy()
                moved[at] += way
                ends.append(chance_of(double, moved, target))
            gradient[at] = (ends[0] - ends[1]) / 2e-5
        norms[row] = np.linalg.norm(gradient, axis=1)
    expected = norms.mean(axis=0)[::-1]
    reached = memory.reach(model, ids, targets, [0, 1, 3, 5])
    np.testing.assert_allclose(reached, expected[[0, 1, 3, 5]] / expected[0], rtol=1e-4)
    assert reached[0] == 1


# ---- writing


LOGITS = np.log(np.array([0.0001, 0.4, 0.3, 0.2, 0.0999])).astype(np.float32)


def draws(count, **knobs):
    rng = np.random.default_rng(5)
    return np.array(
        [choose(frozen(LOGITS.copy()), rng, **{"temperature": 1.0, "top_k": 0} | knobs) for _ in range(count)]
    )


def test_temperature_0_takes_the_likeliest():
    assert set(draws(20, temperature=0)) == {1}
    assert set(draws(20, temperature=0, top_k=3)) == {1}
    assert set(draws(20, temperature=1e-6)) == {1}


def test_a_temperature_of_nearly_0_takes_the_likeliest_too():
    assert set(draws(20, temperature=1e-310)) == {1}


def test_the_unknown_token_is_never_taken():
    logits = np.array([9, 0, 0], np.float32)
    rng = np.random.default_rng(0)
    for knobs in ({"temperature": 0, "top_k": 0}, {"temperature": 1, "top_k": 1}, {"temperature": 1e6, "top_k": 0}):
        assert UNKNOWN not in {choose(logits, rng, **knobs) for _ in range(50)}
    assert logits[UNKNOWN] == 9  # the caller's own


@pytest.mark.parametrize(
    ("top_k", "taken"), [(1, {1}), (2, {1, 2}), (3, {1, 2, 3}), (4, {1, 2, 3, 4}), (99, {1, 2, 3, 4})]
)
def test_top_k_takes_the_likeliest_ones_alone(top_k, taken):
    assert set(draws(300, top_k=top_k)) == taken


def test_top_k_takes_no_more_where_logits_are_equal():
    rng = np.random.default_rng(0)
    found = {choose(np.zeros(6, np.float32), rng, temperature=1.0, top_k=2) for _ in range(100)}
    assert found == {1, 2}


@pytest.mark.parametrize("knobs", [{}, {"temperature": 0.5}, {"temperature": 2.0}, {"top_k": 3}], ids=str)
def test_tokens_come_as_often_as_softmax_says(knobs):
    count, k = 6000, knobs.get("top_k") or 4
    p = np.exp(LOGITS[1 : k + 1].astype(float) / knobs.get("temperature", 1.0))
    expected = count * p / p.sum()
    seen = np.bincount(draws(count, **knobs), minlength=5)[1 : k + 1]
    assert seen.sum() == count
    assert ((seen - expected) ** 2 / expected).sum() < chi2.ppf(0.999, k - 1)


def test_the_same_seed_writes_the_same():
    model, start = numpy_model(), np.array([3, 1])

    def text(seed, **knobs):
        knobs = {"temperature": 1.0, "top_k": 0} | knobs
        return list(itertools.islice(write(model, start, seed=seed, **knobs), 40))

    assert text(0) == text(0)
    assert text(0) != text(1)
    assert text(0, temperature=0) == text(1, temperature=0)
    assert text(0)[:7] == list(itertools.islice(write(model, start, seed=0, temperature=1.0, top_k=0), 7))
    assert UNKNOWN not in text(0)


def test_the_likeliest_text_by_hand():
    """Each token is the likeliest after all that stands before it, the model run anew over the whole."""
    model, text = numpy_model(), [3, 1]
    for i in itertools.islice(write(model, np.array(text), temperature=0, top_k=0, seed=0), 8):
        logits = model.run(np.array(text)[:, None], model.start(1))[0][-1, 0]
        assert i == 1 + logits[1:].argmax()
        text.append(i)
