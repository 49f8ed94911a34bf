"""Learning from noisy targets: what is trained on, what is tested on, and that no clean image is seen in between."""

from dataclasses import replace

import numpy as np
import pytest
from contract import component, pictures
from tensorflow.python.framework import config
from test_fit import Log

from aelab import backend, compose
from aelab.call import build
from aelab.data.load import load
from aelab.data.record import Split
from aelab.fit import fit
from aelab.run import optimizer
from aelab.tasks.denoise import Denoise, bias

WORDS = ("dataset=digits", "debug=fast", "dataset.limit=64", "fit.batch_size=32", "fit.epochs=2")
WORDS = (
    *WORDS,
    "model=vanilla",
    "model.bottleneck=4",
    "loss=[mse]",
    "metric=[mse]",
    "fit.deterministic=true",
    "fit.precision=float32",
)


def noisy():
    return Denoise(target="noisy", examples=1)


def test_the_target_is_another_corruption_of_the_same_image():
    x = pictures(400, 9, 9, 1)
    corrupt = component("corruption", "gaussian", level=0.3, clip=False)
    inputs, targets = noisy().pairs(corrupt)(x, np.random.default_rng(0))
    for found in (inputs, targets):
        assert (found - x).mean() == pytest.approx(0, abs=0.01)
        assert (found - x).std() == pytest.approx(0.3, rel=0.02)
    assert np.corrcoef((inputs - x).ravel(), (targets - x).ravel())[0, 1] == pytest.approx(0, abs=0.02)
    (same, clean) = Denoise(target="clean", examples=1).pairs(corrupt)(x, np.random.default_rng(0))
    np.testing.assert_array_equal(same, inputs)  # the two are compared on the same inputs
    assert clean is x


@pytest.fixture
def exact(keras):
    """Bit for bit the same sums."""
    yield
    config.disable_op_determinism()


def trained(target, turned, folder):
    """The weights after training with a corruption that leaves nothing of an image, on images or their negatives."""
    with compose.session():
        cfg = compose.compose([*WORDS, f"task.target={target}"], [compose.CONF])
    backend.prepare(cfg.seed, cfg.fit)
    data, _ = load(cfg.dataset, None)
    if turned:
        parts = {name: Split(1 - getattr(data, name).x, None) for name in ("train", "validation", "test")}
        data = replace(data, **parts)
    task, model = build(cfg.task), build(cfg.model, data.shape)
    folder.mkdir()
    noise = lambda x, rng: rng.random(x.shape, np.float32)  # noqa: E731
    fit(model, task, data, noise, cfg, lambda steps: optimizer(cfg, steps), Log(), folder)
    return np.concatenate([w.ravel() for w in model.get_weights()])


def test_no_clean_image_is_trained_or_chosen_with(exact, tmp_path):
    """What is trained depends on the images through their corruptions alone: of noise alone they do not matter."""
    found = {(t, n): trained(t, n, tmp_path / f"{t}-{n}") for t in ("noisy", "clean") for n in (False, True)}
    np.testing.assert_array_equal(found["noisy", False], found["noisy", True])
    assert np.abs(found["clean", False] - found["clean", True]).max() > 1e-3  # where they are seen, they do


def test_the_test_is_against_clean_images():
    x, task = pictures(6, 12, 12, 1), noisy()
    data = type("Data", (), {"test": Split(x, None)})
    cfg = type("Config", (), {"metric": {"mse": {"_target_": "aelab.ops.mse", "goal": "min"}}, "seed": 0})
    corrupt = component("corruption", "gaussian", level=0.3, clip=False)
    identity = type("Model", (), {"predict": staticmethod(lambda inputs: inputs)})
    result = task.test(identity, data, corrupt, cfg)
    np.testing.assert_array_equal(result.targets, x)
    assert not np.array_equal(result.inputs, x)


@pytest.mark.parametrize(
    ("choice", "knobs", "expected"),
    [
        ("gaussian", {"level": 0.4, "clip": True}, 0.4 / np.sqrt(2 * np.pi)),  # half of the noise is cut off
        ("gaussian", {"level": 0.4, "clip": False}, 0),
        ("salt_pepper", {"level": 0.5}, 0.25),  # of half of the black pixels every other one is white
    ],
)
def test_what_noise_adds_on_average(choice, knobs, expected):
    assert bias(component("corruption", choice, **knobs), 3) == pytest.approx(expected, abs=0.02)
