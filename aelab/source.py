"""What a config stands for beyond its text: the version of the code and the files it names. Nothing is imported."""

import functools
import hashlib
import re
from pathlib import Path

from aelab import declared

IMPORT = re.compile(r"^[ \t]*(?:from\s+([\w.]+)\s+)?import\s+(\([^)]*\)|[^\n#]+)", re.MULTILINE)
APART = ("figures", "charts", "console", "report", "tracking")
"""Modules of ours that show or record results and do not change them."""

INSTALLED = "keras."
"""What a config may name beside packages of ours and the user's: it has a version number, which is a tag."""


@functools.cache
def _own(file: Path, package: str) -> frozenset[str]:
    """The modules of its own package that a file imports."""
    found = set()
    for source, names in IMPORT.findall(file.read_text(encoding="utf-8")):
        wanted = [n.split()[0] for n in names.strip("()").replace("\n", " ").split(",") if n.strip()]
        modules = [f"{source}.{name}" for name in wanted] if source else wanted
        found |= {module for module in modules if module.split(".")[0] == package}
    return frozenset(found)


@functools.cache
def files(target: str) -> frozenset[Path]:
    """The file of a dotted path, and all those of the same package that it imports, directly or through others."""
    found, seen, open_ = set(), set(), [target]
    while open_:
        name = open_.pop()
        seen.add(name)
        module = declared.file_of(name.split("."))
        if module and module[0] not in found and not (name.startswith("aelab.") and module[0].stem in APART):
            found.add(module[0])
            open_ += _own(module[0], name.split(".")[0]) - seen
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
