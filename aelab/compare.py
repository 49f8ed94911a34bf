"""`aelab compare`: finished runs in groups that differ in more than the seed, best first, beside a baseline."""

import argparse
import json
import re
import sys
from typing import NamedTuple, NoReturn

import numpy as np
import pandas as pd
from rich.table import Table
from rich.text import Text

from aelab import compose, console, paired, query
from aelab.config import ConfigError
from aelab.grid import REPEATS
from aelab.query import Filter, Run

SPREAD = ("", "_sd", "_ci_low", "_ci_high")
BESIDE = ("_difference", "_difference_low", "_difference_high", "_paired_by")
"""What a row has of each metric, after its name: of its runs, and against the baseline."""
COLUMN = 12
"""Characters that a column of the table takes."""
GOALS = {
    **dict.fromkeys(("loss", "rmse", "perplexity", "bits_per_character"), "min"),
    **dict.fromkeys(("f1", "precision", "recall", "probe_accuracy"), "max"),
    **dict.fromkeys(("f1_macro", "precision_macro", "recall_macro"), "max"),
}
"""The better direction of what is measured beside the metrics of the config, which say theirs."""
SIGN = {"max": -1, "min": 1}


class Group(NamedTuple):
    """Runs that have the same values of what they are grouped by."""

    values: dict[str, object]
    runs: list[Run]

    def ids(self) -> list[str]:
        """The runs' MLflow ids."""
        return [run.id for run in self.runs]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"compare: {message}; the options are --metric --group-by --baseline --experiment --csv ...")


def words(argv: list[str]) -> argparse.Namespace:
    """The command's own words."""
    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("filters", nargs="*")
    for name in ("--metric", "--group-by", "--baseline"):
        parser.add_argument(name, action="append", default=[])
    parser.add_argument("--experiment")
    form = parser.add_mutually_exclusive_group()
    for name in ("csv", "md", "json"):
        form.add_argument(f"--{name}", dest="form", action="store_const", const=name)
    own = parser.parse_intermixed_args(argv)
    own.metric, own.group_by = (
        [n for given in names for n in given.split(",")] for names in (own.metric, own.group_by)
    )
    own.output_dir = next((w.partition("=")[2] for w in own.filters if w.startswith("output_dir=")), None)
    own.filters = [w for w in own.filters if not w.startswith("output_dir=")]
    return own


def compare(argv: list[str]) -> int:
    """Print the comparison as a table, or in the form that is asked for."""
    own = words(argv)
    task = next((w.removeprefix("task=") for w in own.filters if w.startswith("task=")), None)
    uri, folder, experiment = query.place(task, own.output_dir)
    experiment = own.experiment or experiment
    runs = query.runs(uri, folder, experiment, any(w.startswith("status") for w in own.filters))
    filters = query.parsed(own.filters, runs)
    shown = query.fitting(runs, filters)
    if not shown:
        raise ConfigError(f"{' '.join(own.filters)}: fits none of the {len(runs)} runs of {experiment}")
    by = [query.known(name, (n for run in runs for n in run.facts)) for name in own.group_by]
    goals = directions(own.metric, shown)
    base = baseline(own.baseline, runs, filters, by) if own.baseline else None
    groups = grouped(shown, by)
    left = len(shown) - sum(len(group.runs) for group in groups)
    if base and base.ids() not in [group.ids() for group in groups]:
        groups.append(base)
    keys = by or differing(groups)
    rows = records(groups, keys, goals, base)
    if own.form in ("csv", "json"):
        sys.stdout.write(written(rows, own.form))
    elif own.form == "md":
        sys.stdout.write(markdown(cells(rows, keys, goals)))
    else:
        title, told = f"{len(shown) - left} runs of {experiment}", caption(rows, goals, left, own.baseline)
        console.out.print(drawn(narrow(cells(rows, keys, goals), keys), goals, title, told))
    return 0


def directions(names: list[str], runs: list[Run]) -> dict[str, str | None]:
    """The metrics that are asked for, or the first of the newest run, and whether max or min is better, where known."""
    params = {key: value for run in reversed(runs) for key, value in run.params.items()}
    found = {}
    for name in names or [first(runs)]:
        metric, colon, goal = name.rpartition(":")
        if not colon or goal not in ("max", "min"):
            metric, goal = name, None
        metric = query.known(metric, (n for run in runs for n in run.metrics))
        found[metric] = goal or direction(metric, params)
    if found[metric := next(iter(found))] is None:
        raise ConfigError(f"--metric {metric}: is more of it better? type {metric}:max or {metric}:min")
    return found


def direction(metric: str, params: dict[str, str]) -> str | None:
    """Which direction is better of a metric, or of what stands beside it (`psnr_gain`); None where nobody says."""
    base = metric.rpartition("/")[2].partition("@")[0]
    if metric.startswith("time/"):
        return "min"
    if base.endswith("_gain"):
        return "max"
    names = (base, base.rpartition("_")[0])
    return next((g for n in names if (g := params.get(f"metric.{n}.goal") or GOALS.get(n))), None)


def first(runs: list[Run]) -> str:
    """The first metric of the newest run's config, of lists at their first length."""
    for run in runs:
        name = "test/" + run.params.get("metric", "").partition("+")[0]
        length = re.search(r"\d+", run.params.get("task.at", ""))
        for metric in (name, f"{name}@{length and length[0]}"):
            if metric in run.metrics:
                return metric
    raise ConfigError(
        "--metric: missing; none of the runs has the first metric of its config; give it as --metric NAME"
    )


def grouped(runs: list[Run], by: list[str]) -> list[Group]:
    """Groups by some values, or by all parameters but those that make a run the repeat of another.

    Of runs of a group whose parameters are all the same, only the newest counts: they are no other sample.
    """
    found: dict[tuple, dict] = {}
    for run in runs:
        own = settings(run)
        values = {key: run.facts.get(key) for key in by} if by else {k: v for k, v in own.items() if not repeat(k)}
        kept = found.setdefault(tuple(sorted(values.items(), key=lambda item: item[0])), {})
        kept.setdefault(tuple(sorted(own.items())), run)
    return [Group(dict(values), list(kept.values())) for values, kept in found.items()]


def settings(run: Run) -> dict[str, str]:
    """The parameters that a result depends on. Each corruption's own level says what `corruption.level` would."""
    aside = (*compose.ELSEWHERE, "corruption.level")
    return {key: value for key, value in run.params.items() if key.removeprefix("dataset.") not in aside}


def repeat(key: str) -> bool:
    """Whether runs that differ in this parameter alone are repeats."""
    return key in REPEATS or key.endswith(".seed")


def differing(groups: list[Group]) -> list[str]:
    """The values that differ between groups, the choices first.

    Left out are those that follow from the choice of their group (`model.size`, where every median has the same), and
    those that say the same as one before.
    """
    every = {key for group in groups for key in group.values}
    table = pd.DataFrame([{key: group.values.get(key) or "" for key in every} for group in groups])
    found: dict[tuple, str] = {}
    for key in sorted(table, key=lambda key: ("." in key, key)):
        column, choice = tuple(table[key]), key.partition(".")[0]
        follows = choice != key and choice in table and table.groupby(choice)[key].nunique().max() == 1
        if len(set(column)) > 1 and not follows:
            found.setdefault(column, key)
    return list(found.values())


def baseline(given: list[str], runs: list[Run], filters: list[Filter], by: list[str]) -> Group:
    """The group that others are compared with: of a run, by the beginning of its id, or of the runs that fit.

    What is shown is filtered by `filters`. They hold for the baseline too, but for those on metrics, and on what it
    names or is a part of that: `--baseline model=median` sets aside `model=conv_ae` and `model.bottleneck>8`.
    """
    told = " ".join(given)
    if not any(map(query.FILTER.fullmatch, given)):
        found = [run for run in runs if run.id.startswith(told)]
        if len(found) != 1:
            raise ConfigError(f"--baseline {told}: {len(found)} runs have such an id; give a run's id, or key=value")
    else:
        own = query.parsed(given, runs)
        held = [f for f in filters if "/" not in f.key and not any(f"{f.key}.".startswith(f"{o.key}.") for o in own)]
        found = query.fitting(runs, own + held)
        if not found:
            raise ConfigError(f"--baseline {told}: fits none of the runs")
    groups = grouped(found, by)
    if by:  # what the groups are taken over differs within a group, so it may within the baseline
        alike = {key: {group.values[key] for group in groups} for key in by}
        values = {key: found.pop() if len(found) == 1 else "several" for key, found in alike.items()}
        return Group(values, [run for group in groups for run in group.runs])
    if len(groups) > 1:
        more = " ".join(f"--baseline {key}={groups[0].values.get(key, 'null')}" for key in differing(groups))
        raise ConfigError(f"--baseline {told}: fits {len(groups)} kinds of runs; choose one of them by, say, {more}")
    return groups[0]


def records(groups: list[Group], keys: list[str], goals: dict[str, str | None], base: Group | None) -> list[dict]:
    """A row for each group, by the first metric best first: its values, and the figures of each metric."""
    main, sign = next(iter(goals)), SIGN[next(iter(goals.values()))]
    beside = {m: paired.against([g.runs for g in groups], base.runs, m) for m in goals} if base else {}
    rows = []
    for number, group in enumerate(groups):
        order = np.argsort(sign * paired.measured(group.runs, main), kind="stable")  # NaN last
        row = {key: group.values.get(key) for key in keys} | {"n": len(group.runs)}
        for metric in goals:
            figures = paired.spread(paired.measured(group.runs, metric))
            row |= {metric + part: figure for part, figure in zip(SPREAD, figures, strict=True)}
            if base:
                row |= {metric + part: figure for part, figure in zip(BESIDE, beside[metric][number], strict=True)}
        if base:
            row["baseline"] = group.ids() == base.ids()
        rows.append(row | {"runs": [group.runs[i].id for i in order]})
    return sorted(rows, key=lambda row: (np.isnan(row[main]), sign * row[main]))


def written(rows: list[dict], form: str) -> str:
    """The rows as CSV, ids of runs between spaces, or as JSON."""
    if form == "csv":
        return pd.DataFrame([row | {"runs": " ".join(row["runs"])} for row in rows]).to_csv(index=False)
    plain = [{k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in row.items()} for row in rows]
    return json.dumps(plain, indent=2) + "\n"


def cells(rows: list[dict], keys: list[str], goals: dict[str, str | None]) -> list[dict[str, str]]:
    """The rows as text, for people: the best value of each metric has a star."""
    tops = {metric: best(rows, metric, goal) for metric, goal in goals.items()}
    table = []
    for row in rows:
        shown = {key: "" if row[key] is None else str(row[key]) for key in keys} | {"n": str(row["n"])}
        for metric in goals:
            mean, sd, low, high = (row[metric + part] for part in SPREAD)
            told = [] if np.isnan(mean) else [f"{mean:.4g}"] if np.isnan(sd) else [f"{mean:.4g} ± {sd:.2g}"]
            star = [" *"] if mean == tops[metric] else []
            shown[metric] = "\n".join(["".join(told + star)] + ([] if np.isnan(sd) else [f"{low:.4g} to {high:.4g}"]))
            if "baseline" in row:
                difference, low, high, by = (row[metric + part] for part in BESIDE)
                told = [f"{difference:+.3g}", *([f"{low:+.3g} to {high:+.3g}", f"by {by}"] if by else ["not paired"])]
                shown[f"{metric} difference"] = "baseline" if row["baseline"] else "\n".join(told)
        table.append(shown | {"best run": row["runs"][0][:8]})
    return table


def best(rows: list[dict], metric: str, goal: str | None) -> float:
    """The best mean of a metric; NaN, which is like no other, where its direction is not known."""
    values = [row[metric] for row in rows if np.isfinite(row[metric])]
    return {"max": max, "min": min}[goal](values) if values and goal else np.nan


def markdown(table: list[dict[str, str]]) -> str:
    """A table in Markdown."""
    lines = [list(table[0]), ["---"] * len(table[0]), *(list(row.values()) for row in table)]
    cells = ([cell.replace("|", "\\|").replace("\n", "<br>") for cell in line] for line in lines)
    return "".join(f"| {' | '.join(line)} |\n" for line in cells)


def narrow(table: list[dict[str, str]], keys: list[str]) -> list[dict[str, str]]:
    """The table, its values in one column where the terminal has no room for one each."""
    rest = [name for name in table[0] if name not in keys]
    if len(keys) <= max(console.out.width // COLUMN - len(rest), 2):
        return table
    told = (", ".join(f"{key}={row[key]}" for key in keys if row[key]) for row in table)
    return [
        {"differs in": values} | {name: row[name] for name in rest} for values, row in zip(told, table, strict=True)
    ]


def drawn(table: list[dict[str, str]], goals: dict[str, str | None], title: str, caption: str) -> Table:
    """A table for the terminal."""
    grid = Table(title=title, caption=caption)
    for name in table[0]:
        grid.add_column(name, justify="right" if name.partition(" ")[0] in (*goals, "n") else "left", overflow="fold")
    for row in table:
        grid.add_row(*(Text(cell, style="bold green" if " *" in cell else "") for cell in row.values()))
    return grid


def caption(rows: list[dict], goals: dict[str, str | None], left: int, given: list[str]) -> str:
    """What the reader must know of the figures."""
    told = ["* best: " + ", ".join(f"{goal} {metric}" for metric, goal in goals.items() if goal)]
    if any(row["n"] > 1 for row in rows):
        told.append("± standard deviation of the n runs, below it the 95 % interval of their mean (Student's)")
    if given:
        told.append(f"difference from {' '.join(given)}, below it the 95 % interval of a bootstrap of pairs")
    if any("examples" in str(row.get(metric + BESIDE[-1])) for row in rows for metric in goals):
        told.append("by examples it holds for these trained models, whatever other seeds would give")
    if left:
        told.append(f"left out: {left} older with all the same values")
    return "; ".join(told)
