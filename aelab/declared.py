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
    """What the source says of a function or class: its knobs, the kinds that it takes and gives, how many data."""

    knobs: dict[str, Knob]
    takes: tuple[str, ...] | None
    gives: tuple[str, ...] | None
    node: ast.AST
    data: int = 0


def _number(default: ast.expr | None, keras: bool) -> Any:
    """The type that a default implies: Keras does not annotate its optimizers, whose null stands for no number."""
    value = getattr(default, "value", Any)
    if keras and value is None:
        return float | None
    return float if isinstance(value, int | float) and not isinstance(value, bool) else Any


def _type(annotation: ast.expr | None, default: ast.expr | None, keras: bool) -> Any:
    if annotation is None:
        return _number(default, keras)
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
    try:
        return ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError) as error:
        raise config.ConfigError(f"{path}: is no Python: {' '.join(str(error).split())}") from error


def file_of(parts: list[str]) -> tuple[Path, list[str]] | None:
    """The file of the longest module in a dotted path, and the rest of the path."""
    if not all(part.isidentifier() for part in parts) or parts[0] == "__main__":  # names, never paths
        return None
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


def absolute(source: str | None, level: int, module: str, file: Path) -> str:
    """The module that a `from ... import` in `file`, which is that of `module`, names; `level` is its dots."""
    if not level:
        return source or ""
    package = module.split(".") if file.name == "__init__.py" else module.split(".")[:-1]
    return ".".join([*package[: len(package) - level + 1], *([source] if source else [])])


@functools.cache
def _names(file: Path, module: str) -> dict[str, ast.AST | str]:
    """What each name of a module stands for: its definition there, or the dotted path that it is imported from."""
    found = {}
    for node in _tree(file).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found[node.name] = node
        elif isinstance(node, ast.ImportFrom):
            source = absolute(node.module, node.level, module, file)
            found |= {alias.asname or alias.name: f"{source}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names = ((a.asname, a.name) if a.asname else (a.name.split(".")[0],) * 2 for a in node.names)
            found |= dict(names)
    return found


@functools.cache
def _definition(target: str) -> tuple[ast.AST, str] | None:
    """The function or class that a dotted path names, and its module, through re-exports."""
    seen = set()
    while target not in seen:  # two modules may import a name from each other
        seen.add(target)
        parts = target.split(".")
        found = file_of(parts)
        if found is None or len(found[1]) != 1:
            return None
        module = ".".join(parts[:-1])
        stands_for = _names(found[0], module).get(parts[-1])
        if not isinstance(stands_for, str):
            return stands_for and (stands_for, module)
        target = stands_for
    return None


def full_name(target: str) -> str | None:
    """The dotted path of a function or class where it is defined; None where there is none."""
    found = _definition(target)
    return found and f"{found[1]}.{found[0].name}"


def bases(target: str) -> list[str]:
    """The dotted paths, where they are defined, of the classes that a class names as its bases."""
    found = _definition(target)
    if found is None or not isinstance(found[0], ast.ClassDef):
        return []
    node, module = found
    names, paths = _names(file_of(module.split("."))[0], module), []
    for base in map(ast.unparse, node.bases):
        head, _, rest = base.partition(".")
        stands_for = names.get(head)
        path = stands_for if isinstance(stands_for, str) else f"{module}.{head}"
        paths.append(full_name(f"{path}.{rest}" if rest else path))
    return [path for path in paths if path]


def derives(target: str, base: str) -> bool:
    """Whether a class is derived from another, directly or through others."""
    wanted, open_, seen = full_name(base), bases(target), set()
    while open_:
        name = open_.pop()
        if name == wanted:
            return True
        open_ += [] if name in seen else bases(name)
        seen.add(name)
    return False


def methods(target: str) -> set[str]:
    """The names of the methods in the body of a class; none of a function."""
    found = _definition(target)
    body = found[0].body if found and isinstance(found[0], ast.ClassDef) else ()
    return {node.name for node in body if isinstance(node, ast.FunctionDef)}


def signature(target: str, derived: tuple[str, ...] = ()) -> Signature | None:
    """The signature of a dotted path, or None where there is no such function or class.

    `derived` are classes that it was come to from: a class that is its own base has no end.
    """
    found = None if target in derived else _definition(target)
    if found is None:
        return None
    derived = (*derived, target, full_name(target))
    node, _ = found
    function = node
    if isinstance(node, ast.ClassDef):
        function = next((n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"), None)
        if function is None:
            return _inherited(target, derived) or Signature({}, None, None, node)
    spec = function.args
    keyword = list(zip(spec.kwonlyargs, spec.kw_defaults, strict=True))
    plain = spec.args[1:] if isinstance(node, ast.ClassDef) and not spec.posonlyargs else spec.args
    defaults = [None] * (len(plain) - len(spec.defaults)) + spec.defaults[-len(plain) :] if plain else []
    keyword += list(zip(plain, defaults, strict=True))
    knobs = {a.arg: Knob(_type(a.annotation, d, target.startswith("keras.")), d is None) for a, d in keyword}
    if spec.kwarg and isinstance(node, ast.ClassDef) and (base := _inherited(target, derived)):
        knobs = {**{k: v._replace(required=False) for k, v in base.knobs.items()}, **knobs}
    data = [a for a in spec.posonlyargs if a.arg != "self"]
    takes = KINDS.get(_name(data[0].annotation) or "") if data else None
    return Signature(knobs, takes, KINDS.get(_name(function.returns) or ""), node, len(data))


def _inherited(target: str, derived: tuple[str, ...]) -> Signature | None:
    return next(filter(None, (signature(base, derived) for base in bases(target))), None)


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
