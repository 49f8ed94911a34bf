"""Language models between Keras and the NumPy of `aelab.inference`: their weights, from one to the other and back.

What is known: an Embedding, LSTM layers that give every h, and a Dense, one after the other. An LSTM may be Keras's own
or our gate by gate one, and may carry its state in training. `InputLayer` and `Dropout`, which do nothing once a model
is trained, are passed over. Letters in shapes as in `aelab.inference`.
"""

import re

import keras
import numpy as np

from aelab.config import AelabError
from aelab.inference.weights import Weights, from_keras, to_keras
from aelab.models.language import Carried, GateCell

KNOWN = {
    keras.layers.Embedding: {"mask_zero": (False,)},
    keras.layers.ReversibleEmbedding: {
        "mask_zero": (False,),
        "tie_weights": (True,),
        "reverse_dtype": (None,),
        "logit_soft_cap": (None,),
    },
    keras.layers.LSTM: {
        "activation": ("tanh",),
        "recurrent_activation": ("sigmoid",),
        "use_bias": (True,),
        "return_sequences": (True,),
        "return_state": (False,),
        "go_backwards": (False,),
    },
    keras.layers.Dense: {"activation": ("linear", "softmax"), "use_bias": (True,)},
}
"""The layers, and those of their settings that change what is computed, with the values that are known."""
IDLE = (keras.layers.InputLayer, keras.layers.Dropout, keras.layers.SpatialDropout1D)


def inner(layer: keras.Layer) -> keras.Layer:
    """The layer that computes: what a `Carried` carries, and of an RNN of ours its cell."""
    layer = layer.rnn if isinstance(layer, Carried) else layer
    return layer.cell if type(layer) is keras.layers.RNN and isinstance(layer.cell, GateCell) else layer


def can(model) -> bool:
    """Whether the layers of a model are all of the known kinds."""
    kinds = (*KNOWN, *IDLE, GateCell)
    return isinstance(model, keras.Model) and all(type(inner(x)) in kinds for x in model.layers)


def _check(model: keras.Model) -> list[keras.Layer]:
    """The layers that compute something, where they are known and each takes what the one before it gives."""
    if not model.built:
        raise AelabError(f"export: model {model.name} has no weights yet: give it an Input, or call it once")
    if strange := [x for x in model.layers if type(inner(x)) not in (*KNOWN, *IDLE, GateCell)]:
        names = ", ".join(f"{x.name} ({type(x).__name__})" for x in strange)
        raise AelabError(f"export: expected Embedding, LSTM and Dense layers alone, got {names}")
    if not isinstance(model, keras.Sequential):
        sources = re.findall(r'"keras_history": \["([^"]*)"', model.to_json())  # whose output each layer takes, in turn
        names = [x.name for x in model.layers]
        if any(type(x) is keras.layers.ReversibleEmbedding for x in model.layers):
            names = [names[0], names[-1], *names[1:]]  # it stands at both ends
        if sources != names[:-1]:
            got = ", ".join(sources) or "none that Keras knows of"
            raise AelabError(f"export: expected layers in one line, each on the one before, got inputs from {got}")
    layers = [inner(x) for x in model.layers if not isinstance(x, IDLE)]
    carried = {id(x.rnn) for x in model.layers if isinstance(x, Carried)}
    for layer in layers:
        config = layer.get_config()
        for key, values in KNOWN.get(type(layer), {}).items():
            if key == "return_state" and id(layer) in carried:
                continue  # it is taken up again
            if config[key] not in values:
                wanted = " or ".join(map(repr, values))
                raise AelabError(f"export: layer {layer.name}: {key}: expected {wanted}, got {config[key]!r}")
    return layers


def from_model(model: keras.Model) -> Weights:
    """The weights of a Keras model, Sequential or functional, whose outputs are logits (b, t, v) or their softmax.

    A softmax is left out: `LanguageModel` gives logits. Errors: AelabError, with the names of layers that are not
    known, for settings that are not, and for layers that are not an Embedding, LSTM and a Dense in that order; a
    tied `ReversibleEmbedding` is both ends.
    """
    layers = _check(model)
    kinds = ["LSTM" if isinstance(x, GateCell) else type(x).__name__ for x in layers]
    if len(kinds) > 1 and kinds == ["ReversibleEmbedding", *["LSTM"] * (len(kinds) - 1)]:
        (E,), lstm = layers[0].get_weights(), layers[1:]
        return Weights(
            E, tuple((*of_layer(x), None) for x in lstm), np.ascontiguousarray(E.T), np.zeros(len(E), E.dtype)
        )
    if len(kinds) < 3 or kinds != ["Embedding", *["LSTM"] * (len(kinds) - 2), "Dense"]:
        raise AelabError(f"export: expected an Embedding, LSTM layers and a Dense, got {', '.join(kinds) or 'none'}")
    embedding, *lstm, dense = layers
    return Weights(*embedding.get_weights(), tuple((*of_layer(x), None) for x in lstm), *dense.get_weights())


def of_layer(layer: keras.Layer) -> tuple[np.ndarray, np.ndarray]:
    """Our W and b of a Keras LSTM or of a `GateCell`."""
    if not isinstance(layer, GateCell):
        return from_keras(*layer.get_weights())
    kernels = [keras.ops.convert_to_numpy(getattr(layer, f"W_{gate}")) for gate in GateCell.GATES]
    biases = [keras.ops.convert_to_numpy(getattr(layer, f"b_{gate}")) for gate in GateCell.GATES]
    return np.concatenate(kernels, axis=1), np.concatenate(biases)


def to_model(weights: Weights) -> keras.Sequential:
    """A Keras model with these weights: token ids (b, t) to logits (b, t, v), from the zero state.

    Errors: AelabError for peepholes, which `keras.layers.LSTM` has not.
    """
    if any(peepholes is not None for *_, peepholes in weights.layers):
        raise AelabError("export: expected an LSTM without peepholes: that of Keras has none")
    (v, m), dtype = weights.embedding.shape, str(weights.embedding.dtype)
    model = keras.Sequential(
        [
            keras.Input((None,), dtype="int32"),
            keras.layers.Embedding(v, m, dtype=dtype),
            *(keras.layers.LSTM(len(b) // 4, return_sequences=True, dtype=dtype) for _, b, _ in weights.layers),
            keras.layers.Dense(v, dtype=dtype),
        ]
    )
    model.set_weights(
        [weights.embedding, *(a for W, b, _ in weights.layers for a in to_keras(W, b)), weights.kernel, weights.bias]
    )
    return model
