"""What the command line shows and runs nothing: the composed config, Hydra's account of it, completion, the version."""

import logging
import os
import re
import sys
from pathlib import Path

import hydra
from omegaconf import DictConfig, OmegaConf

from aelab import circumstances, compose, registry, store
from aelab.check import short
from aelab.config import ConfigError

SHORT = {"-c": "--cfg", "-i": "--info", "-sc": "--shell-completion", "-p": "--package", "-cd": "--config-dir"}
CFG = ("job", "hydra", "all")
INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
SHOWS = ("--cfg", "--info", "--shell-completion", "--version")
"""What is shown: one of these is given."""
TAKES = ("--cfg", "--shell-completion", "--package", "--config-dir")
"""Options with a value, after = or as the next word."""
USE = "use --cfg job|hydra|all [--package NAME] [--resolve], --info [all|config|...], -sc install=bash, or --version"


def wanted(argv: list[str]) -> bool:
    """Whether a command line asks for something to be shown."""
    return any(SHORT.get(name := word.partition("=")[0], name) in SHOWS for word in argv)


def show(argv: list[str]) -> int:
    """Show what is asked for; a config only if it could be run."""
    words, options = parsed(argv)
    asked = [name for name in SHOWS if name in options]
    if len(asked) > 1:
        raise ConfigError(f"{asked[1]}: cannot be given with {asked[0]}; {USE}")
    if asked != ["--cfg"] and (more := options.keys() & {"--package", "--resolve"}):
        raise ConfigError(f"{min(more)}: is for --cfg; {USE}")
    dirs = compose.folders(options.get("--config-dir", []))
    if asked == ["--version"]:
        print("aelab", circumstances.version("aelab"))
        return 0
    if asked == ["--shell-completion"]:
        return completion(options["--shell-completion"][-1], dirs)
    with compose.session():
        compose.compose(words, dirs)
        if asked == ["--cfg"]:
            chosen, package = options["--cfg"][-1], options.get("--package", [None])[-1]
            return config(compose.based(words, dirs, {})[0], chosen, package, "--resolve" in options)
    return call_hydra(["--info", options["--info"][-1], *registry.search_path(dirs), *words])


def parsed(argv: list[str]) -> tuple[list[str], dict[str, list[str]]]:
    """(overrides, options with the values given to each) of a command line; refuses what it does not know."""
    words, options, rest = [], {}, list(argv)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.partition("=")
        name = SHORT.get(name, name)
        if not word.startswith("-"):
            if "=" not in word and not word.startswith("~"):
                raise ConfigError(f"{short(word)}: expected key=value; {USE}")
            words.append(word)
            continue
        if name not in (*SHOWS, *TAKES, "--resolve") or (equals and name in ("--version", "--resolve")):
            raise ConfigError(f"{short(word)}: cannot be given here; {USE}")
        if name == "--info" and not equals:
            value = rest.pop(0) if rest and rest[0] in INFO else "all"
        elif name in TAKES and not equals:
            value = rest.pop(0) if rest else ""
        if (name == "--cfg" and value not in CFG) or (name == "--info" and value not in INFO):
            there = ", ".join(CFG if name == "--cfg" else INFO)
            raise ConfigError(f"{name} {short(value)}: expected one of {there}")
        options.setdefault(name, []).append(value)
    return words, options


def config(cfg: DictConfig, chosen: str, package: str | None, resolve: bool) -> int:
    """Print a composed config, ours ("job"), Hydra's or all of it, or one part."""
    keys = {"job": [k for k in cfg if k != "hydra"], "hydra": ["hydra"], "all": list(cfg)}[chosen]
    OmegaConf.set_readonly(cfg.hydra, None)
    node = part = OmegaConf.masked_copy(cfg, keys)
    node._set_parent(None)
    if package not in (None, "_global_"):
        part = OmegaConf.select(node, package)
        if part is None:
            raise ConfigError(f"--package {short(package)}: no such part; there are: {', '.join(map(str, keys))}")
        if not OmegaConf.is_config(part):
            print(part)
            return 0
        print(f"# @package {package}")
    if resolve:
        OmegaConf.resolve(part)
    print(store.veiled(OmegaConf.to_yaml(part)), end="")
    return 0


def completion(asked: str, dirs: list[Path]) -> int:
    """A shell's completion: the script that installs it, or, for that script, what may come next."""
    if not re.fullmatch(r"(install|uninstall|query)=(bash|zsh|fish)", asked):
        raise ConfigError(f"--shell-completion {short(asked)}: expected install=bash, install=zsh or install=fish")
    if asked.startswith("query") and not {"COMP_LINE", "COMP_POINT"} <= os.environ.keys():
        raise ConfigError(f"--shell-completion {asked}: is for the script that install=bash gives; use that")
    extra = ["--config-dir", str(dirs[0])] if len(dirs) > 1 else []  # completion knows no other way
    return call_hydra([*extra, "--shell-completion", asked])


def call_hydra(argv: list[str]) -> int:
    """Call Hydra's own entry point with our config folder, for what it shows."""
    sys.argv, logging.raiseExceptions = ["aelab", *argv], False  # it prints by logging: | head is no error
    try:
        hydra.main(version_base="1.3", config_path=str(compose.CONF), config_name="config")(lambda cfg: None)()
    except SystemExit as end:
        return int(bool(end.code))
    return 0
