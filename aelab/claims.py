"""What one process at a time may do: a claim ends with the process that holds it, however that ends.

A claim is a lock on one byte of the file `claims.lock` in output_dir, at a place that follows from what is claimed.
The operating system gives it back when the process dies, so that none is ever stale; and waiting for one costs nothing.
"""

import contextlib
import errno
import fcntl
import functools
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from aelab import console
from aelab.config import AelabError

NAME = "claims.lock"
BUSY = (errno.EAGAIN, errno.EACCES)
UNABLE = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@functools.cache
def _file(home: Path, process: int) -> int:
    """The file, open in this process, whose id is `process`. To close it would end all claims that it holds."""
    home.mkdir(parents=True, exist_ok=True)
    try:
        return os.open(home / NAME, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise AelabError(f"{home / NAME}: cannot be opened ({error.strerror}); give another output_dir") from error


@functools.cache
def _unable(home: Path, why: str) -> None:
    """Say once what cannot be kept."""
    console.complain(f"{home / NAME}: cannot be locked ({why}); two commands at once may run the same job twice")


def _lock(home: Path, what: tuple[str, ...], how: int) -> bool:
    place = int.from_bytes(hashlib.sha256("\n".join(what).encode()).digest()[:7])
    try:
        fcntl.lockf(_file(home, os.getpid()), how, 1, place)
    except OSError as error:
        if error.errno in UNABLE:
            _unable(home, error.strerror)
        elif error.errno not in BUSY:
            raise
        return error.errno in UNABLE
    return True


@contextlib.contextmanager
def hold(output_dir: str, *what: str, wait: bool) -> Iterator[bool]:
    """Hold a claim during a block, once it is free; without `wait`, only if it is. Gives whether it is held."""
    home = Path(output_dir).resolve()
    got = _lock(home, what, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    try:
        yield got
    finally:
        if got:
            _lock(home, what, fcntl.LOCK_UN)


def free(output_dir: str, *what: str) -> bool:
    """Whether nobody else holds a claim. Not for who holds it: that would end it."""
    with hold(output_dir, *what, wait=False) as got:
        return got
