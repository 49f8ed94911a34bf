"""The user's own pictures, from a folder."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np

from aelab.config import ConfigError, Count, DataError, Share, Whole
from aelab.data.limits import afford
from aelab.data.pictures import opened
from aelab.data.record import Images, Split, image_data

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")


def images(
    *, path: str, size: list[int], channels: Literal[1, 3], validation: Share, test: Share,
    limit: Count | None, seed: Whole,
) -> Images:  # fmt: skip
    """Every picture in a folder, as (h, w, channels), size = [h, w]; `test`, then `validation`, are held out.

    Sub-folders are classes and their names the labels; without sub-folders there are no labels. Pictures
    are turned as their EXIF data say and stretched to the size; an animation gives its first frame. Errors:
    DataError for a missing or empty folder, and for a picture that cannot be read or has more than 8 bits a
    channel.
    """
    folder = Path(path).expanduser()
    if len(size) != 2 or min(size) < 1:
        raise DataError(f"dataset.size: expected [height, width] in pixels, got {list(size)}")
    names, files, y = listing(folder)
    pixels = len(files) * size[0] * size[1] * channels  # as read, beside each other, cut into splits, and as float32
    what = f"dataset.size={list(size)}: {len(files):,} pictures"
    afford(7 * pixels, what, "take a smaller size, such as dataset.size=[64,64], or fewer pictures", ConfigError)
    with ThreadPoolExecutor() as pool:  # pillow decodes without holding the interpreter's lock
        x = np.stack(list(pool.map(lambda file: read_picture(file, list(size), channels), files)))
    about = folder.resolve().name, Split(x, y), names, str(folder), "the user's own", ""
    return image_data(*about, test=test, validation=validation, limit=limit, seed=seed)


def listing(folder: Path) -> tuple[tuple[str, ...], list[Path], np.ndarray | None]:
    """(label names, files, labels), sorted by name; of a folder without classes ((), files, None)."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; type path=FOLDER, one with pictures or a folder per class")

    def pictures(found) -> list[Path]:  # no "._a.png": macOS puts such a file beside an "a.png"
        return sorted(p for p in found if p.suffix.lower() in SUFFIXES and p.name[0] != "." and p.is_file())

    flat = pictures(folder.iterdir())
    classes = {sub.name: pictures(sub.rglob("*")) for sub in sorted(folder.iterdir()) if sub.is_dir()}
    classes = {name: found for name, found in classes.items() if found}
    if not flat and not classes:
        raise DataError(f"{folder}: expected pictures ({' '.join(SUFFIXES)}), got none")
    if flat and classes:
        raise DataError(f"{folder}: expected pictures or class folders, got {flat[0].name} and {min(classes)}/")
    if {"train", "test"} <= classes.keys():
        raise DataError(f"{folder}: expected a folder per class, got train/ and test/; type path={folder}/train")
    if flat:
        return (), flat, None
    files = [file for found in classes.values() for file in found]
    return tuple(classes), files, np.repeat(np.arange(len(classes)), list(map(len, classes.values())))


def read_picture(file: Path, size: list[int], channels: int) -> np.ndarray:
    """One picture as uint8 (h, w, channels)."""
    from PIL import Image, ImageOps

    with opened(file, str(file)) as picture:
        picture = ImageOps.exif_transpose(picture).convert({1: "L", 3: "RGB"}[channels])
        pixels = np.asarray(picture.resize(size[::-1], Image.Resampling.LANCZOS))
    return pixels.reshape(*size, channels)
