"""What a config stands for beyond its text: the version of the code and the files it names. Nothing is imported."""

import functools
import hashlib
import re
from pathlib import Path

from aelab import declared

IMPORT = re.compile(r"^[ \t]*(?:from\b\s*([\w.]+?)\s*)?\bimport\b\s*(\([^)]*\)|(?:[^\n\\]|\\\n)+)", re.MULTILINE)
"""By text, as a hundredth of the time that a syntax tree takes counts here."""
APART = ("figures", "charts", "console", "report", "tracking")
"""Modules of ours that show or record results and do not change them."""

INSTALLED = "keras."
"""What a config may name beside packages of ours and the user's: it has a version number, which is a tag."""


@functools.cache
def _own(file: Path, module: str) -> frozenset[str]:
    """The modules of its own package that a file imports, also inside functions; `module` is the file's own."""
    text = re.sub(r"#.*", "", file.read_text(encoding="utf-8", errors="replace"))
    text, found = re.sub(r"[;:][ \t]*(?=from\b|import\b)", "\n", text), set()
    for source, names in IMPORT.findall(text):
        wanted = [n.split()[0] for n in re.sub(r"[()\\\n]", " ", names).split(",") if n.strip()]
        if source:
            dots = len(source) - len(source.lstrip("."))
            source = declared.absolute(source[dots:], dots, module, file)
            wanted = [source, *(f"{source}.{name}" for name in wanted)]  # of `*` the module alone is one
        found |= {name for name in wanted if name.split(".")[0] == module.split(".")[0]}
    return frozenset(found)


@functools.cache
def files(target: str) -> frozenset[Path]:
    """The file of a dotted path, and all those of the same package that it imports, directly or through others.

    So are the `__init__.py` of the packages on the way: Python runs them too.
    """
    found, seen, open_ = set(), set(), [target]
    while open_:
        name = open_.pop()
        seen.add(name)
        parts = name.split(".")
        open_ += {".".join(parts[:i]) for i in range(1, len(parts))} - seen
        located = declared.file_of(parts)
        if located is None:
            continue
        file, rest = located
        if file not in found and not (name.startswith("aelab.") and file.stem in APART):
            found.add(file)
            open_ += _own(file, ".".join(parts[: len(parts) - len(rest)])) - seen
    return frozenset(found)


def targets(node) -> set[str]:
    """Every `_target_` in a config."""
    if isinstance(node, dict):
        own = {node["_target_"]} if isinstance(node.get("_target_"), str) else set()
        return own.union(*map(targets, node.values()))
    return set().union(*map(targets, node)) if isinstance(node, list) else set()


@functools.cache
def _version(used: frozenset[str]) -> str:
    digest = hashlib.sha256()
    for file in sorted(frozenset().union(*map(files, used))):
        digest.update(f"{file.name};".encode() + file.read_bytes())
    return digest.hexdigest()[:8]


def version(config: dict) -> str:
    """8 hex digits over the sources that a run of this config goes through; other packages have version numbers."""
    used = {target for target in targets(config) if not target.startswith(INSTALLED)}
    return _version(frozenset(used | {"aelab.fit.fit", "aelab.evaluate.evaluate"}))


def floats(node):
    """A config with each whole number as the same number with a point."""
    if isinstance(node, dict):
        return {key: floats(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [floats(value) for value in node]
    return float(node) if isinstance(node, int) and not isinstance(node, bool) else node


def stamps(node) -> list:
    """(size, time of change in ns) of every file or folder whose path, with a slash or an ending, a config has."""
    if isinstance(node, dict | list):
        return [stamp for value in (node.values() if isinstance(node, dict) else node) for stamp in stamps(value)]
    if not (isinstance(node, str) and ("/" in node or "." in node) and Path(node).exists()):
        return []
    known = Path(node).stat()
    return [[known.st_size, known.st_mtime_ns]]
