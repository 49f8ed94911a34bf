"""Jobs on a cluster that Slurm manages."""

import math
import shutil
import time
from collections.abc import Callable, Iterator
from typing import Literal

from aelab.config import Above, ConfigError, Count, Whole
from aelab.launchers.alone import alone, parcel
from aelab.work import Outcome, Work

POLL_S = 0.5
LOST = ("NODE_FAIL", "BOOT_FAIL", "PREEMPTED")
"""States of a Slurm job that are not its own doing."""
SPARE = 5
"""Minutes that Slurm gives a job beyond ours: our own limit tells why it was stopped, Slurm's is the second net."""


def slurm(
    works: Iterator[Work],
    call: Callable,
    /,
    *,
    cluster: Literal["slurm", "local"],
    at_once: Count,
    partition: str | None,
    cpus: Count,
    gpus: Whole,
    memory_gb: Above,
    minutes: Above,
) -> Iterator[tuple[Work, Outcome]]:
    """Submit jobs to Slurm, `at_once` of them queued or running, and give the outcome of each as soon as there is one.

    `cluster` "local" runs them on this machine as Slurm would: to try a sweep. `partition` None is the cluster's
    default. Each job has `cpus` processors, `gpus` GPUs, `memory_gb` GB of memory and `minutes` minutes.

    A job whose node fails, or that is preempted, is submitted again and goes on from its checkpoint: so all nodes
    must see the same files, under the same names, as the command does. Slurm's logs are in slurm/ of the job's folder.
    """
    try:
        import submitit
    except ModuleNotFoundError as error:
        raise ConfigError("launcher=slurm: needs the package submitit; pip install 'aelab[slurm]'") from error
    if cluster == "slurm" and not shutil.which("sbatch"):
        raise ConfigError("launcher=slurm: no sbatch here; type it where Slurm is, or try launcher.cluster=local")
    limits = {
        "timeout_min": math.ceil(minutes) + SPARE,
        "cpus_per_task": cpus,
        "mem_gb": memory_gb,
        "gpus_per_node": gpus,
    }
    if partition:
        limits["slurm_partition"] = partition

    def submit(work: Work):
        packed = parcel(call, work, {}, cpus, memory_gb, minutes)
        executor = submitit.AutoExecutor(folder=work.job.folder / "slurm", cluster=cluster)
        executor.update_parameters(name=f"aelab-{work.number}", **limits)
        return executor.submit(alone, packed)

    running: dict = {}
    try:
        while True:
            while len(running) < at_once and (work := next(works, None)):
                running[submit(work)] = work
            if not running:
                return
            time.sleep(POLL_S)
            for job in [job for job in running if job.done()]:
                work = running.pop(job)
                if job.state in LOST:
                    job.cancel(check=False)  # Slurm may have put it into its queue again itself
                    running[submit(work)] = work
                else:
                    yield work, _outcome(job)
    finally:
        for job in running:
            job.cancel(check=False)


def _outcome(job) -> Outcome:
    if job.exception() is None:
        return job.result()
    return Outcome(None, f"Slurm job {job.job_id} is {job.state} without a result (log: {job.paths.stderr})", 1)
