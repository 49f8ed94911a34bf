"""Texts: any file in UTF-8, Tiny Shakespeare, and the language reference that Python carries; as tokens by position."""

import hashlib
from pathlib import Path
from typing import Literal

import numpy as np

from aelab.config import ConfigError, Count, DataError, Share
from aelab.data.fetch import Way, fetch, reads
from aelab.data.limits import afford, regular
from aelab.data.record import Data, Split, Text, fingerprint
from aelab.inference import tokens

Unit = Literal["char", "word"]
TAKES = {"char": 24, "word": 80}
"""Bytes of memory for a byte of text, at the peak: the text, its tokens, their ids and sizes."""
SHAKESPEARE_MD5 = "6fb458f1232090904fb40fe944165e91"


def text(
    *, path: str, unit: Literal["char", "word"], vocabulary: Count | None, test: Share, validation: Share,
    limit: Count | None,
) -> Text:  # fmt: skip
    """A text file in UTF-8: its last `test` is test, of what is left the last `validation` is validation.

    The vocabulary, at most so many tokens, is that of the training part. Errors: DataError for a file that is not
    there, is empty or is not UTF-8.
    """
    file = Path(path)
    return assemble(
        file.stem, read(file, TAKES[unit]), unit, vocabulary, test, validation, limit, source=str(file), licence="yours"
    )


@reads(lambda knobs: [Way("text", ("tinyshakespeare.txt",), knobs["mirrors"])])
def shakespeare(
    *, unit: Literal["char", "word"], vocabulary: Count | None, test: Share, validation: Share, limit: Count | None,
    data_dir: str | None, mirrors: list[str],
) -> Text:  # fmt: skip
    """Tiny Shakespeare: 1,115,394 characters of plays, in one file, as Karpathy (2015) put it together."""
    file = fetch("text", "tinyshakespeare.txt", urls=mirrors, md5=SHAKESPEARE_MD5, data_dir=data_dir)
    with file.open("rb") as stream:
        found = hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if found != SHAKESPEARE_MD5:
        raise DataError(
            f"{file}: expected Tiny Shakespeare, MD5 {SHAKESPEARE_MD5}, got {found}; move it away to have it "
            "downloaded again, or read it as a text of yours: dataset=text path=FILE"
        )
    home = "https://github.com/karpathy/char-rnn"
    return assemble(
        "shakespeare", read(file), unit, vocabulary, test, validation, limit, source=home, licence="public domain"
    )


def python_reference(
    *, unit: Literal["char", "word"], vocabulary: Count | None, test: Share, validation: Share, limit: Count | None
) -> Text:
    """The topics of Python's own help: most of its language reference, about 460,000 characters; no download."""
    from pydoc_data.topics import topics

    content = "\n".join(topics[name] for name in sorted(topics))
    about = {"source": "pydoc_data.topics", "licence": "PSF"}
    return assemble("python_reference", content, unit, vocabulary, test, validation, limit, **about)


def read(file: Path, each: int = TAKES["char"]) -> str:
    """A file's text, its line ends as \\n; a byte-order mark is left out. `each` byte takes so many of memory."""
    try:
        afford(each * regular(file), str(file), "take a part of the text")
        content = file.read_bytes()
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}") from error
    try:
        decoded = content.decode("utf-8").removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{file}: expected a text in UTF-8, got the byte 0x{content[error.start]:02x} at offset {error.start:,} "
            f"({error.reason}); save it as UTF-8, for instance with  iconv -f latin1 -t utf-8"
        ) from error
    if (at := content.find(b"\0")) >= 0:
        raise DataError(
            f"{file}: expected a text in UTF-8, got a NUL byte at offset {at:,}: it is no text, or UTF-16; save it as "
            "UTF-8, for instance with  iconv -f utf-16 -t utf-8"
        )
    return decoded


def assemble(
    name: str, content: str, unit: Unit, vocabulary: int | None, test: float, validation: float, limit: int | None,
    *, source: str, licence: str,
) -> Data:  # fmt: skip
    """The record of a text: cut by position, the vocabulary counted in the training part, each token as its id."""
    if not 0 < test < 1 or validation == 1:
        shares = f"dataset.test={test:g} dataset.validation={validation:g}"
        raise ConfigError(f"{shares}: expected shares of the text below 1, and some of it for test")
    if vocabulary == 1:
        raise ConfigError("dataset.vocabulary=1: expected at least 2, as the unknown token takes one")
    found, sizes = tokens.pieces(content, unit)
    n = len(found)
    end = n - round(n * test)
    start = end - round(end * validation)
    parts = {"train": slice(0, start), "validation": slice(start, end), "test": slice(end, n)}
    needed = [part for part in parts if part != "validation" or validation]
    if empty := [part for part in needed if parts[part].stop - parts[part].start < 2]:
        what = "characters" if unit == "char" else "words"
        raise DataError(
            f"{source}: expected a text with at least 2 {what} in each part, got {n} in all, too few for {empty[0]}"
        )
    known = tokens.vocabulary(found[parts["train"]], unit, vocabulary)
    ids = tokens.encode(found, known)
    splits = {p: Split(ids[rows][:limit], sizes[rows][:limit]) for p, rows in parts.items()}
    missing = float(np.mean(splits["test"].x == tokens.UNKNOWN))
    notes = (
        f"{'characters' if unit == 'char' else 'words and marks'}, a vocabulary of {len(known):,}; "
        f"{missing:.2%} of the test is unknown to it"
    )
    mark = fingerprint(np.frombuffer(content.encode("utf-8", "surrogatepass"), np.uint8))
    return Data(
        name, "text", **splits, label_names=known, source=source, licence=licence, fingerprint=mark, notes=notes
    )
