"""Text to tokens and back, by characters or by words: Python alone.

By characters a token is one. By words it is a word, with the apostrophes inside it, or a punctuation mark, or the end
of a line; spaces are left out, and put back by rule. What the vocabulary lacks is the token `UNKNOWN`.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

import numpy as np

UNKNOWN = 0
NAMES = {"char": "\ufffd", "word": "<unk>"}
"""How the unknown token is written: with characters as the replacement character."""
PIECE = re.compile(r"\s*?(\n|\w+(?:['’]\w+)*|[^\w\s])")
CLOSING, OPENING = set(".,;:!?)]}»”’"), set("([{«“‘\n")


def pieces(text: str, unit: Literal["char", "word"]) -> tuple[list[str], np.ndarray]:
    """(the tokens of a text, how many characters of it each stands for, with the spaces before it, int (n,)).

    >>> pieces("No, I'm not.", "word")[0]
    ['No', ',', "I'm", 'not', '.']
    """
    if unit == "char":
        return list(text), np.ones(len(text), int)
    found = list(PIECE.finditer(text))
    return [m[1] for m in found], np.array([len(m[0]) for m in found], int)


def vocabulary(tokens: Iterable[str], unit: Literal["char", "word"], size: int | None) -> tuple[str, ...]:
    """The unknown token, then the most frequent ones, `size` in all; of equals the first in the alphabet."""
    counts = Counter(tokens)
    counts.pop(NAMES[unit], None)
    known = sorted(counts, key=lambda token: (-counts[token], token))
    return (NAMES[unit], *known[: None if size is None else size - 1])


def encode(tokens: Iterable[str], known: Sequence[str]) -> np.ndarray:
    """Ids int32 (n,) of tokens: their places in the vocabulary."""
    ids = {token: i for i, token in enumerate(known)}
    return np.array([ids.get(token, UNKNOWN) for token in tokens], np.int32)


def spaced(tokens: Iterable[str], unit: Literal["char", "word"], before: str = "") -> Iterator[str]:
    """What to write for each token: words get their spaces. `before` is the token that stands before the first.

    >>> "".join(spaced(["No", ",", "I'm", "not", "."], "word"))
    "No, I'm not."
    """
    for token in tokens:
        joined = unit == "char" or not before or token in CLOSING or token == "\n" or before in OPENING
        yield token if joined else f" {token}"
        before = token
