"""A sweep: one parent run in MLflow, one child for each job, and a table at the end."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.table import Table

from aelab import console, report, tracking

COLUMN = 15
"""Characters that a column of the table takes."""


def sweep(configs: list, launch: Callable) -> int:
    """Run all jobs through `launch(parent_run_id)`, which returns the finished `Job`; returns the exit code."""
    cfg = configs[0]
    folder = Path(cfg.output_dir).resolve()
    console.out.print(f"sweep of {len(configs)} jobs")
    with tracking.start(cfg, folder, f"sweep-{cfg.choices.task} ({len(configs)} jobs)") as log:
        job = launch(log.run_id)
        failed = [overrides for overrides, outcome in job.results if isinstance(outcome, str)]
        log.batch(
            metrics={"sweep/jobs": len(job.results), "sweep/failed": len(failed)},
            tags={"aelab.jobs": json.dumps([overrides for overrides, _ in job.results])[:5000]},
        )
    console.out.print(table(job.results))
    if failed:
        console.complain(f"{len(failed)} of {len(job.results)} jobs failed")
    return 1 if failed else 0


def table(results: list) -> Table:
    """One row a job: the values that differ between jobs, and as many of the test metrics as there is room for.

    Jobs that differ by their seed alone are repeats: their mean and sample standard deviation stand below.
    """
    settings = [dict(o.partition("=")[::2] for o in overrides) for overrides, _ in results]
    swept = [k for k in settings[0] if len({s.get(k) for s in settings}) > 1]
    found = dict.fromkeys(k for _, m in results if isinstance(m, dict) for k in m)
    tested = [k for k in found if k.startswith("test/") and not k.endswith(report.BESIDE)]
    names = [n for k in tested for n in (k.replace("test/", "val/"), k) if n in found]  # choose by val, report test
    names = names[: max(console.out.width // COLUMN - len(swept), 2)]
    grid = Table(title="metrics by job")
    for name in (*swept, *names):
        grid.add_column(name, justify="right", overflow="fold")
    repeats = {}
    for setting, (_, outcome) in zip(settings, results, strict=True):
        values = [f"{outcome[n]:.4g}" for n in names] if isinstance(outcome, dict) else ["failed", *[""] * len(names)]
        grid.add_row(*(setting.get(k, "") for k in swept), *values[: max(len(names), 1)])
        if isinstance(outcome, dict):
            key = tuple(setting.get(k, "") if k != "seed" else "mean, sd" for k in swept)
            repeats.setdefault(key, []).append([outcome[n] for n in names])
    if "seed" in swept:
        grid.add_section()
        for key, rows in repeats.items():
            spread = np.std(rows, axis=0, ddof=1) if len(rows) > 1 else np.full(len(names), np.nan)
            grid.add_row(*key, *(f"{m:.4f}\n± {s:.4f}" for m, s in zip(np.mean(rows, axis=0), spread, strict=True)))
    return grid
