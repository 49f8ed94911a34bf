"""What a run folder tells: config.yaml, and run.json, from which alone `aelab sync` can make the run in any store."""

import contextlib
import errno
import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from aelab import run_files
from aelab.config import AelabError
from aelab.run_files import NAME, REMEDY

WHOLE = {"choices", "task", "dataset", "model", "corruption", "fit", "optimizer", "tracking"}
"""What no stored config lacks."""
DEEPEST = 50
"""Lists and groups within one another in a config."""
EXAMPLES = "examples.parquet"
"""A row for each test example, with a column for each metric that is a mean over them."""
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Numbers of the errors of a disk that is full, by itself or for this user."""
FULL = "no room on the disk"
"""How it is told: as the reason of a run that could not be written, which is no doing of its own."""
SHOWN = (".png", ".html", ".json", ".csv", ".yaml", ".log", ".txt")


LARGEST = 1 << 26
"""Bytes of a file that is read whole."""
A_NAME = "a name of at most 200 bytes, without / and control characters"


def is_name(value: object) -> bool:
    """Whether a value can be the name of a file or folder, and never leads elsewhere."""
    plain = isinstance(value, str) and not re.search(r"[/\x00-\x1f\x7f-\x9f\ud800-\udfff]", value)
    return plain and value not in ("", ".", "..") and len(value.encode()) <= 200


def _texts(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())


def _tags(value: object) -> bool:
    return _texts(value) and all(re.fullmatch(form, value[key]) for key, form in NUMBERS.items() if key in value)


def _time(value: object) -> bool:
    return type(value) is int and 0 <= value < 10**14


_SECONDS = r"[0-9]{1,15}(\.[0-9]{1,9})?"
NUMBERS = {"aelab.pid": "[1-9][0-9]{0,8}", "aelab.pid_started": _SECONDS, "aelab.heartbeat": _SECONDS}
STATES = ("RUNNING", "FINISHED", "FAILED", "KILLED")
FACTS: dict[str, tuple[Callable[[object], bool], str]] = {
    "run_id": (lambda v: isinstance(v, str) and re.fullmatch("[0-9a-f]{32}", v), "32 digits from 0 to f"),
    "experiment": (is_name, A_NAME),
    "start_time": (_time, "milliseconds since 1970"),
    "end_time": (lambda v: v is None or _time(v), "milliseconds since 1970, or null"),
    "status": (lambda v: v in STATES, f"one of {', '.join(STATES)}"),
    "reason": (lambda v: v is None or isinstance(v, str), "a text, or null"),
    "log_model": (lambda v: isinstance(v, bool), "true or false"),
    "tags": (_tags, f"texts by name, and numbers for {', '.join(NUMBERS)}"),
    "params": (_texts, "texts by name"),
    "dataset": (
        lambda v: _texts(v) and v.keys() == {"name", "digest", "source_type", "source"},
        "the texts name, digest, source_type and source",
    ),
    "signature": (lambda v: isinstance(v, str), "a text"),
}
NEEDED = ("run_id", "experiment", "start_time", "end_time", "status", "reason", "log_model", "tags")
"""What run.json may say, and how each is told where it says something else: others than we may have written it."""


def note(folder: Path, **facts) -> None:
    """Add facts to a folder's account, which is whole at any time: also when the process is killed while it writes."""
    folder.mkdir(parents=True, exist_ok=True)
    told = read(folder) if (folder / NAME).exists() else {}
    write(folder / NAME, json.dumps({**told, **facts}, indent=2) + "\n")


def full(error: BaseException) -> bool:
    """Whether an error says that there was no room on the disk; NumPy says so without its number."""
    text = str(error)
    told = "No space left" in text or (" requested and " in text and text.endswith(" written"))
    return isinstance(error, OSError) and (error.errno in NO_ROOM or told)


@contextlib.contextmanager
def whole(file: Path) -> Iterator[Path]:
    """A file beside another, to be written in the block, which takes its place after it: it is whole or as it was.

    Where there is no room for it, it is deleted, so that there is some for what has to be said of that.
    """
    half = file.with_name(f".{file.name}")
    half.unlink(missing_ok=True)  # it may be a link to elsewhere
    try:
        yield half
        half.replace(file)
    except OSError as error:
        error.filename = error.filename or str(file)  # libraries write by a descriptor, whose name is not told
        raise
    finally:
        half.unlink(missing_ok=True)


def write(file: Path, text: str) -> None:
    """Write a text file whole, or leave it as it was."""
    with whole(file) as half:
        half.write_text(text, encoding="utf-8")


class _Raw(io.FileIO):
    """A file that takes what there is no room for as if it were written."""

    def write(self, data) -> int:
        """Write as many bytes as there is room for; gives how many there were."""
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            return len(data)


def log(file: Path) -> TextIO:
    """A log to add lines to; a full disk is told by what had to be written, not by the log of it."""
    return io.TextIOWrapper(io.BufferedWriter(_Raw(file, "a")), encoding="utf-8", line_buffering=True)


def read(folder: Path, name: str = NAME) -> dict:
    """What a folder tells in run.json, or its metrics in another file; AelabError where that is broken."""
    file = folder / name
    told = run_files.facts(file if name == NAME else run_files.intact(file))
    with run_files.broken(file, ValueError):  # half of a character, say
        json.dumps(told, ensure_ascii=False).encode()
    for key, value in told.items():
        right, expected = FACTS.get(key, ANYTHING) if name == NAME else METRIC
        if not right(value):
            raise AelabError(f"{file}: {key}: expected {expected}, got {_said(value)}; {REMEDY}")
    if name == NAME and (lacking := _lacking(told)):
        raise AelabError(f"{file}: is not whole, lacks {lacking[0]}; {REMEDY}")
    return told


def _lacking(told: dict) -> list[str]:
    names = [key for key in NEEDED if key not in told]
    return names or [key for key in ("mlflow.runName", *NUMBERS) if key not in told["tags"]]


ANYTHING = (lambda value: True, "")
METRIC = (lambda v: isinstance(v, int | float) and not isinstance(v, bool), "a number")


def _said(value: object) -> str:
    told = ascii(value)
    return told if len(told) <= 60 else f"{told[:60]}..."


def config(folder: Path) -> DictConfig:
    """The config that a run was made with; AelabError where the file is broken."""
    file = folder / "config.yaml"
    cfg = yaml_of(file)
    if isinstance(cfg, DictConfig) and "${" in str(OmegaConf.to_container(cfg)):
        raise AelabError(f"{file}: has a ${{...}} in it, which no stored config has; {REMEDY}")
    if lacking := WHOLE - set(cfg if isinstance(cfg, DictConfig) else ()):
        raise AelabError(f"{file}: is not whole, lacks {', '.join(sorted(lacking))}; {REMEDY}")
    for name in sorted(WHOLE):
        if not isinstance(cfg._get_node(name), DictConfig) or not cfg[name]:
            raise AelabError(f"{file}: {name}: expected names and values; {REMEDY}")
    with run_files.broken(file, OmegaConfBaseException):
        OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    if not isinstance(cfg.tracking.get("uri"), str | None):
        raise AelabError(f"{file}: tracking.uri: expected an address; {REMEDY}")
    if strange := [str(value) for value in cfg.choices.values() if not isinstance(value, str | None)]:
        raise AelabError(f"{file}: choices: expected names, got {strange[0][:40]}; {REMEDY}")
    return cfg


def yaml_of(file: Path) -> DictConfig | ListConfig:
    """What a YAML file of a run says: aelab writes none with anchors, whose repetitions could fill the memory."""
    text, depth = run_files.text(file), 0
    try:
        for event in yaml.parse(text, Loader=yaml.CSafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if isinstance(event, yaml.AliasEvent) or depth > DEEPEST:
                raise AelabError(f"{file}: expected YAML as a run writes it, without anchors and depths; {REMEDY}")
        return OmegaConf.load(io.StringIO(text))
    except (yaml.YAMLError, OmegaConfBaseException, ValueError, OSError) as error:
        raise AelabError(f"{file}: is no YAML; {REMEDY}") from error


def words(folder: Path) -> list[str]:
    """What was typed for a run."""
    file = run_files.intact(folder / "overrides.yaml")
    found = yaml_of(file)
    if not isinstance(found, ListConfig) or not all(isinstance(word, str) for word in OmegaConf.to_container(found)):
        raise AelabError(f"{file}: expected a list of texts; {REMEDY}")
    return OmegaConf.to_container(found)  # as it stands: ${...} is of the config, not of this list


def shown(folder: Path) -> list[str]:
    """Names of the files of a run folder that the tracker gets; what else is there belongs to the model."""
    return sorted(p.name for p in _showable(folder) if is_plain(p))


def left_out(folder: Path) -> list[str]:
    """Names of what the tracker would get, were it not a link, or no file at all."""
    return sorted(p.name for p in _showable(folder) if not is_plain(p))


def is_plain(file: Path) -> bool:
    """Whether a file is there, and is itself no link."""
    return file.is_file() and not file.is_symlink()


def _showable(folder: Path) -> list[Path]:
    return [p for p in folder.iterdir() if p.suffix in SHOWN and p.name != NAME and p.name[0] != "."]
