"""A run of the past: its folder and its config. Nothing heavy is imported for what needs no more than that."""

import os
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from aelab import account, check, compose, run_files
from aelab.config import AelabError, ConfigError
from aelab.store import VEIL


def find(run: str, output_dir: str, uri: str | None) -> Path:
    """The folder of a run that is named by its folder or by its MLflow id."""
    folder = Path(run)
    if not folder.is_dir():
        if not uri and not (Path(output_dir) / "mlflow.db").exists():
            raise AelabError(f"run={run}: no such folder, and no store in {output_dir}/mlflow.db to look for the id in")
        from aelab import tracking

        folder = tracking.folder_of(run, uri, output_dir)
    if not os.path.lexists(folder / "config.yaml"):
        raise AelabError(f"run={run}: {folder / 'config.yaml'} is not there; give a run folder or an MLflow run id")
    return folder


def unfinished(job: compose.Job) -> str | None:
    """The MLflow id of a run in a job's folder that was the same job and did not come to its end; None else."""
    known = account.read(job.folder) if (job.folder / account.NAME).exists() else {}
    same = known.get("signature") == job.signature
    return known["run_id"] if same and known["status"] != "FINISHED" else None


def config(folder: Path, overrides: list[str], allow: list[str]) -> DictConfig:
    """A run's config with some of its values changed, checked anew; trust is the caller's to give, not the file's."""
    cfg = _prepared(folder, allow)
    return _changed(cfg, overrides) if overrides else cfg


def _prepared(folder: Path, allow: list[str]) -> DictConfig:
    """A run's own config, checked: what is wrong in it is the file's fault, unless it is as the run wrote it."""
    file, cfg = folder / "config.yaml", account.config(folder)
    today = OmegaConf.load(compose.CONF / "config.yaml")
    for name in compose.ELSEWHERE:  # settings that came later and that no result depends on
        if name not in cfg and name in today and name != "hydra":
            cfg[name] = today[name]
        elif name == "sweep":
            cfg[name] = OmegaConf.merge(today[name], cfg[name])
    cfg.allow = allow
    if VEIL in (cfg.tracking.get("uri") or ""):  # a password is in no file: it comes from where it came from then
        if not os.environ.get("MLFLOW_TRACKING_URI"):
            raise ConfigError(f"tracking.uri={cfg.tracking.uri}: set MLFLOW_TRACKING_URI, with the password")
        cfg.tracking.uri = os.environ["MLFLOW_TRACKING_URI"]
    try:
        cfg = _checked(cfg)
    except (ConfigError, OmegaConfBaseException, TypeError, KeyError, AttributeError) as error:
        if isinstance(error, ConfigError) and run_files.noted(folder).get(file.name) == run_files.digest(file):
            raise
        raise AelabError(f"{file}: {' '.join(str(error).split())}; {run_files.REMEDY}") from error
    run_files.intact(file)
    return cfg


def _checked(cfg: DictConfig) -> DictConfig:
    """A config settled and checked anew."""
    cfg = compose.settle(cfg, OmegaConf.to_container(cfg.choices))
    compose.verify(cfg, compose.folders([]), list(map(str, cfg)))  # its own names were checked when it was made
    return cfg


def _changed(cfg: DictConfig, overrides: list[str]) -> DictConfig:
    """A run's config with some of its values changed, checked anew."""
    for override in overrides:
        key, _, value = override.partition("=")
        if key == "mask":  # what is hidden is no part of what was trained
            known = compose.choices(key, compose.folders([]))
            if value not in known:
                raise ConfigError(f"{override}: no such mask; there are: {', '.join(known)}")
            cfg.mask, cfg.choices.mask = OmegaConf.load(known[value]), value
            continue
        parent, _, name = key.rpartition(".")
        node = OmegaConf.select(cfg, parent) if parent else cfg
        if not isinstance(node, DictConfig) or name not in node:
            raise ConfigError(check.unknown(key, name, map(str, node) if isinstance(node, DictConfig) else ()))
        if isinstance(node[name], DictConfig):
            raise ConfigError(f"{override}: a stored run keeps its components; only their values can be changed")
        if key.startswith("corruption."):
            cfg.corruption.level = None
    values = [override for override in overrides if not override.startswith("mask=")]
    return _checked(OmegaConf.merge(cfg, OmegaConf.from_dotlist(values)))
