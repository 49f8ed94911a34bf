"""Recurrent language models: from token ids (b, t) to logits (b, t, v) of the token after each.

Letters in shapes: b batch, t steps, m inputs, n hidden, v vocabulary.
"""

from typing import Literal

import keras
from keras import layers, ops

from aelab import backend
from aelab.config import ConfigError, Count, Share, Tokens


@keras.saving.register_keras_serializable("aelab")
class GateCell(layers.Layer):
    """The LSTM's equations, gate by gate, as `aelab.inference.lstm` has them: the same maths as `keras.layers.LSTM`.

    One kernel (m + n, n) on [x, h] and one bias for each of f, i, C~ and o. The forget gate's bias begins at 1, so
    that the cell keeps what it has until it learns what to forget (Jozefowicz et al., 2015).
    """

    GATES = ("f", "i", "C", "o")

    def __init__(self, units: int, **keywords):
        super().__init__(**keywords)
        self.units, self.state_size, self.output_size = units, [units, units], units

    def build(self, shape):
        """A kernel and a bias for each gate."""
        for gate in self.GATES:
            start = "ones" if gate == "f" else "zeros"
            kernel = self.add_weight(name=f"W_{gate}", shape=(shape[-1] + self.units, self.units))
            bias = self.add_weight(name=f"b_{gate}", shape=(self.units,), initializer=start)
            setattr(self, f"W_{gate}", kernel)
            setattr(self, f"b_{gate}", bias)

    def call(self, x, states):
        """h', [h', C'] of x (b, m) and [h, C]."""
        h, C = states
        both = ops.concatenate([x, h], axis=-1)
        f = ops.sigmoid(both @ self.W_f + self.b_f)
        i = ops.sigmoid(both @ self.W_i + self.b_i)
        candidate = ops.tanh(both @ self.W_C + self.b_C)
        o = ops.sigmoid(both @ self.W_o + self.b_o)
        C = f * C + i * candidate
        h = o * ops.tanh(C)
        return h, [h, C]

    def get_config(self):
        """What the constructor is called with."""
        return {**super().get_config(), "units": self.units}


@keras.saving.register_keras_serializable("aelab")
class Carried(layers.Layer):
    """A recurrent layer of Keras that begins, in training, where it stopped at the batch before; else from zeros.

    Row i of a batch of `streams` rows goes on where row i of the last one ended. No gradient goes back that far.
    All is float32 but, in training, the products of an LSTM, which have the precision `products`; there a share
    `recurrent_dropout` of the recurrent weights is hidden, others for each batch (Merity et al., 2018).
    """

    def __init__(self, rnn, streams: int, recurrent_dropout: float, products: str, **keywords):
        super().__init__(**{"dtype": "float32"} | keywords)
        self.rnn = keras.saving.deserialize_keras_object(rnn) if isinstance(rnn, dict) else rnn
        self.streams, self.recurrent_dropout, self.products = streams, recurrent_dropout, products
        self.seed = keras.random.SeedGenerator()

    def build(self, shape):
        """The layer within, and the state that is kept."""
        self.rnn.build(shape)
        sizes = self.rnn.cell.state_size if hasattr(self.rnn, "cell") else self.rnn.state_size
        sizes = sizes if isinstance(sizes, list | tuple) else [sizes]
        self.state = [
            self.add_weight(name=f"state_{k}", shape=(self.streams, n), initializer="zeros", trainable=False)
            for k, n in enumerate(sizes)
        ]

    def call(self, x, training=None):
        """Every h, (b, t, n), of x (b, t, m)."""
        if not training:
            return self.rnn(x, training=False)[0]
        if isinstance(self.rnn, layers.LSTM):
            outputs, *states = self.trained(x)
        else:
            outputs, *states = self.rnn(x, initial_state=[s.value for s in self.state], training=True)
        for kept, new in zip(self.state, states, strict=True):
            kept.assign(new)
        return outputs

    def trained(self, x):
        """What the LSTM gives, as it is computed in training."""
        cell = self.rnn.cell
        R = cell.recurrent_kernel
        if self.recurrent_dropout:
            R = keras.random.dropout(R, self.recurrent_dropout, seed=self.seed)
        xz = ops.matmul(ops.cast(x, self.products), ops.cast(cell.kernel, self.products))
        return backend.lstm(xz + ops.cast(cell.bias, self.products), ops.cast(R, self.products), *self.state)

    def reset_state(self):
        """Begin anew at the next batch."""
        for kept in self.state:
            kept.assign(ops.zeros_like(kept))

    def compute_output_shape(self, shape):
        """(b, t, n)."""
        return (*shape[:-1], self.rnn.units if hasattr(self.rnn, "units") else self.rnn.cell.units)

    def get_config(self):
        """What the constructor is called with."""
        own = {"streams": self.streams, "recurrent_dropout": self.recurrent_dropout, "products": self.products}
        return {**super().get_config(), **own, "rnn": keras.saving.serialize_keras_object(self.rnn)}


def recurrent(
    tokens: Tokens,
    /,
    *,
    cell: Literal["lstm", "gates", "gru", "rnn"],
    embedding: Count,
    hidden: Count,
    layers: Count,
    dropout: Share,
    embedding_dropout: Share,
    recurrent_dropout: Share,
    tied: bool,
) -> keras.Model:
    """Embedding, recurrent layers one above the other, and the logits.

    `cell` is Keras's LSTM, our own cell with its gates one by one, the GRU (Cho et al., 2014) or the simple RNN
    (Elman, 1990). `dropout` hides a share of the numbers after each layer, `embedding_dropout` of those
    before the first, the same at each step (Gal and Ghahramani, 2016); `recurrent_dropout` is for the LSTM, see
    `Carried`. With `tied`, the logits are products with the embeddings themselves (Press and Wolf, 2017).
    """
    if recurrent_dropout and cell != "lstm":
        raise ConfigError(f"model.recurrent_dropout={recurrent_dropout:g}: is for the LSTM; 0 with cell={cell}")
    if tied and embedding != hidden:
        raise ConfigError(f"model.tied: embedding and hidden must be alike, got {embedding} and {hidden}")
    v, streams = tokens
    ids = keras.Input((None,), dtype="int32")
    if tied:
        table = keras.layers.ReversibleEmbedding(v, embedding, dtype="float32")
    else:  # much wider than Keras's own, with which it learns slower: see decision 11
        start = keras.initializers.RandomNormal(stddev=0.5)
        table = keras.layers.Embedding(v, embedding, embeddings_initializer=start, dtype="float32")
    products = keras.config.dtype_policy().compute_dtype
    x = hide(table(ids), embedding_dropout)
    for _ in range(layers):
        x = hide(Carried(layer(cell, hidden), streams, recurrent_dropout, products)(x), dropout)
    logits = table(x, reverse=True) if tied else keras.layers.Dense(v, dtype="float32")(x)
    return keras.Model(ids, logits, name=cell)


def hide(x, share: float):
    """x (b, t, d) with a share of the d hidden in training, the same at each step."""
    return keras.layers.SpatialDropout1D(share, dtype="float32")(x) if share else x


def layer(cell: str, units: int):
    """A recurrent layer of Keras that gives every h and its last state."""
    whole = {"return_sequences": True, "return_state": True, "dtype": "float32"}
    if cell == "gates":
        return layers.RNN(GateCell(units, dtype="float32"), **whole)
    return {"lstm": layers.LSTM, "gru": layers.GRU, "rnn": layers.SimpleRNN}[cell](units, **whole)
