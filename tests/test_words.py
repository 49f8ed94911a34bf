"""Command lines and config files that cannot be: one line, at once, whatever is typed or stands in a file."""

import logging
import os
import re
import subprocess
import sys
import time

import commands
import pytest

from aelab import cli, compose, conf_files, config, console, declared, grid, incident, overrides, show
from aelab.config import AelabError, ConfigError

MONITORS = "val/loss, val/log_mse, val/ssim, val/psnr, val/mse, val/mae"
SETTINGS = "hydra.run.dir, hydra.sweep.dir, hydra.sweep.subdir"
NAME = "a name, of at most 200 characters and without /"
FEWER = "more than sweep.max_jobs=500; give fewer values"
UNMEASURED = "not measured in every epoch; there are"
STEP = "expected finite numbers and a step other than 0"
UNSET = f"cannot be set; of Hydra's settings these can: {SETTINGS}"
MOST = 2**31 - 1
INTEGER = "expected a whole number at least"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A working folder, and commands that end where they would begin to run jobs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "started", lambda cfg, multirun, command: 0)
    return tmp_path


def line(*argv):
    """What a command line is refused with: one line that says something, exit code 2, in less than 10 s."""
    start = time.monotonic()
    with pytest.raises(AelabError) as error:
        cli.dispatch(list(argv))
    said = str(error.value)
    assert error.value.code == 2
    assert said.strip(": ")
    assert "\n" not in said
    assert time.monotonic() - start < 10
    return said


def fine(*argv):
    """A command line that is as it should be."""
    assert cli.dispatch(list(argv)) == 0


def file(folder, path, content):
    """A file of a user's config folder."""
    place = folder / "conf" / path
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(content if isinstance(content, bytes) else content.encode())


def nested(depth, brackets="[]"):
    """A value of so many levels."""
    opening, closing = (["[", "]"], ["{a:", "}"])[brackets == "{}"]
    return opening * depth + "1" + closing * depth


@pytest.mark.parametrize(
    ("words", "said"),
    [
        # more than one wrong key
        (["fit.epoch=3", "optimizer.lr=1"], "fit.epoch: unknown; did you mean epochs?"),
        (["-m", "fit.epoch=3,4", "optimizer.lr=1,2"], "fit.epoch: unknown; did you mean epochs?"),
        (["modle=unet_mini", "fit.epoch=3"], "modle: unknown; did you mean model?"),
        # values of a data set that was not named
        (["task=anomaly", "path=a.csv", "label=x", "positive=1"], "path: is for another data set; add dataset=csv"),
        (["path=a.csv", "label=x"], "path: is for another data set; add task=anomaly dataset=csv"),
        (["path=a.npz"], "path: is for another data set; add dataset=images or dataset=npz"),
        # what is no name of a choice
        (["corruption=[1]"], "corruption=[1]: expected the name of a choice"),
        (["loss=[null]"], "loss=[null]: expected the name of a choice"),
        (["metric=[[psnr]]"], "metric=[[psnr]]: expected the name of a choice"),
        (["loss={a:1}"], "loss={a:1}: expected the name of a choice"),
        (["-m", "loss=[1],[2]"], "loss=[1],[2]: expected the name of a choice"),
        (["model=[unet_mini]"], "model=[unet_mini]: expected the name of one choice, as in model=NAME"),
        (["metric=[psnr,ssim,psnr]"], "metric=[psnr,ssim,psnr]: psnr is there twice; leave one of them out"),
        (["-m", "loss=[mse,mse],[mae]"], "loss=[mse,mse],[mae]: mse is there twice; leave one of them out"),
        # Hydra's own
        (["hydra.launcher=null"], f"hydra.launcher=null: {UNSET}"),
        (["hydra.sweeper.params=3"], f"hydra.sweeper.params=3: {UNSET}"),
        (["~hydra.run.dir"], f"~hydra.run.dir: {UNSET}"),
        (["hydra/launcher=basic"], f"hydra/launcher=basic: {UNSET}"),
        (["hydra=null"], f"hydra=null: {UNSET}"),
        (["hydra.run.dir="], "hydra.run.dir=: expected the path of a folder; give it as hydra.run.dir=FOLDER"),
        (["hydra.run.dir=${nope}"], "hydra.run.dir: Interpolation key 'nope' not found"),
        # sweeps of nothing, and without end
        (["-m", "model.width=range(8,8)"], "model.width=range(8,8): an empty range; type the lowest first, as in "),
        (["-m", "model.width=range(8,9,0)"], f"model.width=range(8,9,0): {STEP}"),
        (["-m", "model.width=range(0,inf)"], f"model.width=range(0,inf): {STEP}"),
        (["-m", "sweep.seeds=100000"], f"-m: 100,000 jobs, {FEWER}, or type sweep.max_jobs=100000"),
        (["-m", "optimizer.learning_rate=range(0,1,1e-9)"], f"-m: 1,000,000,000 jobs, {FEWER}"),
        (["-m", "seed=shuffle(range(0,1e12))"], f"-m: 1,000,000,000,000 jobs, {FEWER}"),
        (["-m", "seed=range(1000)", "model.width=range(1,1000)"], f"-m: 999,000 jobs, {FEWER}"),
        (
            ["-m", "search=tpe", "model.width=interval(1,inf)"],
            "model.width=interval(1,inf): expected two ",
        ),
        (["model.width=1,2"], "model.width=1,2: several values; add -m for a job with each, or give one list, as "),
        (["-m", "nope=glob(*)"], "nope=glob(*): matches no nope; there are: none, as it is no group"),
        (
            ["-m", "sweep.over=3"],
            "sweep.over: expected names, and for each a text or a number or ",
        ),
        (["-m", "sweep=null"], "sweep: expected values for plan, force, retry, on_error, seeds, zip, "),
        # a wrong key beside a glob
        (["-m", "model=glob(*)", "model.widht=3"], "model.widht: unknown; did you mean width?"),
        (["-m", "model=glob(*)", "fit.epoch=3"], "fit.epoch: unknown; did you mean epochs?"),
        (["-m", "model=glob(*)", "modle.width=3"], "modle.width: unknown; did you mean model?"),
        # values that no run can have
        (["+optimizer.global_clipnorm=nan"], "optimizer.global_clipnorm: expected a finite number or null, got nan"),
        (["+optimizer.clipvalue=1e999"], "optimizer.clipvalue: expected a finite number or null, got inf"),
        (["+optimizer.clipnorm=abc"], "optimizer.clipnorm: expected a number or null, got 'abc'"),
        (["task=recommend", "model=blend", "model.members=x"], "model.members: expected values by name, got 'x'"),
        (["+model._convert_=zz"], "model._convert_: unknown; there are: "),
        (["+model._recursive_=zz"], "model._recursive_: unknown; there are: "),
        (["fit.monitor=test/psnr"], f"fit.monitor=test/psnr: not measured in every epoch; there are: {MONITORS}"),
        (["fit.monitor="], f"fit.monitor=: not measured in every epoch; there are: {MONITORS}"),
        (
            ["task=inpaint", "metric=[ssim]", "fit.monitor=val/psnr"],
            f"fit.monitor=val/psnr: {UNMEASURED}: val/loss, ",
        ),
        (["task=anomaly", "fit.monitor=val/roc_auc"], f"fit.monitor=val/roc_auc: {UNMEASURED}: val/loss, val/mse"),
        (
            ["task=recommend", "fit.monitor=val/ndcg@7"],
            f"fit.monitor=val/ndcg@7: {UNMEASURED}: ",
        ),
        (["optimizer.learning_rate=inf"], "optimizer.learning_rate: expected a finite number, got inf"),
        (["optimizer.learning_rate=1e400"], "optimizer.learning_rate: expected a finite number, got inf"),
        (["optimizer.learning_rate=nan"], "optimizer.learning_rate: expected a finite number, got nan"),
        (["+optimizer.beta_1=inf"], "optimizer.beta_1: expected a finite number, got inf"),
        (["corruption.level=inf"], "corruption.gaussian.level: expected a finite number at least 0, got inf"),
        (["seed=18446744073709551616"], f"seed: {INTEGER} 0, got 18446744073709551616; at most {MOST}"),
        (["seed=2147483648"], f"seed: {INTEGER} 0, got 2147483648; at most {MOST}"),
        (["fit.epochs=" + "9" * 30], f"fit.epochs: {INTEGER} 0, got {'9' * 30}; at most {MOST}"),
        (
            ["fit.batch_size=" + str(2**70)],
            f"fit.batch_size: {INTEGER} 1, got {2**70}; at most {MOST}",
        ),
        (
            ["fit.patience=" + str(2**70)],
            f"fit.patience: {INTEGER} 1 or null, got {2**70}; at most {MOST}",
        ),
        (["tracking.experiment=a/b"], f"tracking.experiment: expected {NAME}, got 'a/b'"),
        (["tracking.experiment="], f"tracking.experiment: expected {NAME}, got ''"),
        (["tracking.experiment=.."], f"tracking.experiment: expected {NAME}, got '..'"),
        (["tracking.experiment='a\nb'"], f"tracking.experiment: expected {NAME}, got 'a\\nb'"),
        (
            ["tracking.experiment=" + "x" * 201],
            f"tracking.experiment: expected {NAME}, got '{'x' * 59} ... ",
        ),
        (["output_dir="], "output_dir: expected the path of a folder, got ''"),
        (["dataset.validation=1"], "dataset.validation: expected a number above 0 and below 1, got 1"),
        (["dataset.validation=0"], "dataset.validation: expected a number above 0 and below 1, got 0"),
        (["dataset=digits", "dataset.test=0"], "dataset.test: expected a number above 0 and below 1, got 0"),
        (
            ["task=language", "dataset.validation=1"],
            "dataset.validation: expected a number at least 0 and ",
        ),
        (["task=recommend", "dataset.test=1"], "dataset.test: expected a number above 0 and below 1, got 1"),
        (["+choices.model=x"], "choices: is what comes of the others; choose with GROUP=NAME, such as model=unet_mini"),
        # too deep, too long, or no text
        (["seed=" + "x" * 10_000], f"seed={'x' * 25} ... {'x' * 15}: too long; at most 10,000 characters and 1,000 "),
        (["-m", "seed=" + "1," * 1001 + "1"], "seed=1,1,1,1,1,1,1,1,1,1,1,1,1 ... 1,1,1,1,1,1,1,1: too long; at most "),
        (["seed=\ud8ff"], "seed=\\ud8ff: is no text in UTF-8; write it so"),
        (["output_dir=a\x07"], "output_dir=a\\x07: has the control character '\\x07'; leave it out"),
        (["@x=1"], "@x=1: not understood; write key=value"),
        # Hydra's options
        (["--info", "all", "fit.epoch=3"], "fit.epoch: unknown; did you mean epochs?"),
        (["--cfg", "job", "hydra.launcher=null"], f"hydra.launcher=null: {UNSET}"),
        (["--run", "task=denoise", "--cfg=job"], f"--run: cannot be given here; {show.USE}"),
        (["--cfg", "job", "-m"], f"-m: cannot be given here; {show.USE}"),
        (["--cfg", "--info"], "--cfg --info: expected one of job, hydra, all"),
        (["--cfg", "job", "-i", "all"], f"--info: cannot be given with --cfg; {show.USE}"),
        (["--cfg=nope"], "--cfg nope: expected one of job, hydra, all"),
        (["--info", "nope"], f"nope: expected key=value; {show.USE}"),
        (["--info=nope"], "--info nope: expected one of all, config, defaults, defaults-tree, plugins, searchpath"),
        (["--info", "--resolve"], f"--resolve: is for --cfg; {show.USE}"),
        (["--cfg", "job", "--package", "modle"], "--package modle: no such part; there are: seed, "),
        (
            ["-sc", "install=fishy"],
            "--shell-completion install=fishy: expected install=bash, install=zsh ",
        ),
        (["-sc", "query=bash"], "--shell-completion query=bash: is for the script that install=bash gives; use that"),
        (["--config-dir"], "--config-dir: expected a folder after it, as in --config-dir my_conf"),
        (["--cfg", "job", "--config-dir="], "--config-dir: expected a folder after it, as in --config-dir my_conf"),
    ],
)
def test_what_is_typed_wrong_is_one_line(words, said):
    assert line(*words).startswith(said)


@pytest.mark.parametrize("multirun", [[], ["-m"], ["--cfg", "job"]], ids=" ".join)
@pytest.mark.parametrize("depth", [21, 300, 1000])
def test_values_nested_deep_are_refused_before_they_are_parsed(depth, multirun):
    for word in (
        f"model.width={nested(depth)}",
        f"+model.x={nested(depth, '{}')}",
        f"model.width={'int(' * depth}1{')' * depth}",
        f"seed={'${' * depth}{'}' * depth}",
        ".".join("a" * (depth + 1)) + "=1",
        "/".join("a" * (depth + 1)) + "=1",
    ):
        assert re.match(r".{1,100}: nested too deep; at most 20 levels$", line(*multirun, word))


def test_values_as_deep_as_is_allowed_are_understood():
    assert line(f"model.width={nested(20)}").startswith("model.width: expected a whole number at least 1, got [[[")
    assert overrides.depth("a=['[[[', \"((\", \\[\\[, [{}]]") == 3


def test_a_chain_of_interpolations_is_refused_and_a_circle_is_named():
    chain = [f"+model.a{n}=" + f"${{model.a{n + 1}}}" * 2 for n in range(40)]
    assert line(*chain, "+model.a40=x") == "model.a0: stands for too many other values; write it with fewer ${...}"
    beside = [f"+model.a{n}=" + f"${{.a{n + 1}}}" * 2 for n in range(40)]
    assert line(*beside, "+model.a40=x").startswith("model.a0: stands for too many other values")
    assert line("seed=${seed}") == "seed: Recursive interpolation detected"
    assert line("seed=${nope}") == "seed: Interpolation key 'nope' not found"
    fine("model.width=${model.blocks}", "model.bottom=${.width}")


LAUGH = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{last}'] * 9)}]\n" for last, name in zip("abcdefghi", "bcdefghij", strict=True)
)
LINES = {
    "broken": ("a: [1\n", "no valid YAML: line 3: expected ',' or ']', but got '<stream end>'"),
    "twice": ("a: 1\na: 2\n", "no valid YAML: line 3: found duplicate key a"),
    "tab": ("a:\n\tb: 1\n", "no valid YAML: line 3: found character '\\t' that cannot start any token"),
    "number": ("{1: 2}\n", "1: expected a text as a key; put it in quotes"),
    "inner": ("fit:\n  true: 2\n", "fit.True: expected a text as a key; put it in quotes"),
    "mapping": ("? {a: b}\n: 1\n", "no valid YAML: line 2: found unhashable key"),
    "set": ("a: !!set {a, b}\n", "line 2: !!set is no plain value, list or mapping; leave it out"),
    "python": (
        "a: !!python/object/apply:os.system [ls]\n",
        "line 2: !!python/object/apply:os.system ",
    ),
    "tag": ("a: !foo 1\n", "line 2: !foo is no plain value, list or mapping; leave it out"),
    "list": ("- seed: 1\n", "expected lines of key: value, got a list"),
    "scalar": ("3\n", "expected lines of key: value, got a single value"),
    "documents": ("a: 1\n---\nb: 2\n", "no valid YAML: line 3: but found another document"),
    "latin": (b"a: \xe9\n", "expected a text in UTF-8, invalid continuation byte at byte 23"),
    "nul": ("a: \0\n", "no valid YAML: unacceptable character #x0000"),
    "laugh": (LAUGH, "line 6: its aliases make it too large; at most 10,000 values, 20 levels"),
    "circle": ("a: &a {b: *a}\n", "line 2: *a refers to what it stands in; write it out"),
    "deep": (f"a: {'[' * 1000}{']' * 1000}\n", "line 2: nested too deep; at most 20 levels"),
    "hydra": ("hydra:\n  launcher: null\n", f"sets Hydra's own settings; it may set these: {SETTINGS}"),
    "all": ("hydra: 3\n", f"sets Hydra's own settings; it may set these: {SETTINGS}"),
}


@pytest.mark.parametrize("multirun", [[], ["-m"], ["--cfg", "job"]], ids=" ".join)
@pytest.mark.parametrize("case", LINES)
def test_a_file_that_cannot_be_read_is_named_with_its_line(case, multirun, here):
    content, said = LINES[case]
    head = b"# @package _global_\n"
    file(here, f"experiment/{case}.yaml", head + (content if isinstance(content, bytes) else content.encode()))
    assert line(*multirun, f"experiment={case}").startswith(f"{here}/conf/experiment/{case}.yaml: {said}")


@pytest.mark.parametrize("defaults", ["[mine]", "[/experiment: mine]"])
def test_defaults_in_a_circle_are_one_line(defaults, here):
    file(here, "experiment/mine.yaml", f"# @package _global_\ndefaults: {defaults}\n")
    assert line("experiment=mine")
    assert line("-m", "experiment=mine")


def test_what_is_no_file_is_no_choice(here):
    (here / "conf" / "model" / "folder.yaml").mkdir(parents=True)
    (here / "conf" / "model" / "link.yaml").symlink_to("nowhere")
    for name in ("folder", "link", "../model/unet_mini", "unet_mini.yaml", "/etc/passwd"):
        said = line(f"model={name}")
        assert re.match(r"model=\S+: no such model; there are: als, ", said)
        assert "folder, " not in said
        assert "link, " not in said


def test_a_file_that_may_not_be_read_is_named(here, monkeypatch):
    file(here, "model/mine.yaml", "_target_: aelab.models.unet.unet_mini\n")

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    place = here / "conf" / "model" / "mine.yaml"
    monkeypatch.setattr(type(place), "read_text", refuse)
    with pytest.raises(ConfigError, match=re.escape(f"{place}: cannot be read (Permission denied)")):
        conf_files.read(place)


def test_a_file_may_set_the_folders_of_results_and_repeat_what_it_names(here):
    file(
        here,
        "experiment/mine.yaml",
        "# @package _global_\nhydra:\n  run:\n    dir: mine\nmodel: &it\n  width: 8\nfit: {epochs: 2}\n",
    )
    with compose.session():
        (job,), _ = grid.every(["experiment=mine"], compose.folders([]), False)
    assert (job.folder, job.cfg.fit.epochs) == (here / "mine", 2)


@pytest.mark.parametrize(
    "words",
    [
        ["task=recommend", "fit.monitor=val/ndcg@20", "task.at=[20]"],
        ["task=recommend", "dataset.validation=0"],
        ["task=inpaint", "fit.monitor=val/psnr"],
        [f"seed={MOST}", "fit.epochs=3"],
        ["tracking.experiment='a b: ü'", "output_dir='a b/c'"],
        ["hydra.run.dir=here"],
        ["-m", "hydra.sweep.dir=here", "hydra.sweep.subdir=3", "seed=1"],
        ["-m", "sweep.max_jobs=2", "seed=1,2"],
        ["-m", "sweep.over={seed:3}"],
    ],
    ids=" ".join,
)
def test_what_is_right_is_taken(words):
    fine(*words)


def test_a_sweep_is_refused_by_the_number_of_its_jobs_with_rows_pairs_and_seeds(here):
    (here / "rows.csv").write_text("seed\n1\n2\n3\n")
    few = "sweep.max_jobs=5"
    said = f"-m: 6 jobs, more than {few}; give fewer values, or type sweep.max_jobs=6"
    assert line("-m", few, "sweep.table=rows.csv", "model.width=8,9") == said
    assert line("-m", few, "model.width=8,9", "sweep.seeds=3") == said
    zipped = ["model.width=8,9,10", "fit.epochs=1,2,3", "sweep.zip=[model.width,fit.epochs]", "seed=1,2"]
    assert line("-m", few, *zipped) == said
    fine("-m", "sweep.max_jobs=6", *zipped)


@pytest.mark.parametrize("word", ["range(0,1,0.3)", "range(8,33,8)", "range(3)", "range(5,1,-2)", "range(1.5,4)"])
def test_a_range_is_counted_as_it_is_made(word):
    (parsed,) = overrides.parse([f"a={word}"])
    made = list(parsed.value().range())
    assert overrides.count(parsed) == len(made)
    assert overrides.ends(parsed) == (made[0], made[-1])
    assert overrides.first_of(parsed) == f"a={made[0]}"


class Mine:
    """What tests of tasks of somebody's own are written to a file as."""

    HEAD = "from aelab.tasks.denoise import Denoise\nfrom aelab.tasks.task import Task\n"


@pytest.mark.parametrize(
    ("body", "good", "bad"),
    [
        ("class Own(Denoise): pass", "val/psnr", "val/thing"),
        ("class Own(Denoise):\n    by_example = False", "val/loss", "val/psnr"),
        ("class Own(Denoise):\n    watches = ('thing',)\n    def watch(self): ...", "val/thing", "val/other"),
        ("class Own(Denoise):\n    def watch(self): ...", "val/thing", "test/thing"),
    ],
)
def test_what_a_task_of_somebodys_measures(body, good, bad, here):
    (here / "own_task.py").write_text(f"{Mine.HEAD}{body}\n")
    declared._definition.cache_clear()
    declared._tree.cache_clear()
    names = {"loss": {"mse": {}}, "metric": {"psnr": {}}, "task": {"_target_": "own_task.Own"}}
    compose._monitored({**names, "fit": {"monitor": good}}, "own_task.Own", [compose.CONF])
    with pytest.raises(ConfigError, match="not measured in every epoch"):
        compose._monitored({**names, "fit": {"monitor": bad}}, "own_task.Own", [compose.CONF])
    declared._definition.cache_clear()


# ---- the guard


class Cunning(Exception):
    """An error that nobody thought of."""


@pytest.fixture
def crash(monkeypatch, capsys):
    """A function that runs a command in which an error is raised; gives its exit code and what it complained of."""

    def run(error, *argv):
        def fail(argv):
            raise error

        def leave(code):
            raise SystemExit(code)

        monkeypatch.setattr(cli, "dispatch", fail)
        monkeypatch.setattr(console, "leave", leave)
        with pytest.raises(SystemExit) as end:
            cli.main(list(argv))
        return end.value.code, capsys.readouterr().err

    return run


@pytest.mark.parametrize("error", [Cunning("a\nb"), RecursionError(), MemoryError(), KeyError("x")], ids=repr)
def test_what_nobody_thought_of_is_a_line_and_a_file(error, crash, here):
    (here / "outputs").mkdir()
    code, said = crash(error, "model=a b", "tracking.uri=http://me:secret@host")
    assert code == 70
    assert said.count("\n") == 1
    name = type(error).__name__
    found = re.match(r"aelab: internal error, not of your making: (.*) \(details: (\S+)\); it came of: (.*)\n", said)
    assert found[1].startswith(name)
    assert found[3] == "aelab 'model=a b' tracking.uri=http://me:***@host"
    (kept,) = (here / "outputs").iterdir()
    assert found[2] == str(kept)
    text = kept.read_text()
    assert text.startswith(f"{found[3]}\n")
    assert "Traceback" in text
    assert name in text
    assert "secret" not in text + said


def test_the_file_goes_elsewhere_where_there_is_no_folder_of_results(crash, here, monkeypatch):
    monkeypatch.setattr(incident.tempfile, "gettempdir", lambda: str(here))
    long = "model=" + "x" * 300
    code, said = crash(Cunning("x"), long, "output_dir=nowhere")
    (kept,) = here.glob("aelab-error-*.txt")
    assert (code, said) == (70, f"aelab: internal error, not of your making: Cunning: x (details: {kept})\n")
    assert long in kept.read_text()
    monkeypatch.setattr(incident.tempfile, "gettempdir", lambda: str(here / "gone"))
    assert "no file could be written" in crash(Cunning("x"))[1]


def test_other_ends_are_as_they_were(crash):
    assert crash(KeyboardInterrupt())[0] == 130
    assert crash(cli.work.Terminated("terminated (SIGTERM)")) == (143, "aelab: terminated (SIGTERM)\n")
    assert crash(ConfigError("wrong")) == (2, "aelab: wrong\n")
    assert crash(OSError(28, "No space left on device", "a")) == (1, "aelab: No space left on device: a\n")
    assert crash(BrokenPipeError()) == (141, "")


# ---- what is shown


def test_the_version_is_ours(capsys):
    fine("--version")
    assert re.fullmatch(r"aelab \d+\.\d+\.\d+\S*\n", capsys.readouterr().out)


def test_a_config_is_shown_whole_or_in_part(capsys, monkeypatch):
    fine("--cfg=job", "-p", "fit", "fit.epochs=7")
    assert capsys.readouterr().out.startswith("# @package fit\nepochs: 7\n")
    fine("-c", "job", "--package", "model.width", "model.width=9")
    assert capsys.readouterr().out == "9\n"
    fine("--cfg", "all")
    both = capsys.readouterr().out
    assert both.startswith("hydra:\n")
    assert "\nseed: 0\n" in both
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@host")
    fine("--cfg", "job", "--resolve")
    resolved = capsys.readouterr().out
    assert "http://me:***@host" in resolved
    assert "${" not in resolved.partition("fit:")[2]


def test_hydras_account_of_a_config(capsys, monkeypatch):
    monkeypatch.setattr(logging, "raiseExceptions", True)
    fine("--info", "defaults", "task=anomaly")
    assert "task/anomaly" in capsys.readouterr().out


SHELL = f"{sys.executable} -m aelab"


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        ("--cfg job | head -1", 0, "seed: 0\n"),
        ("fit.epoch=3 >&-", 2, "aelab: fit.epoch: unknown; did you mean epochs?\n"),
        ("fit.epoch=3 <&- >&- 2>&-", 2, ""),
        ("--version >/dev/full", 1, "aelab: No space left on device\n"),
    ],
)
def test_streams_that_are_closed_or_full(command, code, said, here):
    done = subprocess.run(
        f"{SHELL} {command}",
        shell=True,
        cwd=here,
        env=commands.environment(here, PYTHONPATH=os.pathsep.join(sys.path)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert (done.returncode, done.stdout) == (code, said)


def test_numbers_and_texts_within_bounds():
    assert config.describe(config.Held) == "a number above 0 and below 1"
    assert config.describe(config.Rest) == "a number at least 0 and below 1"
    good = [
        (config.Held, 0.5),
        (config.Rest, 0),
        (config.Name, "a.b c"),
        (config.Folder, " a/b"),
        (config.Whole, MOST),
    ]
    bad = [(config.Held, 0), (config.Rest, 1), (config.Name, " a"), (config.Folder, " "), (config.Whole, 2**31)]
    assert all(config.conforms(value, kind) for kind, value in good)
    assert not any(config.conforms(value, kind) for kind, value in bad)
