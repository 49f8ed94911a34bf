"""The weights of a language model: one .npz file without pickle, and the layouts that an LSTM's weights come in.

Letters in shapes: b batch, t steps, m inputs, n hidden, v vocabulary; C~ the candidate. Three layouts of a layer:

    ours        W (m + n, 4n) on [x, h], b (4n,); columns f, i, C~, o: see `lstm` for why
    document    W_f, W_i, W_C, W_o (n, n + m) on [h, x], one under the other: W (4, n, n + m), b (4, n)
    Keras       kernel (m, 4n) on x, recurrent kernel (n, 4n) on h, bias (4n,); columns i, f, C~, o

The file holds arrays by name: `embedding` (v, m), for layer k from 0 up `lstm<k>.W`, `lstm<k>.b` and perhaps
`lstm<k>.peepholes` (3, n), `dense.kernel` (n, v), `dense.bias` (v,); and, as JSON in UTF-8 in an array of bytes,
`header` and perhaps `vocabulary`, a list of v texts. The header names the format, its version, the order of the
gates, the dtype and the sizes, so that nothing has to be guessed from shapes.
"""

import json
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from aelab.config import AelabError, Count, conforms, describe

FORMAT, VERSION = "aelab.lstm", 1
FILE = "weights.npz"
"""Its name in a run folder."""
HEADER = {
    "gates": Literal["f i C o"],
    "dtype": Literal["float32", "float64"],
    "v": Count,
    "m": Count,
    "n": list[Count],
    "peepholes": list[bool],
}
"""What the header says beside `format` and `version`; n and peepholes have one entry for each layer."""


BROKEN = (OSError, EOFError, ValueError, MemoryError, RuntimeError, zipfile.BadZipFile, zlib.error)
"""What NumPy and zipfile raise for files that are not as they should be."""


class Weights(NamedTuple):
    """What `lstm.LanguageModel` is made of: `LanguageModel(*weights)`."""

    embedding: np.ndarray
    """(v, m)"""
    layers: tuple[tuple[np.ndarray, np.ndarray, np.ndarray | None], ...]
    """W (m + n, 4n), b (4n,) and peepholes (3, n) of f, i, o, or None, of each layer, from the input up."""
    kernel: np.ndarray
    """(n, v)"""
    bias: np.ndarray
    """(v,)"""


# ---- layouts


def _expect(right: bool, expected: str, *got: np.ndarray) -> None:
    if not right:
        raise AelabError(f"weights: expected {expected}, got {', '.join(str(a.shape) for a in got)}")


def _expect_ours(W: np.ndarray, b: np.ndarray) -> None:
    right = W.ndim == 2 and b.ndim == 1 and W.shape[1] == len(b) and len(b) % 4 == 0 < len(b) < 4 * len(W)
    _expect(right, "W (m + n, 4n) and b (4n,)", W, b)


def from_document(W: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Our W and b, of W (4, n, n + m) on [h, x] and b (4, n), gates f, i, C~, o; AelabError for other shapes."""
    right = W.ndim == 3 and b.shape == W.shape[:2] and len(W) == 4 and 0 < W.shape[1] < W.shape[2]
    _expect(right, "W (4, n, n + m) and b (4, n)", W, b)
    n = W.shape[1]
    inputs_first = np.concatenate((W[..., n:], W[..., :n]), axis=-1)
    return inputs_first.reshape(4 * n, -1).T.copy(), b.ravel()


def to_document(W: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """W (4, n, n + m) on [h, x] and b (4, n), of our W and b: `from_document` undone, to the bit."""
    _expect_ours(W, b)
    n = len(b) // 4
    by_gate = W.T.reshape(4, n, -1)
    return np.concatenate((by_gate[..., -n:], by_gate[..., :-n]), axis=-1), b.reshape(4, n)


def _swapped(a: np.ndarray) -> np.ndarray:
    """Columns f, i, C~, o (..., 4n) as i, f, C~, o, and those as these."""
    first, second, candidate, o = np.split(a, 4, axis=-1)
    return np.concatenate((second, first, candidate, o), axis=-1)


def from_keras(kernel: np.ndarray, recurrent: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Our W and b, of `keras.layers.LSTM.get_weights()`: (m, 4n), (n, 4n) and (4n,); AelabError for other shapes."""
    n = len(recurrent)
    right = kernel.ndim == 2 and kernel.size and kernel.shape[1:] == bias.shape == (4 * n,)
    _expect(right and recurrent.shape == (n, 4 * n), "(m, 4n), (n, 4n) and (4n,)", kernel, recurrent, bias)
    return _swapped(np.concatenate((kernel, recurrent))), _swapped(bias)


def to_keras(W: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Kernel (m, 4n), recurrent kernel (n, 4n) and bias (4n,), of our W and b: `from_keras` undone, to the bit."""
    _expect_ours(W, b)
    n, W = len(b) // 4, _swapped(W)
    return W[:-n], W[-n:], _swapped(b)


# ---- the file


def _names(layers: int) -> list[tuple[str, str, str]]:
    """The names of W, b and peepholes of each layer."""
    return [(f"lstm{k}.W", f"lstm{k}.b", f"lstm{k}.peepholes") for k in range(layers)]


def _shapes(header: Mapping) -> dict[str, tuple[int, ...]]:
    """The arrays that a header announces."""
    v, m = header["v"], header["m"]
    shapes: dict[str, tuple[int, ...]] = {"embedding": (v, m)}
    for names, n, seen in zip(_names(len(header["n"])), header["n"], header["peepholes"], strict=True):
        shapes |= dict(zip(names, [(m + n, 4 * n), (4 * n,), (3, n)][: 3 if seen else 2], strict=False))
        m = n
    return shapes | {"dense.kernel": (m, v), "dense.bias": (v,)}


def _check_header(header: Any, file: Path) -> None:
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise AelabError(f"{file}: expected the format {FORMAT}; write the file with aelab.inference.weights")
    if header.get("version") != VERSION:
        raise AelabError(f"{file}: version {header.get('version')}, where this aelab knows {VERSION}: export it anew")
    for key, kind in HEADER.items():
        if not conforms(header.get(key), kind):
            raise AelabError(f"{file}: header: {key}: expected {describe(kind)}, got {header.get(key)!r}")
    if len(header["n"]) != len(header["peepholes"]) or not header["n"]:
        raise AelabError(f"{file}: header: expected n and peepholes of each layer, at least one")


def _check_arrays(arrays: Mapping[str, np.ndarray], header: Mapping, file: Path) -> None:
    for name, shape in _shapes(header).items():
        if name not in arrays:
            raise AelabError(f"{file}: {name} is missing; there are {', '.join(arrays)}")
        a = arrays[name]
        if a.shape != shape or a.dtype != header["dtype"]:
            raise AelabError(f"{file}: {name}: expected {header['dtype']} {shape}, got {a.dtype} {a.shape}")
        if not (fine := np.isfinite(a)).all():
            raise AelabError(f"{file}: {name} {shape}: {fine.size - fine.sum()} values are NaN or infinite")


def _check_vocabulary(vocabulary: Any, v: int, file: Path) -> None:
    if not conforms(vocabulary, list[str]) or len(vocabulary) != v or len(set(vocabulary)) != v:
        size = len(vocabulary) if isinstance(vocabulary, list) else type(vocabulary).__name__
        raise AelabError(f"{file}: vocabulary: expected a list of {v} texts, no two alike, got {size}")


def _encoded(value: Any) -> np.ndarray:
    return np.frombuffer(json.dumps(value).encode(), np.uint8)


def _decoded(arrays: dict[str, np.ndarray], name: str, file: Path) -> Any:
    """The JSON of an array of bytes, which is taken out of `arrays`; None where it is not there."""
    if name not in arrays:
        return None
    try:
        return json.loads(arrays.pop(name).tobytes().decode())
    except (ValueError, RecursionError) as error:
        raise AelabError(f"{file}: {name}: expected JSON in UTF-8, as uint8: {error}") from error


def write(file: Path, weights: Weights, vocabulary: Sequence[str] | None) -> None:
    """Write weights, and if there is one the vocabulary: the text of each token, by its id.

    Errors: AelabError, before anything is written, for what `read` would refuse.
    """
    embedding, layers, kernel, bias = weights
    if embedding.ndim != 2:
        raise AelabError(f"{file}: embedding: expected (v, m), got {embedding.shape}")
    header = {"format": FORMAT, "version": VERSION, "gates": "f i C o", "dtype": str(embedding.dtype)}
    header |= dict(zip("vm", embedding.shape, strict=True)) | {"n": [b.size // 4 for _, b, _ in layers]}
    header |= {"peepholes": [seen is not None for *_, seen in layers]}
    arrays = {"embedding": embedding, "dense.kernel": kernel, "dense.bias": bias}
    for names, layer in zip(_names(len(layers)), layers, strict=True):
        arrays |= {name: a for name, a in zip(names, layer, strict=True) if a is not None}
    _check_header(header, file)
    _check_arrays(arrays, header, file)
    if vocabulary is not None:
        _check_vocabulary(list(vocabulary), header["v"], file)
        arrays["vocabulary"] = _encoded(list(vocabulary))
    part = file.with_name(f"{file.name}.part")  # so that `file` is whole whenever it is there
    with part.open("wb") as out:
        np.savez(out, header=_encoded(header), **arrays)
    part.replace(file)


def _arrays(file: Path) -> dict[str, np.ndarray]:
    """Every array of an .npz file."""
    try:
        with file.open("rb") as opened:  # ours: NumPy leaves open what it cannot read
            if not zipfile.is_zipfile(opened):
                opened.seek(0)
                what = "its end is missing" if opened.read(4) == b"PK\x03\x04" else "it is not a zip"
                raise AelabError(f"{file}: expected an .npz of {FORMAT}: {what}")
            opened.seek(0)
            with np.load(opened, allow_pickle=False) as loaded:
                arrays = dict(loaded)
    except FileNotFoundError as error:
        raise AelabError(f"{file} is not there") from error
    except BROKEN as error:
        raise AelabError(f"{file}: cannot be read: {' '.join(str(error).split())}") from error
    return {name: a for name, a in arrays.items() if isinstance(a, np.ndarray)}  # others are no .npy: bytes


def read(file: Path) -> tuple[Weights, list[str] | None]:
    """Weights, and the vocabulary or None, of a file that `write` made.

    Errors: AelabError, on one line that names the file, where it is missing, cut off, no zip, of another format or
    version, or an array is missing, of another shape or dtype, or has a NaN or an infinity.
    """
    arrays = _arrays(file)
    header = _decoded(arrays, "header", file)
    _check_header(header, file)
    vocabulary = _decoded(arrays, "vocabulary", file)
    _check_arrays(arrays, header, file)
    if vocabulary is not None:
        _check_vocabulary(vocabulary, header["v"], file)
    layers = tuple(
        (arrays[W], arrays[b], arrays[peepholes] if seen else None)
        for (W, b, peepholes), seen in zip(_names(len(header["n"])), header["peepholes"], strict=True)
    )
    return Weights(arrays["embedding"], layers, arrays["dense.kernel"], arrays["dense.bias"]), vocabulary
