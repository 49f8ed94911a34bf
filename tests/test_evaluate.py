"""The test of a model: names, values by hand, and the gain over doing nothing."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from contract import component, listed, node, pictures

from aelab import evaluate as module
from aelab.evaluate import evaluate, measure

IMAGE_METRICS = listed("metric", kind="image")
METRICS = {
    "mae": {"_target_": "aelab.ops.mae", "goal": "min"},
    "psnr": {"_target_": "aelab.ops.psnr", "goal": "max", "max_value": 1.0},
}
CLEAN = np.stack([np.full((4, 4, 1), v, np.float32) for v in (0.5, 0.6)])


class Restore:
    """A task of the least sort; the model is a function."""

    def pairs(self, corrupt, /):
        return lambda x, rng: (corrupt(x, rng), x)

    def predict(self, model, inputs, /):
        return model(inputs)


def darker(x, rng):
    return x - np.float32(0.1)


def test_names_and_values_by_hand():
    """Inputs are wrong by 0.1, outputs by 0.01: 0.09 less error, 20 dB more."""
    result = evaluate(
        Restore(), lambda x: x + np.float32(0.09), SimpleNamespace(x=CLEAN, y=np.array([3, 1])), darker, METRICS, 0
    )
    assert result.metrics == pytest.approx(
        {
            "test/mae": 0.01,
            "test/mae_input": 0.1,
            "test/mae_gain": 0.09,
            "test/psnr": 40,
            "test/psnr_input": 20,
            "test/psnr_gain": 20,
        },
        rel=1e-3,
    )
    assert all(type(value) is float for value in result.metrics.values())  # JSON takes nothing else
    names = [name.removeprefix("test/") for name in result.metrics]
    assert list(result.examples) == [*names, "label"]
    assert list(result.examples["label"]) == [3, 1]
    for name in names:
        assert result.examples[name].mean() == pytest.approx(result.metrics[f"test/{name}"], rel=1e-6)


def test_harm_is_a_negative_gain_whatever_the_goal():
    split = SimpleNamespace(x=CLEAN, y=None)
    result = evaluate(Restore(), lambda x: x - np.float32(0.1), split, darker, METRICS, 0)
    assert result.metrics["test/mae_gain"] == pytest.approx(-0.1, rel=1e-4)
    assert result.metrics["test/psnr_gain"] == pytest.approx(-20 * np.log10(2), rel=1e-3)
    assert "label" not in result.examples


def test_the_mean_of_psnr_is_over_images():
    """Errors of 0.1 and 0.01 are 20 and 40 dB: 30 on average, not the 22.97 dB of the average error."""
    split = SimpleNamespace(x=CLEAN, y=None)
    error = np.array([0.1, 0.01], np.float32).reshape(2, 1, 1, 1)
    result = evaluate(Restore(), lambda x: CLEAN + error, split, darker, METRICS, 0)
    assert result.metrics["test/psnr"] == pytest.approx(30, rel=1e-4)


def test_result_keeps_what_was_shown_to_the_model():
    split = SimpleNamespace(x=CLEAN, y=None)
    result = evaluate(Restore(), np.square, split, darker, METRICS, 0)
    np.testing.assert_array_equal(result.targets, CLEAN)
    np.testing.assert_array_equal(result.inputs, darker(CLEAN, None))
    np.testing.assert_array_equal(result.outputs, np.square(result.inputs))


def test_the_seed_fixes_the_noise_of_the_test():
    split = SimpleNamespace(x=pictures(5, 6, 6, 1), y=None)
    corrupt = component("corruption", "gaussian")

    def inputs(seed):
        np.random.seed(seed + 40)
        return evaluate(Restore(), np.asarray, split, corrupt, METRICS, seed).inputs

    np.testing.assert_array_equal(inputs(1), inputs(1))
    assert not np.array_equal(inputs(1), inputs(2))


@pytest.mark.parametrize("chunk", [1, 3, 7, 8])
def test_chunks_give_what_one_piece_gives(monkeypatch, chunk):
    targets, outputs = pictures(7, 12, 12, 1), pictures(7, 12, 12, 1, seed=1)
    functions = {name: component("metric", name) for name in IMAGE_METRICS}
    whole = measure(functions, targets, outputs)
    monkeypatch.setattr(module, "CELLS", chunk * 144)
    cut = measure(functions, targets, outputs)
    assert cut.keys() == whole.keys() == set(IMAGE_METRICS)
    for name, values in whole.items():
        assert values.shape == (7,)
        np.testing.assert_allclose(cut[name], values, rtol=1e-5, atol=1e-6)


def test_all_metrics_of_images_are_measured():
    metrics = {name: node("metric", name) for name in IMAGE_METRICS}
    split = SimpleNamespace(x=pictures(3, 12, 12, 1), y=None)
    result = evaluate(Restore(), np.asarray, split, component("corruption", "gaussian"), metrics, 0)
    assert {f"test/{name}{end}" for name in metrics for end in ("", "_input", "_gain")} == result.metrics.keys()
    gains = result.examples.filter(like="_gain")
    pd.testing.assert_frame_equal(gains, gains * 0, check_exact=True)  # doing nothing gains nothing
