"""One job in a process of its own, on whatever machine a launcher put it: only that process can be lost with it."""

import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

from aelab import console
from aelab.launchers.local import ended
from aelab.work import Outcome, Work

POLL_S = 0.2
GRACE_S = 20
"""What a job has to close its run in, once it is told to stop."""
OF_THE_NODE = ("CUDA_", "HIP_", "ROCR_", "RAY_", "SLURM", "SUBMITIT_", "TMPDIR", "HOSTNAME", "LD_LIBRARY_PATH")
"""Variables, by how they begin, that each node or job has of its own: the command's are not for them."""
START = (
    "import pickle, sys; sys.path += pickle.load(sys.stdin.buffer); from aelab.launchers.alone import child; child()"
)


class Parcel(NamedTuple):
    """All that a node must know to run a job as it would be run here; `work` is pickled with what runs it."""

    work: bytes
    log: Path
    cwd: str
    path: list[str]
    environ: Mapping[str, str]
    memory_gb: float | None
    minutes: float | None


def parcel(
    call: Callable, work: Work, environ: Mapping[str, str], cpus: int, memory_gb: float | None, minutes: float | None
) -> Parcel:
    """Pack a job; its folder is made here, so that a node which does not see it is known to share no files."""
    work.job.folder.mkdir(parents=True, exist_ok=True)
    packed = pickle.dumps((partial(call, threads=cpus, memory_gb=memory_gb), work))
    return Parcel(packed, work.job.folder / "run.log", os.getcwd(), sys.path, environ, memory_gb, minutes)


def alone(job: Parcel) -> Outcome:
    """Run a parcel in a fresh process, in the folder, with the packages and the variables of the command.

    What the process writes goes to the job's run.log. It is stopped after `minutes` minutes; None is no limit.
    """
    if not job.log.parent.is_dir():
        return _failed(f"{job.log.parent} is not there on {socket.gethostname()}: all nodes must see the same files")
    end = time.monotonic() + (float("inf") if job.minutes is None else 60 * job.minutes)
    command = [sys.executable, "-P", "-c", START]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with (
        job.log.open("ab") as log,
        subprocess.Popen(command, **pipes, stderr=log, cwd=job.cwd, env=_environment(job)) as process,
    ):
        try:
            given = pickle.dumps(job.path) + job.work
            while True:
                try:
                    answer, _ = process.communicate(given, timeout=POLL_S)
                    break
                except subprocess.TimeoutExpired:
                    given = None  # it is sent already
                    if time.monotonic() > end:
                        return _failed(f"it took longer than {job.minutes:g} minutes (launcher.minutes)")
        finally:
            _stop(process)
    return pickle.loads(answer) if answer else _failed(ended(process.returncode, job.memory_gb))


def _failed(reason: str) -> Outcome:
    return Outcome(None, reason, 1)


def _environment(job: Parcel) -> dict[str, str]:
    """This node's variables, and those of the command, but for what each node has of its own."""
    return {**os.environ, **{k: v for k, v in job.environ.items() if not k.startswith(OF_THE_NODE)}}


def _stop(process: subprocess.Popen) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            process.kill()


def child() -> None:
    """What the fresh process does: unpack the job, run it, and send its outcome back."""
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what the job prints is no answer
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # Slurm's warning, which submitit's process sees to
    threading.Thread(target=_follow, args=(os.getppid(),), daemon=True).start()
    call, work = pickle.load(sys.stdin.buffer)
    pickle.dump(call(work), answer)
    answer.close()
    console.leave(0)


def _follow(parent: int) -> None:
    """End with the process that started this one: a node that died is not to go on writing."""
    while os.getppid() == parent:
        time.sleep(POLL_S)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_S)
    os._exit(1)
