"""The files that runs are kept in: whole or not there, at their own place, read without writing."""

import contextlib
import json
import os
import re
import resource
import shutil
import sqlite3
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import commands
import numpy as np
import pytest
import sqlalchemy
from sqlalchemy.engine import Engine

from aelab import account, cli, database, mlflow_store, plan, search, store, tracking
from aelab.config import AelabError, ConfigError
from aelab.store import TrackingError


def config(output_dir: Path, uri: str | None = None) -> SimpleNamespace:
    return SimpleNamespace(
        output_dir=str(output_dir), tracking=SimpleNamespace(uri=uri, experiment="small", log_model=True)
    )


# ---- whole or not there

KILLED = """
import os, signal, sys
from pathlib import Path
from sqlalchemy import event
from sqlalchemy.engine import Engine
from aelab import database, tracking

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def at_statement(number):
    count = iter(range(number))
    event.listen(Engine, "before_cursor_execute", lambda *_: next(count, None) is None and die())

def before_the_name():
    Path.replace = lambda *_: die()

def after_the_name():
    replace = Path.replace
    Path.replace = lambda *names: (replace(*names), die())

for moment in (lambda: at_statement(1200), before_the_name, after_the_name):
    if (pid := os.fork()) == 0:
        moment()
        tracking.connect(None, sys.argv[1])
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    print(*sorted(p.name for p in Path(sys.argv[1]).iterdir()))
"""


def test_a_kill_while_the_store_is_made_leaves_none_or_all_of_it(tmp_path):
    result = commands.end(commands.start("-c", KILLED, str(tmp_path / "o"), cwd=tmp_path, program=(sys.executable,)))
    lock, half, whole = "mlflow.db.lock", "mlflow.db.lock mlflow.db.new", "mlflow.db mlflow.db.lock"
    assert (result.stdout.splitlines(), result.stderr) == ([lock, half, whole], "")
    client, _ = tracking.connect(None, str(tmp_path / "o"))
    assert client.get_experiment("0").artifact_location == f"{(tmp_path / 'o' / 'mlartifacts').as_uri()}/0"


def half_made(file: Path, statements: int) -> bytes:
    """The file of a store whose making was stopped after so many statements; its content."""

    class Kill(Exception):
        pass

    count = iter(range(statements))
    file.parent.mkdir()

    def stop(connection, *_):
        memory = connection.connection.driver_connection
        if next(count, None) is None and not memory.in_transaction:  # what a kill leaves is what was committed
            with contextlib.closing(sqlite3.connect(file)) as target:
                memory.backup(target)
            raise Kill

    sqlalchemy.event.listen(Engine, "before_cursor_execute", stop)
    try:
        with pytest.raises(Kill), mlflow_store._unborn("file:///nowhere"):
            pass
    finally:
        sqlalchemy.event.remove(Engine, "before_cursor_execute", stop)
    return file.read_bytes()


@pytest.mark.parametrize("statements", [0, 40, 900])
def test_half_a_store_from_before_is_set_aside(statements, tmp_path, capsys):
    file = tmp_path / "o" / "mlflow.db"
    content = half_made(file, statements) if statements else b""
    if not statements:
        file.parent.mkdir()
        file.touch()
    else:
        assert len(database.tables(file)) > 5
    assert tracking.look(None, str(file.parent)) is None  # who only reads sees no runs, and leaves it
    assert file.read_bytes() == content
    client, _ = tracking.connect(None, str(file.parent))
    assert len(client.search_experiments()) == 1
    (aside,) = file.parent.glob("mlflow.db.broken-*")
    assert aside.read_bytes() == content
    (line,) = capsys.readouterr().err.splitlines()
    assert re.fullmatch(rf"aelab: .*mlflow\.db: was left half made, .*; it is now {aside.name}", line)


def test_a_journal_of_a_database_that_is_gone_is_no_part_of_a_new_one(tmp_path):
    (tmp_path / "mlflow.db-journal").write_bytes(bytes.fromhex("d9d505f920a163d7") + bytes(4096))
    tracking.connect(None, str(tmp_path))
    assert not (tmp_path / "mlflow.db-journal").exists()
    assert len([*tmp_path.glob("mlflow.db.broken-*-journal")]) == 1


@pytest.mark.parametrize("kind", ["foreign", "older", "text", "folder"])
def test_what_is_no_half_store_is_left_as_it_is(kind, tmp_path):
    file = tmp_path / "mlflow.db"
    if kind == "foreign":
        with contextlib.closing(sqlite3.connect(file)) as other:
            other.executescript("CREATE TABLE cats (name); CREATE TABLE runs (id)")
    elif kind == "older":
        tracking.connect(None, str(tmp_path / "new"))
        shutil.copy(tmp_path / "new" / "mlflow.db", file)  # by a name that MLflow does not remember
        with contextlib.closing(sqlite3.connect(file)) as other, other:
            other.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")
    elif kind == "text":
        file.write_text("not a database, but a text that is longer than the head of one" * 10)
    else:
        file.mkdir()
    before = None if kind == "folder" else file.read_bytes()
    said = {"foreign": "of something else, with the table cats", "older": "out-of-date database schema"}
    with pytest.raises(AelabError, match=said.get(kind, "file is not a database" if before else "it is no file")):
        tracking.connect(None, str(tmp_path))
    assert before is None or file.read_bytes() == before
    assert [*tmp_path.glob("*broken*")] == []


def test_a_full_disk_leaves_no_half_store(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(TrackingError, match=r"mlflow\.db cannot be used: .*(full|I/O)"):
            tracking.connect(None, str(tmp_path))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [p.name for p in tmp_path.iterdir()] == ["mlflow.db.lock"]
    tracking.connect(None, str(tmp_path))


@pytest.mark.parametrize("content", ["", "CREATE TABLE studies (study_id INTEGER)", "CREATE TABLE cats (name)"])
def test_the_memory_of_searches_is_made_whole_too(content, tmp_path, monkeypatch):
    file = tmp_path / "new" / "search.db"
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", lambda *names: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            search.storage(file, 0)
    assert [p.name for p in file.parent.iterdir()] == ["search.db.lock"]
    with contextlib.closing(sqlite3.connect(file)) as half:
        half.executescript(content)
    if "cats" in content:
        with pytest.raises(AelabError, match="of something else, with the table cats"):
            search.storage(file, 0)
    else:
        assert search.storage(file, 0).get_all_studies() == []
        assert len([*file.parent.glob("search.db.broken-*")]) == 1


# ---- at its own place


@pytest.mark.parametrize("name", ["w?x=1", "%41 é", "\"q'#", "{n}\n:id;"])
@pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")
def test_any_path_is_taken_as_it_is(name, tmp_path):
    home = tmp_path / name / "outputs"
    folder = home / "runs" / "one"
    with tracking.start(config(home), folder, "one") as log:
        (folder / "a.txt").write_text("hello")
        log.files(folder, ["a.txt"])
        assert log.lost is None
        assert [f.path for f in log.client.list_artifacts(log.run_id)] == ["a.txt"]
    assert (home / "mlflow.db").stat().st_size > 100_000
    assert (home / "mlartifacts" / "small" / log.run_id / "artifacts" / "a.txt").read_text() == "hello"
    assert Path(log.client.download_artifacts(log.run_id, "a.txt", str(tmp_path))).read_text() == "hello"
    assert tracking.folder_of(log.run_id, None, str(home)) == folder
    assert tracking.folder_of(log.run_id, store.address(home / "mlflow.db"), str(tmp_path)) == folder
    assert search.storage(home / "search.db", 0).get_all_studies() == []
    assert (home / "search.db").stat().st_size > 10_000
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([name, "a.txt"])  # nothing went elsewhere


def test_an_address_that_would_lead_elsewhere_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for uri, said in (("sqlite:///a?b.db", "in a path write %3F"), ("sqlite:///%FF.db", "expected a path in UTF-8")):
        with pytest.raises(ConfigError, match=said):
            tracking.connect(uri, "outputs")
    for name in ("a\0b", "a\udcffb"):
        with pytest.raises(ConfigError, match=r"output_dir='a.*b': expected a name in UTF-8"):
            tracking.connect(None, name)
    assert [*tmp_path.iterdir()] == []
    tracking.connect("sqlite:///C%41%3F.db", "outputs")  # as SQLAlchemy reads an address
    assert (tmp_path / "CA?.db").exists()


# ---- read without writing


@contextlib.contextmanager
def read_only(folder: Path):
    """Nothing in a folder can be written, by this process, in the block: root becomes nobody for that time."""
    every = [folder, *folder.rglob("*")]
    modes = {path: path.stat().st_mode for path in every}
    for path in every:
        path.chmod(0o555 if path.is_dir() else 0o444)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        with pytest.raises(PermissionError):
            (folder / "probe").touch()
        yield
    finally:
        os.seteuid(user)
        for path, mode in modes.items():
            path.chmod(mode)


@pytest.fixture
def open_path():
    """A folder that every user may enter, as pytest's own is for its user alone."""
    with tempfile.TemporaryDirectory(prefix="aelab-open-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_reading_needs_no_writing(tmp_path_factory, open_path, capfd, monkeypatch):
    cwd, result = commands.finished(tmp_path_factory)
    home = open_path / "outputs"
    shutil.copytree(cwd / "outputs", home)
    folder = home / commands.folder_of(result).relative_to(cwd / "outputs")
    out = open_path / "out"
    out.mkdir()
    out.chmod(0o777)
    np.save(out / "in.npy", np.zeros((2, 28, 28), np.float32))
    shape = json.loads((folder / "metrics.json").read_text())
    assert "test/psnr" in shape
    run_id = account.read(folder)["run_id"]
    words = ["dataset=digits", "debug=fast", "model=median", "model.size=3,5", f"output_dir={home}"]
    calls = (
        ["evaluate", f"run={folder}"],
        ["evaluate", f"run={folder}", f"output={out / 'e.json'}"],
        ["predict", f"run={folder}", f"input={out / 'in.npy'}", f"output={out / 'o.npy'}"],
        ["compare", f"output_dir={home}"],
        ["-m", *words, "sweep.plan=true"],
    )
    monkeypatch.chdir(open_path)
    cli.dispatch(calls[0])  # all is imported now, as by who may read all
    assert "cannot be written" not in capfd.readouterr().err
    shutil.rmtree(folder / "evaluations")
    with read_only(home):
        said = []
        for call in calls:
            assert cli.dispatch(list(call)) == 0
            said.append(capfd.readouterr())
        assert tracking.folder_of(run_id, None, str(home)).name == folder.name
        with pytest.raises(AelabError, match=r"cannot be written \(Permission denied\)"):
            cli.dispatch([w for w in words if "," not in w])
    assert re.search(r"evaluations/\w+\.json: cannot be written .*; add output=FILE\.json", said[0].err)
    assert "psnr" in said[0].out
    assert json.loads((out / "e.json").read_text())["test/psnr"] == pytest.approx(shape["test/psnr"], rel=1e-3)
    assert np.load(out / "o.npy").shape == (2, 28, 28, 1)
    assert "2 new" in said[4].out
    assert [one.err for one in said[1:]] == [""] * 4


def test_who_only_reads_makes_no_store(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AelabError, match="there are no runs yet"):
        cli.dispatch(["compare", "output_dir=new"])
    with pytest.raises(AelabError, match="there are no runs yet"):
        cli.dispatch(["ui", "output_dir=new"])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///new/other.db")
    with pytest.raises(AelabError, match="there are no runs yet"):
        cli.dispatch(["compare"])
    with pytest.raises(AelabError, match="neither a run folder nor the id of a run"):
        cli.dispatch(["evaluate", "run=0123"])
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert cli.dispatch(["-m", "dataset=digits", "model=median", "model.size=3,5", "sweep.plan=true"]) == 0
    assert "2 new" in capsys.readouterr().out
    assert [*tmp_path.iterdir()] == []


def test_a_plan_knows_the_dead_without_closing_them(tmp_path):
    folder = tmp_path / "runs" / "dead"
    with tracking.start(config(tmp_path), folder, "dead", tags={"aelab.signature": "s"}) as log:
        log.client.set_tag(log.run_id, "aelab.pid_started", "1.0")
        (past,) = plan.known(log.client, "small")["s"]
        assert (past.status, past.reason) == ("FAILED", tracking.DIED)
        assert log.client.get_run(log.run_id).info.status == "RUNNING"
