"""Kneser-Ney: by hand, against dictionaries written from the formula, and in a file."""

from collections import Counter, defaultdict

import numpy as np
import pytest
from contract import component, frozen, listed, node
from hypothesis import given
from hypothesis import strategies as st

from aelab import archive, declared
from aelab.models.ngrams import KneserNey

V = 5


def fitted(x, order, v=V):
    model = KneserNey((v, 1), order=order)
    model.fit(frozen(np.array(x, np.int32)))
    return model


def after(model, *context):
    """P of each token after a context, (v,)."""
    return model.probabilities(np.array([context]))[0, -1]


# ---- by hand


def test_order_0_is_uniform():
    model = fitted([1, 2, 2, 1], 0)
    np.testing.assert_allclose(np.exp(model.predict(np.array([[1, 2, 3]]))), np.full((1, 3, V), 1 / V), rtol=1e-6)


def test_the_unigram_model_by_hand():
    """Counts 0, 1, 1, 2, 3: n1 = 2, n2 = 1, n3 = 1, n4 = 0, so Y = 2 / (2 + 2) = 1/2.

    D1 = 1 - 2 Y n2 / n1 = 1/2, D2 = 2 - 3 Y n3 / n2 = 1/2, D3 = 3 - 4 Y n4 / n3 = 3. What is taken from the 7 tokens,
    1/2 + 1/2 + 1/2 + 3 = 4.5, is shared out among 5.
    """
    model = fitted([1, 2, 3, 3, 4, 4, 4], 1)
    share = 4.5 / 7 / 5
    expected = [share, 0.5 / 7 + share, 0.5 / 7 + share, 1.5 / 7 + share, share]
    np.testing.assert_allclose(after(model, 4), expected, rtol=1e-12)
    np.testing.assert_allclose(after(model, 0), expected, rtol=1e-12)  # whatever stands before


def test_the_bigram_model_by_hand():
    """The text 1 2 1 2 1 2 1 3 1 3 1 4 1 has the bigrams 12 three times, 21 three, 13 and 31 twice, 14 and 41 once.

    Bigrams: n1 = 2, n2 = 2, n3 = 2, n4 = 0: Y = 2 / (2 + 4) = 1/3, D1 = 1 - 2/3 = 1/3, D2 = 2 - 1 = 1, D3 = 3.
    Tokens, by how many came before: 1 after 2, 3 and 4 is 3; 2, 3 and 4 after 1 alone are 1. So n1 = 3, n2 = 0, n3 = 1,
    n4 = 0: Y = 1, D1 = 1, D3 = 3: all 6 are taken, and P_1 is uniform, 1/5.
    After 1, which 6 tokens follow: 2 has (3 - 3) / 6, 3 has (2 - 1) / 6, 4 has (1 - 1/3) / 6, and
    gamma = (3 + 1 + 1/3) / 6. After 2, 3 of 3 are taken. After 4, gamma = 1/3.
    """
    model, gamma = fitted([1, 2, 1, 2, 1, 2, 1, 3, 1, 3, 1, 4, 1], 2), (3 + 1 + 1 / 3) / 6
    np.testing.assert_allclose(after(model, 1), np.array([0, 0, 0, 1 / 6, 1 / 9]) + gamma / 5, rtol=1e-12)
    np.testing.assert_allclose(after(model, 2), [1 / 5] * 5, rtol=1e-12)
    np.testing.assert_allclose(after(model, 4), np.array([0, 2 / 3, 0, 0, 0]) + 1 / 15, rtol=1e-12)
    np.testing.assert_allclose(after(model, 0), [1 / 5] * 5, rtol=1e-12)  # never seen: P_1 alone


def test_a_token_that_follows_one_other_alone_is_unlikely_elsewhere():
    """ "Francisco", 4, stands as often as 3, but always after "San", 2; and 3 stands after twelve different tokens."""
    text = [token for i in range(36) for token in (5 + i % 12, 3, 2, 4)]
    unigram, bigram = fitted(text, 1, 17), fitted(text, 2, 17)
    assert after(unigram, 0)[4] == after(unigram, 0)[3] > 0.2
    assert after(bigram, 2)[4] > 0.7
    assert after(bigram, 0)[4] < after(bigram, 0)[3] / 3


# ---- against dictionaries


class Dictionaries:
    """Interpolated modified Kneser-Ney, from the formula: a dictionary of counts for each order, and recursion."""

    def __init__(self, x, v, order):
        self.v, self.order, self.counts, self.discounts = v, order, {}, {}
        for n in range(1, order + 1):
            if n == order:
                counts = Counter(tuple(x[i : i + n]) for i in range(len(x) - n + 1))
            else:
                longer = {tuple(x[i : i + n + 1]) for i in range(len(x) - n)}
                counts = Counter(gram[1:] for gram in longer)
            of = Counter(counts.values())
            assert all(of[c] for c in (1, 2, 3)), f"order {n}: the text leaves a discount open"
            y = of[1] / (of[1] + 2 * of[2])
            self.discounts[n] = [c - (c + 1) * y * of[c + 1] / of[c] for c in (1, 2, 3)]
            assert all(0 <= d <= c for c, d in enumerate(self.discounts[n], 1)), f"order {n}: the text leaves 0 to c"
            self.counts[n] = defaultdict(dict)
            for gram, count in counts.items():
                self.counts[n][gram[:-1]][gram[-1]] = count

    def p(self, w, context, n):
        if n == 0:
            return 1 / self.v
        lower = self.p(w, context[1:], n - 1)
        found = self.counts[n].get(context)
        if not found:
            return lower
        taken = {t: self.discounts[n][min(c, 3) - 1] for t, c in found.items()}
        own = max(found[w] - taken[w], 0) if w in found else 0
        return (own + sum(taken.values()) * lower) / sum(found.values())

    def after(self, context):
        n = min(self.order, len(context) + 1)
        used = tuple(context[len(context) - n + 1 :])
        return [self.p(w, used, n) for w in range(self.v)]


RARE = 60


def varied():
    """A text whose tokens are of all frequencies, each more or less likely by the one before; 0 is never there."""
    rng, x = np.random.default_rng(0), [1]
    chances = 1 / np.arange(1, RARE) ** 1.3
    for _ in range(600):
        odds = np.roll(chances, x[-1] % 3)
        x.append(1 + int(rng.choice(RARE - 1, p=odds / odds.sum())))
    return x


@pytest.mark.parametrize("order", range(5))
def test_all_chances_are_those_of_the_dictionaries(order):
    x = varied()
    model, slow = fitted(x, order, RARE), Dictionaries(x, RARE, order)
    rows = np.array([x[10:20], x[-10:], [0, 1, 59, 0, *x[3:9]]])  # rows that are read on, and contexts never seen
    got = model.probabilities(rows)
    expected = [[slow.after(row[: t + 1].tolist()) for t in range(len(row))] for row in rows]
    np.testing.assert_allclose(got, expected, rtol=1e-10)
    logs = model.predict(rows)
    assert logs.dtype == np.float32
    np.testing.assert_allclose(logs, np.log(expected), rtol=1e-5)


# ---- whatever the text


TOKENS = st.lists(st.integers(0, V - 1), min_size=8, max_size=60)


@given(x=TOKENS, order=st.integers(0, 5), row=st.lists(st.integers(0, V - 1), min_size=1, max_size=8))
def test_chances_add_up_to_1_after_any_context(x, order, row):
    p = fitted(x, order).probabilities(np.array([row, row[::-1]]))
    assert p.min() >= 0
    np.testing.assert_allclose(p.sum(axis=-1), 1, rtol=1e-12)


@given(x=TOKENS, times=st.sampled_from([1, 4]), order=st.integers(0, 5))
def test_nothing_is_impossible(x, times, order):
    """Else one new token makes the mean of a test infinite. The text lacks 0; four times over, nothing is rare."""
    x = [max(token, 1) for token in x] * times
    assert fitted(x, order).probabilities(np.array([range(V), x[:V]])).min() > 0


def test_a_token_that_training_lacks_has_a_chance_where_all_others_are_frequent():
    chances = fitted([1, 2, 3, 4] * 4, 1).predict(np.array([[1]]))
    assert np.isfinite(chances).all()


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_an_order_beyond_the_text_backs_off(n):
    p = fitted(range(n), 7).probabilities(np.array([[0, 1, 2, 3, 4, 0, 1, 2, 3]]))
    np.testing.assert_allclose(p.sum(axis=-1), 1, rtol=1e-12)


def test_a_row_is_read_by_itself():
    model, rows = fitted(varied(), 3, RARE), np.random.default_rng(1).integers(0, RARE, (7, 12))
    whole = model.predict(frozen(rows))
    np.testing.assert_array_equal(whole[3:4], model.predict(rows[3:4]))
    np.testing.assert_array_equal(whole[:, :5], model.predict(rows[:, :5]))  # nothing is seen of what follows


def test_many_rows_in_blocks_are_the_same(monkeypatch):
    model, rows = fitted(varied(), 3, RARE), np.random.default_rng(1).integers(0, RARE, (7, 12))
    whole = model.predict(rows)
    for block in (1, 2 * 12 * RARE + 1):  # a row at a time, two rows at a time
        monkeypatch.setattr("aelab.models.ngrams.BLOCK", block)
        np.testing.assert_array_equal(model.predict(rows), whole)


def test_what_two_tokens_decide_is_known_from_a_trigram_on():
    """1 1 2 2 1 1 2 2...: one token before tells nothing, log 2 = 0.69; uniform is log 5 = 1.61."""
    x = [1, 1, 2, 2] * 40 + [3, 4, 3]
    text = np.array([x[:100]])
    losses = [
        -np.log(np.take_along_axis(fitted(x, order).probabilities(text[:, :-1]), text[:, 1:, None], -1)).mean()
        for order in range(4)
    ]
    assert losses[0] == pytest.approx(np.log(5))
    assert losses[1:3] == pytest.approx([np.log(2)] * 2, abs=0.1)
    assert losses[3] < 0.1


# ---- as a component


@pytest.mark.parametrize("choice", ["uniform", "unigram", "kneser_ney"])
def test_it_survives_a_file(choice, tmp_path):
    model = component("model", choice)((RARE, 4))
    model.fit(np.array(varied(), np.int32))
    archive.write(model, tmp_path / "model.skops")
    again = archive.read(tmp_path / "model.skops")
    assert type(again) is KneserNey
    rows = np.random.default_rng(1).integers(0, RARE, (3, 12))
    np.testing.assert_array_equal(again.predict(rows), model.predict(rows))


def test_the_choices_are_of_their_orders():
    orders = {name: node("model", name)["order"] for name in ("uniform", "unigram", "kneser_ney")}
    assert orders.pop("kneser_ney") > 2
    assert orders == {"uniform": 0, "unigram": 1}
    for name in listed("model", kind="text"):
        assert declared.kinds("model", node("model", name)["_target_"]) == ("text",)
