"""Anomaly scores, the thresholds that flag by them, and the metrics that judge them."""

import numpy as np
import pytest
from contract import ScoreContract, ScoreMetricContract, component, listed, node, rows
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.spatial.distance import mahalanobis
from sklearn.covariance import LedoitWolf, ShrunkCovariance
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score, roc_curve
from sklearn.preprocessing import StandardScaler

from aelab import declared
from aelab.config import DataError

SCORES = listed("score")
THRESHOLDS = listed("threshold")


@pytest.mark.parametrize("choice", SCORES)
class TestScores(ScoreContract):
    pass


@pytest.mark.parametrize("choice", listed("metric", kind="table"))
class TestMetrics(ScoreMetricContract):
    pass


def test_all_are_there():
    assert {"mse", "mae", "max", "scaled", "mahalanobis", "elbo"} <= set(SCORES)
    assert {"best_f1", "quantile", "false_positive_rate"} <= set(THRESHOLDS)
    assert {"roc_auc", "pr_auc", "precision_at", "recall_at"} <= set(listed("metric", kind="table"))
    assert all(declared.kinds("threshold", node("threshold", name)["_target_"]) == ("table",) for name in THRESHOLDS)


# ---- scores by hand

X = np.array([[1, 2, 3], [4, 4, 4]], np.float32)
OUTPUT = np.array([[1, 0, 4], [4, 4, 1]], np.float32)  # errors 0 2 -1 and 0 0 3


def scored(choice, train_error, x, output, more=None, **values):
    """A score, fitted on rows with certain errors, of other rows."""
    error = np.asarray(train_error, np.float32)
    score = component("score", choice, **values)(error * 0 + 7, {"output": 7 - error, **(more or {})})
    return score, {"output": np.asarray(output, np.float32)}, np.asarray(x, np.float32)


@pytest.mark.parametrize(
    ("choice", "parts", "expected"),
    [
        ("mse", [[0, 4, 1], [0, 0, 9]], [5 / 3, 3]),
        ("mae", [[0, 2, 1], [0, 0, 3]], [1, 1]),
        ("max", [[0, 2, 1], [0, 0, 3]], [2, 3]),
    ],
)
def test_errors_by_hand(choice, parts, expected):
    score, outputs, x = scored(choice, np.ones((4, 3)), X, OUTPUT)
    np.testing.assert_allclose(score(x, outputs), expected, rtol=1e-6)
    np.testing.assert_allclose(score.parts(x, outputs), parts, rtol=1e-6)


@pytest.mark.parametrize("choice", ["mse", "mae", "scaled", "max"])
def test_the_mean_of_the_parts_is_the_score(choice):
    """Or their maximum."""
    score = component("score", choice)(rows(50, 4), {"output": rows(50, 4, seed=1)})
    x, outputs = rows(9, 4, seed=2), {"output": rows(9, 4, seed=3)}
    parts = score.parts(x, outputs)
    made = parts.max(axis=1) if choice == "max" else parts.mean(axis=1)
    np.testing.assert_allclose(score(x, outputs), made, rtol=1e-6)


@pytest.mark.parametrize(
    ("power", "expected"),
    [
        (1, [[0, 2 / 0.5, 1 / 2], [0, 0, 3 / 2]]),
        (2, [[0, 16, 1 / 4], [0, 0, 9 / 4]]),
        (3, [[0, 64, 1 / 8], [0, 0, 27 / 8]]),
        (0.5, [[0, 2, np.sqrt(0.5)], [0, 0, np.sqrt(1.5)]]),
    ],
)
def test_scaled_by_hand(power, expected):
    """Standard errors 0.1, 0.3 and 2 about zero in training; the least that counts is 0.5."""
    train = [[0.1, 0.3, 2], [-0.1, 0.3, 2], [0.1, -0.3, -2], [0.1, 0.3, 2]]
    score, outputs, x = scored("scaled", train, X, OUTPUT, power=power, floor=0.5)
    np.testing.assert_allclose(score.parts(x, outputs), expected, rtol=1e-5)
    np.testing.assert_allclose(score(x, outputs), np.mean(expected, axis=1), rtol=1e-5)


def test_scaled_makes_features_alike_whatever_their_unit():
    unit = np.float32([1, 100, 0.01])
    train, error, x = rows(50, 3), rows(9, 3, seed=1), rows(9, 3, seed=2)
    one, in_units = (
        score(x * u, {"output": (x - error) * u})
        for u, score in ((u, scored("scaled", train * u, X, X, floor=0)[0]) for u in (np.float32(1), unit))
    )
    np.testing.assert_allclose(in_units, one, rtol=1e-4)


def distance(train, error, code=0.0, shrinkage=0.0, train_code=None, codes=None):
    """The Mahalanobis score of errors, fitted on training errors, and its parts."""
    train, error = np.asarray(train, np.float32), np.asarray(error, np.float32)
    score = component("score", "mahalanobis", code=code, shrinkage=shrinkage)(train, {"output": 0, "code": train_code})
    outputs = {"output": 0, "code": codes}
    return score(error, outputs), score.parts(error, outputs)


def test_mahalanobis_by_hand():
    """Standard errors sqrt(0.5) and sqrt(2), without correlation: a distance of root mean squares."""
    got, parts = distance([[1, 0], [-1, 0], [0, 2], [0, -2]], [[1, 1], [0, -2]])
    np.testing.assert_allclose(got, np.sqrt([(1 / 0.5 + 1 / 2) / 2, (4 / 2) / 2]), rtol=1e-4)
    np.testing.assert_allclose(parts, [[2, 0.5], [0, 2]], rtol=1e-4)


@pytest.mark.parametrize(("shrinkage", "r"), [(0.0, 1 / 3), (0.5, 1 / 6), (1.0, 0)])
def test_mahalanobis_counts_errors_that_go_together_once(shrinkage, r):
    """Errors of variance 1 and correlation 1/3, which is shrunk: (1, 1) is nearer than (1, -1)."""
    train = [[1, 1], [1, 1], [-1, -1], [-1, -1], [1, -1], [-1, 1]]
    got, parts = distance(train, [[1, 1], [1, -1]], shrinkage=shrinkage)
    np.testing.assert_allclose(got, np.sqrt([1 / (1 + r), 1 / (1 - r)]), rtol=1e-4)
    np.testing.assert_allclose(np.sqrt(parts.mean(axis=1)), got, rtol=1e-6)


def test_mahalanobis_is_about_the_usual_error():
    got, _ = distance([[1], [3]], [[2], [3], [0]])
    np.testing.assert_allclose(got, [0, 1, 2], atol=1e-4)


def test_mahalanobis_knows_no_unit():
    train, error, unit = rows(50, 3), rows(9, 3, seed=1), np.float32([1, 100, 0.01])
    one, other = (distance(train * u, error * u, shrinkage=None)[0] for u in (np.float32(1), unit))
    np.testing.assert_allclose(other, one, rtol=1e-3)


@pytest.mark.parametrize(("code", "expected"), [(0.0, 1), (0.25, 0.75 + 0.25 * np.sqrt(5)), (1.0, np.sqrt(5))])
def test_an_unusual_code_counts_by_its_weight(code, expected):
    """Error 1 and code 3, both of deviation 1 in training and without correlation: (1 + 9) / 2 together."""
    train, train_code = [[1], [1], [-1], [-1]], np.float32([[1], [-1], [1], [-1]])
    got, parts = distance(train, [[1]], code, 0.0, train_code, np.float32([[3]]))
    np.testing.assert_allclose(got, [expected], rtol=1e-4)
    np.testing.assert_allclose(parts, [[1]], rtol=1e-4)  # columns explain the error alone


@pytest.mark.parametrize("shrinkage", [None, 0.0, 0.3])
@pytest.mark.parametrize("code", [0.0, 1.0])
def test_mahalanobis_against_scikit_learn_and_scipy(code, shrinkage):
    train, error = rows(80, 5) * np.float32([1, 2, 3, 4, 5]), rows(20, 5, seed=1) + 1
    train_code, codes = rows(80, 2, seed=2), rows(20, 2, seed=3)
    got, _ = distance(train, error, code, shrinkage, train_code, codes)
    before, after = (train, error) if code == 0 else (np.hstack([train, train_code]), np.hstack([error, codes]))
    scale = StandardScaler().fit(before)
    theirs = LedoitWolf() if shrinkage is None else ShrunkCovariance(shrinkage=shrinkage)
    theirs.fit(scale.transform(before))
    z = scale.transform(after)
    np.testing.assert_allclose(got, np.sqrt(theirs.mahalanobis(z) / z.shape[1]), rtol=1e-3)
    inverse = np.linalg.inv(theirs.covariance_)
    np.testing.assert_allclose(got, [mahalanobis(v, np.zeros(len(v)), inverse) / np.sqrt(len(v)) for v in z], rtol=1e-3)


def test_an_error_that_never_varied_in_training_gives_a_number():
    got, parts = distance(np.hstack([rows(30, 2), np.zeros((30, 1))]), [[0, 0, 0], [0, 0, 0.5]], shrinkage=None)
    assert np.isfinite(got).all()
    assert got[1] > 100 * got[0]
    assert parts[1].argmax() == 2


def test_elbo_by_hand():
    """Errors of variance 4 in training; the divergence of m = 2 with variance 1 is 2 nats, over 3 features."""
    given = {"mean": np.float32([[2, 0], [0, 0]]), "log_variance": np.zeros((2, 2), np.float32)}
    score, outputs, x = scored("elbo", np.full((5, 3), 2.0), X, OUTPUT, given)
    expected = np.array([(4 + 1) / (2 * 4) / 3 + 2 / 3, 9 / (2 * 4) / 3])
    np.testing.assert_allclose(score(x, outputs | given), expected, rtol=1e-6)
    np.testing.assert_allclose(score.parts(x, outputs), [[0, 0.5, 0.125], [0, 0, 1.125]], rtol=1e-6)


def test_elbo_is_minus_the_bound_up_to_a_constant():
    """Differences between rows are those of E ln p(x|z) - KL, with a normal decoder of the training variance."""
    from scipy.stats import norm

    x, error, train = rows(6, 4), rows(6, 4, seed=1), rows(50, 4, seed=2)
    mean, log_variance = rows(6, 2, seed=3), rows(6, 2, seed=4) / 3
    made = {"output": x - error, "mean": mean, "log_variance": log_variance}
    got = component("score", "elbo")(train, made | {"output": train * 0})(x, made)
    spread = np.sqrt(np.square(train).mean())
    kl = 0.5 * (mean**2 + np.exp(log_variance) - log_variance - 1).sum(axis=1)
    bound = norm.logpdf(x, x - error, spread).sum(axis=1) - kl
    np.testing.assert_allclose(got - got[0], (bound[0] - bound) / 4, rtol=1e-4, atol=1e-5)


def test_elbo_needs_what_a_variational_model_gives():
    score, outputs, x = scored("elbo", np.ones((4, 3)), X, OUTPUT)
    with pytest.raises(KeyError, match="mean"):
        score(x, outputs)


# ---- thresholds


@st.composite
def labelled(draw):
    """Labels and scores, many of them equal; anomalies first, last or anywhere among those."""
    rng, n = np.random.default_rng(draw(st.integers(0, 10_000))), draw(st.integers(1, 40))
    labels = rng.random(n) < draw(st.sampled_from([0.0, 0.2, 0.5, 1.0]))
    labels = draw(st.sampled_from([labels, np.sort(labels), np.sort(labels)[::-1]]))
    return labels, 0.1 * rng.integers(0, draw(st.sampled_from([1, 2, 4, 20])), n)


@given(drawn=labelled())
def test_best_f1_is_the_best_of_all(drawn):
    labels, scores = drawn
    assume(labels.any())
    found = component("threshold", "best_f1")(labels, scores)
    assert type(found) is float
    best = max(f1_score(labels, scores >= t) for t in np.unique(scores))
    assert f1_score(labels, scores >= found) == pytest.approx(best)


def test_best_f1_by_hand():
    labels, scores = np.array([1, 0, 1, 1, 0, 0], bool), np.array([9.0, 8, 7, 7, 7, 1])
    # At 9: 2 / (1 + 3); at 8: 2 / (2 + 3); at 7: 6 / (5 + 3), and no threshold has only two of the three sevens.
    assert component("threshold", "best_f1")(labels, scores) == 7
    assert component("threshold", "best_f1")(labels, scores.astype(np.float32)) == 7


def test_best_f1_does_not_part_equal_scores():
    """At 9 it is 2 / (1 + 2); with the one anomaly at 7 it would be 1, but all sevens are called: 4 / (7 + 2)."""
    labels, scores = np.array([1, 1, 0, 0, 0, 0, 0], bool), np.array([9.0, 7, 7, 7, 7, 7, 7])
    assert component("threshold", "best_f1")(labels, scores) == 9


def test_best_f1_needs_anomalies():
    with pytest.raises(DataError) as error:
        component("threshold", "best_f1")(np.zeros(5, bool), np.arange(5.0))
    expected = "threshold=best_f1: validation has no anomaly; take threshold=quantile or false_positive_rate"
    assert str(error.value) == expected


@given(drawn=labelled(), share=st.floats(0, 1))
def test_quantile_is_of_the_normal_rows(drawn, share):
    labels, scores = drawn
    assume(not labels.all())
    found = component("threshold", "quantile", share=share)(labels, scores)
    calm = np.sort(scores[~labels])
    place = share * (len(calm) - 1)
    low, high = calm[int(place)], calm[min(int(place) + 1, len(calm) - 1)]
    assert found == pytest.approx(low + (place - int(place)) * (high - low), abs=1e-9)
    assert component("threshold", "quantile", share=share)(labels, scores + 50 * labels) == found


@st.composite
def calm_rows(draw):
    labels, scores = draw(labelled())
    scores = scores.astype(draw(st.sampled_from([np.float32, np.float64])))
    n = max((~labels).sum(), 1)
    rate = draw(st.one_of(st.floats(0, 1), st.integers(0, int(n)).map(lambda k: k / n)))
    return labels, scores, float(rate)


@given(drawn=calm_rows())
def test_a_false_positive_rate_is_kept_by_the_lowest_score_that_does(drawn):
    labels, scores, rate = drawn
    assume(not labels.all())
    found = component("threshold", "false_positive_rate", rate=rate)(labels, scores)
    calm = scores[~labels]
    assert np.mean(calm >= found) <= rate
    lower = np.nextafter(np.asarray(found, scores.dtype), -np.inf)
    if np.mean(calm >= found) < 1:
        assert np.mean(calm >= lower) > rate
    stranger = np.where(labels, scores + 50, scores)
    assert component("threshold", "false_positive_rate", rate=rate)(labels, stranger) == found


@pytest.mark.parametrize(
    ("rate", "flagged"), [(0, 0), (0.01, 1), (0.07, 7), (0.29, 29), (0.57, 57), (0.995, 99), (1, 100)]
)
def test_a_false_positive_rate_of_a_hundred_rows(rate, flagged):
    """0.29 * 100 is below 29 in floating point; 29 of 100 rows are a share of 0.29 all the same."""
    scores = np.random.default_rng(0).permutation(100).astype(float)
    found = component("threshold", "false_positive_rate", rate=rate)(np.zeros(100, bool), scores)
    assert (scores >= found).sum() == flagged


# ---- metrics


def some(seed, n=60, values=8):
    """Labels and scores with ties, at least one row of either class."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) < rng.integers(1, n))
    return labels, (rng.integers(0, values, n) + 2 * labels) / 3


@pytest.mark.parametrize("seed", range(8))
def test_metrics_are_those_of_scikit_learn(seed):
    labels, scores = some(seed)
    assert component("metric", "roc_auc")(labels, scores) == roc_auc_score(labels, scores)
    assert component("metric", "pr_auc")(labels, scores) == average_precision_score(labels, scores)
    false, found, _ = roc_curve(labels, scores)
    for rate in (0.01, 0.3, 1.0):
        expected = found[false <= rate].max()
        assert component("metric", "recall_at", rate=rate)(labels, scores) >= expected


@pytest.mark.parametrize("seed", range(8))
def test_areas_by_their_definitions(seed):
    """ROC: the odds that an anomaly scores above a normal row, a tie half. PR: precision, weighed by gain in recall."""
    labels, scores = some(seed)
    pairs = [(a > b) + (a == b) / 2 for a in scores[labels] for b in scores[~labels]]
    assert component("metric", "roc_auc")(labels, scores) == pytest.approx(np.mean(pairs))
    area, before = 0, 0
    for t in sorted(set(scores), reverse=True):
        flagged = scores >= t
        recall = labels[flagged].sum() / labels.sum()
        area, before = area + (recall - before) * labels[flagged].mean(), recall
    assert component("metric", "pr_auc")(labels, scores) == pytest.approx(area)


@given(drawn=labelled(), k=st.integers(1, 45))
def test_precision_at_is_counted_by_hand(drawn, k):
    """The k highest; of equal ones those that come first."""
    labels, scores = drawn
    first = sorted(range(len(scores)), key=lambda i: (-scores[i], i))[:k]
    got = component("metric", "precision_at", k=k)(labels, scores)
    assert got == pytest.approx(sum(bool(labels[i]) for i in first) / min(k, len(scores)))


@given(drawn=labelled(), rate=st.one_of(st.floats(0, 1), st.sampled_from([0.1, 0.25, 0.5])))
def test_recall_at_is_the_best_of_all_thresholds(drawn, rate):
    labels, scores = drawn
    assume(labels.any())
    assume(not labels.all())
    found = [0.0]
    for t in np.unique(scores):
        flagged = scores >= t
        if flagged[~labels].sum() / (~labels).sum() <= rate:
            found.append(flagged[labels].sum() / labels.sum())
    assert component("metric", "recall_at", rate=rate)(labels, scores) == pytest.approx(max(found))
