"""Similarities of vectors: what all promise, each by hand and against SciPy, and which properties it has and lacks."""

import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from contract import component, frozen, listed, node, rows
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import sparse
from scipy.spatial.distance import cdist
from sklearn.covariance import LedoitWolf
from sklearn.metrics import roc_auc_score

from aelab import archive, check, declared, similarities
from aelab.config import AelabError

CHOICES = listed("similarity")


def liked(groups, seed=0):
    """Users who like some items of one group each: CSR (30 a group, i)."""
    rng = np.random.default_rng(seed)
    members = [np.flatnonzero(groups == g) for g in np.unique(groups) for _ in range(30)]
    chosen = [rng.choice(m, 5, replace=False) for m in members]
    return sparse.csr_array(
        (np.ones(5 * len(chosen)), (np.repeat(np.arange(len(chosen)), 5), np.concatenate(chosen))),
        shape=(len(chosen), len(groups)),
    )


GROUPS = np.arange(60) % 3


def planted(d=2, seed=0):
    """Vectors (60, d) of three groups that lie apart."""
    rng = np.random.default_rng([3, seed])
    return rng.normal(0, 4, (3, d))[GROUPS] + rng.normal(0, 0.5, (60, d))


_FITTED = {}


def fitted(choice, d=2):
    """What compares, with the YAML's values; a learned one after a short training on planted groups."""
    if choice != "learned":
        return component("similarity", choice)
    if d not in _FITTED:
        short = component("similarity", choice, hidden=8, pairs=1500, epochs=15)()
        _FITTED[d] = short.fit(planted(d), liked(GROUPS))
    return _FITTED[d]


class SimilarityContract:
    """What every similarity promises."""

    D = 12

    @pytest.fixture
    def compare(self, choice):
        return fitted(choice, self.D)

    def test_gives_finite_numbers_for_all_pairs(self, compare):
        for n, m in ((5, 7), (1, 7), (0, 7), (2, 2)):
            made = compare(frozen(rows(n, self.D)), frozen(rows(m, self.D, seed=1)))
            assert made.shape == (n, m)
            assert made.dtype == np.float64
            assert np.isfinite(made).all()

    def test_zero_vectors_are_compared(self, compare):
        x, y = rows(5, self.D), rows(7, self.D, seed=1)
        x[2], y[3] = 0, 0
        assert np.isfinite(compare(x, y)).all()

    def test_long_and_short_vectors_are_compared(self, compare):
        for scale in (1e-12, 1e12):
            assert np.isfinite(compare(scale * rows(5, self.D), rows(7, self.D, seed=1))).all()
            assert np.isfinite(compare(rows(5, self.D), scale * rows(7, self.D, seed=1))).all()

    def test_a_value_depends_on_its_own_query_alone(self, compare):
        x, y = rows(5, self.D) * [[1], [2], [100], [1], [0]], rows(7, self.D, seed=1)
        made = compare(x, y)
        for i in range(5):
            np.testing.assert_allclose(made[i : i + 1], compare(x[i : i + 1], y), rtol=1e-10, atol=1e-12)

    def test_blocks_leave_no_trace(self, compare, monkeypatch):
        x, y = rows(5, self.D), rows(7, self.D, seed=1)
        whole = compare(x, y)
        for memory in (1, 3000):
            monkeypatch.setattr(similarities, "MEMORY", memory)
            np.testing.assert_allclose(compare(x, y), whole, rtol=1e-10, atol=1e-12)

    def test_float32_is_raised_first(self, compare):
        x, y = rows(5, self.D), rows(7, self.D, seed=1)
        np.testing.assert_array_equal(compare(x, y), compare(x.astype(np.float64), y.astype(np.float64)))

    def test_the_catalogue_with_itself_is_symmetric(self, compare):
        y = rows(7, self.D, seed=1)
        np.testing.assert_allclose(compare(y, y), compare(y, y).T, rtol=1e-10, atol=1e-12)

    def test_what_is_no_pair_of_sets_is_refused(self, compare):
        for n, m in (((3, self.D), (4, 5)), ((self.D,), (4, self.D)), ((3, self.D), (0, self.D)), ((3, 0), (4, 0))):
            with pytest.raises(AelabError) as error:
                compare(np.ones(n), np.ones(m))
            assert str(n) in str(error.value)
            assert str(m) in str(error.value)

    @pytest.mark.parametrize("wrong", [np.nan, np.inf])
    def test_nan_and_infinity_are_refused_by_their_row(self, compare, wrong):
        good, bad = rows(5, self.D), rows(5, self.D, seed=1)
        bad[3, 1] = wrong
        for name, pair in (("x", (bad, good)), ("y", (good, bad))):
            with pytest.raises(AelabError, match=f"row 3 of {name} .*NaN"):
                compare(*pair)

    def test_its_yaml_has_every_knob_with_a_value_of_its_type(self, choice):
        values = node("similarity", choice)
        knobs = declared.signature(values.pop("_target_")).knobs
        assert values.keys() == knobs.keys()
        assert all(check.conforms(values[name], knob.type) for name, knob in knobs.items())
        assert not any(knob.type is declared.Any for knob in knobs.values())


@pytest.mark.parametrize("choice", CHOICES)
class TestSimilarities(SimilarityContract):
    pass


# ---- which properties hold, and which do not


BOUNDS = {"cosine": (-1, 1), **dict.fromkeys(("dot", "ndd", "log_scaled", "hybrid"))}  # the others: 0 to 1
HOLDS = {
    # f(x, y) = f(y, x)^T
    "symmetric": set(CHOICES) - {"mahalanobis", "hyperbolic", "range_scaled"},
    # f(x, x)_ii = 1; unless zero, for angles
    "self": set(CHOICES) - {"dot", "ndd", "log_scaled", "hybrid", "learned"},
    # f(x, x)_ii is the largest of its row; unless zero, for angles
    "nearest": set(CHOICES) - {"dot", "ndd", "log_scaled", "hybrid", "learned"},
    # f(a x, b y) = f(x, y) for a, b > 0
    "scale": {"cosine", "spherical"},
    # f(a x, a y) = f(x, y) for a > 0
    "common scale": {"cosine", "spherical", "mahalanobis", "hyperbolic", "range_scaled"},
    # f(x + t, y + t) = f(x, y)
    "shift": {"euclidean", "manhattan", "mahalanobis", "exponential", "range_scaled"},
    # f(x, y)_j depends on y_j alone
    "alone": set(CHOICES) - {"mahalanobis", "hyperbolic", "range_scaled"},
}
ANGLES = {"cosine", "spherical"}


def holds(name, compare, x, y, a=4.0, b=0.5, t=1.5):
    """Whether a property holds for these vectors, to 1e-7."""
    made, own = compare(x, y), compare(x, x)
    pairs = {
        "symmetric": lambda: (made, compare(y, x).T),
        "self": lambda: (own.diagonal(), np.ones(len(x))),
        "nearest": lambda: (own.diagonal(), own.max(axis=1)),
        "scale": lambda: (made, compare(a * x, b * y)),
        "common scale": lambda: (made, compare(a * x, a * y)),
        "shift": lambda: (made, compare(x + t, y + t)),
        "alone": lambda: (made[:, :2], compare(x, y[:2])),
    }
    return np.allclose(*pairs[name](), rtol=1e-7, atol=1e-7)


VECTORS = arrays(np.int8, st.tuples(st.integers(3, 6), st.just(2)), elements=st.integers(-40, 40)).map(lambda v: v / 8)
SCALES = st.sampled_from([0.01, 0.5, 3.0, 100.0])
# Two sets that show what does not hold: short and long vectors, in line and not.
X, Y = np.array([[0.5, 0.25], [1, 0.5], [-1, 2]]), np.array([[1, 1], [3, 1], [0, -2], [0.5, 4]])


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("name", HOLDS)
def test_property(choice, name):
    compare = fitted(choice)
    if choice not in HOLDS[name]:
        assert not holds(name, compare, X, Y)
        return

    @settings(max_examples=25)
    @given(x=VECTORS, y=VECTORS, a=SCALES, b=SCALES, t=st.integers(-20, 20))
    def always(x, y, a, b, t):
        if choice == "mahalanobis":
            assume(all(np.ptp(v, axis=0).any() for v in (x, y, y[:2])))
        if choice in ANGLES and name in ("self", "nearest"):
            assume(x.any(axis=1).all())
        assert holds(name, compare, x, y, a, b, t)

    always()


@pytest.mark.parametrize("choice", CHOICES)
def test_bounds(choice):
    compare, bounds = fitted(choice), BOUNDS.get(choice, (0, 1))
    if bounds is None:
        assert compare(100 * X, 100 * Y).max() > 10
        assert compare(100 * X, 100 * Y).min() < -10
        return

    @settings(max_examples=25)
    @given(x=VECTORS, y=VECTORS, a=SCALES)
    def always(x, y, a):
        assume(choice != "mahalanobis" or np.ptp(y, axis=0).any())
        made = compare(a * x, y)
        assert bounds[0] <= made.min() <= made.max() <= bounds[1]

    always()


# ---- by hand, and against SciPy and scikit-learn


def test_all_are_there():
    assert set(CHOICES) == {
        *("cosine", "dot", "euclidean", "manhattan", "mahalanobis", "hyperbolic", "spherical"),
        *("ndd", "log_scaled", "hybrid", "exponential", "range_scaled", "learned"),
    }


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("dot", [3, 25, 0]),
        ("cosine", [0.6, 1, 0]),
        ("spherical", [1 - np.arccos(0.6) / np.pi, 1, 0.5]),
        ("ndd", [3 / np.sqrt(13), 5, 0]),
        ("log_scaled", [3 / np.log(6), 25 / np.log(26), 0]),
        ("hybrid", [3 / (np.sqrt(20) + 1), 25, 0]),
        ("euclidean", [1 / (1 + np.sqrt(20)), 1, 1 / 6]),
        ("manhattan", [1 / 7, 1, 1 / 8]),
        ("exponential", [(np.exp(-2) + np.exp(-4)) / 2, 1, (np.exp(-3) + np.exp(-4)) / 2]),
        ("range_scaled", [(1 / 3 + 0) / 2, 1, 0]),
    ],
)
def test_by_hand(choice, expected):
    """3 4 beside 1 0, itself and 0 0."""
    y = np.array([[1, 0], [3, 4], [0, 0]])
    made = component("similarity", choice)(np.array([[3, 4]]), y)
    np.testing.assert_allclose(made, [expected], atol=1e-7)


@pytest.mark.parametrize(
    ("choice", "with_other", "with_zero"),
    [("cosine", 0, 0), ("spherical", 0.5, 0.5), ("ndd", 0, 0), ("log_scaled", 0, 0), ("dot", 0, 0), ("hybrid", 0, 0)],
)
def test_what_a_zero_vector_is(choice, with_other, with_zero):
    made = component("similarity", choice)(np.zeros((1, 2)), np.array([[3, 4], [0, 0]]))
    np.testing.assert_array_equal(made, [[with_other, with_zero]])


@pytest.mark.parametrize(
    ("choice", "theirs"),
    [
        ("dot", lambda x, y: np.array([[a @ b for b in y] for a in x])),
        ("cosine", lambda x, y: 1 - cdist(x, y, "cosine")),
        ("spherical", lambda x, y: 1 - np.arccos(1 - cdist(x, y, "cosine")) / np.pi),
        ("euclidean", lambda x, y: 1 / (1 + cdist(x, y))),
        ("manhattan", lambda x, y: 1 / (1 + cdist(x, y, "cityblock"))),
        (
            "mahalanobis",
            lambda x, y: 1 / (1 + cdist(x, y, "mahalanobis", VI=np.linalg.inv(LedoitWolf().fit(y).covariance_))),
        ),
    ],
)
def test_against_theirs(choice, theirs):
    x, y = rows(20, 8).astype(float), rows(30, 8, seed=1).astype(float)
    np.testing.assert_allclose(component("similarity", choice)(x, y), theirs(x, y), rtol=1e-9)


def test_mahalanobis_counts_what_goes_together_once():
    rng = np.random.default_rng(0)
    y = rng.normal(size=(500, 1)) + 0.1 * rng.normal(size=(500, 2))
    along, across = component("similarity", "mahalanobis")(y[0] + np.array([[1, 1], [1, -1]]), y)[:, 0]
    assert along > 3 * across
    with pytest.raises(AelabError, match="all 3 rows of y are equal"):
        component("similarity", "mahalanobis")(y, np.full((3, 2), 0.1))


def test_mahalanobis_of_two_rows_is_finite():
    """Their covariance has rank 1 and is not shrunk; across it lies the least variance that counts."""
    made = component("similarity", "mahalanobis")(np.array([[0, 0], [1, 1], [1, -1]]), np.array([[0, 0], [2, 2]]))
    along = 1 / (1 + 1)  # the deviation along is sqrt 2, as the distance from 0 0 to 1 1 is
    across = 1 / (1 + np.sqrt(2) / np.sqrt(1e-6))  # the mean of the variances 2 and 0 is 1
    np.testing.assert_allclose(made[:, 0], [1, along, across])


def test_hyperbolic_by_hand():
    """On a ray from the origin the distance is 2 artanh |u|; 8 is cut to 0.5, the norm that 4 has."""
    made = component("similarity", "hyperbolic", radius=0.5)(
        np.array([[0.0, 0], [0, 2], [8, 0]]), np.array([[0, 0], [4, 0]])
    )
    u, v = np.array([0, 0.25]), np.array([0.5, 0])
    apart = np.arccosh(1 + 2 * np.sum((u - v) ** 2) / ((1 - u @ u) * (1 - v @ v)))
    rim, half = 2 * np.arctanh(0.5), 2 * np.arctanh(0.25)
    np.testing.assert_allclose(made, 1 / (1 + np.array([[0, rim], [half, apart], [rim, 0]])), rtol=1e-12)


def test_hyperbolic_of_nothing_but_zeros():
    made = component("similarity", "hyperbolic")(np.array([[0, 0], [9, 0]]), np.zeros((2, 2)))
    np.testing.assert_allclose(made, np.array([[1, 1], [1 / (1 + 2 * np.arctanh(0.9))] * 2]), rtol=1e-12)


@pytest.mark.parametrize("radius", [0, 1, 1.5])
def test_a_radius_that_is_no_ball(radius):
    with pytest.raises(AelabError, match=f"radius {radius}"):
        component("similarity", "hyperbolic", radius=radius)(X, Y)


def test_a_query_does_not_change_the_ball_or_the_range():
    for choice in ("hyperbolic", "range_scaled", "mahalanobis"):
        compare = component("similarity", choice)
        alone = compare(X, Y)
        np.testing.assert_allclose(compare(np.concatenate([X, [[1e4, -1e4]]]), Y)[:-1], alone)


def test_a_constant_dimension_counts_as_equal_or_not():
    y = np.array([[0, 0.1], [2, 0.1]])
    made = component("similarity", "range_scaled")(np.array([[0, 0.1], [1, 0.2], [9, 0.1]]), y)
    np.testing.assert_allclose(made, [[1, 0.5], [0.25, 0.25], [0.5, 0.5]])


# ---- trim, weights, threshold


def slow(values, trim, weights, threshold):
    """One pair's values pooled, a dimension at a time."""
    weights = weights or [1] * len(values)
    order = sorted(range(len(values)), key=lambda i: (values[i], i))[int(trim * len(values) + 1e-9) :]
    kept = [(values[i] if threshold is None else float(values[i] >= threshold), weights[i]) for i in order]
    return sum(v * w for v, w in kept) / sum(w for _, w in kept)


@pytest.mark.parametrize("choice", ["exponential", "range_scaled"])
@pytest.mark.parametrize("trim", [0, 0.1, 0.29, 0.7])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("threshold", [None, 0, 0.6, 1])
def test_pooled_as_one_would_by_hand(choice, trim, weighted, threshold):
    x, y = np.round(rows(4, 10).astype(float), 1), np.round(rows(5, 10, seed=1).astype(float), 1)
    x[0] = y[0]
    weights = [0.5, 1, 2, 3, 0.1, 1, 1, 4, 0.3, 5] if weighted else None
    made = component("similarity", choice, trim=trim, weights=weights, threshold=threshold)(x, y)
    span = y.max(axis=0) - y.min(axis=0)
    gap = np.abs(x[:, None] - y)
    values = np.exp(-gap) if choice == "exponential" else np.clip(1 - gap / span, 0, 1)
    expected = [[slow(list(v), trim, weights, threshold) for v in line] for line in values]
    np.testing.assert_allclose(made, expected, rtol=1e-9, atol=1e-12)


def test_pooled_by_hand():
    """Values 1, 1/e and 1/e^2."""
    x, y, e = np.zeros((1, 3)), np.array([[0, 1, 2]]), np.exp(-1)

    def made(**values):
        return component("similarity", "exponential", **values)(x, y).item()

    assert made() == pytest.approx((1 + e + e * e) / 3)  # a tenth of three is none
    assert made(trim=0.34) == pytest.approx((1 + e) / 2)
    assert made(trim=0.7) == pytest.approx(1)
    assert made(weights=[1, 2, 0]) == pytest.approx((1 + 2 * e) / 3)
    assert made(trim=0.34, weights=[1, 3, 9]) == pytest.approx((1 + 3 * e) / 4)
    assert made(threshold=0.3) == pytest.approx(2 / 3)
    assert made(threshold=0.5, weights=[1, 2, 1]) == pytest.approx(1 / 4)
    assert made(threshold=0.5, trim=0.34) == pytest.approx(1 / 2)


@pytest.mark.parametrize(("d", "trim", "dropped"), [(100, 0.29, 29), (9, 0.1, 0), (10, 0.1, 1), (30, 0.1, 3)])
def test_the_count_that_is_dropped(d, trim, dropped):
    x, y = np.zeros((1, d)), np.where(np.arange(d) < dropped, 50.0, 0)[None]
    compare = component("similarity", "exponential", trim=trim)
    assert compare(x, y).item() == 1
    y[0, -1] = 50
    assert compare(x, y).item() < 1


@pytest.mark.parametrize("choice", ["exponential", "range_scaled"])
@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"trim": 1}, "trim 1 drops 2 dimensions where 2 count"),
        ({"weights": [1]}, "expected 2 weights"),
        ({"weights": [1, -1]}, "expected 2 weights"),
        ({"weights": [1, float("nan")]}, "expected 2 weights"),
        ({"weights": []}, "expected 2 weights"),
        ({"weights": [0, 0]}, "none may be left"),
        ({"weights": [0, 1], "trim": 0.5}, "none may be left"),
    ],
)
def test_knobs_that_leave_nothing(choice, values, said):
    with pytest.raises(AelabError, match=said):
        component("similarity", choice, **values)(X, Y)


# ---- learned


def learned(**values):
    return component("similarity", "learned", **({"hidden": 8, "pairs": 1500, "epochs": 15} | values))()


@pytest.mark.parametrize("seed", range(3))
def test_learned_finds_who_is_liked_together(seed):
    """A third of the random pairs are of one group, too: 3/4 is the right odds for these."""
    x, together = planted(4), GROUPS[:, None] == GROUPS
    made = learned(seed=seed).fit(x, liked(GROUPS))(x, x)
    assert roc_auc_score(together.ravel(), made.ravel()) > 0.98
    assert 0.55 < made[together].mean() < 0.8
    assert made[~together].mean() < 0.4


def test_learned_needs_more_than_closeness():
    """Items liked together that are opposites: no distance finds them."""
    x = np.array([[1.0, 1], [-1, -1], [1, -1], [-1, 1]])[np.arange(60) % 4] * (1 + np.arange(60)[:, None] / 100)
    groups = np.arange(60) % 4 // 2
    made = learned(epochs=60).fit(x, liked(groups))(x, x)
    assert made[0, 1] > 0.5 > made[0, 2]
    euclidean = component("similarity", "euclidean")(x, x)
    assert euclidean[0, 1] < euclidean[0, 2]


def test_the_seed_fixes_what_is_learned():
    one, two, other = (learned(seed=s, epochs=3).fit(planted(), liked(GROUPS))(X, Y) for s in (1, 1, 2))
    np.testing.assert_array_equal(one, two)
    assert not np.allclose(one, other)


def test_pairs_are_of_one_users_row():
    likes, rng = liked(GROUPS), np.random.default_rng(0)
    one, two = learned(pairs=4000)._drawn(60, likes, rng)
    assert len(one) == len(two) == 8000
    assert (one != two).all()
    together = (likes.T @ likes).toarray() > 0
    assert together[one[:4000], two[:4000]].all()
    assert len({*zip(one[:4000], two[:4000], strict=True)}) > 0.8 * (together.sum() - 60)
    assert 0.2 < (GROUPS[one[4000:]] == GROUPS[two[4000:]]).mean() < 0.45
    assert {*one[4000:]} == {*two[4000:]} == set(range(60))


def test_a_user_with_one_like_is_passed_over():
    likes = sparse.csr_array(np.array([[1, 0, 0, 0], [0, 0, 0, 0], [0, 1, 0, 1], [0, 0, 1, 0]]))
    one, two = learned(pairs=50)._drawn(4, likes, np.random.default_rng(0))
    assert {*zip(one[:50].tolist(), two[:50].tolist(), strict=True)} == {(1, 3), (3, 1)}


def test_learned_does_not_change_what_it_reads():
    vectors, likes = planted(), liked(GROUPS)
    for array in (vectors, likes.data, likes.indices, likes.indptr):
        frozen(array)
    of_columns = learned(epochs=2).fit(vectors, likes.tocsc())(X, Y)
    np.testing.assert_array_equal(learned(epochs=2).fit(vectors, likes)(X, Y), of_columns)


def test_learned_takes_a_dimension_that_never_varies():
    vectors = np.concatenate([planted(), np.full((60, 1), 0.1)], axis=1)
    made = learned(epochs=2).fit(vectors, liked(GROUPS))(vectors, vectors + np.array([0, 0, 1e-12]))
    np.testing.assert_allclose(made, learned(epochs=2).fit(vectors, liked(GROUPS))(vectors, vectors), atol=1e-9)


def test_learned_says_what_is_wrong():
    with pytest.raises(AelabError, match="call fit"):
        learned()(X, Y)
    with pytest.raises(AelabError, match=r"fitted on vectors \(n, 2\), got x \(1, 3\) and y \(2, 3\)"):
        fitted("learned")(np.ones((1, 3)), np.ones((2, 3)))
    with pytest.raises(AelabError, match=r"likes \(users, 59\).*\(90, 60\)"):
        learned().fit(planted()[1:], liked(GROUPS))
    with pytest.raises(AelabError, match="two of one user"):
        learned().fit(planted(), sparse.eye_array(60, format="csr"))
    with pytest.raises(AelabError, match="row 1 of x"):
        learned().fit(np.array([[0, 1], [np.nan, 2]]), sparse.csr_array(np.ones((1, 2))))


def test_learned_survives_a_file(tmp_path):
    archive.write(fitted("learned"), tmp_path / "similarity.skops")
    np.testing.assert_array_equal(archive.read(tmp_path / "similarity.skops")(X, Y), fitted("learned")(X, Y))


def test_a_config_node_becomes_what_compares():
    """The learned one is fitted; the others do not look at the likes."""
    values = node("similarity", "learned") | {"hidden": 8, "pairs": 1500, "epochs": 15}
    made = similarities.fitted(values, planted(), liked(GROUPS))
    np.testing.assert_array_equal(made(X, Y), fitted("learned")(X, Y))
    made = similarities.fitted(node("similarity", "hyperbolic"), planted(), None)
    np.testing.assert_array_equal(made(X, Y), similarities.hyperbolic(X, Y, radius=0.9))


# ---- cost


@pytest.mark.parametrize(
    ("choice", "values", "n", "m", "d"),
    [
        ("exponential", {}, 2000, 2000, 64),
        ("range_scaled", {"weights": [1.0] * 64, "threshold": 0.5}, 300, 2000, 64),
        ("exponential", {}, 1, 300_000, 64),
        ("learned", {}, 300, 2000, 12),
    ],
)
def test_memory_stays_bounded(choice, values, n, m, d):
    """Beside the result, and what is as large as x and y."""
    x, y = np.random.default_rng(0).random((n, d)), np.random.default_rng(1).random((m, d))
    compare = fitted(choice, d) if choice == "learned" else component("similarity", choice, **values)
    tracemalloc.start()
    try:
        made = compare(x, y)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    allowed = made.nbytes + 3 * (x.nbytes + y.nbytes) * (choice == "range_scaled") + 64 * 2**20
    assert peak < allowed < 200e6


def test_its_import_is_light():
    code = "import sys, aelab.similarities; print({'sklearn', 'keras', 'tensorflow', 'pandas'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
