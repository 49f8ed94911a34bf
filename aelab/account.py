"""What a run folder tells: config.yaml, and run.json, from which alone `aelab sync` can make the run in any store."""

import contextlib
import errno
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from omegaconf import DictConfig, OmegaConf
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
    """What a folder tells in run.json, or in another file; AelabError where that is broken."""
    try:
        return json.loads((folder / name).read_text(encoding="utf-8"))
    except ValueError as error:
        raise AelabError(f"{folder / name}: cannot be read ({error}); copy the run folder again") from error


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
    return sorted(p.name for p in folder.iterdir() if p.suffix in SHOWN and p.name != NAME and p.name[0] != ".")
