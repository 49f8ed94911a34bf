"""Drawing images: the Fréchet distance, the samplers, and task=generate."""

import json
from dataclasses import replace
from types import SimpleNamespace

import commands
import keras
import numpy as np
import pytest
import scipy.linalg
from contract import component, listed, pictures
from omegaconf import OmegaConf
from PIL import Image

from aelab import figures, frechet
from aelab.call import build
from aelab.config import AelabError, ConfigError, DataError
from aelab.data.digits import digits
from aelab.data.record import Split
from aelab.tasks.generate import Generate, divergence, halves, linear_sampler, nearest

DRAWN = listed("model", kind="drawn image")
KNOBS = {"judge": None, "judge_epochs": 1, "classifier": {}, "kept": 7, "rows": 3}


def normal(*shape, seed=0):
    return np.random.default_rng([9, seed]).standard_normal(shape)


# ---- the distance


def test_the_distance_of_a_set_to_itself_and_to_itself_moved():
    x = normal(50, 4) @ normal(4, 4, seed=1)
    assert frechet.distance(x, x) == pytest.approx(0, abs=1e-9)
    assert frechet.distance(x, np.add(x, [3, 0, 0, -4])) == pytest.approx(25)
    assert frechet.distance(x[:, :1], 2 * x[:, :1] - x[:, :1].mean()) == pytest.approx(np.var(x[:, 0], ddof=1))


def test_diagonal_covariances_by_hand():
    """Numbers that do not go together add up: (m - n)^2 + (s - t)^2 of each, with standard deviations s and t."""
    m, n, s, t = np.array([[1.0, 2, 0], [0, 2, 5], [1, 3, 0], [4, 1, 2]])
    expected = (1 + 0 + 25) + (9 + 4 + 4)
    assert frechet.of_gaussians(m, n, np.diag(s**2), np.diag(t**2)) == pytest.approx(expected)


@pytest.mark.parametrize("rank", [5, 2])
def test_the_distance_is_that_of_scipys_root(rank):
    """Also where a covariance has no inverse: there the product's root is hard, and is taken with a little added."""
    x, y = normal(40, rank) @ normal(rank, 5, seed=1) + 1, normal(30, 5, seed=2) * 2
    s, t = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = scipy.linalg.sqrtm((s + 1e-12 * np.eye(5)) @ t).real
    expected = np.square(x.mean(axis=0) - y.mean(axis=0)).sum() + np.trace(s + t - 2 * root)
    assert frechet.distance(x, y) == pytest.approx(expected, rel=1e-4)
    assert frechet.distance(x, y) == pytest.approx(frechet.distance(y, x))


def test_a_single_image_has_no_covariance():
    with pytest.raises(DataError, match="at least 2 images, got 3 and 1"):
        frechet.distance(normal(3, 2), normal(1, 2))


# ---- the samplers


@pytest.mark.parametrize("choice", DRAWN)
def test_the_decoder_gives_what_the_model_gives_for_the_same_code(choice):
    model, x = component("model", choice, bottleneck=3)((9, 6, 1)), pictures(4, 9, 6, 1)
    encode, decode = halves(model)
    made, code = model(x, training=False), encode(x, training=False)
    np.testing.assert_array_equal(code["mean"], made["mean"])
    np.testing.assert_array_equal(code["log_variance"], made["log_variance"])
    np.testing.assert_allclose(decode(code["mean"]), made["output"], atol=1e-6)
    assert np.abs(decode(code["mean"] + 1) - made["output"]).max() > 1e-3


@pytest.mark.parametrize(
    ("n", "expected"), [(4, ["1 to 4"]), (20, ["1 to 10", "11 to 20"]), (64, ["1 to 10", "11 to 20", "21 to 30"])]
)
def test_a_sheet_of_few_test_images_draws_none_that_are_not_there(n, expected, monkeypatch):
    seen = {}
    monkeypatch.setattr(figures, "image_grid", lambda rows: seen.update(rows) or SimpleNamespace(set_label=str))
    made = Generate(**KNOBS)
    made.z = np.zeros((n, 2))
    made.decode = made.linear = lambda z: np.zeros((len(z), 8, 8, 1)) if len(z) else pytest.fail("nothing to draw")
    made.sheet(np.zeros((n, 8, 8, 1)))
    names = [name.removeprefix("samples ") for name in seen if name.startswith("samples ")]
    assert names == expected


def test_a_model_that_cannot_be_drawn_from_is_told():
    with pytest.raises(AelabError, match='conv_ae: expected a dict with "output", "mean" and "log_variance"'):
        halves(component("model", "conv_ae")((8, 8, 1)))


def test_the_linear_sampler_has_the_mean_and_covariance_of_its_images():
    mix = 0.03 * normal(2, 6, seed=1)
    x = (0.5 + normal(2000, 2) @ mix).astype(np.float32).reshape(-1, 3, 2, 1)
    draw = linear_sampler(x, 2, seed=0)
    made, flat = draw(normal(100_000, 2, seed=3)).reshape(-1, 6), x.reshape(-1, 6)
    np.testing.assert_allclose(made.mean(axis=0), flat.mean(axis=0), atol=1e-3)
    np.testing.assert_allclose(np.cov(made, rowvar=False), np.cov(flat, rowvar=False), atol=3e-5)
    assert draw(np.zeros((1, 2))).reshape(6) == pytest.approx(flat.mean(axis=0), abs=1e-6)
    one = linear_sampler(x, 1, seed=0)(normal(1000, 2, seed=4)).reshape(-1, 6)
    assert np.linalg.matrix_rank(one - one.mean(axis=0), tol=1e-4) == 1
    assert draw(100 * normal(10, 2)).min() == 0
    assert draw(100 * normal(10, 2)).max() == 1


def test_divergence_by_hand():
    """Of N(m, v): (m^2 + v - ln v - 1) / 2, here of (0, 1), (2, 1) and (0, e^2), (0, 1)."""
    code = {"mean": np.array([[0, 0], [2, 0]]), "log_variance": np.array([[0, 2], [0, 0]])}
    np.testing.assert_allclose(divergence(code), [(0 + 2) / 2, (np.exp(2) - 3) / 2 / 2])


def test_the_nearest_image():
    known = pictures(30, 4, 4, 1)
    near, errors = nearest(known, known[[7, 3]] + 0.01)
    assert near.tolist() == [7, 3]
    np.testing.assert_allclose(errors, 1e-4, rtol=1e-3)


# ---- the task


def test_data_without_labels_need_a_judge():
    data = digits(validation=0.1, limit=20, seed=0, test=0.2)
    bare = replace(data, label_names=(), source="mine.npz", train=Split(data.train.x, None))
    with pytest.raises(ConfigError, match=r"dataset=npz: mine.npz has no labels .* task.judge=FOLDER"):
        Generate(**KNOBS).prepare(bare, SimpleNamespace(choices=SimpleNamespace(dataset="npz")))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    cwd = tmp_path_factory.mktemp("drawn")
    words = (
        "model.bottleneck=4",
        "model.widths=[8,16]",
        "fit.epochs=3",
        "task.kept=7",
        "task.rows=2",
        "task.judge_epochs=5",
    )
    knobs = ("loss.kl.weight=0", "fit.precision=float32", "tracking.log_model=false")
    return commands.done("task=generate", "dataset=digits", *words, *knobs, cwd=cwd)


def test_what_a_run_leaves(drawn):
    folder = commands.folder_of(drawn)
    assert drawn.stderr.count("aelab: loss: kl is not there, or of weight 0") == 1
    metrics = json.loads((folder / "metrics.json").read_text())
    for part in ("val", "test"):
        assert metrics[f"{part}/frechet"] > metrics[f"{part}/frechet_real"] > 0
        assert metrics[f"{part}/frechet_pca"] > metrics[f"{part}/frechet_real"]
    assert metrics["val/judge_accuracy"] > 0.8
    assert metrics["test/kl_nats"] > 0
    assert {"test/mse", "test/psnr", "test/ssim", "test/used_numbers"} < set(metrics)
    assert not [name for name in metrics if name.endswith(("_input", "_gain"))]
    samples = np.load(folder / "samples.npy")
    assert (samples.shape, samples.dtype) == ((7, 28, 28, 1), np.uint8)
    for name in ("samples", "nearest", "interpolation", "sweep", "divergence", "frechet"):
        assert (folder / f"{name}.png").stat().st_size > 5000


def test_more_are_drawn_from_a_finished_run(drawn, tmp_path):
    """The same seed draws the same; one image more changes none; the sheet has what the array has."""
    folder = commands.folder_of(drawn)

    def images(name, *words):
        said = commands.done("generate", f"run={folder}", f"output={name}", *words, cwd=tmp_path).stdout
        assert f"written to {name}" in said
        return tmp_path / name

    few, more, other = (
        np.load(images(f"{i}.npy", f"count={n}", f"seed={seed}")) for i, n, seed in ((0, 12, 5), (1, 13, 5), (2, 12, 6))
    )
    assert (few.shape, few.dtype) == ((12, 28, 28, 1), np.uint8)
    assert np.abs(few.astype(int) - more[:12]).max() <= 1
    assert np.abs(few.astype(int) - other).max() > 10
    at_mean = np.load(images("mean.npz", "count=3", "temperature=0"))["x"]
    assert np.array_equal(at_mean[0], at_mean[2])
    with Image.open(images("sheet.png", "count=12", "seed=5")) as picture:
        found = np.asarray(picture)
    assert found.shape == (2 * 30 - 2, 10 * 30 - 2)
    assert np.abs(found[30:58, 30:58].astype(int) - few[11, ..., 0]).max() <= 1
    assert (found[30:, 60:] == 255).all()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "expected output=FILE, a .npy, .npz or picture, and a count of at least 1"),
        (("output=a.npy", "count=0"), "expected output=FILE, a .npy, .npz or picture, and a count of at least 1"),
        (("output=a.gif",), "a.gif: expected a name that ends in .npy, .npz, .png, .jpg, .jpeg"),
        (("output=a.npy", "prompt=x"), "prompt: unknown; there are: count, output, run, seed, temperature"),
        (("output=nowhere/a.npy",), "No such file or directory: nowhere/a.npy"),
    ],
)
def test_what_cannot_be_drawn_is_one_line(words, said, drawn, tmp_path):
    result = commands.run("generate", f"run={commands.folder_of(drawn)}", *words, cwd=tmp_path)
    assert commands.complaint(result) == said
    assert list(tmp_path.glob("a.*")) == []


def test_a_finished_run_is_tested_again_with_its_own_judge(drawn):
    """The same seed gives the same samples, and so the same distances; another seed others."""
    folder = commands.folder_of(drawn)
    cfg, known = OmegaConf.load(folder / "config.yaml"), json.loads((folder / "metrics.json").read_text())
    data, model = build(cfg.dataset), keras.saving.load_model(folder / "model.keras", compile=False)
    cfg.task.judge_epochs, found = 1, []  # a judge trained anew would be another
    for seed, judge in ((0, None), (1, str(folder))):
        cfg.task.judge, cfg.seed = judge, seed
        task = build(cfg.task)
        task.recall(folder)
        task.prepare(data, cfg)
        found.append(task.test(model, data, lambda x, rng: x, cfg).metrics)
    names = [name for name in known if name.startswith(("test/", "val/"))]
    assert {name: found[0][name] for name in names} == pytest.approx({name: known[name] for name in names}, rel=1e-3)
    assert found[1]["val/judge_accuracy"] == found[0]["val/judge_accuracy"]
    assert abs(found[1]["test/frechet_pca"] / found[0]["test/frechet_pca"] - 1) > 1e-3


def test_a_judge_must_be_a_classifier_of_such_images(drawn, tmp_path):
    cfg, folder = SimpleNamespace(choices=SimpleNamespace(dataset="npz")), commands.folder_of(drawn)
    data = digits(validation=0.1, limit=20, seed=0, test=0.2)
    half = replace(data, train=Split(data.train.x[:, ::2, ::2], data.train.y))
    whole = OmegaConf.load(folder / "config.yaml")
    whole.choices.task = "denoise"
    OmegaConf.save(whole, tmp_path / "config.yaml")
    wrong = {tmp_path / "no": "expected the folder of", tmp_path: "a run of task=denoise without a classifier"}
    for judge, said in wrong.items():
        with pytest.raises(AelabError, match=f"task.judge={judge}: {said}"):
            Generate(**KNOBS | {"judge": str(judge)}).prepare(data, cfg)
    with pytest.raises(AelabError, match=r"takes images \(28, 28, 1\), but these are \(14, 14, 1\)"):
        Generate(**KNOBS | {"judge": str(folder)}).prepare(half, cfg)


def test_a_model_without_a_distribution_is_refused(tmp_path):
    result = commands.run("task=generate", "model=conv_ae", cwd=tmp_path)
    assert result.returncode == 2
    said = "model=conv_ae: is for image data, but task=generate takes drawn image; models that fit: conv_vae"
    assert commands.complaint(result) == said
