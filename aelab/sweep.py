"""What came of a sweep: a row for each job, as a table on the terminal, a CSV, and a report with figures."""

import json
from pathlib import Path

import pandas as pd
from rich.table import Table

from aelab import account, circumstances, console, grid
from aelab.config import BESIDE
from aelab.store import told

COLUMN = 15
"""Characters that a column of the table takes."""
FIGURES = 6
"""The first of the metrics are drawn."""


def finish(results: list, name: str, folder: Path, log, cfg, ran: bool, goal: str | None = None) -> int:
    """Log and print what came of a sweep's jobs; returns the exit code. `goal` is what a search went by.

    Where none of them `ran` now, the report that stands is right.
    """
    found = frame(results)
    best = winner(found, goal or next(iter(parts(found)[1]), ""), cfg)
    failed, finished = (int(found["state"].eq(state).sum()) for state in ("failed", "finished"))
    counts = {"sweep/jobs": len(found), "sweep/failed": failed}
    page = f"#/experiments/{log.experiment_id}/runs/{log.run_id}/artifacts/report.html"
    jobs = {
        "aelab.jobs": json.dumps([overrides for overrides, _ in results])[:5000],
        "mlflow.note.content": f"{len(found)} jobs, {failed} failed: [the report]({page}), in {folder}",
    }
    account.write(folder / "metrics.json", json.dumps(counts) + "\n")
    account.note(folder, tags=account.read(folder)["tags"] | jobs)
    stale = ran or not (folder / "report.html").exists()
    log.batch(metrics=counts if stale else {}, tags=jobs)
    if finished and stale:
        write(found, folder, name, cfg)
    elif not finished:
        account.write(folder / "sweep.csv", found.to_csv(index=False))  # it says why
    if stale:
        log.files(folder, account.shown(folder))
    console.out.print(table(found, best, goal))
    if said := others(found):
        console.complain(said)
    if finished:
        console.out.print(f"report      {folder / 'report.html'}", soft_wrap=True)
    if failed:
        console.complain(failures(found))
    return 1 if failed else 0


def frame(results: list) -> pd.DataFrame:
    """A row for each job: the values that differ between jobs, as text, its state and its metrics."""
    settings = [dict(o.partition("=")[::2] for o in overrides) for overrides, _ in results]
    keys = dict.fromkeys(k for s in settings for k in s)
    swept = [k for k in keys if len({s.get(k) for s in settings}) > 1]
    rows = [
        {k: setting.get(k, "") for k in swept}
        | {"state": "finished" if outcome.metrics else "failed" if outcome.code else "pruned"}
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


def direction(metric: str, cfg) -> str | None:
    """Whether "min" or "max" of a metric is better, of losses "min"; None where the config does not say."""
    name = metric.partition("/")[2].partition("@")[0]
    return cfg.metric.get(name, {}).get("goal") or ("min" if name in ("loss", *cfg.loss) else None)


def winner(found: pd.DataFrame, metric: str, cfg) -> int | None:
    """The place of the best job by a metric; None where no better direction is known."""
    better = direction(metric, cfg)
    if not better or metric not in found or not found[metric].notna().any():
        return None
    return int(found[metric].idxmax() if better == "max" else found[metric].idxmin())


def parts(found: pd.DataFrame) -> tuple[list[str], list[str]]:
    """(swept values, test metrics, each after its value in validation): columns of `frame`."""
    names = list(found)
    swept = names[: names.index("state")]
    tested = [k for k in names if k.startswith("test/") and not k.endswith(BESIDE)]
    return swept, [n for k in tested for n in (k.replace("test/", "val/"), k) if n in found]


def write(found: pd.DataFrame, folder: Path, name: str, cfg) -> list[str]:
    """sweep.csv and report.html with a figure for each of the first metrics; returns the names of the files."""
    from aelab import charts, report  # Matplotlib: not for a sweep whose jobs are all done

    swept, metrics = parts(found)
    folder.mkdir(parents=True, exist_ok=True)  # it is not there where all jobs were done before
    account.write(folder / "sweep.csv", found.to_csv(index=False))
    done = found[found["state"] == "finished"]
    labels = done[swept].agg(", ".join, axis=1) if swept else done.index
    tested = [k for k in metrics if k.startswith("test/") and done[k].notna().any()]
    families = charts.families(done.set_axis(labels), tested)
    single = [k for k in tested if k.partition("@")[0] not in families][:FIGURES]
    drawn = {k: charts.swept(done, swept, k, direction(k, cfg)) for k in single} if swept else {}
    figures = {k.replace("test/", ""): figure for k, figure in drawn.items()}
    for family, values in families.items():
        shown = family.replace("test/", "")
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
        config=told(cfg),
        notices=[line for line in (failures(found), others(found)) if line],
    )
    return ["sweep.csv", "report.html", *sorted(p.name for p in folder.glob("*.png"))]


def spread(values: pd.Series) -> str:
    """Mean, sample standard deviation, and the 95 % confidence interval of the mean by Student's t, a line each."""
    from aelab import paired  # with SciPy: 0.2 s that few sweeps need

    mean, sd, low, high = paired.spread(values.dropna().to_numpy(float))
    return f"{mean:.4g}" + ("" if pd.isna(sd) else f"\n± {sd:.2g}\n± {(high - low) / 2:.2g}")


def table(found: pd.DataFrame, best: int | None = None, goal: str | None = None) -> Table:
    """One row a job: the values that differ between jobs, and as many of the test metrics as there is room for.

    The row of the best job is in bold, with a star. Jobs that differ by seed or fold alone are repeats: their mean,
    sample standard deviation and 95 % confidence interval of the mean stand below.
    """
    swept, names = parts(found)
    names = [*([goal] if goal in found and goal not in names else []), *names]
    names = names[: max(console.out.width // COLUMN - len(swept), 2)]
    shown = Table(title="metrics by job")
    for name in (*swept, *names):
        shown.add_column(name, justify="right", overflow="fold")
    for place, row in found.iterrows():
        done, star = row["state"] == "finished", " *" if place == best else ""
        values = [f"{row[n]:.4g}" for n in names] if done else [row["state"], *[""] * (len(names) - 1)]
        values = [v + star * (n == (goal or names[0])) for n, v in zip(names, values, strict=True)] if star else values
        style = "bold" if star else None
        shown.add_row(*map(console.short, row[swept]), *values[: max(len(names), 1)], style=style)
    if best is not None:
        shown.caption = f"* best by {goal or names[0]}"
    if repeated := [k for k in swept if k in grid.REPEATS]:
        shown.add_section()
        others = [k for k in swept if k not in repeated]
        done = found[found["state"] == "finished"]
        for key, rows in done.groupby(others, sort=False) if others else [((), done)]:
            setting = dict(zip(others, key, strict=True)) | dict.fromkeys(repeated, "mean\nsd\n95 %")
            cells = map(spread, (rows[n] for n in names))
            shown.add_row(*(console.short(setting[k]) for k in swept), *cells)
    return shown
