"""An SQLite file that is whole or not there, whenever the process that makes it is killed or the disk is full.

It is made in memory, written under another name, and renamed. Half of one, as was left before, is set aside.
"""

import os
import sqlite3
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock

from aelab import console
from aelab.config import AelabError

BESIDE = ("", "-journal", "-wal", "-shm")
"""What SQLite keeps, after the name of the file. A journal that is not the file's own would destroy it."""
COPY = "_alembic_tmp_"
"""What a migration calls the copy of a table that it alters."""


class Kind(NamedTuple):
    """A kind of database: the table that has a row only once all is made, all its tables, and how it is made."""

    last: str
    tables: Callable[[], Iterable[str]]
    build: Callable[[], AbstractContextManager[sqlite3.Connection]]


def tables(file: Path) -> set[str]:
    """Names of the tables of a database that is there."""
    with _opened(file) as database:
        return {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def is_whole(file: Path, last: str) -> bool:
    """Whether a database is there and was made to its end, so that its table `last` has a row. Needs no writing."""
    if not file.exists():
        return False
    if not file.is_file():
        raise AelabError(f"{file}: expected a database, and it is no file")
    with _opened(file) as database:
        there = database.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", (last,)).fetchone()
        return bool(there and database.execute(f'SELECT 1 FROM "{last}" LIMIT 1').fetchone())


def _opened(file: Path) -> closing:
    return closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=rw", uri=True, timeout=60))  # rw: or else read


def ensure(file: Path, kind: Kind) -> None:
    """Make a database where none is; what is no such database, whole or half, is refused and left as it is."""
    file = file.resolve()
    if is_whole(file, kind.last):
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{file}.lock"):
        if is_whole(file, kind.last):  # another process was at it
            return
        if file.exists():
            known = {*kind.tables(), "alembic_version"}
            if strange := sorted(name for name in tables(file) if name.removeprefix(COPY) not in known):
                raise AelabError(f"{file}: is a database of something else, with the table {strange[0]}; name another")
        set_aside(file)
        _make(file, kind)


def set_aside(file: Path) -> None:
    """Give half a database, and what belongs to it, another name; tells so."""
    aside = file.with_name(f"{file.name}.broken-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}")
    parts = [part for part in BESIDE if Path(f"{file}{part}").exists()]
    for part in parts:
        Path(f"{file}{part}").replace(f"{aside}{part}")
    if parts:
        console.complain(f"{file}: was left half made, by a process that was killed; it is now {aside.name}")


def _make(file: Path, kind: Kind) -> None:
    half = file.with_name(f"{file.name}.new")
    try:
        _discard(half)  # of a process that was killed
        # ^C waits for a second: SQLAlchemy would make another error of it
        with console.unbroken(), kind.build() as memory, closing(sqlite3.connect(half)) as target:
            memory.commit()  # or else the copy would wait for it
            memory.backup(target)
        half.replace(file)
    finally:
        _discard(half)


def _discard(file: Path) -> None:
    for part in BESIDE:
        Path(f"{file}{part}").unlink(missing_ok=True)
