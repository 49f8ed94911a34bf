import keras
import numpy as np
import pytest
import tensorflow as tf
from contract import CodeLossContract, LossContract, MetricContract, component, listed, pictures, reads, rows
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import rel_entr
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from sklearn.metrics import log_loss

from aelab import losses, ops

TARGET = np.array([[0, 0.5, 1, 0.25], [0.2, 0.2, 0.2, 0.2]], np.float32).reshape(2, 2, 2, 1)
OUTPUT = np.array([[0, 0.25, 0.5, 0.5], [0.3, 0.3, 0.3, 0.3]], np.float32).reshape(2, 2, 2, 1)
SSIM = {"max_value": 1.0, "window": 11, "sigma": 1.5}


RANKING = [name for name in listed("loss", kind="interactions") if name not in listed("loss", kind="table")]
OF_TEXT = listed("loss", kind="text")
OF_TEXT += listed("loss", kind="labelled images") + listed("loss", kind="masked image")  # test_inpaint
COMPARING = [name for name in listed("loss") if reads(name) == {"output"} and name not in OF_TEXT]
OF_MODEL = ["contractive"]  # test_reconstruct
CODE = [name for name in listed("loss") if "output" not in reads(name) and name not in RANKING + OF_MODEL + OF_TEXT]


@pytest.mark.parametrize("choice", COMPARING)
class TestLosses(LossContract):
    pass


@pytest.mark.parametrize("choice", CODE)
class TestCodeLosses(CodeLossContract):
    pass


@pytest.mark.parametrize("choice", listed("metric", kind="image"))
class TestMetrics(MetricContract):
    pass


def test_every_loss_and_metric_is_under_a_contract():
    assert sorted(COMPARING + CODE + RANKING + OF_TEXT + OF_MODEL) == listed("loss")  # test_recommend, test_language
    assert {"kl", "sparsity"} <= set(CODE)
    kinds = ("image", "table", "interactions", "text")  # test_ranking, test_language
    assert sorted(name for kind in kinds for name in listed("metric", kind=kind)) == listed("metric")


@pytest.mark.parametrize(
    ("got", "expected"),
    [
        (ops.mse(TARGET, OUTPUT), [(0.0625 + 0.25 + 0.0625) / 4, 0.01]),
        (ops.mae(TARGET, OUTPUT), [(0.25 + 0.5 + 0.25) / 4, 0.1]),
        (ops.psnr(TARGET, OUTPUT, max_value=1.0), [10 * np.log10(1 / 0.09375), 20]),
        (ops.psnr(TARGET, OUTPUT, max_value=10.0), [20 + 10 * np.log10(1 / 0.09375), 40]),
        (ops.charbonnier(TARGET * 0, TARGET * 0 + 0.3, epsilon=0.4), [0.5, 0.5]),  # sqrt(0.09 + 0.16)
        (ops.charbonnier(TARGET, TARGET, epsilon=0.4), [0.4, 0.4]),
        (ops.bce(TARGET[:1] * 0 + 1, TARGET[:1] * 0 + 0.25), [np.log(4)]),
        (ops.bce(TARGET[:1] * 0 + 0.5, TARGET[:1] * 0 + 0.5), [np.log(2)]),
        (ops.bce(TARGET[:1] * 0 + 1, TARGET[:1] * 0), [7 * np.log(10)]),  # clipped at 1e-7
    ],
)
def test_by_hand(got, expected):
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_bce_against_scikit_learn():
    labels, p = np.random.default_rng(0).integers(0, 2, (5, 6)), pictures(5, 6, seed=1) * 0.98 + 0.01
    expected = [log_loss(t, q, labels=[0, 1]) for t, q in zip(labels, p, strict=True)]
    np.testing.assert_allclose(ops.bce(labels.astype(np.float32), p), expected, rtol=1e-5)


def test_bce_of_grey_is_the_divergence_above_its_entropy():
    t, p = pictures(3, 8, seed=0) * 0.9 + 0.05, pictures(3, 8, seed=1) * 0.9 + 0.05
    above = rel_entr(t, p) + rel_entr(1 - t, 1 - p)
    np.testing.assert_allclose(np.array(ops.bce(t, p)) - ops.bce(t, t), above.mean(1), atol=1e-6)


def test_log_mse_is_the_psnr_on_another_scale():
    batch = type("Batch", (), {"target": TARGET})
    expected = -np.log(10) / 10 * np.array(ops.psnr(TARGET, OUTPUT, max_value=1.0))
    np.testing.assert_allclose(losses.log_mse(batch, {"output": OUTPUT}, None), expected, rtol=1e-6)


def of_codes(choice, target, outputs, **values):
    batch = type("Batch", (), {"target": np.asarray(target, np.float32)})
    outputs = {name: np.asarray(value, np.float32) for name, value in outputs.items()}
    return np.array(component("loss", choice, **values)(batch, outputs, None))


def test_kl_by_hand():
    """KL(N(m, s^2) || N(0, 1)) = (m^2 + s^2 - ln s^2 - 1) / 2: 2 nats at m = 2, and 0 at the prior itself."""
    outputs = {"mean": [[2, 0], [0, 1], [0, 0]], "log_variance": [[0, 0], [np.log(4), 0], [0, 0]]}
    wide = (4 - np.log(4) - 1) / 2
    expected = np.array([2, wide + 0.5, 0])
    np.testing.assert_allclose(of_codes("kl", np.ones((3, 5)), outputs), expected / 5, atol=1e-6)  # 5 features
    np.testing.assert_allclose(of_codes("kl", np.ones((3, 2, 3, 1)), outputs), expected / 6, atol=1e-6)
    free = of_codes("kl", np.ones((3, 5)), outputs, free_bits=0.7, whole=False)
    np.testing.assert_allclose(free, np.array([2 + 0.7, wide + 0.7, 1.4]) / 5, atol=1e-6)


def test_kl_is_what_draws_tell():
    """The mean of ln q(z) - ln p(z) over draws z of q."""
    rng = np.random.default_rng(0)
    mean, log_variance = np.array([[0.7, -1.2]]), np.array([[0.5, -1.0]])
    z = mean + np.exp(log_variance / 2) * rng.standard_normal((200_000, 2))
    ratio = (z**2 - (z - mean) ** 2 / np.exp(log_variance) - log_variance).sum(axis=1) / 2
    got = of_codes("kl", np.ones((1, 1)), {"mean": mean, "log_variance": log_variance})
    assert got[0] == pytest.approx(ratio.mean(), rel=0.01)


def test_sparsity_by_hand():
    got = of_codes("sparsity", np.ones((2, 9)), {"code": [[1, -2, 0, 5], [0, 0, 0, 0.5]]})
    np.testing.assert_allclose(got, [2, 0.125])


@pytest.mark.parametrize("choice", ["mse", "mae", "charbonnier", "log_mse"])
def test_a_row_of_a_table_is_an_image_of_one_row(choice):
    """Losses of images that hold for tables too."""
    x, y = rows(4, 6), rows(4, 6, seed=1)
    as_image = of_codes(choice, x.reshape(4, 2, 3, 1), {"output": y.reshape(4, 2, 3, 1)})
    np.testing.assert_allclose(of_codes(choice, x, {"output": y}), as_image, rtol=1e-6)


def test_psnr_of_identical_images_is_100():
    np.testing.assert_allclose(ops.psnr(TARGET, TARGET, max_value=1.0), [100, 100])
    almost = TARGET + np.float32(1e-6)
    np.testing.assert_allclose(ops.psnr(TARGET, almost, max_value=1.0), [100, 100])


def noisy(x, level, seed=9):
    noise = level * np.random.default_rng(seed).standard_normal(x.shape)
    return np.clip(x + noise, 0, 1).astype(np.float32)


@pytest.mark.parametrize("shape", [(28, 28, 1), (29, 17, 3), (11, 11, 1)])
@pytest.mark.parametrize("level", [0.02, 0.5])
def test_psnr_and_ssim_against_tensorflow(shape, level):
    x = keras.ops.convert_to_numpy(tf.image.resize(pictures(6, 8, 8, shape[-1]), shape[:2]))  # smooth, as pictures are
    y = noisy(x, level)
    np.testing.assert_allclose(ops.ssim(x, y, **SSIM), tf.image.ssim(x, y, 1.0), atol=1e-5)
    np.testing.assert_allclose(ops.psnr(x, y, max_value=1.0), tf.image.psnr(x, y, 1.0), atol=1e-4)


@pytest.mark.parametrize("sigma", [1.5, 0.8])
def test_psnr_and_ssim_against_scikit_image(sigma):
    x = pictures(4, 24, 21, 1)
    y = noisy(x, 0.1)
    # scikit-image cuts its window at 3.5 sigma, and takes the mean where the window lies inside the image: so do we.
    window = 2 * int(3.5 * sigma + 0.5) + 1
    knobs = {"gaussian_weights": True, "sigma": sigma, "use_sample_covariance": False, "data_range": 1.0}
    expected = [structural_similarity(a[..., 0], b[..., 0], **knobs) for a, b in zip(x, y, strict=True)]
    got = ops.ssim(x, y, max_value=1.0, window=window, sigma=sigma)
    np.testing.assert_allclose(got, expected, atol=1e-5)
    expected = [peak_signal_noise_ratio(a, b, data_range=1.0) for a, b in zip(x, y, strict=True)]
    np.testing.assert_allclose(ops.psnr(x, y, max_value=1.0), expected, atol=1e-4)


def test_ssim_of_flat_images_by_hand():
    """Without variance SSIM is its luminance term: (2 a b + c1) / (a^2 + b^2 + c1) with c1 = 0.01^2."""
    grey = [np.full((1, 12, 12, 1), v, np.float32) for v in (0.2, 0.6)]
    np.testing.assert_allclose(ops.ssim(*grey, **SSIM), [(0.24 + 1e-4) / (0.4 + 1e-4)], atol=1e-4)


def test_ssim_scales_with_the_largest_value():
    x, y = pictures(2, 16, 16, 1), pictures(2, 16, 16, 1, seed=1)
    whole = ops.ssim(255 * x, 255 * y, max_value=255.0, window=11, sigma=1.5)
    np.testing.assert_allclose(whole, ops.ssim(x, y, **SSIM), atol=1e-5)


@pytest.mark.parametrize("shape", [(10, 28, 1), (28, 10, 1)])
def test_ssim_says_which_size_it_needs(shape):
    x = pictures(2, *shape)
    with pytest.raises(ValueError, match="SSIM needs images of at least 11 pixels a side, got 10"):
        ops.ssim(x, x, **SSIM)


@given(seed=st.integers(0, 99), level=st.floats(0, 1), gain=st.floats(0.1, 1))
@settings(max_examples=25)
def test_properties(seed, level, gain):
    x = pictures(2, 13, 12, 1, seed=seed)
    y = noisy(x, level, seed)
    mse, mae, ssim = (np.array(v) for v in (ops.mse(x, y), ops.mae(x, y), ops.ssim(x, y, **SSIM)))
    assert (mae**2 <= mse + 1e-6).all()  # Jensen
    assert (mse <= mae + 1e-6).all()  # errors are at most 1
    assert (np.abs(ssim) <= 1 + 1e-5).all()
    np.testing.assert_allclose(ops.ssim(y, x, **SSIM), ssim, atol=1e-5)
    np.testing.assert_allclose(ops.mse(gain * x, gain * y), gain**2 * mse, rtol=1e-3, atol=1e-7)
    flipped = np.array(ops.ssim(x[:, ::-1], y[:, ::-1], **SSIM))
    np.testing.assert_allclose(flipped, ssim, atol=1e-5)


def test_sums_are_never_taken_in_half_precision():
    """In bfloat16 1 + 1/512 is 1, so its mean squared error would be 0."""
    x = np.full((1, 12, 12, 1), 0.5, np.float32)
    y = keras.ops.cast(x, "bfloat16")
    np.testing.assert_allclose(ops.mse(x + np.float32(1 / 512), y), [1 / 512**2], rtol=1e-4)
    assert ops.mse(x.astype(np.float64), x.astype(np.float64)).dtype == "float64"
