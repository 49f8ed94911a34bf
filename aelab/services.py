"""`aelab ui` and `aelab doctor`: the services around runs."""

import os
import subprocess
import sys

from rich.table import Table

from aelab import circumstances, compose, console, tracking
from aelab.config import AelabError, ConfigError, DataUnavailable
from aelab.store import place, veiled

# TensorFlow and Keras are imported by what needs them: the UI does not.
PAGE = "#/experiments/{}/runs?workflowType=machine_learning"
"""An experiment's runs; without the workflow MLflow shows its page for language models instead."""


def count(client) -> dict[str, int]:
    """How many runs the store has, by status."""
    ids = [e.experiment_id for e in client.search_experiments()]
    found = client.search_runs(ids, max_results=5000) if ids else []
    states = [run.info.status for run in found]
    return {status: states.count(status) for status in sorted(set(states))}


def newest(client) -> str | None:
    """The id of the experiment that the newest run is in."""
    ids = [e.experiment_id for e in client.search_experiments()]
    found = client.search_runs(ids, order_by=["attributes.start_time DESC"], max_results=1)
    return found[0].info.experiment_id if found else None


def ui(host: str, port: str, output_dir: str) -> int:
    """Serve the MLflow UI on the store that runs are logged to, until ^C."""
    asked = os.environ.get("MLFLOW_TRACKING_URI")
    uri, _ = place(asked, output_dir)
    if uri.startswith("http"):
        console.out.print(f"runs are logged to a server: open {veiled(uri)}")
        return 0
    client = tracking.look(asked, output_dir)
    last = client and newest(client)
    if last is None:
        raise AelabError(f"there are no runs yet in {veiled(uri)}; make one with: aelab debug=fast")
    address = f"http://{host}:{port}/{PAGE.format(last)}"
    console.out.print(f"MLflow UI on {address}  (^C ends it)\nstore {veiled(uri)}", soft_wrap=True)
    where = ["--host", host, "--port", port, "--workers", "1"]
    own = {
        "MLFLOW_BACKEND_STORE_URI": uri,  # not in the command, which others on the machine can read
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # eight processes for language models, 2 GB of memory
    }
    server = subprocess.Popen([sys.executable, "-m", "mlflow", "server", *where], env={**os.environ, **own})
    try:
        return server.wait()
    finally:
        server.terminate()
        server.wait()


def doctor(cfg) -> int:
    """Tell what a run would use: versions, devices, precision, store and data."""
    from aelab import backend

    grid = Table(show_header=False, box=None, pad_edge=False)
    grid.add_column(style="bold")
    grid.add_column(overflow="fold")
    for package, version in circumstances.versions().items():
        grid.add_row(package, version)
    grid.add_row("device", ", ".join(backend.devices()))
    native = "computed natively" if backend.native_bfloat16() else "not computed natively"
    grid.add_row(
        "precision",
        f"{backend.precision(cfg.fit.precision)} (fit.precision={cfg.fit.precision}; bfloat16 {native})",
    )
    grid.add_row("configs", str(compose.CONF))
    client = tracking.look(cfg.tracking.uri, cfg.output_dir)
    counts = count(client) if client else {}
    grid.add_row("store", veiled(place(cfg.tracking.uri, cfg.output_dir)[0]))
    grid.add_row("runs", ", ".join(f"{n} {status}" for status, n in counts.items()) or "none yet")
    grid.add_row("data_dir", str(cfg.data_dir or "not set (AELAB_DATA_DIR): the cache and downloads are used"))
    for name in compose.choices("dataset", compose.folders([])):
        grid.add_row(f"  {name}", found(name, cfg))
    console.out.print(grid)
    return 0


def found(name: str, cfg) -> str:
    """Whether a data set is on this machine, whole: it is loaded, but nothing is downloaded."""
    from aelab.data.load import make
    from aelab.run import dataset_choice

    try:
        node = {k: v for k, v in dataset_choice(cfg, name).items() if k != "fallback"}
        data = make(node | ({"mirrors": []} if "mirrors" in node else {}))
    except ConfigError:
        return f"yours, by dataset={name} path=..."
    except DataUnavailable:
        return "not here: it will be downloaded"
    except AelabError as error:
        return f"broken: {error}"
    return f"{len(data.train):,} train / {len(data.validation):,} validation / {len(data.test):,} test"
