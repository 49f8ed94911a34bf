"""Patches of the two colour photographs that come with scikit-learn: small, and there without a network."""

from dataclasses import replace

import numpy as np

from aelab.config import ConfigError, Count, Share, Whole
from aelab.data.limits import afford
from aelab.data.record import Images, Split, fingerprint, image_data, split_validation

NAMES = ("china", "flower")


def photo_patches(
    *, size: Count, stride: Count, region: Count, test: Share, validation: Share, limit: Count | None, seed: Whole
) -> Images:
    """Patches (size, size, 3), every `stride` pixels, of two photographs 427 x 640; the label is the photograph.

    Each photograph is cut into squares of `region` pixels, and a patch lies in one of them: whole squares are held out
    for `test`, then for `validation`, so that no pixel is in two splits. Errors: ConfigError for a patch or a region
    that does not fit. Source: scikit-learn, load_sample_images.
    """
    from sklearn.datasets import load_sample_images

    photographs = load_sample_images().images
    most = photographs[0].shape[0]
    if not size <= region <= most:
        raise ConfigError(f"dataset.size={size} dataset.region={region}: expected size <= region <= {most}, in pixels")
    squares = sum((p.shape[0] // region) * (p.shape[1] // region) for p in photographs)
    pixels = squares * len(range(0, region - size + 1, stride)) ** 2 * size**2 * 3
    what = f"dataset.size={size} dataset.stride={stride} dataset.region={region}"
    afford(10 * pixels, what, "take a larger stride", ConfigError)  # as cut, joined, split, and as float32
    cut = [regions(photograph, region, size, stride) for photograph in photographs]
    x, y = np.concatenate(cut), np.repeat(np.arange(len(cut)), list(map(len, cut)))
    rest, test = split_validation(x, y, validation=test, seed=seed)
    rest, validation = split_validation(rest.x, rest.y, validation=validation, seed=seed)
    pool, test, validation = (flat(split) for split in (rest, test, validation))
    notes = f"patches every {stride} pixels in squares of {region}; whole squares are held out"
    about = "photo_patches", pool, NAMES, "sklearn.datasets.load_sample_images", "CC BY 2.0", notes
    data = image_data(*about, test=test, validation=validation, limit=limit, seed=seed)
    return replace(data, fingerprint=fingerprint(x, y))  # of all patches, however they are cut


def regions(photograph: np.ndarray, region: int, size: int, stride: int) -> np.ndarray:
    """The patches in each whole square of `region` pixels: (squares, patches, size, size, c)."""
    down, across = (side // region for side in photograph.shape[:2])
    windows = np.lib.stride_tricks.sliding_window_view(photograph, (size, size), axis=(0, 1))
    first = np.arange(0, region - size + 1, stride)
    top = (np.arange(down)[:, None] * region + first).reshape(down, 1, len(first), 1)
    left = (np.arange(across)[:, None] * region + first).reshape(1, across, 1, len(first))
    found = np.moveaxis(windows[top, left], 4, -1)
    return found.reshape(down * across, len(first) ** 2, *found.shape[4:])


def flat(split: Split) -> Split:
    """Patches by region as patches, each with the label of its region."""
    return Split(split.x.reshape(-1, *split.x.shape[2:]), np.repeat(split.y, split.x.shape[1]))
