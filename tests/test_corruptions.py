import numpy as np
import pytest
from contract import CorruptionContract, RowCorruptionContract, component, listed, node, pictures, rows

from aelab.corruptions import chain


@pytest.mark.parametrize("choice", listed("corruption", kind="image"))
class TestCorruptions(CorruptionContract):
    pass


@pytest.mark.parametrize("choice", listed("corruption", kind="table"))
class TestRowCorruptions(RowCorruptionContract):
    pass


def test_every_corruption_has_a_kind():
    assert {"gaussian", "masking"} <= set(listed("corruption", kind="image"))
    assert {"jitter", "swap"} <= set(listed("corruption", kind="table"))
    others = listed("corruption", kind="table") + listed("corruption", kind="labelled images")
    assert set(listed("corruption")) == {*listed("corruption", kind="image"), *others}


def noisy(choice, grey, seed=0, **values):
    """40 images of one grey, 50 x 50, corrupted: 100,000 pixels."""
    return component("corruption", choice, **values)(
        np.full((40, 50, 50, 1), grey, np.float32), np.random.default_rng(seed)
    )


def test_gaussian_has_the_deviation_that_was_asked_for():
    n = noisy("gaussian", 0.5, level=0.05)
    assert n.mean() == pytest.approx(0.5, abs=0.001)
    assert n.std() == pytest.approx(0.05, rel=0.01)


def test_gaussian_is_clipped_at_black_and_white():
    n = noisy("gaussian", 1, level=0.4)
    assert (n == 1).mean() == pytest.approx(0.5, abs=0.01)
    # A half normal deviate has mean sqrt(2 / pi) * level; half of the pixels have one.
    assert 1 - n.mean() == pytest.approx(0.4 * np.sqrt(2 / np.pi) / 2, rel=0.02)


def test_salt_pepper_replaces_its_share_half_black_half_white():
    n = noisy("salt_pepper", 0.5, level=0.3)
    assert (n == 0).mean() == pytest.approx(0.15, abs=0.005)
    assert (n == 1).mean() == pytest.approx(0.15, abs=0.005)
    assert (n == 0.5).mean() == pytest.approx(0.7, abs=0.005)


@pytest.mark.parametrize("choice", ["salt_pepper", "masking"])
def test_replaced_pixels_are_replaced_in_all_channels(choice):
    x = 0.25 + pictures(4, 20, 20, 3) / 2
    changed = component("corruption", choice)(x, np.random.default_rng(0)) != x
    assert changed.any()
    np.testing.assert_array_equal(changed.all(-1), changed.any(-1))


def test_speckle_is_relative_to_the_pixel():
    assert not noisy("speckle", 0, level=0.5).any()  # black stays black
    n = noisy("speckle", 0.2, level=0.1)
    assert n.mean() == pytest.approx(0.2, rel=0.01)
    assert n.std() == pytest.approx(0.02, rel=0.01)


def test_poisson_has_its_deviation_at_white_and_less_in_the_dark():
    # Counts of mean 1 / level^2 = 100; the clipping at white takes the upper half, so look at what lies below.
    n = noisy("poisson", 1, level=0.1)
    below = n[n < 1] - 1
    assert np.sqrt(np.square(below).mean()) == pytest.approx(0.1, rel=0.05)
    n = noisy("poisson", 0.25, level=0.1)
    assert n.mean() == pytest.approx(0.25, rel=0.01)
    assert n.std() == pytest.approx(0.1 * np.sqrt(0.25), rel=0.02)
    assert not noisy("poisson", 0, level=0.1).any()
    np.testing.assert_allclose(n * 100, np.rint(n * 100), atol=1e-4)  # whole photons


def test_masking_hides_its_share_in_whole_blocks():
    n = noisy("masking", 0.5, level=0.3, block=5)
    assert set(np.unique(n)) == {0, 0.5}
    assert (n == 0).mean() == pytest.approx(0.3, abs=0.02)
    blocks = n.reshape(40, 10, 5, 10, 5)
    np.testing.assert_array_equal(blocks.min(axis=(2, 4)), blocks.max(axis=(2, 4)))
    assert not noisy("masking", 0.5, level=1, block=7).any()  # also where the last block is cut off


def test_jitter_has_the_deviation_that_was_asked_for():
    x = 5 * rows(4000, 9)
    noise = component("corruption", "jitter", level=0.3)(x, np.random.default_rng(0)) - x
    np.testing.assert_allclose(noise.mean(axis=0), 0, atol=0.02)
    np.testing.assert_allclose(noise.std(axis=0), 0.3, rtol=0.05)


def test_swap_takes_its_share_of_cells_from_the_same_column():
    x = np.random.default_rng(0).permuted(np.arange(40_000, dtype=np.float32).reshape(8, -1), axis=1).T  # all different
    swapped = component("corruption", "swap", level=0.3)(x, np.random.default_rng(0))
    assert (swapped != x).mean() == pytest.approx(0.3, abs=0.01)
    for before, after in zip(x.T, swapped.T, strict=True):
        assert set(after) <= set(before)
    np.testing.assert_allclose((swapped != x).mean(axis=0), 0.3, atol=0.03)  # each feature alike
    together = (swapped != x).all(axis=1).mean()
    assert together < 0.01  # features of a row are swapped each by itself


def test_swap_at_level_1_breaks_every_row_apart():
    x = np.arange(900, dtype=np.float32)[:, None] * np.ones(2, np.float32)  # both features tell the row
    swapped = component("corruption", "swap", level=1)(x, np.random.default_rng(0))
    assert (swapped[:, 0] == swapped[:, 1]).mean() < 0.02
    assert (swapped == x).mean() < 0.02


def test_swap_of_one_row_has_nothing_to_take():
    x = rows(1, 6)
    np.testing.assert_array_equal(component("corruption", "swap", level=1)(x, np.random.default_rng(0)), x)


def test_chain_applies_its_steps_in_order():
    steps = {"salt_pepper": node("corruption", "salt_pepper"), "masking": node("corruption", "masking") | {"level": 1}}
    x, rng = np.full((1, 9, 9, 1), 0.5, np.float32), np.random.default_rng
    assert not chain({"level": None} | steps)(x, rng(0)).any()  # hidden last: all black
    other = chain({name: steps[name] for name in ("masking", "salt_pepper")})(x, rng(0))
    assert other.any()  # hidden first: salt on black
    assert set(np.unique(other)) == {0, 1}


def test_chain_hands_one_generator_on():
    """Two equal steps draw different noise."""
    twice = chain({"a": node("corruption", "gaussian"), "b": node("corruption", "gaussian")})
    rng, step = np.random.default_rng(0), component("corruption", "gaussian")
    x = pictures(2, 8, 8, 1)
    np.testing.assert_array_equal(twice(x, np.random.default_rng(0)), step(step(x, rng), rng))


def test_chain_of_nothing_changes_nothing():
    x = pictures(2, 8, 8, 1)
    assert chain({"level": None})(x, np.random.default_rng(0)) is x
