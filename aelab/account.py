"""What a run folder tells: config.yaml, and run.json, from which alone `aelab sync` can make the run in any store."""

import io
import json
from pathlib import Path

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from aelab import run_files
from aelab.config import AelabError
from aelab.run_files import NAME, REMEDY

WHOLE = {"choices", "task", "dataset", "model", "corruption", "fit", "optimizer", "tracking"}
"""What no stored config lacks."""
DEEPEST = 50
"""Lists and groups within one another in a config."""
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
    return run_files.facts(folder / name if name == NAME else run_files.intact(folder / name))


def config(folder: Path) -> DictConfig:
    """The config that a run was made with; AelabError where the file is broken."""
    file = folder / "config.yaml"
    cfg = yaml_of(file)
    if lacking := WHOLE - set(cfg if isinstance(cfg, DictConfig) else ()):
        raise AelabError(f"{file}: is not whole, lacks {', '.join(sorted(lacking))}; {REMEDY}")
    for name in sorted(WHOLE):
        if not isinstance(cfg._get_node(name), DictConfig) or not cfg[name]:
            raise AelabError(f"{file}: {name}: expected names and values; {REMEDY}")
    with run_files.broken(file, OmegaConfBaseException):
        OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    if not isinstance(cfg.tracking.get("uri"), str | None):
        raise AelabError(f"{file}: tracking.uri: expected an address; {REMEDY}")
    if strange := [str(value) for value in cfg.choices.values() if not isinstance(value, str | None)]:
        raise AelabError(f"{file}: choices: expected names, got {strange[0][:40]}; {REMEDY}")
    return cfg


def yaml_of(file: Path) -> DictConfig | ListConfig:
    """What a YAML file of a run says: aelab writes none with anchors, whose repetitions could fill the memory."""
    text, depth = run_files.text(file), 0
    try:
        for event in yaml.parse(text, Loader=yaml.CSafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if isinstance(event, yaml.AliasEvent) or depth > DEEPEST:
                raise AelabError(f"{file}: expected YAML as a run writes it, without anchors and depths; {REMEDY}")
        return OmegaConf.load(io.StringIO(text))
    except (yaml.YAMLError, OmegaConfBaseException, ValueError, OSError) as error:
        raise AelabError(f"{file}: is no YAML; {REMEDY}") from error


def words(folder: Path) -> list[str]:
    """What was typed for a run."""
    file = run_files.intact(folder / "overrides.yaml")
    found = yaml_of(file)
    if not isinstance(found, ListConfig) or not all(isinstance(word, str) for word in OmegaConf.to_container(found)):
        raise AelabError(f"{file}: expected a list of texts; {REMEDY}")
    return OmegaConf.to_container(found)  # as it stands: ${...} is of the config, not of this list


def shown(folder: Path) -> list[str]:
    """Names of the files of a run folder that the tracker gets; what else is there belongs to the model."""
    return sorted(p.name for p in folder.iterdir() if p.suffix in SHOWN and p.name not in (NAME, f".{NAME}"))
