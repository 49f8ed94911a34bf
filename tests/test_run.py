"""One run by the real command, what it leaves behind, and what can be done with it afterwards."""

import itertools
import json
import re
from pathlib import Path

import commands
import mlflow
import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

METRICS = ("psnr", "ssim", "mse", "mae")
SAME = {"rel": 1e-6, "abs": 1e-6}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """The working folder of the shared run."""
    return commands.finished(tmp_path_factory)[0]


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """What the shared run said."""
    return commands.finished(tmp_path_factory)[1]


@pytest.fixture(scope="module")
def folder(result):
    """The run folder of the shared run."""
    return commands.folder_of(result)


@pytest.fixture(scope="module")
def store(home):
    """The MLflow store of the shared run, as it was before anything else was done with that run."""
    return commands.client(home)


@pytest.fixture(scope="module")
def tracked(store, result):
    """The shared run in MLflow."""
    return store.get_run(re.search(r"^MLflow +run (\w+)", result.stdout, re.MULTILINE)[1])


def figures(folder) -> dict[str, float]:
    """metrics.json without the times."""
    metrics = json.loads((folder / "metrics.json").read_text())
    return {k: v for k, v in metrics.items() if not k.startswith("time/")}


def test_run_folder_holds_every_file(folder, home):
    names = {p.name for p in folder.iterdir() if p.is_file()}
    expected = {"config.yaml", "overrides.yaml", "metrics.json", "history.csv", "run.log", "model.keras", "report.html"}
    assert expected | {"examples.png", "psnr_gain.png", "curves.png"} <= names
    assert folder.is_relative_to(home / "outputs" / "runs")
    assert [p.name for p in home.iterdir()] == ["outputs"]
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["fit"]["epochs"] == 2
    assert config["model"] == {"_target_": "aelab.models.conv.conv_ae", "bottleneck": 16, "widths": [8, 16]}
    assert config["tracking"]["uri"] is None
    assert "${" not in (folder / "config.yaml").read_text()
    overrides = yaml.safe_load((folder / "overrides.yaml").read_text())
    assert overrides == [*commands.DIGITS, "fit.epochs=2", "fit.deterministic=true"]
    assert "Traceback" not in (folder / "run.log").read_text()


def test_metrics_have_the_names_that_scripts_rely_on(folder):
    metrics = json.loads((folder / "metrics.json").read_text())
    names = {f"test/{m}{suffix}" for m, suffix in itertools.product(METRICS, ("", "_input", "_gain"))}
    assert {name for name in metrics if not name.startswith("time/")} == names
    assert {"time/fit_s", "time/total_s"} <= set(metrics)
    assert all(isinstance(v, float) and np.isfinite(v) for v in metrics.values())
    for name, sign in zip(METRICS, (1, 1, -1, -1), strict=True):
        gain = sign * (metrics[f"test/{name}"] - metrics[f"test/{name}_input"])
        assert metrics[f"test/{name}_gain"] == pytest.approx(gain, abs=1e-5)
    assert 0 < metrics["time/fit_s"] < metrics["time/total_s"]


def test_history_has_a_row_an_epoch(folder):
    history = pd.read_csv(folder / "history.csv")
    assert list(history["epoch"]) == [1, 2]
    config = yaml.safe_load((folder / "config.yaml").read_text())
    terms = {f"{split}/{term}" for split in ("train", "val") for term in ("loss", *config["loss"])}
    assert set(history) == {"epoch", "learning_rate", "time/epoch_s"} | terms | {f"val/{m}" for m in METRICS}
    assert np.isfinite(history.to_numpy()).all()


def test_pictures_are_pictures(folder):
    for file in folder.glob("*.png"):
        with Image.open(file) as picture:
            picture.load()
            assert picture.width > 300
            assert len(np.unique(np.asarray(picture.convert("L")))) > 10


def test_report_needs_no_other_file(folder):
    html = (folder / "report.html").read_text()
    assert html.count('src="data:image/png;base64,') >= 3
    assert re.findall(r"""(?:src|href)=["'](?!data:|#)([^"']+)""", html) == []
    for word in ("PSNR", "bottleneck", "CC BY 4.0"):
        assert word.lower() in html.lower()


def test_terminal_shows_results_and_no_noise(result, folder, tracked):
    assert result.stderr == ""
    for noise in ("oneDNN", "WARNING", "I0000", "rebuild TensorFlow", "Successfully registered", "━━ 0s", "\x1b"):
        assert noise not in result.stdout
    *_, table, times, where, report, link = result.stdout.splitlines()
    assert table.startswith("└")
    assert re.fullmatch(r"fit \d+\.\d s, in all \d+\.\d s", times)
    assert where == f"run folder  {folder}"
    assert report == f"report      {folder / 'report.html'}"
    assert link == f"MLflow      run {tracked.info.run_id}; type  aelab ui"
    metrics = json.loads((folder / "metrics.json").read_text())
    row = next(line for line in result.stdout.splitlines() if line.startswith("│ psnr"))
    assert [float(n) for n in re.findall(r"-?\d+\.\d+", row)] == pytest.approx(
        [metrics["test/psnr"], metrics["test/psnr_input"], metrics["test/psnr_gain"]], rel=1e-3
    )


def test_mlflow_has_the_whole_run(tracked, store, folder):
    assert tracked.info.status == "FINISHED"
    assert tracked.info.run_name == "denoise-conv_ae-digits"
    assert tracked.data.params["model.bottleneck"] == "16"
    assert tracked.data.params["corruption.gaussian.level"] == "0.4"
    assert {
        "model": "conv_ae",
        "dataset": "digits",
        "fit.epochs": "2",
        "seed": "0",
    }.items() <= tracked.data.params.items()
    for name in ("device", "precision", "signature", "data_fingerprint", "tensorflow", "git_revision", "folder"):
        assert tracked.data.tags[f"aelab.{name}"]
    metrics = json.loads((folder / "metrics.json").read_text())
    assert {k: tracked.data.metrics[k] for k in metrics} == pytest.approx(metrics)
    for name in ("train/loss", "val/loss", "val/psnr", "learning_rate"):
        history = store.get_metric_history(tracked.info.run_id, name)
        assert [m.step for m in history] == [1, 2]
        assert [m.value for m in history] == pytest.approx(list(pd.read_csv(folder / "history.csv")[name]))


def test_mlflow_has_data_set_and_files(tracked, store, home):
    assert tracked.info.artifact_uri.startswith((home / "outputs" / "mlartifacts").as_uri())
    (entry,) = tracked.inputs.dataset_inputs
    assert entry.dataset.name == "digits"
    assert tracked.data.tags["aelab.data_fingerprint"].startswith(entry.dataset.digest)
    files = {f.path for f in store.list_artifacts(tracked.info.run_id)}
    assert {"config.yaml", "overrides.yaml", "metrics.json", "history.csv", "examples.png", "report.html"} <= files


@pytest.fixture
def tracking_uri(home):
    """MLflow's global address set to the shared run's store, and set back."""
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{home / 'outputs' / 'mlflow.db'}")
    yield
    mlflow.set_tracking_uri(before)


@pytest.mark.usefixtures("tracking_uri")
def test_logged_model_loads_and_gives_the_same_outputs(tracked, folder, store):
    import keras

    (output,) = tracked.outputs.model_outputs
    assert store.get_logged_model(output.model_id).status == "READY"
    uri = f"models:/{output.model_id}"
    logged = mlflow.tensorflow.load_model(uri)
    own = keras.saving.load_model(folder / "model.keras", compile=False)
    x = np.random.default_rng(0).random((5, 28, 28, 1), np.float32)
    found, expected = logged.predict(x, verbose=0), own.predict(x, verbose=0)
    assert found.keys() == expected.keys() == {"output", "code"}
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name])
    signature = mlflow.models.get_model_info(uri).signature
    assert signature.inputs.inputs[0].shape == (-1, 28, 28, 1)
    assert {made.name: made.shape for made in signature.outputs.inputs} == {"output": (-1, 28, 28, 1), "code": (-1, 16)}


@pytest.fixture(scope="module")
def afterwards(home, folder, tracked, tmp_path_factory):
    """What is done with the finished run, two commands at a time; from another folder where that can be."""
    cwd = tmp_path_factory.mktemp("afterwards")
    rng = np.random.default_rng(0)
    np.save(cwd / "in.npy", rng.random((3, 28, 28), np.float32))
    np.savez(cwd / "in.npz", x=rng.integers(0, 256, (3, 28, 28, 1), np.uint8))
    Image.fromarray(rng.integers(0, 256, (28, 28), np.uint8)).save(cwd / "in.png")

    def predict(source, target):
        return commands.done("predict", f"run={folder}", f"input={source}", f"output={target}", cwd=cwd)

    words = ["fit.epochs=2", "fit.deterministic=true", f"hydra.run.dir={cwd / 'chosen'}"]
    results = commands.together(
        {
            "evaluate": lambda: commands.done("evaluate", f"run={folder}", cwd=cwd),
            "by id": lambda: commands.done("evaluate", f"run={tracked.info.run_id}", "corruption.level=0.1", cwd=home),
            "npy": lambda: predict("in.npy", "out.npy"),
            "npz": lambda: predict("in.npz", "out.npz"),
            "png": lambda: predict("in.png", "out.png"),
            "rerun": lambda: commands.done("rerun", f"run={folder}", cwd=cwd),
            "again": lambda: commands.done(*commands.DIGITS, *words, cwd=cwd),
        }
    )
    return cwd, results


def evaluation(result) -> dict:
    """The file that `aelab evaluate` says it wrote."""
    return json.loads(Path(re.search(r"^written to (.*)$", result.stdout, re.MULTILINE)[1]).read_text())


def test_evaluate_gives_the_same_metrics(afterwards, folder):
    found = evaluation(afterwards[1]["evaluate"])
    assert found.pop("overrides") == []
    assert found == pytest.approx(figures(folder), **SAME)


def test_evaluate_by_id_on_less_noise(afterwards, folder):
    found, before = evaluation(afterwards[1]["by id"]), figures(folder)
    assert found.pop("overrides") == ["corruption.level=0.1"]
    assert found.keys() == before.keys()
    assert found["test/psnr_input"] > before["test/psnr_input"] + 5
    assert found["test/psnr"] != before["test/psnr"]
    assert figures(folder) == before


def test_predict_writes_what_it_was_given(afterwards, folder):
    import keras

    cwd, results = afterwards
    model = keras.saving.load_model(folder / "model.keras", compile=False)

    def restored(x):
        return np.clip(model.predict(x.reshape(-1, 28, 28, 1).astype(np.float32), verbose=0)["output"], 0, 1)

    floats = np.load(cwd / "out.npy")
    assert (floats.dtype, floats.shape) == (np.float32, (3, 28, 28, 1))
    np.testing.assert_allclose(floats, restored(np.load(cwd / "in.npy")), atol=1e-6)
    with np.load(cwd / "in.npz") as source, np.load(cwd / "out.npz") as target:
        assert (target["x"].dtype, target["x"].shape) == (np.uint8, (3, 28, 28, 1))
        np.testing.assert_allclose(target["x"], 255 * restored(source["x"] / 255), atol=0.51)
    with Image.open(cwd / "in.png") as source, Image.open(cwd / "out.png") as target:
        assert (target.mode, target.size) == ("L", (28, 28))
        np.testing.assert_allclose(target, 255 * restored(np.asarray(source) / 255)[0, ..., 0], atol=0.51)
    assert all(results[name].stderr == "" for name in ("npy", "npz", "png"))
    assert "1 restored image written to out.png" in results["png"].stdout


def test_rerun_gives_the_same_metrics_in_a_folder_of_its_own(afterwards, folder):
    cwd, results = afterwards
    again = commands.folder_of(results["rerun"])
    assert again.is_relative_to(cwd)
    assert figures(again) == figures(folder)
    assert str(again) in {run.data.tags["aelab.folder"] for run in commands.runs(commands.client(cwd))}


def test_two_deterministic_runs_are_the_same_bit_for_bit(afterwards, folder):
    assert figures(commands.folder_of(afterwards[1]["again"])) == figures(folder)


def test_hydra_run_dir_is_the_run_folder(afterwards):
    cwd, results = afterwards
    assert commands.folder_of(results["again"]) == cwd / "chosen"
    for name in ("config.yaml", "metrics.json", "model.keras", "report.html"):
        assert (cwd / "chosen" / name).exists()


@pytest.fixture(scope="module")
def variants(tmp_path_factory):
    """Runs of other kinds, two at a time, each in a folder of its own."""
    mirror = f"dataset.mirrors=[http://127.0.0.1:{commands.free_port()}/]"
    fashion = ("dataset=fashion_mnist", mirror, "model=median", "dataset.limit=40")
    folders = {name: tmp_path_factory.mktemp(name) for name in ("median", "fallback", "none", "profile", "overfit")}
    learn = ("model=conv_ae", "dataset=digits", "tracking.log_model=false", "loss=mse", "corruption.level=0")
    results = commands.together(
        {
            "overfit": lambda: commands.done("debug=overfit", *learn, cwd=folders["overfit"]),
            "median": lambda: commands.done(*commands.BASELINE, cwd=folders["median"]),
            "fallback": lambda: commands.done(*fashion, cwd=folders["fallback"]),
            "none": lambda: commands.run(*fashion, "dataset.fallback=null", cwd=folders["none"]),
            "profile": lambda: commands.done(
                *commands.BASELINE[2:], "dataset=digits", "debug=profile", cwd=folders["profile"]
            ),
        }
    )
    return folders, results


def only_run(cwd):
    """The one run of a store."""
    (run,) = commands.runs(commands.client(cwd))
    return run


def test_a_baseline_lands_in_the_same_table(variants):
    folders, results = variants
    run, metrics = only_run(folders["median"]), figures(commands.folder_of(results["median"]))
    assert (run.info.status, run.data.params["model"], run.data.params["model.size"]) == ("FINISHED", "median", "3")
    assert metrics["test/psnr_gain"] > 3
    assert {k: run.data.metrics[k] for k in metrics} == pytest.approx(metrics)
    assert not (commands.folder_of(results["median"]) / "model.keras").exists()
    assert results["median"].stderr == ""


def test_fallback_is_said_loudly_and_marked(variants):
    folders, results = variants
    assert "NOT THE DATA YOU ASKED FOR" in results["fallback"].stdout
    assert "must not be compared" in " ".join(results["fallback"].stdout.replace("│", " ").split())
    run = only_run(folders["fallback"])
    assert run.data.metrics["data/fallback"] == 1
    assert "fashion_mnist could not be had, so this run uses digits instead" in run.data.tags["aelab.fallback"]
    assert run.info.run_name == "denoise-median-digits"
    assert run.data.params["dataset"] == "digits"
    assert "fashion_mnist could not be had" in (commands.folder_of(results["fallback"]) / "report.html").read_text()


def test_without_fallback_missing_data_is_an_error(variants):
    result = variants[1]["none"]
    said = commands.complaint(result)
    assert "train-images-idx3-ubyte.gz is not in" in said
    assert "could not be downloaded (127.0.0.1:" in said
    assert "AELAB_DATA_DIR" in said
    assert result.returncode == 1


def test_profile_says_where_the_time_went(variants):
    result = variants[1]["profile"]
    text = (commands.folder_of(result) / "profile.txt").read_text()
    assert "cumulative" in text
    assert "evaluate.py" in text
    assert "profile.txt" in result.stdout


def test_overfit_learns_a_few_images_by_heart(variants):
    history = pd.read_csv(commands.folder_of(variants[1]["overfit"]) / "history.csv")
    assert len(history) == 100
    assert history["train/mse"].iloc[0] > 0.1
    assert history["train/mse"].iloc[-1] < 0.006
