"""A job as a piece of work: what a launcher is given, how it is done, here or in another process, and what it gives."""

import contextlib
import os
import signal
import threading
import time
from pathlib import Path
from typing import NamedTuple

import psutil

from aelab import compose, console
from aelab.config import AelabError

USER_ERRORS = (AelabError, OSError)
"""Errors whose message is for the user: ours, and the operating system's (disk full, no permission)."""
INLINE = "aelab.launchers.local.inline"
"""The launcher whose jobs run in this process."""
MEMORY = 77
"""Exit code of a worker that took more memory than it may."""


class Terminated(KeyboardInterrupt):
    """SIGTERM, as an exception, so that a run can be closed on its way out."""


class Work(NamedTuple):
    """A job of a sweep: its place there, what to run, under which parent run, and for which trial of a search."""

    number: int
    job: compose.Job
    parent: str | None = None
    trial: object = None


class Outcome(NamedTuple):
    """What came of a job: its final metrics, or None, why it failed, and the exit code that says so."""

    metrics: dict[str, float] | None
    reason: str = ""
    code: int = 0


def on_sigterm(signum, frame):
    """Signal handler: once; what comes while a run is being closed is not to break that off."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Terminated("terminated (SIGTERM)")


def perform(work: Work, started: float | None = None) -> Outcome:
    """Run a job in this process; of a failure, one line is given, and its traceback stands in run.log.

    `started` is when the user began to wait for it; None is now.
    """
    job, started = work.job, started or time.time()
    log = job.folder / "run.log"
    try:
        job.folder.mkdir(parents=True, exist_ok=True)
        with console.native_noise_to(log):
            with console.out.status("starting TensorFlow"), console.leaving_at_once():
                from aelab.run import run
            with profiled(job.folder if job.cfg.profile else None):
                return Outcome(run(job, started, work.parent, work.trial and work.trial.report))
    except USER_ERRORS as error:
        message, code = str(error), getattr(error, "code", 1)
    except Exception as error:  # noqa: BLE001 - the last line of defence: told in one line, kept whole in run.log
        message, code = f"{type(error).__name__}: {error}", 1
    return Outcome(None, message, code)


def elsewhere(work: Work, *, threads: int | None = None, memory_gb: float | None = None) -> Outcome:
    """Run a job in a process that is there for it alone; what it would print goes to run.log.

    Its thread pools get `threads` threads; a process that takes more than `memory_gb` ends with exit code `MEMORY`.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ^C goes to the whole group: the launcher says who stops
    signal.signal(signal.SIGTERM, on_sigterm)
    if threads:
        for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            os.environ[name] = str(threads)
    if memory_gb:
        threading.Thread(target=_watch, args=(memory_gb * 1e9,), daemon=True).start()
    compose.trust(work.job.cfg.allow)
    if compose.signature(work.job.cfg) != work.job.signature:
        return Outcome(None, "the code, or a file that the config names, has changed since the sweep was started", 1)
    work.job.folder.mkdir(parents=True, exist_ok=True)
    with (work.job.folder / "run.log").open("a", buffering=1) as file, contextlib.redirect_stdout(file):
        console.out.file = console.err.file = file
        return perform(work)


def _watch(most: float) -> None:
    own = psutil.Process()
    while own.memory_info().rss < most:
        time.sleep(0.2)
    os._exit(MEMORY)


@contextlib.contextmanager
def profiled(folder: Path | None):
    """Write profile.txt, the functions that took longest, where a folder is given."""
    if folder is None:
        yield
        return
    import cProfile
    import pstats

    profile = cProfile.Profile()
    with profile:
        yield
    with (folder / "profile.txt").open("w") as file:
        pstats.Stats(profile, stream=file).sort_stats("cumulative").print_stats(80)
    console.out.print(f"profile     {folder / 'profile.txt'}", soft_wrap=True)
