"""Classical detectors: scikit-learn's own scores; and the files that fitted objects are kept in."""

import math
import os
import zipfile

import numpy as np
import pytest
from contract import DetectorContract, component, frozen, listed, rows
from sklearn.covariance import LedoitWolf
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.neighbors import LocalOutlierFactor, NearestNeighbors
from sklearn.svm import OneClassSVM
from test_models import DENSE

from aelab import archive
from aelab.config import AelabError, ConfigError

DETECTORS = [name for name in listed("model", kind="table") if name not in DENSE]
X, OTHER = frozen(rows(300, 10)), frozen(np.concatenate([rows(40, 10, seed=1), 6 * rows(40, 10, seed=2)]))


@pytest.mark.parametrize("choice", DETECTORS)
class TestDetectors(DetectorContract):
    pass


def test_all_detectors_are_there():
    assert set(DETECTORS) >= {"isolation_forest", "lof", "ocsvm", "knn", "gaussian_fit", "pca"}


def fitted(choice, x=X, **values):
    model = component("model", choice, **values)(x.shape[1:])
    model.fit(x)
    return model


def neighbours(x, other, k):
    """Mean distance to the k nearest training rows."""
    return NearestNeighbors(n_neighbors=k).fit(x).kneighbors(other)[0].mean(axis=1)


@pytest.mark.parametrize(
    ("choice", "values", "theirs"),
    [
        (
            "isolation_forest",
            {"trees": 30, "rows": 64, "seed": 3},
            lambda: -IsolationForest(n_estimators=30, max_samples=64, random_state=3).fit(X).score_samples(OTHER),
        ),
        (
            "lof",
            {"neighbours": 7},
            lambda: -LocalOutlierFactor(n_neighbors=7, novelty=True).fit(X).score_samples(OTHER),
        ),
        ("ocsvm", {"nu": 0.1}, lambda: -OneClassSVM(nu=0.1, gamma="scale").fit(X).score_samples(OTHER)),
        ("ocsvm", {"nu": 0.3, "gamma": 0.02}, lambda: -OneClassSVM(nu=0.3, gamma=0.02).fit(X).score_samples(OTHER)),
        ("knn", {"neighbours": 4}, lambda: neighbours(X, OTHER, 4)),
        ("gaussian_fit", {}, lambda: LedoitWolf().fit(X).mahalanobis(OTHER)),
        ("pca", {"bottleneck": 4}, lambda: -PCA(n_components=4, svd_solver="full").fit(X).score_samples(OTHER)),
    ],
)
def test_scores_are_those_of_scikit_learn(choice, values, theirs):
    np.testing.assert_allclose(fitted(choice, **values).score(OTHER), theirs(), rtol=1e-6)


def test_knn_by_hand():
    x = np.array([[0, 0], [0, 3], [4, 0], [100, 100]], np.float32)
    scores = fitted("knn", x, neighbours=3).score(np.zeros((1, 2), np.float32))
    assert scores == pytest.approx([(0 + 3 + 4) / 3])


def test_pca_rebuilds_from_its_components():
    """The rows of the contract have one direction in common: what lies along it is kept, the rest is lost."""
    made = fitted("pca", bottleneck=3).predict(OTHER)
    theirs = PCA(n_components=3, svd_solver="full").fit(X)
    assert made["output"].dtype == made["code"].dtype == np.float32
    np.testing.assert_allclose(made["output"], theirs.inverse_transform(theirs.transform(OTHER)), atol=1e-5)
    np.testing.assert_allclose(made["code"], theirs.transform(OTHER), atol=1e-5)
    np.testing.assert_allclose(fitted("pca", bottleneck=10).predict(OTHER)["output"], OTHER, atol=1e-4)
    errors = [np.square(fitted("pca", bottleneck=k).predict(X)["output"] - X).mean() for k in (1, 4, 9)]
    assert errors[0] > errors[1] > errors[2] > 0


@pytest.mark.parametrize("choice", [name for name in listed("score") if name != "elbo"])
def test_the_scores_of_an_autoencoder_are_those_of_pca_too(choice):
    model = fitted("pca", bottleneck=3)
    made = component("score", choice)(X, model.predict(X))
    scores = made(OTHER, model.predict(OTHER))
    assert np.isfinite(scores).all()
    assert np.median(scores[40:]) > 2 * np.median(scores[:40])


def test_pca_has_at_most_as_many_components_as_features():
    with pytest.raises(ConfigError) as error:
        component("model", "pca", bottleneck=11)((10,))
    assert str(error.value) == "model.bottleneck=11: expected at most 10, the number of features"


@pytest.mark.parametrize(("choice", "values"), [("isolation_forest", {"trees": 10}), ("ocsvm", {"rows": 40})])
def test_the_seed_fixes_what_is_drawn(choice, values):
    one, two, other = (fitted(choice, **values, seed=seed).score(OTHER) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one, other)


def test_ocsvm_learns_from_at_most_so_many_rows():
    model = fitted("ocsvm", rows=50, seed=4)
    assert model.inner.shape_fit_ == (50, 10)
    known = {row.tobytes() for row in X}
    drawn = fitted("ocsvm", rows=50, seed=4, nu=0.99).inner.support_vectors_  # at least a share nu of the rows
    assert len({row.tobytes() for row in drawn.astype(np.float32)} & known) == 50
    whole = fitted("ocsvm", rows=300)
    np.testing.assert_array_equal(whole.score(OTHER), fitted("ocsvm", rows=10_000, seed=9).score(OTHER))


# ---- files


@pytest.mark.parametrize("content", [b"", b"nonsense", None], ids=["empty", "nonsense", "another zip"])
def test_a_broken_file_is_an_error_of_one_line(content, tmp_path):
    file = tmp_path / "model.skops"
    if content is None:
        with zipfile.ZipFile(file, "w") as made:
            made.writestr("a", "b")
    else:
        file.write_bytes(content)
    with pytest.raises(AelabError, match=r"model\.skops: cannot be read: ") as error:
        archive.read(file)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(AelabError, match=r"model\.skops is not there: the run did not finish"):
        archive.read(tmp_path / "model.skops")


@pytest.mark.parametrize(
    ("thing", "name"),
    [(os.system, "posix.system"), (eval, "builtins.eval"), (np.load, "numpy.load"), (math.gcd, "math.gcd")],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_a_file_that_names_another_packages_code_is_not_read(thing, name, tmp_path):
    archive.write({"scores": [thing]}, tmp_path / "model.skops")
    with pytest.raises(AelabError, match=f"has {name} in it, which no model of aelab has; not read"):
        archive.read(tmp_path / "model.skops")


def test_plain_values_come_back(tmp_path):
    thing = {"a": [1, 2.5, None, "x", True], "b": np.arange(6.0).reshape(2, 3), "c": np.float64(0.1), "d": {"e": ()}}
    archive.write(thing, tmp_path / "thing.skops")
    np.testing.assert_equal(archive.read(tmp_path / "thing.skops"), thing)
