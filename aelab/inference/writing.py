"""Writing with a language model: one token after another, each drawn from what the model expects."""

from collections.abc import Iterator

import numpy as np

from aelab.inference.lstm import LanguageModel, softmax
from aelab.inference.tokens import UNKNOWN

SMALLEST = 1e-300
"""Temperatures below this count as this: a division by less would overflow."""


def choose(logits: np.ndarray, rng: np.random.Generator, *, temperature: float, top_k: int) -> int:
    """An id drawn from softmax(logits / temperature), logits (v,), among the `top_k` likeliest; 0 takes them all.

    Temperature 0 takes the likeliest. The unknown token is never taken.
    """
    logits = logits.astype(np.float64)
    logits[UNKNOWN] = -np.inf
    if temperature == 0:
        return int(logits.argmax())
    if 0 < top_k < len(logits):
        logits[np.argsort(-logits, kind="stable")[top_k:]] = -np.inf
    return int(rng.choice(len(logits), p=softmax(logits / max(temperature, SMALLEST))))


def write(model: LanguageModel, ids: np.ndarray, *, temperature: float, top_k: int, seed: int) -> Iterator[int]:
    """Ids that go on after `ids` (n,), without end; at least one to begin with. The same seed writes the same."""
    rng, state = np.random.default_rng(seed), model.start(1)
    for i in ids:
        logits, state = model.step(np.array([i]), state)
    while True:
        i = choose(logits[0], rng, temperature=temperature, top_k=top_k)
        yield i
        logits, state = model.step(np.array([i]), state)
