"""Runs that are interrupted, terminated or killed: the exit code, and an honest state in MLflow."""

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import commands
import pandas as pd
import pytest

from aelab import console

LONG = ("dataset=digits", "debug=fast", "fit.epochs=2000", "fit.patience=null", "model.widths=[4]")
MODEL = ("model=conv_ae", "model.bottleneck=8")
SIGNALS = {"interrupt": signal.SIGINT, "terminate": signal.SIGTERM, "kill": signal.SIGKILL, "sweep": signal.SIGINT}


class Stopped(NamedTuple):
    """A stopped command: its folder, its result, and how many epochs were safe before the signal was sent.

    They stood in history.csv; for a kill, which leaves no time to send the last ones, they stood in MLflow.
    """

    cwd: Path
    result: object
    epochs: int


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """One long command for each signal, started two at a time and stopped after some epochs."""

    def stop(name):
        cwd = tmp_path_factory.mktemp(name)
        swept = ("-m", "model=conv_ae", "model.bottleneck=8,16")
        process = commands.start(*(swept if name == "sweep" else MODEL), *LONG, cwd=cwd)
        history = commands.wait_for(commands.rows(cwd, 2), "two epochs")
        epochs = len(pd.read_csv(history))
        if name == "kill":
            store = commands.client(cwd)
            commands.wait_for(lambda: [run for run in commands.runs(store) if logged(store, run) >= 2], "two epochs")
            epochs = logged(store, *commands.runs(store))
        process.send_signal(SIGNALS[name])
        return Stopped(cwd, commands.end(process, 60), epochs)

    return commands.together({name: lambda name=name: stop(name) for name in SIGNALS})


def logged(store, run) -> int:
    """How many epochs of a run are in MLflow."""
    return len(store.get_metric_history(run.info.run_id, "train/loss"))


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [("interrupt", 130, "aelab: interrupted\n"), ("terminate", 143, "aelab: terminated (SIGTERM)\n")],
)
def test_a_stopped_run_is_killed_in_mlflow_and_keeps_its_metrics(name, code, said, stopped):
    cwd, result, epochs = stopped[name]
    assert (result.returncode, result.stderr) == (code, said)
    store = commands.client(cwd)
    (run,) = commands.runs(store)
    assert run.info.status == "KILLED"
    assert run.data.tags["aelab.reason"] == ("interrupted (^C)" if name == "interrupt" else "terminated (SIGTERM)")
    assert logged(store, run) >= epochs
    assert "ended by" in (Path(run.data.tags["aelab.folder"]) / "run.log").read_text()


def test_an_interrupted_sweep_closes_the_child_and_the_parent(stopped):
    cwd, result, epochs = stopped["sweep"]
    assert (result.returncode, result.stderr) == (130, "aelab: interrupted\n")
    store = commands.client(cwd)
    parent, child = commands.runs(store)
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert (parent.info.status, child.info.status) == ("KILLED", "KILLED")
    assert logged(store, child) >= epochs


def test_a_run_whose_process_was_killed_is_closed_by_the_next_run(stopped):
    cwd, result, epochs = stopped["kill"]
    assert result.returncode == -signal.SIGKILL
    store = commands.client(cwd)
    (run,) = commands.runs(store)
    assert run.info.status == "RUNNING"
    assert logged(store, run) >= epochs
    commands.done(*commands.BASELINE, cwd=cwd)
    killed, after = commands.runs(store)
    assert killed.info.run_id == run.info.run_id
    assert (killed.info.status, after.info.status) == ("FAILED", "FINISHED")
    assert killed.data.tags["aelab.reason"] == "the process died without closing the run"
    assert logged(store, killed) >= epochs


def test_a_signal_while_tensorflow_is_imported_ends_the_command_at_once(tmp_path):
    def stop(sent, after):
        cwd = tmp_path / f"{sent.name}{after}"
        cwd.mkdir()
        process = commands.start(*MODEL, *LONG, cwd=cwd)
        commands.wait_for(lambda: list(cwd.glob("outputs/runs/*/*")), "the run folder")
        time.sleep(after)
        clock = time.monotonic()
        process.send_signal(sent)
        return commands.end(process, 60), time.monotonic() - clock

    said = {signal.SIGTERM: (143, "aelab: terminated (SIGTERM)\n"), signal.SIGINT: (130, "aelab: interrupted\n")}
    cases = [(signal.SIGTERM, 1), (signal.SIGINT, 1), (signal.SIGINT, 2)]
    found = commands.together({case: lambda case=case: stop(*case) for case in cases})
    for (sent, after), (result, seconds) in found.items():
        assert seconds < 10
        assert (result.returncode, result.stderr) == said[sent]
        assert commands.runs(commands.client(tmp_path / f"{sent.name}{after}")) == []


def test_an_interrupt_while_the_command_line_is_imported(tmp_path):
    (tmp_path / "hydra.py").write_text("import signal, time\nsignal.raise_signal(signal.SIGINT)\ntime.sleep(60)\n")
    result = commands.end(commands.start("--help", cwd=tmp_path, PYTHONPATH=str(tmp_path)), 30)
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "aelab: interrupted\n")


def test_sigterm_in_the_first_second(tmp_path):
    process = commands.start(*MODEL, *LONG, cwd=tmp_path)
    time.sleep(1)
    process.send_signal(signal.SIGTERM)
    result = commands.end(process, 20)
    assert result.returncode in (143, -signal.SIGTERM)  # a shell says 143 of both
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_waits_for_the_end_of_a_write(sent):
    def leave(number, frame):
        raise KeyboardInterrupt(number)

    def write():
        with console.unbroken():
            signal.raise_signal(sent)
            done.append("written")

    before, done = signal.signal(sent, leave), []  # tests in the background ignore ^C
    try:
        with pytest.raises(KeyboardInterrupt):
            write()
        assert done == ["written"]
        assert signal.getsignal(sent) is leave
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(sent)  # as before
    finally:
        signal.signal(sent, before)


def test_a_signal_that_is_ignored_stays_so_during_a_write():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with console.unbroken():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


DROPPED = """
import signal, sys, time, weakref
from aelab import cli


def interrupted(words):
    one = {1}
    watched = weakref.ref(one, lambda ref: signal.raise_signal(int(words[0])))
    del one
    time.sleep(20)
    return 0


cli.dispatch = interrupted
cli.main()
"""


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_whose_exception_python_drops_ends_the_command_all_the_same(sent, code):
    command = [sys.executable, "-c", DROPPED, str(int(sent))]
    result = subprocess.run(command, capture_output=True, text=True, timeout=15, cwd=Path(__file__).parent.parent)
    assert (result.returncode, len(result.stderr.splitlines())) == (code, 1)
