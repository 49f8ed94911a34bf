"""What Hydra and OmegaConf say of a config, as one line that says what to type instead."""

from pathlib import Path

from hydra import compose as hydra_compose
from hydra.core.override_parser.types import ChoiceSweep, Override
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationToMissingValueError, MissingMandatoryValue, OmegaConfBaseException
from yaml import YAMLError

from aelab import check, declared, registry
from aelab.config import ConfigError
from aelab.overrides import name_of

PLURALS = {"loss": "losses"}
REFUSALS = (HydraException, OmegaConfBaseException, YAMLError, ValueError, RecursionError)
"""What Hydra and OmegaConf raise of a config that cannot be; ValueError is Hydra's of model=3."""


def named(words: list[Override], dirs: list[Path]) -> None:
    """That each word for a config group names choices of it, by texts, and each but once."""
    known = registry.groups(dirs)
    for o in words:
        if o.key_or_group not in known or o.is_delete():
            continue
        sweep = o.value()
        values = map(Override._convert_value, sweep.list) if isinstance(sweep, ChoiceSweep) else [sweep]
        for value in values:
            _names(value, o.key_or_group, check.short(o.input_line), dirs)


def _names(value: object, group: str, shown: str, dirs: list[Path]) -> None:
    names = value if isinstance(value, list) else [value]
    if not all(isinstance(name, str) for name in names):
        raise ConfigError(f"{shown}: expected the name of a choice")
    if isinstance(value, list) and group not in check.SEVERAL:
        raise ConfigError(f"{shown}: expected the name of one choice, as in {group}=NAME")
    if twice := next((name for i, name in enumerate(names) if name in names[:i]), None):
        raise ConfigError(f"{shown}: {twice} is there twice; leave one of them out")
    for name in names:
        if name.endswith(".yaml") or {"", ".", ".."} & set(name.split("/")):
            raise _no_choice(group, name, dirs)


def check_kind(group: str, name: str, target: str, task: str, wanted: tuple[str, ...], dirs: list[Path]) -> None:
    """That a choice's component is for a kind of data that the task takes."""
    kind = declared.kinds(group, target)
    if kind and not set(kind) & set(wanted):
        known = ", ".join(registry.fitting(group, wanted, dirs)) or "none"
        raise ConfigError(
            f"{group}={name}: is for {kind[0]} data, but task={task} takes {' or '.join(wanted)}; "
            f"{PLURALS.get(group, f'{group}s')} that fit: {known}"
        )


def _no_choice(group: str, name: str, dirs: list[Path]) -> ConfigError:
    if group not in registry.groups(dirs):
        return ConfigError(f"{group}={check.short(name)}: no such group; there are: {', '.join(registry.groups(dirs))}")
    known = ", ".join(registry.choices(group, dirs))
    return ConfigError(f"{group}={check.short(name)}: no such {group}; there are: {known}")


def explain(error: Exception, overrides: list[str], dirs: list[Path]) -> ConfigError:
    """Hydra's error as one line that says what to type."""
    if isinstance(error, RecursionError):
        words = check.short(" ".join(overrides) or "config.yaml")
        return ConfigError(f"{words}: the defaults of its files name one another in a circle; leave one of them out")
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = error.missing_cfg_file.rpartition("/")
        return _no_choice(group, name, dirs)
    if isinstance(error, MissingMandatoryValue | InterpolationToMissingValueError):
        key = getattr(error, "full_key", None) or str(error).split("'")[1]
        return ConfigError(f"{key}: missing; give it as {key}=...")
    text = " ".join(str(error).split())
    if text.startswith("Could not override '"):
        return _unknown(text.split("'")[1], overrides, dirs)
    if isinstance(error, OmegaConfBaseException) and error.full_key:
        said = str(error.msg or error).split("\n")[0]
        return ConfigError(f"{error.full_key}: {check.short(said, 300)}")
    cause = " ".join(str(error.__cause__ or "").split("\n")[0].split())
    if text.startswith("Error merging override ") and cause:
        text = f"{text.removeprefix('Error merging override ')}: {cause}"
    return ConfigError(check.short(text or cause or type(error).__name__, 600))


def _unknown(key: str, overrides: list[str], dirs: list[Path]) -> ConfigError:
    """What to say of a key that has no value to change: what is known where it would stand."""
    groups = registry.groups(dirs)
    kept = [o for o in overrides if name_of(o) in groups]  # what there is depends on the choices alone
    known = hydra_compose("config", [*registry.search_path(dirs), *kept])
    parent, _, name = key.rpartition(".")
    while parent and not isinstance(OmegaConf.select(known, parent), DictConfig):
        parent, _, name = parent.rpartition(".")
    node = OmegaConf.select(known, parent) if parent else known
    found = declared.signature(str(node.get("_target_")))
    if found and name in found.knobs:
        return ConfigError(f"{key}: has no value to change here; to give it one, type +{key}=...")
    if not parent and (owners := _owners([name_of(o) for o in overrides], name, known, dirs)):
        return ConfigError(f"{key}: is for another data set; add {owners}")
    names = [*map(str, node), *(groups if not parent else [])]
    return ConfigError(check.unknown(key, name, [n for n in names if n not in check.HYDRA_KEYS]))


def _owners(typed: list[str], name: str, known: DictConfig, dirs: list[Path]) -> str:
    """The data sets that take a name of their own, such as `path`, as they are to be added; empty where none does.

    Those that take all such names that were typed, for this task if there are any.
    """
    own = {n for n in typed if "." not in n and n not in known and n not in registry.groups(dirs)}
    takes = {d: names for d, names in registry.helpers("dataset", dirs).items() if name in names}
    best = [d for d, names in takes.items() if own <= names] or list(takes)
    wanted = declared.kinds("task", str(OmegaConf.select(known, "task._target_")))
    if fit := [d for d in best if d in registry.fitting("dataset", wanted or (), dirs)]:
        return " or ".join(f"dataset={d}" for d in fit)
    for task, file in registry.choices("task", dirs).items() if best else ():
        kinds = declared.kinds("task", registry.target(file) or "") or ()
        if fit := [d for d in best if d in registry.fitting("dataset", kinds, dirs)]:
            return f"task={task} dataset={fit[0]}"
    return ""
