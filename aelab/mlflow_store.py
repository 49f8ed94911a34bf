"""MLflow's store of runs: made whole where there is none, opened to write or only to read."""

import contextlib
import os
import sqlite3
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"  # our own last lines say it
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # the default waits for minutes
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")

import logging

import mlflow
import requests
import sqlalchemy
from filelock import FileLock
from mlflow.exceptions import MlflowException
from mlflow.store.db.db_types import DATABASE_ENGINES
from sqlalchemy.exc import SQLAlchemyError

from aelab import account, circumstances, database
from aelab.config import AelabError
from aelab.store import TrackingError, place, reachable, sqlite_file, veiled

for noisy in ("mlflow", "alembic"):
    logging.getLogger(noisy).setLevel(logging.ERROR)
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # it logs the errors that it raises

LOST = (MlflowException, requests.RequestException, SQLAlchemyError)
"""What a tracking call raises when the store cannot be reached or written."""
POOL = "MLFLOW_SQLALCHEMYSTORE_"
LAST = "experiments"
"""The table that MLflow writes the first row to, once it has made all."""
DIED = "the process died without closing the run"


def _address(where: str) -> None:
    """Set MLflow's global address, but not the environment variable that it sets too: the next config would read it."""
    before = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(where)
    mlflow.set_registry_uri(where)
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    if before is not None:
        os.environ["MLFLOW_TRACKING_URI"] = before


def connect(uri: str | None, output_dir: str) -> tuple[mlflow.MlflowClient, str | None]:
    """A client of the store, which is made first where it is new; and where artifacts go without a server."""
    where, artifacts = place(uri, output_dir)
    reachable(where)
    with usable(where):
        if file := sqlite_file(where):
            database.ensure(file, database.Kind(LAST, _tables, lambda: _unborn(artifacts)))
        lock = contextlib.nullcontext()
        if artifacts and not file:  # two processes that make a server's tables at once would crash
            folder = Path(output_dir).resolve()
            folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(folder / "mlflow.db.lock")
        with lock:
            return _client(where), artifacts


def look(uri: str | None, output_dir: str) -> mlflow.MlflowClient | None:
    """A client to read with; None where no store was made yet. Nothing is written, so a read-only store will do."""
    where, _ = place(uri, output_dir)
    reachable(where)
    with usable(where):
        file = sqlite_file(where)
        return None if file and not database.is_whole(file, LAST) else _client(where)


@contextlib.contextmanager
def usable(where: str) -> Iterator[None]:
    """Whatever goes wrong with a store, in one line."""
    try:
        yield
    except (*LOST, ImportError, OSError, sqlite3.Error) as error:  # a database without its driver; a full disk
        raise TrackingError(f"the tracking store {veiled(where)} cannot be used: {short(error)}") from error


def _client(where: str) -> mlflow.MlflowClient:
    if where.partition(":")[0].partition("+")[0] in DATABASE_ENGINES:
        with sqlalchemy.create_engine(where).connect():  # MLflow itself would try for 100 s
            pass
    _address(where)
    client = mlflow.MlflowClient(where)
    client.search_experiments(max_results=1)
    return client


def _tables() -> set[str]:
    from mlflow.store.db.base_sql_model import Base
    from mlflow.store.tracking.dbmodels.initial_models import Base as InitialBase

    return {*InitialBase.metadata.tables, *Base.metadata.tables}


@contextlib.contextmanager
def _unborn(artifacts: str) -> Iterator[sqlite3.Connection]:
    """MLflow's tables in memory: 1,700 statements that nobody sees the half of, and that wait for no disk."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    before = {name: os.environ.pop(name) for name in tuple(os.environ) if name.startswith(POOL)}
    os.environ[f"{POOL}POOLCLASS"] = "StaticPool"  # the user's is for files and servers
    try:
        engine = SqlAlchemyStore(f"sqlite+pysqlite:///file:{uuid.uuid4()}?mode=memory&uri=true", artifacts).engine
    finally:
        del os.environ[f"{POOL}POOLCLASS"]
        os.environ.update(before)
    with contextlib.closing(engine.raw_connection()) as raw:
        yield raw.driver_connection
    engine.dispose()


def short(error: BaseException) -> str:
    """The first line of an error."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def twice(call, *given, **named):
    """What a call gives; tried again where another process made the same at the same moment, as now it is there."""
    try:
        return call(*given, **named)
    except MlflowException as error:
        if error.error_code not in ("BAD_REQUEST", "RESOURCE_ALREADY_EXISTS"):  # the first of the database itself
            raise
        return call(*given, **named)


def experiment(client: mlflow.MlflowClient, name: str, artifacts: str | None) -> str:
    """The id of the experiment of that name; made with an absolute artifact location where there is none."""
    if not account.is_name(name):  # it names a folder, below that of the artifacts
        raise AelabError(f"experiment {name!r}: expected {account.A_NAME}")
    found = client.get_experiment_by_name(name)
    if found:
        return found.experiment_id
    return client.create_experiment(name, artifact_location=artifacts and f"{artifacts}/{quote(name, safe='')}")


def close_dead(client: mlflow.MlflowClient, name: str) -> None:
    """Close as FAILED an experiment's runs whose process is gone: SIGKILL and power cuts leave them RUNNING."""
    found = client.get_experiment_by_name(name)
    for run in client.search_runs([found.experiment_id], "attributes.status = 'RUNNING'") if found else ():
        if is_dead(run):
            client.set_tag(run.info.run_id, "aelab.reason", DIED)
            client.set_terminated(run.info.run_id, "FAILED")


def is_dead(run) -> bool:
    """Whether a run of the store is RUNNING although its process is gone."""
    tags = run.data.tags
    return run.info.status == "RUNNING" and "aelab.pid" in tags and not circumstances.alive(tags)
