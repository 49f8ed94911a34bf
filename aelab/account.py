"""run.json: what a run folder tells of its run, so that `aelab sync` can make the run in any store from it alone."""

import json
from pathlib import Path

from aelab.config import AelabError

NAME = "run.json"
EXAMPLES = "examples.parquet"
"""A row for each test example, with a column for each metric that is a mean over them."""
SHOWN = (".png", ".html", ".json", ".csv", ".yaml", ".log", ".txt")


def note(folder: Path, **facts) -> None:
    """Add facts to a folder's account, which is whole at any time: also when the process is killed while it writes."""
    folder.mkdir(parents=True, exist_ok=True)
    told = read(folder) if (folder / NAME).exists() else {}
    half = folder / f".{NAME}"
    half.write_text(json.dumps({**told, **facts}, indent=2) + "\n", encoding="utf-8")
    half.replace(folder / NAME)


def read(folder: Path) -> dict:
    """What a folder tells; AelabError where the file is broken."""
    try:
        return json.loads((folder / NAME).read_text(encoding="utf-8"))
    except ValueError as error:
        raise AelabError(f"{folder / NAME}: cannot be read ({error}); copy the run folder again") from error


def shown(folder: Path) -> list[str]:
    """Names of the files of a run folder that the tracker gets; what else is there belongs to the model."""
    return sorted(p.name for p in folder.iterdir() if p.suffix in SHOWN and p.name not in (NAME, f".{NAME}"))
