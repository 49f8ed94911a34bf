"""Classical outlier detectors by scikit-learn, for the same table: `fit(x)`, then `score(x)`, higher = stranger."""

import numpy as np
from sklearn.covariance import LedoitWolf
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.neighbors import LocalOutlierFactor, NearestNeighbors
from sklearn.svm import OneClassSVM

from aelab.config import ConfigError, Count, Level, Row, Share, Whole


class Detector:
    """A scikit-learn detector, whose own scores are higher for normal rows."""

    def __init__(self, inner):
        self.inner = inner

    def fit(self, x: np.ndarray) -> None:
        """Learn from rows (n, d)."""
        self.inner.fit(x)

    def score(self, x: np.ndarray) -> np.ndarray:
        """How strange each row is, float (n,)."""
        return -self.inner.score_samples(x)


def isolation_forest(shape: Row, /, *, trees: Count, rows: Count, seed: Whole) -> Detector:
    """Isolation forest: how few random cuts set a row apart. Liu et al., ICDM 2008."""
    return Forest(IsolationForest(n_estimators=trees, max_samples=rows, random_state=seed))


def lof(shape: Row, /, *, neighbours: Count) -> Detector:
    """Local outlier factor: how much sparser a row's neighbourhood is than its neighbours'. Breunig et al., 2000."""
    return Detector(LocalOutlierFactor(n_neighbors=neighbours, novelty=True))


def ocsvm(shape: Row, /, *, nu: Share, gamma: Level | None, rows: Count, seed: Whole) -> Detector:
    """One-class SVM with a Gaussian kernel, on at most `rows` rows: its time grows with their square.

    `gamma` null is 1 / (d * variance), scikit-learn's "scale". Schoelkopf et al., 2001.
    """
    return Sampled(OneClassSVM(nu=nu, gamma="scale" if gamma is None else gamma), rows, seed)


class Forest(Detector):
    """A forest whose trees see no more rows than there are."""

    def fit(self, x: np.ndarray) -> None:
        """Learn from rows (n, d)."""
        self.inner.set_params(max_samples=min(self.inner.max_samples, len(x)))
        super().fit(x)


class Sampled(Detector):
    """A detector that learns from a draw of the rows."""

    def __init__(self, inner, rows: int, seed: int):
        super().__init__(inner)
        self.rows, self.seed = rows, seed

    def fit(self, x: np.ndarray) -> None:
        """Learn from at most so many rows."""
        if len(x) > self.rows:
            x = x[np.random.default_rng(self.seed).choice(len(x), self.rows, replace=False)]
        super().fit(x)


class Distance(Detector):
    """Mean distance to the nearest training rows."""

    def fit(self, x: np.ndarray) -> None:
        """Keep the rows (n, d); where there are fewer than neighbours, all of them are neighbours."""
        self.inner.set_params(n_neighbors=min(self.inner.n_neighbors, len(x)))
        super().fit(x)

    def score(self, x: np.ndarray) -> np.ndarray:
        """Mean Euclidean distance to the neighbours, (n,)."""
        return self.inner.kneighbors(x)[0].mean(axis=1)


def knn(shape: Row, /, *, neighbours: Count) -> Distance:
    """Nearest neighbours: the mean distance to them. Angiulli and Pizzuti, 2002."""
    return Distance(NearestNeighbors(n_neighbors=neighbours))


class Gauss(Detector):
    """Squared Mahalanobis distance from the mean."""

    def score(self, x: np.ndarray) -> np.ndarray:
        """Squared distance, (n,)."""
        return self.inner.mahalanobis(x)


def gaussian(shape: Row, /) -> Gauss:
    """One Gaussian: the Mahalanobis distance, with a covariance shrunk as by Ledoit and Wolf (2004)."""
    return Gauss(LedoitWolf())


class Projection(Detector):
    """Principal components: rebuilds rows, so that every score of an autoencoder is one of its own."""

    def predict(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """The components of rows (n, d) as "code", and the rows from them as "output"."""
        code = self.inner.transform(x)
        made = self.inner.inverse_transform(code)
        return {"output": made.astype(np.float32), "code": code.astype(np.float32)}


def pca(shape: Row, /, *, bottleneck: Count) -> Projection:
    """Principal components, `bottleneck` of them: the best linear autoencoder."""
    if bottleneck > shape[0]:
        raise ConfigError(f"model.bottleneck={bottleneck}: expected at most {shape[0]}, the number of features")
    return Projection(PCA(bottleneck, svd_solver="full"))
