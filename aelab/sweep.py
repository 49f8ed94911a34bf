"""A sweep: one parent run in MLflow, one child for each job, and a table at the end."""

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
from omegaconf import OmegaConf
from rich.table import Table

from aelab import charts, console, report, tracking

COLUMN = 15
"""Characters that a column of the table takes."""
FIGURES = 6
"""The first of the metrics are drawn."""


def sweep(jobs: list, launch: Callable) -> int:
    """Run all jobs through `launch(parent_run_id)`: for each its metrics, or why it failed; returns the exit code."""
    cfg, folder = jobs[0].cfg, jobs[0].folder.parent
    name = f"sweep-{cfg.choices.task} ({len(jobs)} jobs)"
    console.out.print(f"sweep of {len(jobs)} jobs")
    with tracking.start(cfg, Path(cfg.output_dir).resolve(), name) as log:
        results = [(job.overrides, outcome) for job, outcome in zip(jobs, launch(log.run_id), strict=True)]
        found = frame(results)
        failed = int(found["state"].eq("failed").sum())
        log.batch(
            metrics={"sweep/jobs": len(found), "sweep/failed": failed},
            tags={"aelab.jobs": json.dumps([job.overrides for job in jobs])[:5000]},
        )
        if failed < len(found):
            log.files(folder, write(found, folder, name, cfg))
    console.out.print(table(found))
    if told := others(found):
        console.complain(told)
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
        | {"state": "failed" if isinstance(outcome, str) else "finished"}
        | (outcome if isinstance(outcome, dict) else {})
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
        facts=tracking.versions(),
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
    grid = Table(title="metrics by job")
    for name in (*swept, *names):
        grid.add_column(name, justify="right", overflow="fold")
    for _, row in found.iterrows():
        failed = row["state"] == "failed"
        values = ["failed", *[""] * (len(names) - 1)] if failed else [f"{row[n]:.4g}" for n in names]
        grid.add_row(*map(charts.short, row[swept]), *values[: max(len(names), 1)])
    if repeated := [k for k in swept if k in charts.REPEATS]:
        grid.add_section()
        others = [k for k in swept if k not in repeated]
        done = found[found["state"] == "finished"]
        for key, rows in done.groupby(others, sort=False) if others else [((), done)]:
            setting = dict(zip(others, key, strict=True)) | dict.fromkeys(repeated, "mean, sd")
            spread = (f"\n± {rows[n].std():.4f}" if len(rows) > 1 else "" for n in names)
            cells = (f"{rows[n].mean():.4f}{told}" for n, told in zip(names, spread, strict=True))
            grid.add_row(*(charts.short(setting[k]) for k in swept), *cells)
    return grid
