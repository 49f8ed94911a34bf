"""The real command as a process of its own, and what it left in MLflow: helpers of the end-to-end tests."""

import functools
import signal
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mlflow
import warm

BIN = Path(sys.executable).parent
AELAB = str(BIN / "aelab")
DIGITS = ("dataset=digits", "debug=fast", "fit.epochs=1", "model=conv_ae", "model.widths=[8,16]", "model.bottleneck=16")
"""A whole run in as little time as a run can take."""
GRID = (
    "dataset=digits",
    "debug=fast",
    "fit.epochs=1",
    "model=conv_ae",
    "corruption.level=0.2,0.4",
    "model.bottleneck=16,64",
)
BASELINE = ("dataset=digits", "debug=fast", "dataset.limit=40", "model=median", "model.size=3")
LONGEST_S = 240
ATTENTIVE = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
"""A shell that starts the tests in the background has them, and all they start, ignore ^C."""


def environment(cwd: Path, **more: str) -> dict[str, str]:
    """The environment of a new user: none of our settings, an empty cache."""
    kept = warm.plain()
    kept.pop("COLUMNS", None)
    return {**kept, "AELAB_CACHE_DIR": str(cwd / "cache"), **more}


def start(
    *words: str, cwd: Path, program: tuple[str, ...] = (AELAB,), group: bool = False, **env: str
) -> subprocess.Popen:
    """A command that goes on while the test does; with `group` it and its processes get signals of their own."""
    return subprocess.Popen(
        [*program, *words],
        cwd=cwd,
        env=environment(cwd, **env),
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=ATTENTIVE,
        start_new_session=group,
    )


def end(process: subprocess.Popen, timeout: float = LONGEST_S) -> subprocess.CompletedProcess:
    """Wait for a started command; kills it, and fails, after `timeout` seconds."""
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"no end after {timeout} s: {process.args}\n{out}\n{err}") from None
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def run(*words: str, cwd: Path, **env: str) -> subprocess.CompletedProcess:
    """The command to its end, in the folder `cwd`; from a process that has imported already, see `warm`."""
    # Launchers start processes by the name of their own program.
    if "program" in env or any(word.startswith("launcher=") for word in words):
        return end(start(*words, cwd=cwd, **env))
    return warm.run(words, cwd, environment(cwd, **env), LONGEST_S)


def done(*words: str, cwd: Path, **env: str) -> subprocess.CompletedProcess:
    """The command to its end, which must be a good one."""
    result = run(*words, cwd=cwd, **env)
    assert result.returncode == 0, f"{words}: exit code {result.returncode}\n{result.stdout}\n{result.stderr}"
    return result


def together(calls: dict[object, Callable]) -> dict:
    """The outcome of several commands, run two at a time: much of a short run is one thread waiting for files."""
    with ThreadPoolExecutor(2) as pool:
        started = {name: pool.submit(call) for name, call in calls.items()}
        return {name: future.result() for name, future in started.items()}


def complaint(result: subprocess.CompletedProcess) -> str:
    """The one line on standard error, checked to be one and ours."""
    lines = result.stderr.splitlines()
    assert len(lines) == 1, f"expected one line, got {len(lines)}:\n{result.stderr}"
    assert lines[0].startswith("aelab: ")
    assert "Traceback" not in result.stdout
    return lines[0].removeprefix("aelab: ")


def folder_of(result: subprocess.CompletedProcess) -> Path:
    """The run folder as the last lines on the terminal name it."""
    return Path(next(line.split(maxsplit=2)[2] for line in result.stdout.splitlines() if line.startswith("run folder")))


def client(cwd: Path) -> mlflow.MlflowClient:
    """The store of the runs made in a folder."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SQLAlchemy's of MLflow's own code
        return mlflow.MlflowClient(f"sqlite:///{cwd / 'outputs' / 'mlflow.db'}")


def runs(store: mlflow.MlflowClient) -> list:
    """All runs of a store, the first first."""
    ids = [e.experiment_id for e in store.search_experiments()]
    return store.search_runs(ids, order_by=["attributes.start_time ASC"])


def wait_for(condition: Callable, what: str, timeout: float = 120):
    """What `condition` gives, as soon as it gives something."""
    until = time.monotonic() + timeout
    while time.monotonic() < until:
        if found := condition():
            return found
        time.sleep(0.1)
    raise AssertionError(f"waited {timeout} s for {what}")


def rows(folder: Path, count: int) -> Callable:
    """A condition: some run below `folder` has written so many epochs to its history.csv; gives the file."""

    def condition():
        for file in folder.glob("outputs/*/*/**/history.csv"):
            if len(file.read_text().splitlines()) > count:
                return file
        return None

    return condition


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answers(port: int) -> bool:
    """Whether somebody listens on the port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


_shared: dict[str, tuple[Path, subprocess.CompletedProcess]] = {}


def shared(factory, name: str, *words: str) -> tuple[Path, subprocess.CompletedProcess]:
    """(folder, result) of a good command that several test files look at; run when the first of them asks."""
    if name not in _shared:
        cwd = factory.mktemp(name)
        result = end(start(*words, cwd=cwd))  # the installed command itself
        assert result.returncode == 0, result.stderr
        _shared[name] = cwd, result
    return _shared[name]


def finished(factory) -> tuple[Path, subprocess.CompletedProcess]:
    """One digits run."""
    return shared(factory, "finished", *DIGITS, "fit.epochs=2", "fit.deterministic=true")


def swept(factory) -> tuple[Path, subprocess.CompletedProcess]:
    """One sweep of four runs."""
    return shared(factory, "swept", "-m", *GRID)


def package(cwd: Path, code: str, **knobs: str) -> tuple[str, ...]:
    """A user's package in `cwd`, whose corruption `mine` is that of `code`; gives the words that choose it."""
    for folder in (cwd / "my", cwd / "conf" / "corruption"):
        folder.mkdir(parents=True)
    (cwd / "my" / "__init__.py").touch()
    (cwd / "my" / "corruptions.py").write_text(code)
    lines = ["mine:", "  _target_: my.corruptions.mine", *(f"  {name}: {value}" for name, value in knobs.items())]
    (cwd / "conf" / "corruption" / "mine.yaml").write_text("\n".join(lines) + "\n")
    return "allow=[my]", "corruption=mine"
