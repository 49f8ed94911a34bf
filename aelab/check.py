"""Every `_target_` of a config against what its source declares: nothing is imported."""

import dataclasses
import difflib
import math
import typing
from typing import Any, Literal

from aelab import config, declared
from aelab.config import ConfigError, conforms, describe

HYDRA_KEYS = {"_target_": str, "_recursive_": bool, "_convert_": Literal["none", "partial", "object", "all"]}
TRUSTED = ("aelab", "keras.optimizers")
# What a group adds to the knobs of its functions: a loss term's weight, a metric's better direction...
GROUP_KEYS = {
    "loss": {"weight": config.Level, "warmup": config.Whole | None},
    "metric": {"goal": Literal["min", "max"]},
    "dataset": {"fallback": str | None},
    "search": {"trials": config.Count, "goal": str | None, "prune": config.Count | None},
}
SHOWN = 120
"""Characters of a value that are shown where it is wrong."""
ONE = ("task", "dataset", "model", "optimizer", "schedule")
"""The groups of which a run takes one component."""
NEEDED = ("preparation", "score", "threshold", "similarity", "mask")
"""The groups of which a run takes one component if its task says so (`needs`), may take one (`may`), and none else."""
SEVERAL = ("corruption", "loss", "metric")
"""The groups of which a run takes any number, each under its own name."""


def short(text: str, most: int = SHOWN) -> str:
    """A text for a message, cut in its middle where it is longer than that."""
    return text if len(text) <= most else f"{text[: most // 2]} ... {text[-most // 4 :]}"


def endless(value: Any) -> bool:
    """Whether a value is infinite, or a list or dict that has such a number in it."""
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(map(endless, inside)) or (isinstance(value, float) and math.isinf(value))


def unknown(path: str, name: str, known: typing.Iterable[str]) -> str:
    """What to say of a name that is not known: the nearest known one, or all of them."""
    known = sorted(set(known))
    near = difflib.get_close_matches(name, known, 1, 0.6)
    said = f"did you mean {near[0]}?" if near else f"there are: {', '.join(known) or 'none'}"
    return f"{short(path)}: unknown; {said}"


def expect(path: str, value: Any, kind: Any) -> None:
    """That a value is of a type, or `ConfigError`."""
    if value == "???":
        raise ConfigError(f"{path}: missing; give it as {path}=... ({describe(kind)})")
    number_wanted = typing.get_origin(kind) is None and kind is float
    if number_wanted and isinstance(value, dict) and "_target_" in value:
        return  # a schedule where a number is the simplest choice
    if not conforms(value, kind):
        words = {None: "null", True: "true", False: "false"}  # as in YAML
        shown = words[value] if value is None or isinstance(value, bool) else short(repr(value))
        most = f"; at most {config.MOST}" if isinstance(value, int) and abs(value) > config.MOST else ""
        finite = describe(kind).replace("a number", "a finite number") if endless(value) else describe(kind)
        raise ConfigError(f"{path}: expected {finite}, got {shown}{most}")


def _trusted(path: str, target: Any, allow: typing.Iterable[str]) -> None:
    expect(f"{path}._target_", target, str)
    if not any(target == p or target.startswith(p + ".") for p in (*TRUSTED, *allow)):
        package = target.split(".")[0]
        raise ConfigError(
            f"{path}._target_: {target} is not allowed: a config may name aelab.*, keras.optimizers.* and packages "
            f"that you trust; if you trust this one, add allow=[{package}]"
        )


def check_call(path: str, node: dict, extra: dict[str, Any], allow: typing.Iterable[str]) -> declared.Signature:
    """Check one `_target_` node: the name, each knob's name and type, and that none is lacking."""
    target = node["_target_"]
    _trusted(path, target, allow)
    found = declared.signature(target)
    if found is None:
        raise ConfigError(f"{path}._target_: there is no function or class {target}")
    for name, value in node.items():
        if name in HYDRA_KEYS:
            expect(f"{path}.{name}", value, HYDRA_KEYS[name])
            continue
        if name in extra:
            expect(f"{path}.{name}", value, extra[name])
        elif name not in found.knobs:
            raise ConfigError(unknown(f"{path}.{name}", name, [*found.knobs, *extra]))
        else:
            expect(f"{path}.{name}", value, found.knobs[name].type)
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
        expect(f"{path}.{name}", node[name], type_)


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


def shares(node: dict, gives: tuple[str, ...] | None) -> None:
    """That a data set holds rows out for a test, and leaves some to train on; ratings and texts need no validation."""
    for name in ("validation", "test"):
        free = gives is None or (name == "validation" and {"ratings", "text"} & set(gives))
        if node.get(name) is not None:
            expect(f"dataset.{name}", node[name], config.Rest if free else config.Held)


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
            expect(name, cfg.get(name), type_)
    allow = cfg["allow"]
    for group in groups:
        _components(group, cfg.get(group))
        _walk(group, cfg.get(group), GROUP_KEYS.get(group, {}), allow)
