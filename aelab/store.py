"""Where runs are kept: the address of the tracking store, whether a server answers there, and no word of a password."""

import os
import re
import urllib.error
import urllib.request
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from aelab.config import AelabError, ConfigError

VEIL = "***"
PASSWORD = re.compile(r"(?<=://)([^/@:]*):[^/]*@")  # user:password@ of an address
REFUSES = (401, 403)  # a server that asks who we are does answer; MLflow's client has the name and password


class TrackingError(AelabError):
    """A tracking store that cannot be used."""


def place(uri: str | None, output_dir: str) -> tuple[str, str | None]:
    """The tracking URI and, for a database without a server, where artifacts go: both absolute."""
    if uri and uri.startswith("http"):
        return uri, None
    folder = Path(output_dir).resolve()
    return uri or f"sqlite:///{folder / 'mlflow.db'}", (folder / "mlartifacts").as_uri()


def veiled(uri: str) -> str:
    """An address as it may be shown and stored: three stars where a password is."""
    return PASSWORD.sub(rf"\1:{VEIL}@", uri)


def allowed(uri: str | None) -> None:
    """Refuse a password that did not come from the environment: it would be stored with the command."""
    if uri and veiled(uri) != uri != os.environ.get("MLFLOW_TRACKING_URI"):
        raise ConfigError("tracking.uri: has a password, which belongs in no config; set MLFLOW_TRACKING_URI instead")


def told(cfg: DictConfig) -> str:
    """A settled config in YAML, as it may be stored and shown: without a password."""
    uri = cfg.tracking.uri
    return OmegaConf.to_yaml(OmegaConf.merge(cfg, {"tracking": {"uri": uri and veiled(uri)}}))


def reachable(uri: str) -> None:
    """Ask a server for its health before anything is trained: MLflow itself would retry for minutes."""
    if not uri.startswith("http"):
        return
    try:
        with urllib.request.urlopen(f"{PASSWORD.sub('', uri).rstrip('/')}/health", timeout=5):
            return
    except (urllib.error.URLError, OSError, ValueError) as error:
        if isinstance(error, urllib.error.HTTPError) and error.code in REFUSES:
            return
        reason = getattr(error, "reason", error)
        raise TrackingError(
            f"the tracking server {veiled(uri)} does not answer ({reason}); start it, or unset MLFLOW_TRACKING_URI to "
            "log to outputs/mlflow.db"
        ) from error
