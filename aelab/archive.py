"""Fitted objects in files, without pickle: what is read back may be made of known classes alone."""

import zlib
from pathlib import Path
from zipfile import BadZipFile

from aelab import run_files
from aelab.config import AelabError

BROKEN = (
    *(OSError, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError, ImportError, RecursionError),
    *(NotImplementedError, MemoryError, OverflowError, BadZipFile, zlib.error),
)
"""What skops raises for a file that is not as it should be: it builds whatever the schema in the file says."""
KNOWN = ("aelab.", "sklearn.", "scipy.sparse.")


def write(thing: object, file: Path) -> None:
    """Write anything that NumPy, scikit-learn and this package make."""
    import skops.io  # imports all of scikit-learn, which takes 2 s

    skops.io.dump(thing, file)


def read(file: Path) -> object:
    """Read it back; AelabError for a file that is broken, or that names a class of another package."""
    import skops.io

    with run_files.reading(file, *BROKEN):
        strange = skops.io.get_untrusted_types(file=file)
        if foreign := [name for name in strange if not name.startswith(KNOWN)]:
            raise AelabError(f"{file}: names {', '.join(foreign)}, which is neither ours nor scikit-learn's; not read")
        return skops.io.load(file, trusted=strange)


def model(file: Path):
    """A fitted model, which has what a model has; AelabError for another thing."""
    found = read(file)
    if not hasattr(found, "fit") or not (hasattr(found, "predict") or hasattr(found, "score")):
        raise AelabError(f"{file}: expected a fitted model, got a {type(found).__name__}; {run_files.REMEDY}")
    return found
