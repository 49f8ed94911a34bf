"""Kills: of the first command in a new folder while it makes its store, and of sweeps, again and again until they end.

A case is a small play in a child of its own; it writes what it found to `box/found.json`, and how many kills it had.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random

import psutil

from aelab import cli
from campaign import forks, judge
from campaign.forks import Case, Defect, Ended
from campaign.lines import plain

AELAB = str(Path(sys.executable).parent / "aelab")
CHEAP = ("dataset=digits", "debug=fast", "dataset.limit=40", "model=median", "tracking.log_model=false")
TRAINED = (
    "dataset=digits",
    "debug=fast",
    "model=conv_ae",
    "model.widths=[4]",
    "tracking.log_model=false",
    "fit.epochs=4",
    "fit.patience=null",
)
GRIDS = (
    ((*CHEAP, "model.size=3", "corruption.level=0.1,0.2", "seed=0,1"), 4),
    ((*CHEAP, "model.size=3,5,7", "corruption.level=0.2"), 3),
    ((*CHEAP, "model.size=3", "seed=0,1,2,3,4"), 5),
    ((*TRAINED, "model.bottleneck=4,8,16"), 3),
)  # fmt: skip
LONGEST = 150
"""Seconds of a command that nobody stops, on a machine that is not busy."""
STARTS = 14
"""Starts of a sweep after which it must have ended; from the sixth on nobody stops it."""
STOPPED_AFTER = 6
ENDS = {
    signal.SIGINT: (130, -signal.SIGINT),
    signal.SIGTERM: (143, -signal.SIGTERM),
    signal.SIGKILL: (-signal.SIGKILL,),
}
OUTLIVES_S = 1.0


class Campaign:
    """Plays, a third of each kind."""

    def __init__(self, home: Path):
        import warm

        for name in warm.AHEAD.split():
            __import__(name)

    def environment(self, box: Path) -> dict[str, str]:
        return {**plain(), "AELAB_CACHE_DIR": str(box / "cache"), "HOME": str(box)}

    def make(self, rng: Random, box: Path) -> Case:
        """A play: of the creation of a store, or of a sweep with one of the launchers."""
        how = rng.choices(("store", "inline", "processes"), (60, 22, 18))[0]
        play, row = {
            "store": (store, "kills while a store is made"),
            "inline": (partial(sweep, launcher="inline"), "kills of sweeps, inline"),
            "processes": (partial(sweep, launcher="processes"), "kills of sweeps, processes"),
        }[how]
        return Case(row, f"{row}, see its log", partial(perform, play, rng, box), partial(play_defects, box), 1200)


def perform(play: Callable, rng: Random, box: Path) -> int:
    """A play in its child, with what it found in files."""
    scene = Scene(box)
    play(scene, rng)
    (box / "count").write_text(str(scene.kills))
    (box / "found.json").write_text(json.dumps(scene.found))
    return 0


def play_defects(box: Path, ended: Ended) -> list[Defect]:
    """What a play found; the play itself must have ended well."""
    file = box / "found.json"
    if ended.code or not file.exists():
        return judge.command(ended) or [Defect(judge.OTHER, f"the play ended with {ended.code}")]
    return [Defect(*one) for one in json.loads(file.read_text())]


class Scene:
    """What a play works with: its folder, its commands, their kills, and what it found."""

    def __init__(self, box: Path):
        self.box, self.cwd, self.db = box, box / "cwd", box / "cwd" / "outputs" / "mlflow.db"
        self.kills, self.commands, self.found = 0, 0, []

    def log(self, text: str) -> None:
        """A line of the play's log."""
        print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)

    def defect(self, column: str, what: str) -> None:
        """Note a defect."""
        self.log(f"DEFECT {column}: {what}")
        self.found.append((column, what))

    def start(self, *words: str, real: bool = False) -> "Command":
        """Start a command in the folder: forked, or the installed program in a session of its own."""
        self.commands += 1
        place = self.box / f"command-{self.commands}"
        place.mkdir()
        (place / "cwd").symlink_to(self.cwd)
        self.log(f"aelab {' '.join(words)}")
        if not real:
            return Command(forks.fork(partial(run_words, words), place, dict(os.environ)), place)
        with (place / "out").open("w") as out, (place / "err").open("w") as err:
            process = subprocess.Popen(
                [AELAB, *words], cwd=self.cwd, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True
            )
        process.returncode = 0  # it is waited for by its number: subprocess would take its end away
        return Command(process.pid, place)

    def check_stop(self, command: "Command", sent: signal.Signals) -> None:
        """Check how a command ended that was sent a signal: soon, with its code, and no traceback."""
        ended = command.wait(10 * forks.patience())
        self.kills += 1
        self.log(f"{sent.name} -> {ended.code}, {ended.err.strip()[-200:]!r}")
        if ended.cut:
            self.defect(judge.HANG, f"still there {ended.seconds:.0f} s after {sent.name}")
        elif "Traceback (most recent call last)" in ended.err:
            self.found.extend(judge.command(ended))
        elif ended.code not in (*ENDS[sent], 0, 1):
            self.defect(
                judge.OTHER, f"{sent.name} ends a command with exit code {ended.code}: {ended.err.strip()[-200:]}"
            )

    def runs(self) -> list[dict[str, str]]:
        """The runs of the store, as far as there is one."""
        try:
            return judge.runs(self.db) if self.db.exists() else []
        except judge.sqlite3.Error:
            return []

    def finished(self) -> set[str]:
        """The ids of the jobs that are FINISHED."""
        return {run["id"] for run in judge.children(self.runs()) if run["status"] == "FINISHED"}


def run_words(words: tuple[str, ...]) -> None:
    """A command, in a child."""
    sys.argv = ["aelab", *words]
    cli.main()


class Command:
    """A started command."""

    def __init__(self, pid: int, place: Path):
        self.pid, self.place, self.started = pid, place, time.monotonic()

    def running(self) -> bool:
        """Whether it has not ended."""
        return psutil.pid_exists(self.pid) and psutil.Process(self.pid).status() != psutil.STATUS_ZOMBIE

    def wait(self, seconds: float) -> Ended:
        """Wait for its end; killed, with all its processes, after so many seconds."""
        until, cut = time.monotonic() + seconds, ""
        while not (done := os.waitpid(self.pid, os.WNOHANG))[0]:
            if time.monotonic() > until:
                cut = "time"
                forks.end_session(self.pid)
                done = os.waitpid(self.pid, 0)
                break
            time.sleep(0.02)
        code = os.waitstatus_to_exitcode(done[1])
        out, err = (forks.read_stream(self.place, name) for name in ("out", "err"))
        return Ended(code, out, err, time.monotonic() - self.started, cut)

    def others(self) -> list[psutil.Process]:
        """The processes of its session beside itself."""
        return [p for p in forks.session(self.pid) if p.pid != self.pid]

    def workers(self) -> list[psutil.Process]:
        """Those that run jobs: its processes start what forks them."""
        found = []
        for process in self.others():
            with contextlib.suppress(psutil.Error):
                found += [process] if process.ppid() != self.pid else []
        return found


def store(scene: Scene, rng: Random) -> None:
    """Kill the first command while it makes its store, perhaps twice; then the same command must do its work."""
    words = (*CHEAP, "model.size=3")
    for _ in range(rng.choice((1, 1, 2, 3))):
        command, sent = scene.start(*words), rng.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT))
        home, first = scene.cwd / "outputs", rng.random() < 0.85
        before = names(home)
        while first and command.running() and names(home) == before:
            time.sleep(0.001)
        time.sleep(rng.choice((rng.uniform(0, 0.02), rng.uniform(0, 0.3), rng.uniform(0, 1.5))) * forks.patience())
        os.kill(command.pid, sent)
        scene.check_stop(command, sent)
    ended = scene.start(*words).wait(LONGEST * forks.patience())
    scene.found.extend(judge.command(ended))
    if ended.code:
        again = scene.start(*words).wait(LONGEST * forks.patience())
        column, times = (judge.BRICKED, "for ever") if again.code else (judge.OTHER, "once")
        scene.defect(column, f"after a kill the command fails, {times}: {ended.err.strip()[:300]}")
        return
    found = scene.runs()
    done = [run for run in found if run["status"] == "FINISHED"]
    if not done:
        scene.defect(judge.LOST, "the command said that all is well, and the store has no FINISHED run")
    scene.found.extend(d for d in judge.sweep(found, 1) if d.column in (judge.LOST, judge.OTHER))


def names(home: Path) -> set[str]:
    """What stands in a folder that may not be there yet."""
    return set(os.listdir(home)) if home.is_dir() else set()


def sweep(scene: Scene, rng: Random, launcher: str) -> None:
    """Start a sweep again and again, and stop it somehow, until it ends by itself: each job must then be done once."""
    words, jobs = rng.choice(GRIDS)
    words, real = ("-m", *words, f"launcher={launcher}"), launcher == "processes"
    done, bricked = set(), 0
    rival = scene.start(*words, real=real) if rng.random() < 0.3 else None  # the same sweep, which nobody stops
    for number in range(STARTS):
        command = scene.start(*words, real=real)
        if number < STOPPED_AFTER and disturb(scene, command, rng, real):
            now = scene.finished()
            if gone := done - now:
                scene.defect(judge.LOST, f"{len(gone)} runs that were FINISHED are not any more")
            done |= now
            continue
        ended = command.wait(LONGEST * forks.patience())
        if ended.code == 0:
            break
        scene.log(f"exit code {ended.code}: {ended.err.strip()[-400:]}")
        bricked = bricked + 1 if "store" in ended.err and "cannot be used" in ended.err else 0
        if bricked == 2:
            scene.defect(judge.BRICKED, ended.err.strip()[:300])
            return
        if "Traceback (most recent call last)" in ended.err or ended.cut:
            scene.found.extend(judge.command(ended))
        wait_for_workers(command)
        words = (*words, "sweep.retry=failed") if "sweep.retry=failed" not in words else words
    else:
        scene.defect(judge.LOST, f"a sweep of {jobs} jobs has not ended after {STARTS} starts")
    if rival:
        ended = rival.wait(LONGEST * forks.patience())
        scene.log(f"the other command ended with {ended.code}: {ended.err.strip()[-400:]}")
        if "Traceback (most recent call last)" in ended.err or ended.cut:
            scene.found.extend(judge.command(ended))
    scene.found.extend(judge.sweep(scene.runs(), jobs, done))


def wait_for_workers(command: Command) -> None:
    """Give workers that outlived their sweep the time to end."""
    until = time.monotonic() + 60 * forks.patience()
    while command.others() and time.monotonic() < until:
        time.sleep(0.2)


def disturb(scene: Scene, command: Command, rng: Random, real: bool) -> bool:
    """Stop a sweep at some moment, or kill one of its workers; False where it ended before that."""
    sent = rng.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT))
    whom = rng.choice(("one", "group", "worker")) if real else "one"
    wait = rng.choice((rng.uniform(0.3, 3), rng.uniform(1, 8), rng.uniform(0, 14 if real else 5))) * forks.patience()
    until = time.monotonic() + wait
    while time.monotonic() < until and command.running():
        time.sleep(0.02)
    if not command.running():
        return False
    if whom == "worker" and (workers := command.workers()):
        one = rng.choice(workers)
        scene.kills += 1
        scene.log(f"{sent.name} to worker {one.pid}")
        with contextlib.suppress(psutil.Error):
            one.send_signal(sent)
        return False
    scene.log(f"{sent.name} to {whom} after {wait:.1f} s")
    (os.killpg if whom == "group" else os.kill)(command.pid, sent)
    scene.check_stop(command, sent)
    if sent == signal.SIGKILL:
        if rng.random() < 0.5:
            forks.end_session(command.pid)
        return True
    time.sleep(OUTLIVES_S * forks.patience())
    if left := command.others():
        scene.defect(judge.OTHER, f"{len(left)} workers outlive a sweep that was stopped by more than {OUTLIVES_S:g} s")
        wait_for_workers(command)
    return True
