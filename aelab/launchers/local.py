"""Launchers on this machine: one job after the other in this process, or several at once, each in its own."""

import functools
import multiprocessing.forkserver
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, wait
from pathlib import Path

from aelab import console
from aelab.config import Above, Count
from aelab.work import MEMORY, Outcome, Work, perform

LIMIT_S = 20
"""What a job that took too long has to close its run in."""
GRACE_S = 1
"""What jobs of a sweep that is stopped have for that, all together; whose run is open then is closed by the sweep."""
ORPHAN_S = 0.3
"""What jobs have whose sweep is gone: it was killed, and nobody may go on writing."""


def inline(works: Iterator[Work], call: Callable, /) -> Iterator[tuple[Work, Outcome]]:
    """One after the other in this process: TensorFlow is imported once; a crash of the process ends the sweep."""
    for work in works:
        yield work, perform(work)


def processes(
    works: Iterator[Work], call: Callable, /, *, at_once: Count, minutes: Above | None, memory_gb: Above | None
) -> Iterator[tuple[Work, Outcome]]:
    """`at_once` jobs at a time, each in a fresh process that has its share of the threads.

    The processes are forked from one that has imported everything and computed nothing, so that each starts in a few
    hundredths of a second. A job that takes longer than `minutes`, or more memory than `memory_gb`, is ended.
    """
    import pebble

    pebble.CONSTS.term_timeout = LIMIT_S
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["aelab.launchers.server", "aelab.run"])
    threads = max(1, len(os.sched_getaffinity(0)) // at_once)
    task = functools.partial(call, threads=threads, memory_gb=memory_gb)
    with console.native_noise_to(Path(os.devnull)):
        multiprocessing.forkserver.ensure_running()
    pool, running = pebble.ProcessPool(max_workers=at_once, max_tasks=1, initializer=_follow, context=context), {}
    try:
        while True:
            while len(running) < at_once and (work := next(works, None)):
                running[pool.schedule(task, args=[work], timeout=minutes and 60 * minutes)] = work
            if not running:
                break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                yield running.pop(future), _outcome(future, minutes, memory_gb)
    finally:
        with console.unbroken():  # a second ^C would leave runs open
            pool.stop()
            pebble.CONSTS.term_timeout = GRACE_S  # of one that was started at this moment
            _end(multiprocessing.active_children())
            pool.join()


def _end(workers: list) -> None:
    """Stop processes together, as their library would one after the other; kill what computes on."""
    for worker in workers:
        worker.terminate()
    end = time.monotonic() + GRACE_S
    for worker in workers:
        worker.join(max(0, end - time.monotonic()))
        if worker.is_alive():
            worker.kill()


def _follow() -> None:
    """In a worker: end with the sweep, and with the fork server, without which the sweep hears no more of it."""
    from aelab.launchers import server  # this process has it: it was forked from there

    server.end_with_parent(signal.SIGTERM)
    threading.Thread(target=_leave_with, args=(multiprocessing.parent_process(),), daemon=True).start()


def _leave_with(parent) -> None:
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(ORPHAN_S)
    os._exit(1)


def _outcome(future, minutes: float | None, memory_gb: float | None) -> Outcome:
    error = future.exception()
    if error is None:
        return future.result()
    if isinstance(error, TimeoutError):
        return Outcome(None, f"it took longer than {minutes:g} minutes (launcher.minutes)", 1)
    code = getattr(error, "exitcode", None)
    if code is None:
        return Outcome(None, f"{type(error).__name__}: {error}", 1)
    return Outcome(None, ended(code, memory_gb), 1)


def ended(code: int, memory_gb: float | None) -> str:
    """Why a process that gave no outcome ended, from its exit code."""
    if code == MEMORY and memory_gb:
        return f"it took more memory than {memory_gb:g} GB (launcher.memory_gb)"
    if code < 0:
        killed = signal.Signals(-code).name
        return f"its process was ended by {killed}" + (", perhaps for want of memory" if killed == "SIGKILL" else "")
    return f"its process ended by itself, with exit code {code}"
