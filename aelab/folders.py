"""Where runs may be kept: each in a folder of its own, which no other run, and nothing else of the user's, is in."""

from pathlib import Path

from aelab import account, past
from aelab.compose import Job
from aelab.config import ConfigError

BEGUN = {"run.log", "config.yaml", "overrides.yaml"}
"""What is left of a run that was stopped before it was one; the log is there from the beginning."""
OURS = ("", "runs", "sweeps", "artifacts")
"""What in output_dir holds other things than one run."""


def single(job: Job) -> None:
    """Refuse a folder for a single run that is not new or empty, but for that of the same run, unfinished."""
    if not (job.folder.is_dir() and past.unfinished(job)):
        _apart("hydra.run.dir", job.folder, job.cfg.output_dir)
        _empty("hydra.run.dir", job.folder)


def sweep(home: Path, output_dir: str, sign: str) -> None:
    """Refuse a folder for a sweep that is not new or empty, but for that of the same sweep."""
    if not (home / account.NAME).is_file() or account.read(home).get("tags", {}).get("aelab.sweep") != sign:
        _apart("hydra.sweep.dir", home, output_dir)
        _empty("hydra.sweep.dir", home)


def apart(jobs: list[Job]) -> None:
    """Refuse jobs of a sweep that would have a folder together."""
    seen = {}
    for job in jobs:
        if seen.setdefault(job.folder, job.signature) != job.signature:
            raise ConfigError(
                f"hydra.sweep.subdir={job.folder.name}: two jobs would have this folder; leave it out, or have "
                "${hydra:job.num} in it"
            )


def free(job: Job) -> Job:
    """A job with a folder that no other run is in: its own, or the next by number."""
    folder, number = job.folder, 1
    while (job.folder / account.NAME).exists() and not past.unfinished(job):
        number += 1
        job = job._replace(folder=folder.with_name(f"{folder.name}-{number}"))
    return job


def _apart(key: str, folder: Path, output_dir: str) -> None:
    home, full = Path(output_dir).resolve(), folder.resolve()
    for part in (full, *full.parents):
        if part in (home, *home.parents):
            break  # whether output_dir can be written is told of itself
        if part.exists() and not part.is_dir():
            raise ConfigError(f"{key}={folder}: {part} is a file; give a new or empty folder")
        if part != full and (part / account.NAME).exists():
            raise ConfigError(f"{key}={folder}: is inside of the run folder {part}; give another")
    if full in (*home.parents, *(home / name for name in OURS)):
        raise ConfigError(f"{key}={folder}: is there for more than one run (output_dir={home}); give a folder below it")


def _empty(key: str, folder: Path) -> None:
    names = {p.name for p in folder.iterdir()} if folder.is_dir() else set()
    if account.NAME in names:
        known = account.read(folder)
        state = "finished" if known.get("status") == "FINISHED" else "another"
        raise ConfigError(f"{key}={folder}: holds run {known.get('run_id')} ({state}); give a new or empty folder")
    if names - BEGUN or (names and "run.log" not in names):
        raise ConfigError(f"{key}={folder}: is not empty, has {min(names - {'run.log'})}; give a new or empty folder")
