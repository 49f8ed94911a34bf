"""Compression: the kinds of autoencoders, their losses, and task=reconstruct."""

import json
import math
from types import SimpleNamespace

import commands
import keras
import numpy as np
import pandas as pd
import pytest
from contract import component, listed, pictures
from sklearn.decomposition import PCA

from aelab import backend, charts
from aelab.config import AelabError
from aelab.tasks.reconstruct import Linear, encoder

KINDS = listed("model", kind="coded image")
SHAPE = (6, 5, 1)


def weights(model):
    return {w.path.split("/")[-2] + "/" + w.name: w.shape for w in model.trainable_weights}


# ---- the kinds


def test_the_kinds_are_listed_and_those_without_a_code_are_not():
    assert set(KINDS) >= {"vanilla", "fully_connected", "conv_ae", "conv_vae", "recurrent_ae"}
    assert not set(KINDS) & {"unet_mini", "conv_ae_spatial", "median", "dense_ae"}


@pytest.mark.parametrize("choice", KINDS)
def test_every_kind_gives_a_code_and_all_goes_through_it(choice):
    """Two images with the same code have the same output: the rest of the network sees nothing else."""
    model, x = component("model", choice, bottleneck=3)((28, 28, 1)), pictures(4, 28, 28, 1)
    made = model(x, training=False)
    assert made["code"].shape == (4, 3)
    assert made["code"].dtype == made["output"].dtype == "float32"
    assert not np.array_equal(*made["output"][:2])
    heads = [layer for layer in model.layers if isinstance(layer, keras.layers.Dense) and layer.units == 3]
    for head in heads:
        kernel, bias, *rest = head.get_weights()
        head.set_weights([kernel * 0, bias + 1, *rest])
    made = model(x, training=False)
    np.testing.assert_array_equal(made["code"], np.ones((4, 3)))
    np.testing.assert_array_equal(*made["output"][:2])


@pytest.mark.parametrize(
    ("choice", "values", "count"),
    [
        ("vanilla", {}, (30 * 4 + 4) + (4 * 30 + 30)),
        ("vanilla", {"tied": True}, 30 * 4 + 4 + 30),
        (
            "fully_connected",
            {"hidden": [9, 7]},
            (30 * 9 + 9) + (9 * 7 + 7) + (7 * 4 + 4) + (4 * 7 + 7) + (7 * 9 + 9) + (9 * 30 + 30),
        ),
        ("fully_connected", {"hidden": [9, 7], "tied": True}, 30 * 9 + 9 * 7 + 7 * 4 + (9 + 7 + 4) + (7 + 9 + 30)),
        (
            "conv_vae",
            {"widths": [2]},  # 6 x 5 to 3 x 3 x 2; two heads
            (16 * 1 * 2 + 2) + 2 * (18 * 4 + 4) + (4 * 18 + 18) + (16 * 2 * 1 + 1),
        ),
        (
            "recurrent_ae",
            {"hidden": 8},  # an LSTM has 4 (m n + n n + n)
            4 * (5 * 8 + 64 + 8) + (8 * 4 + 4) + 4 * (4 * 8 + 64 + 8) + (8 * 5 + 5),
        ),
    ],
)
def test_weights_by_hand(choice, values, count):
    assert component("model", choice, bottleneck=4, **values)(SHAPE).count_params() == count


def test_vanilla_by_hand():
    """code = x W + b, output = sigmoid(code V + c); tied: V is W transposed."""
    x = pictures(3, *SHAPE)
    for tied in (False, True):
        model = component("model", "vanilla", bottleneck=2, tied=tied)(SHAPE)
        rng = np.random.default_rng(0)
        own = [rng.standard_normal(w.shape).astype(np.float32) for w in model.weights]
        model.set_weights(own)
        W, b = own[:2]
        V, c = (W.T, own[2]) if tied else own[2:]
        code = x.reshape(3, 30) @ W + b
        made = model(x)
        np.testing.assert_allclose(made["code"], code, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(made["output"], (1 / (1 + np.exp(-(code @ V + c)))).reshape(3, *SHAPE), atol=1e-5)


def test_a_tied_network_and_the_file_of_it(tmp_path):
    model = component("model", "fully_connected", hidden=[9, 7], tied=True, dropout=0.2)(SHAPE)
    model.set_weights([np.random.default_rng(0).standard_normal(w.shape) / 3 for w in model.get_weights()])
    model.save(tmp_path / "model.keras")
    again, x = keras.saving.load_model(tmp_path / "model.keras", compile=False), pictures(2, *SHAPE)
    np.testing.assert_allclose(again(x)["output"], model(x)["output"], atol=1e-6)
    assert again.count_params() == model.count_params()


def test_dropout_and_penalties_of_a_fully_connected_network():
    x = pictures(4, *SHAPE)
    model = component("model", "fully_connected", hidden=[9], dropout=0.5)(SHAPE)
    assert not np.array_equal(*(model(x, training=True)["code"] for _ in range(2)))
    np.testing.assert_array_equal(*(model(x, training=False)["code"] for _ in range(2)))
    for tied, kernels in ((False, [(30, 9), (4, 9)]), (True, [(30, 9)])):
        model = component("model", "fully_connected", hidden=[9], bottleneck=4, tied=tied, l2=0.25)(SHAPE)
        found = [w.numpy() for w in model.weights if w.shape in kernels]
        assert len(found) == len(kernels)
        assert float(sum(model.losses)) == pytest.approx(sum(0.25 * np.square(w).sum() for w in found), rel=1e-5)


def test_the_recurrent_code_is_of_all_rows():
    model, x = component("model", "recurrent_ae", hidden=8)(SHAPE), pictures(1, *SHAPE)
    code = model(x)["code"]
    for row in range(SHAPE[0]):
        other = x.copy()
        other[:, row] = 1 - other[:, row]
        assert np.abs(model(other)["code"] - code).max() > 1e-6


# ---- losses that make kinds of any of them


def test_contractive_by_hand():
    """The Jacobian of a linear code is its kernel, whatever the input."""
    model, x = component("model", "vanilla", bottleneck=2)(SHAPE), pictures(3, *SHAPE)
    kernel = model.get_weights()[0]
    values = component("loss", "contractive")(SimpleNamespace(input=x), None, model)
    np.testing.assert_allclose(values, np.full(3, np.square(kernel).sum()), rtol=1e-5)


@pytest.mark.parametrize("choice", KINDS)
def test_contractive_is_what_finite_differences_say(choice):
    keras.utils.set_random_seed(0)
    model, x = component("model", choice, bottleneck=3)((8, 6, 1)), 0.2 + 0.6 * pictures(2, 8, 6, 1)
    values = np.array(component("loss", "contractive")(SimpleNamespace(input=x), None, model))
    assert values.shape == (2,)
    step = 1e-2
    moves = step * np.eye(48, dtype=np.float32).reshape(48, 8, 6, 1)
    for image, value in zip(x, values, strict=True):
        up, down = (model(image + sign * moves, training=False)["code"].numpy() for sign in (1, -1))
        assert value == pytest.approx(np.square((up - down) / (2 * step)).sum(), rel=0.03)


@pytest.mark.parametrize("choice", ["conv_ae", "fully_connected"])
def test_contraction_can_be_trained(choice):
    import tensorflow as tf

    model, x = component("model", choice, bottleneck=2)((8, 6, 1)), pictures(4, 8, 6, 1)
    term, optimizer = component("loss", "contractive"), keras.optimizers.SGD(0.01)
    optimizer.build(model.trainable_weights)

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            value = tf.reduce_mean(term(SimpleNamespace(input=tf.constant(x)), None, model))
        gradients = tape.gradient(value, model.trainable_weights)
        optimizer.apply([tf.zeros_like(w) if g is None else g for g, w in zip(gradients, model.weights, strict=True)])
        return value

    first = float(step())
    assert float(step()) < first
    assert np.isfinite(first)


def test_sparsity_by_hand():
    code = np.array([[0, 1, -3], [2, 0, 0]], np.float32)
    batch = SimpleNamespace(input=code, target=code)
    np.testing.assert_allclose(component("loss", "sparsity")(batch, {"code": code}, None), [4 / 3, 2 / 3], rtol=1e-6)
    logit = math.log(3)  # whose sigmoid is 3/4: on average 1/2, 1/2 and 1/4
    code = np.array([[logit, 0, -logit], [-logit, 0, -logit]], np.float32)
    values = component("loss", "sparsity", rho=0.25)(batch, {"code": code}, None)
    each = 0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5)
    np.testing.assert_allclose(values, [2 * each] * 2, rtol=1e-5)


def test_jacobian_by_hand():
    x = np.array([[1.0, 2.0], [3.0, -1.0]])
    found = backend.jacobian(lambda x: keras.ops.stack([x[:, 0] * x[:, 1], x[:, 1] ** 2], axis=1), x)
    np.testing.assert_allclose(found, [[[2, 1], [0, 4]], [[-1, 3], [0, -2]]])


# ---- the baseline


def test_the_linear_code_is_scikit_learns():
    x, test = pictures(40, *SHAPE), pictures(9, *SHAPE, seed=1)
    linear, direct = Linear(x, 4, 0), PCA(4, svd_solver="full").fit(x.reshape(40, -1))
    expected = direct.inverse_transform(direct.transform(test.reshape(9, -1))).reshape(test.shape)
    np.testing.assert_allclose(linear.rebuilt(test), expected, atol=1e-5)
    np.testing.assert_allclose(np.abs(linear.code(test)), np.abs(direct.transform(test.reshape(9, -1))), atol=1e-4)


def test_the_curve_of_pca_is_the_error_at_each_size():
    x, clean, noisy = pictures(40, *SHAPE), pictures(9, *SHAPE, seed=1), pictures(9, *SHAPE, seed=2)
    for inputs in (clean, noisy):
        curve = Linear(x, 4, 0).curve(inputs, clean)
        assert len(curve) == 30
        for size in (1, 4, 30):
            made = Linear(x, size, 0).rebuilt(inputs)
            assert curve[size - 1] == pytest.approx(np.square(made - clean).mean(), rel=1e-3, abs=1e-7)


def test_a_model_without_a_code_is_told():
    image = keras.Input(SHAPE)
    with pytest.raises(AelabError, match='expected a dict with "output" and "code"'):
        encoder(keras.Model(image, {"output": image}))


def test_sweeps_draw_pca_beside_the_metric():
    table = pd.DataFrame({"model.bottleneck": ["8", "2", "4"], "test/mse": [1.0, 3, 2], "test/mse_pca": [2.0, 4, 3]})
    figure = charts.swept(table, ["model.bottleneck"], "test/mse", "min")
    (dashed,) = [line for line in figure.axes[0].lines if line.get_linestyle() == "--"]
    np.testing.assert_array_equal(dashed.get_xydata(), [[2, 4], [4, 3], [8, 2]])
    assert "PCA" in [text.get_text() for text in figure.axes[0].get_legend().get_texts()]


# ---- the command

FAST = ("task=reconstruct", "dataset=digits", "debug=fast", "tracking.log_model=false")


@pytest.fixture(scope="module")
def all_models(tmp_path_factory):
    cwd = tmp_path_factory.mktemp("kinds")
    return cwd, commands.done("-m", *FAST, "model=glob(*)", "fit.epochs=1", cwd=cwd, COLUMNS="200")


def test_a_sweep_over_all_models_runs_those_that_fit_and_refuses_the_others(all_models):
    cwd, result = all_models
    (table,) = cwd.glob("outputs/sweeps/*/*/sweep.csv")
    found = pd.read_csv(table)
    assert set(found["model"]) == set(KINDS)
    assert found["state"].eq("finished").all()
    assert (found["test/mse_pca"] > 0).all()
    refused = " ".join((result.stdout + result.stderr).split())
    for name in ("unet_mini", "median", "dense_ae", "conv_ae_spatial"):
        assert name in refused


def test_what_a_run_leaves(all_models):
    cwd, _ = all_models
    (folder,) = cwd.glob("outputs/sweeps/*/*/*-conv_ae-*")
    codes, metrics = np.load(folder / "codes.npy"), json.loads((folder / "metrics.json").read_text())
    assert codes.shape == (359, 64)
    assert codes.dtype == np.float32
    names = {"mse", "psnr", "ssim", "mae", "probe_accuracy"}
    assert {k for k in metrics if k.startswith("test/")} == {f"test/{n}{p}" for n in names for p in ("", "_pca")}
    assert 0.9 < metrics["test/probe_accuracy_pca"] <= 1
    assert {"examples.png", "map.png", "rate_distortion.png"} <= {p.name for p in folder.iterdir()}


def test_a_sparse_denoising_variational_autoencoder_with_a_code_too_large(tmp_path):
    """All at once: any kind with a corruption and other terms; and one clear line about the code."""
    words = ("model=conv_vae", "model.widths=[4]", "model.bottleneck=785", "loss=[bce,kl,sparsity]", "task.map=tsne")
    knobs = ("loss.kl.weight=1", "loss.kl.warmup=1", "loss.kl.free_bits=0.01", "loss.sparsity.rho=0.1")
    more = ("corruption=gaussian", "dataset.limit=60", "fit.epochs=1")
    result = commands.done(*FAST, *words, *knobs, *more, cwd=tmp_path)
    assert result.stderr.splitlines() == ["aelab: the code has 785 numbers, the image 784: nothing is compressed"]
    metrics = json.loads((commands.folder_of(result) / "metrics.json").read_text())
    assert metrics["test/mse_input"] > 0
    assert {"test/mse_gain", "test/mse_pca"} <= metrics.keys()
    history = pd.read_csv(commands.folder_of(result) / "history.csv")
    assert {"train/kl", "train/sparsity", "train/bce"} <= set(history)
