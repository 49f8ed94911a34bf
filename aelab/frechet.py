"""The Fréchet distance of two sets of features: how far apart Gaussians with their means and covariances are."""

import numpy as np

from aelab.config import DataError


def distance(x: np.ndarray, y: np.ndarray, /) -> float:
    """Between features (n, d) and (m, d), n and m at least 2; 0 for the same mean and covariance, in squared units.

    Few rows make it larger: compare only distances from equally many. Heusel et al., NeurIPS 2017, with features of
    their own choice: theirs are of the Inception network. Errors: DataError with a single row.
    """
    if min(len(x), len(y)) < 2:
        raise DataError(f"a Fréchet distance is between sets of at least 2 images, got {len(x)} and {len(y)}")
    x, y = np.asarray(x, float), np.asarray(y, float)
    covariances = (np.atleast_2d(np.cov(v, rowvar=False)) for v in (x, y))
    return of_gaussians(x.mean(axis=0), y.mean(axis=0), *covariances)


def of_gaussians(m1, m2, s1, s2, /) -> float:
    """||m1 - m2||^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)) of means (d,) and covariances (d, d).

    The last trace is that of (A S2 A)^(1/2), where A A = S1: of a symmetric matrix, whose root is safe also where the
    covariances have no inverse.
    """
    values, vectors = np.linalg.eigh(s1)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    inner = np.linalg.eigvalsh(root @ s2 @ root).clip(0)
    found = np.square(m1 - m2).sum() + np.trace(s1) + np.trace(s2) - 2 * np.sqrt(inner).sum()
    return max(float(found), 0.0)
