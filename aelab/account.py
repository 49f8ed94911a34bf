"""What a run folder tells: config.yaml, and run.json, from which alone `aelab sync` can make the run in any store."""

import contextlib
import errno
import io
import json
import os
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

from omegaconf import DictConfig, ListConfig, OmegaConf
from yaml import YAMLError

from aelab.config import AelabError

NAME = "run.json"
WHOLE = {"choices", "task", "dataset", "model", "corruption", "fit", "optimizer"}
"""What no stored config lacks."""
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


def stored(file: Path) -> DictConfig | ListConfig:
    """A YAML file of a run folder; AelabError where it is broken, or would look something up on this machine."""
    try:
        found = OmegaConf.load(file)
    except (YAMLError, ValueError) as error:
        raise AelabError(f"{file}: is no YAML; copy the run folder again") from error
    if "${" in str(OmegaConf.to_container(found)):
        raise AelabError(f"{file}: has a ${{...}} in it, which no stored config has; copy the run folder again")
    return found


def config(folder: Path) -> DictConfig:
    """The config that a run was made with; AelabError where the file is broken."""
    file = folder / "config.yaml"
    cfg = stored(file)
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
    return [p for p in folder.iterdir() if p.suffix in SHOWN and p.name != NAME and p.name[0] != "."]
