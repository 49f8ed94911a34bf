"""What a run on ratings keeps beside its model, so that users and items can be looked up without the data set."""

from pathlib import Path

import numpy as np
import pandas as pd
from scipy.sparse import csr_array, load_npz, save_npz

from aelab.config import AelabError
from aelab.data.ratings import Catalogue

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
    return pd.read_parquet(there(folder / FILES[name]))


def read(folder: Path) -> Catalogue:
    """The whole catalogue."""
    scale = np.load(there(folder / FILES["scale"]), allow_pickle=False)
    return Catalogue(frame(folder, "users"), frame(folder, "items"), tuple(scale.tolist()))


def titles(items: pd.DataFrame) -> pd.Series:
    """What items are called: by their ids where they have no titles."""
    return items["title"] if "title" in items else items["id"]


def vectors(folder: Path) -> np.ndarray:
    """The items' vectors, float32 (i, d)."""
    file = folder / FILES["vectors"]
    if not file.exists():
        raise AelabError(f"{file} is not there: the model of this run has no vectors of items")
    return np.load(file, allow_pickle=False)


def matrix(folder: Path, name: str) -> csr_array:
    """A sparse matrix (u, i) by name."""
    return csr_array(load_npz(there(folder / f"{name}.npz")))


def there(file: Path) -> Path:
    """The file; AelabError where it is not."""
    if not file.exists():
        raise AelabError(f"{file} is not there: the run did not finish, or is not one on ratings")
    return file
