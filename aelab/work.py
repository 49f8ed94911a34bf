"""A job as a piece of work: what a launcher is given, how it is done, here or in another process, and what it gives."""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil

from aelab import account, claims, compose, console
from aelab.config import AelabError

USER_ERRORS = (AelabError, OSError)
"""Errors whose message is for the user: ours, and the operating system's (disk full, no permission)."""
INLINE = "aelab.launchers.local.inline"
"""The launcher whose jobs run in this process."""
AGAIN_S = 0.01
"""After this time a signal whose exception was dropped is sent again."""
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
    """What came of a job: its final metrics, or None, why it failed, the exit code that says so, and its run's folder.

    None is the job's own folder; another is that of a run by another command.
    """

    metrics: dict[str, float] | None
    reason: str = ""
    code: int = 0
    folder: Path | None = None


def on_sigterm(signum, frame):
    """Signal handler: once; what comes while a run is being closed is not to break that off."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Terminated("terminated (SIGTERM)")


def send_again(dropped) -> None:
    """Hook for what Python drops: an exception in the callback of a weak reference, say. A signal's is sent again."""
    if not isinstance(dropped.exc_value, KeyboardInterrupt):
        sys.__unraisablehook__(dropped)
        return
    number = signal.SIGTERM if isinstance(dropped.exc_value, Terminated) else signal.SIGINT
    if number == signal.SIGTERM:
        signal.signal(number, on_sigterm)
    threading.Timer(AGAIN_S, os.kill, (os.getpid(), number)).start()  # here it would be dropped once more


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
            with take(work) as (job, settled), alone_in(job, work.parent is not None):
                if settled:
                    return settled
                with profiled(job.folder if job.cfg.profile else None):
                    metrics = run(job, started, work.parent, work.trial and work.trial.report)
                    return Outcome(metrics, folder=job.folder)
    except USER_ERRORS as error:
        message, code = explain(error, work.parent is None and job.folder), getattr(error, "code", 1)
    except Exception as error:  # noqa: BLE001 - the last line of defence: told in one line, kept whole in run.log
        message, code = f"{type(error).__name__}: {error}", 1
    return Outcome(None, message, code, job.folder)


def explain(error: BaseException, single: Path | None) -> str:
    """An error of a run as one line; `single` is the folder of one that is no job of a sweep."""
    if not account.full(error):
        return str(error)
    resumed = single and (single / account.NAME).exists()
    again = f"aelab resume run={single}" if resumed else "the same again"
    where = f": {error.filename}" if error.filename else ""
    return f"{account.FULL} ({error.strerror or error}{where}); make some, and type {again}"


def outcome_of(step) -> Outcome:
    """The outcome of a job that is not to be run (see `plan.Step`): what came of its run, or why there is nothing."""
    from aelab import plan

    metrics = plan.outcome(step.past) if step.state == "done" else None
    return Outcome(metrics, step.why, int(metrics is None), step.past.folder if step.settled else None)


def claim(job: compose.Job) -> tuple[str, ...]:
    """What is claimed before a job is run: where, and its signature in an experiment of a store."""
    cfg = job.cfg
    return cfg.output_dir, cfg.tracking.uri or "", cfg.tracking.experiment, job.signature


@contextlib.contextmanager
def take(work: Work) -> Iterator[tuple[compose.Job, Outcome | None]]:
    """Nobody else runs the job of a sweep during the block; gives the job, and its outcome if others had run it.

    A run that they began and did not end is gone on with. A single run, and a job that is to be run again by
    `sweep.force`, is a run of its own: it keeps others waiting, but waits for none.
    """
    job, cfg = work.job, work.job.cfg
    own = work.parent is None or (cfg.sweep.force and not cfg.get("search"))
    with claims.hold(*claim(job), wait=not own):
        if own:
            yield job, None
            return
        from aelab import plan

        step = plan.today(job)
        if step.settled or (step.state == "running" and step.past.folder != job.folder):  # its own: of a lost node
            yield job, outcome_of(step)
        else:
            yield job._replace(folder=step.past.folder) if step.state == "resume" else job, None


@contextlib.contextmanager
def alone_in(job: compose.Job, swept: bool) -> Iterator[None]:
    """No other command writes into a job's folder during the block; a job of a sweep waits for that."""
    what = job.cfg.output_dir, "folder", str(job.folder.resolve())
    with claims.hold(*what, wait=swept) as got:
        if not got:
            raise AelabError(f"{job.folder}: another command is writing there; wait for it, or give another folder")
        yield


def elsewhere(work: Work, *, threads: int | None = None, memory_gb: float | None = None) -> Outcome:
    """Run a job in a process that is there for it alone; what it would print goes to run.log.

    Its thread pools get `threads` threads; a process that takes more than `memory_gb` ends with exit code `MEMORY`.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ^C goes to the whole group: the launcher says who stops
    signal.signal(signal.SIGTERM, on_sigterm)
    sys.unraisablehook = send_again
    if threads:
        for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            os.environ[name] = str(threads)
    if memory_gb:
        threading.Thread(target=_watch, args=(memory_gb * 1e9,), daemon=True).start()
    compose.trust(work.job.cfg.allow)
    if compose.signature(work.job.cfg) != work.job.signature:
        return Outcome(None, "the code, or a file that the config names, has changed since the sweep was started", 1)
    work.job.folder.mkdir(parents=True, exist_ok=True)
    with account.log(work.job.folder / "run.log") as file, contextlib.redirect_stdout(file):
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
