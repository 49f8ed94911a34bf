"""Wrong commands, each told in one line; and what must work before anything heavy is imported."""

import functools
import gzip
import json
import shutil
import time

import commands
import numpy as np
import pytest

CONFIG_ERRORS = {
    "key": (["optimizer.lrr=1"], "optimizer.lrr: unknown; "),
    "near key": (["fit.epoch=1"], "fit.epoch: unknown; did you mean epochs?"),
    "group": (["modle=conv_ae"], "modle: unknown; did you mean model?"),
    "model": (["model=unet_mny"], "model=unet_mny: no such model; there are: als, "),
    "type": (["fit.epochs=many"], "fit.epochs: expected a whole number at least 0, got 'many'"),
    "range": (["corruption.level=-0.2"], "corruption.gaussian.level: expected a number at least 0, got -0.2"),
    "choice": (["fit.precision=float8"], "fit.precision: expected one of auto, float32, "),
    "empty": (["fit.batch_size="], "fit.batch_size: expected a whole number at least 1, got ''"),
    "seed": (["seed=-1"], "seed: expected a whole number at least 0, got -1"),
    "missing": (["dataset=npz"], "path: missing; give it as path=..."),
    "option": (["--fast"], "--fast: no such option; there are: -m, "),
    "word": (["fit.epochs"], "fit.epochs: expected key=value or one of: compare, "),
    "grammar": (["model=[a"], "model=[a: not understood; write key=value"),
    "target": (["optimizer._target_=os.system"], "optimizer._target_: os.system is not allowed"),
    "no target": (["model._target_=aelab.models.conv.conv_aa"], "model._target_: there is no function or class aelab."),
    "last job": (["-m", "model=conv_ae,unet_mny"], "model=unet_mny: no such model"),
    "config folder": (["--config-dir", "nowhere"], "nowhere: no such folder"),
    "no run given": (["evaluate"], "run: missing; give it as run=DIR_OR_ID"),
    "no input": (["predict", "run=x", "input=no.npy", "output=y.npy"], "input=no.npy: no such file"),
    "command's word": (["evaluate", "this"], "this: expected key=value; this command takes run"),
    "--cfg": (["--cfg", "job", "modle=conv_ae"], "modle: unknown; did you mean model?"),
    "ui": (["ui", "prot=1"], "prot=1: unknown; did you mean port?"),
    "no label": (["task=anomaly", "dataset=csv", "path=a.csv", "positive=1"], "label: missing; give it as label=..."),
    "no score": (["task=anomaly", "~score"], "score=null: task=anomaly needs one; there are: elbo, "),
    "score": (["score=mae"], "score=mae: task=denoise takes none; leave it out"),
    "table": (["dataset=nsl_kdd"], "dataset=nsl_kdd: is for table data, but task=denoise takes image; datasets that "),
    "pictures": (
        ["task=anomaly", "model=unet_mini"],
        "model=unet_mini: is for image data, but task=anomaly takes table",
    ),
    "share": (
        ["task=anomaly", "dataset.contamination=2"],
        "dataset.contamination: expected a number from 0 to 1, got 2",
    ),
    "repair": (["task=anomaly", "dataset.repair=guess"], "dataset.repair: expected one of missing, drop or null, got "),
    "no rows": (["score", "run=x", "input=no.csv", "output=y.csv"], "input=no.csv: no such file"),
    "no output": (["score", "run=x", "input=no.csv"], "output: missing; give it as output=FILE"),
}


@pytest.fixture(scope="module")
def wrong(tmp_path_factory):
    """The outcome of every wrong command, and the folder that they ran in."""
    cwd = tmp_path_factory.mktemp("wrong")
    calls = {name: functools.partial(commands.run, *words, cwd=cwd) for name, (words, _) in CONFIG_ERRORS.items()}
    return commands.together(calls), cwd


@pytest.mark.parametrize("case", CONFIG_ERRORS)
def test_config_error_is_one_line_and_exit_code_2(case, wrong):
    results, cwd = wrong
    assert CONFIG_ERRORS[case][1] in commands.complaint(results[case])
    assert results[case].returncode == 2
    assert results[case].stdout == ""
    assert list(cwd.iterdir()) == []


@pytest.mark.parametrize("command", ["evaluate", "predict", "score", "rerun"])
def test_a_run_that_is_not_there(command, tmp_path):
    (tmp_path / "in.npy").touch()
    words = ("input=in.npy", "output=out.npy") if command in ("predict", "score") else ()
    result = commands.run(command, "run=nowhere", *words, cwd=tmp_path)
    assert "run=nowhere: no such folder" in commands.complaint(result)
    assert result.returncode != 0


@pytest.fixture
def user(tmp_path):
    """A user's own package and conf/ in the working folder."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "__init__.py").touch()
    (tmp_path / "mine" / "models.py").write_text(
        "class Table: ...\n\n"
        "def own(shape: 'Image', /, *, width: int):\n    raise RuntimeError\n\n"
        "def other(shape, /, *, width: int):\n    raise RuntimeError\n"
    )
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "own.yaml").write_text("_target_: mine.models.other\nwidth: 3\n")
    return tmp_path


def test_a_users_package_must_be_allowed(user):
    result = commands.run("model=own", cwd=user)
    assert "mine.models.other is not allowed" in commands.complaint(result)
    assert "allow=[mine]" in result.stderr
    assert result.returncode == 2


def test_a_users_config_is_checked_against_the_users_source(user):
    result = commands.run("model=own", "allow=[mine]", "model.width=wide", cwd=user)
    assert commands.complaint(result) == "model.width: expected a whole number, got 'wide'"
    assert result.returncode == 2


def test_a_task_refuses_what_does_not_fit_it(user):
    (user / "mine" / "tasks.py").write_text(
        "from aelab.tasks.task import Task\n\n\nclass Forecast(Task):\n    kinds = ('series',)\n"
    )
    (user / "conf" / "task").mkdir()
    (user / "conf" / "task" / "forecast.yaml").write_text("_target_: mine.tasks.Forecast\n")
    result = commands.run("task=forecast", "allow=[mine]", "dataset=digits", cwd=user)
    assert (
        "dataset=digits: is for image data, but task=forecast takes series; datasets that fit: none"
        in commands.complaint(result)
    )
    assert result.returncode == 2


def test_broken_yaml_in_a_users_conf(user):
    (user / "conf" / "model" / "own.yaml").write_text("_target_: [mine.models.other\nwidth: 3\n")
    result = commands.run("model=own", "allow=[mine]", cwd=user)
    assert "own.yaml" in commands.complaint(result)
    assert result.returncode == 2


def test_output_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    result = commands.run(*commands.DIGITS, "output_dir=file/below", cwd=tmp_path)
    assert "output_dir=file/below: cannot be written (Not a directory); give another" in commands.complaint(result)
    assert result.returncode == 1


def test_tracking_server_that_does_not_answer_is_told_before_training(tmp_path):
    uri, clock = f"http://127.0.0.1:{commands.free_port()}", time.monotonic()
    result = commands.run(*commands.DIGITS, cwd=tmp_path, MLFLOW_TRACKING_URI=uri)
    assert f"the tracking server {uri} does not answer" in commands.complaint(result)
    assert result.returncode == 1
    assert time.monotonic() - clock < 20
    assert not list(tmp_path.glob("outputs/**/history.csv"))


def test_user_config_folder_by_option_is_shown_and_completed(user):
    (user / "conf").rename(user / "elsewhere")
    (user / "elsewhere" / "model" / "own.yaml").write_text("_target_: aelab.models.filters.Median\nsize: 9\n")
    for words in (
        ["--cfg", "job", "-cd", "elsewhere", "model=own"],
        ["--cfg=job", "model=own", "--config-dir=elsewhere"],
    ):
        assert "size: 9" in commands.done(*words, cwd=user).stdout
    (user / "elsewhere").rename(user / "conf")
    assert "size: 9" in commands.done("--cfg", "job", "model=own", cwd=user).stdout
    asked = commands.done("-sc", "query=bash", cwd=user, COMP_LINE="aelab model=ow", COMP_POINT="14")
    assert asked.stdout.split() == ["model=own"]


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """The commands that are found to be wrong only once data or model are loaded, two at a time."""
    cwd = tmp_path_factory.mktemp("broken")
    data = cwd / "data" / "fashion-mnist"
    data.mkdir(parents=True)
    (data / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(bytes(4000))[:30])
    (cwd / "broken.npy").write_bytes(b"\x93NUMPY of no use")
    np.save(cwd / "small.npy", np.zeros((2, 5, 5), np.float32))
    (cwd / "rows.csv").write_text("size,age,label\n" + "".join(f"{i},{i % 7},{i % 4 == 0:d}\n" for i in range(80)))
    (cwd / "bad.csv").write_text((cwd / "rows.csv").read_text().replace("\n41,", "\nlarge,"))
    rows = ("task=anomaly", "dataset=csv", "positive=1")
    results = commands.together(
        {
            "good": lambda: commands.finished(tmp_path_factory)[1],
            "no file": lambda: commands.run("dataset=npz", "path=nope.npz", cwd=cwd),
            "truncated": lambda: commands.run("dataset=fashion_mnist", cwd=cwd, AELAB_DATA_DIR=str(cwd / "data")),
            "no column": lambda: commands.run(*rows, "path=rows.csv", "label=lable", cwd=cwd),
            "bad cell": lambda: commands.run(*rows, "path=bad.csv", "label=label", cwd=cwd),
        }
    )
    good = commands.folder_of(results["good"])
    run = f"run={good}"
    np.save(cwd / "right.npy", np.zeros((2, 28, 28), np.float32))
    spoilt = {
        "no model": ("model.keras", lambda whole: None),
        "half a model": ("model.keras", lambda whole: whole[: len(whole) // 2]),
        "altered model": ("model.keras", lambda whole: whole.replace(b"conv2d", b"conv3e")),
        "no YAML": ("config.yaml", lambda whole: b"a: [\n" + whole),
        "half a config": ("config.yaml", lambda whole: whole[: whole.index(b"\nmodel:")]),
    }
    for name, (file, change) in spoilt.items():
        shutil.copytree(good, cwd / name)
        left = change((good / file).read_bytes())
        (cwd / name / file).unlink() if left is None else (cwd / name / file).write_bytes(left)
    after = {
        "broken input": ("predict", run, "input=broken.npy", "output=out.npy"),
        "small input": ("predict", run, "input=small.npy", "output=out.npy"),
        "no such id": ("evaluate", f"run={'0' * 32}"),
        "evaluate key": ("evaluate", run, "corruption.lvl=1"),
        "evaluate group": ("evaluate", run, "model=median"),
        "score pictures": ("score", run, "input=rows.csv", "output=out.csv"),
        **{name: ("predict", f"run={name}", "input=right.npy", "output=out.npy") for name in spoilt},
    }
    return results | commands.together({n: functools.partial(commands.run, *w, cwd=cwd) for n, w in after.items()})


@pytest.mark.parametrize(
    ("case", "code", "texts"),
    [
        ("no file", 1, ["nope.npz: no such file", "run.log)"]),
        ("truncated", 1, ["train-images-idx3-ubyte.gz: expected a whole gzip file, got: ", "run.log)"]),
        ("no column", 2, ["rows.csv: dataset.label: column lable: unknown; did you mean label?", "run.log)"]),
        ("bad cell", 1, ["bad.csv: column size: expected finite numbers, got 'large' in line 43;", "run.log)"]),
        ("score pictures", 2, ["aelab score is for runs on tables, this one is of task=denoise"]),
        ("no model", 1, ["model.keras is not there: the run did not finish"]),
        ("half a model", 1, ["half a model/model.keras: is not whole, or not the one that this run wrote; copy the"]),
        ("altered model", 1, ["altered model/model.keras: is not whole, or not the one that this run wrote; copy"]),
        ("no YAML", 1, ["no YAML/config.yaml: is no YAML; copy the run folder again"]),
        (
            "half a config",
            1,
            ["half a config/config.yaml: is not whole, lacks ", "model", "; copy the run folder again"],
        ),
        ("no such id", 1, [f"run={'0' * 32}: neither a run folder nor the id of a run"]),
        (
            "broken input",
            1,
            ["input=broken.npy: expected a whole .npz or .npy without pickles, got: an .npy of version 32.111"],
        ),
        ("small input", 1, ["small.npy: images of (5, 5, 1), but the model takes (28, 28, 1)"]),
        ("evaluate key", 2, ["corruption.lvl: unknown; did you mean level?"]),
        ("evaluate group", 2, ["model=median: a stored run keeps its components"]),
    ],
)
def test_error_that_shows_only_later_is_one_line_too(case, code, texts, broken):
    said = commands.complaint(broken[case])
    assert all(text in said for text in texts)
    assert broken[case].returncode == code
    assert "Traceback" not in broken[case].stdout


HEAVY = ("tensorflow", "keras", "mlflow", "sklearn", "scipy", "matplotlib", "pandas")
LIGHT = """
import atexit, json, sys
from aelab import cli
atexit.register(lambda: print(json.dumps([m for m in {heavy} if m in sys.modules])))
cli.main(sys.argv[1:])
"""


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["--cfg", "job"],
        ["--cfg", "job", "model=conv_ae"],
        ["optimizer.lrr=1"],
        ["model=nope"],
        ["-m", "model=conv_ae,nope"],
        ["evaluate"],
        ["-sc", "install=bash"],
    ],
    ids=" ".join,
)
def test_nothing_heavy_is_imported_for(words, tmp_path):
    program = (str(commands.BIN / "python"), "-c", LIGHT.format(heavy=HEAVY))
    result = commands.end(commands.start(*words, cwd=tmp_path, program=program))
    assert json.loads(result.stdout.splitlines()[-1]) == []


def test_help_names_the_choices(tmp_path):
    result = commands.done("--help", cwd=tmp_path)
    assert result.stderr == ""
    for word in ("unet_mini", "conv_ae", "fashion_mnist", "salt_pepper", "bottleneck", "aelab evaluate"):
        assert word in result.stdout


def test_cfg_shows_the_config_and_runs_nothing(tmp_path):
    result = commands.done("--cfg", "job", "model=conv_ae", "model.bottleneck=7", cwd=tmp_path)
    assert result.stderr == ""
    assert "bottleneck: 7" in result.stdout
    assert list(tmp_path.iterdir()) == []


def test_shell_completion(tmp_path):
    script = commands.done("-sc", "install=bash", cwd=tmp_path).stdout
    assert "complete -o nospace -o default -F hydra_bash_completion aelab" in script
    line = "aelab model=conv_"
    asked = commands.done("-sc", "query=bash", cwd=tmp_path, COMP_LINE=line, COMP_POINT=str(len(line)))
    assert {"model=conv_ae", "model=conv_ae_spatial"} <= set(asked.stdout.split())
