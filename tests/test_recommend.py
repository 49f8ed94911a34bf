"""Top-K recommendation: losses and models, the task without a leak, and the real commands on real and planted films."""

import functools
import json
import re
import sys
from types import SimpleNamespace

import commands
import joblib
import keras
import numpy as np
import pandas as pd
import pytest
from contract import component, frozen, listed, node
from scipy.sparse import csr_array

from aelab import backend, compose, corruptions, losses, ranking
from aelab.call import build
from aelab.cli import dispatch
from aelab.config import AelabError, ConfigError, DataError
from aelab.data.catalogue import titles
from aelab.data.load import load
from aelab.fit import Batch, Objective, fit
from aelab.run import optimizer, run
from aelab.tasks import recommend
from aelab.tasks.recommend import Recommend

NETWORKS = ("user_ae", "item_ae", "mult_vae")
TINY = ("model.hidden=[16]", "model.bottleneck=6", "optimizer.learning_rate=0.01", "fit.batch_size=32")


@pytest.fixture(autouse=True)
def clean(monkeypatch, tmp_path):
    """Seeds, float32, and downloads to an empty cache."""
    monkeypatch.setenv("AELAB_CACHE_DIR", str(tmp_path / "cache"))
    keras.config.set_dtype_policy("float32")
    keras.utils.set_random_seed(0)
    yield
    keras.config.set_dtype_policy("float32")


def config(*words):
    with compose.session():
        return compose.compose(["task=recommend", *words], [compose.CONF])


# ---- losses

TERMS = ("multinomial", "bce_logits", "bpr", "sampled_softmax")
LOGITS = np.array([[0.5, -1.0, 2.0, 0.0, 1.0], [3.0, 0.1, 0.2, -0.5, -2.0]], np.float32)
HAD = np.array([[1, 0, 1, 0, 0], [0, 1, 0, 0, 1]], np.float32)


def loss(choice, known, wanted, logits, **knobs):
    batch = Batch(np.asarray(known, np.float32), np.asarray(wanted, np.float32))
    values = component("loss", choice, **knobs)(batch, {"output": np.asarray(logits, np.float32)}, None)
    return np.array(values)


def softplus(x):
    return np.logaddexp(0, x)


def by_hand(choice, logits, had, open_, alpha=1.0):
    """One user; for the drawn ones with all that there is to draw."""
    mine, rest = logits[had > 0], logits[(had == 0) & open_]
    if choice == "multinomial":
        return -sum(np.log(np.exp(x) / np.exp(logits[open_]).sum()) for x in mine)
    if choice == "bce_logits":
        return (alpha * softplus(-mine).sum() + softplus(rest).sum()) / len(logits)
    if choice == "bpr":
        return np.mean([softplus(other - x) for x in mine for other in rest])
    return np.mean([-np.log(np.exp(x) / (np.exp(x) + np.exp(rest).sum())) for x in mine])


@pytest.mark.parametrize("choice", TERMS)
def test_losses_by_hand(choice):
    knobs = {"negatives": 3} if choice in ("bpr", "sampled_softmax") else {}
    expected = [by_hand(choice, x, y, np.ones(5, bool)) for x, y in zip(LOGITS, HAD, strict=True)]
    np.testing.assert_allclose(loss(choice, HAD, HAD, LOGITS, **knobs), expected, rtol=1e-5)


def test_alpha_weighs_interactions():
    expected = [by_hand("bce_logits", x, y, np.ones(5, bool), 4.0) for x, y in zip(LOGITS, HAD, strict=True)]
    np.testing.assert_allclose(loss("bce_logits", HAD, HAD, LOGITS, alpha=4.0), expected, rtol=1e-5)


def test_an_item_counts_by_its_value_in_the_multinomial():
    expected = sum(by_hand("multinomial", LOGITS[0], np.eye(5)[i], np.ones(5, bool)) * v for i, v in ((0, 0.5), (2, 2)))
    assert loss("multinomial", HAD[:1], [[0.5, 0, 2, 0, 0]], LOGITS[:1])[0] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("choice", TERMS)
def test_what_is_known_but_not_wanted_does_not_count(choice):
    """Item 0 is in the input alone; item 4 is lacked."""
    known, wanted = [[0.3, 0, 1, 0, 0]], [[0, 0, 1, 0, 0]]
    moved, other = LOGITS[:1].copy(), LOGITS[:1].copy()
    moved[0, 0], other[0, 4] = 9, 9
    open_ = np.array([False, True, True, True, True])
    knobs = {"negatives": 3} if choice in ("bpr", "sampled_softmax") else {}
    value = loss(choice, known, wanted, LOGITS[:1], **knobs)
    assert value[0] == pytest.approx(by_hand(choice, LOGITS[0], np.array(wanted[0]), open_), rel=1e-5)
    np.testing.assert_array_equal(loss(choice, known, wanted, moved, **knobs), value)
    assert loss(choice, known, wanted, other, **knobs)[0] > value[0] + 0.1


@pytest.mark.parametrize("choice", TERMS)
def test_side_input_beyond_the_items_does_not_count(choice):
    knobs = {"negatives": 3} if choice in ("bpr", "sampled_softmax") else {}
    wide = np.concatenate([HAD, np.ones((2, 3))], axis=1)
    np.testing.assert_array_equal(loss(choice, wide, HAD, LOGITS, **knobs), loss(choice, HAD, HAD, LOGITS, **knobs))


@pytest.mark.parametrize("choice", ["bpr", "sampled_softmax"])
def test_draws_are_of_lacked_items_alone(choice):
    """Logits that say which item was drawn: those of one's own would show; more are asked for than there are."""
    had = (np.arange(40) < 30).astype(np.float32)[None]
    logits = np.where(had > 0, 50.0, 0.0)
    for negatives in (1, 10, 20, 100):
        value = loss(choice, had, had, logits, negatives=negatives)
        assert value[0] == pytest.approx(0, abs=1e-6)
    values = {float(loss(choice, had, had, np.arange(40.0)[None], negatives=2)[0]) for _ in range(8)}
    assert len(values) > 4  # drawn anew


def test_draws_are_fair():
    keras.utils.set_random_seed(1)
    among = np.tile(np.arange(6) % 2, (3000, 1)).astype(np.float32)
    drawn = np.array(losses.drawn(np.tile(np.arange(6.0, dtype=np.float32), (3000, 1)), among, 2, None))
    assert (drawn[:, 0] != drawn[:, 1]).all()
    items, counts = np.unique(drawn, return_counts=True)
    assert items.tolist() == [1, 3, 5]
    np.testing.assert_allclose(counts / 6000, 1 / 3, atol=0.03)


@pytest.mark.parametrize("choice", TERMS)
def test_nothing_wanted_is_no_loss_and_no_nan(choice):
    values = loss(choice, np.zeros((2, 5)), np.zeros((2, 5)), LOGITS)
    assert np.isfinite(values).all()
    assert (values == 0).all() == (choice != "bce_logits")


@pytest.mark.parametrize("choice", TERMS)
def test_gradient_raises_what_is_wanted_and_lowers_the_rest(choice):
    import tensorflow as tf

    logits = tf.constant(LOGITS)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        term = component("loss", choice, **({"negatives": 3} if choice in ("bpr", "sampled_softmax") else {}))
        value = tf.reduce_sum(term(Batch(HAD, HAD), {"output": logits}, None))
    gradient = tape.gradient(value, logits).numpy()
    assert np.isfinite(gradient).all()
    if choice != "multinomial":  # there a wanted item that has too much of the odds falls, too
        assert (gradient[HAD > 0] < 0).all()
    assert (gradient[HAD == 0] > 0).all()


def test_kl_is_whole_beside_a_likelihood_that_is_a_sum():
    outputs = {"mean": np.array([[2.0, 0.0]], np.float32), "log_variance": np.zeros((1, 2), np.float32)}
    batch = Batch(None, np.ones((1, 8), np.float32))
    value = {whole: float(component("loss", "kl", whole=whole)(batch, outputs, None)[0]) for whole in (True, False)}
    assert value == pytest.approx({True: 2.0, False: 0.25})


def test_a_warm_up_starts_from_nothing_and_ends_whole():
    """Two epochs of four steps; in validation the weight is whole from the start."""
    item = keras.Input((4,))
    terms = {
        "mae": {"_target_": "aelab.losses.mae", "weight": 0.5},
        "mse": {"_target_": "aelab.losses.mse", "weight": 3.0, "warmup": 2},
    }
    made = Objective(keras.Model(item, keras.layers.Dense(4)(item)), terms, {}, steps=4)
    made.compile(optimizer=keras.optimizers.SGD(0.0))
    x = np.zeros((1, 4), np.float32)

    def total(step, training):
        made.optimizer.iterations.assign(step)
        return float(made.compute_loss(x, x + 2, [{"output": x}], training=training))  # mae 2, mse 4

    assert [total(step, True) for step in (0, 2, 4, 8, 100)] == pytest.approx([1, 1 + 3, 1 + 6, 1 + 12, 1 + 12])
    assert total(0, False) == pytest.approx(13)


# ---- networks


@pytest.mark.parametrize("choice", NETWORKS)
class TestNetworks:
    KNOWN, WANTED = 30, 20

    def model(self, choice, **values):
        return component("model", choice, hidden=[8], bottleneck=3, **values)((self.KNOWN, self.WANTED))

    def rows(self, n=6):
        return frozen((np.random.default_rng(0).random((n, self.KNOWN)) < 0.3).astype(np.float32))

    def test_gives_logits_and_a_code(self, choice):
        made = self.model(choice)(self.rows())
        names = {"output", "code"} | ({"mean", "log_variance"} if choice == "mult_vae" else set())
        assert set(made) == names
        assert made["output"].shape == (6, self.WANTED)
        assert made["code"].shape == (6, 3)
        assert np.isfinite(made["output"]).all()
        assert np.isfinite(self.model(choice)(np.zeros((1, self.KNOWN)))["output"]).all()  # of somebody unknown

    def test_items_are_columns_of_the_last_kernel(self, choice):
        model, rows = self.model(choice), self.rows()
        assert model.get_layer("items").kernel.shape == (8, self.WANTED)
        before = model(rows)["output"].numpy()
        kernel = model.get_layer("items").kernel.numpy()
        kernel[:, 4] = 0
        model.get_layer("items").kernel.assign(kernel)
        changed = np.any(model(rows)["output"].numpy() != before, axis=0)
        assert np.flatnonzero(changed).tolist() == [4]

    def test_output_is_float32_under_bfloat16(self, choice):
        keras.config.set_dtype_policy("mixed_bfloat16")
        assert self.model(choice)(self.rows())["output"].dtype == "float32"

    def test_survives_a_file(self, choice, tmp_path):
        model, rows = self.model(choice), self.rows()
        model.save(tmp_path / "model.keras")
        again = keras.saving.load_model(tmp_path / "model.keras", compile=False)(rows)
        for name, value in model(rows).items():
            np.testing.assert_allclose(again[name], value, atol=1e-6)

    def test_input_is_hidden_in_training_alone(self, choice):
        model, rows = self.model(choice, dropout=0.5), self.rows()
        np.testing.assert_array_equal(model(rows)["output"], model(rows)["output"])
        draws = [model(rows, training=True)["code"].numpy() for _ in range(2)]
        assert not np.array_equal(*draws)

    def test_rows_to_unit_length_where_asked(self, choice):
        model, rows = self.model(choice, normalise=True), self.rows()
        np.testing.assert_allclose(model(rows * 7)["output"], model(rows)["output"], atol=1e-5)
        model = self.model(choice, normalise=False)
        assert not np.allclose(model(rows * 7)["output"], model(rows)["output"], atol=1e-3)


def test_every_network_is_here():
    of_rows = [name for name in listed("model") if "models.rows." in node("model", name)["_target_"]]
    assert sorted(of_rows) == sorted(NETWORKS)


# ---- the task

SMALL = ("dataset=taste_groups", "dataset.users=80", "dataset.items=40", "dataset.each=20", "task.positive=4")


class Log:
    """A tracker that takes no notice."""

    def epochs(self, rows):
        pass


def prepared(*words):
    """(task, prepared data, config) of a run that is not yet trained."""
    cfg = config(*words)
    backend.prepare(cfg.seed, cfg.fit)
    data, _ = load(cfg.dataset, None)
    task = build(cfg.task)
    return task, task.prepare(data, cfg), cfg


def trained(folder, *words):
    """The same, and (model, history)."""
    task, data, cfg = prepared(*words)
    model = build(cfg.model, task.shape(data))
    made = functools.partial(optimizer, cfg)
    history = fit(model, task, data, corruptions.chain(cfg.corruption), cfg, made, Log(), folder)
    return task, data, cfg, model, history


def dense(rows):
    return rows.toarray()


@pytest.mark.parametrize("choice", NETWORKS)
def test_networks_find_the_planted_groups(choice, tmp_path):
    words = ("dataset=taste_groups", "dataset.users=200", "dataset.items=100", "dataset.each=30", "task.positive=4")
    train = functools.partial(trained, tmp_path, *words, "metric=[ndcg]", "task.at=[10]", "fit.monitor=val/multinomial")
    task, data, cfg, model, history = train(f"model={choice}", *TINY, "fit.epochs=12", "model.dropout=0.2")
    assert history["train/loss"].iloc[-1] < 0.9 * history["train/loss"].iloc[0]
    assert history["val/multinomial"].iloc[-1] < history["val/multinomial"].iloc[0]
    found = task.test(model, data, None, cfg).metrics
    assert task.vectors.shape[0] == 100
    task, data, cfg, model, _ = train("model=popularity")
    known = task.test(model, data, None, cfg).metrics
    assert found["test/ndcg@10"] > 1.3 * known["test/ndcg@10"]
    assert found["test/coverage@10"] > known["test/coverage@10"]
    assert found["test/novelty@10"] > known["test/novelty@10"]


def test_what_ratings_count():
    made = build(config("task.known=[[5,1.2],[2,0.4],[3,0.8]]", "task.wanted=[[2,0],[3,1]]", "task.positive=4").task)
    stars = np.array([1, 2, 2.5, 3, 4, 5])
    np.testing.assert_allclose(made.value(stars, "known"), [0.4, 0.4, 0.6, 0.8, 1.0, 1.2])
    np.testing.assert_allclose(made.value(stars, "wanted"), [0, 0, 0.5, 1, 1, 1])
    np.testing.assert_array_equal(made.value(stars, "liked"), [0, 0, 0, 0, 1, 1])
    np.testing.assert_array_equal(made.value(stars, "rated"), 1)
    plain = build(config("task.positive=3").task)
    for how in ("known", "wanted", "liked"):
        np.testing.assert_array_equal(plain.value(stars, how), [0, 0, 0, 1, 1, 1])


def test_rows_are_the_ratings_and_what_they_count():
    words = ("task.known=[[1,0.5],[5,1.5]]", "task.wanted=[[3,0],[5,1]]")
    task, data, _ = prepared(*SMALL, *words, "model=ease")
    raw, _ = load(config(*SMALL).dataset, None)
    for part, source in (("train", ["train"]), ("test", ["train", "validation"])):
        known = np.zeros((80, 40))
        for x in source:
            u, i, stars, _ = getattr(raw, x).x.T
            known[u.astype(int), i.astype(int)] = 0.5 + (stars - 1) / 4
        rows = dense(task.known[part])
        np.testing.assert_allclose(rows, known, rtol=1e-6)
    u, i, stars, _ = raw.train.x.T
    wanted = np.zeros((80, 40))
    wanted[u.astype(int), i.astype(int)] = np.maximum(stars - 3, 0) / 2
    some = wanted.any(axis=1)  # the others have nothing to teach
    np.testing.assert_allclose(dense(data.train.x.wanted), wanted[some], rtol=1e-6)
    known, sought = task.pairs(None)(data.train.x[np.arange(3)], None)
    np.testing.assert_array_equal(known, dense(data.train.x.known)[:3])
    np.testing.assert_array_equal(sought, dense(data.train.x.wanted)[:3])
    u, i, stars, _ = raw.test.x.T
    liked = np.zeros((80, 40))
    liked[u.astype(int), i.astype(int)] = stars >= 4
    np.testing.assert_array_equal(dense(task.wanted["test"]), liked)


@pytest.mark.parametrize("hide", ["rated", "liked"])
def test_what_was_seen_is_not_recommended(hide, tmp_path):
    task, _, _, model, _ = trained(tmp_path, *SMALL, "model=popularity", f"task.hide={hide}", "task.at=[5]")
    raw, _ = load(config(*SMALL).dataset, None)
    for part, source in (("validation", ["train"]), ("test", ["train", "validation"])):
        rated, liked = np.zeros((2, 80, 40), bool)
        for x in source:
            u, i, stars, _ = getattr(raw, x).x.T
            rated[u.astype(int), i.astype(int)], liked[u.astype(int), i.astype(int)] = True, stars >= 4
        lists = task.lists(model, part)
        assert lists.shape == (80, 5)
        listed_ = np.take_along_axis(rated, lists, axis=1)
        assert listed_.any() == (hide == "liked")
        assert not np.take_along_axis(liked, lists, axis=1).any()


def test_the_test_is_never_among_what_is_known():
    task, _, _ = prepared(*SMALL, "model=ease")
    for part in ("validation", "test"):
        assert task.wanted[part].nnz
        assert (task.wanted[part] * task.rated[part]).nnz == 0
        assert (task.wanted[part] * task.known[part]).nnz == 0
    assert (task.wanted["test"] * task.wanted["validation"]).nnz == 0
    assert (task.known["validation"] != task.known["train"]).nnz == 0


def test_scores_by_item_are_turned(tmp_path, monkeypatch):
    task, data, _, model, _ = trained(tmp_path, *SMALL, "model=item_ae", *TINY, "fit.epochs=1")
    width = 80 + task.side.shape[1]
    assert task.shape(data) == (width, 80)
    assert data.train.x.shape == (np.count_nonzero(np.diff(task.known["train"].T.tocsr().indptr)), width, 80)
    rows = task.turned(task.known["test"]).toarray()
    assert rows.shape == (40, width)
    expected = model(rows)["output"].numpy().T
    ((first, scores),) = task.scores(model, task.known["test"])
    assert (first, scores.shape) == (0, (80, 40))
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    np.testing.assert_allclose(task.of_user(model, 7), expected[7], atol=1e-5)
    assert task.item_vectors(model).shape == (40, 6)
    whole = task.lists(model, "test")
    monkeypatch.setattr(recommend, "CELLS", 40 * 7)
    np.testing.assert_array_equal(task.lists(model, "test"), whole)


def test_scores_by_user_come_in_chunks(tmp_path, monkeypatch):
    task, _, _, model, _ = trained(tmp_path, *SMALL, "model=user_ae", *TINY, "fit.epochs=1")
    whole = task.lists(model, "test")
    expected = model(dense(task.known["test"]))["output"].numpy()
    np.testing.assert_array_equal(whole, ranking.top(expected, task.rated["test"], 20))
    np.testing.assert_allclose(task.of_user(model, 7), expected[7], atol=1e-5)
    np.testing.assert_array_equal(task.item_vectors(model), model.get_layer("items").kernel.numpy().T)
    monkeypatch.setattr(recommend, "CELLS", 40 * 7)
    assert [first for first, _ in task.scores(model, task.known["test"])] == list(range(0, 80, 7))
    np.testing.assert_array_equal(task.lists(model, "test"), whole)


PLAIN = {"known": None, "wanted": None, "hide": "rated", "watched": 9, "examples": 9}


@pytest.mark.parametrize("cells", [1, 1 << 24])
def test_metrics_by_hand(cells, monkeypatch):
    """User 0 wants items 1 and 2, user 1 wants nothing, user 2 wants item 0."""
    monkeypatch.setattr(recommend, "CELLS", cells)
    task = Recommend(positive=4, at=[1, 3], **PLAIN)
    task.wanted = {"test": csr_array(np.array([[0, 1, 1, 0], [0, 0, 0, 0], [1, 0, 0, 0]]))}
    task.catalogue = SimpleNamespace(shape=(3, 4))
    names = ("precision", "recall", "mrr", "ndcg")
    found = task.measure(np.array([[3, 2, 1], [0, 1, 2], [0, 1, 3]]), "test", {n: node("metric", n) for n in names})
    assert found.index.tolist() == [0, 2]
    expected = {
        "precision@1": [0, 1],
        "recall@1": [0, 1],
        "mrr@1": [0, 1],
        "ndcg@1": [0, 1],
        "precision@3": [2 / 3, 1 / 3],
        "recall@3": [1, 1],
        "mrr@3": [1 / 2, 1],
        "ndcg@3": [(1 / np.log2(3) + 1 / 2) / (1 + 1 / np.log2(3)), 1],
    }
    assert set(found) == set(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, err_msg=name)


def test_a_positive_that_no_rating_reaches():
    with pytest.raises(AelabError) as error:
        prepared(*SMALL, "model=ease", "task.positive=6")
    assert str(error.value) == "no train rating reaches task.positive=6; the highest is 5"


def test_ratings_of_which_none_is_left_for_the_test(tmp_path):
    """Users with one rating each keep it for training."""
    (tmp_path / "ratings.csv").write_text("user,item,rating\n1,1,5\n2,2,4\n3,3,5\n")
    with pytest.raises(DataError) as error:
        prepared(
            "dataset=ratings", f"path={tmp_path / 'ratings.csv'}", "dataset.fold=user", "task.at=[1]", "model=ease"
        )
    assert str(error.value).startswith("ratings: no rating could be held out as a test: no user has two")


@pytest.mark.parametrize("length", [40, 100])
def test_lists_longer_than_the_catalogue(length):
    with pytest.raises(ConfigError) as error:
        prepared(*SMALL, "model=ease", f"task.at=[5,{length}]")
    assert str(error.value) == f"task.at: lists of {length}, but there are 40 items"


# ---- no leak


def some_ratings(seed=0):
    """50 users, 30 items, 12 ratings each, at most one of a pair, by time."""
    rng = np.random.default_rng([6, seed])
    items = np.concatenate([rng.permutation(30)[:12] for _ in range(50)])
    frame = pd.DataFrame({"user": np.repeat(np.arange(50), 12), "item": items})
    return frame.assign(rating=rng.integers(1, 6, len(frame)), time=rng.permutation(len(frame)))


def learnt(folder, *words):
    """A hash of each thing that a run fits, to the last bit."""
    task, data, _, model, history = trained(folder, *words)
    weights = model.get_weights() if isinstance(model, keras.Model) else vars(model)
    parts = {
        "train": [dense(data.train.x.known), dense(data.train.x.wanted)],
        "validation": [dense(data.validation.x.known), dense(data.validation.x.wanted)],
        "known": {part: dense(rows) for part, rows in task.known.items()},
        "hidden": {part: dense(rows) for part, rows in task.rated.items()},
        "model": weights,
        "history": history.drop(columns="time/epoch_s", errors="ignore").to_numpy(),
        "vectors": task.item_vectors(model),
        "lists": task.lists(model, "test"),
    }
    return {name: joblib.hash(part) for name, part in parts.items()}


@pytest.fixture
def deterministic():
    """What fit.deterministic switches on is switched off again."""
    from tensorflow.python.framework import config

    yield "fit.deterministic=true"
    config.disable_op_determinism()


@pytest.mark.parametrize(
    ("model", "fold"),
    [
        *((model, fold) for model in ("ease", "als") for fold in ("random", "user", "last")),
        *(("user_ae", "random"), ("item_ae", "last")),
    ],  # networks take time
)
def test_no_test_rating_reaches_training(model, fold, tmp_path, deterministic):
    file = tmp_path / "ratings.csv"
    words = ["dataset=ratings", f"path={file}", "dataset.time=time", f"dataset.fold={fold}", f"model={model}"]
    words += [*TINY, "fit.epochs=3", deterministic] if model.endswith("_ae") else []
    words += ["task.at=[5]", "task.known=[[1,0.3],[5,1.2]]"]
    frame = some_ratings()
    frame.to_csv(file, index=False)
    held, _ = load(config(*words).dataset, None)
    keys = {tuple(pair) for pair in held.test.x[:, :2].astype(int)}
    users, items = (getattr(held.catalogue, name)["id"].astype(int).to_numpy() for name in ("users", "items"))
    keys = {(users[u], items[i]) for u, i in keys}
    test = np.array([pair in keys for pair in zip(frame["user"], frame["item"], strict=True)])
    assert test.sum() == len(held.test) > 50
    before = learnt(tmp_path, *words)

    other = frame.copy()
    other.loc[test, "rating"] = 6 - frame.loc[test, "rating"]
    rated = frame.groupby("user")["item"].agg(set)
    for row in np.flatnonzero(test):  # nobody is given a pair twice
        user = other.loc[row, "user"]
        other.loc[row, "item"] = next(i for i in range(row % 30, 60) if i % 30 not in rated[user]) % 30
        rated[user].add(other.loc[row, "item"])
    other.to_csv(file, index=False)
    again, _ = load(config(*words).dataset, None)
    assert again.fingerprint != held.fingerprint
    assert not np.array_equal(again.test.x, held.test.x)
    assert learnt(tmp_path, *words) == before

    frame.assign(rating=np.where(test, frame["rating"], 6 - frame["rating"])).to_csv(file, index=False)
    after = learnt(tmp_path, *words)
    constant = {"hidden"} | ({"history"} if not model.endswith("_ae") else set())  # which are rated is as it was
    constant |= {"vectors"} if model == "ease" else set()
    assert {name for name in before if after[name] == before[name]} == constant  # training ratings do count


def test_users_without_likes_are_left_out_and_get_lists(tmp_path):
    """User 0 likes nothing, user 1 nothing in training."""
    frame = some_ratings()
    frame.loc[frame["user"] == 0, "rating"] = 1
    one = frame.index[frame["user"] == 1]
    frame.loc[one, "rating"] = 1
    frame.loc[frame.loc[one, "time"].nlargest(3).index, "rating"] = 5
    frame.to_csv(tmp_path / "ratings.csv", index=False)
    words = ("dataset=ratings", f"path={tmp_path / 'ratings.csv'}", "dataset.time=time", "dataset.fold=last")
    for model in ("ease", "als", "user_ae"):
        extra = (*TINY, "fit.epochs=1") if model == "user_ae" else ()
        task, data, cfg, fitted, _ = trained(tmp_path, *words, f"model={model}", "task.at=[5]", *extra)
        result = task.test(fitted, data, None, cfg)
        numbers = task.catalogue.users["id"].astype(int).to_numpy()
        assert len(data.train.x) == 48
        assert 0 not in set(numbers[result.examples.index])
        assert 1 in set(numbers[result.examples.index])
        assert all(np.isfinite(v) for v in result.metrics.values())
        assert set(task.figures(result, data)) == {"metrics_by_length", "by_activity", "popularity"}
        assert len(task.tables(result, data)["lists of the first users"]) == 10


# ---- commands on real films


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("films")


U1 = ("dataset=ml_100k", "dataset.fold=u1", "dataset.validation=0")
LIGHT = (
    "import atexit, sys\n"
    "atexit.register(lambda: print('HEAVY', *sorted(sys.modules.keys() & {'tensorflow', 'keras', 'mlflow'})))\n"
    "from aelab.cli import main\nmain()"
)


@pytest.fixture
def ease(real_data, tmp_path_factory):
    """(working folder, result) of EASE on the published fold, as the literature tests it."""
    words = ("task=recommend", "model=ease", *U1, "task.hide=liked", f"data_dir={real_data}")
    return commands.shared(tmp_path_factory, "ease", *words)


_KEPT = {}


def once(name, make):
    """What `make` gives, made when it is first asked for: real data are there for tests, not for a module."""
    if name not in _KEPT:
        _KEPT[name] = make()
    return _KEPT[name]


def metrics_of(folder):
    return json.loads((folder / "metrics.json").read_text())


def test_ease_has_its_published_figures(ease):
    metrics = metrics_of(commands.folder_of(ease[1]))
    assert metrics["test/ndcg@10"] == pytest.approx(0.525, abs=0.002)
    assert metrics["test/precision@10"] == pytest.approx(0.461, abs=0.002)
    assert metrics["test/recall@10"] == pytest.approx(0.205, abs=0.002)
    assert ease[1].stderr == ""


def test_popularity_has_its_published_figures(real_data, tmp_path):
    words = (*U1, "model=popularity", "task.hide=liked", f"data_dir={real_data}", "task.at=[10]")
    task, data, cfg, model, _ = trained(tmp_path, *words)
    metrics = task.test(model, data, None, cfg).metrics
    assert metrics["test/ndcg@10"] == pytest.approx(0.288, abs=0.005)
    assert metrics["test/precision@10"] == pytest.approx(0.261, abs=0.005)
    assert metrics["test/recall@10"] == pytest.approx(0.102, abs=0.005)


def test_the_run_folder_has_report_and_pictures(ease):
    folder = commands.folder_of(ease[1])
    pictures = {"metrics_by_length.png", "by_activity.png", "popularity.png"}
    names = {p.name for p in folder.iterdir()}
    assert names >= pictures | {"report.html", "metrics.json", "model.skops", "items.parquet", "users.parquet"}
    report = (folder / "report.html").read_text()
    for text in ("lists of the first users", "by activity", "by gender", "ndcg@10", "novelty@20", "Star Wars (1977)"):
        assert text in report, text
    assert report.count("data:image/png;base64") >= len(pictures)
    assert "Traceback" not in (folder / "run.log").read_text()


@pytest.fixture
def afterwards(ease):
    """What is done with the run, by the real command."""
    cwd, folder = ease[0], commands.folder_of(ease[1])

    def light():
        words = ("recommend", f"run={folder}", "user=100", "top=5")
        return commands.end(commands.start(*words, cwd=cwd, program=(sys.executable, "-c", LIGHT)))

    def make():
        run_ = functools.partial(commands.run, cwd=cwd)
        return commands.together(
            {
                "evaluate": lambda: run_("evaluate", f"run={folder}"),
                "recommend": light,
                "similar": lambda: run_("similar", f"run={folder}", "item=Fargo (1996)"),
            }
        )

    return once("afterwards", make)


def rows_of(printed):
    """The cells of a table on the terminal, without its head; long titles go on in the line below."""
    found = []
    for line in printed.splitlines():
        if line.startswith("│"):
            cells = [cell.strip() for cell in line.strip("│").split("│")]
            if cells[0]:
                found.append(cells)
            else:
                found[-1][1] += f" {cells[1]}"
    return found


def test_evaluate_gives_the_same_metrics(afterwards, ease):
    assert (afterwards["evaluate"].returncode, afterwards["evaluate"].stderr) == (0, "")
    folder = commands.folder_of(ease[1])
    (file,) = (folder / "evaluations").iterdir()
    again = json.loads(file.read_text())
    assert again.pop("overrides") == []
    assert again == pytest.approx({k: v for k, v in metrics_of(folder).items() if not k.startswith("time/")}, abs=1e-6)


def test_recommend_prints_what_the_user_has_not_rated(afterwards, real_data):
    result = afterwards["recommend"]
    assert (result.returncode, result.stderr) == (0, "")
    films = pd.read_csv(real_data / "ml-100k" / "u.item", sep="|", header=None, encoding="latin-1")
    films = films.set_index(0)[1]
    base = pd.read_csv(real_data / "ml-100k" / "u1.base", sep="\t", header=None)
    rated = base.loc[base[0] == 100, 1]
    assert f"for user 100, who has rated {len(rated)} items" in result.stdout  # of those, 25 liked
    rows = rows_of(result.stdout)
    assert [row[0] for row in rows] == list("12345")
    assert {row[1] for row in rows} <= set(films) - set(films[rated])
    scores = [float(row[2]) for row in rows]
    assert scores == sorted(scores, reverse=True)
    counts = base.groupby(1).size().rename(films)
    assert [int(row[3]) for row in rows] == [counts[row[1]] for row in rows]
    assert result.stdout.splitlines()[-1] == "HEAVY"  # nothing of that was imported


def test_what_was_disliked_is_not_offered_by_the_command(ease, real_data, capsys):
    """Though the test of this run hides liked films alone."""
    folder = commands.folder_of(ease[1])
    base = pd.read_csv(real_data / "ml-100k" / "u1.base", sep="\t", header=None)
    counts = base.groupby(1).size()
    for user in (1, 13, 405):
        assert dispatch(["recommend", f"run={folder}", f"user={user}", "top=2000"]) == 0
        rest = set(counts.index[counts >= 5]) - set(base.loc[base[0] == user, 1])
        assert len(rows_of(capsys.readouterr().out)) == len(rest)


def test_a_model_without_vectors_has_nothing_similar(afterwards):
    assert afterwards["similar"].returncode == 1
    said = commands.complaint(afterwards["similar"])
    assert said.endswith("vectors.npy is not there: the model of this run has no vectors of items")


@pytest.fixture
def als(real_data, home):
    """The folder of a run that has vectors of items."""

    def make():
        words = ["task=recommend", "model=als", "model.rounds=3", "task.at=[10]", *U1, f"data_dir={real_data}"]
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(home)
            cfg = config(*words[1:])
            run(compose.Job(words, cfg, home / "als", compose.signature(cfg)), 0.0)
        return home / "als"

    return once("als", make)


@pytest.mark.parametrize(
    ("item", "told"),
    [
        ("Fargo (1996)", ""),
        ("fargo", ""),
        ("100", ""),
        ("Farrgo (1996)", "item=Farrgo (1996): taken as Fargo (1996)"),
    ],
    ids=["title", "part", "id", "typo"],
)
def test_similar_finds_the_item_however_it_is_named(item, told, als, capsys):
    assert dispatch(["similar", f"run={als}", f"item={item}", "top=4"]) == 0
    printed = capsys.readouterr().out
    assert "nearest to Fargo (1996) by cosine" in " ".join(printed.split())
    assert told in printed
    rows = rows_of(printed)
    vectors = np.load(als / "vectors.npy")
    lengths = np.linalg.norm(vectors, axis=1)
    near = vectors @ vectors[99] / np.maximum(lengths * lengths[99], 1e-12)
    near[99] = -2
    names = titles(pd.read_parquet(als / "items.parquet"))
    assert [row[1] for row in rows] == names[np.argsort(-near)[:4]].tolist()
    np.testing.assert_allclose([float(row[2]) for row in rows], np.sort(near)[:-5:-1], rtol=1e-3)


def test_similar_by_another_similarity(als, capsys):
    for name in ("dot", "range_scaled"):
        assert dispatch(["similar", f"run={als}", "item=fargo", "top=3", f"similarity={name}"]) == 0
        printed = " ".join(capsys.readouterr().out.split())
        assert f"by {name}" in printed


@pytest.mark.parametrize(
    ("words", "error", "said"),
    [
        (("recommend", "user=9432"), AelabError, r"^user=9432: unknown; there are 943 users, such as \d+, \d+, \d+$"),
        (("recommend",), ConfigError, r"^user: missing; give it as user=ID$"),
        (("recommend", "user=1", "top=-1"), ConfigError, r"^top=-1: expected a whole number, at least 0$"),
        (("recommend", "user=1", "min_ratings=5000"), AelabError, r"^min_ratings=5000: no item that user 1 does not"),
        (("similar", "item=Toyy Stori"), AelabError, r"unknown among 1,682 items; did you mean .*Toy Story \(1995\)"),
        (("similar", "item=qqqqqqqq"), AelabError, r"^item=qqqqqqqq: unknown among 1,682 items; such as Toy Story"),
        (("similar", "item=star"), AelabError, r"^item=star: \d+ titles have it: .*\(item=\d+\), .* \.\.\.$"),
        (("similar", "item=fargo", "top=-1"), ConfigError, r"^top=-1: expected a whole number, at least 0$"),
        (
            ("similar", "item=fargo", "similarity=cosin"),
            ConfigError,
            r"^similarity=cosin: no such similarity; .*cosine",
        ),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else "",
)
def test_questions_that_have_no_answer(words, error, said, als):
    with pytest.raises(error, match=said):
        dispatch([words[0], f"run={als}", *words[1:]])


@pytest.mark.parametrize("command", ["recommend", "similar"])
def test_a_run_of_another_task_has_no_lists(command, tmp_path):
    cfg_words = ("dataset=digits", "model=median", "model.size=3")
    with compose.session():
        cfg = compose.compose(["task=denoise", *cfg_words], [compose.CONF])
    from omegaconf import OmegaConf

    OmegaConf.save(cfg, tmp_path / "config.yaml")
    question = "user=1" if command == "recommend" else "item=1"
    with pytest.raises(ConfigError) as error:
        dispatch([command, f"run={tmp_path}", question])
    assert str(error.value) == (f"run={tmp_path}: aelab {command} is for runs on ratings, this one is of task=denoise")


# ---- without network and data


@pytest.fixture(scope="module")
def offline(tmp_path_factory):
    """(working folder, result) of a network on films that cannot be had."""
    mirror = f"dataset.mirrors=[http://127.0.0.1:{commands.free_port()}/]"
    words = ("task=recommend", "model=item_ae", mirror, *TINY, "fit.epochs=2")
    return commands.shared(tmp_path_factory, "offline", *words)


def test_films_that_cannot_be_had_are_said_loudly(offline):
    assert "NOT THE DATA YOU ASKED FOR" in offline[1].stdout
    said = " ".join(offline[1].stdout.replace("│", " ").split())
    assert "ml_100k could not be had, so this run uses taste_groups instead" in said
    assert "must not be compared" in said
    assert re.search(r"taste_groups: [\d,]+ train", said)
    assert "ml_100k could not be had" in (commands.folder_of(offline[1]) / "report.html").read_text()
    assert np.isfinite(metrics_of(commands.folder_of(offline[1]))["test/ndcg@10"])


def test_a_network_answers_too(offline, monkeypatch, capsys):
    """By rows of items: what is recommended to one user takes all of them."""
    folder = commands.folder_of(offline[1])
    monkeypatch.chdir(offline[0])
    assert dispatch(["recommend", f"run={folder}", "user=10", "top=3"]) == 0
    rows = rows_of(capsys.readouterr().out)
    assert len(rows) == 3
    assert all(row[1].startswith("item ") for row in rows)
    assert dispatch(["similar", f"run={folder}", "item=10", "top=3"]) == 0
    assert "nearest to item 10 of taste 4" in " ".join(capsys.readouterr().out.split())
