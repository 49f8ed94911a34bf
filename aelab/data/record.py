"""The record that every data set gives, and how its rows are cut, limited and fingerprinted.

Letters in shapes: n rows, h w c image.
"""

import hashlib
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from aelab.config import ConfigError, Count, DataError, Share, Whole
from aelab.data.limits import afford, plain


@dataclass(frozen=True, eq=False)
class Split:
    """Rows `x` and their labels `y`, int64 (n,), or None.

    Images are float32 (n, h, w, c) in [0, 1]. Rows of a table are float64 (n, columns), NaN where missing, until a
    preparation makes them float32 (n, d). Ratings are float64 (n, 4): numbers of user and item, rating, time. A text
    is int32 (n,), the ids of its tokens, in their order; its y is how many characters each stands for.
    """

    x: np.ndarray
    y: np.ndarray | None

    def __len__(self):
        return len(self.x)

    def rows(self, index) -> "Split":
        """The rows at `index`."""
        return Split(self.x[index], None if self.y is None else self.y[index])


@dataclass(frozen=True, eq=False)
class Data:
    """A data set, cut into splits that share no row.

    `y` counts into `label_names`, which is empty without labels; in a table that is searched for anomalies label 0
    is normal; of a text they are the vocabulary, by id. `fingerprint` is that of the source before any cut: runs on
    the same data share it, whatever their seed and limit. `columns` says what the columns of a table are; images have
    none.
    """

    name: str
    kind: str
    train: Split
    validation: Split
    test: Split
    label_names: tuple[str, ...]
    source: str
    licence: str
    fingerprint: str
    notes: str
    columns: "Columns | None" = None
    catalogue: "Catalogue | None" = None  # noqa: F821 - of a layer above: it is only carried

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one row: (h, w, c) of an image, (d,) of a table's row; (users, items) of ratings; () of a text."""
        return self.catalogue.shape if self.catalogue else self.train.x.shape[1:]


# A data set's return annotation names its kind: `check.py` reads it without importing anything.
Images = Annotated[Data, "image"]
Table = Annotated[Data, "table"]
Ratings = Annotated[Data, "ratings"]
Text = Annotated[Data, "text"]


@dataclass(frozen=True)
class Columns:
    """What the columns of a table are: their names, in order, and the known values of the categorical ones.

    `reading` is how a file of such rows is read: delimiter, header, names and the texts of empty cells.
    """

    names: list[str]
    categories: dict[str, list[str]]
    reading: dict

    def value(self, column: int, number: float) -> str:
        """A number of x as it stood in the file, for people."""
        known = self.categories.get(self.names[column])
        if known is not None:
            return known[int(number)] if number < len(known) else "other"
        return "empty" if np.isnan(number) else f"{number:.6g}"


def fingerprint(*arrays: np.ndarray | None) -> str:
    """SHA-256, 64 hex digits, over the dtype, shape and bytes of each array in order; None counts too."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(b"none;" if array is None else f"{array.dtype.str}{array.shape};".encode())
        if array is not None:
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def sample(y: np.ndarray | None, n: int, count: int, seed: int) -> np.ndarray:
    """`count` of n row numbers, drawn without replacement, ascending; same arguments, same rows.

    With labels (n,) each class gives its share, rounded down or up by the largest remainder: of 70 a and 30
    b, 5 rows are 4 a and 1 b, or 3 a and 2 b.
    """
    # n is part of the seed so that the test cut and the validation cut after it do not reuse one stream.
    order = np.random.default_rng((seed, n)).permutation(n)
    if y is None:
        return np.sort(order[:count])
    _, label, size = np.unique(y, return_inverse=True, return_counts=True)
    quota, remainder = np.divmod(size * count, n)
    quota[np.argsort(-remainder, kind="stable")[: count - quota.sum()]] += 1
    by_class = order[np.argsort(label[order], kind="stable")]
    rank_in_class = np.arange(n) - np.repeat(np.cumsum(size) - size, size)
    return np.sort(by_class[rank_in_class < np.repeat(quota, size)])


def split_validation(x, y, *, validation: Share, seed: Whole) -> tuple[Split, Split]:
    """Cut (rest, held-out) from x (n, ...) and y (n,) or None: disjoint, seeded, stratified by y, not empty.

    Errors: ConfigError if the share is not inside (0, 1); DataError with fewer than two rows.
    """
    if not 0 < validation < 1:
        raise ConfigError(f"expected a share of rows above 0 and below 1 to hold out, got {validation}")
    n = len(x)
    if n < 2:
        raise DataError(f"expected at least 2 rows to hold some out, got {n}")
    held = np.zeros(n, bool)
    held[sample(y, n, min(max(round(n * validation), 1), n - 1), seed)] = True
    return Split(x, y).rows(~held), Split(x, y).rows(held)


def check_images(split: Split, shape: tuple[int, ...], where: str) -> None:
    """DataError unless rows have `shape` and a label, and pixels are uint8 or finite floats in [0, 1]."""
    x, y = split.x, split.y
    if x.ndim != 4 or x.shape[1:] != shape or not x.size:
        raise DataError(f"{where}: expected at least one image, each of shape {shape}, got {x.shape}")
    if y is not None and y.shape != (len(x),):
        raise DataError(f"{where}: expected {len(x)} labels, one for each image, got shape {y.shape}")
    if x.dtype == np.uint8:
        return
    if x.dtype.kind != "f":
        raise DataError(f"{where}: expected uint8 or float pixels, got {x.dtype}; save uint8 0..255")
    low, high = x.min(), x.max()
    if not np.isfinite([low, high]).all():
        bad = np.count_nonzero(~np.isfinite(x))
        raise DataError(f"{where}: expected finite values, got {bad} NaN or infinite; drop or fill them")
    if low < 0 or high > 1:
        raise DataError(
            f"{where}: expected floats in [0, 1], got {plain(low)} to {plain(high)}; rescale them, or save uint8 0..255"
        )


def image_data(
    name, pool, label_names, source, licence, notes, /, *, test, validation, limit: Count | None, seed: Whole
) -> Data:
    """The record of images: check, fingerprint, cut, limit, scale to [0, 1]: last, so a small limit is quick.

    `pool` is a Split with uint8 pixels, or floats in [0, 1]. `test` and `validation` are such splits too,
    or shares to cut: test from the pool, validation from what is left. Each split keeps at most `limit`
    rows, drawn as in `sample`. Errors: see `check_images` and `split_validation`.
    """
    parts = {"train": pool, "test": test, "validation": validation}
    given = {part: split for part, split in parts.items() if isinstance(split, Split)}
    for part, split in given.items():
        check_images(split, pool.x.shape[1:], f"{source}: {part} images")
    kept = {part: min(len(split), limit or len(split)) for part, split in given.items()}
    if len(given) < 3:  # at most so many rows in each split
        kept["train"] = min(len(pool), 3 * (limit or len(pool)))
    pixels = pool.x[0].size * sum(kept.values())
    copies = pixels * (pool.x.dtype.itemsize + 4)  # rows of a split, and the same as float32
    afford(copies, source, "take fewer images: dataset.limit=COUNT", ConfigError)
    mark = fingerprint(*(array for split in given.values() for array in (split.x, split.y)))

    def cut(split, held):
        whole = isinstance(held, Split)
        return (split, held) if whole else split_validation(split.x, split.y, validation=held, seed=seed)

    def finish(split: Split) -> Split:
        if limit is not None and limit < len(split):
            split = split.rows(sample(split.y, len(split), limit, seed))
        scale = 255 if split.x.dtype == np.uint8 else 1
        x = np.divide(split.x, scale, dtype=np.float32, casting="same_kind")
        return Split(x, None if split.y is None else split.y.astype(np.int64))

    train, test = cut(pool, test)
    train, validation = cut(train, validation)
    splits = finish(train), finish(validation), finish(test)
    return Data(name, "image", *splits, label_names, source, licence, mark, notes)
