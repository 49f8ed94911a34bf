"""The sweep engine: jobs of a grid or of a search under one parent run, by whatever launcher, none of them twice."""

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from omegaconf import OmegaConf

from aelab import account, claims, compose, console, folders, grid, plan, search, source, sweep, tracking, work
from aelab.call import build, located
from aelab.compose import Job
from aelab.config import AelabError, ConfigError
from aelab.plan import Step
from aelab.space import Space
from aelab.work import Outcome, Work

NOT_RUN = Outcome(None, "not run: a job failed, and sweep.on_error=stop", 1)
Item = tuple[int, Job, Step, object]
"""A job by its number, what is to be done with it, and the trial of a search that it is, if any."""


def run_grid(jobs: list[Job], steps: list[Step], client) -> int:
    """Run what is to be run of a sweep's jobs; returns the exit code."""
    cfg = jobs[0].cfg
    if cfg.launcher._target_ == work.INLINE:  # what is imported now is not changed by an edit; other launchers compare
        open_ = [OmegaConf.to_container(job.cfg) for job, step in zip(jobs, steps, strict=True) if not step.settled]
        for target in set().union(*map(source.targets, open_)):
            located(target)
    name = f"sweep-{cfg.choices.task} ({len(jobs)} jobs)"
    with parent(cfg, grid.sign(jobs), name, jobs[0].folder.parent, client) as (log, home):
        placed = [_placed(job, step, home) for job, step in zip(jobs, steps, strict=True)]
        outcomes = perform(cfg, zip(range(len(jobs)), placed, steps, [None] * len(jobs), strict=True), len(jobs), log)
        results = [(job.overrides, outcomes.get(n, NOT_RUN)) for n, job in enumerate(jobs)]
        ran = not all(step.settled for step in steps)
        return sweep.finish(results, name, home, log, cfg, ran)


def run_search(space: Space, cfg, dirs: list[Path], client) -> int:
    """Run a search until it has as many trials as it is to have; returns the exit code."""
    with search.opened(space, cfg) as trials:
        name = f"search-{cfg.choices.task} ({cfg.search.trials} trials)"
        first, last = (
            compose.job([*space.aside, *space.job({a.key: a.ends()[end] for a in space.axes()})], dirs, True, number)
            for number, end in enumerate((0, -1))
        )
        folders.apart([first, last._replace(folder=first.folder.with_name(last.folder.name))])
        folders.sweep(first.folder.parent, cfg.output_dir, trials.name)
        with parent(cfg, trials.name, name, first.folder.parent, client) as (log, home):

            def items() -> Iterator[Item]:
                for asked in trials:
                    job = compose.job([*space.aside, *asked.overrides], dirs, True, asked.number)
                    job = job._replace(overrides=asked.overrides)
                    runs = plan.known(client, cfg.tracking.experiment, job.signature)
                    (step,) = plan.steps([job], runs, force=False, retry=cfg.sweep.retry)
                    yield asked.number, _placed(job, step, home), step, asked.trial

            done = len(trials.ended())
            if done:
                console.out.print(f"{done} of {cfg.search.trials} trials are done already")
            perform(cfg, items(), cfg.search.trials, log, trials.tell, done)
            results = [
                (t.overrides, Outcome(t.metrics and {**t.metrics, trials.goal: t.value}, t.reason, t.state == "failed"))
                for t in trials.ended()
            ]
            return sweep.finish(results, name, home, log, cfg, True, trials.goal)


@contextlib.contextmanager
def parent(cfg, sign: str, name: str, home: Path, client):
    """The parent run of a sweep, and its folder: those of the same sweep before, where it is issued again.

    While another command goes on with those, this one has its own.
    """
    where = cfg.output_dir, cfg.tracking.uri or "", cfg.tracking.experiment, f"sweep {sign}"
    with claims.hold(*where, wait=False) as alone:
        earlier = plan.parent(client, cfg.tracking.experiment, sign) if alone and not cfg.sweep.force else None
        if earlier and earlier.status == "RUNNING":
            earlier = None
        if not earlier and (home / account.NAME).exists():
            raise ConfigError(f"hydra.sweep.dir={home}: holds a sweep of before; give a new or empty folder")
        home = earlier.folder if earlier else home
        console.out.print(name)
        with tracking.start(cfg, home, name, tags={"aelab.sweep": sign}, earlier=earlier and earlier.run_id) as log:
            yield log, home


def _placed(job: Job, step: Step, home: Path) -> Job:
    if step.state == "resume":
        return job._replace(folder=step.past.folder)
    return folders.free(job._replace(folder=home / job.folder.name))


def perform(
    cfg, items: Iterable[Item], total: int, log, tell: Callable | None = None, done: int = 0
) -> dict[int, Outcome]:
    """The outcomes of jobs by their number; jobs are taken from `items` as there is room to run them.

    `tell` is called with each number, the metrics or None, why there are none, and the folder. `done` of the `total`
    were done before and are not among the items.
    """
    outcomes, running, began, ran = {}, {}, time.time(), 0

    def settled(number: int, outcome: Outcome, folder: Path) -> None:
        outcomes[number] = outcome
        if tell:
            tell(number, outcome.metrics, outcome.reason, folder)

    def works() -> Iterator[Work]:
        for number, job, trial in _to_run(items, total, settled):
            running[number] = Work(number, job, log.run_id, trial)
            yield running[number]

    launched, why = build(cfg.launcher, works(), work.elsewhere), "stopped: another job failed"
    try:
        with contextlib.closing(launched):
            for one, outcome in launched:
                folder = outcome.folder or one.job.folder
                if outcome.reason.startswith(account.FULL):  # nor is there any for the others
                    raise AelabError(outcome.reason)
                settled(one.number, outcome, folder)
                del running[one.number]
                ran += 1
                if outcome.code:
                    console.complain(f"job {one.number + 1} failed: {outcome.reason} (details: {folder}/run.log)")
                    tracking.close(log.client, folder, "FAILED", outcome.reason)
                    if cfg.sweep.on_error == "stop":
                        break
                ended = done + len(outcomes)
                left = (time.time() - began) / ran * (total - ended)
                told = outcome.reason if not outcome.metrics and not outcome.code else "ended"
                told += f" in {folder}" if folder != one.job.folder else ""
                said = f"job {one.number + 1} {told}; {ended} of {total} done, about {left:.0f} s left"
                console.out.print(said, soft_wrap=True)
    except KeyboardInterrupt as stop:
        why = str(stop) or "interrupted (^C)"
        raise
    finally:
        for one in running.values():  # it was killed where it did not end in time
            tracking.close(log.client, one.job.folder, "KILLED", why)
    return outcomes


def _to_run(items: Iterable[Item], total: int, settled: Callable) -> Iterator[tuple[int, Job, object]]:
    """The jobs that are to be run; what another command is running is left for the end, to be taken over or awaited."""
    busy = []
    for number, job, step, trial in items:
        console.out.rule(f"job {number + 1}/{total}: {grid.told(job.overrides)}")
        if step.settled:
            console.out.print(f"{step.state} before: run {step.past.run_id}, {step.past.folder}", soft_wrap=True)
            settled(number, work.outcome_of(step), step.past.folder)
        elif step.state != "again" and not claims.free(*work.claim(job)):
            console.out.print(f"job {number + 1} is being run by another command: left for the end")
            busy.append((number, job, trial))
        else:
            yield number, job, trial
    for number, job, trial in busy:
        if not claims.free(*work.claim(job)):
            console.out.print(f"waiting for job {number + 1}, which another command is running")
        yield number, job, trial
