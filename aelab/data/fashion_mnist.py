"""Fashion-MNIST: 70,000 grey images 28 x 28 of Zalando articles in ten classes."""

import gzip
import hashlib
import math
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from aelab.config import Count, DataError, Share, Whole
from aelab.data.fetch import Way, fetch, reads
from aelab.data.limits import regular
from aelab.data.record import Images, Split, image_data

FOLDER = "fashion-mnist"
HOME = "https://github.com/zalandoresearch/fashion-mnist"
LABELS = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"
)  # fmt: skip


class Idx(NamedTuple):
    """An idx file: MD5 of the published .gz, for downloads; MD5 and shape of what is in it, for any file."""

    published: str
    content: str
    shape: tuple[int, ...]

    @property
    def header(self) -> bytes:
        """Two zeros, type 8 (uint8), number of dimensions, then each dimension as a big-endian uint32."""
        return struct.pack(f">4B{len(self.shape)}I", 0, 0, 8, len(self.shape), *self.shape)


FILES = {
    "train-images-idx3-ubyte.gz":
        Idx("8d4fb7e6c68d591d4c3dfef9ec88bf0d", "f4a8712d7a061bf5bd6d2ca38dc4d50a", (60_000, 28, 28)),
    "train-labels-idx1-ubyte.gz":
        Idx("25c81989df183df01b3e8a0aad5dffbe", "9018921c3c673c538a1fc5bad174d6f9", (60_000,)),
    "t10k-images-idx3-ubyte.gz":
        Idx("bef4ecab320f06d8554ea6380940ec79", "8181f5470baa50b63fa0f6fddb340f0a", (10_000, 28, 28)),
    "t10k-labels-idx1-ubyte.gz":
        Idx("bb300cfdad3c16e7a12a480ee83cd310", "15d484375f8d13e6eb1aabb0c3f46965", (10_000,)),
}  # fmt: skip


@reads(lambda knobs: [Way(FOLDER, tuple(FILES), knobs["mirrors"])])
def fashion_mnist(
    *, data_dir: str | None, validation: Share, limit: Count | None, seed: Whole, mirrors: list[str]
) -> Images:
    """60,000 images (28, 28, 1), `validation` of them held out, and the published 10,000 test images.

    The files come from `data_dir/fashion-mnist`, the cache or the `mirrors`: see `fetch`. Errors:
    DataUnavailable if they are nowhere; DataError if one is not the published one. Source: Xiao et al.,
    arXiv:1708.07747.
    """

    def path(filename: str) -> Path:
        urls = [f"{mirror.rstrip('/')}/{filename}" for mirror in mirrors]
        return fetch(FOLDER, filename, urls=urls, md5=FILES[filename].published, data_dir=data_dir)

    with ThreadPoolExecutor() as pool:
        reading = []
        try:
            for name, known in FILES.items():
                reading.append(pool.submit(read_idx, path(name), known))
        finally:  # a broken file is told even where another one cannot be had: nothing may take its place
            read = [file.result() for file in reading]
    train_x, train_y, test_x, test_y = read
    pool, test = Split(train_x[..., None], train_y), Split(test_x[..., None], test_y)
    about = "fashion_mnist", pool, LABELS, HOME, "MIT", "the published test images"
    return image_data(*about, test=test, validation=validation, limit=limit, seed=seed)


def read_idx(path: Path, expected: Idx) -> np.ndarray:
    """The uint8 array of an idx file, gzipped or not.

    What is in it is checked, as compressing it again changes the .gz but not the data. Errors: DataError.
    """
    remedy = f"move it away to have it downloaded again, or put the file from {HOME} there"
    size = len(expected.header) + math.prod(expected.shape)
    regular(path)
    try:  # no more is unpacked than the published file has
        with path.open("rb") as file:
            packed = file.peek(2)[:2] == b"\x1f\x8b"  # gzip, whatever the name says
            content = (gzip.GzipFile(fileobj=file) if packed else file).read(
                size + 1
            )  # no more, whatever it unpacks to
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: expected a whole gzip file, got: {error}; {remedy}") from error
    md5, header = hashlib.md5(content, usedforsecurity=False).hexdigest(), content[: len(expected.header)]
    if md5 != expected.content:
        wrong = "" if header == expected.header else f", header {header.hex()} not {expected.header.hex()}"
        got = f"{len(content):,} bytes with MD5 {md5}" if len(content) <= size else "more"
        raise DataError(f"{path}: expected {size:,} bytes with MD5 {expected.content}, got {got}{wrong}; {remedy}")
    return np.frombuffer(content, np.uint8, offset=len(header)).reshape(expected.shape)
