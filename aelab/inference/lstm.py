"""The LSTM, step by step, in NumPy alone: one matrix product a step, and no state but what the caller carries.

    f  = sigma(W_f [x, h] + b_f)           how much of the cell stays (Gers et al., 2000)
    i  = sigma(W_i [x, h] + b_i)           how much of the candidate enters
    C~ = tanh (W_C [x, h] + b_C)           the candidate
    C' = f C + i C~                        added, not multiplied on: what the gates leave alone is kept as it is
    o  = sigma(W_o [x, h] + b_o)           how much of the cell is shown
    h' = o tanh(C')

Hochreiter and Schmidhuber (1997), with the forget gate of Gers, Schmidhuber and Cummins (2000) and, if you like, the
peepholes of Gers, Schraudolph and Schmidhuber (2002): gates that see the cell, f and i the old C, o the new one.

Letters in shapes: b batch, t steps, m inputs, n hidden, v vocabulary. The four gates lie in one kernel W (m + n, 4n)
and one bias b (4n,), columns in the order f, i, C~, o in which the formulas are read. The inputs come first and a
gate's weights stand in columns, so that rows of a batch multiply from the left and W[:m] and W[m:] are whole blocks.

A worked example, with n = m = 2: h = [0.5, -0.1], x = [1, 0], C = [0.2, 0.8], and weights that make the arguments of
f, i, C~ and o  [1, -1], [0, 1], [0.5, -0.5] and [1, 1]:

    >>> z = np.array([[1, -1], [0, 1], [0.5, -0.5], [1, 1]])
    >>> cell = LSTMCell(np.vstack([z.ravel(), np.zeros((3, 8))]), np.zeros(8))
    >>> h, C = cell.step(np.array([1.0, 0]), np.array([0.5, -0.1]), np.array([0.2, 0.8]))
    >>> C.round(6).tolist(), h.round(6).tolist()
    ([0.37727, -0.122682], [0.263426, -0.08924])

The text that this example is from prints C_2 = -0.12253 and h_2 = -0.090. Both are slips: 0.731059 x 0.462117 is
0.337835, not 0.337684; and tanh(C_2) was rounded to -0.123 on the way to h_2.
"""

from collections.abc import Sequence

import numpy as np

from aelab.config import AelabError

DTYPES = (np.dtype(np.float32), np.dtype(np.float64))


def sigmoid(z):
    """1 / (1 + exp(-z)) as (1 + tanh(z / 2)) / 2: no float overflows, and 0 and 1 are reached. Keeps shape and dtype.

    Exact to about a rounding of 1, not of a value near 0: what a gate needs, not what a logarithm needs.
    """
    return 0.5 + 0.5 * np.tanh(0.5 * z)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities (..., v) of logits (..., v): exp(z) / sum(exp(z)), the same for logits that are shifted."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


class LSTMCell:
    """One layer: kernel W (m + n, 4n), bias b (4n,), columns f, i, C~, o; peepholes (3, n), of f, i and o, or None.

    All are float32 or all float64, and so is what it is given and what it gives. It changes nothing that it is given.
    Errors: AelabError for other shapes and dtypes, here and in each call.
    """

    def __init__(self, W: np.ndarray, b: np.ndarray, peepholes: np.ndarray | None = None):
        n = W.shape[-1] // 4 if W.ndim else 0
        right = W.ndim == 2 and n and W.shape[1] == 4 * n and W.shape[0] > n and b.shape == (4 * n,)
        if not right or (peepholes is not None and peepholes.shape != (3, n)):
            got = f"{W.shape}, {b.shape}, {None if peepholes is None else peepholes.shape}"
            raise AelabError(f"LSTM: expected W (m + n, 4n), b (4n,), peepholes (3, n) or None, got {got}")
        if W.dtype not in DTYPES or any(a.dtype != W.dtype for a in (b, peepholes) if a is not None):
            kinds = ", ".join(str(a.dtype) for a in (W, b, peepholes) if a is not None)
            raise AelabError(f"LSTM: expected weights all float32 or all float64, got {kinds}")
        self.m, self.n, self.dtype = W.shape[0] - n, n, W.dtype
        self.W, self.b, self.peepholes = np.ascontiguousarray(W), b, peepholes
        # sigma(z) = 1/2 tanh(z / 2) + 1/2: with these a single tanh does for all four gates
        self._scale = np.repeat(np.array([0.5, 0.5, 1, 0.5], W.dtype), n)
        self._shift = np.repeat(np.array([0.5, 0.5, 0, 0.5], W.dtype), n)

    def _check(self, x: tuple[int, ...], dtype: np.dtype, h: np.ndarray, C: np.ndarray) -> None:
        """Refuse inputs that are not of shape x (m,) or (b, m), and states that are not (n,) or (b, n) with them."""
        right = len(x) in (1, 2) and x[-1] == self.m and h.shape == C.shape == (*x[:-1], self.n)
        if not (right and dtype == h.dtype == C.dtype == self.dtype):
            raise AelabError(
                f"LSTM: expected x (m,) or (b, m), h and C (n,) or (b, n), m {self.m}, n {self.n}, {self.dtype}, "
                f"got x {x} {dtype}, h {h.shape} {h.dtype}, C {C.shape} {C.dtype}"
            )

    def _open(self, z: np.ndarray, C: np.ndarray) -> tuple[np.ndarray, ...]:
        """f, i, C~, o and the new C, of the arguments z (..., 4n), which are overwritten, and the old C (..., n)."""
        n, peepholes = self.n, self.peepholes
        if peepholes is not None:
            z[..., :n] += peepholes[0] * C
            z[..., n : 2 * n] += peepholes[1] * C
            of_output = z[..., 3 * n :].copy()  # it waits for the new C
        z *= self._scale
        np.tanh(z, z)
        z *= self._scale
        z += self._shift
        f, i, candidate, o = z[..., :n], z[..., n : 2 * n], z[..., 2 * n : 3 * n], z[..., 3 * n :]
        C = f * C
        C += i * candidate
        if peepholes is not None:
            o = sigmoid(of_output + peepholes[2] * C)
        return f, i, candidate, o, C

    def _advance(self, x: np.ndarray, h: np.ndarray, C: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`step` without its checks."""
        z = np.concatenate((x, h), axis=-1) @ self.W
        z += self.b
        *_, o, C = self._open(z, C)
        h = np.tanh(C)
        h *= o
        return h, C

    def start(self, b: int) -> tuple[np.ndarray, np.ndarray]:
        """The empty state: h and C (b, n), zeros."""
        return np.zeros((b, self.n), self.dtype), np.zeros((b, self.n), self.dtype)

    def gates(self, x: np.ndarray, h: np.ndarray, C: np.ndarray) -> tuple[np.ndarray, ...]:
        """f, i, C~ and o, each of the shape of C: what a step on x (m,) or (b, m) would do to it."""
        self._check(x.shape, x.dtype, h, C)
        return self._open(np.concatenate((x, h), axis=-1) @ self.W + self.b, C)[:4]

    def step(self, x: np.ndarray, h: np.ndarray, C: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The next h and C, of x (m,) with h and C (n,), or of x (b, m) with h and C (b, n)."""
        self._check(x.shape, x.dtype, h, C)
        return self._advance(x, h, C)

    def run(self, xs: np.ndarray, h: np.ndarray, C: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Every h, (t, n) or (t, b, n), and the last h and C, of a sequence xs (t, m) or (t, b, m); t may be 0.

        The same as so many steps, to the bit: the inputs' part of all the products at once would gain a tenth at most.
        """
        self._check(xs.shape[1:], xs.dtype, h, C)
        hs = np.empty((len(xs), *h.shape), self.dtype)
        for k, x in enumerate(xs):
            h, C = self._advance(x, h, C)
            hs[k] = h
        return hs, h, C


State = tuple[tuple[np.ndarray, np.ndarray], ...]
"""h and C, each (b, n), of every layer, from the input up."""


class LanguageModel:
    """Embedding (v, m), layers of an LSTM, and dense: logits = h kernel + bias, kernel (n, v), bias (v,).

    `layers` are the W, b and peepholes of each `LSTMCell`, from the input up: a layer's m is the n of the one below.
    `weights.read` gives the four as they are asked for here. Errors: AelabError where they do not fit, and for ids
    and states that do not.
    """

    def __init__(self, embedding: np.ndarray, layers: Sequence[tuple], kernel: np.ndarray, bias: np.ndarray):
        self.embedding, self.kernel, self.bias = embedding, kernel, bias
        self.cells = tuple(LSTMCell(*layer) for layer in layers)
        self.v, m = embedding.shape if embedding.ndim == 2 else (0, 0)
        below = (m, *(cell.n for cell in self.cells))
        above = (*(cell.m for cell in self.cells), kernel.shape[0] if kernel.ndim == 2 else 0)
        if not (self.v and self.cells and below == above and (kernel.shape[1], *bias.shape) == (self.v, self.v)):
            cells = ", ".join(f"{cell.m} to {cell.n}" for cell in self.cells)
            raise AelabError(
                "language model: expected embedding (v, m), LSTM layers m to n, kernel (n, v) and bias (v,), "
                f"got {embedding.shape}, {cells or 'none'}, {kernel.shape}, {bias.shape}"
            )
        if len({a.dtype for a in (embedding, kernel, bias, *(cell.W for cell in self.cells))}) > 1:
            raise AelabError("language model: expected weights all float32 or all float64")

    def start(self, b: int) -> State:
        """The state before the first token: zeros."""
        return tuple(cell.start(b) for cell in self.cells)

    def _check(self, ids: np.ndarray, axes: int, state: State) -> None:
        """Refuse ids that are not whole numbers in [0, v), with so many axes, and a state of other layers."""
        if ids.ndim != axes or ids.dtype.kind not in "iu":
            shape = "(b,)" if axes == 1 else "(t, b)"
            raise AelabError(f"language model: expected token ids, whole numbers {shape}, got {ids.dtype} {ids.shape}")
        if ids.size and not 0 <= ids.min() <= ids.max() < self.v:
            raise AelabError(f"language model: expected ids from 0 to {self.v - 1}, got {ids.min()} to {ids.max()}")
        if len(state) != len(self.cells):
            raise AelabError(f"language model: expected the state of {len(self.cells)} layers, got {len(state)}")

    def step(self, ids: np.ndarray, state: State) -> tuple[np.ndarray, State]:
        """Logits (b, v) of the token after `ids` (b,), and the next state; the one given stays as it is."""
        self._check(ids, 1, state)
        x, new = self.embedding[ids], []
        for cell, (h, C) in zip(self.cells, state, strict=True):
            x, C = cell.step(x, h, C)
            new.append((x, C))
        return x @ self.kernel + self.bias, tuple(new)

    def run(self, ids: np.ndarray, state: State) -> tuple[np.ndarray, State]:
        """Logits (t, b, v) after each of the tokens `ids` (t, b), and the state after the last."""
        self._check(ids, 2, state)
        xs, new = self.embedding[ids], []
        for cell, (h, C) in zip(self.cells, state, strict=True):
            xs, h, C = cell.run(xs, h, C)
            new.append((h, C))
        return xs @ self.kernel + self.bias, tuple(new)
