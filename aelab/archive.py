"""Fitted objects in files, without pickle: what is read back may be made of known classes alone."""

from pathlib import Path
from zipfile import BadZipFile

from aelab.config import AelabError

KNOWN = ("aelab.", "sklearn.", "scipy.sparse.")


def write(thing: object, file: Path) -> None:
    """Write anything that NumPy, scikit-learn and this package make."""
    import skops.io  # imports all of scikit-learn, which takes 2 s

    skops.io.dump(thing, file)


def read(file: Path) -> object:
    """Read it back; AelabError for a file that is broken, or that names a class of another package."""
    import skops.io

    try:
        strange = skops.io.get_untrusted_types(file=file)
        if foreign := [name for name in strange if not name.startswith(KNOWN)]:
            raise AelabError(f"{file}: names {', '.join(foreign)}, which is neither ours nor scikit-learn's; not read")
        return skops.io.load(file, trusted=strange)
    except FileNotFoundError as error:
        raise AelabError(f"{file} is not there: the run did not finish") from error
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise AelabError(f"{file}: cannot be read: {error}") from error
