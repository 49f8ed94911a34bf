"""From the command line to checked configs, by Hydra, in a fraction of a second: nothing heavy is imported."""

import copy
import hashlib
import json
import sys
from pathlib import Path
from typing import NamedTuple

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import OverrideType, Sweep
from omegaconf import DictConfig, OmegaConf, read_write

from aelab import check, components, declared, interpolations, source, store
from aelab.config import ConfigError
from aelab.explain import REFUSALS, check_kind, explain, named
from aelab.overrides import name_of, parse
from aelab.registry import CONF, choices, fitting, folders, groups, search_path, target  # noqa: F401 - for its callers

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


TASK = "aelab.tasks.task.Task"


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
    try:
        folder, name = Path(hydra.run.dir).absolute(), str(hydra.sweep.subdir) if multirun else ""
        home = Path(hydra.sweep.dir).absolute() if multirun else None
    except REFUSALS as error:
        raise explain(error, words, dirs) from error
    if multirun:
        if Path(name).parts != (name,) or name in ("..", "/"):
            raise ConfigError(
                f"hydra.sweep.subdir={name}: expected the name of a folder in hydra.sweep.dir, for each job"
            )
        folder = home / name
    return Job([word for word in words if not name_of(word).startswith("hydra")], cfg, folder, sign)


def based(overrides: list[str], dirs: list[Path], bases: dict) -> tuple[DictConfig, str]:
    """What Hydra composes, and as text; from `bases`, by then filled, where only single values differ from before.

    That takes 20 ms instead of 180: jobs of a sweep seldom differ in more. The text has the first one's values, and
    those typed.
    """
    parsed = parse(overrides)
    if several := next((o for o in parsed if o.is_sweep_override()), None):
        line, key = check.short(several.input_line), several.key_or_group
        raise ConfigError(f"{line}: several values; add -m for a job with each, or give one list, as {key}=[A,B]")
    named(parsed, dirs)
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
            if not str(OmegaConf.select(cfg, f"hydra.{part}._target_")).rpartition(".")[2].startswith("Basic"):
                raise ConfigError(f"hydra/{part}: Hydra's others are not used here; leave it out")
        if cfg.get("allow") and not any(name_of(o) == "allow" for o in overrides):
            raise ConfigError("allow: no file can allow packages; if you trust them, type allow=[...] yourself")
        if "choices" in cfg:
            raise ConfigError("choices: is what comes of the others; choose with GROUP=NAME, such as model=unet_mini")
        with read_write(cfg):
            cfg.hydra.job.num = number
        interpolations.bounded(OmegaConf.to_container(OmegaConf.masked_copy(cfg, [k for k in cfg if k != "hydra"])))
        HydraConfig.instance().set_config(cfg)
        helpers = [str(k) for k in cfg if f"${{{k}}}" in text]
        cfg = settle(cfg, chosen(cfg.hydra.runtime.choices, dirs))
    except REFUSALS as error:
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
            if wanted and isinstance(component, dict):
                check_kind(group, name, component["_target_"], choices.task, wanted, dirs)
    check.shares(plain["dataset"], declared.kinds("dataset", plain["dataset"]["_target_"]))
    _monitored(plain, target, dirs)


def _monitored(plain: dict, target: str, dirs: list[Path]) -> None:
    """That `fit.monitor` is measured in every epoch: the loss, its terms, and what the task says (`watches`)."""
    names, own = ["loss", *plain["loss"]], declared.class_value(target, "watches")
    if declared.class_value(target, "by_example") is not False:
        names += plain["metric"]
    for name in own or ():
        try:
            filled = name.format(**plain["task"])
        except (IndexError, KeyError) as error:
            raise ConfigError(f"task: no value for {name}, which it measures; give it one") from error
        names += [filled] if filled in plain["metric"] or filled not in choices("metric", dirs) else []
    known, monitor = [f"val/{name}" for name in dict.fromkeys(names)], plain["fit"]["monitor"]
    # What somebody's own task measures without saying so shows when it is trained.
    silent = not own and declared.replaces(target, "watch", TASK) and monitor.startswith("val/")
    if monitor not in known and not silent:
        told = ", ".join(known)
        raise ConfigError(f"fit.monitor={check.short(monitor)}: not measured in every epoch; there are: {told}")


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
