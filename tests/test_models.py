import ast
import itertools

import keras
import numpy as np
import pytest
from contract import (
    ModelContract,
    RowModelContract,
    TrainedModelContract,
    component,
    listed,
    node,
    pictures,
    rebuilt,
    rows,
)
from keras import layers
from scipy.ndimage import median_filter
from skimage.restoration import denoise_nl_means, denoise_tv_chambolle

from aelab import declared


def is_trained(choice):
    """Whether a model's source says that it gives a `keras.Model`: known before anything is built."""
    returns = getattr(declared.signature(node("model", choice)["_target_"]).node, "returns", None)
    return returns is not None and ast.unparse(returns) == "keras.Model"


IMAGE_MODELS = listed("model", kind="image")
TRAINED = [name for name in IMAGE_MODELS if is_trained(name)]
FILTERS = [name for name in IMAGE_MODELS if not is_trained(name)]
DENSE = [name for name in listed("model", kind="table") if is_trained(name)]


@pytest.mark.parametrize("choice", TRAINED)
class TestTrainedModels(TrainedModelContract):
    pass


@pytest.mark.parametrize("choice", DENSE)
class TestRowModels(RowModelContract):
    pass


@pytest.mark.parametrize("choice", FILTERS)
class TestFilters(ModelContract):
    def test_has_nothing_that_keras_trains(self, choice):
        assert not isinstance(component("model", choice)((8, 8, 1)), keras.Model)


def test_all_sorts_of_models_are_there():
    assert {"unet_mini", "conv_ae"} <= set(TRAINED)
    assert {"median", "tv"} <= set(FILTERS)
    assert {"dense_ae", "vae"} <= set(DENSE)
    kinds = ("interactions", "items", "pairs", "vectors", "text", "labelled images", "masked image")
    others = (listed("model", kind=kind) for kind in kinds)  # test_recommend..., test_classify, test_inpaint
    assert set(listed("model")) == {*IMAGE_MODELS, *listed("model", kind="table"), *itertools.chain(*others)}


def test_conv_ae_spatial_by_hand():
    model = component("model", "conv_ae_spatial")((28, 28, 1))
    encoder, decoder = (16 * 1 * 32 + 32) + (16 * 32 * 64 + 64), (16 * 64 * 32 + 32) + (16 * 32 * 1 + 1)
    assert model.count_params() == encoder + decoder
    assert not [layer for layer in model.layers if isinstance(layer, layers.Dense)]
    code = min((layer.output.shape for layer in model.layers), key=lambda shape: shape[1])
    assert code == (None, 7, 7, 64)  # the document's code


def test_conv_ae_by_hand():
    model = component("model", "conv_ae")((28, 28, 1))
    encoder = (16 * 1 * 32 + 32) + (16 * 32 * 64 + 64) + (7 * 7 * 64 * 64 + 64)
    decoder = (64 * 7 * 7 * 64 + 7 * 7 * 64) + (16 * 64 * 32 + 32) + (16 * 32 * 1 + 1)
    assert model.count_params() == encoder + decoder


@pytest.mark.parametrize("bottleneck", [1, 16])
def test_conv_ae_has_nothing_but_its_code(bottleneck):
    """Two images with the same code have the same output: no connection goes around it."""
    model = component("model", "conv_ae", bottleneck=bottleneck)((28, 28, 1))
    code = model.get_layer("code")
    assert code.output.shape == (None, bottleneck)
    halves = keras.Model(model.input, [code.output, model.output["output"]])
    x = pictures(2, 28, 28, 1)
    codes, outputs = halves(x)
    assert np.abs(codes[0] - codes[1]).max() > 0
    assert np.abs(outputs[0] - outputs[1]).max() > 0
    kernel, bias = code.get_weights()
    code.set_weights([kernel * 0, bias])
    outputs = model(x)["output"]
    np.testing.assert_array_equal(outputs[0], outputs[1])


@pytest.mark.parametrize("choice", ["conv_ae", "conv_ae_spatial"])
def test_widths_are_the_levels(choice):
    model = component("model", choice, widths=[3, 5, 7])((16, 24, 2))
    convolutions = [layer.filters for layer in model.layers if type(layer) is layers.Conv2D]
    assert convolutions[:3] == [3, 5, 7]
    assert (None, 2, 3, 7) in [layer.output.shape for layer in model.layers]  # 16 x 24 halved three times


@pytest.mark.parametrize("depth", [1, 3])
def test_unet_mini_halves_as_often_as_its_depth(depth):
    width = node("model", "unet_mini")["width"]
    model = component("model", "unet_mini", depth=depth)((32, 16, 1))
    sides = {layer.output.shape[1:3] for layer in model.layers if layer.weights}
    assert min(sides) == (32 // 2**depth, 16 // 2**depth)
    assert max(layer.output.shape[-1] for layer in model.layers) == width * 2 ** (depth - 1)


def test_dense_ae_by_hand():
    model = component("model", "dense_ae", hidden=[20, 10], bottleneck=4)((7,))
    encoder, decoder = (7 * 20 + 20) + (20 * 10 + 10) + (10 * 4 + 4), (4 * 10 + 10) + (10 * 20 + 20) + (20 * 7 + 7)
    assert model.count_params() == encoder + decoder
    no_hidden = component("model", "dense_ae", hidden=[], bottleneck=4)((7,))
    assert no_hidden.count_params() == (7 * 4 + 4) + (4 * 7 + 7)


def test_vae_by_hand():
    model = component("model", "vae", hidden=[20], bottleneck=4)((7,))
    assert model.count_params() == (7 * 20 + 20) + 2 * (20 * 4 + 4) + (4 * 20 + 20) + (20 * 7 + 7)


@pytest.mark.parametrize("choice", DENSE)
def test_rows_have_nothing_but_their_code(choice):
    """What is rebuilt is a function of the code: equal codes, equal outputs."""
    model, x = component("model", choice, bottleneck=1)((7,)), rows(2, 7)
    assert not np.array_equal(*rebuilt(model, x)[0]["output"])
    heads = [layer for layer in model.layers if isinstance(layer, layers.Dense) and layer.units == 1]
    for head in heads:
        kernel, bias = head.get_weights()
        head.set_weights([kernel * 0, bias + 1])
    (outputs,) = rebuilt(model, x)
    np.testing.assert_array_equal(*outputs["code"])
    np.testing.assert_array_equal(*outputs["output"])
    outside = rebuilt(model, 1e3 * x, training=False)[0]["output"]
    np.testing.assert_array_equal(*outside)


@pytest.mark.parametrize("choice", DENSE)
def test_outputs_of_rows_are_not_bounded(choice):
    """A feature may have any value: the last layer is linear."""
    model = component("model", choice)((7,))
    last = [layer for layer in model.layers if isinstance(layer, layers.Dense) and layer.units == 7][-1]
    kernel, bias = last.get_weights()
    for value in (-40.0, 40.0):
        last.set_weights([kernel * 0, bias * 0 + value])
        np.testing.assert_array_equal(rebuilt(model, rows(2, 7))[0]["output"], np.full((2, 7), value))


@pytest.mark.parametrize("choice", DENSE)
def test_penalties_are_losses_of_the_hidden_layers(choice):
    values = {"hidden": [5], "bottleneck": 2}
    free, l1, l2 = (component("model", choice, **values, **v)((7,)) for v in ({}, {"l1": 0.5}, {"l2": 0.25}))
    assert free.losses == []
    for model, cost in ((l1, lambda w: 0.5 * np.abs(w).sum()), (l2, lambda w: 0.25 * np.square(w).sum())):
        kernels = [w.numpy() for w in model.weights if w.shape in ((7, 5), (2, 5))]
        assert len(kernels) == 2  # of the one hidden layer on either side
        assert float(sum(model.losses)) == pytest.approx(sum(cost(w) for w in kernels), rel=1e-5)


@pytest.mark.parametrize("choice", DENSE)
def test_dropout_acts_in_training_alone(choice):
    keras.utils.set_random_seed(0)
    model, x = component("model", choice, dropout=0.5)((7,)), rows(4, 7)
    one, two = (rebuilt(model, x, training=False)[0]["output"] for _ in range(2))
    np.testing.assert_array_equal(one, two)
    noisy = [rebuilt(model, x, training=True)[0]["code"] for _ in range(2)]
    assert not np.array_equal(*noisy)
    plain = component("model", choice)((7,))
    np.testing.assert_array_equal(*(rebuilt(plain, x, training=True)[0]["code"] for _ in range(2)))


def test_draws_have_the_mean_and_variance_they_are_told():
    from aelab.models.dense import Draw

    keras.utils.set_random_seed(0)
    mean, log_variance = (np.tile(v, (20_000, 1)).astype(np.float32) for v in ([2.0, -1.0], np.log([0.25, 4.0])))
    draw = Draw()
    np.testing.assert_array_equal(draw(mean, log_variance), mean)
    got = draw(mean, log_variance, training=True).numpy()
    np.testing.assert_allclose(got.mean(0), [2, -1], atol=0.06)
    np.testing.assert_allclose(got.std(0), [0.5, 2], rtol=0.03)
    assert not np.array_equal(got, draw(mean, log_variance, training=True))


def test_log_variance_is_bounded():
    """exp of it must stay a number, however far a row lies outside."""
    x = 1e6 * rows(50, 7)
    (outputs,) = rebuilt(component("model", "vae")((7,)), x)
    assert outputs["log_variance"].min() >= -12
    assert outputs["log_variance"].max() <= 6
    np.testing.assert_array_equal(outputs["code"], outputs["mean"])


X = pictures(2, 20, 17, 3)


@pytest.mark.parametrize(
    ("choice", "values", "direct"),
    [
        ("median", {"size": 3}, lambda x: median_filter(x, 3)),
        ("tv", {"weight": 0.2}, lambda x: denoise_tv_chambolle(x, 0.2)),
        (
            "nl_means",
            {"h": 0.3, "patch": 3, "distance": 4},
            lambda x: denoise_nl_means(x, 3, 4, 0.3, fast_mode=True),
        ),
    ],
)
def test_filters_are_those_of_scipy_and_scikit_image(choice, values, direct):
    grey = X[..., :1]
    got = component("model", choice, **values)(grey.shape[1:]).predict(grey)
    np.testing.assert_allclose(got[..., 0], [direct(x) for x in grey[..., 0]], atol=1e-6)


def test_median_keeps_channels_apart():
    filtered = component("model", "median")((20, 17, 3)).predict(X)
    for c in range(3):
        alone = component("model", "median")((20, 17, 1)).predict(X[..., c : c + 1])
        np.testing.assert_array_equal(filtered[..., c : c + 1], alone)


@pytest.mark.parametrize("choice", FILTERS)
def test_filters_remove_noise(choice):
    clean = np.full((1, 24, 24, 1), 0.3, np.float32)
    clean[:, 8:16, 8:16] = 0.8
    noisy = np.clip(clean + 0.15 * np.random.default_rng(0).standard_normal(clean.shape), 0, 1).astype(np.float32)
    restored = component("model", choice)(clean.shape[1:]).predict(noisy)
    assert np.square(restored - clean).mean() < np.square(noisy - clean).mean() / 1.5
