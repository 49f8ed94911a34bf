"""YAML files of people's own config folders: looked at before they are built, so that none hangs or surprises Hydra.

Hydra reads a folder by its scheme: these folders have one of our own, ours are read as ever.
"""

import io
import re
from pathlib import Path

import yaml
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.sources_registry import SourcesRegistry
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from omegaconf import DictConfig, OmegaConf

from aelab.config import ConfigError
from aelab.overrides import DEEPEST, HYDRAS

LARGEST = 10_000
"""Values of a file, with those that its aliases repeat."""
PLAIN = tuple(f"tag:yaml.org,2002:{name}" for name in ("map", "seq", "str", "int", "float", "bool", "null", "merge"))


class PeoplesFolder(FileConfigSource):
    """A config folder that is somebody's: each of its files is checked when Hydra takes it."""

    @staticmethod
    def scheme() -> str:
        """What its address begins with."""
        return "aelab"

    def load_config(self, config_path: str) -> ConfigResult:
        """A file, as Hydra wants it."""
        file = Path(self.path) / self._normalize_file_name(config_path)
        if not file.exists():
            raise ConfigLoadError(f"Config not found : {file}")
        text = read(file)
        cfg = load(text, file)
        header = ConfigSource._get_header_dict(text[:512])
        _hydras(cfg, header, file, config_path)
        return ConfigResult(config=cfg, path=f"{self.scheme()}://{self.path}", provider=self.provider, header=header)


SourcesRegistry.instance().register(PeoplesFolder)


def read(file: Path) -> str:
    """The text of a file; `ConfigError` where it cannot be read."""
    try:
        return file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: expected a text in UTF-8, {error.reason} at byte {error.start}") from error


def load(text: str, file: Path) -> DictConfig:
    """The config of a YAML text; `ConfigError` where it is broken, is no mapping, or would be too large."""
    try:
        _bounded(text, file)
        found = OmegaConf.load(io.StringIO(text))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        where = f"line {mark.line + 1}: " if mark else ""
        said = getattr(error, "problem", None) or " ".join(str(error).split())
        raise ConfigError(f"{file}: no valid YAML: {where}{said}") from error
    except OSError as error:  # what OmegaConf says of a scalar
        raise ConfigError(f"{file}: expected lines of key: value, got a single value") from error
    if not isinstance(found, DictConfig):
        raise ConfigError(f"{file}: expected lines of key: value, got a list")
    _text_keys(OmegaConf.to_container(found), file)
    return found


def _bounded(text: str, file: Path) -> None:
    """Count a text's values with what its aliases repeat, and their depth, event by event: nothing is built."""
    sizes: dict[str, tuple[int, int]] = {}  # of each anchor: values and levels
    open_: list[list] = [["", 0, 0]]  # of each collection around: its anchor, values and levels
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        where = f"{file}: line {event.start_mark.line + 1}: "
        if (tag := getattr(event, "tag", None)) and tag not in (*PLAIN, "!"):
            shown = tag.replace("tag:yaml.org,2002:", "!!")
            raise ConfigError(f"{where}{shown} is no plain value, list or mapping; leave it out")
        if isinstance(event, yaml.CollectionStartEvent):
            open_.append([event.anchor, 1, 1])
            if len(open_) > DEEPEST:
                raise ConfigError(f"{where}nested too deep; at most {DEEPEST} levels")
            continue
        if isinstance(event, yaml.CollectionEndEvent):
            anchor, *size = open_.pop()
        elif isinstance(event, yaml.ScalarEvent):
            anchor, size = event.anchor, (1, 0)
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor in [name for name, *_ in open_]:
                raise ConfigError(f"{where}*{event.anchor} refers to what it stands in; write it out")
            anchor, size = None, sizes.get(event.anchor, (1, 0))
        else:
            continue
        if anchor:
            sizes[anchor] = tuple(size)
        open_[-1][1] += size[0]
        open_[-1][2] = max(open_[-1][2], size[1] + 1)
        if open_[-1][1] > LARGEST or open_[-1][2] + len(open_) > DEEPEST + 2:
            raise ConfigError(f"{where}its aliases make it too large; at most {LARGEST:,} values, {DEEPEST} levels")


def _text_keys(node, file: Path, path: str = "") -> None:
    for key, value in node.items() if isinstance(node, dict) else enumerate(node):
        if isinstance(node, dict) and not isinstance(key, str):
            raise ConfigError(f"{file}: {path}{key!r}: expected a text as a key; put it in quotes")
        if isinstance(value, dict | list):
            _text_keys(value, file, f"{path}{key}.")


def _hydras(cfg: DictConfig, header: dict[str, str], file: Path, place: str) -> None:
    """That a file leaves Hydra's own settings as they are, but for the folders of results; `place`: where it stands."""
    made = OmegaConf.to_container(cfg)
    own, defaults = made.get("hydra", {}), made.get("defaults")
    pairs = own.items() if isinstance(own, dict) else [("", None)]
    keys = [f"hydra.{key}.{name}" for key, node in pairs for name in (node if isinstance(node, dict) else [""])]
    chosen = [name for entry in (defaults if isinstance(defaults, list) else ()) for name in _words(entry)]
    within = [(header.get("package") or "").split(".")[0], *(re.split("[/@]", name)[0] for name in (place, *chosen))]
    if "hydra" in within or not set(keys) <= set(HYDRAS):
        raise ConfigError(f"{file}: sets Hydra's own settings; it may set these: {', '.join(HYDRAS)}")


def _words(entry) -> list[str]:
    """What an entry of a list of defaults names, without the slash before it."""
    names = entry if isinstance(entry, dict) else [entry]
    return [str(name).split()[-1].lstrip("/") for name in names if str(name).split()]
