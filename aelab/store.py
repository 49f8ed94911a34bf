"""Where runs are kept: the address of the tracking store, whether a server answers there, and no word of a password."""

import os
import re
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import unquote

from omegaconf import DictConfig, OmegaConf

from aelab.config import AelabError, ConfigError

VEIL = "***"
PASSWORD = re.compile(r"(?<=://)([^/@:]*):[^/]*@")  # user:password@ of an address
SQLITE = re.compile(r"sqlite(?:\+pysqlite)?:///(?!:memory:|file:)([^?]+)(\?.*)?", re.DOTALL)
MEANING = re.compile(r'[%?#"{}\x00-\x1f\x7f]')
"""What has a meaning in an address, or in the templates that addresses are put into."""
REFUSES = (401, 403)  # a server that asks who we are does answer; MLflow's client has the name and password


class TrackingError(AelabError):
    """A tracking store that cannot be used."""


def place(uri: str | None, output_dir: str) -> tuple[str, str | None]:
    """The tracking URI and, for a database without a server, where artifacts go: both absolute."""
    if uri and uri.startswith("http"):
        return uri, None
    if "\0" in output_dir or output_dir.encode(errors="replace").decode() != output_dir:
        raise ConfigError(f"output_dir={output_dir!r}: expected a name in UTF-8; give another with output_dir=FOLDER")
    folder = Path(output_dir).resolve()
    file = sqlite_file(uri) if uri else folder / "mlflow.db"
    return address(file) if file else uri, (folder / "mlartifacts").as_uri()


def address(file: Path) -> str:
    """The address of an SQLite file for SQLAlchemy, whatever characters its path has.

    An address with the driver's name in it is one whose folder MLflow does not make, by its name as it is escaped.
    """
    escaped = MEANING.sub(lambda found: f"%{ord(found[0]):02X}", str(file))
    return f"sqlite:///{file}" if escaped == str(file) else f"sqlite+pysqlite:///{escaped}"


def sqlite_file(uri: str) -> Path | None:
    """The file of an SQLite database by its address, which is read as SQLAlchemy reads it; None for other stores."""
    found = SQLITE.fullmatch(uri)
    if not found:
        return None
    path = unquote(found[1], errors="surrogateescape")
    if "\0" in path or path.encode(errors="replace").decode() != path:
        raise ConfigError(f"tracking.uri={uri}: expected a path in UTF-8")
    if found[2]:
        raise ConfigError(f"tracking.uri={uri}: a ? begins options, which it cannot have; in a path write %3F for it")
    return Path(path).resolve()


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
