"""`aelab ui` and `aelab doctor`: the services around runs."""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.table import Table
from yaml import YAMLError

from aelab import circumstances, compose, console, tracking
from aelab.call import located
from aelab.config import AelabError, ConfigError
from aelab.data import fetch
from aelab.store import place, veiled

# TensorFlow and Keras are imported by what needs them: the UI does not.
PAGE = "#/experiments/{}/runs?workflowType=machine_learning"
"""An experiment's runs; without the workflow MLflow shows its page for language models instead."""


def count(client) -> dict[str, int]:
    """How many runs the store has, by status."""
    ids = [e.experiment_id for e in pages(client.search_experiments)]
    states = Counter(run.info.status for run in pages(client.search_runs, ids, max_results=1000)) if ids else {}
    return dict(sorted(states.items()))


def pages(search: Callable, *given, **named) -> Iterator:
    """All that a search of the store finds, page by page."""
    page = None
    while page != "":
        part = search(*given, **named, page_token=page)
        yield from part
        page = part.token or ""


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
    """Tell what a run would use: versions, devices, precision, store and data; 1 where something would stop it."""
    from aelab import backend

    grid = Table(show_header=False, box=None, pad_edge=False)
    grid.add_column(style="bold", no_wrap=True)
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
    rows = [store(cfg), data_folder(cfg.data_dir)]
    for name, said, _ in rows:
        grid.add_row(name, said)
    grid.add_section()
    for name in compose.choices("dataset", compose.folders([])):
        grid.add_row(f"  {name}", whereabouts(name, cfg))
    console.out.print(grid)
    return 0 if all(fine for *_, fine in rows) else 1


def store(cfg) -> tuple[str, str, bool]:
    """(a row's name, where runs are kept and how many of which status, whether it can be used); none is made."""
    where = place(cfg.tracking.uri, cfg.output_dir)[0]
    try:
        client = tracking.look(cfg.tracking.uri, cfg.output_dir)
        counts = count(client) if client else None
    except (AelabError, OSError, *tracking.LOST) as error:
        return "store", f"BROKEN: {veiled(str(error))}", False
    if counts is None:
        return "store", f"{veiled(where)}: not there yet; the first run makes it", True
    runs = ", ".join(f"{n:,} {status}" for status, n in counts.items()) or "none yet"
    return "store", f"{veiled(where)}\nruns: {runs}", True


def data_folder(data_dir: str | None) -> tuple[str, str, bool]:
    """(a row's name, where data sets are looked for, whether that is a folder)."""
    if data_dir is None:
        return "data_dir", f"not set (AELAB_DATA_DIR): only the cache, {fetch.cache()}, is looked into", True
    if not Path(data_dir).expanduser().is_dir():
        return "data_dir", f"{data_dir}: BROKEN: no such folder; set AELAB_DATA_DIR to the one with your data", False
    return "data_dir", f"{data_dir}, then the cache, {fetch.cache()}", True


def whereabouts(name: str, cfg) -> str:
    """Where the files of a data set are, or how they come: they are looked for, neither read nor downloaded."""
    from aelab.run import dataset_choice

    try:
        target = OmegaConf.load(compose.choices("dataset", compose.folders([]))[name]).get("_target_")
        if target is None:
            return f"yours, by dataset={name} path=..."
        if not str(target).startswith("aelab."):
            return f"of {target}, which is not imported here"
        node = dataset_choice(cfg, name)
    except ConfigError as error:
        return f"BROKEN: {error}"
    except (YAMLError, OmegaConfBaseException, ValueError, OSError) as error:
        return f"BROKEN: its YAML: {' '.join(str(error).split())}"
    ways = getattr(located(node._target_), "ways", None)
    if ways is None:
        return "always there: needs no file"
    wanted = ways(node)
    looks = [[fetch.look(way.folder, file, node.get("data_dir"))[0] for file in way.names] for way in wanted]
    for found in looks:
        if all(found):
            return f"here, in {found[0].parent}"
    for way, found in zip(wanted, looks, strict=True):
        if any(found):
            first = next(filter(None, found)).parent
            return f"not whole: {first} lacks {', '.join(n for n, f in zip(way.names, found, strict=True) if not f)}"
    if urls := next((way.urls for way in wanted if way.urls), None):
        return f"not here; downloaded from {urlsplit(urls[0]).netloc} when first used"
    return f"not here; put {' and '.join(wanted[0].names)} into $AELAB_DATA_DIR/{wanted[0].folder}/"
