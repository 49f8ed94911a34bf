"""The config groups and their choices: the listing of the folders of YAML files is the registry."""

import re
from pathlib import Path

from aelab import conf_files, declared
from aelab.components import CONF
from aelab.config import ConfigError


def folders(extra: list[str]) -> list[Path]:
    """The config folders, the user's first: those given, `./conf` where it is another's, then our own."""
    try:
        here = Path("conf").resolve()
    except FileNotFoundError as error:
        raise ConfigError("the folder that this shell is in is not there any more; cd to another") from error
    if "" in extra:
        raise ConfigError("--config-dir: expected a folder after it, as in --config-dir my_conf")
    mine = [Path(d).resolve() for d in extra] + ([here] if here.is_dir() and here != CONF else [])
    for folder in mine:
        if not folder.is_dir():
            raise ConfigError(f"--config-dir {folder}: no such folder")
    return [*dict.fromkeys(mine), CONF]


def search_path(dirs: list[Path]) -> list[str]:
    """The override that puts the user's config folders on Hydra's search path."""
    mine = [f'"{conf_files.PeoplesFolder.scheme()}://{d}"' for d in dirs if d != CONF]
    return [f"hydra.searchpath=[{','.join(mine)}]"] if mine else []


def groups(dirs: list[Path]) -> list[str]:
    """The config groups: the folders below `conf/` whose choices are components or named settings."""
    return sorted({p.name for d in dirs for p in d.iterdir() if p.is_dir() and p.name != "hydra"})


def choices(group: str, dirs: list[Path]) -> dict[str, Path]:
    """The choices of a group: name -> YAML file. The listing of the folders is the registry."""
    files = {p.stem: p for d in reversed(dirs) for p in (d / group).glob("*.yaml") if p.is_file()}
    return dict(sorted(files.items()))


def target(file: Path) -> str | None:
    """The `_target_` of a choice, wherever its YAML places it; read as text, as help and errors look at every file."""
    found = re.search(r"^\s*_target_:\s*(\S+)", file.read_text(encoding="utf-8", errors="replace"), re.MULTILINE)
    return found[1].strip("'\"") if found else None


def fitting(group: str, kinds: tuple[str, ...], dirs: list[Path]) -> list[str]:
    """The choices of a group that take (or give) one of the kinds of input; losses of no kind fit all."""
    targets = {name: target(file) for name, file in choices(group, dirs).items()}
    found = {name: declared.kinds(group, component) for name, component in targets.items() if component}
    return [name for name, kind in found.items() if set(kind or ()) & set(kinds) or (kind is None and group == "loss")]


def helpers(group: str, dirs: list[Path]) -> dict[str, set[str]]:
    """The names that each choice of a group adds at the top of a config, such as `path`, for its own values."""
    found = {}
    for name, file in choices(group, dirs).items():
        text = file.read_text(encoding="utf-8", errors="replace")
        if "@package _global_" in text:
            found[name] = set(re.findall(r"^([a-z_]+):", text, re.MULTILINE)) - {group, "defaults"}
    return found
