"""Every `_target_` of a config against what its source declares: nothing is imported."""

import dataclasses
import difflib
import math
import re
import typing
from typing import Any, Literal

from aelab import components, config, declared
from aelab.config import ConfigError, conforms, describe

HYDRA_KEYS = {"_target_"}
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


NAME = re.compile(r"\w[\w.@+-]*")


def short(text: str, most: int = SHOWN) -> str:
    """A text for a message, cut in its middle where it is longer than that."""
    return text if len(text) <= most else f"{text[: most // 2]} ... {text[-most // 4 :]}"


def endless(value: Any) -> bool:
    """Whether a value is infinite or no number, or a list or dict that has such a number in it."""
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(map(endless, inside)) or (isinstance(value, float) and not math.isfinite(value))


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
    if not conforms(value, kind):
        words = {None: "null", True: "true", False: "false"}  # as in YAML
        shown = words[value] if value is None or isinstance(value, bool) else short(repr(value))
        most = f"; at most {config.MOST}" if isinstance(value, int) and abs(value) > config.MOST else ""
        finite = describe(kind).replace("a number", "a finite number") if endless(value) else describe(kind)
        raise ConfigError(f"{path}: expected {finite}, got {shown}{most}")


def component(
    path: str, node: Any, group: str, allow: typing.Iterable[str], extra: dict[str, Any] | None = None
) -> None:
    """Check one `_target_` node: that it is of the group, each knob's name and type, and that none is lacking."""
    if not (isinstance(node, dict) and "_target_" in node):
        raise ConfigError(f"{path}: expected a component with a _target_, got {node!r}")
    target, extra = node["_target_"], extra or {}
    components.verify(path, target, group, allow)
    knobs = declared.signature(target).knobs
    for name, value in node.items():
        if name in HYDRA_KEYS:
            continue
        if name in extra:
            expect(f"{path}.{name}", value, extra[name])
        elif name not in knobs:
            raise ConfigError(unknown(f"{path}.{name}", name, [*knobs, *extra]))
        elif (group, name) == ("optimizer", "learning_rate") and isinstance(value, dict) and "_target_" in value:
            component(f"{path}.{name}", value, components.RATE, allow)
        else:
            _knob(f"{path}.{name}", value, knobs[name].type, allow)
    needed = [k for k, knob in knobs.items() if knob.required]
    needed += [k for k, kind in extra.items() if not conforms(None, kind)]
    if lacking := [k for k in needed if k not in node]:
        raise ConfigError(f"{path}: {target} also needs {', '.join(lacking)}")


def _knob(path: str, value: Any, kind: Any, allow: typing.Iterable[str]) -> None:
    """Check a knob's value; it has components in it only where the knob's type says of which group."""
    group, several = config.group_of(kind)
    if group and several:
        expect(path, value, dict)
        for name, node in value.items():
            component(f"{path}.{name}", node, group, allow)
    elif group:
        component(path, value, group, allow)
    else:
        plain(path, value)
        if kind is Any and endless(value):  # Keras does not say the types of its optimizers' knobs
            raise ConfigError(f"{path}: expected a finite number, got {short(repr(value))}")
        expect(path, value, kind)


def plain(path: str, value: Any) -> None:
    """Refuse a value that has a component, or a word to Hydra such as `_args_`, at any depth."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if re.fullmatch(r"_\w+_", str(name)):
                raise ConfigError(f"{path}.{name}: no component can stand here, only values")
            plain(f"{path}.{name}", inner)
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            plain(f"{path}[{i}]", inner)


def from_file(where: str, names: typing.Iterable[str]) -> None:
    """Refuse values that no file may set for a job: what may be called is for the user alone to say."""
    for name in names:
        if re.match(r"[+~\s]*(allow|hydra)\b", str(name)):
            raise ConfigError(f"{where}: {name} cannot be set there; type it on the command line")


def hydra(node: dict) -> None:
    """Refuse callbacks, and logging with classes of its own: Hydra would call them where it shows a config."""
    for part, value in node.items():
        if part not in ("launcher", "sweeper") and re.search(r"'(_target_|\(\)|class)':", str(value)):
            raise ConfigError(f"hydra.{part}: names what Hydra would call, which is not used here; leave it out")


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


def _group(group: str, node: Any, allow: typing.Iterable[str]) -> None:
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
            if not NAME.fullmatch(str(name)):  # figures and columns are named by it
                raise ConfigError(f"{group}.{name}: expected a name of letters, digits, _ and -")
            component(f"{group}.{name}", value, group, allow, GROUP_KEYS.get(group))
    elif isinstance(node, dict) and "_target_" in node:
        component(group, node, group, allow, GROUP_KEYS.get(group))
    else:
        plain(group, node)


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
    for group, name in cfg["choices"].items():
        if name != "" and not (isinstance(name, str) and NAME.fullmatch(name)):  # folders are named by it
            raise ConfigError(f"choices.{group}: expected the name of a choice, got {name!r}")
    for name in cfg.keys() - set(groups):
        plain(name, cfg[name])
    for group in groups:
        _group(group, cfg.get(group), cfg["allow"])
