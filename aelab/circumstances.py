"""What a run ran on: the versions of packages and code, the machine, and the process, dead or alive."""

import importlib.metadata
import platform
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import psutil

SILENT_S = 24 * 3600
"""A run of another machine counts as dead after this long without a heartbeat."""


def version(package: str) -> str:
    """The version of an installed package."""
    return importlib.metadata.version(package)


def versions() -> dict[str, str]:
    """The versions that a result depends on."""
    packages = ("aelab", "keras", "tensorflow", "numpy", "mlflow", "hydra-core")
    return {"python": platform.python_version(), **{p: version(p) for p in packages}}


def revision() -> str:
    """The git revision of the code, with + where files were changed; empty outside a checkout."""
    here = ["git", "-C", str(Path(__file__).parent)]
    try:
        found = subprocess.run([*here, "describe", "--always", "--dirty=+"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return found.stdout.strip()


def process() -> dict[str, str]:
    """This process and its user, as tags of a run."""
    own = psutil.Process()
    return {
        "mlflow.user": own.username(),
        "aelab.host": socket.gethostname(),
        "aelab.pid": str(own.pid),
        "aelab.pid_started": f"{own.create_time():.2f}",
        "aelab.heartbeat": f"{time.time():.0f}",
    }


def here(tags: Mapping[str, str]) -> bool:
    """Whether a run with these tags is, or was, run on this machine."""
    return tags.get("aelab.host") == socket.gethostname()


def alive(tags: Mapping[str, str]) -> bool:
    """Whether the process that a run's tags name is still there; ids are given again, so its birth is compared too."""
    if not here(tags):
        return time.time() - float(tags.get("aelab.heartbeat", 0)) < SILENT_S
    try:
        process = psutil.Process(int(tags["aelab.pid"]))
        born = abs(process.create_time() - float(tags["aelab.pid_started"])) < 2
        return born and process.status() != psutil.STATUS_ZOMBIE  # one that nobody has asked for its exit code
    except psutil.NoSuchProcess:
        return False
