"""The item vectors of a finished run: nothing is trained."""

from pathlib import Path

from aelab.config import AelabError, Catalogue
from aelab.data import catalogue


class Vectors:
    """The vectors (i, d) of the items that a run on ratings has learnt, from its folder."""

    def __init__(self, items: Catalogue, /, *, run: str):
        folder = Path(run)
        if not (folder / "config.yaml").exists():
            raise AelabError(f"model.run={run}: expected the folder of a finished run on ratings")
        self.folder, self.vectors = folder, catalogue.vectors(folder)
        self.ids = list(catalogue.frame(folder, "items")["id"])
