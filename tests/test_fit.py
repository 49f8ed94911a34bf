"""Training: the objective, the batches, and what is watched while it trains."""

from types import SimpleNamespace

import keras
import numpy as np
import pandas as pd
import pytest
from contract import component, rebuilt, rows
from keras import layers, ops
from omegaconf import OmegaConf

from aelab import backend
from aelab.callbacks import Record, TrainingError
from aelab.fit import Batches, Objective, fit, stream

MSE = {"_target_": "aelab.losses.mse", "weight": 1.0}
MAE = {"_target_": "aelab.losses.mae", "weight": 0.5}
METRICS = {
    "mse": {"_target_": "aelab.ops.mse", "goal": "min"},
    "psnr": {"_target_": "aelab.ops.psnr", "goal": "max", "max_value": 1.0},
}
RNG = np.random.default_rng(0)
X = RNG.random((20, 4, 4, 1), np.float32)


class Restore:
    """The least that `fit` wants of a task."""

    by_example = True
    at_once = 512

    def batches(self, model, x, pairs, cfg):
        return Batches(x, pairs, cfg.fit.batch_size, cfg.seed)

    def pairs(self, corrupt, /):
        return lambda x, rng: (corrupt(x, rng), x)

    def held_out(self, validation):
        return validation

    def watch(self):
        return {}


class Search(Restore):
    """A task whose metrics are not of single examples, and that holds out normal rows alone."""

    by_example = False

    def held_out(self, validation):
        return SimpleNamespace(x=validation.x[validation.y == 0])


def half(x, rng):
    """A corruption without chance: learning to undo it is to learn to double."""
    return x / 2


def noise(x, rng):
    return x + rng.standard_normal(x.shape, np.float32)


class Log:
    """A tracker that remembers."""

    def __init__(self):
        self.writes = []

    def epochs(self, rows):
        self.writes.append([dict(row) for row in rows])

    @property
    def rows(self):
        return [row for written in self.writes for row in written]


def linear(start=1.0):
    """y = w x with one weight."""
    image = keras.Input((4, 4, 1))
    scale = layers.Conv2D(1, 1, use_bias=False, kernel_initializer=keras.initializers.Constant(start), dtype="float32")
    return keras.Model(image, scale(image))


def config(**settings):
    return OmegaConf.create(
        {
            "seed": 0,
            "loss": settings.pop("loss", {"mse": MSE}),
            "metric": settings.pop("metric", METRICS),
            "fit": {
                "epochs": 3,
                "batch_size": 8,
                "steps_per_execution": 1,
                "monitor": "val/loss",
                "patience": None,
                **settings,
            },
        }
    )


def train(folder, model, *, task=None, corrupt=half, optimizer=None, log=None, rows=X, held=None, **settings):
    data = SimpleNamespace(train=SimpleNamespace(x=rows), validation=held or SimpleNamespace(x=X[:5]))
    made = optimizer or (lambda steps: keras.optimizers.SGD(0.5))
    return fit(model, task or Restore(), data, corrupt, config(**settings), made, log or Log(), folder)


@pytest.fixture(autouse=True)
def clean():
    keras.config.set_dtype_policy("float32")
    keras.utils.set_random_seed(0)
    yield
    keras.config.set_dtype_policy("float32")


# ---- the objective


def objective(core, **terms):
    made = Objective(core, terms, METRICS)
    made.compile(optimizer=keras.optimizers.SGD(0.0))
    return made


def test_total_is_the_weighted_sum_of_the_means():
    got = objective(linear(), mse=MSE | {"weight": 2.0}, mae=MAE, off=MSE | {"weight": 0.0})
    logs = got.evaluate(X / 2, X, batch_size=20, verbose=0, return_dict=True)
    mse, mae = np.mean((X / 2) ** 2), np.mean(X / 2)  # the output is the input, half of the target
    assert logs["loss"] == pytest.approx(2 * mse + 0.5 * mae, rel=1e-5)
    assert logs["mean_mae"] == pytest.approx(mae, rel=1e-5)  # a term is logged without its weight
    assert logs["mean_off"] == pytest.approx(mse, rel=1e-5)  # and also where it counts nothing


def test_means_are_over_examples_whatever_the_batches():
    """20 rows in batches of 8, 8 and 4."""
    got = objective(linear(), mse=MSE, mae=MAE)
    whole, cut = (got.evaluate(X / 2, X, batch_size=n, verbose=0, return_dict=True) for n in (20, 8))
    for name, value in whole.items():
        assert cut[name] == pytest.approx(value, rel=1e-5), name


def test_losses_of_layers_are_added():
    class Penalty(layers.Layer):
        def call(self, x):
            self.add_loss(ops.convert_to_tensor(3.0))
            return x

    image = keras.Input((4, 4, 1))
    made = objective(keras.Model(image, Penalty()(image)), mse=MSE)
    assert made.evaluate(X, X, batch_size=20, verbose=0)[0] == pytest.approx(3.0)
    weight = layers.Conv2D(1, 1, kernel_initializer="ones", kernel_regularizer=keras.regularizers.L2(0.25))
    made = objective(keras.Model(image, weight(image)), mse=MSE)
    assert made.evaluate(X, X, batch_size=20, verbose=0)[0] == pytest.approx(0.25)


def test_a_core_may_give_several_outputs():
    image = keras.Input((4, 4, 1))
    core = keras.Model(image, {"output": image * 0.5, "code": image})
    logs = objective(core, mse=MSE).evaluate(X, X, batch_size=20, verbose=0, return_dict=True)
    assert logs["loss"] == pytest.approx(np.mean((X / 2) ** 2), rel=1e-5)


def test_losses_are_float32_under_bfloat16():
    """With 0.5 as output and 0.5 + 1/1024 as target the error is nothing in bfloat16."""
    keras.config.set_dtype_policy("mixed_bfloat16")
    image = keras.Input((4, 4, 1))
    core = keras.Model(image, layers.Conv2D(1, 1, kernel_initializer="ones")(image))
    assert core(X[:1]).dtype == "bfloat16"
    made = objective(core, mse=MSE)
    assert made.dtype_policy.name == "float32"
    half = np.full((2, 4, 4, 1), 0.5, np.float32)
    logs = made.evaluate(half, half + np.float32(1 / 1024), verbose=0, return_dict=True)
    assert logs["loss"] == pytest.approx(1024.0**-2, rel=1e-3)


# ---- the batches


def batches(seed=0, n=20, size=8, corrupt=noise):
    return Batches(X[:n], Restore().pairs(corrupt), size, seed)


def content(made, epoch):
    made.start(epoch)
    return [made[i] for i in range(len(made))]


@pytest.mark.parametrize(("n", "size", "sizes"), [(20, 8, [8, 8, 4]), (16, 8, [8, 8]), (3, 8, [3])])
def test_an_epoch_has_every_row_once(n, size, sizes):
    got = content(batches(n=n, size=size), 5)
    assert [len(target) for _, target in got] == sizes
    rows = np.concatenate([target for _, target in got])
    assert sorted(row.tobytes() for row in rows) == sorted(row.tobytes() for row in X[:n])


def test_seed_epoch_and_index_fix_a_batch():
    one, two = batches(), batches()
    content(one, 0)
    one.start(3), two.start(3)
    for i in (2, 0, 1):  # in any order, as Keras's workers may ask for them
        np.testing.assert_array_equal(one[i], two[i])


def test_order_and_noise_are_fresh_every_epoch_and_seed():
    first, second, other = content(batches(), 0), content(batches(), 1), content(batches(seed=1), 0)
    for another in (second, other):
        assert not np.array_equal(first[0][1], another[0][1])
    noises = [(noisy - clean).tobytes() for got in (first, second, other) for noisy, clean in got]
    assert len(set(noises)) == len(noises) == 9


def test_streams_are_independent():
    draws = {
        stream(name, seed, epoch, index).random()
        for name in ("order", "noise", "validation", "test")
        for seed in (0, 1)
        for epoch in (0, 1)
        for index in (0, 1)
    }
    assert len(draws) == 32


# ---- fit


def test_history_and_tracker_have_a_row_an_epoch(tmp_path):
    log = Log()
    history = train(tmp_path, linear(), loss={"mse": MSE, "mae": MAE}, log=log)
    assert list(history) == [
        "epoch",
        "train/loss",
        "train/mae",
        "train/mse",
        "val/loss",
        "val/mae",
        "val/mse",
        "val/psnr",
        "learning_rate",
        "time/epoch_s",
    ]
    assert list(history["epoch"]) == [1, 2, 3]
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "history.csv"), history)
    assert log.rows == history.to_dict("records")
    row = history.iloc[-1]
    assert row["val/loss"] == pytest.approx(row["val/mse"] + 0.5 * row["val/mae"], rel=1e-5)
    assert history["val/loss"].is_monotonic_decreasing  # it learns


def test_quick_epochs_reach_the_tracker_together(tmp_path, monkeypatch):
    """By this clock a write takes half an epoch, which is more than its share; the last ones must not be lost."""
    clock = iter(np.arange(1000, 2000, 0.2))
    monkeypatch.setattr("aelab.callbacks.time", SimpleNamespace(perf_counter=lambda: next(clock)))
    log = Log()
    history = train(tmp_path, linear(), log=log, epochs=9)
    assert log.rows == history.to_dict("records")
    assert len(log.rows) == 9
    assert 1 < len(log.writes) < 9
    assert all(log.writes)  # nothing is written twice, and no empty write is made


def test_a_quick_tracker_is_told_of_every_epoch_at_once(tmp_path):
    log = Log()
    train(tmp_path, linear(), log=log, epochs=4)
    assert [len(rows) for rows in log.writes] == [1, 1, 1, 1]


def test_a_record_writes_the_file_every_epoch(tmp_path):
    """Whatever waits for the tracker: a run that is killed keeps its rows."""
    record = Record(tmp_path / "history.csv", Log(), [])
    record.writing = np.inf  # never again
    objective(linear(), mse=MSE).fit(X / 2, X, epochs=3, verbose=0, callbacks=[record])
    assert list(pd.read_csv(tmp_path / "history.csv")["epoch"]) == [1, 2, 3]
    assert record.log.rows == []
    record.send()
    assert len(record.log.rows) == 3


def test_the_loss_of_validation_is_of_the_rows_held_out(tmp_path):
    held = SimpleNamespace(x=np.concatenate([X[:4], 100 * X[4:9]]), y=np.array([0] * 4 + [1, 2, 1, 1, 3]))
    model = linear(1.0)
    frozen = keras.optimizers.SGD(0.0)
    history = train(tmp_path, model, task=Search(), held=held, epochs=1, optimizer=lambda steps: frozen)
    assert history["val/loss"][0] == pytest.approx(np.mean((X[:4] / 2) ** 2), rel=1e-5)
    whole = train(tmp_path, model, held=held, epochs=1, optimizer=lambda steps: keras.optimizers.SGD(0.0))
    assert whole["val/loss"][0] == pytest.approx(np.mean((held.x / 2) ** 2), rel=1e-5)


def test_metrics_that_are_not_of_examples_wait_for_the_test(tmp_path):
    held = SimpleNamespace(x=X[:5], y=np.zeros(5, int))
    unfit = {"roc_auc": {"_target_": "aelab.metrics.roc_auc", "goal": "max"}}
    history = train(tmp_path, linear(), task=Search(), held=held, metric=unfit)
    assert [name for name in history if "/" in name] == [
        "train/loss",
        "train/mse",
        "val/loss",
        "val/mse",
        "time/epoch_s",
    ]
    with pytest.raises(TrainingError, match=r"val/roc_auc: no such value; there are: val/loss, val/mse$"):
        train(tmp_path, linear(), task=Search(), held=held, metric=unfit, monitor="val/roc_auc")


# ---- ensembles


def ensemble(*starts):
    image = keras.Input((4, 4, 1))
    members = [linear(start) for start in starts]
    return keras.Model(image, [{"output": member(image)} for member in members])


def test_the_loss_of_an_ensemble_is_the_mean_of_its_members(tmp_path):
    history = train(tmp_path, ensemble(1.0, 0.0, 4.0), epochs=1, batch_size=20, metric={})
    # Outputs x / 2, 0 and 2 x for the target x.
    assert history["train/loss"][0] == pytest.approx(np.mean(X**2) * (0.25 + 1 + 1) / 3, rel=1e-5)


def test_each_member_learns_as_it_would_alone(tmp_path):
    """The mean over three members has a third of the gradient for each."""
    starts, together = (1.0, 0.0, 3.0), ensemble(1.0, 0.0, 3.0)
    train(tmp_path, together, epochs=4, optimizer=lambda steps: keras.optimizers.SGD(0.3), metric={})
    for start, weight in zip(starts, together.get_weights(), strict=True):
        alone = linear(start)
        train(tmp_path, alone, epochs=4, optimizer=lambda steps: keras.optimizers.SGD(0.1), metric={})
        np.testing.assert_allclose(weight, alone.get_weights()[0], rtol=1e-4)
        assert weight.item() != start


@pytest.mark.parametrize(("choice", "loss"), [("dense_ae", {"mse": MSE}), ("vae", {"mse": MSE})])
def test_the_loss_of_every_member_of_a_dense_ensemble_falls(tmp_path, choice, loss):
    x = rows(400, 6)
    if choice == "vae":
        loss = loss | {"kl": {"_target_": "aelab.losses.kl", "weight": 0.01, "free_bits": 0.0, "whole": False}}
    model = component("model", choice, members=3, hidden=[16], bottleneck=3)((6,))
    before = [np.square(made["output"] - x).mean() for made in rebuilt(model, x)]
    held = SimpleNamespace(x=x[:50], y=np.zeros(50, int))
    history = train(
        tmp_path,
        model,
        task=Search(),
        corrupt=lambda x, rng: x,
        rows=x,
        held=held,
        optimizer=lambda steps: keras.optimizers.Adam(0.01),
        epochs=8,
        batch_size=50,
        loss=loss,
        metric={},
    )
    after = [np.square(made["output"] - x).mean() for made in rebuilt(model, x)]
    assert len(after) == 3
    assert all(late < 0.7 * early for early, late in zip(before, after, strict=True))
    assert len(set(after)) == 3
    assert np.isfinite(history.to_numpy()).all()


def test_a_loss_that_the_model_gives_nothing_for_is_an_error_that_names_it(tmp_path):
    kl = {"kl": {"_target_": "aelab.losses.kl", "weight": 1.0, "free_bits": 0.0, "whole": False}}
    with pytest.raises(TrainingError, match=r"^loss=kl: the model gives no 'mean', only output$"):
        train(tmp_path, linear(), loss=kl)


def test_one_step_by_hand(tmp_path):
    """One batch, output w x / 2, target x: d/dw mean((w x / 2 - x)^2) = mean(x^2) (w / 2 - 1) at learning rate 0.5."""
    model = linear(1.0)
    history = train(tmp_path, model, epochs=1, batch_size=20)
    assert history["train/loss"][0] == pytest.approx(np.mean((X / 2) ** 2), rel=1e-5)
    assert model.get_weights()[0].item() == pytest.approx(1 + 0.5 * 0.5 * np.mean(X**2), rel=1e-5)


@pytest.mark.parametrize("steps", [2, 3, 16])
def test_steps_per_execution_change_nothing(tmp_path, steps):
    one, several = linear(), linear()
    first = train(tmp_path, one, corrupt=noise, steps_per_execution=1)
    second = train(tmp_path, several, corrupt=noise, steps_per_execution=steps)
    assert one.get_weights()[0] != 1
    np.testing.assert_allclose(one.get_weights()[0], several.get_weights()[0], rtol=1e-6)
    pd.testing.assert_frame_equal(first.drop(columns="time/epoch_s"), second.drop(columns="time/epoch_s"))


def test_the_optimizer_learns_how_many_steps_there_will_be(tmp_path):
    asked = []

    def optimizer(steps):
        asked.append(steps)
        return keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.5, steps))

    history = train(tmp_path, linear(), optimizer=optimizer, epochs=2, batch_size=8)
    assert asked == [2 * 3]
    assert list(history["learning_rate"]) == pytest.approx([0.25, 0.0], abs=1e-6)  # half way down, and down


def two_optima(x, rng):
    """Validation, which has 5 rows, is best at w = 1.5; training, which has 20, goes on to w = 4."""
    return x / (1.5 if len(x) == 5 else 4)


def passing_by(tmp_path, model, **settings):
    def optimizer(steps):
        return keras.optimizers.SGD(1.0)

    return train(tmp_path, model, optimizer=optimizer, corrupt=two_optima, batch_size=20, **settings)


@pytest.mark.parametrize("monitor", ["val/loss", "val/psnr", "val/mse"])
def test_stops_early_and_keeps_the_best_weights(tmp_path, monitor):
    model = linear(1.0)
    history = passing_by(tmp_path, model, epochs=30, patience=2, monitor=monitor)
    best = history["val/mse"].idxmin()
    assert history["val/psnr"].idxmax() == best > 1
    assert len(history) == best + 1 + 2  # two without a better value
    left = (model.get_weights()[0].item() / 1.5 - 1) ** 2 * np.mean(X[:5] ** 2)
    assert left == pytest.approx(history["val/mse"][best], rel=1e-3)
    assert history.attrs == {"best": best + 1, "monitor": monitor, "earlier": 0.0}
    assert left < history["val/mse"].iloc[-1] / 2


def test_keeps_the_best_weights_without_stopping(tmp_path):
    stopped, whole = linear(1.0), linear(1.0)
    passing_by(tmp_path, stopped, epochs=12, patience=1)
    assert len(passing_by(tmp_path, whole, epochs=12, patience=None)) == 12
    np.testing.assert_array_equal(stopped.get_weights()[0], whole.get_weights()[0])


@pytest.mark.parametrize("monitor", ["val/ssim", "psnr", "train/loss", "val/"])
def test_an_unknown_monitor_is_an_error_that_lists_them(tmp_path, monitor):
    with pytest.raises(TrainingError) as error:
        train(tmp_path, linear(), loss={"mae": MAE}, monitor=monitor)
    expected = f"fit.monitor={monitor}: no such value; there are: val/loss, val/mae, val/mse, val/psnr"
    assert str(error.value) == expected


@pytest.mark.parametrize("steps", [1, 2])
def test_a_loss_that_is_not_finite_ends_training_with_advice(tmp_path, steps):
    def optimizer(_):
        return keras.optimizers.SGD(1e38)

    advice = r"the loss became (nan|inf) in epoch 1, step \d; try a lower optimizer\.learning_rate or fit\.precision="
    with pytest.raises(TrainingError, match=advice):
        train(tmp_path, linear(), optimizer=optimizer, steps_per_execution=steps)


def test_float16_scales_its_loss(tmp_path):
    """Gradients of 1e-8 are nothing in float16, unless the loss is scaled up first."""
    keras.config.set_dtype_policy("mixed_float16")
    image = keras.Input((4, 4, 1))
    model = keras.Model(image, layers.Conv2D(1, 1, use_bias=False, kernel_initializer="ones")(image))
    train(
        tmp_path,
        model,
        loss={"mse": MSE | {"weight": 1e-7}},
        optimizer=lambda steps: keras.optimizers.SGD(1e7),
        epochs=1,
        batch_size=20,
    )
    # As in test_one_step_by_hand, with a learning rate of 1.
    assert model.get_weights()[0].item() == pytest.approx(1 + 0.5 * np.mean(X**2), rel=0.02)


def test_an_estimator_is_fitted_on_the_training_rows(tmp_path):
    seen = []
    history = train(tmp_path, SimpleNamespace(fit=seen.append))
    assert len(history) == 0
    np.testing.assert_array_equal(seen[0], X)
    assert len(train(tmp_path, SimpleNamespace(predict=None))) == 0  # and one with nothing to fit is left alone


def test_no_epochs_train_nothing(tmp_path):
    model = linear(1.5)
    assert len(train(tmp_path, model, epochs=0)) == 0
    assert model.get_weights()[0].item() == 1.5


# ---- schedules


def test_schedules_by_hand():
    """Half a cosine: at 1/4, 1/2 and all of the way 0.854, 0.5 and 0 of the peak; before it, a line."""

    def rates(name, steps, at, **values):
        schedule = component("schedule", name, **values)(0.2, steps)
        return [float(schedule(step) if callable(schedule) else schedule) for step in at]

    quarter = (1 + np.cos(np.pi / 4)) / 2
    expected = [0.2, 0.2 * quarter, 0.1, 0, 0]
    assert rates("cosine", 100, [0, 25, 50, 100, 120]) == pytest.approx(expected, abs=1e-6)
    assert rates("cosine", 100, [50, 100], final=0.5) == pytest.approx([0.15, 0.1], abs=1e-6)
    expected = [0, 0.1, 0.2, 0.1, 0]
    assert rates("warmup_cosine", 100, [0, 10, 20, 60, 100], warmup=0.2) == pytest.approx(expected, abs=1e-6)
    assert rates("constant", 100, [0, 99]) == [0.2, 0.2]
    assert rates("warmup_cosine", 1, [0]) == pytest.approx([0.2])  # too few steps to warm up in


# ---- precision


def test_auto_precision_follows_the_processor(monkeypatch):
    monkeypatch.setattr(backend.tf.config, "list_physical_devices", lambda kind: [])
    for flags, expected in (
        ({"avx512_bf16"}, "mixed_bfloat16"),
        ({"amx_bf16"}, "mixed_bfloat16"),
        ({"avx2"}, "float32"),
    ):
        monkeypatch.setattr(backend, "cpu_flags", lambda flags=flags: frozenset(flags))
        assert backend.precision("auto") == expected
        assert backend.precision("float32") == "float32"


def test_auto_precision_follows_the_gpu(monkeypatch):
    gpu = SimpleNamespace(name="gpu")
    monkeypatch.setattr(backend.tf.config, "list_physical_devices", lambda kind: [gpu])
    for capability, expected in (((9, 0), "mixed_bfloat16"), ((7, 5), "float32")):
        details = {"compute_capability": capability}
        monkeypatch.setattr(backend.tf.config.experimental, "get_device_details", lambda gpu, details=details: details)
        assert backend.precision("auto") == expected


def test_prepare_sets_seed_and_policy():
    settings = SimpleNamespace(deterministic=False, precision="mixed_bfloat16")
    draws = []
    for seed in (1, 1, 2):
        assert backend.prepare(seed, settings) == "mixed_bfloat16"
        assert keras.config.dtype_policy().name == "mixed_bfloat16"
        draws.append(float(keras.random.uniform(())))
    assert draws[0] == draws[1] != draws[2]
