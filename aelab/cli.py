"""The command line: compose, check, and only then import the backend.

`aelab key=value ...` and `aelab -m ...` are Hydra's; the words below are our own.
"""

import contextlib
import gc
import itertools
import os
import signal
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import NoReturn

import psutil

from aelab import check, commands, compose, console
from aelab.config import AelabError, ConfigError

USER_ERRORS = (AelabError, OSError)
"""Errors whose message is for the user: ours, and the operating system's (disk full, no permission)."""


class Terminated(KeyboardInterrupt):
    """SIGTERM, as an exception, so that a run can be closed on its way out."""


def _on_sigterm(signum, frame):
    raise Terminated("terminated (SIGTERM)")


def main(argv: list[str] | None = None) -> NoReturn:
    """The entry point `aelab`; ends with 0, 1 (a run failed), 2 (a wrong command), 130 (^C) or 143 (SIGTERM)."""
    argv = sys.argv[1:] if argv is None else argv
    gc.set_threshold(50_000, 20, 100)  # imports make objects that stay: looking through them took 1.5 s of a start
    signal.signal(signal.SIGTERM, _on_sigterm)
    try:
        code = dispatch(argv)
    except Terminated as stop:
        console.complain(str(stop))
        code = 143
    except KeyboardInterrupt:
        console.complain("interrupted")
        code = 130
    except AelabError as error:
        console.complain(str(error))
        code = error.code
    except OSError as error:
        console.complain(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}")
        code = 1
    console.leave(code)


def dispatch(argv: list[str]) -> int:
    """Run one command; returns the exit code."""
    if any(a in ("--help", "-h", "help") for a in argv):
        from aelab.help import show

        show(compose.folders([]))
        return 0
    if argv and argv[0] in COMMANDS:
        return COMMANDS[argv[0]](argv[1:])
    if any(a.partition("=")[0] in HYDRAS_OWN for a in argv):
        return inspect(argv)
    return train(argv)


HYDRAS_OWN = ("--cfg", "-c", "--info", "-i", "--shell-completion", "-sc", "--hydra-help", "--version")


def inspect(argv: list[str]) -> int:
    """Hydra's own options, with the user's config folders; a config is shown only if it could be run."""
    words = [a for a in argv if a.startswith("~") or ("=" in a and not a.startswith("-"))]
    options = [a for a in argv if a not in words]
    extra = [after for option, after in itertools.pairwise(options) if option in ("--config-dir", "-cd")]
    dirs = compose.folders([*extra, *(a.partition("=")[2] for a in options if a.startswith("--config-dir="))])
    if any(a.partition("=")[0] in ("--cfg", "-c") for a in options):
        with compose.session():
            compose.compose(words, dirs)
        words = [*compose.search_path(dirs), *words]
    elif len(dirs) > 1 and not extra:
        options += ["--config-dir", str(dirs[0])]  # completion knows no other way
    return hydra([*options, *words])


def split_flags(argv: list[str]) -> tuple[list[str], list[str], bool]:
    """(overrides, config folders, whether -m was given) of a command line; refuses what it does not know."""
    words, dirs, multirun = list(argv), [], False
    overrides = []
    while words:
        word = words.pop(0)
        if word in ("-m", "--multirun"):
            multirun = True
        elif word in ("--config-dir", "-cd"):
            dirs.append(words.pop(0) if words else "")
        elif word.startswith("--config-dir="):
            dirs.append(word.partition("=")[2])
        elif word.startswith("-"):
            raise ConfigError(f"{word}: no such option; there are: -m, --cfg job, --config-dir DIR, --help")
        elif "=" not in word and not word.startswith("~"):
            raise ConfigError(f"{word}: expected key=value or one of: {', '.join(COMMANDS)}, help; see aelab --help")
        else:
            overrides.append(word)
    return overrides, dirs, multirun


def train(argv: list[str]) -> int:
    """`aelab key=value ...`: check every job of the command before the first is run."""
    overrides, extra, multirun = split_flags(argv)
    dirs = compose.folders(extra)
    with compose.session():
        jobs = compose.every(overrides, dirs, multirun)
    cfg = jobs[0].cfg
    commands.trust(cfg.allow)
    writable(Path(cfg.output_dir))
    from aelab import tracking

    client, _ = tracking.connect(cfg.tracking.uri, cfg.output_dir)  # a store that is not there shows at once
    if not multirun:
        return attempt(jobs[0])[1]
    from aelab import plan

    runs = plan.known(client, cfg.tracking.experiment)
    steps = plan.steps(jobs, runs, force=cfg.sweep.force, retry=cfg.sweep.retry)
    if cfg.sweep.plan:
        console.out.print(plan.table(jobs, steps, runs))
        return 0
    return sweep(jobs, steps)


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


def hydra(argv: list[str]) -> int:
    """Call Hydra's own entry point with our config folder, for what it shows."""
    import hydra

    sys.argv = ["aelab", *argv]
    hydra.main(version_base="1.3", config_path=str(compose.CONF), config_name="config")(lambda cfg: None)()
    return 0


def attempt(job: compose.Job, parent: str | None = None, started: float | None = None) -> tuple[dict | str, int]:
    """(metrics, 0), or of a run that failed (why, exit code): told in one line, with its traceback in run.log.

    `started` is when the user began to wait for it; None is when the process began.
    """
    log = job.folder / "run.log"
    try:
        job.folder.mkdir(parents=True, exist_ok=True)
        with console.native_noise_to(log):
            with console.out.status("starting TensorFlow"), console.leaving_at_once():
                from aelab.run import run
            with profiled(job.folder if job.cfg.profile else None):
                return run(job.cfg, job.folder, job.overrides, started or psutil.Process().create_time(), parent), 0
    except USER_ERRORS as error:
        message, code = str(error), getattr(error, "code", 1)
    except Exception as error:  # noqa: BLE001 - the last line of defence: told in one line, kept whole in run.log
        message, code = f"{type(error).__name__}: {error}", 1
    console.complain(f"{message} (details: {log})" if log.exists() else message)
    return message, code


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


def sweep(jobs: list[compose.Job], steps: list) -> int:
    """All jobs under one parent run, those that are done already from the store; says at the end what each gave."""
    with console.native_noise_to(Path(os.devnull)), console.leaving_at_once():
        if not all(step.past for step in steps):
            from aelab import run  # noqa: F401 - TensorFlow, before the parent run is opened
        from aelab import sweep as engine
    return engine.sweep(jobs, lambda parent: [one(n, job, parent, steps) for n, job in enumerate(jobs)])


def one(number: int, job: compose.Job, parent: str, steps: list) -> dict | str:
    """One job of a sweep: its metrics, or why it failed."""
    step = steps[number]
    console.out.rule(f"job {number + 1}/{len(steps)}: {' '.join(job.overrides)}")
    if step.past:
        from aelab.plan import outcome

        console.out.print(f"{step.state} before: run {step.past.run_id}, {step.past.folder}", soft_wrap=True)
        return step.why if step.state == "failed" else outcome(step.past)
    return attempt(job, parent, time.time() if number else None)[0]


def _rerun(argv: list[str]) -> int:
    own, rest, _, cfg = commands.stored(argv)
    stamp = datetime.now().strftime("%Y-%m-%d/%H-%M-%S-%f")
    name = f"{stamp}-{cfg.choices.task}-{cfg.choices.model}-{compose.signature(cfg)}"
    folder = (Path(cfg.output_dir) / "runs" / name).resolve()
    return attempt(compose.Job([f"# rerun of {own['run']}", *rest], cfg, folder))[1]


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


USED = (commands.evaluate, commands.predict, commands.score, commands.recommend, commands.similar, commands.generate)
COMMANDS = {
    **{f.__name__: f for f in USED},
    "rerun": _rerun,
    "ui": _ui,
    "doctor": _doctor,
}

if __name__ == "__main__":
    main()
