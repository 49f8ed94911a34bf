"""What the source says of a function or class that a `_target_` names, read with `ast`: nothing is imported.

Positional-only parameters are data, keyword-only ones YAML knobs. Their annotations (`aelab.config`) give the types and
bounds; the first positional parameter's annotation says what kind of input a model takes, the return annotation what
kind a data set gives.
"""

import ast
import builtins
import functools
import importlib.machinery
import importlib.util
import typing
from pathlib import Path
from typing import Any, NamedTuple

from aelab import config

KINDS = {
    "Image": ("image",),
    "Coded": ("image", "coded image"),
    **dict.fromkeys(("Pixels", "Drawn"), ("image", "coded image", "drawn image")),
    "Images": ("image", "coded image", "drawn image", "labelled images"),
    "Labelled": ("labelled images",),
    "Masked": ("masked image",),
    **dict.fromkeys(("Row", "Rows", "Table", "Labels"), ("table",)),
    **dict.fromkeys(("Interactions", "Hits"), ("interactions",)),
    "ByItem": ("items",),
    "Catalogue": ("vectors",),
    "Ratings": ("ratings",),
    "Pairs": ("pairs",),
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
    """A literal that stands in the body of a class or of one that it comes from, such as a task's `kinds`."""
    for node in _lineage(target):
        for line in node.body:
            targets = line.targets if isinstance(line, ast.Assign) else [getattr(line, "target", None)]
            if getattr(line, "value", None) and any(getattr(t, "id", None) == name for t in targets):
                return ast.literal_eval(line.value)
    return None


def replaces(target: str, name: str, base: str) -> bool:
    """Whether a class may have another method of a name than its base has; true where the source does not say."""
    classes = list(_lineage(target))
    own = [node for node in classes if node is not (_definition(base) or (None,))[0]]
    defined = any(isinstance(line, ast.FunctionDef) and line.name == name for node in own for line in node.body)
    return defined or len(own) == len(classes)


def _lineage(target: str):
    """The class that a dotted path names, and those that it comes from by first bases, as far as there are files."""
    while found := _definition(target):
        node, module = found
        if not isinstance(node, ast.ClassDef):
            return
        yield node
        base = ast.unparse(node.bases[0]).rpartition(".")[2] if node.bases else ""
        if not base or f"{module}.{base}" == target:
            return
        target = f"{module}.{base}"


def summary(target: str) -> str:
    """The first line of the docstring of a function or class, for help texts."""
    found = _definition(target)
    return (ast.get_docstring(found[0]) or "").split("\n")[0] if found else ""


def kinds(group: str, target: str) -> tuple[str, ...] | None:
    """The kinds of input that a task or model takes, or that a data set gives."""
    if group == "task":
        return class_value(target, "kinds")
    found = signature(target)
    return found and (found.gives if group == "dataset" else found.takes)
