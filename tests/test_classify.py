import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from commands import done, folder_of
from contract import component, frozen, listed, node, pictures

from aelab import compose, declared
from aelab.config import ConfigError
from aelab.data.digits import digits
from aelab.data.record import Split

KIND = "labelled images"
MODELS = listed("model", kind=KIND)


# ---- augmentation


@pytest.mark.parametrize("choice", listed("corruption", kind=KIND))
class TestAugmentations:
    @pytest.fixture(params=[1, 3])
    def x(self, request):
        return frozen(pictures(40, 27, 30, request.param))

    def test_gives_other_images_of_the_same_shape_and_leaves_its_input(self, choice, x):
        before = x.copy()
        made = component("corruption", choice)(x, np.random.default_rng(0))
        assert (made.shape, made.dtype) == (x.shape, np.float32)
        assert 0 <= made.min() <= made.max() <= 1
        np.testing.assert_array_equal(x, before)
        assert not np.array_equal(made, x)

    def test_the_generator_alone_decides(self, choice, x):
        one, two, other = (component("corruption", choice)(x, np.random.default_rng(s)) for s in (1, 1, 2))
        np.testing.assert_array_equal(one, two)
        assert not np.array_equal(one, other)

    def test_each_image_is_changed_in_its_own_way(self, choice, x):
        made = component("corruption", choice)(np.stack([x[0]] * 40), np.random.default_rng(0))
        assert len({image.tobytes() for image in made}) > 1

    def test_level_0_changes_nothing(self, choice, x):
        np.testing.assert_array_equal(component("corruption", choice, level=0)(x, np.random.default_rng(0)), x)


def augmented(choice, x, **values):
    return component("corruption", choice, **values)(frozen(x), np.random.default_rng(0))


def test_shift_moves_by_whole_pixels_up_to_its_share_each_way():
    x = np.zeros((2000, 7, 11, 2), np.float32)
    x[:, 3, 5] = [0.25, 0.75]
    made = augmented("shift", x, level=0.3)  # 2 of 7, 3 of 11
    image, row, column = np.nonzero(made[..., 0])
    np.testing.assert_array_equal(image, np.arange(2000))  # one pixel each
    assert set(zip(row, column, strict=True)) == {(3 + i, 5 + j) for i in range(-2, 3) for j in range(-3, 4)}
    np.testing.assert_array_equal(made[image, row, column], [[0.25, 0.75]] * 2000)


def test_what_shift_brings_in_is_black():
    made = augmented("shift", np.ones((200, 10, 10, 1), np.float32), level=0.1)[..., 0]
    assert set(made.sum(axis=(1, 2))) == {100, 90, 81}  # whole, one edge, two edges


def test_flip_exchanges_left_and_right_as_often_as_its_level_says():
    x = pictures(2000, 4, 5, 3)
    made = augmented("flip", x, level=0.3)
    same, mirrored = ((made == other).all(axis=(1, 2, 3)) for other in (x, x[:, :, ::-1]))
    assert (same ^ mirrored).all()
    assert mirrored.mean() == pytest.approx(0.3, abs=0.03)


def test_cutout_is_one_black_rectangle():
    made = augmented("cutout", np.ones((3000, 10, 20, 2), np.float32), level=0.3)
    np.testing.assert_array_equal(made[..., 0], made[..., 1])
    black = made[..., 0] == 0
    high, wide = black.any(axis=2).sum(axis=1), black.any(axis=1).sum(axis=1)
    np.testing.assert_array_equal(black.sum(axis=(1, 2)), high * wide)
    assert (high.max(), wide.max()) == (3, 6)
    assert (high.min(), wide.min()) == (2, 3)  # what lies beyond the edge is lost
    share = black.mean(axis=0)
    assert share[5, 10] == pytest.approx(3 / 10 * 6 / 20, abs=0.02)
    assert share[0, 0] == pytest.approx(2 / 10 * 4 / 20, abs=0.02)


# ---- formulas

LABELS, LOGITS = np.array([2, 0, 1]), np.log(np.array([[1, 1, 2], [1, 2, 1], [2, 2, 4]], np.float32))


def test_accuracy_and_cross_entropy_by_hand(keras):
    from aelab import classification

    np.testing.assert_array_equal(classification.accuracy(LABELS, LOGITS), [1, 0, 0])
    np.testing.assert_allclose(classification.cross_entropy(LABELS, LOGITS), np.log([2, 4, 4]), rtol=1e-6)
    np.testing.assert_array_equal(classification.accuracy(np.array([1]), np.zeros((1, 4), np.float32)), [0.25])


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_smooth_cross_entropy_is_that_of_keras(keras, smoothing):
    batch, outputs = SimpleNamespace(target=LABELS), {"output": LOGITS}
    term = component("loss", "smooth_cross_entropy", smoothing=smoothing)
    oracle = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing, reduction=None)
    np.testing.assert_allclose(term(batch, outputs, None), oracle(np.eye(3)[LABELS], LOGITS), rtol=1e-5)


# ---- models


@pytest.mark.parametrize("choice", MODELS)
class TestClassifiers:
    @pytest.fixture(params=[((28, 28, 1), 10), ((29, 31, 3), 2)], ids=str)
    def given(self, request):
        return request.param

    def test_gives_a_logit_for_each_class(self, keras, choice, given, tmp_path):
        keras.config.set_dtype_policy("mixed_bfloat16")
        model, x = component("model", choice)(given), frozen(pictures(4, *given[0]))
        logits = model(x).numpy()
        assert (logits.shape, logits.dtype) == ((4, given[1]), np.float32)
        assert {w.dtype for w in model.weights} == {"float32"}
        np.testing.assert_allclose(logits[1:2], model(x[1:2]), atol=0.02)
        assert logits.min() < 0 < logits.max()  # not chances
        model.save(tmp_path / "model.keras")
        np.testing.assert_array_equal(keras.saving.load_model(tmp_path / "model.keras")(x), logits)

    def test_gradient_reaches_every_weight(self, keras, choice, given):
        import tensorflow as tf

        model, x = component("model", choice)(given), pictures(16, *given[0])
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(model(x, training=True) - 1))
        weights = [w.value for w in model.trainable_weights]
        for weight, gradient in zip(model.trainable_weights, tape.gradient(loss, weights), strict=True):
            assert np.isfinite(gradient).all(), weight.path
            assert np.any(gradient), weight.path

    def test_its_kind_is_read_from_its_source(self, choice):
        assert declared.kinds("model", node("model", choice)["_target_"]) == (KIND,)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("task=denoise model=cnn", "model=cnn: is for labelled images data, but task=denoise takes image"),
        ("task=classify model=unet_mini", "model=unet_mini: is for image data.* that fit: cnn, mlp, resnet_mini"),
        (
            "task=classify dataset=ml_100k",
            "dataset=ml_100k: is for ratings data.* that fit: cifar10, digits, fashion_mnist",
        ),
        ("task=classify corruption=[gaussian]", "corruption=gaussian: .* that fit: cutout, flip, shift"),
    ],
)
def test_what_does_not_fit_is_refused(words, said):
    with compose.session(), pytest.raises(ConfigError, match=said):
        compose.compose(words.split(), [compose.CONF])


def test_the_named_run_is_a_good_config():
    with compose.session():
        compose.compose(["experiment=classify_best"], [compose.CONF])


def test_mlp_is_the_documents_network(keras):
    model = component("model", "mlp")(((28, 28, 1), 10))
    assert model.count_params() == (784 * 128 + 128) + (128 * 64 + 64) + (64 * 10 + 10)


def test_cnn_by_hand(keras):
    model = component("model", "cnn", widths=[3, 5], blocks=1, hidden=[7])(((28, 28, 2), 4))
    first = (16 * 2 * 3 + 3) + (9 * 3 * 3 + 3)
    second = (9 * 3 * 5 + 5) + (9 * 5 * 5 + 5)
    assert model.count_params() == first + second + (7 * 7 * 5 * 7 + 7) + (7 * 4 + 4)


def test_resnet_mini_begins_near_the_network_without_its_blocks(keras):
    model, x = component("model", "resnet_mini", blocks=2)(((28, 28, 1), 10)), pictures(8, 28, 28, 1)
    before = model(x).numpy()
    sums = [layer for layer in model.layers if isinstance(layer, keras.layers.Add)]
    assert len(sums) == 4
    for layer in sums:
        inner = layer._inbound_nodes[0].parent_nodes[1].operation
        inner.set_weights([w * 0 for w in inner.get_weights()])
    assert 0 < np.abs(model(x).numpy() - before).max() < 0.5 * np.abs(before).max()


# ---- the task


def task(examples=2):
    from aelab.tasks.classify import Classify

    return Classify(examples=examples)


@pytest.fixture(scope="module")
def data():
    return digits(validation=0.1, limit=100, seed=0, test=0.2)


CFG = SimpleNamespace(
    choices=SimpleNamespace(dataset="npz"),
    fit=SimpleNamespace(batch_size=16),
    seed=0,
    metric={"accuracy": {"_target_": "aelab.classification.accuracy", "goal": "max"}},
)


def test_training_batches_alone_are_augmented_and_labels_stay_with_their_images(data):
    found = task()
    found.prepare(data, CFG)
    pairs = found.pairs(None)
    x, y = pairs(found.held_out(data.validation).x, None)
    np.testing.assert_array_equal(x, data.validation.x)
    np.testing.assert_array_equal(y, data.validation.y)
    label = {image.tobytes(): y for image, y in zip(data.train.x, data.train.y, strict=True)}
    flipped = {image[:, ::-1].tobytes(): y for image, y in zip(data.train.x, data.train.y, strict=True)}
    cfg = SimpleNamespace(**vars(CFG) | {"corruption": {"flip": node("corruption", "flip"), "level": None}})
    batches = found.batches(None, data.train.x, pairs, cfg)
    seen = [pair for i in range(len(batches)) for pair in zip(*batches[i], strict=True)]
    assert len(seen) == len(data.train)
    assert all((label | flipped)[image.tobytes()] == y for image, y in seen)
    unchanged = sum(image.tobytes() in label for image, _ in seen)
    assert 0 < unchanged < len(seen)


class Told:
    """A model whose logits were written down before."""

    def __init__(self, *logits):
        self.logits = list(logits)

    def predict(self, x, **keywords):
        return self.logits.pop(0)


def outcome(data, chances):
    """The result of a model that gives the test's images these chances, and is always right in training."""
    sure = 20 * np.eye(3, dtype=np.float32)
    four = replace(
        data,
        label_names=("a", "b", "c"),
        train=Split(data.train.x[:3], np.arange(3)),
        validation=Split(data.train.x[:0], np.arange(0)),
        test=Split(data.test.x[:4], np.array([0, 0, 1, 2])),
    )
    found = task()
    found.prepare(four, CFG)
    return found, found.test(Told(sure, np.log(np.array(chances, np.float32))), four, None, CFG), four


CHANCES = [[0.8, 0.1, 0.1], [0.3, 0.6, 0.1], [0.2, 0.5, 0.3], [0.05, 0.9, 0.05]]


def test_metrics_by_hand(keras, data):
    found, result, four = outcome(data, CHANCES)
    expected = {
        "test/accuracy": 2 / 4,
        "test/precision_macro": (1 + 1 / 3 + 0) / 3,
        "test/recall_macro": (1 / 2 + 1 + 0) / 3,
        "test/f1_macro": (2 / 3 + 1 / 2 + 0) / 3,
        **dict.fromkeys(("train/accuracy", "train/precision_macro", "train/recall_macro", "train/f1_macro"), 1),
    }
    assert result.metrics == pytest.approx(expected)
    examples = result.examples
    assert examples["label"].tolist() == [0, 0, 1, 2]
    assert examples["predicted"].tolist() == [0, 1, 1, 1]
    assert examples["correct"].tolist() == [True, False, True, False]
    np.testing.assert_allclose(examples["confidence"], [0.8, 0.6, 0.5, 0.9], rtol=1e-5)
    tables = found.tables(result, four)
    pd.testing.assert_frame_equal(
        tables["surest mistakes"],
        pd.DataFrame({"label": ["c", "a"], "predicted": ["b", "b"], "confidence": [0.9, 0.6]}, [3, 1]),
        check_dtype=False,
        check_names=False,
    )
    confusion = tables["test images by true (down) and predicted class"]
    assert confusion.to_numpy().tolist() == [[1, 1, 0], [0, 1, 0], [0, 1, 0]]
    assert tables["test images by class"]["images"].to_dict() == {"a": 2, "b": 1, "c": 1}
    assert tables["training, validation and test"].loc["accuracy"].tolist()[::2] == [1, 0.5]
    figures = found.figures(result, four)
    assert set(figures) == {"confusion", "overfitting", "mistakes"}
    assert "mistaken: 100.0% of c for b" in figures["confusion"].get_label()


def test_a_model_without_mistakes_has_none_to_show(keras, data):
    found, result, four = outcome(data, np.eye(3)[[0, 0, 1, 2]] + 0.01)
    assert result.metrics["test/accuracy"] == 1
    assert found.tables(result, four)["surest mistakes"].empty
    assert set(found.figures(result, four)) == {"confusion", "overfitting"}


def test_data_without_labels_are_refused(data):
    bare = replace(data, label_names=(), source="mine.npz", train=Split(data.train.x, None))
    with pytest.raises(ConfigError, match=r"dataset=npz: mine.npz has no labels, .* y_train .* task=denoise"):
        task().prepare(bare, CFG)


def test_a_run_learns_digits(tmp_path):
    run = done("task=classify", "dataset=digits", "model=mlp", "corruption=[shift]", "fit.epochs=12", cwd=tmp_path)
    folder = folder_of(run)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["test/accuracy"] > 0.85
    assert {f"{part}/{name}_macro" for part in ("train", "val", "test") for name in ("f1", "recall")} < set(metrics)
    history = pd.read_csv(folder / "history.csv")
    assert metrics["val/accuracy"] == pytest.approx(history["val/accuracy"].max(), abs=0.01)  # the best epoch's weights
    assert not {name for name in history if name.startswith("train/")} & set(metrics)
    examples = pd.read_parquet(folder / "examples.parquet")
    assert len(examples) == 359
    assert examples[["correct", "accuracy"]].mean().tolist() == pytest.approx([metrics["test/accuracy"]] * 2)
    for name in ("confusion", "overfitting", "curves"):
        assert (folder / f"{name}.png").stat().st_size > 5000
    assert "surest mistakes" in (folder / "report.html").read_text()
