"""MLflow, and nowhere else but in mlflow_store.py: runs with honest states.

Everything that is logged stands in the run folder as well; a server that goes away in the middle costs the MLflow
run, never the result.
"""

import contextlib
import errno
import io
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from aelab.mlflow_store import (  # its settings come first
    DIED,
    LOST,
    close_dead,
    connect,
    experiment,
    is_dead,
    look,
    short,
    twice,
    usable,
)

# isort: split
import mlflow
import numpy as np
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from aelab import account, circumstances, console
from aelab.config import AelabError, Stopped
from aelab.store import TrackingError, place, veiled

__all__ = [
    "DIED",
    "LOST",
    "Metric",
    "Param",
    "RunTag",
    "close_dead",
    "connect",
    "experiment",
    "is_dead",
    "look",
    "twice",
]
UNWRITTEN = ("database or disk is full", "disk I/O error")
"""What SQLite says where there is no room."""
REFUSED = ("@", "_at_")  # what MLflow refuses in a metric's name, and what stands there instead


def inputs(dataset: Mapping[str, str]) -> list[DatasetInput]:
    """A data set, by the names that MLflow has for its parts, as the input of a run."""
    return [DatasetInput(Dataset(**dataset), [InputTag("mlflow.data.context", "training")])]


class Log:
    """What a run says to MLflow. Once the store is lost it says so, goes silent, and sets `lost`."""

    def __init__(self, client: mlflow.MlflowClient, run_id: str, experiment_id: str, folder: Path, last: int = 0):
        self.client, self.run_id, self.experiment_id, self.folder = client, run_id, experiment_id, folder
        self.last, self.lost = last, None  # the last epoch that it knows

    def _send(self, call, *args, **keywords):
        if self.lost:
            return
        server = self.client.tracking_uri.startswith("http")  # which may take its time, and is not ours to lock
        try:
            with contextlib.nullcontext() if server else console.unbroken():
                call(self.run_id, *args, **keywords)
        except LOST as error:
            if not server and any(said in str(error) for said in UNWRITTEN):  # then nor can the run's files be
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "the tracking store") from error
            self.lost = short(error)
            console.complain(f"lost the tracking store ({self.lost}); the run goes on, everything is in its folder")

    def end(self, status: str, reason: str | None = None) -> None:
        """Close the run: in its folder and in the store, each as far as it can be written."""
        reason, now = reason and reason[:500], int(time.time() * 1000)
        room = contextlib.suppress(OSError) if status == "FAILED" else contextlib.nullcontext()
        with room:
            if reason:
                self.batch(tags={"aelab.reason": reason})
            self._send(self.client.set_terminated, status, now)
        with room:
            account.note(self.folder, status=status, reason=reason, end_time=now)

    def batch(self, metrics: Mapping = {}, params: Mapping = {}, tags: Mapping = {}, step: int = 0) -> None:
        """Metrics, parameters and tags in one write."""
        now = int(time.time() * 1000)
        if params:
            account.note(self.folder, params={k: str(v)[:6000] for k, v in params.items()})
        self._send(
            self.client.log_batch,
            metrics=[Metric(k.replace(*REFUSED), float(v), now, step) for k, v in metrics.items()],
            params=[Param(k, str(v)[:6000]) for k, v in params.items()],
            tags=[RunTag(k, str(v)) for k, v in tags.items()],
            synchronous=True,
        )

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Metrics of one epoch, with a heartbeat."""
        self.batch(metrics=values, step=step, tags={"aelab.heartbeat": f"{time.time():.0f}"})

    def epochs(self, rows: list[dict]) -> None:
        """Rows of a history, each with its "epoch", in one write; with a heartbeat. Those it knows are left out."""
        now = int(time.time() * 1000)
        found = [
            Metric(k.replace(*REFUSED), v, now, row["epoch"])
            for row in rows
            for k, v in row.items()
            if k != "epoch" and row["epoch"] > self.last
        ]
        for first in range(0, len(found), 1000):  # MLflow's limit for one write
            beat = [RunTag("aelab.heartbeat", f"{time.time():.0f}")]
            self._send(self.client.log_batch, metrics=found[first : first + 1000], tags=beat, synchronous=True)

    def dataset(self, data) -> None:
        """The data set as the run's input: name, fingerprint and source."""
        told = {"name": data.name, "digest": data.fingerprint[:36], "source_type": "local", "source": data.source}
        account.note(self.folder, dataset=told)
        self._send(lambda run_id: twice(self.client.log_inputs, run_id, inputs(told)))

    def files(self, folder: Path, names: list[str]) -> None:
        """Files of the run folder as artifacts."""
        for name in account.left_out(folder):
            console.complain(f"{folder / name}: is a link, or no file; left out of the artifacts")
        for name in names:
            self._send(self.client.log_artifact, str(folder / name))

    def model(self, model, example) -> None:
        """A Keras model with its signature and an input example; an ensemble has a signature of its input alone."""
        import keras
        from mlflow.models import ModelSignature
        from mlflow.types import Schema, TensorSpec

        def spec(array, name=None):
            return TensorSpec(np.dtype(array.dtype), (-1, *(-1 if n is None else n for n in array.shape[1:])), name)

        made = model(keras.KerasTensor((None, *example.shape[1:]), example.dtype.name))  # nothing is computed
        named = made.items() if isinstance(made, dict) else [(None, made)]
        outputs = None if isinstance(made, list) else Schema([spec(a, k) for k, a in named])

        def send(run_id):
            with mlflow.start_run(run_id=run_id):
                mlflow.tensorflow.log_model(
                    model,
                    name="model",
                    signature=ModelSignature(Schema([spec(example)]), outputs),
                    input_example=example,
                    pip_requirements=[f"{name}=={circumstances.version(name)}" for name in ("keras", "tensorflow")],
                )

        with contextlib.redirect_stdout(io.StringIO()):  # Keras draws a bar for the example
            self._send(send)


@contextlib.contextmanager
def start(
    cfg, folder: Path, name: str, parent: str | None = None, tags: Mapping = {}, earlier: str | None = None
) -> Iterator[Log]:
    """A run in MLflow around a block: FINISHED at its end, KILLED on ^C and SIGTERM, FAILED with the reason else.

    `earlier` is the id of a run that was stopped and is gone on with, instead of a new one.
    """
    client, artifacts = connect(cfg.tracking.uri, cfg.output_dir)
    last = 0
    own = {
        "mlflow.runName": name,
        "mlflow.source.name": "aelab",
        **circumstances.process(),
        "aelab.folder": str(folder),
        **({"mlflow.parentRunId": parent} if parent else {}),
        **{k: str(v) for k, v in tags.items()},
    }
    with usable(place(cfg.tracking.uri, cfg.output_dir)[0]):
        where = twice(experiment, client, cfg.tracking.experiment, artifacts)
        close_dead(client, cfg.tracking.experiment)
        if earlier:
            last = _reopened(client, earlier, own, folder)
            info = client.get_run(earlier).info
        else:
            info = client.create_run(where, tags=own, run_name=name).info
    log = Log(client, info.run_id, where, folder, last)
    begun = {"run_id": info.run_id, "start_time": info.start_time, "experiment": cfg.tracking.experiment}
    begun |= {"signature": tags["aelab.signature"]} if "aelab.signature" in tags else {}
    begun |= {"status": "RUNNING", "reason": None, "end_time": None, "log_model": cfg.tracking.log_model}
    account.note(folder, **begun, tags=own)  # all at once: no kill leaves a part of it
    try:
        yield log
    except (KeyboardInterrupt, Stopped) as stop:
        log.end("KILLED", str(stop) or "interrupted (^C)")
        raise
    except OSError as error:
        why = account.FULL if account.full(error) else type(error).__name__
        log.end("FAILED", f"{why}: {short(error)}")
        raise
    except BaseException as error:
        log.end("FAILED", f"{type(error).__name__}: {short(error)}")
        raise
    log.end("FINISHED")


def _reopened(client: mlflow.MlflowClient, run_id: str, tags: Mapping[str, str], folder: Path) -> int:
    """Set a run that was stopped RUNNING again, as this process's; returns the last epoch that it has."""
    run = client.get_run(run_id)
    known = run.data.tags
    if run.info.status == "RUNNING" and circumstances.here(known) and circumstances.alive(known):
        raise TrackingError(f"run {run_id} is being run, by process {known['aelab.pid']}; wait for it, or stop it")
    if run.info.status == "FINISHED" and "aelab.signature" in tags:  # it was killed before it noted that in its folder
        account.note(folder, status="FINISHED", reason=None, end_time=run.info.end_time)
        raise AelabError(f"run {run_id} is finished: there is nothing to go on with")
    if "aelab.reason" in known:
        client.delete_tag(run_id, "aelab.reason")
    client.log_batch(run_id, tags=[RunTag(k, v) for k, v in tags.items()], synchronous=True)
    client.update_run(run_id, status="RUNNING")
    return max((m.step for m in client.get_metric_history(run_id, "time/epoch_s")), default=0)


def close(client: mlflow.MlflowClient, folder: Path, status: str, reason: str) -> None:
    """Close the run of a folder, if it was begun, in its process's stead, which could not.

    One that failed may have been closed as KILLED, by a time limit; one is KILLED only if its process is gone. What
    cannot be written now is closed by the next command, as that of a process that died.
    """
    run_id = account.read(folder)["run_id"] if (folder / account.NAME).exists() else None
    if not run_id:
        return
    with contextlib.suppress(*LOST, OSError):
        known = client.get_run(run_id)
        dead = known.info.status == "RUNNING" and not circumstances.alive(known.data.tags)
        if dead or (status == "FAILED" and known.info.status not in ("FAILED", "FINISHED")):
            reason, now = reason[:500], int(time.time() * 1000)
            client.set_tag(run_id, "aelab.reason", reason)
            client.set_terminated(run_id, status, now)
            account.note(folder, status=status, reason=reason, end_time=now)


def page(log: Log, uri: str | None) -> str:
    """Where to look at a run: its address on a server, or the command that opens the store of our own."""
    if uri and uri.startswith("http"):
        return f"{veiled(uri).rstrip('/')}/#/experiments/{log.experiment_id}/runs/{log.run_id}"
    return f"run {log.run_id}; type  aelab ui"


def folder_of(run_id: str, uri: str | None, output_dir: str) -> Path:
    """The folder of a run that is known by its MLflow id."""
    try:
        if client := look(uri, output_dir):
            return Path(client.get_run(run_id).data.tags["aelab.folder"])
        raise KeyError(run_id)
    except (MlflowException, KeyError) as error:
        raise AelabError(
            f"run={run_id}: neither a run folder nor the id of a run in {veiled(place(uri, output_dir)[0])}"
        ) from error
