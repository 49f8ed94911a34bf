"""The architecture, read from the sources: who may import whom, and where a value may stand."""

import ast
from fnmatch import fnmatch
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from aelab import check, compose, declared
from aelab.compose import CONF

PACKAGE = Path(check.__file__).parent
FILES = {
    ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): file
    for file in sorted(PACKAGE.rglob("*.py"))
}
# Low to high. A module imports from lower layers only, never from its own: so the layers hold no cycle, and any one
# of them can be understood without those above it.
LAYERS = (
    ("aelab",),
    ("aelab.config", "aelab.console"),
    ("aelab.declared", "aelab.run_files"),
    ("aelab.components",),
    ("aelab.check", "aelab.archive", "aelab.account", "aelab.store", "aelab.database", "aelab.claims"),
    ("aelab.source", "aelab.call", "aelab.overrides", "aelab.interpolations"),
    ("aelab.conf_files",),
    ("aelab.registry",),
    ("aelab.explain",),
    ("aelab.compose", "aelab.circumstances"),
    ("aelab.incident", "aelab.show", "aelab.keys"),
    ("aelab.grid",),
    ("aelab.space",),
    (
        "aelab.ops",
        "aelab.ranking",
        "aelab.backend",
        "aelab.archive",
        "aelab.inference",
        "aelab.inference.lstm",
        "aelab.inference.tokens",
    ),
    ("aelab.inference.*", "aelab.classification"),
    ("aelab.data.limits",),
    ("aelab.data", "aelab.data.record", "aelab.data.lines", "aelab.data.arrays", "aelab.data.pictures"),
    ("aelab.data.fetch", "aelab.data.columns", "aelab.data.interactions"),
    ("aelab.data.frames",),
    ("aelab.data.table", "aelab.data.ratings"),
    ("aelab.data.*",),
    ("aelab.data.load",),
    (
        "aelab.corruptions",
        "aelab.masks",
        "aelab.augmentations",
        "aelab.losses",
        "aelab.regularizers",
        "aelab.metrics",
        "aelab.frechet",
        "aelab.similarities",
        "aelab.schedules",
    ),
    ("aelab.preparation", "aelab.scores", "aelab.thresholds"),
    ("aelab.models", "aelab.models.unet", "aelab.models.dense"),
    ("aelab.models.conv",),
    ("aelab.models.*",),
    ("aelab.export",),
    ("aelab.callbacks",),
    ("aelab.fit",),
    ("aelab.evaluate", "aelab.streams"),
    ("aelab.mlflow_store",),
    ("aelab.tracking", "aelab.figures"),
    ("aelab.report", "aelab.charts", "aelab.query"),
    ("aelab.memory", "aelab.paired"),
    ("aelab.tasks", "aelab.tasks.task"),
    ("aelab.tasks.recommend",),
    ("aelab.tasks.*",),
    ("aelab.past", "aelab.plan"),
    ("aelab.run", "aelab.folders"),
    ("aelab.work",),
    ("aelab.launchers", "aelab.launchers.server"),
    ("aelab.launchers.local",),
    ("aelab.launchers.alone",),
    ("aelab.launchers.*",),
    ("aelab.search",),
    ("aelab.stored", "aelab.compare", "aelab.sweep", "aelab.sync", "aelab.services", "aelab.help"),
    ("aelab.lookup", "aelab.generate", "aelab.draw", "aelab.engine"),
    ("aelab.commands",),
    ("aelab.cli",),
    ("aelab.__main__",),
)


def layer(module):
    """The number of a module's layer: that of its exact name, or else of its pattern."""
    exact = [i for i, names in enumerate(LAYERS) if module in names]
    found = exact or [i for i, names in enumerate(LAYERS) if any(fnmatch(module, name) for name in names)]
    assert found, f"{module} has no layer: give it one in LAYERS"
    return found[0]


def imports(file):
    """Every module that a file imports, also inside functions."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file}: a relative import"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in FILES else node.module


@pytest.mark.parametrize("module", FILES)
def test_imports_go_down(module):
    own = layer(module)
    for name in imports(FILES[module]):
        if name.split(".")[0] == "aelab":
            assert name in FILES, f"{module} imports {name}, which is not there"
            assert layer(name) < own, f"{module} (layer {own}) imports {name} (layer {layer(name)})"


@pytest.mark.parametrize(
    ("package", "only"), [("mlflow", {"aelab.tracking", "aelab.mlflow_store"}), ("tensorflow", {"aelab.backend"})]
)
def test_what_can_be_replaced_stands_in_one_place(package, only):
    users = {module for module, file in FILES.items() for name in imports(file) if name.split(".")[0] == package}
    assert users == only


@pytest.mark.parametrize("module", [name for name, file in FILES.items() if file.name == "__init__.py"])
def test_packages_are_empty(module):
    body = ast.parse(FILES[module].read_text()).body
    assert all(isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) for node in body)
    assert len(body) <= 1


@pytest.mark.parametrize("module", FILES)
def test_files_and_functions_are_short(module):
    text = FILES[module].read_text()
    assert len(text.splitlines()) <= 310
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno - node.lineno < 60, node.name


# ---- values stand in conf/, their names and types in the signatures

CHOICES = [
    (group, name)
    for group in compose.groups([CONF])
    for name, file in compose.choices(group, [CONF]).items()
    if compose.target(file)
]


def yaml_node(group, name):
    """The part of a YAML that has the `_target_`."""
    node = OmegaConf.to_container(OmegaConf.load(CONF / group / f"{name}.yaml"))
    while "_target_" not in node:
        node = next(v for v in node.values() if isinstance(v, dict))
    return node


def function(target):
    """The `def` that a `_target_` calls, or None where a class has no `__init__` of its own."""
    node = declared.signature(target).node
    if isinstance(node, ast.ClassDef):
        return next((n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"), None)
    return node


OURS = [(group, name) for group, name in CHOICES if yaml_node(group, name)["_target_"].startswith("aelab.")]


def test_the_listing_is_read():
    assert {group for group, _ in OURS} >= {"task", "dataset", "corruption", "model", "loss", "metric", "schedule"}
    assert {group for group, _ in set(CHOICES) - set(OURS)} == {"optimizer"}


@pytest.mark.parametrize(("group", "name"), OURS)
def test_a_default_stands_in_the_yaml_alone(group, name):
    spec = function(yaml_node(group, name)["_target_"]).args
    assert [a.arg for a in spec.args if a.arg != "self"] == []  # data are positional-only, knobs keyword-only
    assert spec.vararg is spec.kwarg is None
    assert spec.defaults == []
    assert spec.kw_defaults == [None] * len(spec.kwonlyargs)


@pytest.mark.parametrize(("group", "name"), OURS)
def test_every_knob_is_typed(group, name):
    knobs = declared.signature(yaml_node(group, name)["_target_"]).knobs
    assert all(knob.type is not declared.Any for knob in knobs.values())


@pytest.mark.parametrize(("group", "name"), OURS)
def test_the_yaml_has_every_knob_and_nothing_else(group, name):
    node = yaml_node(group, name)
    extra = check.GROUP_KEYS.get(group, {})
    needed = {key for key, kind in extra.items() if not check.conforms(None, kind)}
    knobs = declared.signature(node["_target_"]).knobs.keys()
    assert knobs | needed <= node.keys() - check.HYDRA_KEYS <= knobs | extra.keys()


@pytest.mark.parametrize(("group", "name"), [pair for pair in OURS if pair[0] in check.SEVERAL])
def test_what_is_taken_several_times_has_its_files_name(group, name):
    """Else `loss=mse loss.mse.weight=2` would not find it."""
    assert list(OmegaConf.load(CONF / group / f"{name}.yaml")) == [name]


@pytest.mark.parametrize("file", sorted(CONF.rglob("*.yaml")), ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_a_yaml_says_what_it_is(file):
    if file.parent.name not in ("optimizer",):  # Keras documents those
        assert file.read_text().startswith("# ")
