"""Suites that a component gets for three lines.

`DataContract`: a subclass says how to load a small data set. The others take their components from the listing of
conf/, with the values that stand there: a new YAML brings its component under test.
"""

import ast
from types import SimpleNamespace

import numpy as np
import pytest
from omegaconf import OmegaConf

from aelab import archive, check, compose, declared
from aelab.call import bound


def listed(group, kind=None):
    """The choices of a group that name a component; of one kind of input where a kind is given."""
    found = {name: compose.target(file) for name, file in compose.choices(group, [compose.CONF]).items()}
    return [
        name
        for name, target in found.items()
        if target and (kind is None or kind in (declared.kinds(group, target) or ()))
    ]


def node(group, name):
    """The YAML of a choice: `_target_` and values, with the run's seed 0."""
    found = OmegaConf.to_container(OmegaConf.load(compose.CONF / group / f"{name}.yaml"))
    found = (
        found[name] if group in check.SEVERAL else found.get(group, found)
    )  # of a YAML that sets more than its group
    return {k: 0 if v == "${seed}" else v for k, v in found.items()}


def component(group, name, **values):
    """The function of a choice, its YAML's values filled in; the group's own keys left out."""
    knobs = {k: v for k, v in (node(group, name) | values).items() if k not in check.GROUP_KEYS.get(group, ())}
    return bound(knobs)


def pictures(*shape, seed=0):
    """Images with dark, bright and mid-grey places, float32 in [0, 1]."""
    x = np.random.default_rng([7, seed]).random(shape, np.float32) * 1.4 - 0.2  # no corruption draws this stream
    return np.clip(x, 0, 1)


def rows(n, d, seed=0):
    """Prepared rows of a table, float32, whose features go together in part."""
    rng = np.random.default_rng([8, seed])
    x = rng.standard_normal((n, d)) + rng.standard_normal((n, 1))
    return x.astype(np.float32)


def frozen(x):
    """An array that fails loudly when it is written to."""
    x.flags.writeable = False
    return x


class DataContract:
    """What every image data set promises. A subclass gives `load(**knobs)`: small, no duplicate images."""

    kind = "image"

    def load(self, **knobs):
        raise NotImplementedError

    def test_splits_are_float32_images_between_0_and_1(self):
        data = self.load()
        assert data.kind == self.kind
        for split in (data.train, data.validation, data.test):
            assert len(split) == len(split.x) > 0
            assert split.x.dtype == np.float32
            assert split.x.shape[1:] == data.shape
            assert len(data.shape) == 3
            assert np.isfinite(split.x).all()
            assert 0 <= split.x.min() < split.x.max() <= 1

    def test_labels_count_into_their_names(self):
        data = self.load()
        splits = (data.train, data.validation, data.test)
        if not data.label_names:
            assert all(split.y is None for split in splits)
            return
        for split in splits:
            assert split.y.dtype == np.int64
            assert split.y.shape == (len(split),)
        assert set(np.concatenate([split.y for split in splits])) == set(range(len(data.label_names)))

    def test_no_image_is_in_two_splits(self):
        data = self.load()
        rows = [x.tobytes() for split in (data.train, data.validation, data.test) for x in split.x]
        assert len(set(rows)) == len(rows)

    def test_same_seed_same_data(self):
        one, two = self.load(), self.load()
        assert one.fingerprint == two.fingerprint
        assert len(one.fingerprint) == 64
        for part in ("train", "validation", "test"):
            np.testing.assert_array_equal(getattr(one, part).x, getattr(two, part).x)

    def test_another_seed_cuts_other_validation_rows_of_the_same_data(self):
        one, two = self.load(seed=1), self.load(seed=2)
        assert one.fingerprint == two.fingerprint
        assert len(one.validation) == len(two.validation)
        assert not np.array_equal(one.validation.x, two.validation.x)

    def test_limit_bounds_every_split_after_the_cut(self):
        whole, few = self.load(), self.load(limit=3)
        assert few.fingerprint == whole.fingerprint
        for part in ("train", "validation", "test"):
            split, rows = getattr(few, part), {x.tobytes() for x in getattr(whole, part).x}
            assert len(split) == min(3, len(rows))
            assert {x.tobytes() for x in split.x} <= rows

    def test_says_where_it_comes_from(self):
        data = self.load()
        assert data.name
        assert data.source
        assert data.licence


def restore(model, x):
    """What a model, Keras or not, makes of images, as NumPy gives it."""
    outputs = model(x, training=False) if hasattr(model, "count_params") else model.predict(x)
    outputs = outputs["output"] if isinstance(outputs, dict) else outputs
    return outputs.numpy() if hasattr(outputs, "numpy") else outputs


def assert_a_step_lowers_the_loss(model, x):
    """One step down the gradient, as long as should take 2 % of the squared error away, takes some of it away."""
    import tensorflow as tf

    def loss():
        outputs = model(x, training=False)
        members = outputs if isinstance(outputs, list | tuple) else [outputs]
        found = [m["output"] if isinstance(m, dict) else m for m in members]
        return sum(tf.reduce_mean(tf.square(output - x)) for output in found)

    with tf.GradientTape() as tape:
        before = loss()
    weights = model.trainable_weights
    gradients = tape.gradient(before, [w.value for w in weights], unconnected_gradients="zero")
    size = 0.02 * before / sum(tf.reduce_sum(tf.square(g)) for g in gradients)
    for weight, gradient in zip(weights, gradients, strict=True):
        weight.assign_sub(size * gradient)
    assert np.isfinite(loss())
    assert loss() < before


class ModelContract:
    """What every model that takes images promises, trained or not, for grey images and for colour ones of odd sides."""

    SHAPES = ((28, 28, 1), (29, 31, 3))

    @pytest.fixture(params=SHAPES, ids=str)
    def shape(self, request):
        return request.param

    def test_output_is_an_image_of_the_input_shape(self, keras, choice, shape):
        x = np.concatenate([pictures(2, *shape), np.zeros((1, *shape)), np.ones((1, *shape))]).astype(np.float32)
        outputs = restore(component("model", choice)(shape), frozen(x))
        assert outputs.shape == x.shape
        assert outputs.dtype == np.float32
        assert outputs.min() >= -1e-6
        assert outputs.max() <= 1 + 1e-6

    def test_an_output_depends_on_its_own_input_alone(self, keras, choice):
        model, x = component("model", choice)((28, 28, 1)), pictures(3, 28, 28, 1)
        np.testing.assert_allclose(restore(model, x)[1:2], restore(model, x[1:2]), atol=1e-5)

    def test_its_kind_is_read_from_its_source(self, choice):
        assert declared.kinds("model", node("model", choice)["_target_"])[0] == "image"


class TrainedModelContract(ModelContract):
    """What every Keras model promises besides."""

    def test_output_stays_float32_and_in_range_under_bfloat16(self, keras, choice, shape):
        keras.config.set_dtype_policy("mixed_bfloat16")
        model = component("model", choice)(shape)
        outputs = restore(model, pictures(2, *shape))
        assert {w.dtype for w in model.weights} == {"float32"}
        assert {layer.compute_dtype for layer in model.layers if layer.weights} >= {"bfloat16"}
        assert outputs.dtype == np.float32
        assert 0 <= outputs.min() <= outputs.max() <= 1

    def test_survives_a_file(self, keras, choice, shape, tmp_path):
        model, x = component("model", choice)(shape), pictures(2, *shape)
        model.save(tmp_path / "model.keras")
        from aelab import backend

        again = backend.restored(tmp_path / "model.keras")
        np.testing.assert_allclose(restore(again, x), restore(model, x), atol=1e-6)

    def test_gradient_reaches_every_weight(self, keras, choice, shape):
        import tensorflow as tf

        model, x = component("model", choice)(shape), pictures(8, *shape)
        with tf.GradientTape() as tape:
            outputs = model(x, training=True)
            outputs = outputs["output"] if isinstance(outputs, dict) else outputs
            loss = tf.reduce_mean(tf.square(outputs - x))
        gradients = tape.gradient(loss, [w.value for w in model.trainable_weights])
        for weight, gradient in zip(model.trainable_weights, gradients, strict=True):
            assert gradient is not None, weight.path
            assert np.isfinite(gradient).all(), weight.path
            assert np.any(gradient), weight.path

    @pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
    def test_a_step_lowers_the_loss(self, keras, choice, policy):
        keras.config.set_dtype_policy(policy)
        dark = pictures(4, 28, 28, 1) ** 4  # or there is little to learn: an output begins in the middle
        assert_a_step_lowers_the_loss(component("model", choice)((28, 28, 1)), dark)

    def test_the_seed_fixes_its_weights(self, keras, choice):
        def weights(seed):
            keras.utils.set_random_seed(seed)
            return np.concatenate([w.numpy().ravel() for w in component("model", choice)((28, 28, 1)).weights])

        one, two, other = weights(1), weights(1), weights(2)
        np.testing.assert_array_equal(one, two)
        assert not np.array_equal(one, other)


def rebuilt(model, x, **keywords):
    """What each member of a Keras model makes of rows: a list of dicts of NumPy arrays."""
    outputs = model(x, **keywords)
    members = outputs if isinstance(outputs, list | tuple) else [outputs]
    return [{name: value.numpy() for name, value in member.items()} for member in members]


class RowModelContract:
    """What every Keras model that takes rows of a table promises, for few features and for more than it has units."""

    SHAPES = ((3,), (150,))

    @pytest.fixture(params=SHAPES, ids=str)
    def shape(self, request):
        return request.param

    def test_gives_a_row_and_a_code(self, keras, choice, shape):
        x = np.concatenate([rows(4, *shape), np.zeros((1, *shape)), np.full((1, *shape), -60)]).astype(np.float32)
        (outputs,) = rebuilt(component("model", choice)(shape), frozen(x))
        assert outputs["output"].shape == x.shape
        assert outputs["code"].shape == (len(x), node("model", choice)["bottleneck"])
        for value in outputs.values():
            assert value.dtype == np.float32
            assert np.isfinite(value).all()

    def test_an_output_depends_on_its_own_row_alone(self, keras, choice, shape):
        model, x = component("model", choice)(shape), rows(5, *shape)
        (whole,), (alone,) = rebuilt(model, x), rebuilt(model, x[1:2])
        for name, value in whole.items():
            np.testing.assert_allclose(value[1:2], alone[name], atol=1e-5)
            assert not np.array_equal(value[1], value[2])

    def test_its_kind_is_read_from_its_source(self, choice):
        assert declared.kinds("model", node("model", choice)["_target_"]) == ("table",)

    @pytest.mark.parametrize("members", [1, 3])
    def test_outputs_stay_float32_under_bfloat16(self, keras, choice, members):
        keras.config.set_dtype_policy("mixed_bfloat16")
        model = component("model", choice, members=members)((7,))
        assert {w.dtype for w in model.weights} == {"float32"}
        assert {layer.compute_dtype for layer in model.layers if layer.weights} >= {"bfloat16"}
        made = rebuilt(model, rows(4, 7))
        assert {value.dtype.name for outputs in made for value in outputs.values()} == {"float32"}

    @pytest.mark.parametrize("members", [1, 3])
    def test_survives_a_file(self, keras, choice, members, tmp_path):
        model, x = component("model", choice, members=members)((7,)), rows(4, 7)
        model.save(tmp_path / "model.keras")
        from aelab import backend

        again = backend.restored(tmp_path / "model.keras")
        for one, other in zip(rebuilt(model, x), rebuilt(again, x), strict=True):
            assert one.keys() == other.keys()
            for name, value in one.items():
                np.testing.assert_allclose(other[name], value, atol=1e-6)

    @pytest.mark.parametrize("members", [1, 3])
    def test_gradient_reaches_every_weight(self, keras, choice, shape, members):
        import tensorflow as tf

        model, x = component("model", choice, members=members)(shape), rows(32, *shape)
        with tf.GradientTape() as tape:
            outputs = model(x, training=True)
            outputs = outputs if isinstance(outputs, list | tuple) else [outputs]
            loss = sum(tf.reduce_mean(tf.square(made["output"] - x)) for made in outputs)
        gradients = tape.gradient(loss, [w.value for w in model.trainable_weights])
        for weight, gradient in zip(model.trainable_weights, gradients, strict=True):
            assert gradient is not None, weight.path
            assert np.isfinite(gradient).all(), weight.path
            assert np.any(gradient), weight.path

    @pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
    def test_a_step_lowers_the_loss(self, keras, choice, policy):
        keras.config.set_dtype_policy(policy)
        assert_a_step_lowers_the_loss(component("model", choice)((7,)), rows(8, 7))

    def test_the_seed_fixes_its_weights_and_its_draws(self, keras, choice):
        def made(seed):
            keras.utils.set_random_seed(seed)
            model = component("model", choice)((7,))
            weights = np.concatenate([w.numpy().ravel() for w in model.weights])
            return weights, rebuilt(model, rows(4, 7), training=True)[0]["output"]

        (one, first), (two, second), (other, _) = made(1), made(1), made(2)
        np.testing.assert_array_equal(one, two)
        np.testing.assert_array_equal(first, second)
        assert not np.array_equal(one, other)

    def test_members_are_networks_of_their_own(self, keras, choice):
        x, one = rows(4, 7), component("model", choice)((7,))
        three = component("model", choice, members=3)((7,))
        made = rebuilt(three, x)
        assert len(made) == 3
        assert {frozenset(outputs) for outputs in made} == {frozenset(rebuilt(one, x)[0])}
        assert three.count_params() == 3 * one.count_params()
        kernels = [w.numpy() for w in three.weights if w.name == "kernel" and w.shape[0] == 7]
        assert len(kernels) == 3
        for i, j in ((0, 1), (0, 2), (1, 2)):
            assert not np.array_equal(kernels[i], kernels[j])
            assert not np.allclose(made[i]["output"], made[j]["output"])


class DetectorContract:
    """What every detector that scikit-learn fits promises."""

    D = 10

    @pytest.fixture
    def x(self):
        return frozen(rows(300, self.D))

    def fitted(self, choice, x, **values):
        model = component("model", choice, **values)(x.shape[1:])
        model.fit(x)
        return model

    def test_far_rows_are_stranger_than_near_ones(self, choice, x):
        model, near = self.fitted(choice, x), rows(50, self.D, seed=1)
        far = near + 25 * np.sign(np.random.default_rng(0).standard_normal(self.D)).astype(np.float32)
        scores = model.score(frozen(np.concatenate([near, far])))
        assert scores.shape == (100,)
        assert scores.dtype.kind == "f"
        assert np.isfinite(scores).all()
        assert scores[50:].min() > scores[:50].max()
        assert len(np.unique(scores[:50])) > 40

    def test_a_score_depends_on_its_own_row_alone(self, choice, x):
        model, other = self.fitted(choice, x), rows(5, self.D, seed=1)
        np.testing.assert_allclose(model.score(other)[1:2], model.score(other[1:2]), rtol=1e-6)

    def test_the_same_rows_give_the_same_scores(self, choice, x):
        one, two = self.fitted(choice, x), self.fitted(choice, x)
        other = self.fitted(choice, rows(300, self.D, seed=2))
        np.testing.assert_array_equal(one.score(x), two.score(x))
        assert not np.array_equal(one.score(x), other.score(x))

    def test_survives_a_file(self, choice, x, tmp_path):
        model = self.fitted(choice, x)
        archive.write(model, tmp_path / "model.skops")
        again = archive.read(tmp_path / "model.skops")
        assert type(again) is type(model)
        for method in ("score", "predict") if hasattr(model, "predict") else ("score",):
            np.testing.assert_equal(getattr(again, method)(x), getattr(model, method)(x))

    def test_its_kind_is_read_from_its_source(self, choice):
        assert declared.kinds("model", node("model", choice)["_target_"]) == ("table",)


class CorruptionContract:
    """What every corruption of images promises, for grey images and for colour ones whose sides no block divides."""

    @pytest.fixture(params=[1, 3])
    def x(self, request):
        return frozen(pictures(5, 27, 30, request.param))

    def test_gives_images_of_the_same_shape_and_leaves_its_input(self, choice, x):
        before = x.copy()
        noisy = component("corruption", choice)(x, np.random.default_rng(0))
        assert noisy.shape == x.shape
        assert noisy.dtype == np.float32
        assert 0 <= noisy.min() <= noisy.max() <= 1
        np.testing.assert_array_equal(x, before)
        assert not np.array_equal(noisy, x)

    def test_the_generator_alone_decides(self, choice, x):
        corrupt = component("corruption", choice)
        one, two, other = (corrupt(x, np.random.default_rng(seed)) for seed in (1, 1, 2))
        np.testing.assert_array_equal(one, two)
        assert not np.array_equal(one, other)

    def test_images_of_a_batch_get_noise_of_their_own(self, choice, x):
        noisy = component("corruption", choice)(np.stack([x[0]] * 2), np.random.default_rng(0))
        assert not np.array_equal(noisy[0], noisy[1])

    def test_level_0_changes_nothing(self, choice, x):
        same = component("corruption", choice, level=0)(x, np.random.default_rng(0))
        np.testing.assert_array_equal(same, x)
        assert same.dtype == np.float32

    @pytest.mark.parametrize("level", [0.05, 1])
    def test_more_level_more_damage(self, choice, x, level):
        little, more = (
            component("corruption", choice, level=v)(x, np.random.default_rng(0)) for v in (level / 4, level)
        )
        assert np.square(little - x).mean() < np.square(more - x).mean()


class RowCorruptionContract:
    """What every corruption of tables promises."""

    @pytest.fixture(params=[(400, 6), (9, 40)], ids=str)
    def x(self, request):
        return frozen(rows(*request.param))

    def test_gives_rows_of_the_same_shape_and_leaves_its_input(self, choice, x):
        before = x.copy()
        noisy = component("corruption", choice)(x, np.random.default_rng(0))
        assert noisy.shape == x.shape
        assert noisy.dtype == np.float32
        assert np.isfinite(noisy).all()
        np.testing.assert_array_equal(x, before)
        assert not np.array_equal(noisy, x)

    def test_the_generator_alone_decides(self, choice, x):
        corrupt = component("corruption", choice)
        one, two, other = (corrupt(x, np.random.default_rng(seed)) for seed in (1, 1, 2))
        np.testing.assert_array_equal(one, two)
        assert not np.array_equal(one, other)

    def test_equal_rows_get_noise_of_their_own(self, choice, x):
        noisy = component("corruption", choice)(np.concatenate([x, x]), np.random.default_rng(0))
        assert not np.array_equal(noisy[: len(x)], noisy[len(x) :])

    def test_level_0_changes_nothing(self, choice, x):
        same = component("corruption", choice, level=0)(x, np.random.default_rng(0))
        np.testing.assert_array_equal(same, x)
        assert same.dtype == np.float32

    @pytest.mark.parametrize("level", [0.2, 1])
    def test_more_level_more_damage(self, choice, x, level):
        little, more = (
            component("corruption", choice, level=v)(x, np.random.default_rng(0)) for v in (level / 4, level)
        )
        assert 0 < np.square(little - x).mean() < np.square(more - x).mean() / 2


def reads(choice):
    """The outputs that a loss term looks at, as its source says: {"output"}, {"mean", "log_variance"}..."""
    found = ast.walk(declared.signature(node("loss", choice)["_target_"]).node)
    return {n.slice.value for n in found if isinstance(n, ast.Subscript) and ast.unparse(n.value) == "outputs"}


class ValuesContract:
    """What loss terms and metrics share: `values(choice, target, output)` gives one number per example.

    `sign` is 1 where less is better, -1 where more is.
    """

    def values(self, choice, target, output):
        raise NotImplementedError

    def sign(self, choice):
        raise NotImplementedError

    def get(self, choice, target, output):
        return np.array(self.values(choice, target, output))

    def examples(self):
        """Targets and outputs that a formula may stumble over: random, and flat black and white ones."""
        flat = np.stack([np.full((16, 14, 1), v, np.float32) for v in (0, 0, 1, 1)])
        target = np.concatenate([pictures(3, 16, 14, 1), flat])
        return target, np.concatenate([pictures(3, 16, 14, 1, seed=1), flat[[0, 2, 0, 2]]])

    def test_gives_one_finite_float32_for_each_example(self, keras, choice):
        target, output = self.examples()
        for got in (output, target):
            values = self.get(choice, target, got)
            assert values.shape == (len(target),)
            assert values.dtype == np.float32
            assert np.isfinite(values).all()

    def test_a_perfect_output_is_best(self, keras, choice):
        target, output = self.examples()
        best, got = self.get(choice, target, target), self.get(choice, target, output)
        differ = np.any(target != output, axis=(1, 2, 3))
        assert (self.sign(choice) * (got - best))[differ].min() > 0

    def test_a_better_output_is_better(self, keras, choice):
        target, output = pictures(3, 16, 14, 1), pictures(3, 16, 14, 1, seed=1)
        far, near = self.get(choice, target, output), self.get(choice, target, 0.7 * target + 0.3 * output)
        assert (self.sign(choice) * (far - near)).min() > 0

    def test_a_value_depends_on_its_example_alone(self, keras, choice):
        target, output = self.examples()
        whole, alone = self.get(choice, target, output), self.get(choice, target[1:2], output[1:2])
        np.testing.assert_allclose(whole[1:2], alone, rtol=1e-4)
        assert len(np.unique(whole[:3])) == 3

    def test_half_precision_is_raised_first(self, keras, choice):
        target, output = self.examples()
        half = keras.ops.cast(output, "bfloat16")
        values = self.get(choice, target, half)
        assert values.dtype == np.float32
        np.testing.assert_array_equal(values, self.get(choice, target, keras.ops.cast(half, "float32")))


class LossContract(ValuesContract):
    """What every loss term that compares outputs with targets promises, on images."""

    def values(self, choice, target, output):
        batch = SimpleNamespace(input=target, target=target)
        return component("loss", choice)(batch, {"output": output}, None)

    def sign(self, choice):
        return 1

    def test_its_yaml_gives_a_weight(self, choice):
        assert node("loss", choice)["weight"] >= 0

    def test_gradient_is_finite_and_not_zero(self, keras, choice):
        import tensorflow as tf

        target, output = self.examples()
        for got in (output, target):
            variable = tf.Variable(got)
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(self.values(choice, tf.constant(target), variable))
            gradient = tape.gradient(loss, variable).numpy()
            assert np.isfinite(gradient).all()
            if got is output:
                assert np.abs(gradient[:3]).max(axis=(1, 2, 3)).min() > 0


class CodeLossContract:
    """What every loss term promises that looks at a code, and is least, 0, where all that it reads is 0."""

    TARGET = np.ones((6, 5), np.float32)

    def outputs(self, choice, scale=1.0):
        return {name: np.float32(scale) * rows(6, 4, seed=i) for i, name in enumerate(sorted(reads(choice)))}

    def get(self, choice, outputs, target=TARGET):
        return component("loss", choice)(SimpleNamespace(input=target, target=target), outputs, None)

    def test_gives_one_finite_float32_for_each_example(self, keras, choice):
        for scale in (0, 1, 5):
            values = np.array(self.get(choice, self.outputs(choice, scale)))
            assert values.shape == (6,)
            assert values.dtype == np.float32
            assert np.isfinite(values).all()

    def test_is_least_at_zero_and_grows_from_there(self, keras, choice):
        nothing, some, more = (np.array(self.get(choice, self.outputs(choice, v))) for v in (0, 1, 2))
        np.testing.assert_allclose(nothing, 0, atol=1e-7)
        assert (some > 0).all()
        assert (some < more).all()

    def test_a_value_depends_on_its_example_alone(self, keras, choice):
        outputs = self.outputs(choice)
        whole = np.array(self.get(choice, outputs))
        alone = self.get(choice, {name: value[1:2] for name, value in outputs.items()}, self.TARGET[1:2])
        np.testing.assert_allclose(whole[1:2], alone, rtol=1e-5)
        assert len(np.unique(whole)) == 6

    def test_half_precision_is_raised_first(self, keras, choice):
        half = {name: keras.ops.cast(value, "bfloat16") for name, value in self.outputs(choice).items()}
        values = np.array(self.get(choice, half))
        assert values.dtype == np.float32
        full = {name: keras.ops.cast(value, "float32") for name, value in half.items()}
        np.testing.assert_array_equal(values, self.get(choice, full))

    def test_its_yaml_gives_a_weight(self, choice):
        assert node("loss", choice)["weight"] >= 0

    def test_gradient_is_finite_and_not_zero(self, keras, choice):
        import tensorflow as tf

        for scale in (0, 1):
            variables = {name: tf.Variable(value) for name, value in self.outputs(choice, scale).items()}
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(self.get(choice, variables))
            for name, gradient in tape.gradient(loss, variables).items():
                assert np.isfinite(gradient).all(), name
                assert np.any(gradient) == (scale > 0), name


class MetricContract(ValuesContract):
    """What every metric on images promises."""

    def values(self, choice, target, output):
        return component("metric", choice)(target, output)

    def sign(self, choice):
        return {"min": 1, "max": -1}[node("metric", choice)["goal"]]


class ScoreContract:
    """What every anomaly score promises."""

    D = 6

    def outputs(self, x, error, seed=0):
        """What a model made of rows that is wrong by `error`, with all that any model gives."""
        code = rows(len(x), 3, seed=seed + 20)
        return {"output": x - error, "code": code, "mean": code, "log_variance": code[:, ::-1] / 4}

    def fitted(self, choice):
        x = rows(200, self.D)
        return component("score", choice)(frozen(x), self.outputs(x, 0.1 * rows(200, self.D, seed=1)))

    @pytest.fixture
    def test(self):
        """Rows and what was made of them, with small errors at first and larger ones below."""
        x = rows(30, self.D, seed=2)
        return x, self.outputs(x, np.geomspace(0.2, 3, 30)[:, None].astype(np.float32) * rows(30, self.D, seed=3))

    def test_gives_one_finite_number_for_each_row(self, choice, test):
        score, (x, outputs) = self.fitted(choice), test
        scores = score(frozen(x), {name: frozen(value) for name, value in outputs.items()})
        assert scores.shape == (30,)
        assert scores.dtype.kind == "f"
        assert np.isfinite(scores).all()
        assert len(np.unique(scores)) == 30

    def test_a_larger_error_is_stranger(self, choice, test):
        score, (x, outputs) = self.fitted(choice), test
        none, some, more = (score(x, outputs | {"output": x - v * (x - outputs["output"])}) for v in (0, 1, 2))
        assert (none < some).all()
        assert (some < more).all()

    def test_parts_tell_which_feature_is_wrong(self, choice, test):
        score, (x, _) = self.fitted(choice), test
        wrong = np.arange(30) % self.D
        parts = score.parts(x, self.outputs(x, np.eye(self.D, dtype=np.float32)[wrong]))
        assert parts.shape == x.shape
        np.testing.assert_array_equal(parts.argmax(axis=1), wrong)
        assert (parts.max(axis=1) > 0.5 * np.abs(parts).sum(axis=1)).all()

    def test_a_score_depends_on_its_own_row_alone(self, choice, test):
        score, (x, outputs) = self.fitted(choice), test
        alone = score(x[4:5], {name: value[4:5] for name, value in outputs.items()})
        np.testing.assert_allclose(score(x, outputs)[4:5], alone, rtol=1e-5)

    def test_other_rows_change_nothing_that_was_fitted(self, choice, test):
        score, (x, outputs) = self.fitted(choice), test
        before = score(x, outputs)
        score(x * 100, self.outputs(x, x, seed=5)), score.parts(x * 100, outputs)
        np.testing.assert_array_equal(score(x, outputs), before)

    def test_survives_a_file(self, choice, test, tmp_path):
        score, (x, outputs) = self.fitted(choice), test
        archive.write(score, tmp_path / "score.skops")
        again = archive.read(tmp_path / "score.skops")
        np.testing.assert_array_equal(again(x, outputs), score(x, outputs))
        np.testing.assert_array_equal(again.parts(x, outputs), score.parts(x, outputs))

    def test_its_kind_is_read_from_its_source(self, choice):
        assert declared.kinds("score", node("score", choice)["_target_"]) == ("table",)


class ScoreMetricContract:
    """What every metric of anomaly scores promises."""

    def examples(self, seed=0):
        """150 anomalies among 400 rows, whose scores overlap, all different."""
        rng = np.random.default_rng([9, seed])
        labels = rng.permutation(np.arange(400) < 150)
        return labels, rng.standard_normal(400) + labels

    def test_gives_one_number_from_0_to_1(self, choice):
        labels, scores = self.examples()
        metric = component("metric", choice)
        value = metric(frozen(labels), frozen(scores))
        assert type(value) is float  # JSON takes nothing else
        assert 0 < value < 1
        assert metric(labels, scores.astype(np.float32)) == pytest.approx(value, abs=1e-9)

    def test_a_perfect_ranking_gives_1(self, choice):
        labels, scores = self.examples()
        assert component("metric", choice)(labels, scores + 100 * labels) == pytest.approx(1)

    def test_more_is_better(self, choice):
        labels, scores = self.examples()
        metric = component("metric", choice)
        assert node("metric", choice)["goal"] == "max"
        assert metric(labels, scores - 1.5 * labels) < metric(labels, scores) < metric(labels, scores + 1.5 * labels)

    @pytest.mark.parametrize("transform", [np.exp, np.arctan, lambda s: 3 * s - 7], ids=["exp", "arctan", "linear"])
    def test_the_order_of_the_scores_is_all_that_counts(self, choice, transform):
        metric = component("metric", choice)
        for seed in range(5):
            labels, scores = self.examples(seed)
            assert metric(labels, transform(scores)) == metric(labels, scores)

    def test_the_order_of_the_rows_does_not_count(self, choice):
        labels, scores = self.examples()
        order = np.random.default_rng(0).permutation(len(labels))
        metric = component("metric", choice)
        assert metric(labels[order], scores[order]) == pytest.approx(metric(labels, scores), abs=1e-12)

    def test_its_kind_is_read_from_its_source(self, choice):
        assert declared.kinds("metric", node("metric", choice)["_target_"]) == ("table",)
