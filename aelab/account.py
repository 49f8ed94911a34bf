"""What a run folder tells: config.yaml, and run.json, from which alone `aelab sync` can make the run in any store."""

import json
from pathlib import Path

from omegaconf import DictConfig, ListConfig, OmegaConf
from yaml import YAMLError

from aelab.config import AelabError

NAME = "run.json"
WHOLE = {"choices", "task", "dataset", "model", "corruption", "fit", "optimizer"}
"""What no stored config lacks."""
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


def read(folder: Path, name: str = NAME) -> dict:
    """What a folder tells in run.json, or in another file; AelabError where that is broken."""
    try:
        return json.loads((folder / name).read_text(encoding="utf-8"))
    except ValueError as error:
        raise AelabError(f"{folder / name}: cannot be read ({error}); copy the run folder again") from error


def stored(file: Path) -> DictConfig | ListConfig:
    """A YAML file of a run folder; AelabError where it is broken, or would look something up on this machine."""
    try:
        found = OmegaConf.load(file)
    except (YAMLError, ValueError) as error:
        raise AelabError(f"{file}: is no YAML; copy the run folder again") from error
    if "${" in str(OmegaConf.to_container(found)):
        raise AelabError(f"{file}: has a ${{...}} in it, which no stored config has; copy the run folder again")
    return found


def config(folder: Path) -> DictConfig:
    """The config that a run was made with; AelabError where the file is broken."""
    file = folder / "config.yaml"
    cfg = stored(file)
    if lacking := WHOLE - set(cfg if isinstance(cfg, DictConfig) else ()):
        raise AelabError(f"{file}: is not whole, lacks {', '.join(sorted(lacking))}; copy the run folder again")
    return cfg


def shown(folder: Path) -> list[str]:
    """Names of the files of a run folder that the tracker gets; what else is there belongs to the model."""
    return sorted(p.name for p in folder.iterdir() if p.suffix in SHOWN and p.name not in (NAME, f".{NAME}"))
