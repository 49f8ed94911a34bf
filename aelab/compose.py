"""From the command line to checked configs, by Hydra, in a fraction of a second: nothing heavy is imported."""

import copy
import hashlib
import json
import re
import sys
from pathlib import Path
from typing import NamedTuple

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import OverrideType, Sweep
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf, read_write
from omegaconf.errors import InterpolationToMissingValueError, MissingMandatoryValue, OmegaConfBaseException
from yaml import YAMLError

from aelab import check, components, declared, source, store
from aelab.components import CONF
from aelab.config import ConfigError

PLURALS = {"loss": "losses"}
# What a run's result does not depend on: left out of its signature.
ELSEWHERE = (
    "choices",
    "output_dir",
    "data_dir",
    "tracking",
    "allow",
    "profile",
    "hydra",
    "sweep",
    "launcher",
    "search",
)


def folders(extra: list[str]) -> list[Path]:
    """The config folders, the user's first: those given, `./conf` where it is another's, then our own."""
    here = Path("conf").resolve()
    mine = [Path(d).resolve() for d in extra] + ([here] if here.is_dir() and here != CONF else [])
    for folder in mine:
        if not folder.is_dir():
            raise ConfigError(f"--config-dir {folder}: no such folder")
    return [*dict.fromkeys(mine), CONF]


def search_path(dirs: list[Path]) -> list[str]:
    """The override that puts the user's config folders on Hydra's search path."""
    mine = [f'"file://{d}"' for d in dirs if d != CONF]
    return [f"hydra.searchpath=[{','.join(mine)}]"] if mine else []


def groups(dirs: list[Path]) -> list[str]:
    """The config groups: the folders below `conf/` whose choices are components or named settings."""
    return sorted({p.name for d in dirs for p in d.iterdir() if p.is_dir() and p.name != "hydra"})


def choices(group: str, dirs: list[Path]) -> dict[str, Path]:
    """The choices of a group: name -> YAML file. The listing of the folders is the registry."""
    files = {p.stem: p for d in reversed(dirs) for p in (d / group).glob("*.yaml")}
    return dict(sorted(files.items()))


def target(file: Path) -> str | None:
    """The `_target_` of a choice, wherever its YAML places it; read as text, as help and errors look at every file."""
    found = re.search(r"^\s*_target_:\s*(\S+)", file.read_text(encoding="utf-8"), re.MULTILINE)
    return found[1].strip("'\"") if found else None


def fitting(group: str, kinds: tuple[str, ...], dirs: list[Path]) -> list[str]:
    """The choices of a group that take (or give) one of the kinds of input; losses of no kind fit all."""
    targets = {name: target(file) for name, file in choices(group, dirs).items()}
    found = {name: declared.kinds(group, component) for name, component in targets.items() if component}
    return [name for name, kind in found.items() if set(kind or ()) & set(kinds) or (kind is None and group == "loss")]


def explain(error: Exception, overrides: list[str], dirs: list[Path]) -> ConfigError:
    """Hydra's error as one line that says what to type."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = error.missing_cfg_file.rpartition("/")
        return ConfigError(f"{group}={name}: no such {group}; there are: {', '.join(choices(group, dirs))}")
    if isinstance(error, OverrideParseException):
        return ConfigError(f"{error.override}: not understood; write key=value, and quote what a shell would change")
    if isinstance(error, MissingMandatoryValue | InterpolationToMissingValueError):
        key = getattr(error, "full_key", None) or str(error).split("'")[1]
        return ConfigError(f"{key}: missing; give it as {key}=...")
    text = str(error)
    if text.startswith("Config group override must be"):
        parsed = OverridesParser.create().parse_overrides(overrides)
        wrong = [o for o in parsed if o.key_or_group in groups(dirs) and not isinstance(o.value(), str | list | dict)]
        return ConfigError("; ".join(f"{o.input_line}: expected the name of a choice" for o in wrong) or text)
    if text.startswith("Could not override '"):
        key = text.split("'")[1]
        known = hydra_compose("config", search_path(dirs) + [o for o in overrides if name_of(o) != key and "=" in o])
        parent, _, name = key.rpartition(".")
        while parent and not isinstance(OmegaConf.select(known, parent), DictConfig):
            parent, _, name = parent.rpartition(".")
        node = OmegaConf.select(known, parent) if parent else known
        found = declared.signature(str(node.get("_target_")))
        if found and name in found.knobs:
            return ConfigError(f"{key}: has no value to change here; to give it one, type +{key}=...")
        names = [*map(str, node), *(groups(dirs) if not parent else [])]
        return ConfigError(check.unknown(key, name, [n for n in names if n not in check.HYDRA_KEYS]))
    return ConfigError(" ".join(text.split()))


def name_of(override: str) -> str:
    """The name that an override is for."""
    return override.split("=")[0].lstrip("+~")


class Job(NamedTuple):
    """A run to be: what was typed for it, its config, where it is to be kept, and its signature."""

    overrides: list[str]
    cfg: DictConfig
    folder: Path
    signature: str


def job(words: list[str], dirs: list[Path], multirun: bool, number: int = 0, bases: dict | None = None) -> Job:
    """One job, composed and checked; its overrides are the words without Hydra's. Must be called within `session`."""
    cfg = compose(words, dirs, number, bases)
    hydra, sign = HydraConfig.get(), signature(cfg)
    with read_write(hydra):
        hydra.job.id = sign  # for the names of folders: see the resolver below
    folder = Path(hydra.run.dir).absolute()
    if multirun:
        name = str(hydra.sweep.subdir)
        if Path(name).parts != (name,) or name in ("..", "/"):
            raise ConfigError(
                f"hydra.sweep.subdir={name}: expected the name of a folder in hydra.sweep.dir, for each job"
            )
        folder = Path(hydra.sweep.dir).absolute() / name
    return Job([word for word in words if not name_of(word).startswith("hydra")], cfg, folder, sign)


def based(overrides: list[str], dirs: list[Path], bases: dict) -> tuple[DictConfig, str]:
    """What Hydra composes, and as text; from `bases`, by then filled, where only single values differ from before.

    That takes 20 ms instead of 180: jobs of a sweep seldom differ in more. The text has the first one's values, and
    those typed.
    """
    parsed = OverridesParser.create().parse_overrides(overrides)
    plain = [
        o
        for o in parsed
        if o.type == OverrideType.CHANGE and "." in o.key_or_group and not isinstance(o.value(), dict | Sweep)
    ]
    key = (*(o.input_line for o in parsed if o not in plain), *(o.key_or_group for o in plain))
    if key not in bases:
        made = hydra_compose("config", search_path(dirs) + overrides, return_hydra_config=True)
        check.hydra(OmegaConf.to_container(made.hydra))
        bases[key] = made, OmegaConf.to_yaml(made)
    cfg, text = copy.deepcopy(bases[key][0]), bases[key][1]
    for o in plain:
        OmegaConf.update(cfg, o.key_or_group, o.value(), merge=True)
    return cfg, "\n".join([text, *overrides])


def compose(overrides: list[str], dirs: list[Path], number: int = 0, bases: dict | None = None) -> DictConfig:
    """One resolved and checked config, the `number`-th of a sweep. Must be called within `session`.

    `bases` is a dict that the jobs of a sweep share: see `based`.
    """
    try:
        cfg, text = based(overrides, dirs, {} if bases is None else bases)
        for part in ("launcher", "sweeper"):
            if not cfg.hydra[part]._target_.rpartition(".")[2].startswith("Basic"):
                raise ConfigError(f"hydra/{part}: Hydra's others are not used here; leave it out")
        if cfg.get("allow") and not any(name_of(o) == "allow" for o in overrides):
            raise ConfigError("allow: no file can allow packages; if you trust them, type allow=[...] yourself")
        with read_write(cfg):
            cfg.hydra.job.num = number
        HydraConfig.instance().set_config(cfg)
        helpers = [str(k) for k in cfg if f"${{{k}}}" in text]
        cfg = settle(cfg, chosen(cfg.hydra.runtime.choices, dirs))
    except (HydraException, OmegaConfBaseException, YAMLError, ValueError) as error:  # ValueError: Hydra's of model=3
        raise explain(error, overrides, dirs) from error
    verify(cfg, dirs, helpers)
    return cfg


def chosen(choices: DictConfig, dirs: list[Path]) -> dict[str, str]:
    """The name chosen in each of our groups that has one: {"model": "unet_mini", ...}."""
    return {group: choices[group] for group in groups(dirs) if isinstance(choices.get(group), str)}


def settle(cfg: DictConfig, choices: dict[str, str]) -> DictConfig:
    """Resolve every interpolation, and give `corruption.level`, when it is set, to each corruption listed."""
    plain = {
        k: OmegaConf.to_container(v, resolve=True) if OmegaConf.is_config(v) else v
        for k, v in cfg.items()
        if k != "hydra"
    }
    level = plain["corruption"]["level"]
    for step in plain["corruption"].values() if level is not None else ():
        if isinstance(step, dict):
            step["level"] = level
    several = {g: "+".join(k for k, v in (plain.get(g) or {}).items() if isinstance(v, dict)) for g in check.SEVERAL}
    return OmegaConf.create({"choices": {**choices, **several}, **plain})


def verify(cfg: DictConfig, dirs: list[Path], helpers: list[str]) -> None:
    """Check a resolved config whole: names, types, and that task, data set and model fit one another."""
    plain = OmegaConf.to_container(cfg)
    check.check(plain, groups(dirs), helpers)
    fallback = cfg.dataset.get("fallback")
    if fallback is not None and fallback not in choices("dataset", dirs):
        raise ConfigError(
            f"dataset.fallback={fallback}: no such dataset; there are: {', '.join(choices('dataset', dirs))}"
        )
    _together(plain, cfg.choices, dirs)
    store.allowed(cfg.tracking.uri)
    wanted = declared.kinds("task", cfg.task._target_)
    if fallback is not None and wanted:
        other = target(choices("dataset", dirs)[fallback])
        if other:
            components.verify(f"dataset={fallback}", other, "dataset", cfg.allow)
        kind = declared.kinds("dataset", other or "")
        if kind and not set(kind) & set(wanted):
            known = ", ".join(fitting("dataset", wanted, dirs))
            raise ConfigError(
                f"dataset.fallback={fallback}: does not fit task={cfg.choices.task}; those that fit: {known}"
            )
    if isinstance(cfg.optimizer.get("learning_rate"), DictConfig) and cfg.choices.schedule != "constant":
        raise ConfigError(
            f"schedule={cfg.choices.schedule}: needs a number as optimizer.learning_rate; or schedule=constant"
        )


def _together(plain: dict, choices: DictConfig, dirs: list[Path]) -> None:
    """That the components are for the kind of data that the task takes, and that it has all that it needs."""
    target = plain["task"]["_target_"]
    wanted, needs = declared.kinds("task", target), declared.class_value(target, "needs") or ()
    may = declared.class_value(target, "may") or ()
    for group in (*check.ONE, *check.SEVERAL, *check.NEEDED):
        node = plain.get(group) or {}
        if group in check.NEEDED and bool(node) != (group in needs) and group not in may:
            known = ", ".join(fitting(group, wanted, dirs))
            said = f"needs one; there are: {known}" if group in needs else "takes none; leave it out"
            raise ConfigError(f"{group}={choices.get(group, 'null')}: task={choices.task} {said}")
        nodes = {choices.get(group): node} if "_target_" in node else node
        for name, component in nodes.items():
            kind = declared.kinds(group, component["_target_"]) if isinstance(component, dict) else None
            if wanted and kind and not set(kind) & set(wanted):
                known = ", ".join(fitting(group, wanted, dirs)) or "none"
                raise ConfigError(
                    f"{group}={name}: is for {kind[0]} data, but task={choices.task} takes {' or '.join(wanted)}; "
                    f"{PLURALS.get(group, f'{group}s')} that fit: {known}"
                )


class session(initialize_config_dir):
    """Hydra's set-up for `compose`, with our config folder; leaves no global state behind."""

    def __init__(self):
        GlobalHydra.instance().clear()
        super().__init__(str(CONF), job_name="aelab", version_base="1.3")


def trust(packages: list[str]) -> None:
    """Make packages of the working folder importable once the user has named them."""
    if packages:
        sys.path.append(str(Path.cwd()))  # last: no file of theirs may stand in for an installed package


def signature(cfg: DictConfig) -> str:
    """A short hash of all that can change the result: a settled config, the code that it uses, the files it names.

    1 and 1.0 are the same. A file or folder that is named in a config counts by its size and time of change.
    """
    plain = {k: v for k, v in OmegaConf.to_container(cfg).items() if k not in ELSEWHERE}
    plain["dataset"] = {k: v for k, v in plain["dataset"].items() if k not in ELSEWHERE}
    # In their order, which matters; and each with its own level, however that was given.
    plain["corruption"] = [step for step in plain["corruption"].items() if step[0] != "level"]
    facts = [plain, source.version(plain), source.stamps({k: plain.get(k) for k in ("dataset", "model", "task")})]
    return hashlib.sha256(json.dumps(source.floats(facts), sort_keys=True).encode()).hexdigest()[:8]


def flat(cfg: DictConfig) -> dict[str, object]:
    """Every value of a config by its dotted name, the choices by their group's: what runs are compared by."""
    found = {k: v or "none" for k, v in cfg.choices.items() if k not in ELSEWHERE}

    def walk(prefix, node):
        for key, value in node.items():
            if isinstance(value, dict):
                walk(f"{prefix}{key}.", value)
            elif key != "_target_" and value is not None:
                found[f"{prefix}{key}"] = value

    walk("", {k: v for k, v in OmegaConf.to_container(cfg).items() if k not in ELSEWHERE})
    return found


def _signature(*, _root_: DictConfig) -> str:
    known = HydraConfig.initialized() and OmegaConf.select(HydraConfig.instance().cfg, "hydra.job.id")
    return known or signature(settle(_root_, {}))


OmegaConf.register_new_resolver("signature", _signature, replace=True)
