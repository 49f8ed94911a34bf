"""The command as a process of its own that need not import first: forked from one that has TensorFlow at hand.

Two thirds of a short run are imports. A server imports once and forks for each command: what is forked is the command
as ever, from `cli.main` on, with a working folder, an environment and signals of its own.
"""

import atexit
import functools
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

SETTINGS = ("AELAB_", "MLFLOW_", "TF_", "KERAS_", "HYDRA_")
AHEAD = (
    "aelab.cli aelab.run aelab.engine aelab.stored aelab.lookup aelab.compare aelab.data.digits alembic.command "
    "alembic.autogenerate git matplotlib.backends.backend_agg mlflow.tensorflow mlflow.store.tracking.sqlalchemy_store "
    "pyarrow.parquet rich.status skops.io sqlalchemy.ext.compiler sqlalchemy.dialects.sqlite"
)


def serve(where: str) -> None:
    """Answer on the Unix socket `where`, each request in a process of its own, until the tests' process is gone."""
    before = dict(os.environ)
    for name in AHEAD.split():
        importlib.import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the keepers
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{where}.new")
        server.listen()
        os.rename(f"{where}.new", where)  # there only once it listens
        parent = os.getppid()
        server.settimeout(1)
        while os.getppid() == parent:
            try:
                asked, _ = server.accept()
            except TimeoutError:
                continue
            asked.setblocking(True)
            if os.fork() == 0:
                server.close()
                keep(asked, {k: v for k, v in os.environ.items() if before.get(k) != v})
            asked.close()


def keep(asked: socket.socket, made: dict[str, str]) -> None:
    """Fork the command, send its number, wait for its end, and send how it ended. `made`: what imports set."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    request, streams, _, _ = socket.recv_fds(asked, 1 << 20, 2)
    words, cwd, environment = json.loads(request)
    pid = os.fork()
    if pid == 0:
        asked.close()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for own, given in enumerate((os.open(os.devnull, os.O_RDONLY), *streams)):
            os.dup2(given, own)
            os.close(given)
        os.chdir(cwd)
        os.environ.clear()
        os.environ.update(made | environment)
        sys.argv = ["aelab", *words]
        from aelab.cli import main

        main()
    for stream in streams:
        os.close(stream)
    asked.sendall(f"{pid}\n".encode())
    _, status = os.waitpid(pid, 0)
    asked.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


def plain() -> dict[str, str]:
    """The environment of a user who has none of our settings."""
    return {k: v for k, v in os.environ.items() if not k.startswith(SETTINGS)}


LOCK = threading.Lock()  # commands may be run together


@functools.cache
def server() -> str:
    """Where the server of this process answers; started when it is first asked for."""
    folder = tempfile.TemporaryDirectory(prefix="aelab-warm-")
    where = str(Path(folder.name) / "socket")
    streams = {"stdin": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([sys.executable, __file__, where], env=plain(), **streams)
    atexit.register(folder.cleanup)
    atexit.register(process.terminate)
    while not Path(where).exists():
        assert process.poll() is None, "the server of commands did not start"
        time.sleep(0.05)
    return where


def run(words: tuple[str, ...], cwd: Path, environment: dict[str, str], timeout: float) -> subprocess.CompletedProcess:
    """A command to its end; killed, and a failure, after `timeout` seconds."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, socket.socket(socket.AF_UNIX) as asked:
        with LOCK:
            where = server()
        asked.connect(where)
        socket.send_fds(asked, [json.dumps([words, str(cwd), environment]).encode()], [out.fileno(), err.fileno()])
        answer = asked.makefile()
        pid = int(answer.readline())
        asked.settimeout(timeout)
        try:
            code = int(answer.readline())
        except TimeoutError:
            os.kill(pid, signal.SIGKILL)
            code = None
        said = []
        for stream in (out, err):
            stream.seek(0)
            said.append(stream.read().decode())
    assert code is not None, "\n".join([f"no end after {timeout} s: {words}", *said])
    return subprocess.CompletedProcess(list(words), code, *said)


if __name__ == "__main__":
    serve(sys.argv[1])
