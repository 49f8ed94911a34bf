"""What a run on ratings keeps beside its model, so that users and items can be looked up without the data set."""

from pathlib import Path

import numpy as np
import pandas as pd
from scipy.sparse import csr_array, load_npz, save_npz

from aelab import run_files
from aelab.config import AelabError
from aelab.data.ratings import Catalogue

REMEDY = run_files.REMEDY
PARQUETS = (OSError, ValueError, TypeError, KeyError, NotImplementedError, MemoryError)
"""What pandas and pyarrow raise for a Parquet file that is not as it should be; ArrowInvalid is a ValueError."""
FILES = {"users": "users.parquet", "items": "items.parquet", "vectors": "vectors.npy", "scale": "scale.npy"}


def write(folder: Path, known: Catalogue, vectors: np.ndarray | None, /, **matrices: csr_array) -> None:
    """The catalogue, the items' vectors (i, d) where there are any, and sparse matrices (u, i) by name."""
    known.users.to_parquet(folder / FILES["users"])
    known.items.to_parquet(folder / FILES["items"])
    np.save(folder / FILES["scale"], np.array(known.scale))
    if vectors is not None:
        np.save(folder / FILES["vectors"], vectors.astype(np.float32))
    for name, matrix in matrices.items():
        save_npz(folder / f"{name}.npz", matrix)


def frame(folder: Path, name: str) -> pd.DataFrame:
    """The frame of "users" or "items"."""
    with run_files.reading(there(folder / FILES[name]), *PARQUETS) as file:
        found = pd.read_parquet(file)
    if "id" not in found or not len(found) or not found["id"].map(type).eq(str).all() or found["id"].duplicated().any():
        raise AelabError(f"{file}: expected a row with an id for each of the {name}; {REMEDY}")
    return found


def read(folder: Path) -> Catalogue:
    """The whole catalogue."""
    scale = run_files.array(there(folder / FILES["scale"]))
    if scale.shape != (2,) or not scale[0] <= scale[1]:
        raise AelabError(f"{folder / FILES['scale']}: expected the lowest and the highest rating; {REMEDY}")
    return Catalogue(frame(folder, "users"), frame(folder, "items"), tuple(scale.tolist()))


def titles(items: pd.DataFrame) -> pd.Series:
    """What items are called: by their ids where they have no titles."""
    return items["title"] if "title" in items else items["id"]


def vectors(folder: Path) -> np.ndarray:
    """The items' vectors, float32 (i, d)."""
    file = folder / FILES["vectors"]
    if not file.exists():
        raise AelabError(f"{file} is not there: the model of this run has no vectors of items")
    return fitting(file, run_files.array(file), (count(folder, "items"), None))


def matrix(folder: Path, name: str) -> csr_array:
    """A sparse matrix (u, i) by name."""
    with run_files.reading(there(folder / f"{name}.npz"), *run_files.NUMPYS) as file:
        found = csr_array(load_npz(file))
        found.check_format(full_check=True)  # products read at places that the file names
        numbers = found.dtype.kind in "iuf" and np.isfinite(found.data).all()
    if not numbers:
        raise AelabError(f"{file}: expected finite numbers, got {found.dtype}; {REMEDY}")
    return fitting(file, found, (count(folder, "users"), count(folder, "items")))


def count(folder: Path, name: str) -> int:
    """How many users or items there are."""
    from pyarrow.parquet import read_metadata

    with run_files.reading(there(folder / FILES[name]), *PARQUETS) as file:
        return read_metadata(file).num_rows


def fitting(file: Path, found, shape: tuple[int | None, ...]):
    """What was found in a file, which must be of the catalogue's shape; None stands for any size."""
    if len(found.shape) != len(shape) or any(b not in (a, None) for a, b in zip(found.shape, shape, strict=True)):
        raise AelabError(f"{file}: {found.shape} does not fit the users and items of the run; {REMEDY}")
    return found


def there(file: Path) -> Path:
    """The file; AelabError where it is not."""
    if not file.exists():
        raise AelabError(f"{file} is not there: the run did not finish, or is not one on ratings")
    return file
