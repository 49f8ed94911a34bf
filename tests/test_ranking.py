"""Top-K lists, their metrics and the recommenders without gradient: by hand, and against slow and obvious code."""

import math
import warnings

import numpy as np
import pytest
from contract import component, frozen, listed, node
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.sparse import csr_array
from sklearn.metrics import ndcg_score

from aelab import archive, declared, metrics, ranking
from aelab.config import ConfigError
from aelab.data.interactions import Lists, matrix
from aelab.models.rankers import Ease, ItemKNN

# ---- lists


@st.composite
def tables(draw):
    """Scores (u, i) with many ties, which items are seen (u, i), and a length that may exceed the catalogue."""
    shape = draw(st.tuples(st.integers(1, 4), st.integers(1, 9)))
    scores = draw(arrays(np.float32, shape, elements=st.integers(-2, 2).map(float)))
    return scores, draw(arrays(bool, shape)), draw(st.integers(1, shape[1] + 2))


@given(tables())
def test_best_and_top_are_what_sorting_gives(table):
    scores, seen, k = table
    users, items = scores.shape
    by_score = [sorted(range(items), key=lambda i: (-scores[u, i], i))[:k] for u in range(users)]
    np.testing.assert_array_equal(ranking.best(frozen(scores), k), by_score)
    unseen_first = [
        sorted(range(items), key=lambda i: (seen[u, i], 0 if seen[u, i] else -scores[u, i], i))[:k]
        for u in range(users)
    ]
    np.testing.assert_array_equal(ranking.top(scores, csr_array(seen.astype(np.float32)), k), unseen_first)


@given(tables())
def test_hits_are_places_of_wanted_items(table):
    scores, wanted, k = table
    lists = ranking.best(scores, k)
    expected = [[wanted[u, i] for i in row] for u, row in enumerate(lists)]
    found = ranking.hits(lists, csr_array(np.where(wanted, 0.3, 0)))
    assert found.dtype == bool
    np.testing.assert_array_equal(found, expected)


def test_lists_by_hand():
    scores = frozen(np.array([[0.1, 0.9, 0.5, 0.9], [4.0, 3.0, 2.0, 1.0]]))
    seen = csr_array(np.array([[0, 1, 0, 0], [1, 1, 1, 0]]))
    assert ranking.best(scores, 3).tolist() == [[1, 3, 2], [0, 1, 2]]
    assert ranking.top(scores, seen, 2).tolist() == [[3, 2], [3, 0]]
    assert ranking.top(scores, seen, 9).tolist() == [[3, 2, 0, 1], [3, 0, 1, 2]]  # no more than there are
    assert ranking.best(scores, 0).shape == (2, 0)


def test_ties_do_not_depend_on_what_the_partition_leaves():
    """Popularity gives many items one score: what is taken of them must not be chance."""
    scores = np.random.default_rng(0).integers(0, 3, (20, 500)).astype(np.float32)
    np.testing.assert_array_equal(ranking.best(scores, 40), np.argsort(-scores, axis=1, kind="stable")[:, :40])


# ---- metrics

TOP_K = listed("metric", kind="interactions") or ["hit_rate", "map", "mrr", "ndcg", "precision", "recall"]
HITS = np.array([[0, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0]], bool)
WANTED = np.array([3, 9, 1])
GAIN = [1 / math.log2(place + 1) for place in range(1, 5)]  # 1, 0.6309, 0.5, 0.4307


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("precision", [2 / 4, 1 / 4, 0]),
        ("recall", [2 / 3, 1 / 9, 0]),
        ("hit_rate", [1, 1, 0]),
        ("mrr", [1 / 2, 1, 0]),
        ("map", [(1 / 2 + 2 / 3) / 3, 1 / 4, 0]),
        ("ndcg", [(GAIN[1] + GAIN[2]) / sum(GAIN[:3]), 1 / sum(GAIN), 0]),
    ],
)
def test_metrics_by_hand(choice, expected):
    values = component("metric", choice)(frozen(HITS), frozen(WANTED))
    assert values.shape == (3,)
    np.testing.assert_allclose(values, expected)
    assert node("metric", choice)["goal"] == "max"


def slow(choice, places, wanted, k):
    """One user's metric; `places` of the hits count from 1."""
    return {
        "precision": len(places) / k,
        "recall": len(places) / wanted,
        "hit_rate": float(bool(places)),
        "mrr": 1 / min(places) if places else 0,
        "map": sum((n + 1) / place for n, place in enumerate(places)) / min(wanted, k),
        "ndcg": sum(1 / math.log2(p + 1) for p in places)
        / sum(1 / math.log2(p + 1) for p in range(1, min(wanted, k) + 1)),
    }[choice]


@pytest.mark.parametrize("choice", ["precision", "recall", "hit_rate", "mrr", "map", "ndcg"])
def test_metrics_against_a_loop_over_users(choice):
    metric, rng = component("metric", choice), np.random.default_rng(0)
    for k in (1, 3, 10):
        hits = rng.random((200, k)) < rng.random((200, 1))
        wanted = np.maximum(hits.sum(axis=1), 1) + rng.integers(0, 12, 200)
        values = metric(hits, wanted)
        assert ((values >= 0) & (values <= 1)).all()
        for user in range(200):
            places = [int(p) + 1 for p in np.flatnonzero(hits[user])]
            assert values[user] == pytest.approx(slow(choice, places, wanted[user], k)), (user, places)


@pytest.mark.parametrize("choice", ["precision", "recall", "hit_rate", "mrr", "map", "ndcg"])
def test_the_best_list_gives_one_and_the_worst_nothing(choice):
    metric, wanted = component("metric", choice), np.array([5, 5])
    np.testing.assert_allclose(metric(np.array([[True] * 5, [False] * 5]), wanted), [1, 0])


@pytest.mark.parametrize("choice", ["mrr", "map", "ndcg"])
def test_a_hit_counts_more_the_earlier_it_comes(choice):
    hits = np.eye(6, dtype=bool)
    values = component("metric", choice)(hits, np.full(6, 4))
    assert (np.diff(values) < 0).all()


@pytest.mark.parametrize("k", [1, 5, 30])
def test_ndcg_is_that_of_scikit_learn(k):
    rng = np.random.default_rng(k)
    wanted = rng.random((50, 30)) < 0.3
    wanted[:, 0] |= ~wanted.any(axis=1)
    scores = rng.random((50, 30)).astype(np.float32)  # no ties: theirs takes means over them
    hits = ranking.hits(ranking.best(scores, k), csr_array(wanted.astype(float)))
    got = metrics.ndcg(hits, wanted.sum(axis=1))
    assert got.mean() == pytest.approx(ndcg_score(wanted, scores, k=k))
    one = [ndcg_score(wanted[[u]], scores[[u]], k=k) for u in range(50)]
    np.testing.assert_allclose(got, one, atol=1e-12)


# ---- recommenders

COSINE = {"_target_": "aelab.similarities.cosine"}
SHORT = {"pairs": 500, "epochs": 3}
KNOBS = {
    "popularity": {},
    "ease": {"l2": 20.0},
    "edlae": {"l2": 10.0, "dropout": 0.5},
    "item_knn": {"neighbours": 30, "similarity": COSINE},
    "als": {"bottleneck": 6, "l2": 2.0},
    "blend": {
        "members": {
            "als": node("model", "als") | {"bottleneck": 6, "l2": 2.0},
            "ease": node("model", "ease") | {"l2": 20.0},
        },
        "weights": [1.0, 1.0],
    },
}
RANKERS = [name for name in listed("model", kind="interactions") if "rankers" in node("model", name)["_target_"]]


def lists(known, wanted=None) -> Lists:
    """Training rows from dense ones, which cannot be written to."""
    known, wanted = (csr_array(np.array(x, np.float32)) for x in (known, known if wanted is None else wanted))
    for rows in (known, wanted):
        for part in (rows.data, rows.indices, rows.indptr):
            frozen(part)
    return Lists(known, wanted)


def fitted(choice, rows: Lists, **values):
    model = component("model", choice, **(KNOBS[choice] | values))(rows.shape[1:])
    model.fit(rows)
    return model


def some(users=25, items=12, seed=0, values=(1.0,)):
    """Rows of users, everybody with something, that have nothing in common but how popular an item is."""
    rng = np.random.default_rng([5, seed])
    rows = (rng.random((users, items)) < rng.uniform(0.1, 0.7, items)) * rng.choice(values, (users, items))
    rows[:, 0] += ~rows.any(axis=1)
    return rows.astype(np.float32)


@pytest.fixture(scope="module")
def groups():
    """(train, test) likes of users of planted tastes, CSR."""
    data = component("dataset", "taste_groups", users=300, items=120, each=30, validation=0.0)()
    train, test = (matrix(x, x[:, 2] >= 4, data.shape) for x in (data.train.x, data.test.x))
    return train, test


def quality(model, train, test) -> float:
    """NDCG at 10 over users with likes in the test."""
    users = np.flatnonzero(np.diff(test.indptr))
    found = ranking.top(model.predict(train), train, 10)[users]
    return metrics.ndcg(ranking.hits(found, test[users]), np.diff(test.indptr)[users]).mean()


def test_all_recommenders_are_here():
    assert set(RANKERS) == set(KNOBS)


@pytest.mark.parametrize("choice", RANKERS)
class TestRankers:
    def test_gives_a_finite_score_for_each_item(self, choice):
        model, others = fitted(choice, lists(some())), lists(np.vstack([some(7, seed=1), np.zeros(12)])).known
        scores = model.predict(others)
        assert scores.shape == (8, 12)
        assert scores.dtype == np.float32
        assert np.isfinite(scores).all()

    def test_a_user_depends_on_nobody_else(self, choice):
        model, others = fitted(choice, lists(some())), lists(some(7, seed=1)).known
        np.testing.assert_allclose(model.predict(others)[2:3], model.predict(others[[2]]), rtol=1e-4, atol=1e-6)

    def test_the_same_rows_give_the_same_scores_and_stay_as_they_were(self, choice):
        rows = lists(some(values=(0.5, 1.0)))
        before = rows.known.toarray()
        one, two = fitted(choice, rows).predict(rows.known), fitted(choice, rows).predict(rows.known)
        np.testing.assert_array_equal(one, two)
        np.testing.assert_array_equal(rows.known.toarray(), before)
        assert not np.array_equal(one, fitted(choice, lists(some(seed=2))).predict(rows.known))

    def test_survives_a_file(self, choice, tmp_path):
        model, others = fitted(choice, lists(some())), lists(some(7, seed=1)).known
        archive.write(model, tmp_path / "model.skops")
        np.testing.assert_array_equal(archive.read(tmp_path / "model.skops").predict(others), model.predict(others))

    def test_finds_the_planted_groups(self, choice, groups):
        train, test = groups
        found = quality(fitted(choice, Lists(train, train)), train, test)
        known = quality(fitted("popularity", Lists(train, train)), train, test)
        assert found == known if choice == "popularity" else found > 1.5 * known

    def test_a_user_without_likes_in_training_gets_a_list(self, choice):
        rows = some()
        rows[3] = 0
        assert np.isfinite(fitted(choice, lists(rows)).predict(lists(rows).known)).all()

    def test_its_kind_is_read_from_its_source(self, choice):
        assert declared.kinds("model", node("model", choice)["_target_"]) == ("interactions",)


def test_popularity_counts_users():
    model = fitted("popularity", lists([[1, 1, 0], [0, 1, 0], [1, 1, 0]]))
    np.testing.assert_array_equal(model.predict(csr_array((2, 3))), [[2, 3, 0], [2, 3, 0]])


# ---- EASE


def published(x, l2):
    """Steck, WWW 2019, listing 1."""
    gram = x.T.astype(np.float64) @ x + l2 * np.eye(x.shape[1])
    inverse = np.linalg.inv(gram)
    weights = inverse / -np.diag(inverse)
    np.fill_diagonal(weights, 0)
    return weights


def test_ease_is_the_published_closed_form():
    x = some(40, values=(0.5, 1.0))
    np.testing.assert_allclose(fitted("ease", lists(x), l2=7.0).weights, published(x, 7.0), atol=1e-6)


def by_columns(x, y, weight, penalty):
    """For each item the ridge regression on all others: no closed form for the matrix, no constraint."""
    found = np.zeros((x.shape[1], y.shape[1]))
    for item in range(x.shape[1]):
        rest = np.delete(np.arange(x.shape[1]), item)
        left = (x[:, rest].T * weight) @ x[:, rest] + np.diag(penalty[rest])
        found[rest, item] = np.linalg.solve(left, (x[:, rest].T * weight) @ y[:, item])
    return found


@pytest.mark.parametrize("activity", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("dropout", [0.0, 0.5, 0.8])
def test_ease_is_a_regression_of_each_item_on_the_others(dropout, activity):
    x, wanted = some(40, values=(0.3, 1.0, 1.2)).astype(np.float64), some(40, seed=1)
    n = np.maximum((wanted != 0).sum(axis=1), 1)
    weight = n**-activity / np.mean(n**-activity)
    penalty = 3 + dropout / (1 - dropout) * (weight[:, None] * x**2).sum(axis=0)
    model = fitted("ease", lists(x, wanted), l2=3.0, dropout=dropout, activity=activity)
    np.testing.assert_allclose(model.weights, by_columns(x, wanted, weight, penalty), atol=1e-5)
    np.testing.assert_array_equal(np.diag(model.weights), 0)


def test_dropout_of_ease_is_what_draws_of_hidden_items_tell():
    """The mean, over draws, of the square error of what the kept items, scaled up, say of an item."""
    x, rng, share = some(30, 5).astype(np.float64), np.random.default_rng(0), 0.5
    drawn = np.concatenate([x * (rng.random(x.shape) > share) / (1 - share) for _ in range(4000)])
    expected = by_columns(drawn, np.tile(x, (4000, 1)), np.full(len(drawn), 1 / 4000), np.full(5, 2.0))
    np.testing.assert_allclose(fitted("ease", lists(x), l2=2.0, dropout=share).weights, expected, atol=0.01)
    assert np.abs(expected - published(x, 2.0)).max() > 0.1


def test_popularity_knob_of_ease_by_hand():
    x = some(40)
    plain, scaled = (fitted("ease", lists(x), popularity=p).weights for p in (0.0, -0.5))
    np.testing.assert_allclose(scaled, plain / np.sqrt((x > 0).sum(axis=0) + 1), rtol=1e-5)


def test_ease_refuses_to_hide_everything():
    with pytest.raises(ConfigError, match=r"^model\.dropout=1"):
        Ease((3, 3), l2=1.0, dropout=1.0, activity=0.0, popularity=0.0)


# ---- item neighbours


@pytest.mark.parametrize("k", [1, 4, 11, 500])
def test_item_neighbours_by_a_loop(k):
    x = some(30, values=(0.5, 1.0)).astype(np.float64)
    weights = np.zeros((12, 12))
    for item in range(12):
        near = {
            other: x[:, other] @ x[:, item] / np.linalg.norm(x[:, other]) / np.linalg.norm(x[:, item])
            for other in range(12)
            if other != item
        }
        for other in sorted(near, key=near.get)[-k:]:
            weights[other, item] = near[other]
    model, others = fitted("item_knn", lists(x), neighbours=k), some(6, seed=3)
    np.testing.assert_allclose(model.predict(csr_array(others)), others @ weights, rtol=1e-5)


@pytest.mark.parametrize("similarity", listed("similarity"))
def test_every_similarity_finds_neighbours(similarity, groups):
    train, test = groups
    chosen = node("similarity", similarity) | (SHORT if similarity == "learned" else {})
    model = ItemKNN(train.shape, neighbours=20, similarity=chosen)
    model.fit(Lists(train, train))
    assert (np.count_nonzero(model.weights, axis=0) <= 20).all()
    assert np.isfinite(model.predict(train)).all()
    assert quality(model, train, test) > 0.02


# ---- matrix factorisation


def objective(x, users, items, *, l2, alpha, floor):
    """Hu, Koren and Volinsky, eq. 3, with the l2 of a row by how much is known of it; pair by pair."""
    liked = x > floor
    total = 0.0
    for u in range(len(x)):
        for i in range(x.shape[1]):
            confidence = 1 + alpha * max(x[u, i] - floor, 0)
            total += confidence * (liked[u, i] - users[u] @ items[i]) ** 2
    for counts, vectors in ((liked.sum(axis=1), users), (liked.sum(axis=0), items)):
        shrink = np.sqrt(np.maximum(counts, 1) / counts.mean())
        total += l2 * (shrink * (vectors**2).sum(axis=1)).sum()
    return total


ALS = {"l2": 0.7, "alpha": 3.0, "floor": 0.4}


@pytest.mark.parametrize("values", [ALS, ALS | {"floor": 0.0}, ALS | {"alpha": 0.0}], ids=["floor", "plain", "alike"])
def test_half_a_step_is_the_least_of_the_objective(values):
    x = some(15, 9, values=(0.3, 1.0, 1.4)).astype(np.float64)
    model = fitted("als", lists(x), bottleneck=3, rounds=4, **values)
    users = model.solve(model.confidence(csr_array(x)), model.vectors, model.typical[0])
    np.testing.assert_allclose(model.predict(csr_array(x)), users @ model.vectors.T, atol=1e-5)
    step, least = 1e-5, objective(x, users, model.vectors, **values)
    for index in np.ndindex(*users.shape):
        move = np.zeros_like(users)
        move[index] = step
        up, down = (objective(x, users + s * move, model.vectors, **values) for s in (1, -1))
        assert abs(up - down) / (2 * step) < 1e-5
        assert min(up, down) > least
    assert np.abs(users).max() > 0.1


def test_every_round_makes_the_objective_less():
    x = some(15, 9, values=(0.3, 1.0, 1.4)).astype(np.float64)
    found = []
    for rounds in (1, 2, 4, 8):
        model = fitted("als", lists(x), bottleneck=3, rounds=rounds, **ALS)
        users = model.solve(model.confidence(csr_array(x)), model.vectors, model.typical[0])
        found.append(objective(x, users, model.vectors, **ALS))
    assert found == sorted(found, reverse=True)
    assert found[-1] < found[0] - 0.1


def test_the_seed_fixes_the_vectors():
    one, two, other = (fitted("als", lists(some()), seed=seed).vectors for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, two)
    assert one.shape == (12, 6)
    assert not np.allclose(one, other)


def test_blocks_of_rows_change_nothing(monkeypatch):
    whole = fitted("als", lists(some())).vectors
    monkeypatch.setattr("aelab.models.rankers.BLOCK", 6 * 6 * 2 + 1)  # two rows at a time
    np.testing.assert_allclose(fitted("als", lists(some())).vectors, whole, rtol=1e-9)


def test_a_new_user_of_two_blocks_gets_the_rest_of_his_own():
    """Two groups of items that nobody mixes: who has one item of a group is offered that group."""
    x = np.kron(np.eye(2), np.ones((10, 4))) * (np.random.default_rng(0).random((20, 8)) < 0.8)
    model = fitted("als", lists(x), bottleneck=2, l2=0.5)
    new = np.zeros((2, 8), np.float32)
    new[0, 0] = new[1, 6] = 1
    scores = model.predict(csr_array(new))
    assert scores[0, :4].min() > 0.2 > scores[0, 4:].max()
    assert scores[1, 4:].min() > 0.2 > scores[1, :4].max()


# ---- blend


def test_blend_by_hand():
    """Two users of five items; z-scores are over the items that are not known."""
    x = np.array([[1, 1, 0, 0, 0], [0, 1, 1, 0, 0], [0, 0, 1, 1, 1], [0, 1, 0, 1, 0]], np.float32)
    members = {"popularity": node("model", "popularity"), "ease": node("model", "ease") | {"l2": 1.0}}
    blend = fitted("blend", lists(x), members=members, weights=[2.0, 0.5])
    known, total = x[[0, 2]], 0
    for weight, scores in ((2.0, np.tile(x.sum(axis=0), (2, 1))), (0.5, known @ published(x, 1.0))):
        unknown = [row[mine == 0] for row, mine in zip(scores, known, strict=True)]
        mean, spread = np.array([[[r.mean()], [r.std()]] for r in unknown]).transpose(1, 0, 2)
        total += weight * (scores - mean) / spread
    np.testing.assert_allclose(blend.predict(csr_array(known)), total, rtol=1e-4)


def test_blend_of_one_ranks_as_that_one(groups):
    train, _ = groups
    alone = fitted("ease", Lists(train, train))
    blend = fitted("blend", Lists(train, train), members={"ease": node("model", "ease") | {"l2": 20.0}}, weights=[0.3])
    one, other = (ranking.top(model.predict(train), train, 10) for model in (alone, blend))
    assert (one == other).mean() > 0.999


def test_blend_of_a_user_who_knows_everything():
    blend = fitted("blend", lists(some()))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isfinite(blend.predict(csr_array(np.ones((2, 12), np.float32)))).all()


def test_blend_needs_a_weight_for_each_member():
    with pytest.raises(ConfigError) as error:
        component("model", "blend", **(KNOBS["blend"] | {"weights": [1.0]}))((3, 3))
    assert str(error.value) == "model.weights: expected 2, one for each of als, ease"
