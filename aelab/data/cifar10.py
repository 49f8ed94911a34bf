"""CIFAR-10: 60,000 colour images 32 x 32 in ten classes."""

import hashlib
import math
import tarfile
from pathlib import Path

import numpy as np

from aelab.config import Count, DataError, Share, Whole
from aelab.data.fetch import Way, fetch, look, reads
from aelab.data.limits import regular
from aelab.data.record import Images, Split, image_data

HOME = "https://www.cs.toronto.edu/~kriz/cifar.html"
# The binary version: the one for Python is pickle, which can run code.
ARCHIVE, MD5 = "cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530"
UNPACKED = "cifar-10-batches-bin"
FILES = (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin")
EACH = 10_000
"""Images in a file."""
SHAPE = (3, 32, 32)
"""Of an image in a file: all of its reds, row by row, then its greens, then its blues."""
LABELS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@reads(lambda knobs: [Way(UNPACKED, FILES, []), Way("cifar10", (ARCHIVE,), knobs["mirrors"])])
def cifar10(*, data_dir: str | None, validation: Share, limit: Count | None, seed: Whole, mirrors: list[str]) -> Images:
    """50,000 images (32, 32, 3), `validation` of them held out, and the published 10,000 test images.

    Six files of `data_dir/cifar-10-batches-bin` or the archive with them, from `data_dir/cifar10`, the cache or the
    `mirrors`: see `fetch`. Errors: DataUnavailable if they are nowhere; DataError if one is not the published one.
    Source: Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009.
    """
    where, content = read(data_dir, mirrors)
    splits = {name: decode(raw, f"{where}/{name}") for name, raw in content.items()}
    pool, test = [splits[name] for name in FILES[:-1]], splits[FILES[-1]]
    pool = Split(np.concatenate([s.x for s in pool]), np.concatenate([s.y for s in pool]))
    for part, split in (("training", pool), ("test", test)):
        count = np.bincount(split.y, minlength=len(LABELS))
        if len(set(count)) > 1:
            raise DataError(f"{where}: expected as many {part} images of each class, got {', '.join(map(str, count))}")
    about = "cifar10", pool, LABELS, HOME, "none is stated", "the published test images"
    return image_data(*about, test=test, validation=validation, limit=limit, seed=seed)


def read(data_dir: str | None, mirrors: list[str]) -> tuple[str, dict[str, bytes]]:
    """(where, content by name) of the six files: the user's unpacked ones, or those of the published archive."""
    found = {name: look(UNPACKED, name, data_dir)[0] for name in FILES}
    if first := next(filter(None, found.values()), None):
        if lacking := [name for name, path in found.items() if not path]:
            raise DataError(f"{first.parent}: expected all six files of CIFAR-10, but lacks {', '.join(lacking)}")
        return str(first.parent), {name: sized(path) for name, path in found.items()}
    urls = [f"{mirror.rstrip('/')}/{ARCHIVE}" for mirror in mirrors]
    path = fetch("cifar10", ARCHIVE, urls=urls, md5=MD5, data_dir=data_dir)
    with path.open("rb") as file:
        md5 = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        if md5 != MD5:
            raise DataError(
                f"{path}: expected the published archive with MD5 {MD5}, got {file.tell():,} bytes with MD5 {md5}; "
                f"move it away to have it downloaded again, or put its files into {UNPACKED}/ in the data folder"
            )
        file.seek(0)
        with tarfile.open(fileobj=file) as archive:
            return str(path), {name: archive.extractfile(f"{UNPACKED}/{name}").read() for name in FILES}


def sized(path: Path) -> bytes:
    """The bytes of a file; DataError, before it is read, for one that has not as many as CIFAR-10's."""
    size, found = EACH * (1 + math.prod(SHAPE)), regular(path)
    if found != size:
        raise DataError(f"{path}: expected {size:,} bytes, got {found:,}; take the one from {HOME}")
    return path.read_bytes()


def decode(content: bytes, where: str) -> Split:
    """The uint8 images (n, 32, 32, 3) and labels (n,) of a file; DataError if they cannot be CIFAR-10's."""
    rows = np.frombuffer(content, np.uint8).reshape(EACH, -1)
    if (wrong := rows[:, 0].max()) >= len(LABELS):
        raise DataError(f"{where}: expected labels from 0 to 9, got {wrong}; take the file from {HOME}")
    return Split(rows[:, 1:].reshape(-1, *SHAPE).transpose(0, 2, 3, 1), rows[:, 0])
