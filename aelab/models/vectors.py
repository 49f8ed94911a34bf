"""The item vectors of a finished run: nothing is trained."""

from pathlib import Path

from aelab.config import AelabError, Catalogue
from aelab.data import catalogue


def folder_of(run: str) -> Path:
    """The folder of a finished run; AelabError for anything else."""
    folder = Path(run)
    if not (folder / "config.yaml").exists():
        raise AelabError(f"model.run={run}: expected the folder of a finished run on ratings")
    return folder


class Vectors:
    """The vectors (i, d) of the items that a run on ratings has learnt, from its folder."""

    def __init__(self, items: Catalogue, /, *, run: str):
        folder = folder_of(run)
        self.vectors, self.ids = catalogue.vectors(folder), list(catalogue.frame(folder, "items")["id"])
