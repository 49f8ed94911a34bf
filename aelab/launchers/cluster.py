"""Jobs on the nodes of a Ray cluster."""

import os
import signal
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait

from aelab.config import Above, ConfigError, Count, Level
from aelab.launchers.alone import GRACE_S, alone, parcel
from aelab.work import Outcome, Work

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # under `uv run` Ray would send the whole working folder to each node
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # jobs that asked for no GPU see none; named, so that Ray does not warn
    "RAY_task_oom_retries": "0",  # a job that ran out of memory would do so again
}
ANSWER_S = 10
"""Within this time the head of a cluster answers."""


def ray(
    works: Iterator[Work],
    call: Callable,
    /,
    *,
    address: str | None,
    at_once: Count | None,
    cpus: Count,
    gpus: Level,
    memory_gb: Above | None,
    minutes: Above | None,
) -> Iterator[tuple[Work, Outcome]]:
    """Run jobs on the nodes of a Ray cluster, and give the outcome of each as soon as there is one.

    `address` is that of a running cluster, "auto" the one that this machine belongs to, None one that lasts as long as
    the sweep and has this machine alone. At most `at_once` jobs run, None is as many as the nodes have room for. Each
    has `cpus` processors, `gpus` GPUs, `memory_gb` GB of memory and `minutes` minutes; None is no limit.

    A job whose node dies is run again on another, and goes on from its checkpoint: so all nodes must see the
    same files, under the same names, as the command does. One that ends its own process fails, and is not run again.
    """
    ray = _connected(address)
    needs = {"CPU": cpus, "GPU": gpus, "memory": (memory_gb or 0) * 1e9}
    # Ray's own worker outlives any job in it: where it is lost the node is, and so Ray may always try again.
    run = ray.remote(alone).options(num_cpus=cpus, num_gpus=gpus, memory=needs["memory"] or None, max_retries=-1)
    running: dict = {}
    try:
        if not _room(ray.nodes(), needs):
            wanted = ", ".join(f"{k} {v:g}" for k, v in needs.items() if v)
            raise ConfigError(f"launcher=ray: no node has room for a job ({wanted}); ask for less")
        while True:
            room = max(_room(ray.nodes(), needs), 1)
            while len(running) < min(room, at_once or room) and (work := next(works, None)):
                task = run.remote(parcel(call, work, dict(os.environ), cpus, memory_gb, minutes))
                running[task.future()] = work, task
            if not running:
                return
            done = next(iter(wait(running, return_when=FIRST_COMPLETED).done))  # ray.wait makes ^C of every signal
            yield running.pop(done)[0], _outcome(ray, done)
    finally:
        tasks = [task for _, task in running.values()]
        for task in tasks:
            ray.cancel(task)
        if tasks:
            ray.wait(tasks, num_returns=len(tasks), timeout=GRACE_S)
        ray.shutdown()


def _connected(address: str | None):
    """Ray, connected to a cluster; ConfigError where there is none."""
    os.environ.update(QUIET)
    try:
        import ray
    except ModuleNotFoundError as error:
        raise ConfigError("launcher=ray: needs the package ray; pip install 'aelab[ray]'") from error
    held = signal.getsignal(signal.SIGTERM)
    try:
        if address and ":" in address:  # Ray itself would try for minutes
            host, _, port = address.rpartition(":")
            socket.create_connection((host, int(port)), timeout=ANSWER_S).close()
        own = {"include_dashboard": False} if address is None else {}
        ray.init(address=address or "local", log_to_driver=False, logging_level="ERROR", **own)
    except (OSError, RuntimeError, ValueError) as error:
        line = str(error).strip().splitlines()[0]
        raise ConfigError(f"launcher.address={address}: no Ray cluster found there ({line})") from error
    signal.signal(signal.SIGTERM, held)  # Ray's own would end the process without closing the parent run
    return ray


def _room(nodes: list[dict], needs: dict[str, float]) -> int:
    """How many jobs the living nodes take at once."""
    living = (node["Resources"] for node in nodes if node["Alive"])
    return sum(min(int(have.get(k, 0) // v) for k, v in needs.items() if v) for have in living)


def _outcome(ray, done: Future) -> Outcome:
    error = done.exception()
    if error is None:
        return done.result()
    lines = str(error).strip().splitlines()
    if isinstance(error, ray.exceptions.RayTaskError):  # a node without the package, say: the last line tells
        return Outcome(None, f"Ray could not run it: {lines[-1]}", 1)
    return Outcome(None, f"Ray ended it: {lines[0]}", 1)  # out of memory, among others
