import ast

import keras
import numpy as np
import pytest
from contract import ModelContract, TrainedModelContract, component, listed, node, pictures
from keras import layers
from scipy.ndimage import median_filter
from skimage.restoration import denoise_nl_means, denoise_tv_chambolle

from aelab import check


def is_trained(choice):
    """Whether a model's source says that it gives a `keras.Model`: known before anything is built."""
    returns = getattr(check.signature(node("model", choice)["_target_"]).node, "returns", None)
    return returns is not None and ast.unparse(returns) == "keras.Model"


IMAGE_MODELS = listed("model", kind="image")
TRAINED = [name for name in IMAGE_MODELS if is_trained(name)]
FILTERS = [name for name in IMAGE_MODELS if not is_trained(name)]


@pytest.mark.parametrize("choice", TRAINED)
class TestTrainedModels(TrainedModelContract):
    pass


@pytest.mark.parametrize("choice", FILTERS)
class TestFilters(ModelContract):
    def test_has_nothing_that_keras_trains(self, choice):
        assert not isinstance(component("model", choice)((8, 8, 1)), keras.Model)


def test_both_sorts_of_models_are_there():
    assert {"unet_mini", "conv_ae"} <= set(TRAINED)
    assert {"median", "tv"} <= set(FILTERS)


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
    halves = keras.Model(model.input, [code.output, model.output])
    x = pictures(2, 28, 28, 1)
    codes, outputs = halves(x)
    assert np.abs(codes[0] - codes[1]).max() > 0
    assert np.abs(outputs[0] - outputs[1]).max() > 0
    kernel, bias = code.get_weights()
    code.set_weights([kernel * 0, bias])
    outputs = model(x)
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
