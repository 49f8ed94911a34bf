"""What keeps a file from harming its reader: regular files alone, sizes against memory, short values in messages."""

import difflib
import resource
import stat
from collections.abc import Iterable
from pathlib import Path

from aelab.check import unknown
from aelab.config import ConfigError, DataError

LONGEST = 60
"""Characters of a value that a message shows."""
NAMES, SEARCHED = 40, 1000
"""Names that a message lists, and those among which one like a wrong name is looked for."""
CGROUP = Path("/sys/fs/cgroup")
"""Where a container says how much memory it may take, in either version of control groups."""
CGROUP_FILES = (
    ("memory.max", "memory.current"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
)


def shown(value: object, longest: int = LONGEST) -> str:
    """A value of a file for a message: one line, short, and what a terminal would obey made visible.

    >>> shown("a\\x1b[2Jb\\n")
    'a\\\\x1b[2Jb\\\\n'
    """
    text = value if isinstance(value, str) else str(value)
    size, text = len(text), text[:longest]
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    return f"{text}... ({size:,} characters)" if size > longest else text


def quoted(value: object) -> str:
    """The same; texts stand in quotes, as " 1" and "1" or nothing at all could not be told apart."""
    return f"'{shown(value)}'" if isinstance(value, str) else shown(value)


def plain(value: float) -> str:
    """A number with all of its digits: of 1.0000001 the last one is what is wrong.

    >>> plain(255.0), plain(1.0000001)
    ('255', '1.0000001')
    """
    return str(value).removesuffix(".0")


def listed(names: Iterable[object], count: int = 8) -> str:
    """The first names of a file's for a message."""
    names = list(names)
    return ", ".join(map(shown, names[:count])) + (f", ... ({len(names):,} in all)" if len(names) > count else "")


def unknown_name(label: str, name: str, names: Iterable[object]) -> str:
    """What `aelab.check.unknown` says of a name that a file lacks, with at most `NAMES` of the file's."""
    names = list(names)
    known = sorted({shown(known) for known in names[:SEARCHED]})
    near = difflib.get_close_matches(name, known, 1, 0.6)
    said = unknown(f"{label} {shown(name)}", name, near or known[:NAMES])
    return said if near or len(names) <= NAMES else f"{said}, ... ({len(names):,} in all)"


def regular(file: Path) -> int:
    """The size of a regular file in bytes; DataError for a folder, a pipe, a device: these have no end, or block.

    Errors: FileNotFoundError and other OSErrors as they come.
    """
    found = file.stat()
    if not stat.S_ISREG(found.st_mode):
        kinds = {stat.S_IFDIR: "Is a directory", stat.S_IFIFO: "Is a pipe", stat.S_IFSOCK: "Is a socket"}
        raise DataError(f"{file}: cannot be read: {kinds.get(stat.S_IFMT(found.st_mode), 'Is a device')}")
    return found.st_size


def free_memory() -> int:
    """Bytes of memory that this process can still take: of the machine, its container and its own limit."""
    import psutil  # late, as it brings sockets along

    found = [psutil.virtual_memory().available]
    for limit, usage in CGROUP_FILES:
        try:
            most, taken = ((CGROUP / name).read_text().strip() for name in (limit, usage))
        except OSError:
            continue
        if most != "max":
            found.append(int(most) - int(taken))
    most, _ = resource.getrlimit(resource.RLIMIT_AS)
    if most != resource.RLIM_INFINITY:
        found.append(most - psutil.Process().memory_info().vms)
    return max(min(found), 0)


def size(count: float) -> str:
    """Bytes for people.

    >>> size(3 * 2**30)
    '3.0 GiB'
    """
    unit = next((i for i in range(5) if count < 1024 ** (i + 1)), 5)
    return f"{count / 1024**unit:,.1f} {('bytes', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB')[unit]}"


def afford(needed: int, what: str, remedy: str, error: type[DataError | ConfigError] = DataError) -> None:
    """Refuse what would take more memory than there is, before it is taken; `remedy` says how to take less."""
    free = free_memory()
    if needed > free:
        raise error(f"{what}: would take about {size(needed)} of memory, and {size(free)} are free; {remedy}")
