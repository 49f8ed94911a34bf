"""Jobs that do what their first word says, for the tests of launchers; found by name in the processes that run them."""

import os
import signal
import sys
import time
from pathlib import Path

from omegaconf import OmegaConf

from aelab.compose import Job
from aelab.work import Outcome, Work, on_sigterm


def work(folder, number, *words):
    """The job `number`, which is to do what `words` say."""
    return Work(number, Job([*map(str, words)], OmegaConf.create({}), folder / str(number), str(number)), "parent")


def trace(job):
    """What a job has noted: "begun" and "ended", or "stopped"; and the processes that it had."""
    file = job.job.folder / "trace"
    lines = [line.split() for line in file.read_text().splitlines()] if file.exists() else []
    return [word for word, _ in lines], [int(pid) for word, pid in lines if word == "begun"]


def perform(job, *, threads, memory_gb):
    """Do what the job's words say; gives its number as its metric."""
    signal.signal(signal.SIGTERM, on_sigterm)
    action, *more = job.job.overrides
    _note(job, "begun")
    print("this is no answer")
    try:
        ACTIONS[action](job, *more)
    except KeyboardInterrupt:
        _note(job, "stopped")
        raise
    _note(job, "ended")
    return Outcome({"test/number": float(job.number), "threads": threads, "memory_gb": memory_gb})


def _note(job, word):
    with (job.job.folder / "trace").open("a") as file:
        file.write(f"{word} {os.getpid()}\n")


def _good(job):
    """Leave what it found around it."""
    (job.job.folder / "around").write_text("\n".join([os.getcwd(), os.environ.get("AELAB_TEST", ""), *sys.path]))


def _raises(job):
    raise ValueError("as it was asked to")


def _exits(job, code):
    os._exit(int(code))


def _crashes(job):
    os.kill(os.getpid(), signal.SIGSEGV)


def _waits(job, file):
    while not Path(file).exists():
        time.sleep(0.05)


ACTIONS = {"good": _good, "raises": _raises, "exits": _exits, "crashes": _crashes, "waits": _waits}
