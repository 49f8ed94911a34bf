"""Cases, each played in a child that is forked from a process which has imported already."""

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
    told: str
    call: Callable[[], int]
    judge: Callable[[Ended], list[Defect]]
    limit: float = 10


class Played(NamedTuple):
    """A case that was played: its number, how many it counts for, and its defects."""

    number: int
    row: str
    told: str
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


def said(box: Path, name: str) -> str:
    """What a child wrote to a stream, of a long one the beginning and the end."""
    file = box / name
    text = file.read_bytes().decode(errors="replace") if file.exists() else ""
    return text if len(text) < 400_000 else text[:200_000] + "\n...\n" + text[-200_000:]


def end_session(pid: int) -> None:
    """Kill a child and all that it started."""
    with_all = [p for p in psutil.process_iter() if _session(p.pid) == pid]
    for process in with_all:
        try:
            process.kill()
        except psutil.Error:
            continue


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except OSError:
        return None


class Child:
    """A running case."""

    def __init__(self, number: int, case: Case, box: Path, environment: dict[str, str]):
        self.number, self.case, self.box = number, case, box
        self.started = time.monotonic()
        self.pid = fork(case.call, box, environment)
        self.base = _resident(self.pid)

    def ended(self) -> Ended | None:
        """How it ended; None while it runs."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        seconds, cut = time.monotonic() - self.started, ""
        if not pid:
            if seconds > self.case.limit * patience():
                cut = "time"
            elif _resident(self.pid) - self.base > MEMORY_GB * 1e9:
                cut = "memory"
            else:
                return None
            self.stop()
            _, status = os.waitpid(self.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        return Ended(code, said(self.box, "out"), said(self.box, "err"), seconds, cut)

    def stop(self) -> None:
        """Kill it, and what it started."""
        end_session(self.pid)
        try:
            os.kill(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            return


def patience() -> float:
    """By how much a limit of time is longer, as others want the processors too."""
    return max(1.0, os.getloadavg()[0] / len(os.sched_getaffinity(0)))


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def play(campaign, name: str, seed: int, numbers: Iterator[int], at_once: int, until: float, home: Path):
    """Play the cases of a campaign until the clock says `until`; yields (what was played, its box).

    One that is cut for its time is played once more, alone: a busy machine is no hang.
    """
    boxes = [home / f"{name}-{slot}" for slot in range(at_once)]
    running: dict[Path, Child] = {}

    def started(number: int, box: Path) -> Child:
        case = campaign.make(Random(f"{seed}:{name}:{number}"), fresh(box))
        return Child(number, case, box, campaign.environment(box))

    try:
        while True:
            for box in boxes:
                if box not in running and time.monotonic() < until:
                    number = next(numbers, None)
                    if number is not None:
                        running[box] = started(number, box)
            if not running:
                return
            for box, child in list(running.items()):
                if (ended := child.ended()) is None:
                    continue
                if ended.cut == "time":
                    others = {b: c for b, c in running.items() if b != box}
                    for other in others.values():
                        other.case = other.case._replace(limit=other.case.limit + child.case.limit)
                    child = started(child.number, box)
                    while (ended := child.ended()) is None:
                        time.sleep(POLL_S)
                del running[box]
                defects = child.case.judge(ended)
                count = counted(box)
                yield Played(child.number, child.case.row, child.case.told, count, defects), box
            time.sleep(POLL_S)
    finally:
        for child in running.values():
            child.stop()


def counted(box: Path) -> int:
    """How many a case counts for: what it wrote of itself, or 1."""
    file = box / "count"
    return int(file.read_text()) if file.exists() else 1
