"""What a run folder tells: config.yaml, and run.json, from which alone `aelab sync` can make the run in any store."""

import json
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from yaml import YAMLError

from aelab.config import AelabError

NAME = "run.json"
WHOLE = {"choices", "task", "dataset", "model", "corruption", "fit", "optimizer"}
"""What no stored config lacks."""
EXAMPLES = "examples.parquet"
"""A row for each test example, with a column for each metric that is a mean over them."""
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
    half = folder / f".{NAME}"
    half.unlink(missing_ok=True)  # it may be a link to elsewhere
    with half.open("x", encoding="utf-8") as file:
        file.write(json.dumps({**told, **facts}, indent=2) + "\n")
    half.replace(folder / NAME)


def read(folder: Path, name: str = NAME) -> dict:
    """What a folder tells in run.json, or its metrics in another file; AelabError where that is broken."""
    file = folder / name
    try:
        told = json.loads(text(file))
        json.dumps(told, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise AelabError(f"{file}: cannot be read ({error}); copy the run folder again") from error
    if not isinstance(told, dict):
        raise AelabError(f"{file}: expected names and values, got {_said(told)}; copy the run folder again")
    for key, value in told.items():
        right, expected = FACTS.get(key, ANYTHING) if name == NAME else METRIC
        if not right(value):
            raise AelabError(f"{file}: {key}: expected {expected}, got {_said(value)}; copy the run folder again")
    if name == NAME and (lacking := _lacking(told)):
        raise AelabError(f"{file}: is not whole, lacks {lacking[0]}; copy the run folder again")
    return told


def _lacking(told: dict) -> list[str]:
    names = [key for key in NEEDED if key not in told]
    return names or [key for key in ("mlflow.runName", *NUMBERS) if key not in told["tags"]]


ANYTHING = (lambda value: True, "")
METRIC = (lambda v: isinstance(v, int | float) and not isinstance(v, bool), "a number")


def _said(value: object) -> str:
    told = ascii(value)
    return told if len(told) <= 60 else f"{told[:60]}..."


def text(file: Path) -> str:
    """The text of a file of a run folder, which is no link, nor anything that would not end."""
    try:
        with os.fdopen(os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as opened:
            found = os.fstat(opened.fileno())
            if not stat.S_ISREG(found.st_mode) or found.st_size > LARGEST:
                raise AelabError(f"{file}: expected a file of at most {LARGEST >> 20} MiB; copy the run folder again")
            return opened.read(LARGEST).decode("utf-8")
    except OSError as error:
        what = "is a link" if file.is_symlink() else f"cannot be read ({error.strerror})"
        raise AelabError(f"{file}: {what}; copy the run folder again, with its files") from error


def config(folder: Path) -> DictConfig:
    """The config that a run was made with; AelabError where the file is broken."""
    file = folder / "config.yaml"
    try:
        cfg = OmegaConf.load(file)
    except (YAMLError, ValueError) as error:
        raise AelabError(f"{file}: is no YAML; copy the run folder again") from error
    if lacking := WHOLE - set(cfg if isinstance(cfg, DictConfig) else ()):
        raise AelabError(f"{file}: is not whole, lacks {', '.join(sorted(lacking))}; copy the run folder again")
    return cfg


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
    return [p for p in folder.iterdir() if p.suffix in SHOWN and p.name not in (NAME, f".{NAME}")]
