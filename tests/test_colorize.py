"""Colourisation: luminance, the mean colour of each grey level, and task=colorize."""

import json

import numpy as np
import pandas as pd
import pytest
from commands import complaint, done, folder_of, run
from contract import component, frozen, pictures
from PIL import Image
from skimage.color import rgb2lab

from aelab import past, stored
from aelab.call import build
from aelab.tasks import colorize
from aelab.tasks.colorize import luminance


def test_luminance_by_hand():
    x = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0.5, 0.2, 1], [1, 1, 1]], np.float32).reshape(1, 5, 1, 3)
    found = luminance(x)
    assert (found.shape, found.dtype) == ((1, 5, 1, 1), np.float32)
    np.testing.assert_allclose(found.ravel(), [0.299, 0.587, 0.114, 0.1495 + 0.1174 + 0.114, 1], rtol=1e-6)
    np.testing.assert_allclose(luminance(colorize.threefold(found)), found, rtol=1e-6)  # what is grey stays so


def test_the_mean_colour_of_each_grey_level_by_hand():
    red, grey, white = (0.6, 0.2, 0.2), (0.3196, 0.3196, 0.3196), (1, 1, 1)  # red: 0.1794 + 0.1174 + 0.0228 = 0.3196
    x = np.array([red, grey, grey, white], np.float32).reshape(2, 1, 2, 3)
    found = colorize.palette(x)
    assert (found.shape, found.dtype) == ((256, 3), np.float32)
    level = round(0.3196 * 255)  # 81.498: 81
    mean = (np.array(red) + 2 * 0.3196) / 3
    np.testing.assert_allclose(found[level], mean, rtol=1e-5)
    np.testing.assert_allclose(found[0], mean, rtol=1e-5)  # below all known levels: the nearest
    np.testing.assert_allclose(found[255], white)
    np.testing.assert_allclose(found[168], (mean + 1) / 2, rtol=1e-5)  # half way from 81 to 255


def test_the_palette_is_the_same_in_parts():
    x = pictures(4100, 2, 2, 3)
    whole = np.rint(luminance(x)[..., 0] * 255).astype(int)
    for level in (70, 128, 200):
        np.testing.assert_allclose(colorize.palette(x)[level], x[whole == level].mean(axis=0), rtol=1e-4)


def test_relit_has_the_luminance_and_stays_a_picture():
    x, grey = pictures(9, 5, 4, 3), luminance(pictures(9, 5, 4, 3, seed=1))
    grey[0], grey[1] = 0, 1
    made = colorize.relit(frozen(x), frozen(grey))
    assert made.dtype == np.float32
    assert 0 <= made.min() <= made.max() <= 1
    np.testing.assert_allclose(luminance(made), grey, atol=2e-6)
    np.testing.assert_allclose(colorize.relit(x, luminance(x)), x, atol=1e-5)  # right already
    # By hand: red 0.4 above its luminance 0.3196 + 0.2804; at 0.9 there is room for 0.1 of the 0.2804 above.
    red = np.array([0.6, 0.2, 0.2], np.float32).reshape(1, 1, 1, 3)
    np.testing.assert_allclose(
        colorize.relit(red, np.full((1, 1, 1, 1), 0.9, np.float32)).ravel(),
        0.9 + (np.array([0.6, 0.2, 0.2]) - 0.3196) * 0.1 / 0.2804,
        rtol=1e-5,
    )


def test_chroma_is_the_distance_in_scikit_images_lab():
    target, output = pictures(3, 6, 5, 3), pictures(3, 6, 5, 3, seed=1)
    target[0] *= 0.05  # where both curves are straight
    output[0] *= 0.05
    far = np.linalg.norm(rgb2lab(target)[..., 1:] - rgb2lab(output)[..., 1:], axis=-1).mean(axis=(1, 2))
    np.testing.assert_allclose(colorize.chroma(target, output), far, rtol=1e-3)
    np.testing.assert_allclose(colorize.chroma(target, target), 0, atol=1e-4)
    light = colorize.threefold(luminance(target))
    np.testing.assert_allclose(colorize.chroma(light, 0.5 * light), 0, atol=0.01)  # lightness does not count


def task(**knobs):
    return colorize.Colorize(**{"keep_luminance": True, "examples": 4} | knobs)


def test_what_is_trained_on():
    x = frozen(pictures(3, 6, 5, 3))
    grey, target = task().pairs(lambda x, rng: x)(x, None)
    assert target is x
    np.testing.assert_array_equal(grey, np.repeat(luminance(x), 3, axis=-1))
    dark, _ = task().pairs(lambda x, rng: x / 2)(x, None)  # a corruption is of the grey image
    np.testing.assert_allclose(dark, grey / 2)


@pytest.mark.parametrize("output", ["image", "dict"])
def test_a_prediction_has_the_luminance_of_its_input(keras, output):
    x = pictures(3, 8, 8, 3)
    image = keras.Input((8, 8, 3))
    made = keras.layers.Conv2D(3, 3, padding="same", activation="sigmoid")(image)
    model = keras.Model(image, {"output": made, "code": made} if output == "dict" else made)
    found = task().predict(model, x)
    assert (found.shape, found.dtype) == (x.shape, np.float32)
    np.testing.assert_allclose(luminance(found), luminance(x), atol=2e-6)
    grey = colorize.threefold(luminance(x))
    np.testing.assert_allclose(task().predict(model, grey), found, atol=1e-6)  # the input's colours are not seen
    free = task(keep_luminance=False).predict(model, x)
    raw = model(grey)
    np.testing.assert_allclose(free, raw["output"] if output == "dict" else raw, atol=1e-6)
    np.testing.assert_allclose(found, colorize.relit(free, luminance(x)), atol=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_filter_can_be_asked_too(channels):
    x = pictures(2, 8, 8, channels)
    found = task().predict(component("model", "median")((8, 8, 3)), x)
    np.testing.assert_allclose(found, colorize.threefold(luminance(x)), atol=1e-6)


# ---- the command

WORDS = ("task=colorize", "dataset=photo_patches", "dataset.stride=32", "debug=fast", "tracking.log_model=false")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return folder_of(done(*WORDS, cwd=tmp_path_factory.mktemp("colorize")))


def test_what_a_run_leaves(finished):
    metrics = json.loads((finished / "metrics.json").read_text())
    names, beside = ("mse", "psnr", "ssim", "mae", "chroma"), ("", "_input", "_gain", "_palette")
    assert {k for k in metrics if k.startswith("test/")} == {f"test/{name}{part}" for name in names for part in beside}
    data = build(past.config(finished, [], []).dataset)
    palette = colorize.palette(data.train.x)
    np.testing.assert_array_equal(np.load(finished / "palette.npy"), palette)
    painted = palette[np.rint(luminance(data.test.x)[..., 0] * 255).astype(int)]
    errors = np.square(painted - data.test.x).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(pd.read_parquet(finished / "examples.parquet")["mse_palette"], errors, rtol=1e-4)
    assert metrics["test/mse_palette"] == pytest.approx(errors.mean(), rel=1e-4)
    assert metrics["test/mse_palette"] < metrics["test/mse_input"]
    assert {"examples.png", "grey_levels.png", "psnr_gain.png"} <= {p.name for p in finished.iterdir()}
    assert ">palette<" in (finished / "report.html").read_text()


def test_an_evaluation_has_the_mean_colours_of_the_run(finished, keras):
    """Of other training images the mean colours are others; the test images are the same."""
    stored.evaluate_run(finished, past.config(finished, ["dataset.validation=0.5"], []), [], None)
    (file,) = (finished / "evaluations").iterdir()
    again, first = (json.loads(f.read_text()) for f in (file, finished / "metrics.json"))
    assert again["test/mse_palette"] == pytest.approx(first["test/mse_palette"], rel=1e-6)


def test_a_grey_picture_of_ones_own_is_coloured(finished):
    home = finished.parent
    grey = (luminance(pictures(1, 32, 32, 3))[0, ..., 0] * 255).astype(np.uint8)
    Image.fromarray(grey).save(home / "grey.png")
    done("predict", f"run={finished}", "input=grey.png", "output=colour.png", cwd=home)
    made = np.asarray(Image.open(home / "colour.png"))
    assert made.shape == (32, 32, 3)
    assert np.abs(luminance(made.astype(np.float32))[..., 0] - grey).max() < 1
    Image.fromarray(grey[:20]).save(home / "small.png")
    said = complaint(run("predict", f"run={finished}", "input=small.png", "output=colour.png", cwd=home))
    assert said.startswith("small.png: images of (20, 32, 3), but the model takes (32, 32, 3)")
