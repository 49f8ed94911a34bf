"""What a sweep does again: nothing that is done; and what it says of the rest before it starts."""

from pathlib import Path

import pytest

from aelab import compose, declared, grid, plan, source
from aelab.plan import Past


def config(*words):
    with compose.session():
        return compose.compose(list(words), [compose.CONF])


def past(status, reason="", **params):
    return Past("a" * 32, status, reason, Path(), params, {"time/total_s": 7.0})


# ---- signatures


@pytest.mark.parametrize(("one", "other"), [("corruption.level=1", "corruption.level=1.0"), ("seed=0", "seed=0")])
def test_numbers_that_are_the_same_sign_the_same(one, other):
    assert compose.signature(config(one)) == compose.signature(config(other))


def test_true_is_no_number():
    assert source.floats([True, 1, {"a": 2}, "1"]) == [True, 1.0, {"a": 2.0}, "1"]
    assert source.floats([True])[0] is True


def test_a_file_that_a_config_names_is_part_of_the_signature(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words, signs = ("dataset=npz", "path=data.npz"), []
    for size in (None, 1, 2):
        if size:
            (tmp_path / "data.npz").write_bytes(b"x" * size)
        signs.append(compose.signature(config(*words)))
    assert len(set(signs)) == 3


def test_the_code_that_a_config_uses_is_part_of_the_signature(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, helper in (("one", "x = 1\n"), ("two", "x = 1\n"), ("three", "x = 2\n")):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "models.py").write_text(f"from {name} import (\n    helper,\n)\n")
        (folder / "helper.py").write_text(helper)
        (folder / "other.py").write_text(f"name = {name!r}\n")
    names = {name: {file.name for file in source.files(f"{name}.models.net")} for name in ("one", "three")}
    assert set(map(frozenset, names.values())) == {frozenset({"models.py", "helper.py"})}
    same = (tmp_path / "one" / "models.py").read_text().replace("one", "two")
    assert same == (tmp_path / "two" / "models.py").read_text()
    versions = {name: source.version({"_target_": f"{name}.helper.x"}) for name in ("one", "two", "three")}
    assert versions["one"] == versions["two"] != versions["three"]


IMPORTS = (
    "from .layers import x",
    "from . import layers",
    "from .layers import *",
    "from .import layers as l",
    "import lab.layers as x",
    "from lab.layers import x  # (",
    "from lab import (\n    one,  # not (this)\n    layers,\n)",
    "from lab import one, \\\n    layers",
    "x = 1; from . import layers",
    "def net(shape, /):\n    from .layers import x",
    "if True: from .layers import x",
)


@pytest.mark.parametrize("line", IMPORTS)
def test_every_way_to_import_a_file_makes_it_part_of_the_signature(line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "lab"
    folder.mkdir()
    for name in ("__init__", "layers", "one", "other"):
        (folder / f"{name}.py").write_text("x = 1\n")
    (folder / "models.py").write_text(f"{line}\n")
    found = {file.stem for file in source.files.__wrapped__("lab.models.net")}
    assert found - {"one"} == {"__init__", "models", "layers"}


def test_a_subpackages_relative_imports_are_followed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lab" / "nets").mkdir(parents=True)
    texts = {
        "__init__": "from .nets import net\n",
        "shared": "x = 1\n",
        "nets/__init__": "from .deep import net\n",
        "nets/deep": "from ..shared import x\nfrom .. import more\ndef net(shape, /): ...\n",
        "more": "",
        "other": "",
    }
    for name, text in texts.items():
        (tmp_path / "lab" / f"{name}.py").write_text(text)
    found = {file.relative_to(tmp_path / "lab").with_suffix("").as_posix() for file in source.files("lab.net")}
    assert found == texts.keys() - {"other"}
    assert declared.full_name("lab.net") == "lab.nets.deep.net"


def test_code_that_only_draws_is_not():
    files = {file.stem for file in source.files("aelab.tasks.denoise.Denoise")}
    assert {"denoise", "task", "evaluate", "fit", "backend"} <= files
    assert not {"figures", "charts", "report", "tracking", "cli"} & files


def test_every_target_of_a_config_is_found():
    node = {"a": {"_target_": "x.y", "b": [{"_target_": "x.z"}]}, "c": 3}
    assert source.targets(node) == {"x.y", "x.z"}


# ---- what is to be done


@pytest.mark.parametrize(
    ("own", "force", "retry", "state"),
    [
        ([], False, None, "new"),
        ([past("FINISHED")], False, None, "done"),
        ([past("FAILED", "NaN"), past("FINISHED")], False, None, "done"),
        ([past("FINISHED")], True, None, "again"),
        ([past("FAILED", "NaN")], False, None, "failed"),
        ([past("FAILED", "NaN")], False, "failed", "resume"),
        ([past("FAILED", "NaN")], True, None, "again"),
        ([past("FAILED", "the process died without closing the run")], False, None, "resume"),
        ([past("KILLED", "interrupted (^C)")], False, None, "resume"),
        ([past("KILLED", "interrupted (^C)")], True, None, "again"),
        ([past("KILLED")._replace(folder=Path("nowhere"))], False, None, "again"),
        ([past("RUNNING")], False, None, "running"),
        ([past("RUNNING")], True, None, "again"),
        ([past("FAILED", "no room on the disk: [Errno 28] No space left on device")], False, None, "resume"),
        ([past("KILLED"), past("FAILED", "NaN")], False, None, "resume"),
    ],
)
def test_what_is_to_be_done(tmp_path, own, force, retry, state):
    (tmp_path / "run.json").touch()
    own = [run._replace(folder=tmp_path / run.folder) for run in own]
    found = plan.step(config(), own, [], force, retry)
    assert found.state == state
    assert (found.past is not None) == (state in ("done", "failed", "running", "resume"))
    assert found.settled == (state in ("done", "failed"))


def test_why_a_job_is_new():
    wanted = {"task": "denoise", "model": "ae", "model.width": 24, "seed": 0}
    near = past("FINISHED", task="denoise", model="ae", **{"model.width": "16", "seed": "0", "dataset": "digits"})
    far = past("FINISHED", task="denoise", model="ae", **{"model.width": "8", "seed": "1", "gone": "1"})
    other = past("FINISHED", task="denoise", model="unet", **{"model.width": "24", "seed": "0"})
    assert plan.difference(wanted, [far, near, other]) == "model.width: 16 -> 24"
    assert plan.difference(wanted | {"model.width": 16}, [near]).startswith("the code, or a file")
    assert plan.difference(wanted, [other]) == ""
    assert plan.difference(wanted | {"a": 1, "b": 1, "c": 1}, [far]) == ""


def test_metrics_of_a_run_whose_folder_is_gone_come_from_the_store():
    run = past("FINISHED")._replace(metrics={"test/ndcg_at_10": 0.5, "time/fit_s": 3.0, "learning_rate": 1.0})
    assert plan.outcome(run) == {"test/ndcg@10": 0.5, "time/fit_s": 3.0}


def test_jobs_that_differ_in_values_alone_are_composed_as_if_each_were_alone():
    words = ("model=conv_ae,unet_mini", "corruption.level=0.2,null", "fit.epochs=1,2", "loss=[mse],[mse,ssim]")
    words = (*words, "metric=[psnr]", "hydra.sweep.dir=there")
    with compose.session():
        jobs, _ = grid.every(list(words), [compose.CONF], True)
        alone = [compose.compose(job.overrides, [compose.CONF]) for job in jobs]
    assert len(jobs) == 16
    for number, (job, cfg) in enumerate(zip(jobs, alone, strict=True)):
        assert job.cfg == cfg
        assert job.folder.parent == Path("there").absolute()
        assert job.folder.name == f"{number}-{cfg.choices.model}-{compose.signature(cfg)}"


def test_another_launcher_is_refused():
    with pytest.raises(compose.ConfigError, match="Launcher: cannot be set; of Hydra's settings these can: "):
        config("hydra.launcher._target_=their.Launcher")
