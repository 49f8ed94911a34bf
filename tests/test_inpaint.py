"""Image completion: masks, metrics of the hidden pixels alone, biharmonic inpainting, and task=inpaint."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from commands import done, folder_of, run
from contract import component, frozen, listed, node, pictures
from PIL import Image
from skimage.restoration import inpaint_biharmonic

from aelab import compose, declared, masks
from aelab.config import AelabError, ConfigError
from aelab.data.record import Split

MASKS = listed("mask")
METRICS = {name: node("metric", name) for name in ("psnr", "ssim", "mse", "mae")}


def drawn(choice, x, seed=0, **values):
    return component("mask", choice, **values)(frozen(x), np.random.default_rng(seed))


# ---- masks


@pytest.mark.parametrize("choice", MASKS)
@pytest.mark.parametrize("shape", [(28, 28, 1), (29, 31, 3)], ids=str)
class TestMasks:
    def test_hides_some_pixels_of_each_image_and_not_all(self, choice, shape):
        hidden = drawn(choice, pictures(40, *shape))
        assert hidden.shape == (40, *shape[:2], 1)
        assert hidden.dtype == bool
        counts = hidden.sum(axis=(1, 2, 3))
        assert 0 < counts.min() <= counts.max() < shape[0] * shape[1]

    def test_the_generator_alone_decides(self, choice, shape):
        one, two, other = (drawn(choice, pictures(40, *shape), seed) for seed in (1, 1, 2))
        np.testing.assert_array_equal(one, two)
        assert not np.array_equal(one, other)
        assert len({mask.tobytes() for mask in one}) > 1

    def test_its_kind_is_read_from_its_source(self, choice, shape):
        assert declared.kinds("mask", node("mask", choice)["_target_"]) == ("masked image",)


def test_a_block_is_a_whole_square_anywhere_inside():
    hidden = drawn("block", np.zeros((3000, 5, 7, 2), np.float32), size=3)[..., 0]
    high, wide = hidden.any(axis=2), hidden.any(axis=1)
    np.testing.assert_array_equal(hidden, high[:, :, None] & wide[:, None])
    assert set(high.sum(axis=1)) == set(wide.sum(axis=1)) == {3}
    places = pd.Series(list(zip(high.argmax(axis=1), wide.argmax(axis=1), strict=True))).value_counts()
    assert set(places.index) == {(i, j) for i in range(3) for j in range(5)}
    assert places.min() > 130  # of 200 expected
    # Whole, as high and wide are 3: so without gaps and inside.
    assert (np.diff(hidden.astype(int), axis=1) != 0).sum(axis=1).max() <= 2


def test_halves_by_hand():
    x = np.zeros((1, 3, 5, 1), np.float32)
    sides = {
        "left": ["##...", "##...", "##..."],
        "right": ["...##", "...##", "...##"],
        "top": ["#####", ".....", "....."],
        "bottom": [".....", ".....", "#####"],
    }
    expected = {side: np.array([[c == "#" for c in row] for row in rows]) for side, rows in sides.items()}
    for side, mask in expected.items():
        np.testing.assert_array_equal(drawn("half", x, side=side)[0, ..., 0], mask)
    found = [mask[..., 0].tobytes() for mask in drawn("half", x.repeat(2000, 0), side="any")]
    for mask in expected.values():
        assert found.count(mask.tobytes()) == pytest.approx(500, abs=80)


@pytest.mark.parametrize(("level", "count"), [(0.25, 9), (0.49, 17), (0.02, 1), (0.01, 0), (1, 35)])
def test_random_hides_a_whole_number_of_pixels_alike_in_all_places(level, count):
    hidden = drawn("random", np.zeros((4000, 5, 7, 3), np.float32), level=level)
    assert set(hidden.sum(axis=(1, 2, 3))) == {count}
    np.testing.assert_allclose(hidden.mean(axis=0), count / 35, atol=0.04)


# ---- the task's parts


def task(mask="random", biharmonic=False, shape=(6, 5, 1), metric=METRICS, **values):
    from aelab.tasks.inpaint import Inpaint

    made = Inpaint(examples=3, biharmonic=biharmonic)
    x = pictures(40, *shape)
    data = SimpleNamespace(
        test=Split(x, np.arange(40) % 2), shape=shape, label_names=("a", "b"), train=Split(x, None), kind="image"
    )
    cfg = SimpleNamespace(mask=node("mask", mask) | values, metric=metric, seed=0)
    return made, made.prepare(data, cfg), cfg


class Painter:
    """A model that answers with one grey for all pixels, and remembers what it was given."""

    def __init__(self, grey):
        self.grey = grey

    def predict(self, inputs):
        self.seen = inputs
        return np.full_like(inputs, self.grey)


@pytest.mark.parametrize("mask", MASKS)
def test_pixels_that_can_be_seen_are_never_changed(keras, mask):
    made, data, _ = task(mask, shape=(13, 15, 3))
    noisy = data.test.x * np.float32(0.5)
    inputs, target = made.pairs(lambda x, rng: x * np.float32(0.5))(data.test.x, np.random.default_rng(3))
    hidden = drawn(mask, data.test.x, 3)
    np.testing.assert_array_equal(target, data.test.x)
    np.testing.assert_array_equal(inputs, np.where(hidden, -1, noisy))
    model = Painter(1.5)
    filled = made.predict(model, inputs)
    assert filled.dtype == np.float32
    np.testing.assert_array_equal(filled, np.where(hidden, 1, noisy))  # clipped
    np.testing.assert_array_equal(model.seen, inputs)
    unknown = np.where(hidden & (np.arange(3) == 1), np.nan, noisy)  # one channel is enough
    np.testing.assert_array_equal(made.predict(model, unknown), filled)
    np.testing.assert_array_equal(model.seen, inputs)


def test_metrics_are_of_the_hidden_pixels_by_hand(keras):
    from aelab.tasks.inpaint import measured

    target = np.zeros((2, 2, 3, 2), np.float32)
    inputs, output = target.copy(), target.copy()
    inputs[0, 0, :2] = inputs[1, 1, 2] = -1  # two pixels of the first image, one of the second
    output[0, 0, 0] = [0.1, 0.2]
    output[0, 0, 1] = [0.3, 0.4]
    output[1, 1, 2] = [0.5, 0.5]
    output[:, 1, 0] = 0.9  # which can be seen, so it does not count
    found = measured({k: v for k, v in METRICS.items() if k != "ssim"}, inputs, target, output)
    np.testing.assert_allclose(found["mse"], [0.3 / 4, 0.25], rtol=1e-6)
    np.testing.assert_allclose(found["mae"], [0.25, 0.5], rtol=1e-6)
    np.testing.assert_allclose(found["psnr"], -10 * np.log10([0.3 / 4, 0.25]), rtol=1e-6)


def test_halves_of_two_sizes_are_each_measured_whole(keras):
    made, data, cfg = task("half", shape=(12, 21, 1))  # 120 or 126 pixels
    result = made.test(Painter(0.25), data, lambda x, rng: x, cfg)
    hidden = result.inputs[..., 0] < 0
    assert set(hidden.sum(axis=(1, 2))) == {120, 126}
    expected = [np.square(x[h] - 0.25).mean() for x, h in zip(data.test.x, hidden, strict=True)]
    np.testing.assert_allclose(result.examples["mse"], expected, rtol=1e-5)
    np.testing.assert_allclose(result.examples["psnr"], -10 * np.log10(expected), rtol=1e-5)
    assert result.metrics["test/mse"] == pytest.approx(np.mean(expected), rel=1e-5)
    ssim = component("metric", "ssim")(data.test.x, np.where(hidden[..., None], np.float32(0.25), data.test.x))
    np.testing.assert_allclose(result.examples["ssim"], ssim, rtol=1e-4)  # of the whole image


@pytest.mark.parametrize("mask", MASKS)
def test_the_loss_and_what_is_watched_are_of_the_hidden_pixels(keras, mask):
    from aelab.tasks.inpaint import measured

    made, data, _ = task(mask, shape=(13, 17, 2))
    inputs, target = made.pairs(lambda x, rng: x)(data.test.x, np.random.default_rng(0))
    output = pictures(*target.shape, seed=1)
    batch, outputs = SimpleNamespace(input=inputs, target=target), {"output": output}
    expected = measured({"psnr": METRICS["psnr"], "mse": METRICS["mse"]}, inputs, target, output)
    (name, function), *none = made.watch().items()
    assert (name, none) == ("psnr", [])
    np.testing.assert_allclose(function(batch, outputs), expected["psnr"], rtol=1e-4)
    np.testing.assert_allclose(component("loss", "hidden")(batch, outputs, None), np.log(expected["mse"]), rtol=1e-3)
    half = {"output": keras.ops.cast(output, "bfloat16")}
    assert keras.backend.standardize_dtype(component("loss", "hidden")(batch, half, None).dtype) == "float32"
    other = np.where(inputs < 0, output, 1 - output)
    again = component("loss", "hidden")(batch, {"output": other}, None)
    np.testing.assert_array_equal(again, component("loss", "hidden")(batch, outputs, None))


def test_without_psnr_nothing_is_watched(keras):
    assert task(metric={"mse": METRICS["mse"]})[0].watch() == {}


def test_a_model_that_gives_another_shape_is_told(keras):
    made, data, _ = task()
    with pytest.raises(AelabError, match=r"gives \(40, 6, 5\), but the images are \(40, 6, 5, 1\)"):
        made.predict(SimpleNamespace(predict=lambda x: x[..., 0]), data.test.x)


# ---- the baseline


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("channels", [1, 3])
def test_biharmonic_is_scikit_images(keras, mask, channels):
    x = pictures(4, 20, 17, channels)
    hidden = drawn(mask, x)
    inputs = np.where(hidden, masks.HIDDEN, x)
    got = component("model", "biharmonic")((20, 17, channels)).predict(frozen(inputs))
    expected = [inpaint_biharmonic(a, h[..., 0], channel_axis=-1) for a, h in zip(x, hidden, strict=True)]
    np.testing.assert_array_equal(got, expected)
    np.testing.assert_array_equal(np.where(hidden, 0, got), np.where(hidden, 0, x))


def test_biharmonic_goes_on_with_a_slope_and_stands_beside_each_metric(keras):
    ramp = np.linspace(0, 1, 20, dtype=np.float32)[None, None, :, None].repeat(20, 1)
    made, data, cfg = task("block", biharmonic=True, shape=(20, 20, 1), size=5)
    data.test = Split(ramp.repeat(3, 0), np.zeros(3, int))
    result = made.test(Painter(0.5), data, lambda x, rng: x, cfg)
    assert result.metrics["test/psnr_biharmonic"] > 60
    assert result.metrics["test/psnr_gain"] == pytest.approx(
        result.metrics["test/psnr"] - result.metrics["test/psnr_biharmonic"], rel=1e-5
    )
    assert result.metrics["test/mse_gain"] == pytest.approx(
        result.metrics["test/mse_biharmonic"] - result.metrics["test/mse"], rel=1e-5
    )
    assert set(made.figures(result, data)) == {"examples", "psnr", "psnr_gain", "psnr_by_class"}
    itself = task("block", biharmonic=True, shape=(20, 20, 1), size=5)[0]
    itself.prepare(data, cfg)
    alone = itself.test(component("model", "biharmonic")((20, 20, 1)), data, lambda x, rng: x, cfg)
    assert alone.metrics["test/psnr"] == result.metrics["test/psnr_biharmonic"]  # the same masks
    assert set(alone.metrics) == {f"test/{name}" for name in METRICS}


# ---- what is refused


@pytest.mark.parametrize(
    ("mask", "values", "said"),
    [
        ("random", {"level": 0.001}, r"mask.level=0.001: hides nothing of an image of 6 x 5 pixels; let it hide more"),
        ("random", {"level": 0.999}, r"mask.level=0.999: hides all of an image of 6 x 5 pixels; let it hide less"),
        ("block", {"size": 6}, r"mask.size=6: no such block fits into images of 6 x 5; take at most 5"),
    ],
)
def test_a_mask_that_does_not_fit_the_images(keras, mask, values, said):
    with pytest.raises(ConfigError, match=said):
        task(mask, **values)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("task=inpaint mask.size=0", "mask.size: expected a whole number at least 1, got 0"),
        ("task=inpaint mask=random mask.level=0", "mask.level: expected a number above 0 and at most 1, got 0"),
        ("task=inpaint mask=half mask.side=up", "mask.side: expected one of any, left, right, top, bottom, got 'up'"),
        ("task=inpaint mask=hole", "mask=hole: no such mask; there are: block, half, random"),
        ("mask=block", "mask=block: task=denoise takes none; leave it out"),
        ("model=biharmonic", "model=biharmonic: is for masked image data, but task=denoise takes image"),
        ("loss=[hidden]", "loss=hidden: is for masked image data, but task=denoise takes image"),
        ("task=inpaint model=dense_ae", "model=dense_ae: .* takes image or masked image; models that fit: biharmonic"),
    ],
)
def test_what_does_not_fit_is_refused(words, said):
    with compose.session(), pytest.raises(ConfigError, match=said):
        compose.compose(words.split(), [compose.CONF])


# ---- the command

FAST = ("task=inpaint", "dataset=digits", "tracking.log_model=false")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    cwd = tmp_path_factory.mktemp("inpaint")
    words = ("mask=half", "mask.side=left", "model=fully_connected", "model.hidden=[128]", "fit.epochs=4")
    return folder_of(done(*FAST, *words, "fit.steps_per_execution=4", "optimizer.learning_rate=0.01", cwd=cwd))


def test_a_run_learns_and_says_how_it_compares(folder):
    metrics, history = json.loads((folder / "metrics.json").read_text()), pd.read_csv(folder / "history.csv")
    expected = {f"test/{n}{part}" for n in METRICS for part in ("", "_biharmonic", "_gain")}
    assert {name for name in metrics if name.startswith("test/")} == expected
    assert metrics["test/psnr_gain"] > 4
    assert history["val/psnr"].max() == pytest.approx(metrics["test/psnr"], abs=0.7)
    examples = pd.read_parquet(folder / "examples.parquet")
    assert len(examples) == 359
    for name in ("examples", "psnr_gain", "psnr_by_class"):
        assert (folder / f"{name}.png").stat().st_size > 5000
    assert "by class" in (folder / "report.html").read_text()


def test_a_finished_run_on_another_mask(folder):
    done("evaluate", f"run={folder}", "mask=random", "mask.level=0.1", cwd=folder)
    (file,) = folder.glob("evaluations/*.json")
    found, before = json.loads(file.read_text()), json.loads((folder / "metrics.json").read_text())
    assert found["overrides"] == ["mask=random", "mask.level=0.1"]
    assert found["test/psnr_biharmonic"] > before["test/psnr_biharmonic"] + 5
    wrong = run("evaluate", f"run={folder}", "mask=hole", cwd=folder)
    assert (wrong.returncode, wrong.stderr) == (2, "aelab: mask=hole: no such mask; there are: block, half, random\n")


def test_images_of_ones_own(folder, tmp_path):
    """NaN in an array, transparent in a picture: both are filled alike, and the rest stays as it was."""
    grey = (255 * pictures(28, 28)).astype(np.uint8)
    clear = np.where(np.arange(28) < 14, 0, 255).astype(np.uint8)[None].repeat(28, 0)
    Image.fromarray(np.stack([grey, clear], axis=-1)).save(tmp_path / "holes.png")
    np.save(tmp_path / "holes.npy", np.where(clear, grey / np.float32(255), np.nan))
    done("predict", f"run={folder}", "input=holes.npy", "output=filled.npy", cwd=tmp_path)
    filled = np.load(tmp_path / "filled.npy")[0, ..., 0]
    np.testing.assert_array_equal(filled[:, 14:], grey[:, 14:] / np.float32(255))
    assert 0 <= filled.min() <= filled.max() <= 1
    done("predict", f"run={folder}", "input=holes.png", "output=filled.png", cwd=tmp_path)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "filled.png")), np.rint(255 * filled))
    np.save(tmp_path / "whole.npy", grey)
    wrong = run("predict", f"run={folder}", "input=whole.npy", "output=filled.npy", cwd=tmp_path)
    assert wrong.returncode == 1
    assert "whole.npy: no pixel is hidden; let hidden ones be NaN" in wrong.stderr
