"""A sweep: one parent run in MLflow, one child for each job, and a table at the end."""

import contextlib
import hashlib
import json
import time
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
from omegaconf import OmegaConf
from rich.table import Table

from aelab import charts, circumstances, compose, console, grid, past, plan, report, tracking, work
from aelab.compose import Job
from aelab.plan import Step
from aelab.work import Outcome, Work

COLUMN = 15
"""Characters that a column of the table takes."""
NOT_RUN = Outcome(None, "not run: a job failed, and sweep.on_error=stop")
FIGURES = 6
"""The first of the metrics are drawn."""


def sweep(jobs: list[Job], steps: list[Step], client) -> int:
    """Run what is to be run of a sweep's jobs under one parent run; returns the exit code.

    The parent of a sweep that was stopped, or is issued again, is gone on with, and so is its folder.
    """
    cfg = jobs[0].cfg
    sign = hashlib.sha256("".join(sorted(job.signature for job in jobs)).encode()).hexdigest()[:8]
    earlier = None if cfg.sweep.force else plan.parent(client, cfg.tracking.experiment, sign)
    folder = earlier.folder if earlier else jobs[0].folder.parent
    jobs = [
        job._replace(folder=step.past.folder if step.state == "resume" else folder / job.folder.name)
        for job, step in zip(jobs, steps, strict=True)
    ]
    name = f"sweep-{cfg.choices.task} ({len(jobs)} jobs)"
    console.out.print(f"sweep of {len(jobs)} jobs")
    with tracking.start(cfg, folder, name, tags={"aelab.sweep": sign}, earlier=earlier and earlier.run_id) as log:
        outcomes = perform(cfg, zip(jobs, steps, strict=True), len(jobs), log)
        found = frame([(job.overrides, outcomes.get(n, NOT_RUN)) for n, job in enumerate(jobs)])
        failed = int(found["state"].eq("failed").sum())
        log.batch(
            metrics={"sweep/jobs": len(found), "sweep/failed": failed},
            tags={"aelab.jobs": json.dumps([job.overrides for job in jobs])[:5000]},
        )
        if failed < len(found):
            log.files(folder, write(found, folder, name, cfg))
    return told(found, folder)


def perform(cfg, items: Iterable[tuple[Job, Step]], total: int, log) -> dict[int, Outcome]:
    """The outcomes of jobs by their place; jobs are taken from `items` as there is room to run them."""
    outcomes, began, ran = {}, time.time(), 0

    def works():
        for number, (job, step) in enumerate(items):
            console.out.rule(f"job {number + 1}/{total}: {grid.told(job.overrides)}")
            if step.settled:
                before = "" if step.state == "running" else " before"
                console.out.print(f"{step.state}{before}: run {step.past.run_id}, {step.past.folder}", soft_wrap=True)
                done = plan.outcome(step.past) if step.state == "done" else None
                outcomes[number] = Outcome(done, step.why)
            else:
                yield Work(number, job, log.run_id)

    launched = compose.build(cfg.launcher, works(), work.elsewhere)
    with contextlib.closing(launched):
        for one, outcome in launched:
            outcomes[one.number], ran = outcome, ran + 1
            if outcome.metrics is None:
                console.complain(f"job {one.number + 1} failed: {outcome.reason} (details: {one.job.folder}/run.log)")
                tracking.fail(log.client, past.run_of(one.job.folder), outcome.reason)
                if cfg.sweep.on_error == "stop":
                    break
            left = (time.time() - began) / ran * (total - len(outcomes))
            console.out.print(f"job {one.number + 1} ended; {len(outcomes)} of {total} done, about {left:.0f} s left")
    return outcomes


def told(found: pd.DataFrame, folder: Path) -> int:
    """The last lines: the table, the report, what failed; returns the exit code."""
    failed = int(found["state"].eq("failed").sum())
    console.out.print(table(found))
    if said := others(found):
        console.complain(said)
    if failed < len(found):
        console.out.print(f"report      {folder / 'report.html'}", soft_wrap=True)
    if failed:
        console.complain(failures(found))
    return 1 if failed else 0


def frame(results: list) -> pd.DataFrame:
    """A row for each job: the values that differ between jobs, as text, its state and its metrics."""
    settings = [dict(o.partition("=")[::2] for o in overrides) for overrides, _ in results]
    swept = [k for k in settings[0] if len({s.get(k) for s in settings}) > 1]
    rows = [
        {k: setting.get(k, "") for k in swept}
        | {"state": "finished" if outcome.metrics else "failed"}
        | (outcome.metrics or {"why": outcome.reason})
        for setting, (_, outcome) in zip(settings, results, strict=True)
    ]
    return pd.DataFrame(rows)


def failures(found: pd.DataFrame) -> str:
    """How many jobs failed, in words; empty where none did."""
    count = int(found["state"].eq("failed").sum())
    return f"{count} of {len(found)} jobs failed" if count else ""


def others(found: pd.DataFrame) -> str:
    """What to say where jobs could not have their data set; empty where all had."""
    count = int(found["data/fallback"].notna().sum()) if "data/fallback" in found else 0
    return f"{count} of {len(found)} jobs used other data than those asked for: see their reports" if count else ""


def parts(found: pd.DataFrame) -> tuple[list[str], list[str]]:
    """(swept values, test metrics, each after its value in validation): columns of `frame`."""
    names = list(found)
    swept = names[: names.index("state")]
    tested = [k for k in names if k.startswith("test/") and not k.endswith(report.BESIDE)]
    return swept, [n for k in tested for n in (k.replace("test/", "val/"), k) if n in found]


def write(found: pd.DataFrame, folder: Path, name: str, cfg) -> list[str]:
    """sweep.csv and report.html with a figure for each of the first metrics; returns the names of the files."""
    swept, metrics = parts(found)
    folder.mkdir(parents=True, exist_ok=True)  # it is not there where all jobs were done before
    found.to_csv(folder / "sweep.csv", index=False)
    done = found[found["state"] == "finished"]
    labels = done[swept].agg(", ".join, axis=1) if swept else done.index
    tested = [k for k in metrics if k.startswith("test/") and done[k].notna().any()]
    families = charts.families(done.set_axis(labels), tested)
    single = [k for k in tested if k.partition("@")[0] not in families][:FIGURES]
    figures = {k.replace("test/", ""): charts.swept(done, swept, k) for k in single} if swept else {}
    for name, values in families.items():
        shown = name.replace("test/", "")
        figures[shown] = charts.lines(
            values.rename_axis("at"), title=f"{shown} by {', '.join(swept)}", ylabel=shown, scale="log"
        )
    report.write(
        folder,
        title=name,
        subtitle=f"choose by validation (val/), report the test (test/); {len(done)} of {len(found)} jobs finished",
        summary={},
        tables={"metrics by job": done[metrics].set_index(pd.Index(labels, name=", ".join(swept) or "job"))},
        figures=figures,
        facts=circumstances.versions(),
        config=OmegaConf.to_yaml(cfg),
        notices=[told for told in (failures(found), others(found)) if told],
    )
    return ["sweep.csv", "report.html", *sorted(p.name for p in folder.glob("*.png"))]


def table(found: pd.DataFrame) -> Table:
    """One row a job: the values that differ between jobs, and as many of the test metrics as there is room for.

    Jobs that differ by seed or fold alone are repeats: their mean and sample standard deviation stand below.
    """
    swept, names = parts(found)
    names = names[: max(console.out.width // COLUMN - len(swept), 2)]
    shown = Table(title="metrics by job")
    for name in (*swept, *names):
        shown.add_column(name, justify="right", overflow="fold")
    for _, row in found.iterrows():
        failed = row["state"] == "failed"
        values = ["failed", *[""] * (len(names) - 1)] if failed else [f"{row[n]:.4g}" for n in names]
        shown.add_row(*map(console.short, row[swept]), *values[: max(len(names), 1)])
    if repeated := [k for k in swept if k in grid.REPEATS]:
        shown.add_section()
        others = [k for k in swept if k not in repeated]
        done = found[found["state"] == "finished"]
        for key, rows in done.groupby(others, sort=False) if others else [((), done)]:
            setting = dict(zip(others, key, strict=True)) | dict.fromkeys(repeated, "mean, sd")
            spread = (f"\n± {rows[n].std():.4f}" if len(rows) > 1 else "" for n in names)
            cells = (f"{rows[n].mean():.4f}{told}" for n, told in zip(names, spread, strict=True))
            shown.add_row(*(console.short(setting[k]) for k in swept), *cells)
    return shown
