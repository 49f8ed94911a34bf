"""The jobs of a command: every combination of the values, pairs of them, a table's rows, and repeats over seeds."""

import contextlib
import csv
import hashlib
import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from hydra import compose as hydra_compose
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.types import Glob
from omegaconf import DictConfig, OmegaConf

from aelab import check, compose, console, keys
from aelab.compose import Job
from aelab.config import ConfigError, Sweep, Whole
from aelab.overrides import count, first_of, parse

PATIENCE = 100_000
"""Jobs that somebody may really want: to check as many takes about an hour."""
MANY = 50
"""Jobs whose checking takes a second or more."""
REPEATS = ("seed", "dataset.fold")
"""Swept values that make a job the repeat of another."""


ASIDE = ("hydra", "tracking", "launcher", "sweep", "search", "output_dir", "data_dir")
"""What is left out where a job is named by its overrides."""


class Refused(NamedTuple):
    """A job that cannot be: what was typed for it, and why."""

    overrides: list[str]
    why: str


def every(
    overrides: list[str], dirs: list[Path], multirun: bool, how: DictConfig | None = None
) -> tuple[list[Job], list[Refused]]:
    """The jobs of a command, composed and checked; without `multirun` it is one. Must be called within `session`.

    `how` is what `first` gave, where that was asked before. Of two jobs that are the same the first stands. Where a
    `glob(...)` asked for whatever there is, what does not fit is refused by itself; anything else that is wrong refuses
    the command.
    """
    own = [o for o in overrides if compose.name_of(o).startswith("hydra")]
    rest = [o for o in overrides if o not in own]
    how = first(overrides, dirs) if multirun and how is None else how
    listed = jobs(overrides, dirs, how) if multirun else [rest]
    globbed = multirun and any("glob(" in o for o in rest)
    if globbed:
        keys.check(parse(rest), how, dirs)
    found, refused, bases, home = {}, [], {}, None
    for words in progress(listed):
        try:
            if globbed:
                keys.fit(words, how, dirs)
            job = compose.job([*own, *words], dirs, multirun, len(found), bases)
        except ConfigError as error:
            if not globbed:
                raise
            refused.append(Refused(words, str(error)))
            continue
        home = home or job.folder.parent  # the names have the time in them
        found.setdefault(job.signature, job._replace(folder=home / job.folder.name) if multirun else job)
    if not found:
        raise ConfigError(refused[0].why)
    return list(found.values()), refused


def sign(jobs: list[Job]) -> str:
    """What a sweep is known by: a hash of its jobs' signatures."""
    return hashlib.sha256("".join(sorted(job.signature for job in jobs)).encode()).hexdigest()[:8]


def progress(listed: list) -> Iterator:
    """The items of a long list, with their number on a terminal until they are done."""
    with console.out.status(f"checking {len(listed)} jobs") if len(listed) > MANY else contextlib.nullcontext():
        yield from listed


def first(overrides: list[str], dirs: list[Path]) -> DictConfig:
    """What says how to sweep: the config of the first choices, as it is, without values of theirs. Within `session`."""
    words = [o for o in overrides if compose.name_of(o).startswith("hydra")]
    try:
        parsed = _parsed(overrides, dirs)
        compose.named(parsed, dirs)
        for o in parsed:
            its_own = "." in o.key_or_group and not o.key_or_group.startswith(("sweep.", "search."))
            words += [] if its_own or o.is_interval_sweep() else [first_of(o)]
        cfg = hydra_compose("config", [*compose.search_path(dirs), *words])
        settings = cfg.get("sweep")
        settings = OmegaConf.to_container(settings, resolve=True) if isinstance(settings, DictConfig) else settings
    except compose.REFUSALS as error:
        raise compose.explain(error, words, dirs) from error
    check.settings("sweep", settings, Sweep)
    check.from_file("sweep.over", cfg.sweep.over or ())
    return cfg


def _parsed(overrides: list[str], dirs: list[Path]) -> list:
    found = parse(written_out(overrides, dirs))
    return [o for o in found if not o.key_or_group.startswith("hydra")]


def jobs(overrides: list[str], dirs: list[Path], how: DictConfig | None = None) -> list[list[str]]:
    """The overrides of each job of a sweep, in order: `a=1,2 b=x,y` are four. Must be called within `session`."""
    cfg = how or first(overrides, dirs)
    parsed = _parsed(overrides, dirs)
    typed = {o.get_key_element() for o in parsed}
    over = [f"{key}={values}" for key, values in (cfg.sweep.over or {}).items() if key not in typed]
    parsed += _parsed(over, dirs)
    if intervals := [o.input_line for o in parsed if o.is_interval_sweep()]:
        raise ConfigError(
            f"{intervals[0]}: an interval is no list of values; add search=tpe, or give range(...) or a list"
        )
    _few({o.get_key_element(): count(o) for o in parsed}, cfg)
    axes = {o.get_key_element(): _values(o) for o in parsed}
    return [[o for words in job for o in words] for job in itertools.product(*_combined(axes, cfg))]


def _few(sizes: dict[str, int], cfg: DictConfig) -> None:
    """That a command makes no more jobs than it may, before any is made."""
    rows = len(table(Path(cfg.sweep.table))) if cfg.sweep.table else 1
    zipped = [sizes.get(key, 1) for key in cfg.sweep.zip]
    total = math.prod(size for key, size in sizes.items() if key not in cfg.sweep.zip)
    total *= max(zipped, default=1) * rows * (cfg.sweep.seeds or 1)
    if total > cfg.sweep.max_jobs:
        raise ConfigError(
            f"-m: {total:,} jobs, more than sweep.max_jobs={cfg.sweep.max_jobs}; give fewer values"
            + (f", or type sweep.max_jobs={total}" if total <= PATIENCE else "")
        )


def _values(override) -> list[list[str]]:
    return [list(words) for words in BasicSweeper.split_arguments([override], None)[0]]


def _combined(axes: dict[str, list[list[str]]], cfg: DictConfig) -> list[list[list[str]]]:
    """The axes as they are multiplied: those of `sweep.zip` side by side, those of a table and of seeds added."""
    settings = cfg.sweep
    if missing := [key for key in settings.zip if len(axes.get(key, ())) < 2]:
        raise ConfigError(f"sweep.zip: {missing[0]} is not swept; give it several values, as {missing[0]}=1,2")
    sizes = {key: len(axes[key]) for key in settings.zip}
    if len(set(sizes.values())) > 1:
        told = ", ".join(f"{key} {count}" for key, count in sizes.items())
        raise ConfigError(f"sweep.zip: expected as many values of each, got {told}")
    rows = list(zip(*(axes[key] for key in settings.zip), strict=True))
    zipped = [[[o for words in row for o in words] for row in rows]] if rows else []
    found = [axis for key, axis in axes.items() if key not in settings.zip] + zipped
    swept = {key for key, axis in axes.items() if len(axis) > 1}
    if settings.table:
        found.append(table(Path(settings.table)))
        columns = {compose.name_of(o) for row in found[-1] for o in row}
        if twice := sorted(columns & swept):
            raise ConfigError(f"sweep.table: {twice[0]} is a column, and is swept beside it; leave one of them out")
        swept |= columns
    if settings.seeds:
        if "seed" in swept:
            raise ConfigError("sweep.seeds: the seed is swept already; leave one of them out")
        check.expect("seed", cfg.seed, Whole)
        found = [axis for axis in found if not axis[0] or not axis[0][0].startswith("seed=")]
        found.append([[f"seed={cfg.seed + i}"] for i in range(settings.seeds)])
    return found


def table(file: Path) -> list[list[str]]:
    """The overrides of each row of a CSV whose header names the values; an empty field leaves its value out."""
    try:
        with file.open(newline="", encoding="utf-8-sig") as text:
            header, *rows = [row for row in csv.reader(text) if row]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"sweep.table={file}: cannot be read ({error})") from error
    except ValueError as error:
        raise ConfigError(f"sweep.table={file}: is empty; expected a header with names of values") from error
    check.from_file(f"sweep.table={file}", header)
    for number, row in enumerate(rows, 2):
        if len(row) != len(header):
            raise ConfigError(f"sweep.table={file}: row {number} has {len(row)} fields, the header {len(header)}")
    if not rows:
        raise ConfigError(f"sweep.table={file}: has a header, but no row")
    return [[f"{k.strip()}={v.strip()}" for k, v in zip(header, row, strict=True) if v.strip()] for row in rows]


def written_out(overrides: list[str], dirs: list[Path]) -> list[str]:
    """Every `group=glob(...)` as the list that it stands for: Hydra would look for it in our own folder alone."""
    listed = []
    for o in parse(overrides):
        if isinstance(o._value, Glob):
            group, known = o.key_or_group, list(compose.choices(o.key_or_group, dirs))
            names = o._value.filter(known)
            if not names:
                there = ", ".join(known) or "none, as it is no group"
                raise ConfigError(f"{o.input_line}: matches no {group}; there are: {there}")
            listed.append(f"{group}={','.join(names)}")
        else:
            listed.append(o.input_line)
    return listed


def misfits(refused: list[Refused]) -> dict[str, list[str]]:
    """Why jobs were refused -> which choices of theirs, or which jobs, that is said of; what would fit is left out."""
    found = {}
    for job in refused:
        name, _, why = job.why.partition(": ")
        name, why = (name, why.partition("; ")[0]) if "=" in name else (told(job.overrides), job.why)
        found.setdefault(why, {})[name] = None
    return {why: list(names) for why, names in found.items()}


def told(overrides: list[str]) -> str:
    """A job's overrides in a line, without those that change nothing in it."""
    return " ".join(o for o in overrides if not o.startswith(ASIDE))


def values(overrides: list[str]) -> list[str]:
    """The values among a job's overrides, in short, for its name: model.bottleneck=8 is bottleneck=8."""
    pairs = (o.partition("=") for o in overrides if not o.startswith(ASIDE))
    return [f"{key.rpartition('.')[2]}={value}" for key, _, value in pairs if "." in key]
