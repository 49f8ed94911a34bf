"""Cases, each played in a child that is forked from a process which has imported already."""

import contextlib
import faulthandler
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import NamedTuple

import psutil

POLL_S = 0.005
IDLE_S = 2.0
"""Seconds without work after which one that is past its limit is taken to hang."""
MEMORY_GB = 6
"""What a child may take above what it was forked with."""


class Defect(NamedTuple):
    """What went wrong: the column of the table that counts it, and what was seen."""

    column: str
    what: str


class Ended(NamedTuple):
    """How a child ended: its exit code, negative for a signal; `cut`: why it was ended by us, "time" or "memory"."""

    code: int
    out: str
    err: str
    seconds: float
    cut: str = ""


class Case(NamedTuple):
    """Something to be played: how to tell it, what runs in the child (in `box/cwd`), and who judges how it ended."""

    row: str
    label: str
    call: Callable[[], int]
    judge: Callable[[Ended], list[Defect]]
    limit: float = 10


class Played(NamedTuple):
    """A case that was played: its number, how many it counts for, and its defects."""

    number: int
    row: str
    label: str
    count: int
    defects: list[Defect]


def fresh(box: Path) -> Path:
    """An empty box: `cwd`, where a child works, `guard`, which it must not touch, and its two streams."""
    shutil.rmtree(box, ignore_errors=True)
    for name in ("cwd", "guard"):
        (box / name).mkdir(parents=True)
    (box / "guard" / "secret.log").write_text("SECRET")
    return box


def fork(call: Callable[[], int], box: Path, environment: dict[str, str]) -> int:
    """Start a child in a session of its own; its number."""
    sys.stdout.flush()
    sys.stderr.flush()
    if pid := os.fork():
        return pid
    code = 1
    try:
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        for own, file in ((0, os.devnull), (1, box / "out"), (2, box / "err")):
            flags = os.O_RDONLY if own == 0 else os.O_WRONLY | os.O_CREAT | os.O_APPEND
            opened = os.open(file, flags, 0o644)
            os.dup2(opened, own)
            os.close(opened)
        sys.stdout = open(1, "w", closefd=False, encoding="utf-8")  # noqa: SIM115 - for as long as the child lives
        sys.stderr = open(2, "w", closefd=False, encoding="utf-8", errors="backslashreplace", buffering=1)  # noqa: SIM115
        faulthandler.register(signal.SIGUSR1, 2, all_threads=False)  # of one that hangs it is told where
        os.chdir(box / "cwd")
        os.environ.clear()
        os.environ.update(environment)
        code = call() or 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - as Python itself ends
        traceback.print_exc()
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)


def read_stream(box: Path, name: str) -> str:
    """What a child wrote to a stream, of a long one the beginning and the end."""
    file = box / name
    text = file.read_bytes().decode(errors="replace") if file.exists() else ""
    return text if len(text) < 400_000 else text[:200_000] + "\n...\n" + text[-200_000:]


def session(pid: int) -> list[psutil.Process]:
    """The processes of the session that one leads, and what it started into others; none that have ended."""
    found = {p.pid: p for p in psutil.process_iter() if _leader(p.pid) == pid}
    with contextlib.suppress(psutil.Error):
        found |= {p.pid: p for p in psutil.Process(pid).children(recursive=True)}
    return [p for p in found.values() if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


def _leader(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except OSError:
        return None


def end_session(pid: int) -> None:
    """Kill a child and all that it started."""
    for process in session(pid):
        with contextlib.suppress(psutil.Error):
            process.kill()


class Child:
    """A running case, and what it has used so far."""

    def __init__(self, number: int, case: Case, box: Path, environment: dict[str, str]):
        self.number, self.case, self.box = number, case, box
        self.started = self.looked = time.monotonic()
        self.pid, self.worked = fork(case.call, box, environment), 0.0
        self.process = psutil.Process(self.pid)
        self.base = self.process.memory_info().rss

    def ended(self) -> Ended | None:
        """How it ended; None while it runs."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        seconds, cut = time.monotonic() - self.started, ""
        if not pid:
            if not (cut := self.why_cut(seconds)):
                return None
            os.kill(self.pid, signal.SIGUSR1)
            time.sleep(0.1)
            end_session(self.pid)
            _, status = os.waitpid(self.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        return Ended(code, read_stream(self.box, "out"), read_stream(self.box, "err"), seconds, cut)

    def why_cut(self, seconds: float) -> str:
        """Why it is to be ended: "memory", or "time", that is where it worked or slept for as long as its limit.

        One that waits for the processor, on a busy machine, has more.
        """
        try:
            if self.process.memory_info().rss - self.base > MEMORY_GB * 1e9:
                return "memory"
            if seconds < self.case.limit or time.monotonic() - self.looked < IDLE_S:
                return ""
            before, times = self.worked, self.process.cpu_times()
        except psutil.Error:  # it has just ended
            return ""
        self.looked, self.worked = time.monotonic(), sum(times[:4])
        asleep = self.worked - before < 0.02 and self.process.status() != psutil.STATUS_RUNNING
        return "time" if asleep or self.worked > self.case.limit or seconds > 8 * self.case.limit else ""


def patience() -> float:
    """By how much a limit of time is longer, as others want the processors too."""
    return max(1.0, os.getloadavg()[0] / len(os.sched_getaffinity(0)))


def play(campaign, name: str, seed: int, numbers: Iterator[int], at_once: int, until: float, home: Path):
    """Play the cases of a campaign until the clock says `until`; yields (what was played, its box)."""
    boxes = [home / f"{name}-{slot}" for slot in range(at_once)]
    running: dict[Path, Child] = {}
    try:
        while True:
            for box in boxes:
                if box not in running and time.monotonic() < until and (number := next(numbers, None)) is not None:
                    case = campaign.make(Random(f"{seed}:{name}:{number}"), fresh(box))
                    running[box] = Child(number, case, box, campaign.environment(box))
            if not running:
                return
            for box, child in list(running.items()):
                if ended := child.ended():
                    del running[box]
                    case, defects = child.case, child.case.judge(ended)
                    yield Played(child.number, case.row, case.label, read_count(box), defects), box
            time.sleep(POLL_S)
    finally:
        for child in running.values():
            end_session(child.pid)


def read_count(box: Path) -> int:
    """How many a case counts for: what it wrote of itself, or 1."""
    file = box / "count"
    return int(file.read_text()) if file.exists() else 1
