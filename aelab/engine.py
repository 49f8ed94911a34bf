"""The sweep engine: jobs of a grid or of a search under one parent run, by whatever launcher, none of them twice."""

import contextlib
import hashlib
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from omegaconf import OmegaConf

from aelab import compose, console, grid, plan, search, source, sweep, tracking, work
from aelab.call import build, located
from aelab.compose import Job
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
    sign = hashlib.sha256("".join(sorted(job.signature for job in jobs)).encode()).hexdigest()[:8]
    name = f"sweep-{cfg.choices.task} ({len(jobs)} jobs)"
    with parent(cfg, sign, name, jobs[0].folder.parent, client) as (log, home):
        placed = [_placed(job, step, home) for job, step in zip(jobs, steps, strict=True)]
        outcomes = perform(cfg, zip(range(len(jobs)), placed, steps, [None] * len(jobs), strict=True), len(jobs), log)
        results = [(job.overrides, outcomes.get(n, NOT_RUN)) for n, job in enumerate(jobs)]
        ran = not all(step.settled for step in steps)
        return sweep.finish(results, name, home, log, cfg, ran)


def run_search(space: Space, cfg, dirs: list[Path], client) -> int:
    """Run a search until it has as many trials as it is to have; returns the exit code."""
    with search.opened(space, cfg) as trials:
        name = f"search-{cfg.choices.task} ({cfg.search.trials} trials)"
        first = compose.job([*space.aside, *space.job({a.key: a.ends()[0] for a in space.axes()})], dirs, True)
        with parent(cfg, trials.name, name, first.folder.parent, client) as (log, home):

            def items() -> Iterator[Item]:
                for asked in trials:
                    job = compose.job([*space.aside, *asked.overrides], dirs, True, asked.number)
                    job = job._replace(overrides=asked.overrides)
                    runs = plan.known(client, cfg.tracking.experiment, job.signature)
                    (step,) = plan.steps([job], runs, force=False, retry=cfg.sweep.retry)
                    if step.state == "running":  # the same values, by another trial
                        step = Step("again", step.why, None)
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
    """The parent run of a sweep, and its folder: those of the same sweep before, where it is issued again."""
    earlier = None if cfg.sweep.force else plan.parent(client, cfg.tracking.experiment, sign)
    home = earlier.folder if earlier else home
    console.out.print(name)
    with tracking.start(cfg, home, name, tags={"aelab.sweep": sign}, earlier=earlier and earlier.run_id) as log:
        yield log, home


def _placed(job: Job, step: Step, home: Path) -> Job:
    return job._replace(folder=step.past.folder if step.state == "resume" else home / job.folder.name)


def perform(
    cfg, items: Iterable[Item], total: int, log, tell: Callable | None = None, done: int = 0
) -> dict[int, Outcome]:
    """The outcomes of jobs by their number; jobs are taken from `items` as there is room to run them.

    `tell` is called with each number, the metrics or None, why there are none, and the folder. `done` of the `total`
    were done before and are not among the items.
    """
    outcomes, began, ran = {}, time.time(), 0

    def settled(number: int, outcome: Outcome, folder: Path) -> None:
        outcomes[number] = outcome
        if tell:
            tell(number, outcome.metrics, outcome.reason, folder)

    def works() -> Iterator[Work]:
        for number, job, step, trial in items:
            console.out.rule(f"job {number + 1}/{total}: {grid.told(job.overrides)}")
            if step.settled:
                console.out.print(f"{step.state} before: run {step.past.run_id}, {step.past.folder}", soft_wrap=True)
                known = plan.outcome(step.past) if step.state == "done" else None
                settled(number, Outcome(known, step.why, int(known is None)), step.past.folder)
            else:
                yield Work(number, job, log.run_id, trial)

    launched = build(cfg.launcher, works(), work.elsewhere)
    with contextlib.closing(launched):
        for one, outcome in launched:
            settled(one.number, outcome, one.job.folder)
            ran += 1
            if outcome.code:
                console.complain(f"job {one.number + 1} failed: {outcome.reason} (details: {one.job.folder}/run.log)")
                tracking.fail(log.client, one.job.folder, outcome.reason)
                if cfg.sweep.on_error == "stop":
                    break
            ended = done + len(outcomes)
            left = (time.time() - began) / ran * (total - ended)
            told = outcome.reason if not outcome.metrics and not outcome.code else "ended"
            console.out.print(f"job {one.number + 1} {told}; {ended} of {total} done, about {left:.0f} s left")
    return outcomes
