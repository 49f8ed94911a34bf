"""Nothing that is read is executed: not by a config, a run folder, a model's file or a data file of somebody else."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import yaml
from omegaconf import OmegaConf

from aelab import account, archive, check, cli, components, compose, declared, store
from aelab.config import AelabError, DataError

SENTINEL = "was_run"
GROUPS = [*check.ONE, *check.SEVERAL, *check.NEEDED, "search", "launcher", components.RATE]
FOREIGN = (
    # ours, but no component
    "aelab.cli.dispatch",
    "aelab.cli.main",
    "aelab.console.leave",
    "aelab.call.located",
    "aelab.call.build",
    "aelab.compose.trust",
    "aelab.data.load.load",
    "aelab.models.vectors.folder_of",
    "aelab.similarities.fitted",
    "aelab.corruptions.chain",
    "aelab.tasks.task.Task",
    "aelab.archive.read",
    "aelab.config.AelabError",
    # what a module of ours has from elsewhere
    "aelab.engine.get_object",
    "aelab.cli.psutil.Process",
    "aelab.commands.importlib.import_module",
    "aelab.compose.instantiate",
    "aelab.compose.build",
    # methods and private names
    "aelab.models.rankers.Ease.fit",
    "aelab.tasks.denoise.Denoise.prepare",
    "aelab.similarities._vectors",
    "aelab.__main__.main",
    "__main__.main",
    # others
    "os.system",
    "subprocess.run",
    "builtins.eval",
    "joblib.load",
    "pickle.loads",
    "keras.optimizers.get",
    "keras.optimizers.deserialize",
    "keras.optimizers.serialize",
    "keras.optimizers.schedules.deserialize",
    "keras.optimizers.Optimizer",
    "keras.layers.Lambda",
    "keras.saving.load_model",
    "keras.utils.get_file",
    "hydra.utils.get_object",
    "hydra.utils.instantiate",
    # no names at all
    "",
    ".",
    "aelab.",
    "../x.y",
    "/etc/x.y",
    "a b.c",
)


def refusal(call, *args):
    """The one line of an error, with its exit code."""
    with pytest.raises(AelabError) as error:
        call(*args)
    assert "\n" not in str(error.value)
    return str(error.value), error.value.code


# ---- what a group takes


@pytest.mark.parametrize("group", GROUPS)
def test_a_group_takes_its_own_components_alone(group):
    others = set().union(*(own for name, own in components.own().items() if name != group))
    twice = {t for t in others if t in components.own().get(group, ())}
    for target in (*FOREIGN, *(others - twice)):
        if (
            target.startswith("keras.optimizers.")
            and group == "optimizer"
            and declared.derives(target, components.OPTIMIZER)
        ):
            continue
        for allow in ((), ("aelab",), ("os", "subprocess", "hydra", "pickle")):
            text, code = refusal(components.verify, "here", target, group, allow)
            assert text.startswith(
                (f"here._target_: {target} is not", f"here._target_: there is no function or class {target}")
            )
            assert code == 2


def yaml_targets(node, group):
    """(group, target) of every `_target_` of a parsed YAML, by the top-level key where it has one of all groups."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield group, node["_target_"]
        for value in node.values():
            yield from yaml_targets(value, group)


def test_what_conf_names_is_a_groups_own():
    found = {}
    for file in compose.CONF.rglob("*.yaml"):
        text, group = file.read_text(), file.parent.name
        parts = yaml.safe_load(text) or {}
        parts = parts if "@package _global_" in text else {group: parts}
        for own, target in (pair for name, part in parts.items() for pair in yaml_targets(part, name)):
            found.setdefault(own, set()).add(target)
    assert {group: set(targets) for group, targets in components.own().items()} == found
    assert len(found) == len(GROUPS) - 1  # a schedule of Keras has no YAML


@pytest.mark.parametrize("group", sorted(components.own()))
def test_aelabs_own_have_the_form_that_is_asked_of_others(group):
    for target in components.own()[group]:
        assert components._formed(group, target), target
        components.verify("here", target, group, ())


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """A package of a user's, in the working folder, with a function of each form, and much that is none."""
    monkeypatch.chdir(tmp_path)
    package = tmp_path / "lab"
    (package / "nets").mkdir(parents=True)
    formed = [
        components.form(group).replace("name(", f"{group}(").replace("*, knobs", "*, knob: int") + ": ..."
        for group in components.DATA
    ]
    (package / "__init__.py").write_text(
        "import os, subprocess\nfrom os import system\nfrom subprocess import run\n"
        "from aelab.cli import dispatch\nfrom aelab.models.unet import unet_mini\nfrom .nets import deep\n"
        "from .nets.wide import wide as broad\nfrom other import strange\n"
    )
    (package / "parts.py").write_text(
        "from aelab.tasks.denoise import Denoise\nfrom keras import optimizers\n"
        + "\n".join(formed)
        + "\ndef dataset(*, path: str) -> Images: ...\n"
        "class task(Denoise): ...\nclass optimizer(optimizers.Adam): ...\n"
        "class learned:\n    def fit(self, x): ...\n    def __call__(self, x, y, /): ...\n"
        "def helper(x): ...\ndef _private(shape, /): ...\n"
        "class circle(circle): ...\nclass Tool:\n    def model(shape, /): ...\n"
        "class itself(itself): ...\n"
    )
    (package / "nets" / "__init__.py").write_text("from .wide import wide\nfrom .wide import deep\n")
    (package / "nets" / "wide.py").write_text(
        "from lab.nets import endless\ndef wide(shape, /, *, width): ...\ndef deep(shape, /): ...\n"
    )
    (tmp_path / "other.py").write_text("def strange(shape, /): ...\n")
    for cached in (declared._definition, declared._names, declared._tree):
        cached.cache_clear()
    yield package
    for cached in (declared._definition, declared._names, declared._tree):
        cached.cache_clear()


@pytest.mark.parametrize("group", [*components.DATA, "task", "dataset", "optimizer"])
def test_an_allowed_package_is_taken_where_it_has_the_form_of_the_group(lab, group):
    components.verify(group, f"lab.parts.{group}", group, ("lab",))
    text, _ = refusal(components.verify, group, f"lab.parts.{group}", group, ())
    assert text.endswith("if you trust this one, add allow=[lab]")
    for target in ("parts.helper", "parts._private", "parts.Tool.model", "parts.itself", "run", "system", "os.system"):
        refusal(components.verify, group, f"lab.{target}", group, ("lab",))
    for target in ("dispatch", "subprocess.run", "nets.endless", "nets.wide.endless", "parts.Denoise"):
        if (group, target) != ("task", "parts.Denoise"):
            refusal(components.verify, group, f"lab.{target}", group, ("lab",))


def test_what_a_package_has_from_elsewhere(lab):
    for name in ("unet_mini", "deep", "broad", "nets.wide.wide"):
        components.verify("model", f"lab.{name}", "model", ("lab",))
    components.verify("similarity", "lab.parts.learned", "similarity", ("lab",))
    text, _ = refusal(components.verify, "model", "lab.strange", "model", ("lab",))
    assert text.startswith("model._target_: other.strange is not allowed: ")
    assert text.endswith("add allow=[lab,other]")
    components.verify("model", "lab.strange", "model", ("lab", "other"))


@pytest.mark.parametrize("code", [b"def net(:", b"\xff", b"x = '\x00'"])
def test_a_package_that_is_no_python_is_one_line(code, lab):
    (lab / "broken.py").write_bytes(code)
    assert "broken.py: is no Python: " in refusal(components.verify, "model", "lab.broken.net", "model", ("lab",))[0]


# ---- at any depth, by any way in


def composed(*words):
    """The config of a command line."""
    overrides, extra, _ = cli.split_flags(list(words))
    dirs = compose.folders(extra)
    with compose.session():
        return compose.compose(overrides, dirs)


EVIL = {"_target_": "pathlib.Path.touch", "self": SENTINEL}
RUNS_PICKLE = {
    "_target_": "aelab.cli.dispatch",
    "argv": ["allow=[joblib]", "+dataset={_target_:joblib.numpy_pickle.load,filename:x}"],
}
PLACES = {
    "dataset": ("dataset",),
    "model": ("model",),
    "task": ("task",),
    "optimizer": ("optimizer",),
    "schedule": ("schedule",),
    "rate": ("optimizer", "learning_rate"),
    "a loss": ("loss", "mse"),
    "a metric": ("metric", "psnr"),
    "a corruption": ("corruption", "gaussian"),
    "mask": ("mask",),
    "launcher": ("launcher",),
    "search": ("search",),
    "fit": ("fit", "patience"),
    "a choice": ("choices", "model"),
    "a list of numbers": ("model", "widths"),
    "a knob of any type": ("optimizer", "name"),
    "a group of settings": ("debug",),
    "nowhere": ("path",),
}


@pytest.fixture(scope="module")
def stored():
    """The config of a run, as its folder has it."""
    return store.told(composed("model=conv_ae", "dataset=digits", "schedule=constant", "loss=mse"))


def run_folder(tmp_path, stored, place, value):
    """A run folder whose config has another value in one place."""
    cfg = yaml.safe_load(stored)
    node = cfg
    for name in place[:-1]:
        node = node[name]
    node[place[-1]] = value
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump(cfg))
    return tmp_path / "run"


@pytest.mark.parametrize("depth", [0, 1, 2], ids=["itself", "in a list", "in a dict in a list"])
@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_a_run_folder_calls_nothing(place, depth, tmp_path, stored, monkeypatch):
    monkeypatch.chdir(tmp_path)
    value = [EVIL, [RUNS_PICKLE], [{"x": EVIL}]][depth]
    run_folder(tmp_path, stored, place, value)
    text, code = refusal(cli.dispatch, ["evaluate", "run=run"])
    assert text.startswith("run/config.yaml: ")
    assert code == 1
    assert not Path(SENTINEL).exists()


@pytest.mark.parametrize("key", ["_args_", "_partial_", "_recursive_", "_convert_", "_mode_"])
@pytest.mark.parametrize("place", [("model",), ("loss", "mse"), ("model", "bottleneck"), ("fit", "patience")], ids=str)
def test_words_to_hydra_are_no_values(place, key, tmp_path, stored, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = run_folder(tmp_path, stored, ("seed",), 0)
    cfg = OmegaConf.load(folder / "config.yaml")
    node = OmegaConf.select(cfg, ".".join(place))
    value = {**node, key: True} if OmegaConf.is_dict(node) else {key: True}
    OmegaConf.update(cfg, ".".join(place), value)
    OmegaConf.save(cfg, folder / "config.yaml")
    assert refusal(cli.dispatch, ["evaluate", "run=run"])[1] == 1


@pytest.mark.parametrize("command", ["evaluate", "rerun", "resume", "predict", "score", "recommend", "similar"])
def test_every_command_on_a_run_refuses_it(command, tmp_path, stored, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_folder(tmp_path, stored, ("dataset",), RUNS_PICKLE)
    (tmp_path / "in.npy").touch()
    more = {"predict": ["input=in.npy", "output=o.npy"], "score": ["input=in.npy", "output=o.csv"]}
    more |= {"recommend": ["user=1"], "similar": ["item=1"]}
    text, code = refusal(cli.dispatch, [command, "run=run", *more.get(command, [])])
    assert text.startswith("run/config.yaml: dataset._target_: aelab.cli.dispatch is not a dataset; give dataset=NAME")
    assert code == 1


def test_trust_is_not_in_a_run_folder(tmp_path, stored, lab):
    folder = run_folder(tmp_path, stored, ("allow",), ["lab"])
    cfg = OmegaConf.load(folder / "config.yaml")
    cfg.model = {"_target_": "lab.parts.model", "knob": 1}
    OmegaConf.save(cfg, folder / "config.yaml")
    text, _ = refusal(cli.dispatch, ["evaluate", "run=run"])
    assert text.startswith("run/config.yaml: model._target_: lab.parts.model is not allowed: ")


@pytest.mark.parametrize("value", ["${oc.env:HOME}", "${oc.decode:x}", "a ${seed}", "${oc.create:{a:1}}"])
@pytest.mark.parametrize("place", [("output_dir",), ("dataset", "seed"), ("loss", "mse", "weight")], ids=str)
def test_a_stored_config_looks_up_nothing(place, value, tmp_path, stored, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_folder(tmp_path, stored, place, value)
    text, code = refusal(cli.dispatch, ["evaluate", "run=run"])
    assert text == "run/config.yaml: has a ${...} in it, which no stored config has; copy the run folder again"
    assert code == 1


def test_a_stored_command_looks_up_nothing(tmp_path, stored, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = run_folder(tmp_path, stored, ("seed",), 0)
    (folder / "overrides.yaml").write_text("- ${oc.env:HOME}\n")
    assert account.words(folder) == ["${oc.env:HOME}"]
    text, _ = refusal(cli.dispatch, ["resume", "run=run"])
    assert str(Path.home()) not in text


@pytest.mark.parametrize("name", ["../../x", "/x", "a/../../x", "..", "a/b"])
def test_names_of_a_stored_config_are_names_and_no_paths(name, tmp_path, stored, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for place in (("choices", "task"), ("choices", "model")):
        run_folder(tmp_path, stored, place, name)
        assert "expected the name of a choice" in refusal(cli.dispatch, ["rerun", "run=run"])[0]
        (tmp_path / "run" / "config.yaml").unlink()
        (tmp_path / "run").rmdir()
    run_folder(tmp_path, stored, ("metric", name), {"_target_": "aelab.ops.mse", "goal": "min"})
    assert "expected a name of letters" in refusal(cli.dispatch, ["evaluate", "run=run"])[0]


def test_python_objects_in_yaml(tmp_path, stored, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = run_folder(tmp_path, stored, ("seed",), 0)
    for tag in ("object/apply:pathlib.Path.touch", "object/new:pathlib.Path", "name:os.system", "module:os"):
        (folder / "config.yaml").write_text(f"{stored}path: !!python/{tag} [{SENTINEL}]\n")
        assert refusal(cli.dispatch, ["evaluate", "run=run"])[1] == 1
    assert not Path(SENTINEL).exists()


@pytest.fixture
def conf(tmp_path, monkeypatch):
    """A folder of configs that is somebody else's; gives a function that writes a file of it."""
    monkeypatch.chdir(tmp_path)

    def write(name, text):
        file = tmp_path / "theirs" / f"{name}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return ["--config-dir", "theirs"]

    return write


HOSTILE = {
    "a choice": ("model/net", "_target_: pathlib.Path.touch\nself: was_run\n", "model=net", "model._target_"),
    "an experiment": (
        "experiment/x",
        "# @package _global_\ndataset:\n  _target_: aelab.cli.dispatch\n  argv: [a]\n",
        "experiment=x",
        "dataset._target_",
    ),
    "a nested one": (
        "experiment/x",
        "# @package _global_\noptimizer:\n  learning_rate: {_target_: pathlib.Path.touch}\n",
        "experiment=x",
        "optimizer.learning_rate",
    ),
    "trust": ("experiment/x", "# @package _global_\nallow: [os]\n", "experiment=x", "allow: no file can allow"),
    "a callback": (
        "experiment/x",
        "# @package _global_\nhydra:\n  callbacks: {x: {_target_: os.mkdir, path: was_run}}\n",
        "experiment=x",
        "x.yaml: sets Hydra's own settings",
    ),
    "a fallback": (
        "dataset/other",
        "_target_: pathlib.Path.touch\nself: was_run\n",
        "dataset.fallback=other",
        "dataset=other._target_: pathlib.Path.touch is not allowed",
    ),
}


@pytest.mark.parametrize("option", [[], ["--cfg", "job"], ["-m"]], ids=str)
@pytest.mark.parametrize("case", HOSTILE)
def test_a_folder_of_configs_has_values_alone(case, option, conf):
    name, text, word, expected = HOSTILE[case]
    words = conf(name, text)
    line, code = refusal(cli.dispatch, [*option, *words, word])
    assert expected in line
    assert code == 2
    assert not Path(SENTINEL).exists()


def test_a_fallback_of_the_working_folders_is_checked_when_it_is_taken(tmp_path, monkeypatch):
    from aelab.run import dataset_choice

    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf" / "dataset").mkdir(parents=True)
    cfg = composed("dataset=digits")
    ours = "_target_: aelab.data.digits.digits\nlimit: [{_args_: 1}]\n"
    for text in ("_target_: pathlib.Path.touch\nself: was_run\n", ours):
        (tmp_path / "conf" / "dataset" / "other.yaml").write_text(text)
        assert refusal(dataset_choice, cfg, "other")[0].startswith("dataset=other.")


def test_hydras_logging_is_not_built_from_a_config(conf):
    text = "version: 1\nformatters:\n  x: {(): os.mkdir, path: was_run}\nroot: {level: INFO}\n"
    words = conf("hydra/hydra_logging/evil", text)
    chosen = conf("experiment/evil", "# @package _global_\ndefaults:\n  - override /hydra/hydra_logging: evil\n")
    asked = [*words, *chosen, "experiment=evil"]
    for shown in ([], ["--cfg", "job"], ["--info"]):
        assert "evil.yaml: sets Hydra's own settings" in refusal(cli.dispatch, [*shown, *asked])[0]
    assert refusal(cli.dispatch, [*words, "hydra/hydra_logging=evil"])[0].startswith("hydra/hydra_logging=evil: cannot")
    assert "cannot be given" in refusal(cli.dispatch, ["--hydra-help", "--cfg", "job"])[0]


@pytest.mark.parametrize("key", ["allow", "+allow", "hydra.searchpath", "hydra/launcher", "~hydra.x"])
def test_a_table_or_an_experiment_sets_values_alone(key, conf, tmp_path):
    (tmp_path / "jobs.csv").write_text(f"seed,{key}\n1,[os]\n")
    text, code = refusal(cli.dispatch, ["-m", "sweep.table=jobs.csv"])
    assert text == f"sweep.table=jobs.csv: {key} cannot be set there; type it on the command line"
    assert code == 2
    words = conf("experiment/x", f'# @package _global_\nsweep:\n  over: {{"{key}": "[os]"}}\n')
    assert "sweep.over: " in refusal(cli.dispatch, ["-m", *words, "experiment=x"])[0]
    assert "sweep.over: " in refusal(cli.dispatch, ["-m", *words, "experiment=x", "search=tpe"])[0]


# ---- fitted objects


def part(loader, name, **more):
    """A part of the schema of a .skops file."""
    module, _, kind = name.rpartition(".")
    return {"__loader__": loader, "__module__": module, "__class__": kind, **more}


def plain(value):
    return part("JsonNode", "builtins.str", content=json.dumps(value), is_json=True)


def several(*parts):
    return part("TupleNode", "builtins.tuple", content=list(parts))


def dumped(root, file=Path("model.skops")):
    """A .skops file made by hand."""
    from skops.io._protocol import PROTOCOL

    with zipfile.ZipFile(file, "w") as opened:
        opened.writestr("schema.json", json.dumps({**root, "protocol": PROTOCOL, "_skops_version": "0.16.0"}))
    return file


CALL = ("ConstructorFromReduceNode", "os.mkdir")
ARGUMENT = several(plain(SENTINEL))
NONE = part("DictNode", "builtins.dict", content={}, key_types=part("ListNode", "builtins.list", content=[]))
CALLING = {
    "a constructor": part(*CALL, content=ARGUMENT),
    "ours": part("ConstructorFromReduceNode", "aelab.archive.write", content=several(plain(1), plain(SENTINEL))),
    "ours by another loader": part("ListNode", "aelab.console.leave", content=[]),
    "a set": part("SetNode", "os.mkdir", content=[]),
    "a list": part("ListNode", "os.remove", content=[]),
    "a dict": part("DictNode", "os.getcwd", content={}, key_types=part("ListNode", "builtins.list", content=[])),
    "the keys of a dict": part(
        "DictNode",
        "builtins.dict",
        content={SENTINEL: plain(1)},
        key_types=part("ListNode", "builtins.list", content=[part("TypeNode", "os.mkdir")]),
    ),
    "a method": part(
        "MethodNode", "pathlib.Path", content={"func": "touch", "obj": part("ObjectNode", "pathlib.Path")}
    ),
    "a function": part("FunctionNode", "os.mkdir"),
    "a function of NumPy": part("FunctionNode", "numpy.add"),
    "a function of scikit-learn": part("FunctionNode", "sklearn.datasets.load_files"),
    "a type": part("TypeNode", "builtins.eval"),
    "an operator": part("OperatorFuncNode", "operator.methodcaller", attrs=several(plain("touch"))),
    "a partial": part(
        "PartialNode",
        "functools.partial",
        content={"func": part("FunctionNode", "os.mkdir"), "args": ARGUMENT, "kwds": NONE, "namespace": NONE},
    ),
    "a loss": part("LossNode", "os.mkdir", content=NONE, __reduce__={"args": ARGUMENT}),
    "a generator": part("RandomStateNode", "os.getcwd", content=NONE),
    "an array": part("NdArrayNode", "os.mkdir", type="numpy", file="schema.json"),
    "an object of another package": part("ObjectNode", "subprocess.Popen", content=NONE),
    "a class of ours that is not stored": part("ObjectNode", "aelab.run.partial", content=NONE),
    "an estimator that aelab does not use": part(
        "ObjectNode", "sklearn.preprocessing._function_transformer.FunctionTransformer", content=NONE
    ),
    "no loader of skops": part("EvalNode", "builtins.eval"),
    "no name": {"__loader__": "ObjectNode", "__module__": None, "__class__": 3},
    "a loader that is no text": {"__loader__": ["ObjectNode"], "__module__": "os", "__class__": "mkdir"},
}


@pytest.mark.parametrize("inside", [False, True], ids=["alone", "inside"])
@pytest.mark.parametrize("case", CALLING)
def test_a_fitted_model_is_made_of_known_parts_alone(case, inside, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = part("ObjectNode", "aelab.models.outliers.Detector", content=several(plain(1), CALLING[case]))
    file = dumped(root if inside else CALLING[case])
    text, code = refusal(archive.read, file)
    assert "which no model of aelab has; not read" in text
    assert code == 1
    assert not Path(SENTINEL).exists()


def test_skops_calls_what_a_file_names(tmp_path, monkeypatch):
    """So that the test above is about something."""
    import skops.io

    monkeypatch.chdir(tmp_path)
    file = dumped(part(*CALL, content=ARGUMENT))
    skops.io.load(file, trusted=skops.io.get_untrusted_types(file=file))
    assert Path(SENTINEL).exists()


def test_the_classes_that_are_read_only_take_data():
    import importlib

    for name in archive.MADE["ObjectNode"]:
        module, _, kind = name.rpartition(".")
        made = getattr(importlib.import_module(module), kind)
        assert isinstance(made, type)
        if name.startswith("aelab."):  # skops fills __dict__: nothing of ours is called
            assert not {"__setstate__", "__new__", "__del__", "__getattr__"} & vars(made).keys()


@pytest.mark.parametrize("member", ["schema.json", "inner.npz"])
def test_a_model_larger_than_memory_is_not_unpacked(member, tmp_path, monkeypatch):
    from psutil import virtual_memory

    file = tmp_path / "model.skops"
    inner = tmp_path / "inner"
    with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("data", bytes(10**6))
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr(member, inner.read_bytes() if member == "inner.npz" else bytes(10**6))
    small = type("Memory", (), {"available": 10**5})
    monkeypatch.setattr(archive.psutil, "virtual_memory", lambda: small)
    assert virtual_memory is not archive.psutil.virtual_memory
    assert "of memory, more than there is; not read" in refusal(archive.read, file)[0]


@pytest.mark.parametrize("schema", ["[" * 100_000, "[]", "3", "{}", '{"__loader__": "ListNode"}', "\xff"])
def test_a_broken_schema_is_one_line(schema, tmp_path):
    with zipfile.ZipFile(tmp_path / "model.skops", "w") as opened:
        opened.writestr("schema.json", schema.encode("latin-1"))
    assert refusal(archive.read, tmp_path / "model.skops")[1] == 1


# ---- models of Keras


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """The members of a small model's file."""
    import keras

    file = tmp_path_factory.mktemp("network") / "model.keras"
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, name="first")]).save(file)
    with zipfile.ZipFile(file) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


def layer(name, registered=None, **config):
    module, _, kind = name.rpartition(".")
    return {"module": module or None, "class_name": kind, "config": config, "registered_name": registered}


def function(name):
    module, _, kind = name.rpartition(".")
    return {"module": module, "class_name": "function", "config": kind, "registered_name": kind}


CODE = {"class_name": "__lambda__", "config": {"value": {"code": "4wEAAAA=", "defaults": None, "closure": None}}}
ASKING = {
    "Lambda": layer("keras.layers.Lambda", function=CODE),
    "Lambda, its module": layer("keras.src.layers.core.lambda_layer.Lambda", function=CODE),
    "Lambda, in short": {"class_name": "Lambda", "config": {"function": CODE}},
    "Lambda, registered": layer("keras.layers.Lambda", "aelab>Draw", function=CODE),
    "a lambda": CODE,
    "TFSMLayer": layer("keras.layers.TFSMLayer", filepath="theirs"),
    "Torch": layer("keras.layers.TorchModuleWrapper", module="x"),
    "a vocabulary": layer("keras.layers.StringLookup", vocabulary="/etc/passwd"),
    "get_file": function("keras.utils.get_file"),
    "load_model": function("keras.models.load_model"),
    "load_model, its module": function("keras.src.saving.saving_lib.load_model"),
    "unsafe from now on": function("keras.config.enable_unsafe_deserialization"),
    "deserialize": function("keras.layers.deserialize"),
    "os": layer("os.system", command="touch was_run"),
    "os, a function": function("os.system"),
    "builtins": layer("builtins.eval", source="1"),
    "ours": layer("aelab.cli.dispatch", argv=["doctor"]),
    "keras_hub": layer("keras_hub.models.Backbone"),
    "a callback": layer("keras.callbacks.BackupAndRestore", backup_dir="was_run"),
    "an optimizer": layer("keras.optimizers.Adam"),
    "no text": {"module": "keras.layers", "class_name": ["Dense"], "config": {}},
    "no module": {"module": 3, "class_name": "Dense", "config": {}},
}


@pytest.mark.parametrize("place", ["layer", "activation", "build_config", "a dict in a list", "model"])
@pytest.mark.parametrize("case", ASKING)
def test_a_network_is_made_of_layers_alone(case, place, network, tmp_path, monkeypatch):
    from aelab import backend

    monkeypatch.chdir(tmp_path)
    whole = json.loads(network["config.json"])
    first = whole["config"]["layers"][-1]
    if place == "layer":
        whole["config"]["layers"][-1] = ASKING[case]
    elif place == "model":
        whole = {**ASKING[case], "compile_config": None}
    elif place == "a dict in a list":
        first["config"]["x"] = [{"y": ASKING[case]}]
    elif place == "activation":
        first["config"]["activation"] = ASKING[case]
    else:
        first["build_config"] = {"input_shape": ASKING[case]}
    with zipfile.ZipFile("model.keras", "w") as opened:
        for name, content in network.items():
            opened.writestr(name, json.dumps(whole) if name == "config.json" else content)
    text, code = refusal(backend.restored, Path("model.keras"))
    assert "which no model of aelab has; not read" in text
    assert code == 1
    assert not Path(SENTINEL).exists()


@pytest.mark.parametrize("name", ["../../evil", "/tmp/aelab-evil"])
def test_a_network_with_a_file_for_elsewhere_is_one_line(name, network, tmp_path, monkeypatch, recwarn):
    from aelab import backend

    monkeypatch.chdir(tmp_path)
    with zipfile.ZipFile("model.keras", "w") as opened:
        for own, content in {**network, name: b"x"}.items():
            opened.writestr(own, content)
    text, code = refusal(backend.restored, Path("model.keras"))
    assert text.startswith("model.keras: cannot be read: UserWarning: Skipping invalid path")
    assert (code, len(recwarn)) == (1, 0)


def test_a_network_without_some_of_its_weights_is_one_line(network, tmp_path, monkeypatch):
    import h5py

    from aelab import backend

    monkeypatch.chdir(tmp_path)
    Path("w.h5").write_bytes(network["model.weights.h5"])
    with h5py.File("w.h5", "a") as opened:
        del opened["layers"][next(iter(opened["layers"]))]
    with zipfile.ZipFile("model.keras", "w") as opened:
        for name, content in network.items():
            opened.writestr(name, Path("w.h5").read_bytes() if name.endswith(".h5") else content)
    assert refusal(backend.restored, Path("model.keras"))[1] == 1


def test_a_users_own_layers_are_read(tmp_path, network):
    import keras

    from aelab import backend

    @keras.saving.register_keras_serializable("lab")
    class Twice(keras.layers.Layer):
        """x + x."""

        def call(self, x):
            return x + x

    x = keras.Input((3,))
    y = keras.ops.clip(Twice()(keras.layers.Dense(2, "relu", kernel_regularizer="l2")(x)), 0, 1)
    model = keras.Model(x, y)
    model.compile("adam", "mse")
    model.save(tmp_path / "model.keras")
    rows = np.ones((1, 3), np.float32)
    np.testing.assert_array_equal(backend.restored(tmp_path / "model.keras")(rows), model(rows))


# ---- data


@pytest.mark.parametrize("name", ["x.npy", "x.npz"])
def test_pickled_arrays_are_not_read(name, tmp_path, monkeypatch):
    from aelab import stored as commands_on_runs

    monkeypatch.chdir(tmp_path)

    class Touch:
        def __reduce__(self):
            return Path(SENTINEL).touch, ()

    array = np.array([Touch()], object)
    np.save(name, array) if name == "x.npy" else np.savez(name, x=array)
    with pytest.raises(DataError, match=name):
        commands_on_runs.read(Path(name), False)
    assert not Path(SENTINEL).exists()


def test_a_zip_is_unpacked_by_the_names_that_are_known(tmp_path, monkeypatch):
    from aelab.data.fetch import unpacked

    monkeypatch.setenv("AELAB_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "data" / "films").mkdir(parents=True)
    with zipfile.ZipFile(tmp_path / "data" / "films" / "films.zip", "w") as opened:
        for name in ("../../evil", "/evil", "films/../../../evil", "films/u.data"):
            opened.writestr(name, "x")
    found = unpacked("films", "u.data", archive="films", urls=[], md5="", data_dir=str(tmp_path / "data"))
    assert found.read_text() == "x"
    assert not list(tmp_path.rglob("evil"))


@pytest.mark.parametrize("folder", ["../../there", "/there", "a/../../there"])
def test_nothing_is_downloaded_outside_of_the_cache(folder, tmp_path, monkeypatch):
    from aelab.data import fetch

    monkeypatch.setenv("AELAB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(fetch, "knock", lambda url: pytest.fail("asked for"))
    with pytest.raises(DataError, match="none is downloaded to there: expected a relative path"):
        fetch.fetch(folder, "rows.csv", urls=["http://localhost:9/rows.csv"], md5="", data_dir=None)


def test_a_name_without_end_is_not_repeated():
    said, _ = refusal(components.verify, "model", "x" * 50_000, "model", ())
    assert said == "model._target_: expected a function or class, got a text of 50,000 characters"
