"""Raw rows to features: the scaling of scikit-learn, logarithms, empty cells and categories."""

import copy

import numpy as np
import pytest
from contract import component, frozen, listed
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA
from sklearn.preprocessing import MinMaxScaler, QuantileTransformer, RobustScaler, StandardScaler

from aelab import archive
from aelab.config import ConfigError
from aelab.data.record import Columns

CHOICES = listed("preparation", kind="table")
RNG = np.random.default_rng(0)
X = frozen(np.column_stack([RNG.normal(50, 9, 300), RNG.uniform(-1, 0, 300), RNG.integers(0, 4, 300)]))
OTHER = frozen(X[:40] * 3 - 20)  # most of it beyond all training values
PLAIN = {"log": None, "clip": None, "whiten": False}


def columns(*names, **categories):
    """Columns by name, the categorical ones with their known values behind the numbers."""
    return Columns([*names, *categories], categories, {})


def prepared(choice, x, told=None, **values):
    """A preparation that was fitted on x; its columns are a, b, c... where they are not told."""
    return component("preparation", choice, **PLAIN | values)(x, told or columns(*"abcdefgh"[: x.shape[1]]))


def state(preparation):
    """All that was fitted, as it is now."""
    fitted = {k: vars(v) if hasattr(v, "get_params") else v for k, v in vars(preparation).items()}
    return copy.deepcopy(fitted)


def test_all_preparations_are_for_tables():
    assert set(CHOICES) == set(listed("preparation")) >= {"standard", "robust", "minmax", "quantile"}


# ---- numbers


@pytest.mark.parametrize(
    ("choice", "values", "theirs"),
    [
        ("standard", {}, StandardScaler()),
        ("robust", {}, RobustScaler(unit_variance=True)),
        ("robust", {"within": [5, 90]}, RobustScaler(quantile_range=(5, 90), unit_variance=True)),
        ("minmax", {}, MinMaxScaler()),
        ("quantile", {}, QuantileTransformer(n_quantiles=300, output_distribution="normal")),
        ("quantile", {"quantiles": 20}, QuantileTransformer(n_quantiles=20, output_distribution="normal")),
        ("quantile", {"distribution": "uniform"}, QuantileTransformer(n_quantiles=300)),
    ],
)
def test_numbers_are_scaled_as_by_scikit_learn(choice, values, theirs):
    prepare, theirs = prepared(choice, X, **values), theirs.fit(X)
    for x in (X, OTHER):
        got = prepare(x)
        assert got.dtype == np.float32
        np.testing.assert_array_equal(got, theirs.transform(x).astype(np.float32))
    np.testing.assert_array_equal(prepare.share, np.eye(3))


def test_robust_leaves_a_normal_distribution_as_it_is():
    x = np.random.default_rng(0).standard_normal((50_000, 1))
    x[:2000] += 1000  # and outliers move it little
    got = prepared("robust", x)(x)[2000:]
    assert got.mean() == pytest.approx(0, abs=0.1)
    assert got.std() == pytest.approx(1, abs=0.1)


def test_quantiles_use_every_row():
    """scikit-learn would draw 10,000 of more rows: here the rank is exact, and no draw decides."""
    x = np.arange(12_000.0)[:, None]
    got = prepared("quantile", x, distribution="uniform", quantiles=12_000)(x)
    np.testing.assert_allclose(got[:, 0], np.linspace(0, 1, 12_000), atol=1e-6)


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("clip", [0.5, 2.0])
def test_clip_ends_numbers_but_not_flags_and_categories(choice, clip):
    x = np.column_stack([X, RNG.integers(0, 2, len(X))])
    x[5, 0] = np.nan
    told = columns("a", "b", "c", kind=["u", "v"])
    free, clipped = (prepared(choice, x, told, clip=v)(x * 4) for v in (None, clip))
    assert np.abs(free[:, :3]).max() > clip
    np.testing.assert_array_equal(clipped[:, :3], np.clip(free[:, :3], -clip, clip))
    np.testing.assert_array_equal(clipped[:, 3:], free[:, 3:])
    assert clipped[:, 3:].max() == 1


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("value", [0.0, -3.0, 1e9])
def test_a_constant_column_is_a_flag_of_what_differs(choice, value):
    x = np.column_stack([X[:, 0], np.full(len(X), value)])
    prepare = prepared(choice, x, log="auto", clip=0.5)
    np.testing.assert_array_equal(prepare(x)[:, 1], 0)
    other = x[:5].copy()
    other[[1, 3], 1] += [1e-3, -1e6]
    other[4, 1] = np.nan  # empty: as usual
    np.testing.assert_array_equal(prepare(other)[:, 1], [0, 1, 0, 1, 0])
    np.testing.assert_array_equal(prepare(other)[:, 0], prepare(x)[:5, 0])


# ---- logarithms


def shaped():
    """Columns by their shape: only the third and the last are never negative and have a heavy tail."""
    rng = np.random.default_rng(1)
    heavy = np.exp(2 * rng.standard_normal(2000))
    rare = np.where(rng.random(2000) < 0.1, 3.0, 0)
    return np.column_stack([rng.standard_normal(2000), rng.random(2000), heavy, heavy - 1, -heavy, rare])


def test_auto_takes_the_logarithm_of_heavy_tails_that_are_never_negative():
    x = shaped()
    got = prepared("standard", x, log="auto")(x)
    expected = x.copy()
    expected[:, [2, 5]] = np.log1p(x[:, [2, 5]])
    np.testing.assert_allclose(got, StandardScaler().fit_transform(expected), rtol=1e-5, atol=1e-6)
    assert not np.allclose(got[:, 2], prepared("standard", x)(x)[:, 2], atol=0.1)  # null takes none


@pytest.mark.parametrize(("largest", "taken"), [(9.9, False), (10.1, True)])
def test_a_tail_is_heavy_from_ten_times_the_third_quartile(largest, taken):
    x = np.concatenate([np.linspace(0, 1, 76), np.ones(24), [largest]])[:, None]
    assert np.quantile(x, 0.75) == 1
    assert list(prepared("standard", x, log="auto").logged) == [0] * taken


def test_the_logarithm_of_named_columns():
    x = shaped()
    got = prepared("minmax", x, log=["a", "e"])(x)
    expected = x.copy()
    for i in (0, 4):
        expected[:, i] = np.sign(x[:, i]) * np.log1p(np.abs(x[:, i]))  # below zero the sign is kept
    np.testing.assert_allclose(got, MinMaxScaler().fit_transform(expected), rtol=1e-5, atol=1e-6)


def test_the_logarithm_of_a_value_below_those_of_training():
    x = shaped()[:, 2:3]
    prepare = prepared("standard", x, log="auto")
    low, zero, high = prepare(np.array([[-50.0], [0.0], [50.0]]))[:, 0]
    assert high - zero == pytest.approx(zero - low, rel=1e-5)
    assert low < zero < high


@pytest.mark.parametrize("name", ["z", "kind"])
def test_a_logarithm_of_no_number_is_an_error(name):
    x = np.column_stack([X[:, 0], X[:, 2]])
    with pytest.raises(ConfigError) as error:
        prepared("standard", x, columns("a", kind=["u", "v", "w", "x"]), log=["a", name])
    assert str(error.value) == f"preparation.log: {name} is no column of numbers; there are: a"


# ---- empty cells


@pytest.mark.parametrize("choice", CHOICES)
def test_an_empty_cell_is_the_median_and_has_a_flag(choice):
    x = X.copy()
    x[[3, 8], 1] = np.nan
    prepare = prepared(choice, x)
    np.testing.assert_array_equal(prepare.share, np.eye(3)[[0, 1, 2, 1]])
    filled = np.where(np.isnan(x), np.median(np.delete(x[:, 1], [3, 8])), x)
    np.testing.assert_array_equal(prepare(x)[:, :3], prepared(choice, filled)(filled))
    np.testing.assert_array_equal(np.flatnonzero(prepare(x)[:, 3]), [3, 8])
    assert set(prepare(x)[:, 3]) == {0, 1}


def test_a_cell_that_is_empty_in_the_test_alone_is_the_median():
    prepare, x = prepared("standard", X), X[:4].copy()
    x[2, 0] = np.nan
    assert prepare(x).shape == (4, 3)
    filled = np.where(np.isnan(x), np.median(X[:, 0]), x)
    np.testing.assert_array_equal(prepare(x), prepare(filled))


@pytest.mark.parametrize("choice", CHOICES)
def test_a_column_without_any_value_says_nothing(choice):
    """A small limit may leave one so."""
    x = X.copy()
    x[:, 1] = np.nan
    got = prepared(choice, x)(np.concatenate([x, X[:5]]))
    assert np.isfinite(got).all()
    np.testing.assert_array_equal(got[:300, [0, 2]], prepared(choice, X)(X)[:, [0, 2]])
    np.testing.assert_array_equal(got[:, 3], np.arange(305) < 300)
    assert len(np.unique(got[:300, 1])) == 1


# ---- categories


@pytest.mark.parametrize("choice", CHOICES)
def test_categories_are_one_hot_with_one_for_all_others(choice):
    x = np.array([[0, 1.5, 1], [1, 2.5, 0], [1, 3.5, 0], [0, 4.5, 1]])
    told = Columns(["proto", "size", "flag"], {"proto": ["tcp", "udp"], "flag": ["S0", "SF"]}, {})
    prepare = prepared(choice, x, told)
    np.testing.assert_array_equal(prepare.share, np.eye(3)[[1, 0, 0, 0, 2, 2, 2]])
    got = prepare(np.array([[0, 2.0, 1], [1, 2.0, 0], [2, 2.0, 2]]))[:, 1:]
    np.testing.assert_array_equal(got, [[1, 0, 0, 0, 1, 0], [0, 1, 0, 1, 0, 0], [0, 0, 1, 0, 0, 1]])


@pytest.mark.parametrize("choice", CHOICES)
def test_a_table_without_a_number(choice):
    x = np.array([[0.0, 1], [1, 0], [1, 1]])
    prepare = prepared(choice, x, columns(p=["x", "y"], q=["n", "o"]), log="auto", clip=0.5)
    got = prepare(x)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, [[1, 0, 0, 0, 1, 0], [0, 1, 0, 1, 0, 0], [0, 1, 0, 0, 1, 0]])
    np.testing.assert_array_equal(prepare.share, np.eye(2)[[0, 0, 0, 1, 1, 1]])


# ---- whitening


@pytest.mark.parametrize("choice", CHOICES)
def test_whitened_features_are_the_principal_components_of_the_others(choice):
    x = np.column_stack([X, X[:, 0] + X[:, 1], RNG.integers(0, 2, len(X))])
    told = columns("a", "b", "c", "d", kind=["u", "v"])
    plain, white = prepared(choice, x, told), prepared(choice, x, told, whiten=True)
    theirs = PCA(whiten=True, svd_solver="full").fit(plain(x))
    count = int((theirs.explained_variance_ > 1e-6 * theirs.explained_variance_[0]).sum())
    got = white(x)
    assert got.dtype == np.float32
    assert got.shape == (len(x), count)
    for rows in (x, x[:9] * 2):
        np.testing.assert_allclose(white(rows), theirs.transform(plain(rows))[:, :count], rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(got.mean(axis=0), 0, atol=1e-3)
    np.testing.assert_allclose(np.cov(got.T), np.eye(count), atol=1e-3)
    np.testing.assert_allclose(white.share, theirs.components_[:count] ** 2 @ plain.share, atol=1e-5)


def test_whitening_leaves_out_what_others_tell():
    """A sum of two columns, and one of the flags of two values, say nothing more."""
    x = np.column_stack([X[:, 0], X[:, 1], RNG.integers(0, 2, len(X))])
    told = columns("a", "b", kind=["u", "v"])
    assert prepared("standard", x, told)(x).shape[1] == 5
    assert prepared("standard", x, told, whiten=True)(x).shape[1] == 3
    with_sum = np.column_stack([X[:, :2], X[:, 0] + X[:, 1]])
    assert prepared("standard", with_sum, whiten=True)(with_sum).shape[1] == 2


def test_a_component_belongs_to_the_columns_that_make_it():
    """Scaled to [0, 1], a column of two values varies far more than a normal one: it is the first component alone."""
    x = np.column_stack([RNG.standard_normal(4000), RNG.integers(0, 2, 4000)])
    share = prepared("minmax", x, whiten=True).share
    np.testing.assert_allclose(share, [[0, 1], [1, 0]], atol=0.01)
    np.testing.assert_allclose(share.sum(axis=1), 1, rtol=1e-6)


# ---- what holds for any table


@st.composite
def tables(draw):
    """(x, columns, other rows): some numbers, some categories, some cells empty, some columns constant."""
    numbers, coded = draw(st.sampled_from([(1, 0), (3, 0), (2, 2), (0, 1), (1, 1)]))
    n, rng = draw(st.integers(2, 40)), np.random.default_rng(draw(st.integers(0, 99)))
    x = np.exp(draw(st.sampled_from([0.1, 3.0])) * rng.standard_normal((n + 9, numbers))) - draw(
        st.sampled_from([0, 1])
    )
    x[:, rng.random(numbers) < draw(st.sampled_from([0, 0.5]))] = 2.0
    x[rng.random(x.shape) < draw(st.sampled_from([0, 0.1]))] = np.nan
    codes = rng.integers(0, 4, (n + 9, coded))
    x = np.column_stack([x, codes])
    x[:n, numbers:] = np.minimum(x[:n, numbers:], 2)  # the number after the last is there in other rows alone
    x[0, :numbers] = 1.0  # a value in every column
    order = rng.permutation(numbers + coded)
    names = np.array([f"n{i}" for i in range(numbers)] + [f"c{i}" for i in range(coded)])
    told = Columns(list(names[order]), {f"c{i}": ["r", "s", "t"] for i in range(coded)}, {})
    return x[:n, order], told, x[n:, order]


@pytest.mark.parametrize("choice", CHOICES)
@given(table=tables(), log=st.sampled_from(["auto", None]), clip=st.sampled_from([None, 3.0]), whiten=st.booleans())
@settings(max_examples=30)
def test_any_table(choice, table, log, clip, whiten):
    x, told, other = table
    if whiten and (x[0] == x).all():
        with pytest.raises(ConfigError, match="no column varies"):
            prepared(choice, frozen(x), told, log=log, clip=clip, whiten=True)
        return
    prepare = prepared(choice, frozen(x), told, log=log, clip=clip, whiten=whiten)
    before = state(prepare)
    got, elsewhere = prepare(x), prepare(frozen(other))
    for features, rows in ((got, x), (elsewhere, other)):
        assert features.dtype == np.float32
        assert features.shape == (len(rows), len(prepare.share))
        assert np.isfinite(features).all()
    assert prepare.share.shape[1] == len(told.names)
    np.testing.assert_allclose(prepare.share.sum(axis=1), 1, rtol=1e-5)  # every feature says where it is from
    for i in (i for i, name in enumerate(told.names) if name in told.categories and not whiten):
        block = elsewhere[:, prepare.share[:, i] == 1]
        np.testing.assert_array_equal(block, np.eye(4)[other[:, i].astype(int)])
    # Rows of the test move nothing that was fitted, and a row's features are its own.
    np.testing.assert_equal(state(prepare), before)
    np.testing.assert_array_equal(prepare(x), got)
    alone = np.concatenate([prepare(row[None]) for row in other])
    np.testing.assert_allclose(alone, elsewhere, rtol=1e-4, atol=1e-4 if whiten else 0)


@pytest.mark.parametrize("whiten", [False, True])
@pytest.mark.parametrize("choice", CHOICES)
def test_survives_a_file_bit_for_bit(choice, whiten, tmp_path):
    x = np.column_stack([shaped()[:300], RNG.integers(0, 3, 300)])
    x[7, 2] = np.nan
    prepare = prepared(choice, x, columns(*"abcdef", kind=["u", "v", "w"]), log="auto", clip=3.0, whiten=whiten)
    archive.write(prepare, tmp_path / "preparation.skops")
    again = archive.read(tmp_path / "preparation.skops")
    assert again(x).tobytes() == prepare(x).tobytes()
    assert again(x[:20] * 2).tobytes() == prepare(x[:20] * 2).tobytes()
    np.testing.assert_array_equal(again.share, prepare.share)
