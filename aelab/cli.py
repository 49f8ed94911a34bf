"""The command line: compose, check, and only then import the backend.

`aelab key=value ...` and `aelab -m ...` are Hydra's; the words below are our own.
"""

import gc
import os
import signal
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import NoReturn

import psutil

from aelab import account, check, commands, compose, console, folders, grid, incident, past, show, space, work
from aelab.config import AelabError, ConfigError


def main(argv: list[str] | None = None) -> NoReturn:
    """The entry point `aelab`.

    Ends with 0, 1 (a run failed), 2 (a wrong command), 70 (an error of ours), 130 (^C), 141 (nobody reads what is
    printed, as with `| head`) or 143 (SIGTERM).
    """
    argv = sys.argv[1:] if argv is None else argv
    console.open_streams()
    gc.set_threshold(50_000, 20, 100)  # imports make objects that stay: looking through them took 1.5 s of a start
    signal.signal(signal.SIGTERM, work.on_sigterm)
    sys.unraisablehook = work.send_again
    try:
        code = dispatch(argv)
    except work.Terminated as stop:
        console.complain(str(stop))
        code = 143
    except KeyboardInterrupt:
        console.complain("interrupted")
        code = 130
    except AelabError as error:
        console.complain(str(error))
        code = error.code
    except BrokenPipeError:
        code = 141
    except OSError as error:
        console.complain(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}")
        code = 1
    except Exception as error:  # noqa: BLE001 - the last line of defence: told in one line, kept whole in a file
        console.complain(incident.report(error, argv))
        code = 70
    console.leave(code)


def dispatch(argv: list[str]) -> int:
    """Run one command; returns the exit code."""
    if any(a in ("--help", "-h", "help") for a in argv):
        from aelab import help

        help.show(compose.folders([]), next((a.partition("=")[2] for a in argv if a.startswith("task=")), None))
        return 0
    if argv and argv[0] in COMMANDS:
        return COMMANDS[argv[0]](argv[1:])
    if show.wanted(argv):
        return show.show(argv)
    return train(argv)


def split_flags(argv: list[str]) -> tuple[list[str], list[str], bool]:
    """(overrides, config folders, whether -m was given) of a command line; refuses what it does not know."""
    words, dirs, multirun = list(argv), [], False
    overrides = []
    while words:
        word = words.pop(0)
        shown = check.short(word)
        if word in ("-m", "--multirun"):
            multirun = True
        elif word in ("--config-dir", "-cd"):
            dirs.append(words.pop(0) if words else "")
        elif word.startswith("--config-dir="):
            dirs.append(word.partition("=")[2])
        elif word.startswith("-"):
            raise ConfigError(f"{shown}: no such option; there are: -m, --cfg job, --config-dir DIR, --help")
        elif "=" not in word and not word.startswith("~"):
            raise ConfigError(f"{shown}: expected key=value or one of: {', '.join(COMMANDS)}, help; see aelab --help")
        else:
            overrides.append(word)
    return overrides, dirs, multirun


def train(argv: list[str]) -> int:
    """`aelab key=value ...`: check every job of the command before the first is run."""
    overrides, extra, multirun = split_flags(argv)
    dirs = compose.folders(extra)
    with compose.session():
        first = grid.first(overrides, dirs) if multirun else None
        if first and first.get("search"):
            found, cfg = space.checked(space.space(overrides, first.sweep.over or {}, dirs), dirs)
            return started(cfg, multirun, lambda client: searched(found, cfg, dirs, client))
        jobs, refused = grid.every(overrides, dirs, multirun, first)
    cfg = jobs[0].cfg
    if not multirun and cfg.get("search"):
        raise ConfigError("search: is for sweeps; add -m, and what is to be searched over")
    if multirun:
        folders.apart(jobs)
        folders.sweep(jobs[0].folder.parent, cfg.output_dir, grid.sign(jobs))
    else:
        folders.single(jobs[0])
    return started(cfg, multirun, lambda client: swept(jobs, refused, client) if multirun else single(jobs[0]))


def started(cfg, multirun: bool, command: Callable) -> int:
    """Call a command with a client of the store, once it is known that its results can be kept.

    The client is None where a plan is asked for and there is no store yet.
    """
    compose.trust(cfg.allow)
    reads = multirun and cfg.sweep.plan  # nothing is run, so nothing is written
    if not reads:
        writable(Path(cfg.output_dir))
    from aelab import tracking

    if reads:
        return command(tracking.look(cfg.tracking.uri, cfg.output_dir))
    client, _ = tracking.connect(cfg.tracking.uri, cfg.output_dir)  # a store that is not there shows at once
    return command(client)


def single(job: compose.Job) -> int:
    """One run, for which the user has waited since the process began."""
    outcome, log = work.perform(work.Work(0, job), psutil.Process().create_time()), job.folder / "run.log"
    if outcome.metrics is None:
        console.complain(f"{outcome.reason} (details: {log})" if log.exists() else outcome.reason)
    return outcome.code


def writable(folder: Path) -> None:
    """Find out before training whether the results can be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".write-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise AelabError(
            f"output_dir={folder}: cannot be written ({error.strerror}); give another with output_dir=FOLDER"
        ) from error


def swept(jobs: list[compose.Job], refused: list, client) -> int:
    """Look up what was run before, then run the rest, or with `sweep.plan` only show what would be run."""
    from aelab import plan, tracking

    cfg = jobs[0].cfg
    if not cfg.sweep.plan:
        tracking.close_dead(client, cfg.tracking.experiment)
    runs = plan.known(client, cfg.tracking.experiment) if client else {}
    steps = plan.steps(jobs, runs, force=cfg.sweep.force, retry=cfg.sweep.retry)
    if cfg.sweep.plan:
        console.out.print(plan.table(jobs, refused, steps, runs))
        return 0
    for why, names in grid.misfits(refused).items():
        console.complain(f"not run: {', '.join(names)}: {why}")
    return engine(cfg, all(step.settled for step in steps)).run_grid(jobs, steps, client)


def searched(found: space.Space, cfg, dirs: list[Path], client) -> int:
    """Run a search, or with `sweep.plan` only show what is searched over."""
    from aelab import tracking

    if cfg.sweep.plan:
        console.out.print(f"{cfg.search.trials} trials of search={cfg.search._target_.rpartition('.')[2]} over")
        for axis in found.axes():
            console.out.print(f"  {axis}")
        return 0
    tracking.close_dead(client, cfg.tracking.experiment)
    return engine(cfg, False).run_search(found, cfg, dirs, client)


def engine(cfg, settled: bool):
    """The sweep engine; with TensorFlow where this process is to train, before the parent run is opened."""
    with console.native_noise_to(Path(os.devnull)), console.leaving_at_once():
        if cfg.launcher._target_ == work.INLINE and not settled:
            from aelab import run  # noqa: F401
        from aelab import engine
    return engine


def _rerun(argv: list[str]) -> int:
    own, rest, _, cfg = commands.stored(argv)
    stamp = datetime.now().strftime("%Y-%m-%d/%H-%M-%S-%f")
    name = f"{stamp}-{cfg.choices.task}-{cfg.choices.model}-{compose.signature(cfg)}"
    folder = (Path(cfg.output_dir) / "runs" / name).resolve()
    return single(compose.Job([f"# rerun of {own['run']}", *rest], cfg, folder, compose.signature(cfg)))


def _resume(argv: list[str]) -> int:
    own, rest, folder, cfg = commands.stored(argv)
    if rest:
        raise ConfigError(f"{rest[0]}: a run is gone on with as it is; to change values, type aelab rerun")
    words = account.words(folder)
    job = compose.Job(words, cfg, folder.absolute(), compose.signature(cfg))
    if not past.unfinished(job):
        done = (folder / account.NAME).exists() and account.read(folder)["status"] == "FINISHED"
        why = "it is finished" if done else "the code, or a file that its config names, has changed since; aelab rerun"
        raise AelabError(f"run={own['run']}: cannot be gone on with: {why}")
    return single(job)


def _ui(argv: list[str]) -> int:
    own, rest = commands.options(argv, {"port": "[5000]", "host": "[127.0.0.1]", "output_dir": "[outputs]"})
    if rest:
        raise ConfigError(check.unknown(rest[0], rest[0].partition("=")[0], ["port", "host", "output_dir"]))
    from aelab.services import ui

    return ui(own.get("host", "127.0.0.1"), own.get("port", "5000"), own.get("output_dir", "outputs"))


def _doctor(argv: list[str]) -> int:
    overrides, extra, _ = split_flags(argv)
    with compose.session():
        cfg = compose.compose(overrides, compose.folders(extra))
    with console.native_noise_to(Path(os.devnull)):
        from aelab.services import doctor

        return doctor(cfg)


USED = (
    commands.compare,
    commands.evaluate,
    commands.predict,
    commands.score,
    commands.recommend,
    commands.similar,
    commands.generate,
)
COMMANDS = {
    **{f.__name__: f for f in USED},
    "rerun": _rerun,
    "resume": _resume,
    "sync": commands.sync,
    "ui": _ui,
    "doctor": _doctor,
}
