"""Side by side: one step of an LSTM in Keras's predict, in a tf.function, and in NumPy by aelab.inference.

    python -m bench.lstm

Hidden 128, embedding 64, vocabulary 5,000, float32, weights as Keras starts them: time does not depend on them. Each
takes a token and the state, and gives logits and the new state; "cell" is the LSTM alone, without embedding and logits.
"""

import json
import time

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from rich.table import Table

from aelab import export
from aelab.inference.lstm import LanguageModel, LSTMCell
from bench.denoise import OUT, console

V, M, N = 5000, 64, 128
BATCHES = (1, 32, 256)


def clocked(call, times: int) -> dict:
    """Median and 99th percentile of so many calls, in microseconds, after some to warm up."""
    for _ in range(max(times // 10, 3)):
        call()
    spent = np.empty(times)
    for i in range(times):
        clock = time.perf_counter()
        call()
        spent[i] = time.perf_counter() - clock
    return {"median_us": float(np.median(spent) * 1e6), "p99_us": float(np.quantile(spent, 0.99) * 1e6)}


def main() -> None:
    """Measure, print the table, keep it in outputs/bench/lstm.json."""
    ids, states = keras.Input((1,), dtype="int32"), [keras.Input((N,)), keras.Input((N,))]
    embedding, lstm, dense = layers.Embedding(V, M), layers.LSTM(N, return_state=True), layers.Dense(V)
    made, *after = lstm(embedding(ids), initial_state=states)
    step = keras.Model([ids, *states], [dense(made), *after])
    whole = keras.Sequential([keras.Input((None,)), embedding, layers.LSTM(N, return_sequences=True), layers.Dense(V)])
    for ours, theirs in ((whole.layers[1], lstm), (whole.layers[2], dense)):
        ours.set_weights(theirs.get_weights())
    weights = export.from_model(whole)
    model, cell = LanguageModel(*weights), LSTMCell(*weights.layers[0])

    zeros = [np.zeros((1, 1), np.int32), np.zeros((1, N), np.float32), np.zeros((1, N), np.float32)]
    function, tensors = tf.function(step, jit_compile=False), [tf.constant(a) for a in zeros]
    x, h, C = np.zeros(M, np.float32), *cell.start(1)
    results = {
        "Keras predict": clocked(lambda: step.predict(zeros, verbose=0), 100),
        "tf.function": clocked(lambda: function(tensors), 2000),
    }
    for b in BATCHES:
        tokens, state = np.zeros(b, np.int64), model.start(b)
        results[f"NumPy, whole model, batch {b}"] = clocked(lambda t=tokens, s=state: model.step(t, s), 2000)
    results["NumPy, cell"] = clocked(lambda: cell.step(x, h[0], C[0]), 20_000)
    for name, found in results.items():
        batch = int(name.rpartition(" ")[2]) if "batch" in name else 1
        found["tokens_a_second"] = batch / found["median_us"] * 1e6

    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "lstm.json").write_text(json.dumps(results, indent=2) + "\n")
    table = Table("one step", title=f"LSTM, hidden {N}, embedding {M}, vocabulary {V:,}")
    for column in ("median us", "p99 us", "tokens a second", "predict / this", "tf.function / this"):
        table.add_column(column, justify="right")
    for name, r in results.items():
        ratios = (results[k]["median_us"] / r["median_us"] for k in ("Keras predict", "tf.function"))
        figures = r["median_us"], r["p99_us"], r["tokens_a_second"], *ratios
        table.add_row(name, *(f"{v:,.1f}" for v in figures))
    console.print(table)


if __name__ == "__main__":
    main()
