"""Commands that meet: in the same jobs, in the same folders, and on a disk that is full."""

import errno
import fcntl
import itertools
import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import commands
import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from omegaconf import OmegaConf

from aelab import account, claims, cli, compose, engine, folders, plan, tracking, work
from aelab.config import AelabError, ConfigError
from aelab.plan import Past, Step
from aelab.work import Outcome, Work

TINY = ("dataset=digits", "debug=fast", "dataset.limit=40", "model=median", "model.size=3")
SMALL = ("dataset=digits", "debug=fast", "dataset.limit=64", "fit.batch_size=32", "model=conv_ae", "model.widths=[4]")
SMALL = (*SMALL, "loss=[mse]", "metric=[psnr]", "fit.patience=null", "tracking.log_model=false")
HOLDER = """
import sys, time
from aelab import claims
with claims.hold(*sys.argv[1:], wait=False) as got:
    print(got, flush=True)
    time.sleep(600)
"""


def other(*claim):
    """Another process that holds a claim."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, *map(str, claim)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "True\n"
    return process


TAGS = {"mlflow.runName": "run", "aelab.pid": "1", "aelab.pid_started": "1.0", "aelab.heartbeat": "1"}


def note(folder, **facts):
    """What the folder of a run says of it."""
    begun = {"run_id": "a" * 32, "experiment": "aelab", "start_time": 1, "end_time": None, "reason": None}
    account.note(folder, **{**begun, "log_model": False, "tags": TAGS, **facts})


def job(folder, *words):
    """A job whose output_dir is in `folder`; words of Hydra's may say more."""
    with compose.session():
        return compose.job([*TINY, f"output_dir={folder / 'outputs'}", *words], [compose.CONF], False)


# ---- claims


def test_a_claim_keeps_others_out_and_ends_with_its_process(tmp_path):
    process = other(tmp_path, "a", "b")
    try:
        assert not claims.free(tmp_path, "a", "b")
        assert claims.free(tmp_path, "a", "c")
        with claims.hold(tmp_path, "a", "b", wait=False) as got:
            assert not got
        assert not claims.free(tmp_path, "a", "b")  # who had none gave none back
    finally:
        process.kill()
    with claims.hold(tmp_path, "a", "b", wait=True) as got:  # before its parent has asked for its exit code
        assert got
        assert claims.free(tmp_path, "a", "c")
    process.wait()
    again = other(tmp_path, "a", "b")  # it was given back, and nothing else was
    again.kill()
    again.wait()


def test_where_nothing_can_be_locked_that_is_told_once(tmp_path, monkeypatch, capsys):
    def unable(*args):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "lockf", unable)
    for _ in range(2):
        with claims.hold(tmp_path, "a", wait=True) as got:
            assert got
    (line,) = capsys.readouterr().err.splitlines()
    assert "claims.lock: cannot be locked (No locks available); two commands at once may run" in line


# ---- a job that others run, or ran


def past(folder, status="FINISHED"):
    return Past("r" * 32, status, "", folder, {}, {"test/psnr": 1.0, "learning_rate": 0.1})


@pytest.mark.parametrize(
    ("state", "why", "outcome"),
    [
        ("done", "", Outcome({"test/psnr": 1.0}, "", 0, Path("there"))),
        ("failed", "NaN", Outcome(None, "NaN", 1, Path("there"))),
        ("running", "elsewhere", Outcome(None, "elsewhere", 1, None)),
        ("resume", "", None),
        ("new", "", None),
    ],
)
def test_what_others_did_with_a_job_is_found_once_it_is_claimed(state, why, outcome, tmp_path, monkeypatch):
    def today(one):
        assert one is mine
        with claims.hold(tmp_path, "x", wait=False):
            holder = subprocess.run(
                [sys.executable, "-c", HOLDER.replace("600", "0"), *work.claim(mine)], capture_output=True, text=True
            )
        assert holder.stdout == "False\n"  # it is ours while we look
        return Step(state, why, past(Path("there")))

    mine = job(tmp_path)
    monkeypatch.setattr(plan, "today", today)
    with work.take(Work(0, mine, "parent")) as (found, settled):
        assert settled == outcome
        assert found.folder == (Path("there") if state == "resume" else mine.folder)


def test_a_run_of_its_own_waits_for_nobody_and_looks_nothing_up(tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "today", lambda job: pytest.fail("looked up"))
    process = other(*work.claim(job(tmp_path)))
    try:
        for mine, parent in ((job(tmp_path), None), (job(tmp_path, "sweep.force=true"), "parent")):
            with work.take(Work(0, mine, parent)) as found:
                assert found == (mine, None)
    finally:
        process.kill()
        process.wait()


def test_two_commands_do_not_write_into_one_folder(tmp_path):
    mine = job(tmp_path)
    process = other(tmp_path / "outputs", "folder", mine.folder)
    try:
        outcome = work.perform(Work(0, mine))
    finally:
        process.kill()
        process.wait()
    assert (outcome.metrics, outcome.code) == (None, 1)
    assert "another command is writing there" in outcome.reason
    assert not (mine.folder / account.NAME).exists()


# ---- the engine, with jobs that are made up


class Store:
    """A store that knows no run."""

    def get_run(self, run_id):
        raise MlflowException("unknown")


def played(tmp_path, outcomes, claimed=(), closed=None):
    """The order in which jobs of a sweep are run, whose outcomes are given; those `claimed` are run by others."""
    order, listed = [], [job(tmp_path, f"model.size={3 + 2 * number}") for number in range(len(outcomes))]

    def launcher(works, call):
        for one in works:
            order.append(one.number)
            yield one, outcomes[one.number]

    cfg = OmegaConf.merge(listed[0].cfg, {"launcher": {"_target_": "played"}})
    items = [(number, one, Step("new", "", None), None) for number, one in enumerate(listed)]
    others = [other(*work.claim(listed[number])) for number in claimed]
    log = SimpleNamespace(run_id="parent", client=Store())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "build", lambda node, works, call: launcher(works, call))
        if closed is not None:
            patch.setattr(tracking, "close", lambda client, folder, *more: closed.append((folder, *more)))
        try:
            found = engine.perform(cfg, iter(items), len(items), log)
        finally:
            for process in others:
                process.kill()
                process.wait()
    return order, found, listed


def test_what_others_run_is_left_for_the_end(tmp_path, capsys):
    outcomes = [Outcome({"test/psnr": float(number)}) for number in range(4)]
    order, found, _ = played(tmp_path, outcomes, claimed=(0, 2))
    assert order == [1, 3, 0, 2]
    assert found == dict(enumerate(outcomes))
    assert "waiting for job 3, which another command is running" in capsys.readouterr().out


def test_a_full_disk_ends_the_sweep_with_its_one_line(tmp_path, capsys):
    closed = []
    full = Outcome(None, f"{account.FULL} (No space left on device: x); make some, and type the same again", 1)
    with pytest.raises(AelabError, match=r"^no room on the disk \(No space left on device: x\); make some"):
        played(tmp_path, [Outcome({"test/psnr": 1.0}), full, Outcome({"test/psnr": 1.0})], closed=closed)
    assert capsys.readouterr().err == ""
    assert [more for _, *more in closed] == [["KILLED", "stopped: another job failed"]]  # if its own process could not


# ---- the real command, twice at once


def signed(cwd):
    """The states of the runs of each signature in the store of `cwd`."""
    found = [(run.data.tags.get("aelab.signature"), run.info.status) for run in commands.runs(commands.client(cwd))]
    rows = itertools.groupby(sorted(found, key=str), key=lambda row: row[0])
    return {sign: [status for _, status in group] for sign, group in rows}


def starts(cwd):
    """How often each job's training was begun, over all folders of a signature."""
    found = {}
    for log in cwd.glob("outputs/sweeps/*/*/*/run.log"):
        sign = log.parent.name.rpartition("-")[2]
        found[sign] = found.get(sign, 0) + log.read_text().count("started with")
    return found


def test_two_sweeps_at_once_run_each_job_once(tmp_path):
    words = ("-m", *SMALL, "fit.epochs=3", "model.bottleneck=2,3,4")
    both = [commands.start(*words, f"launcher={name}", cwd=tmp_path) for name in ("processes", "inline")]
    for result in map(commands.end, both):
        assert (result.returncode, result.stderr) == (0, ""), result.stdout
    states = signed(tmp_path)
    assert states.pop(None) == ["FINISHED"] * 2  # the parents
    assert list(states.values()) == [["FINISHED"]] * 3
    assert starts(tmp_path) == dict.fromkeys(states, 1)
    one, two = (pd.read_csv(file) for file in tmp_path.glob("outputs/sweeps/*/*/sweep.csv"))
    pd.testing.assert_frame_equal(one, two)
    assert list(one["state"]) == ["finished"] * 3


WAIT = """
import itertools, time
from pathlib import Path

calls = itertools.count()


def mine(x, rng, /, *, level: float):
    while next(calls) > 10 and Path("hold").exists():
        time.sleep(0.05)
    return x
"""


def test_what_a_killed_sweep_was_running_is_taken_over_by_one_that_waits(tmp_path):
    own = commands.package(tmp_path, WAIT, level="0.3")
    words = ("-m", *SMALL, *own, "fit.epochs=8", "model.bottleneck=2,3")
    (tmp_path / "hold").touch()
    first = commands.start(*words, cwd=tmp_path)
    commands.wait_for(lambda: list(tmp_path.glob("outputs/sweeps/*/*/0-*/checkpoint.npz")), "an epoch of the first")
    # Of its jobs the second has only the one that the first is running.
    second = commands.start(*words[:-1], "model.bottleneck=2", cwd=tmp_path)
    lines = []
    while not any("waiting for job 1" in line for line in lines):
        lines.append(second.stdout.readline())
        assert lines[-1], second.stderr.read()
    time.sleep(0.5)
    assert second.poll() is None
    (before,) = (run for run in commands.runs(commands.client(tmp_path)) if "mlflow.parentRunId" in run.data.tags)
    first.kill()
    (tmp_path / "hold").unlink()
    result = commands.end(second)
    first.communicate()
    assert (result.returncode, result.stderr) == (0, "")
    run = commands.client(tmp_path).get_run(before.info.run_id)
    assert run.info.status == "FINISHED"
    assert [len(group) for sign, group in signed(tmp_path).items() if sign] == [1]
    folder = Path(run.data.tags["aelab.folder"])
    assert list(pd.read_csv(folder / "history.csv")["epoch"]) == [*range(1, 9)]
    assert f"job 1 ended in {folder}" in result.stdout


# ---- folders


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("hydra.run.dir=file", "is a file"),
        ("hydra.run.dir=file/run", "file is a file"),
        ("hydra.run.dir=.", "is there for more than one run"),
        ("hydra.run.dir=outputs", "is there for more than one run"),
        ("hydra.run.dir=outputs/runs", "is there for more than one run"),
        ("hydra.run.dir=run", r"holds run a{32} \(finished\); give a new or empty folder"),
        ("hydra.run.dir=run/in", "is inside of the run folder"),
        ("hydra.run.dir=full", "is not empty, has notes.txt"),
        ("-m seed=1,2 hydra.sweep.dir=full", "is not empty, has notes.txt"),
        ("-m seed=1,2 hydra.sweep.dir=run", "holds run a{32}"),
        ("-m seed=1,2 hydra.sweep.dir=outputs", "is there for more than one run"),
        ("-m seed=1,2 hydra.sweep.dir=file/sweep", "is a file"),
        ("-m seed=1,2 hydra.sweep.subdir=a", "hydra.sweep.subdir=a: two jobs would have this folder"),
        ("-m seed=1,2 hydra.sweep.subdir=..", "expected the name of a folder"),
        ("-m seed=1,2 hydra.sweep.subdir=.", "expected the name of a folder"),
        ("-m seed=1,2 hydra.sweep.subdir=a/b", "expected the name of a folder"),
        ("-m seed=1,2 hydra.sweep.subdir=/a", "expected the name of a folder"),
        ("-m seed=1,2 'hydra.sweep.subdir='", "hydra.sweep.subdir=: expected the path of a folder"),
        ("-m search=random model.size=3,5 hydra.sweep.subdir=a", "two jobs would have this folder"),
        ("-m search=random model.size=3,5 hydra.sweep.dir=full", "is not empty"),
    ],
)
def test_a_folder_that_is_not_for_one_run_is_refused_before_it(words, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("run", "full"):
        (tmp_path / name).mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "full" / "notes.txt").touch()
    note(tmp_path / "run", status="FINISHED", signature="0")
    before = {p: p.read_text() for p in tmp_path.rglob("*") if p.is_file()}
    with pytest.raises(ConfigError, match=said):
        cli.dispatch([*TINY, *words.replace("'", "").split()])
    assert {p: p.read_text() for p in before} == before
    assert not list(tmp_path.glob("outputs/runs/*")) + list(tmp_path.glob("outputs/sweeps/*"))


def test_folders_that_may_be_gone_on_with(tmp_path):
    new = job(tmp_path, f"hydra.run.dir={tmp_path / 'run'}")
    folders.single(new)
    new.folder.mkdir()
    folders.single(new)
    for name in ("run.log", "config.yaml"):
        (new.folder / name).touch()
        folders.single(new)  # it was stopped before it was a run
    for status in ("RUNNING", "KILLED", "FAILED"):
        note(new.folder, status=status, signature=new.signature)
        folders.single(new)
    account.note(new.folder, status="FINISHED")
    with pytest.raises(ConfigError, match=r"holds run a{32} \(finished\)"):
        folders.single(new)
    account.note(new.folder, status="KILLED", signature="0")
    with pytest.raises(ConfigError, match=r"holds run a{32} \(another\)"):
        folders.single(new)


def test_the_folder_of_the_same_sweep_is_gone_on_with_and_no_job_gets_anothers(tmp_path):
    home = tmp_path / "sweep"
    note(home, status="KILLED", tags={**TAGS, "aelab.sweep": "s"})
    folders.sweep(home, str(tmp_path / "outputs"), "s")
    with pytest.raises(ConfigError, match=r"holds run a{32}"):
        folders.sweep(home, str(tmp_path / "outputs"), "t")
    mine = job(tmp_path)._replace(folder=home / "0")
    assert folders.free(mine) == mine
    for number, name in enumerate(("0", "0-2")):
        note(home / name, status="FINISHED", signature=mine.signature)
        assert folders.free(mine).folder == home / f"0-{number + 2}"
    note(home / "0-3", status="KILLED", signature=mine.signature)
    assert folders.free(mine).folder == home / "0-3"


# ---- a full disk


def test_a_file_is_written_whole_or_stays_as_it_was(tmp_path):
    file = tmp_path / "file.json"
    account.write(file, "whole")

    def full():
        with account.whole(file) as half:
            half.write_text("ha")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match=r"No space left on device: '.*/file\.json'"):
        full()
    assert file.read_text() == "whole"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("write", [lambda file: np.save(file, np.zeros(10000)), lambda file: file.write(b"1" * 9999)])
def test_a_full_disk_is_known_whoever_tells_it(write):
    with open("/dev/full", "wb", buffering=0) as file, pytest.raises(OSError, match=r"space|written") as raised:
        write(file)
    assert account.full(raised.value)
    assert not account.full(FileNotFoundError(errno.ENOENT, "No such file"))


def test_a_log_on_a_full_disk_is_silent(capfd):
    logger, handler = logging.getLogger("aelab.full"), logging.StreamHandler(account.log(Path("/dev/full")))
    logger.addHandler(handler)
    try:
        logger.error("a line")
    finally:
        logger.removeHandler(handler)
        handler.stream.close()
    assert capfd.readouterr().err.count("Logging error") == 0


FILL = """
import itertools, resource
from pathlib import Path

calls = itertools.count()


def mine(x, rng, /, *, level: float):
    if next(calls) == 12 and Path("fill").exists():
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    return x
"""
"""A corruption that, in the middle of training, leaves room for nothing more: no file can be written, as any user."""


def test_a_disk_that_fills_up_is_one_line_and_the_run_goes_on_when_there_is_room(tmp_path):
    own = commands.package(tmp_path, FILL, level="0.3")
    words = (*SMALL, *own, "fit.epochs=8", "hydra.run.dir=run")
    (tmp_path / "fill").touch()
    result = commands.end(commands.start(*words, cwd=tmp_path))
    assert result.returncode == 1
    said = commands.complaint(result)
    assert said.startswith("no room on the disk (File too large")
    resume = said.partition("type ")[2].partition(" (details")[0]
    folder = tmp_path / "run"
    assert resume == f"aelab resume run={folder}"
    kept = json.loads((folder / account.NAME).read_text())
    epochs = len(pd.read_csv(folder / "history.csv"))
    assert 0 < epochs < 8
    assert not list(folder.glob(".*"))
    (tmp_path / "fill").unlink()
    commands.done(*resume.split()[1:], "allow=[my]", cwd=tmp_path)
    (run,) = commands.runs(commands.client(tmp_path))
    assert (run.info.run_id, run.info.status) == (kept["run_id"], "FINISHED")
    assert list(pd.read_csv(folder / "history.csv")["epoch"]) == [*range(1, 9)]
