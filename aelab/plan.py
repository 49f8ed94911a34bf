"""What a sweep has to do: which of its jobs were run before, which are new, and why."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from rich.table import Table

from aelab import charts, compose

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
    """A job of a sweep: "new", "again", "done" or "failed"; why; and its earlier run where that settles it."""

    state: str
    why: str
    past: Past | None


def signed(client, name: str) -> list:
    """All runs of an experiment that have a signature, the newest first."""
    found = client.get_experiment_by_name(name)
    runs, page = [], None
    while found:
        wanted = "tags.`aelab.signature` != ''"
        part = client.search_runs(
            [found.experiment_id], wanted, order_by=["attributes.start_time DESC"], page_token=page
        )
        runs, page = runs + list(part), part.token
        if not page:
            break
    return runs


def known(client, experiment: str) -> dict[str, list[Past]]:
    """The runs of an experiment by signature, the newest first; those on other data than asked for are left out."""
    found: dict[str, list[Past]] = {}
    for run in signed(client, experiment):
        tags = run.data.tags
        if "aelab.fallback" not in tags:
            reason, folder = tags.get("aelab.reason", ""), Path(tags.get("aelab.folder", ""))
            past = Past(run.info.run_id, run.info.status, reason, folder, run.data.params, run.data.metrics)
            found.setdefault(tags["aelab.signature"], []).append(past)
    return found


def outcome(past: Past) -> dict[str, float]:
    """The final metrics of a finished run, from its folder, or from the store where that is gone."""
    file = past.folder / "metrics.json"
    if file.is_file():
        return json.loads(file.read_text())
    return {name.replace("_at_", "@"): value for name, value in past.metrics.items() if "/" in name}


def steps(jobs: list, runs: dict[str, list[Past]], *, force: bool, retry: str | None) -> list[Step]:
    """What is to be done with each job of a sweep."""
    finished = [past for group in runs.values() for past in group if past.status == "FINISHED"]
    return [step(job.cfg, runs.get(compose.signature(job.cfg), []), finished, force, retry) for job in jobs]


def step(cfg, own: list[Past], finished: list[Past], force: bool, retry: str | None) -> Step:
    """What is to be done with one job: `own` are the runs of its signature, `finished` all that can be compared."""
    if done := next((past for past in own if past.status == "FINISHED"), None):
        return Step("again", f"sweep.force; run {done.run_id[:8]} is done", None) if force else Step("done", "", done)
    if own and own[0].status == "FAILED" and not own[0].reason.startswith("the process died"):
        again = force or retry == "failed"
        return Step("again" if again else "failed", own[0].reason, None if again else own[0])
    if own:
        return Step("again", f"run {own[0].run_id[:8]} was not finished: {own[0].reason or own[0].status}", None)
    return Step("new", difference(compose.flat(cfg), finished), None)


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


def table(jobs: list, plan: list[Step], runs: dict[str, list[Past]]) -> Table:
    """A row for each job: its values, what is to be done and why, and how long such runs took."""
    settings = pd.DataFrame([dict(o.partition("=")[::2] for o in job.overrides) for job in jobs])
    swept = [key for key in settings if settings[key].nunique(dropna=False) > 1]
    grid, total, unknown = Table(title=f"plan of {len(jobs)} jobs"), 0.0, 0
    for name in ("job", *swept, "state", "why", "about"):
        grid.add_column(name, overflow="fold")
    for number, (step_, job) in enumerate(zip(plan, jobs, strict=True), 1):
        needed = seconds(job.cfg, runs) if step_.state in ("new", "again") else 0.0
        total, unknown = total + (needed or 0), unknown + (needed is None)
        about = "" if step_.past else f"{needed:.0f} s" if needed is not None else "?"
        values = (charts.short(settings[key][number - 1]) for key in swept)
        why = step_.why or (f"run {step_.past.run_id[:8]}" if step_.past else "")
        grid.add_row(str(number), *values, step_.state, why, about)
    counts = pd.Series([s.state for s in plan]).value_counts()
    told = ", ".join(f"{count} {state}" for state, count in counts.items())
    grid.caption = f"{told}; about {total:.0f} s" + (f" and {unknown} of unknown length" if unknown else "")
    return grid
