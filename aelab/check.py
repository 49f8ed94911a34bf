"""Every `_target_` of a config against the signature in its source, read with `ast`: nothing is imported.

The convention that this reads: positional-only parameters are data, keyword-only parameters are YAML knobs. Their
annotations (`aelab.config`) give the types and bounds; the first positional parameter's annotation says what kind of
input a model takes, the return annotation what kind a data set gives.
"""

import ast
import builtins
import dataclasses
import difflib
import functools
import importlib.machinery
import importlib.util
import typing
from pathlib import Path
from typing import Any, Literal, NamedTuple

from aelab import config
from aelab.config import ConfigError, conforms, describe

HYDRA_KEYS = {"_target_", "_partial_", "_args_", "_recursive_", "_convert_"}
TRUSTED = ("aelab", "keras.optimizers")
# What a group adds to the knobs of its functions: a loss term's weight, a metric's better direction...
GROUP_KEYS = {
    "loss": {"weight": config.Level, "warmup": config.Whole | None},
    "metric": {"goal": Literal["min", "max"]},
    "dataset": {"fallback": str | None},
    "search": {"trials": config.Count, "goal": str | None, "prune": config.Count | None},
}
ONE = ("task", "dataset", "model", "optimizer", "schedule")
"""The groups of which a run takes one component."""
NEEDED = ("preparation", "score", "threshold", "similarity", "mask")
"""The groups of which a run takes one component if its task says so (`needs`), may take one (`may`), and none else."""
SEVERAL = ("corruption", "loss", "metric")
"""The groups of which a run takes any number, each under its own name."""
KINDS = {
    **{name: (name.lower(),) for name in ("Image", "Ratings", "Pairs")},
    "Coded": ("image", "coded image"),
    **dict.fromkeys(("Pixels", "Drawn"), ("image", "coded image", "drawn image")),
    "Images": ("image", "coded image", "drawn image", "labelled images"),
    "Labelled": ("labelled images",),
    "Masked": ("masked image",),
    **dict.fromkeys(("Row", "Rows", "Table", "Labels"), ("table",)),
    **dict.fromkeys(("Interactions", "Hits"), ("interactions",)),
    "ByItem": ("items",),
    "Catalogue": ("vectors",),
    "Values": ("image", "coded image", "drawn image", "pairs"),
    "Rebuilt": ("image", "coded image", "drawn image", "table", "interactions", "items", "pairs"),
    **dict.fromkeys(("Text", "Tokens"), ("text",)),
}
_NAMES = {**vars(builtins), **vars(typing), **vars(config)}
_SAFE = (ast.Name, ast.Load, ast.Subscript, ast.Tuple, ast.List, ast.Constant, ast.BinOp, ast.BitOr)


class Knob(NamedTuple):
    """A keyword parameter: its type (Any where the source does not say) and whether a value must be given."""

    type: Any
    required: bool


class Signature(NamedTuple):
    """What the source says of a function or class: its knobs, and the kinds that it takes and gives."""

    knobs: dict[str, Knob]
    takes: tuple[str, ...] | None
    gives: tuple[str, ...] | None
    node: ast.AST


def _number(default: ast.expr | None) -> Any:
    """The type that a numeric default implies: Keras does not annotate its optimizers."""
    value = getattr(default, "value", None)
    return float if isinstance(value, int | float) and not isinstance(value, bool) else Any


def _type(annotation: ast.expr | None, default: ast.expr | None) -> Any:
    if annotation is None:
        return _number(default)
    if not all(isinstance(node, _SAFE) for node in ast.walk(annotation)):
        return Any  # a call, say: nothing of a package is run before the user has trusted it
    try:
        return eval(ast.unparse(annotation), {"__builtins__": {}}, _NAMES)
    except (NameError, TypeError):
        return Any


def _name(annotation: ast.expr | None) -> str | None:
    return annotation.id if isinstance(annotation, ast.Name) else None


@functools.cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def file_of(parts: list[str]) -> tuple[Path, list[str]] | None:
    """The file of the longest module in a dotted path, and the rest of the path."""
    here = [str(Path.cwd())]  # where a user's own package is looked for, whatever sys.path says yet
    spec = importlib.util.find_spec(parts[0]) or importlib.machinery.PathFinder.find_spec(parts[0], here)
    if spec is None:
        return None
    rest = parts[1:]
    if spec.submodule_search_locations:  # a package, with or without an __init__.py
        folder = Path(next(iter(spec.submodule_search_locations)))
        file = folder / "__init__.py"
        while rest:
            folder /= rest[0]
            found = next((f for f in (folder / "__init__.py", folder.with_suffix(".py")) if f.exists()), None)
            if found is None and not folder.is_dir():
                break
            file, rest = found or folder / "__init__.py", rest[1:]
    elif (spec.origin or "").endswith(".py"):
        file = Path(spec.origin)
    else:
        return None
    return (file, rest) if file.exists() else None


@functools.cache
def _definition(target: str) -> tuple[ast.AST, str] | None:
    """The function or class that a dotted path names, and its module, through re-exports."""
    parts = target.split(".")
    found = file_of(parts)
    if found is None or len(found[1]) != 1:
        return None
    (file, (name,)) = found
    module = ".".join(parts[:-1])
    for node in _tree(file).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            return node, module
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return _definition(f"{node.module}.{alias.name}")
    return None


def signature(target: str) -> Signature | None:
    """The signature of a dotted path, or None where there is no such function or class."""
    found = _definition(target)
    if found is None:
        return None
    node, module = found
    function = node
    if isinstance(node, ast.ClassDef):
        function = next((n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"), None)
        if function is None:
            return _inherited(node, module) or Signature({}, None, None, node)
    spec = function.args
    keyword = list(zip(spec.kwonlyargs, spec.kw_defaults, strict=True))
    plain = spec.args[1:] if isinstance(node, ast.ClassDef) and not spec.posonlyargs else spec.args
    defaults = [None] * (len(plain) - len(spec.defaults)) + spec.defaults[-len(plain) :] if plain else []
    keyword += list(zip(plain, defaults, strict=True))
    knobs = {a.arg: Knob(_type(a.annotation, d), d is None) for a, d in keyword}
    if spec.kwarg and isinstance(node, ast.ClassDef) and (base := _inherited(node, module)):
        knobs = {**{k: v._replace(required=False) for k, v in base.knobs.items()}, **knobs}
    data = [a for a in spec.posonlyargs if a.arg != "self"]
    takes = KINDS.get(_name(data[0].annotation) or "") if data else None
    return Signature(knobs, takes, KINDS.get(_name(function.returns) or ""), node)


def _inherited(node: ast.ClassDef, module: str) -> Signature | None:
    for base in node.bases:
        name = ast.unparse(base).split(".")[-1]
        found = signature(f"{module}.{name}")
        if found is None and (here := _definition(f"{module}.{node.name}")):
            found = signature(f"{here[1]}.{name}")
        if found:
            return found
    return None


def class_value(target: str, name: str) -> Any:
    """A literal that stands in the body of a class, such as a task's `kinds`."""
    found = _definition(target)
    for node in found[0].body if found and isinstance(found[0], ast.ClassDef) else ():
        if isinstance(node, ast.Assign) and any(getattr(t, "id", None) == name for t in node.targets):
            return ast.literal_eval(node.value)
    return None


def summary(target: str) -> str:
    """The first line of the docstring of a function or class, for help texts."""
    found = _definition(target)
    return (ast.get_docstring(found[0]) or "").split("\n")[0] if found else ""


def unknown(path: str, name: str, known: typing.Iterable[str]) -> str:
    """What to say of a name that is not known: the nearest known one, or all of them."""
    known = sorted(set(known))
    near = difflib.get_close_matches(name, known, 1, 0.6)
    said = f"did you mean {near[0]}?" if near else f"there are: {', '.join(known) or 'none'}"
    return f"{path}: unknown; {said}"


def _value(path: str, value: Any, kind: Any) -> None:
    if value == "???":
        raise ConfigError(f"{path}: missing; give it as {path}=... ({describe(kind)})")
    number_wanted = typing.get_origin(kind) is None and kind is float
    if number_wanted and isinstance(value, dict) and "_target_" in value:
        return  # a schedule where a number is the simplest choice
    if not conforms(value, kind):
        words = {None: "null", True: "true", False: "false"}  # as in YAML
        shown = words[value] if value is None or isinstance(value, bool) else repr(value)
        raise ConfigError(f"{path}: expected {describe(kind)}, got {shown}")


def _trusted(path: str, target: Any, allow: typing.Iterable[str]) -> None:
    _value(f"{path}._target_", target, str)
    if not any(target == p or target.startswith(p + ".") for p in (*TRUSTED, *allow)):
        package = target.split(".")[0]
        raise ConfigError(
            f"{path}._target_: {target} is not allowed: a config may name aelab.*, keras.optimizers.* and packages "
            f"that you trust; if you trust this one, add allow=[{package}]"
        )


def check_call(path: str, node: dict, extra: dict[str, Any], allow: typing.Iterable[str]) -> Signature:
    """Check one `_target_` node: the name, each knob's name and type, and that none is lacking."""
    target = node["_target_"]
    _trusted(path, target, allow)
    found = signature(target)
    if found is None:
        raise ConfigError(f"{path}._target_: there is no function or class {target}")
    for name, value in node.items():
        if name in HYDRA_KEYS:
            continue
        if name in extra:
            _value(f"{path}.{name}", value, extra[name])
        elif name not in found.knobs:
            raise ConfigError(unknown(f"{path}.{name}", name, [*found.knobs, *extra]))
        else:
            _value(f"{path}.{name}", value, found.knobs[name].type)
    needed = [k for k, knob in found.knobs.items() if knob.required]
    needed += [k for k, kind in extra.items() if not conforms(None, kind)]
    if lacking := [k for k in needed if k not in node]:
        raise ConfigError(f"{path}: {target} also needs {', '.join(lacking)}")
    return found


def _walk(path: str, node: Any, extra: dict[str, Any], allow: typing.Iterable[str]) -> None:
    if isinstance(node, dict):
        if "_target_" in node:
            check_call(path, node, extra, allow)
        for name, value in node.items():
            _walk(f"{path}.{name}" if path else name, value, extra if "_target_" not in node else {}, allow)
    elif isinstance(node, list):
        for i, value in enumerate(node):
            _walk(f"{path}[{i}]", value, extra, allow)


def settings(path: str, node: Any, kind: type) -> None:
    """Compare a section of the config with its dataclass: the same names, values of their types."""
    fields = {f.name: f.type for f in dataclasses.fields(kind)}
    if not isinstance(node, dict):
        raise ConfigError(
            f"{path}: expected values for {', '.join(fields)}; set them as {path}.{next(iter(fields))}=..."
        )
    for name in node.keys() - fields.keys():
        raise ConfigError(unknown(f"{path}.{name}", name, fields))
    for name, type_ in fields.items():
        if name not in node:
            raise ConfigError(f"{path}.{name}: missing")
        _value(f"{path}.{name}", node[name], type_)


def _components(group: str, node: Any) -> None:
    """That a group has what the run calls in it: a `_target_`, or names with one each."""
    if group in ONE and not (isinstance(node, dict) and "_target_" in node):
        raise ConfigError(f"{group}: missing; give it as {group}=NAME")
    if group in SEVERAL:
        steps = {k: v for k, v in (node or {}).items() if (group, k) != ("corruption", "level")}
        if not steps and (node or {}).get("level") is not None:
            raise ConfigError(f"corruption.level={node['level']}: is of no use without one; add corruption=NAME")
        if not steps and group != "corruption":
            raise ConfigError(f"{group}: missing; give it as {group}=NAME or {group}=[NAME,NAME]")
        for name, value in steps.items():
            if not (isinstance(value, dict) and "_target_" in value):
                raise ConfigError(f"{group}.{name}: expected a component with a _target_, got {value!r}")


def check(cfg: dict, groups: typing.Iterable[str], helpers: typing.Iterable[str] = ()) -> None:
    """Check a whole resolved config; raises `ConfigError` with one line that says what to type instead.

    `groups` are the config groups; `helpers` the top-level names that values of the config are taken from
    (`path` in `dataset=npz path=FILE`).
    """
    fields = {f.name: f.type for f in dataclasses.fields(config.Run)}
    for name in cfg:
        if name not in fields and name not in groups and name not in helpers:
            raise ConfigError(unknown(name, name, [*fields, *groups]))
    for name, type_ in fields.items():
        if dataclasses.is_dataclass(type_):
            settings(name, cfg.get(name), type_)
        else:
            _value(name, cfg.get(name), type_)
    allow = cfg["allow"]
    for group in groups:
        _components(group, cfg.get(group))
        _walk(group, cfg.get(group), GROUP_KEYS.get(group, {}), allow)


def kinds(group: str, target: str) -> tuple[str, ...] | None:
    """The kinds of input that a task or model takes, or that a data set gives."""
    if group == "task":
        return class_value(target, "kinds")
    found = signature(target)
    return found and (found.gives if group == "dataset" else found.takes)
