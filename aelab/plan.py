"""What a sweep has to do: which of its jobs were run before, which are new, and why."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from rich.table import Table

from aelab import account, compose, console, query, tracking
from aelab.grid import misfits
from aelab.tracking import DIED, is_dead

NEAREST = 3
"""Differences from an earlier run that are told."""


class Past(NamedTuple):
    """A run of the store: what it was, how it ended, and what came out."""

    run_id: str
    status: str
    reason: str
    folder: Path
    params: Mapping[str, str]
    metrics: Mapping[str, float]


class Step(NamedTuple):
    """What is to be done with a job: "new", "again", "resume", "done", "failed" or "running"; why; its earlier run."""

    state: str
    why: str
    past: Past | None

    @property
    def settled(self) -> bool:
        """Whether there is nothing to be run."""
        return self.state in ("done", "failed")


def signed(client, name: str, signature: str | None = None) -> list:
    """The runs of an experiment that have this signature, or any where none is given, the newest first."""
    found = client.get_experiment_by_name(name)
    runs, page = [], None
    while found:
        wanted = f"tags.`aelab.signature` = '{signature}'" if signature else "tags.`aelab.signature` != ''"
        part = client.search_runs(
            [found.experiment_id], wanted, order_by=["attributes.start_time DESC"], page_token=page
        )
        runs, page = runs + list(part), part.token
        if not page:
            break
    return runs


def known(client, experiment: str, signature: str | None = None) -> dict[str, list[Past]]:
    """The runs of an experiment by signature, the newest first, or those of one signature.

    Those on other data than asked for are left out.
    """
    found: dict[str, list[Past]] = {}
    for run in signed(client, experiment, signature):
        tags = run.data.tags
        if "aelab.fallback" not in tags:
            found.setdefault(tags["aelab.signature"], []).append(_past(run))
    return found


def _past(run) -> Past:
    tags, status = run.data.tags, run.info.status
    status, reason = ("FAILED", DIED) if is_dead(run) else (status, tags.get("aelab.reason", ""))
    return Past(run.info.run_id, status, reason, Path(tags.get("aelab.folder", "")), run.data.params, run.data.metrics)


def outcome(past: Past) -> dict[str, float]:
    """The final metrics of a finished run, from its folder, or from the store where that is gone."""
    if (past.folder / "metrics.json").is_file():
        return account.read(past.folder, "metrics.json")
    return {query.plain(name): value for name, value in past.metrics.items() if "/" in name}


def today(job: compose.Job) -> Step:
    """What is to be done with a job of a sweep now, whatever was planned."""
    client, _ = tracking.connect(job.cfg.tracking.uri, job.cfg.output_dir)
    tracking.close_dead(client, job.cfg.tracking.experiment)
    own = known(client, job.cfg.tracking.experiment, job.signature).get(job.signature, [])
    return step(job.cfg, own, [], False, job.cfg.sweep.retry)


def parent(client, experiment: str, sweep: str) -> Past | None:
    """The last parent run of the same sweep, by its tag `aelab.sweep`."""
    found = client.get_experiment_by_name(experiment)
    wanted = f"tags.`aelab.sweep` = '{sweep}'"
    runs = client.search_runs([found.experiment_id], wanted, max_results=1) if found else []
    return _past(runs[0]) if runs else None


def steps(jobs: list, runs: dict[str, list[Past]], *, force: bool, retry: str | None) -> list[Step]:
    """What is to be done with each job of a sweep."""
    finished = [past for group in runs.values() for past in group if past.status == "FINISHED"]
    return [step(job.cfg, runs.get(job.signature, []), finished, force, retry) for job in jobs]


def step(cfg, own: list[Past], finished: list[Past], force: bool, retry: str | None) -> Step:
    """What is to be done with one job: `own` are the runs of its signature, `finished` all that can be compared."""
    if done := next((past for past in own if past.status == "FINISHED"), None):
        return Step("again", f"sweep.force; run {done.run_id[:8]} is done", None) if force else Step("done", "", done)
    if not own:
        return Step("new", difference(compose.flat(cfg), finished), None)
    last = own[0]
    if force:
        return Step("again", f"sweep.force; run {last.run_id[:8]} was not finished", None)
    if last.status == "RUNNING":  # those of dead processes were closed before
        return Step("running", f"run {last.run_id[:8]} is being run by another command", last)
    if last.status == "FAILED" and not last.reason.startswith((DIED, account.FULL)) and retry != "failed":
        return Step("failed", last.reason, last)
    if not (last.folder / account.NAME).exists():
        return Step("again", f"run {last.run_id[:8]} was not finished, and {last.folder} is not there", None)
    return Step("resume", f"run {last.run_id[:8]} was not finished: {last.reason or last.status}", last)


def difference(wanted: Mapping[str, object], finished: list[Past]) -> str:
    """In what a new job differs from the nearest finished run of its task and model; empty where none is near."""
    best = None
    for past in finished:
        if all(past.params.get(key) == str(wanted[key]) for key in ("task", "model")):
            keys = (wanted.keys() | past.params.keys()) - {"dataset"}
            told = [
                f"{key}: {past.params.get(key, 'none')} -> {wanted.get(key, 'none')}"
                for key in sorted(keys)
                if past.params.get(key) != (str(wanted[key]) if key in wanted else None)
            ]
            if best is None or len(told) < len(best):
                best = told
    if best is None or len(best) > NEAREST:
        return ""
    return ", ".join(best) or "the code, or a file that the config names, has changed"


def seconds(cfg, runs: dict[str, list[Past]]) -> float | None:
    """The mean time of the finished runs of the same task and model; None where there is none."""
    times = [
        past.metrics["time/total_s"]
        for group in runs.values()
        for past in group
        if "time/total_s" in past.metrics
        and all(past.params.get(key) == str(cfg.choices[key]) for key in ("task", "model"))
    ]
    return sum(times) / len(times) if times else None


def table(jobs: list, refused: list, plan: list[Step], runs: dict[str, list[Past]]) -> Table:
    """A row for each job: its values, what is to be done and why, and how long such runs took."""
    settings = pd.DataFrame([dict(o.partition("=")[::2] for o in one.overrides) for one in (*jobs, *refused)])
    swept = [key for key in settings if settings[key].nunique(dropna=False) > 1]
    grid, total, unknown = Table(title=f"plan of {len(jobs)} jobs"), 0.0, 0
    for name in ("job", *swept, "state", "why", "about"):
        grid.add_column(name, overflow="fold")
    for number, (step_, job) in enumerate(zip(plan, jobs, strict=True), 1):
        needed = 0.0 if step_.settled else seconds(job.cfg, runs)
        total, unknown = total + (needed or 0), unknown + (needed is None)
        about = "" if step_.settled else f"{needed:.0f} s" if needed is not None else "?"
        values = (console.short(settings[key][number - 1]) for key in swept)
        why = step_.why or (f"run {step_.past.run_id[:8]}" if step_.past else "")
        grid.add_row(str(number), *values, step_.state, why, about)
    for why, names in misfits(refused).items():
        grid.add_row("", ", ".join(names), *[""] * (len(swept) - 1), "refused", why, "")
    counts = pd.Series([*(s.state for s in plan), *("refused" for _ in refused)]).value_counts()
    told = ", ".join(f"{count} {state}" for state, count in counts.items())
    grid.caption = f"{told}; about {total:.0f} s" + (f" and {unknown} of unknown length" if unknown else "")
    return grid
