"""Files of a run folder: that they are there, plain, and those that the run wrote; and broken ones as one error.

A finished run notes a digest of each file that is read again. Older folders have none: there a broken file shows when
it is read, and a file of another run where it does not fit.
"""

import contextlib
import hashlib
import json
import os
import re
import stat
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from aelab.config import AelabError

if TYPE_CHECKING:
    import numpy as np

NAME = "run.json"
READ = (".yaml", ".json", ".csv", ".parquet", ".npy", ".npz", ".keras", ".skops")
"""Ends of the names of what is read again; pictures, pages and logs are for people."""
LARGEST = 1 << 26
"""Bytes of a text: no config or account of a run comes near."""
REMEDY = "copy the run folder again"
NUMPYS = (
    *(OSError, EOFError, ValueError, TypeError, KeyError, SyntaxError, RecursionError, NotImplementedError),
    *(RuntimeError, MemoryError, OverflowError, zipfile.BadZipFile, zlib.error),
)
"""What NumPy, SciPy and zipfile raise for arrays in a file that is not as it should be."""


def plain(file: Path) -> Path:
    """The file, which must be there and be a file: a pipe would be waited for, a device read without end."""
    try:
        mode = file.stat().st_mode
    except FileNotFoundError as error:
        raise AelabError(f"{file} is not there: the run did not finish, or not all of it was copied") from error
    except OSError as error:
        raise AelabError(f"{file}: cannot be read ({error.strerror}); {REMEDY}") from error
    if not stat.S_ISREG(mode):
        what = "folder" if stat.S_ISDIR(mode) else "pipe, device or socket"
        raise AelabError(f"{file}: expected a file, got a {what}; {REMEDY}")
    return file


def text(file: Path) -> str:
    """What a small file in UTF-8 says, which is no link; AelabError where it is none."""
    if (size := plain(file).stat().st_size) > LARGEST:
        raise AelabError(f"{file}: expected at most {LARGEST:,} bytes, got {size:,}; {REMEDY}")
    if file.is_symlink():
        raise AelabError(f"{file}: is a link; {REMEDY}, with its files")
    with broken(file, OSError, UnicodeDecodeError):
        return file.read_text(encoding="utf-8")


def facts(file: Path) -> dict:
    """The object of a JSON file; AelabError for anything else."""
    with broken(file, ValueError, RecursionError):
        found = json.loads(text(file))
    if not isinstance(found, dict):
        raise AelabError(f"{file}: expected names and values, got {json.dumps(found)[:40]}; {REMEDY}")
    return found


@contextlib.contextmanager
def broken(file: Path, *errors: type[Exception]) -> Iterator[None]:
    """Turn what libraries raise for a broken file into one error that names it."""
    try:
        yield
    except errors as error:
        lines = re.sub(r"<class '([\w.]+)'>", r"\1", str(error)).strip().splitlines()
        what = f"{type(error).__name__}{f': {lines[0][:200]}' if lines else ''}"
        raise AelabError(f"{file}: cannot be read: {what}; {REMEDY}") from error


@contextlib.contextmanager
def reading(file: Path, *errors: type[Exception]) -> Iterator[Path]:
    """The file, intact, for a block that reads it, and raises `errors` where it is broken."""
    with broken(file, *errors):
        yield intact(file)


def array(file: Path) -> "np.ndarray":
    """The array of numbers in a .npy file; AelabError for anything else."""
    import numpy as np

    with reading(file, *NUMPYS), file.open("rb") as opened:
        found = np.lib.format.read_array(opened, allow_pickle=False)
    if found.dtype.kind not in "iuf" or not np.isfinite(found).all():
        raise AelabError(f"{file}: expected finite numbers, got {found.dtype} {found.shape}; {REMEDY}")
    return found


def digest(file: Path) -> str:
    """The SHA-256 of a file's content."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def digests(folder: Path, besides: str | None = None) -> dict[str, str]:
    """The digest of each file of a run folder that is read again, by name; left out is one that will not stay."""
    aside = (NAME, f".{NAME}", besides)
    files = (file for file in sorted(folder.iterdir()) if file.suffix in READ and file.name not in aside)
    return {file.name: digest(file) for file in files if file.is_file()}


def noted(folder: Path) -> Mapping[str, str]:
    """The digests that a run noted when it finished; none where it is not finished, or older than digests."""
    if not os.path.lexists(folder / NAME):
        return {}
    told = facts(folder / NAME)
    found = told.get("files", {}) if told.get("status") == "FINISHED" else {}
    if not isinstance(found, dict):
        raise AelabError(f"{folder / NAME}: files: expected names and digests; {REMEDY}")
    return found


def intact(file: Path) -> Path:
    """The file, which must be plain and, where the finished run noted a digest of it, the one that it wrote."""
    known = noted(plain(file).parent)
    if known and digest(file) != known.get(file.name):
        raise AelabError(f"{file}: is not whole, or not the one that this run wrote; {REMEDY}")
    return file
