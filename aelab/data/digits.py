"""Handwritten digits that come with scikit-learn: small, and there without a network."""

import numpy as np

from aelab.config import Count, Share, Whole
from aelab.data.record import Images, Split, image_data


def digits(*, validation: Share, limit: Count | None, seed: Whole, test: Share) -> Images:
    """1,797 grey digits, enlarged from 8 x 8 to (28, 28, 1); `test`, then `validation`, are held out.

    Not MNIST: fewer and smoother, so figures are not comparable. Source: Alpaydin and Kaynak, Optical
    Recognition of Handwritten Digits (its test part), UCI, doi:10.24432/C50P49.
    """
    from scipy.ndimage import zoom
    from sklearn.datasets import load_digits

    small = load_digits()
    # Cubic enlarging is linear and separable: one (28, 8) matrix does it for all rows and all columns.
    enlarge = zoom(np.eye(8), (28 / 8, 1), order=3, mode="nearest", grid_mode=True)
    large = enlarge @ (small.images / 16) @ enlarge.T  # published pixels are 0..16
    pixels = np.rint(255 * large.clip(0, 1)).astype(np.uint8)  # splines overshoot at edges
    pool, names = Split(pixels[..., None], small.target), tuple(map(str, small.target_names))
    about = "digits", pool, names, "https://doi.org/10.24432/C50P49", "CC BY 4.0", "enlarged from 8 x 8"
    return image_data(*about, test=test, validation=validation, limit=limit, seed=seed)
