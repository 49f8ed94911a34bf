"""Which functions and classes a group of the config takes: by what they are, as their source says. Nothing is imported.

A group takes aelab's own components, which are those that `conf/` has a YAML for, and of packages that the user allows
whatever has the form of the group. So no config is a way to call anything else.
"""

import functools
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from aelab import declared
from aelab.config import ConfigError

_HERE = Path(__file__).resolve().parent
CONF = next(d for d in (_HERE.parent / "conf", _HERE / "conf") if (d / "config.yaml").exists())
KERAS = "keras.optimizers"
OPTIMIZER, SCHEDULE, TASK = f"{KERAS}.Optimizer", f"{KERAS}.schedules.LearningRateSchedule", "aelab.tasks.task.Task"
LONGEST = 200
"""Characters of the name of a function or class."""
RATE = "schedule of a learning rate"
"""What may stand as `optimizer.learning_rate` instead of a number: a group without a folder."""
BASES = {"task": TASK, "optimizer": OPTIMIZER, RATE: SCHEDULE}
"""Of which class those of a group are derived."""
DATA = {
    "model": ("shape",),
    "corruption": ("x", "rng"),
    "mask": ("x", "rng"),
    "loss": ("batch", "outputs", "model"),
    "metric": ("target", "output"),
    "preparation": ("x", "columns"),
    "score": ("x", "outputs"),
    "threshold": ("labels", "scores"),
    "similarity": ("x", "y"),
    "schedule": ("peak", "steps"),
    "search": ("seed",),
    "launcher": ("works", "call"),
}
"""The data that those of a group are called with: their positional-only parameters."""


@functools.cache
def own() -> dict[str, frozenset[str]]:
    """aelab's components of each group: what the YAMLs of its `conf/` name, by the group that they set."""
    found: dict[str, set[str]] = {}
    for file in CONF.rglob("*.yaml"):
        text, above = file.read_text(encoding="utf-8"), []
        if "_target_" not in text:
            continue
        for line in re.finditer(r"^( *)([\w.]+):[ \t]*([\w.]*)", text, re.MULTILINE):
            indent, key, value = len(line[1]), line[2], line[3]
            above = [(depth, name) for depth, name in above if depth < indent]
            if key == "_target_":
                group = above[0][1] if "@package _global_" in text else file.parent.name
                found.setdefault(group, set()).add(value)
            above.append((indent, key))
    return {group: frozenset(targets) for group, targets in found.items()}


def form(group: str) -> str:
    """What one of a group looks like in Python, for errors."""
    if group in BASES:
        return f"class Name({BASES[group].rpartition('.')[2]})"
    if group == "dataset":
        return "def name(*, knobs) -> Images, or Table, Ratings, Text"
    return f"def name({', '.join(DATA[group])}, /, *, knobs)" if group in DATA else "nothing"


def _formed(group: str, target: str) -> bool:
    """Whether a function or class has the form of a group."""
    found = declared.signature(target)
    if group in BASES:
        return declared.derives(target, BASES[group])
    if group == "dataset":
        return not found.data and bool(found.gives)
    if group == "similarity" and declared.methods(target) >= {"fit", "__call__"}:
        return not found.data  # learned from the vectors
    return group in DATA and found.data == len(DATA[group])


def _within(target: str, packages: Iterable[str]) -> bool:
    return any(target.startswith(f"{package}.") for package in packages)


def verify(path: str, target: Any, group: str, allow: Iterable[str]) -> None:
    """Refuse a `_target_` that is none of its group's, or of a package that the user does not allow."""
    if not isinstance(target, str):
        raise ConfigError(f"{path}._target_: expected a text, got {target!r}")
    if len(target) > LONGEST:
        raise ConfigError(f"{path}._target_: expected a function or class, got a text of {len(target):,} characters")
    private = any(part.startswith("_") for part in target.split("."))
    name = None if private else declared.full_name(target)
    ours = _within(target, ["aelab"])
    named = ours or _within(target, [*allow, *([KERAS] if group in ("optimizer", RATE) else [])])
    if named and name is None:
        raise ConfigError(f"{path}._target_: there is no function or class {target}")
    known = name in own().get(group, ())
    if not known and (name is None or ours or _within(name, ["aelab"]) or not _formed(group, target)):
        why = "is not" if named else "is not allowed: it is not"
        other = "a number" if group == RATE else f"{group}=NAME"
        form_ = "" if group == RATE else f", or with allow=[PACKAGE] one of yours: {form(group)}"
        raise ConfigError(f"{path}._target_: {target} {why} {_a(group)}; give {other}{form_}")
    if ours or (named and (known or _within(target, [KERAS]) or _within(name, allow))):
        return
    strange = name if named else target  # or its package has it from another
    raise ConfigError(
        f"{path}._target_: {strange} is not allowed: a config may name aelab's own and packages that you trust; if you "
        f"trust this one, add allow=[{','.join([*allow, strange.split('.')[0]])}]"
    )


def _a(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
