"""The user's own arrays, from an .npz or .npy file."""

from pathlib import Path

import numpy as np

from aelab.config import Count, DataError, Share, Whole
from aelab.data.arrays import read_arrays
from aelab.data.limits import listed, shown
from aelab.data.record import Images, Split, image_data


def npz(*, path: str, validation: Share, test: Share, limit: Count | None, seed: Whole) -> Images:
    """Images (n, h, w) or (n, h, w, c), uint8 or floats in [0, 1], with integer or string labels or without.

    Keys as in Keras: x_train, and if you like y_train, x_test, y_test, x_val, y_val; or x, and if you like
    y; or a single array of any name. Without x_test, `test` is cut from the rest; without x_val,
    `validation` is. Errors: DataError, naming the file and the key. Pickled objects are refused: they could
    run code.
    """
    file = Path(path).expanduser()
    try:
        arrays = read_arrays(file, str(file))
    except FileNotFoundError as error:
        raise DataError(f"{file}: no such file; type path=FILE.npz or path=FILE.npy") from error
    if not arrays:
        raise DataError(f"{file}: expected at least one array, got none")
    if len(arrays) == 1:
        arrays = {"x": next(iter(arrays.values()))}
    keys = {"train": "x_train" if "x_train" in arrays else "x", "test": "x_test", "validation": "x_val"}
    keys = {part: key for part, key in keys.items() if key in arrays}
    if "train" not in keys:
        raise DataError(f"{file}: expected x_train, or x, or a single array, got {listed(arrays)}")
    names, labels = read_labels([arrays.get(f"y{key[1:]}") for key in keys.values()], file)
    images = [with_channel(arrays[key], f"{file}: {key}") for key in keys.values()]
    parts = {"test": test, "validation": validation} | dict(zip(keys, map(Split, images, labels), strict=True))
    about = file.stem, parts.pop("train"), names, str(file), "the user's own", ""
    return image_data(*about, **parts, limit=limit, seed=seed)


def with_channel(x: np.ndarray, where: str) -> np.ndarray:
    """(n, h, w) as (n, h, w, 1); DataError if the shape is not that of images with channels last."""
    if x.ndim not in (3, 4):
        raise DataError(f"{where}: expected shape (n, h, w) or (n, h, w, c), got {x.shape}; reshape it")
    if x.ndim == 4 and x.shape[1] in (1, 3) and x.shape[3] > 4:
        raise DataError(f"{where}: expected channels last, got {x.shape}; save x.transpose(0, 2, 3, 1)")
    return x if x.ndim == 4 else x[..., None]


def read_labels(labels: list[np.ndarray | None], file: Path) -> tuple[tuple[str, ...], list]:
    """(names, labels (n,) as positions in the names) of the parts; Keras's (n, 1) is taken too.

    Names are the sorted values in all parts together. Errors: DataError if only some parts have labels.
    """
    if all(y is None for y in labels):
        return (), labels
    for y in labels:
        if y is None or y.dtype.kind not in "iubU" or y.shape[:1] != (y.size,):
            got = "none" if y is None else f"{y.dtype} {y.shape}"
            raise DataError(f"{file}: expected integer or string labels (n,) for each x or for none, got {got}")
    names, position = np.unique(np.concatenate([y.ravel() for y in labels]), return_inverse=True)
    ends = np.cumsum([len(y) for y in labels])
    try:
        names = tuple(map(str, names))
        "".join(names).encode()
    except ValueError as error:  # no text at all, or half of a pair that stands for one character
        raise DataError(f"{file}: expected labels that are texts, got: {shown(str(error), 200)}") from error
    return names, np.split(position, ends[:-1])
