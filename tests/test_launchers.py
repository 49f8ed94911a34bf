"""Sweeps in processes of this machine: jobs that crash, hang, or eat memory end alone, and none is left behind."""

import itertools
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import commands
import pandas as pd
import psutil
import pytest

from aelab import account

SMALL = ("dataset=digits", "debug=fast", "dataset.limit=64", "fit.batch_size=32", "model=conv_ae", "model.widths=[4]")
OUTLIVE_S = 1
"""So long may the processes of a sweep go on after its own."""
SMALL = ("-m", *SMALL, "loss=[mse]", "metric=[psnr]", "fit.patience=null", "tracking.log_model=false")
TROUBLE = """
import itertools, os, time
from pathlib import Path

import numpy as np

calls, held = itertools.count(), []


def mine(x, rng, /, *, does: str):
    if next(calls) < 8 or Path("calm").exists():
        return x
    if does == "exit":
        os._exit(3)
    if does == "eat":
        held.append(np.ones(3 * 10**8))
    if does in ("eat", "sleep"):
        time.sleep(600)
    return x
"""
RATES = {"spoil": 1e38}
DOES = ("sleep", "exit", "good", "spoil", "eat", "better")
FAILURES = {
    "sleep": r"it took longer than 0\.75 minutes \(launcher\.minutes\)",
    "exit": "its process ended by itself, with exit code 3",
    "spoil": r"the loss became nan in epoch \d, step \d; try a lower optimizer.learning_rate or fit.precision=float32",
    "eat": r"it took more memory than 2\.5 GB \(launcher\.memory_gb\)",
}


@pytest.fixture(scope="module")
def troubled(tmp_path_factory):
    """(folder, results) of a sweep with all kinds of failure, issued three times: the last with retry, and in peace."""
    cwd = tmp_path_factory.mktemp("troubled")
    own = commands.package(cwd, TROUBLE, does="good")
    rows = ("corruption.mine.does,optimizer.learning_rate", *(f"{does},{RATES.get(does, 0.001)}" for does in DOES))
    (cwd / "jobs.csv").write_text("\n".join(rows))
    words = (*SMALL, *own, "fit.epochs=6", "schedule=constant", "sweep.table=jobs.csv")
    words = (*words, "launcher=processes", "launcher.minutes=0.75", "launcher.memory_gb=2.5")
    found = []
    for more in ((), (), ("sweep.retry=failed",)):
        if more:
            (cwd / "calm").touch()
        result = commands.run(*words, *more, cwd=cwd)
        runs = {run.data.params.get("corruption.mine.does", ""): run for run in commands.runs(commands.client(cwd))}
        assert len(runs) == 1 + len(DOES) == len(commands.runs(commands.client(cwd))), result.stderr
        (table,) = cwd.glob("outputs/sweeps/*/*/sweep.csv")
        found.append((result, runs, pd.read_csv(table).set_index("corruption.mine.does")))
    return found


def test_what_fails_fails_alone_and_says_why(troubled):
    result, runs, table = troubled[0]
    assert result.returncode == 1
    assert runs[""].info.status == "FINISHED"
    assert runs[""].data.metrics == {"sweep/jobs": 6, "sweep/failed": 4}
    *lines, last = result.stderr.splitlines()
    assert last == "aelab: 4 of 6 jobs failed"
    assert len(lines) == 4
    told = {DOES[int(line.split()[2]) - 1]: line for line in lines}
    assert told.keys() == FAILURES.keys()
    for does, why in FAILURES.items():
        found = re.fullmatch(rf"aelab: job \d failed: {why} \(details: (.*/run.log)\)", told[does])
        assert found, told[does]
        assert Path(found[1]).parent == Path(runs[does].data.tags["aelab.folder"])
        assert "epoch 1/6" in Path(found[1]).read_text()
        assert runs[does].info.status == "FAILED"
        assert re.search(why, runs[does].data.tags["aelab.reason"])
        assert table.loc[does, "state"] == "failed"
        assert re.fullmatch(why, table.loc[does, "why"])
    for does in ("good", "better"):
        assert runs[does].info.status == "FINISHED"
        assert table.loc[does, "state"] == "finished"
        assert table.loc[does, "test/psnr"] == runs[does].data.metrics["test/psnr"]


def test_two_jobs_run_at_once_and_the_next_when_one_ends(troubled):
    _, runs, _ = troubled[0]
    slow, quick = runs["sleep"].info, [runs[does].info for does in ("exit", "good", "spoil")]
    assert all(slow.start_time < one.end_time <= slow.end_time for one in quick)
    assert all(one.end_time <= other.start_time for one, other in itertools.pairwise(quick))


def test_what_failed_is_told_and_not_run_again(troubled):
    (_, before, _), (result, runs, table), _ = troubled
    assert result.returncode == 1
    assert commands.complaint(result) == "4 of 6 jobs failed"
    assert (result.stdout.count("failed before: run "), result.stdout.count("done before: run ")) == (4, 2)
    for does in DOES:
        assert (runs[does].info.run_id, runs[does].info.end_time) == (
            before[does].info.run_id,
            before[does].info.end_time,
        )
    assert list(table["state"].value_counts().sort_index()) == [4, 2]


def test_what_failed_is_gone_on_with_where_that_is_asked_for(troubled):
    (_, before, _), _, (result, runs, table) = troubled
    assert result.returncode == 1
    again, last = result.stderr.splitlines()
    assert re.match(f"aelab: job 4 failed: {FAILURES['spoil']}", again)  # there is no peace with this learning rate
    assert last == "aelab: 1 of 6 jobs failed"
    assert result.stdout.count("done before: run ") == 2
    assert runs[""].data.metrics == {"sweep/jobs": 6, "sweep/failed": 1}
    for does in DOES:
        state, run = "FAILED" if does == "spoil" else "FINISHED", runs[does]
        assert (run.info.run_id, run.info.status) == (before[does].info.run_id, state)
        assert table.loc[does, "state"] == state.lower()
        assert ("aelab.reason" in run.data.tags) == (does == "spoil")
        if does != "spoil":
            history = pd.read_csv(Path(run.data.tags["aelab.folder"]) / "history.csv")
            assert list(history["epoch"]) == [*range(1, 7)]


def test_a_sweep_that_is_to_stop_leaves_the_rest(tmp_path):
    words = (*SMALL, "schedule=constant", "optimizer.learning_rate=1e-3,1e38,1e-2,0.1", "sweep.on_error=stop")
    result = commands.run(*words, cwd=tmp_path)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == "aelab: 3 of 4 jobs failed"
    parent, *children = commands.runs(commands.client(tmp_path))
    assert (parent.info.status, parent.data.metrics["sweep/failed"]) == ("FINISHED", 3)
    assert [run.info.status for run in children] == ["FINISHED", "FAILED"]
    (table,) = tmp_path.glob("outputs/sweeps/*/*/sweep.csv")
    assert list(pd.read_csv(table)["why"][2:]) == ["not run: a job failed, and sweep.on_error=stop"] * 2


def outliving(family):
    """Which processes still go on when their time is over; those that nobody has asked for their exit code do not."""

    def goes_on(one):
        try:
            return one.is_running() and one.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    until = time.monotonic() + OUTLIVE_S
    while (left := [one for one in family if goes_on(one)]) and time.monotonic() < until:
        time.sleep(0.02)
    return left


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """By signal, of a sweep of three that was stopped while two jobs trained: its result, its runs before and after."""

    def stop(sent):
        cwd = tmp_path_factory.mktemp(sent.name)
        words = (*SMALL, "fit.epochs=5000", "model.bottleneck=2,4,8", "launcher=processes")
        process = commands.start(*words, cwd=cwd, group=True)

        def trained():
            files = cwd.glob("outputs/sweeps/*/*/*/history.csv")
            return len([file for file in files if file.read_text().count("\n") > 2])

        commands.wait_for(lambda: trained() == 2, "two jobs")
        before = [run.info.status for run in commands.runs(commands.client(cwd))]
        family = psutil.Process(process.pid).children(recursive=True)
        if sent == signal.SIGKILL:
            process.send_signal(sent)
        else:  # as a terminal sends ^C, and a service manager SIGTERM: to all of them
            os.killpg(process.pid, sent)
        process.wait(60)
        alive = outliving(family)
        for one in alive:
            one.kill()
        result = commands.end(process, 60)  # only now: the others have its streams open too
        return result, before, commands.runs(commands.client(cwd)), len(family), alive

    calls = {sent: lambda sent=sent: stop(sent) for sent in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)}
    return commands.together(calls)


@pytest.mark.parametrize(
    ("sent", "code", "said"),
    [(signal.SIGINT, 130, "aelab: interrupted\n"), (signal.SIGTERM, 143, "aelab: terminated (SIGTERM)\n")],
)
def test_a_sweep_that_is_stopped_closes_all_runs_and_processes(sent, code, said, stopped):
    result, before, runs, family, alive = stopped[sent]
    assert (result.returncode, result.stderr) == (code, said)
    assert before == ["RUNNING"] * 3  # the parent and two at once
    assert [run.info.status for run in runs] == ["KILLED"] * 3
    assert all(run.data.tags["aelab.reason"] for run in runs)
    assert family >= 3
    assert alive == []


def test_jobs_do_not_outlive_a_sweep_that_was_killed(stopped):
    result, before, runs, family, alive = stopped[signal.SIGKILL]
    assert (result.returncode, result.stderr) == (-signal.SIGKILL, "")
    assert before == ["RUNNING"] * 3
    assert {run.info.status for run in runs} <= {"RUNNING", "KILLED"}  # what there was time for; none FINISHED
    assert family >= 3
    assert alive == []


FORK_SERVER = """
import multiprocessing, os, signal, time
from aelab.launchers import local, server


def job():
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    local._leave_with = lambda sweep: None  # it is there
    local._follow()
    print(os.getpid(), flush=True)
    time.sleep(600)


multiprocessing.get_context("fork").Process(target=job).start()
time.sleep(600)
"""


def test_a_fork_server_hears_no_sigterm_and_takes_its_jobs_with_it():
    command = [sys.executable, "-c", FORK_SERVER]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent.parent) as server:
        job = psutil.Process(int(server.stdout.readline()))
        server.terminate()
        with pytest.raises(subprocess.TimeoutExpired):
            server.wait(0.2)
        assert job.is_running()
        server.kill()
        assert outliving([job]) == []


STUCK = """
import time
from pathlib import Path

calls = []


def mine(x, rng, /, *, level: float):
    calls.append(1)
    if len(calls) > 10:
        Path("stuck").touch()
        import ctypes
        ctypes.PyDLL(None).sleep(600)  # keeps the interpreter: no signal is handled
    return x
"""


def test_a_job_that_does_not_hear_is_killed_and_its_run_closed_in_its_stead(tmp_path):
    own = commands.package(tmp_path, STUCK, level="0.3")
    words = (*SMALL, *own, "fit.epochs=5000", "model.bottleneck=2", "launcher=processes", "launcher.at_once=1")
    process = commands.start(*words, cwd=tmp_path)
    commands.wait_for((tmp_path / "stuck").exists, "the job to be stuck")
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGTERM)
    result = commands.end(process, 30)
    assert (result.returncode, result.stderr) == (143, "aelab: terminated (SIGTERM)\n")
    assert outliving(family) == []
    parent, run = commands.runs(commands.client(tmp_path))
    assert (parent.info.status, run.info.status) == ("KILLED", "KILLED")
    assert run.data.tags["aelab.reason"] == "terminated (SIGTERM)"
    kept = account.read(Path(run.data.tags["aelab.folder"]))
    assert (kept["status"], kept["reason"]) == ("KILLED", "terminated (SIGTERM)")
