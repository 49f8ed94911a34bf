"""Raw rows to features: the scaling of scikit-learn, logarithms, empty cells and categories."""

import copy

import numpy as np
import pytest
from contract import component, frozen, listed
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.preprocessing import MinMaxScaler, QuantileTransformer, RobustScaler, StandardScaler

from aelab import archive
from aelab.config import ConfigError
from aelab.data.record import Columns

CHOICES = listed("preparation", kind="table")
RNG = np.random.default_rng(0)
X = frozen(np.column_stack([RNG.normal(50, 9, 300), RNG.uniform(-1, 0, 300), RNG.integers(0, 4, 300)]))
OTHER = frozen(X[:40] * 3 - 20)  # most of it beyond all training values
PLAIN = {"log": None, "clip": None}


def columns(*names, **categories):
    """Columns by name, the categorical ones with their known values behind the numbers."""
    return Columns([*names, *categories], categories, {})


def prepared(choice, x, told=None, **values):
    """A preparation that was fitted on x; its columns are a, b, c... where they are not told."""
    return component("preparation", choice, **PLAIN | values)(x, told or columns(*"abcdefgh"[: x.shape[1]]))


def state(preparation):
    """All that was fitted, as it is now."""
    return copy.deepcopy({**vars(preparation), "scaler": vars(preparation.scaler)})


def test_all_preparations_are_for_tables():
    assert set(CHOICES) == set(listed("preparation")) >= {"standard", "robust", "minmax", "quantile"}


# ---- numbers


@pytest.mark.parametrize(
    ("choice", "values", "theirs"),
    [
        ("standard", {}, StandardScaler()),
        ("robust", {}, RobustScaler()),
        ("robust", {"within": [5, 90]}, RobustScaler(quantile_range=(5, 90))),
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
    assert prepare.features == ["a", "b", "c"]
    np.testing.assert_array_equal(prepare.origin, [0, 1, 2])


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
def test_a_constant_column_is_no_obstacle(choice, value):
    x = np.column_stack([X[:, 0], np.full(len(X), value)])
    prepare = prepared(choice, x, log="auto")
    got = prepare(x)
    assert np.isfinite(got).all()
    assert len(np.unique(got[:, 1])) == 1
    assert np.isfinite(prepare(x + 1)).all()


# ---- logarithms


def shaped():
    """Columns by their shape: only the third is both never negative and heavy-tailed."""
    rng = np.random.default_rng(1)
    heavy = np.exp(2 * rng.standard_normal(2000))
    return np.column_stack(
        [rng.standard_normal(2000), rng.random(2000), heavy, heavy - 1, -heavy, rng.exponential(size=2000)]
    )


def test_auto_takes_the_logarithm_of_heavy_tails_that_are_never_negative():
    x = shaped()
    got = prepared("standard", x, log="auto")(x)
    expected = x.copy()
    expected[:, 2] = np.log1p(x[:, 2])
    np.testing.assert_allclose(got, StandardScaler().fit_transform(expected), rtol=1e-5, atol=1e-6)
    assert not np.allclose(got[:, 2], prepared("standard", x)(x)[:, 2], atol=0.1)  # null takes none


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
    assert str(error.value) == f"preparation.log: {name} is no column of numbers; there are: ['a']"


# ---- empty cells


@pytest.mark.parametrize("choice", CHOICES)
def test_an_empty_cell_is_the_median_and_has_a_flag(choice):
    x = X.copy()
    x[[3, 8], 1] = np.nan
    prepare = prepared(choice, x)
    assert prepare.features == ["a", "b", "c", "b is empty"]
    np.testing.assert_array_equal(prepare.origin, [0, 1, 2, 1])
    filled = np.where(np.isnan(x), np.median(np.delete(x[:, 1], [3, 8])), x)
    np.testing.assert_array_equal(prepare(x)[:, :3], prepared(choice, filled)(filled))
    np.testing.assert_array_equal(np.flatnonzero(prepare(x)[:, 3]), [3, 8])
    assert set(prepare(x)[:, 3]) == {0, 1}


def test_a_cell_that_is_empty_in_the_test_alone_is_the_median():
    prepare, x = prepared("standard", X), X[:4].copy()
    x[2, 0] = np.nan
    assert prepare.features == ["a", "b", "c"]
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


# ---- categories


@pytest.mark.parametrize("choice", CHOICES)
def test_categories_are_one_hot_with_one_for_all_others(choice):
    x = np.array([[0, 1.5, 1], [1, 2.5, 0], [1, 3.5, 0], [0, 4.5, 1]])
    told = Columns(["proto", "size", "flag"], {"proto": ["tcp", "udp"], "flag": ["S0", "SF"]}, {})
    prepare = prepared(choice, x, told)
    assert prepare.features == ["size", "proto=tcp", "proto=udp", "proto=other", "flag=S0", "flag=SF", "flag=other"]
    np.testing.assert_array_equal(prepare.origin, [1, 0, 0, 0, 2, 2, 2])
    got = prepare(np.array([[0, 2.0, 1], [1, 2.0, 0], [2, 2.0, 2]]))[:, 1:]
    np.testing.assert_array_equal(got, [[1, 0, 0, 0, 1, 0], [0, 1, 0, 1, 0, 0], [0, 0, 1, 0, 0, 1]])


@pytest.mark.parametrize("choice", CHOICES)
def test_a_table_without_a_number(choice):
    x = np.array([[0.0, 1], [1, 0], [1, 1]])
    prepare = prepared(choice, x, columns(p=["x", "y"], q=["n", "o"]), log="auto", clip=0.5)
    got = prepare(x)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, [[1, 0, 0, 0, 1, 0], [0, 1, 0, 1, 0, 0], [0, 1, 0, 0, 1, 0]])
    np.testing.assert_array_equal(prepare.origin, [0, 0, 0, 1, 1, 1])


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
@given(table=tables(), log=st.sampled_from(["auto", None]), clip=st.sampled_from([None, 3.0]))
@settings(max_examples=25)
def test_any_table(choice, table, log, clip):
    x, told, other = table
    prepare = prepared(choice, frozen(x), told, log=log, clip=clip)
    before = state(prepare)
    got, elsewhere = prepare(x), prepare(frozen(other))
    for features, rows in ((got, x), (elsewhere, other)):
        assert features.dtype == np.float32
        assert features.shape == (len(rows), len(prepare.features)) == (len(rows), len(prepare.origin))
        assert np.isfinite(features).all()
    for feature, i in zip(prepare.features, prepare.origin, strict=True):  # every feature says where it is from
        assert feature.startswith(told.names[i])
    assert set(prepare.origin) == set(range(len(told.names)))
    for i in (i for i, name in enumerate(told.names) if name in told.categories):
        block = elsewhere[:, prepare.origin == i]
        np.testing.assert_array_equal(block, np.eye(4)[other[:, i].astype(int)])
    # Rows of the test move nothing that was fitted, and a row's features are its own.
    np.testing.assert_equal(state(prepare), before)
    np.testing.assert_array_equal(prepare(x), got)
    np.testing.assert_array_equal(np.concatenate([prepare(row[None]) for row in other]), elsewhere)


@pytest.mark.parametrize("choice", CHOICES)
def test_survives_a_file_bit_for_bit(choice, tmp_path):
    x = np.column_stack([shaped()[:300], RNG.integers(0, 3, 300)])
    x[7, 2] = np.nan
    prepare = prepared(choice, x, columns(*"abcdef", kind=["u", "v", "w"]), log="auto", clip=3.0)
    archive.write(prepare, tmp_path / "preparation.skops")
    again = archive.read(tmp_path / "preparation.skops")
    assert again(x).tobytes() == prepare(x).tobytes()
    assert again(x[:20] * 2).tobytes() == prepare(x[:20] * 2).tobytes()
    assert (again.features, list(again.origin)) == (prepare.features, list(prepare.origin))
