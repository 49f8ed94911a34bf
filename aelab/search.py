"""Search over configs, by Optuna's ask and tell: trials are jobs of a sweep, and a SQLite file remembers them.

A search is known by all that its trials' values depend on, so that the same command finds its trials again: the total
is that over all starts, and what ran when a process died is given out again, under its number and with its values.
Optuna is imported only where there is a search.
"""

import contextlib
import csv
import functools
import hashlib
import itertools
import json
import logging
import math
import os
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import filelock
from omegaconf import DictConfig, OmegaConf

from aelab import check, compose, console, database
from aelab.call import build
from aelab.config import AelabError, ConfigError, Count, Stopped, Whole
from aelab.space import Space, better
from aelab.store import address


class Pruned(Stopped):
    """A trial that was stopped as worse than others at the same epoch: neither failed nor finished."""


def random(seed: int, /):
    """Every value on its own, evenly over its list or interval."""
    import optuna

    return optuna.samplers.RandomSampler(seed)


def tpe(seed: int, /, *, startup: Whole, candidates: Count, multivariate: bool):
    """The tree-structured Parzen estimator (Bergstra et al., NeurIPS 2011)."""
    import optuna

    return optuna.samplers.TPESampler(
        n_startup_trials=startup, n_ei_candidates=candidates, multivariate=multivariate, seed=seed
    )


@functools.cache
def storage(file: Path, process: int):
    """Optuna's store in this process, whose id is `process`; made whole where there is none."""
    import optuna

    optuna.logging.disable_default_handler()  # its lines are for run.log, not for the terminal
    optuna.logging.enable_propagation()
    logging.getLogger("optuna").addHandler(logging.NullHandler())  # else Python itself prints warnings
    try:
        database.ensure(file, database.Kind("alembic_version", _tables, _unborn))
    except sqlite3.Error as error:
        raise AelabError(f"{file}: cannot be used ({error}); move it away, or give another output_dir") from error
    return optuna.storages.RDBStorage(address(file), engine_kwargs={"connect_args": {"timeout": 60}})


def _tables() -> set[str]:
    from optuna.storages._rdb.models import BaseModel

    return set(BaseModel.metadata.tables)


@contextlib.contextmanager
def _unborn() -> Iterator[sqlite3.Connection]:
    """Optuna's tables in memory."""
    import optuna

    store = optuna.storages.RDBStorage("sqlite://")
    with contextlib.closing(store.engine.raw_connection()) as raw:
        yield raw.driver_connection
    store.engine.dispose()


class Trial(NamedTuple):
    """A trial that may be stopped early, as its job sees it: can be sent to another process."""

    file: Path
    study: str
    number: int
    goal: str
    prune: int

    def report(self, row: Mapping[str, float]) -> None:
        """Tell what an epoch gave, the first is 1; raises `Pruned` where the trial is to end with it."""
        import optuna

        if self.goal not in row:
            raise ConfigError(
                f"search.prune={self.prune}: {self.goal} is not measured by epoch; give search.prune=null"
            )
        epoch, value = int(row["epoch"]), row[self.goal]
        with console.unbroken():
            pruner = optuna.pruners.MedianPruner(n_warmup_steps=self.prune)
            store = storage(self.file, os.getpid())
            study = optuna.load_study(study_name=self.study, storage=store, pruner=pruner)
            known = study.get_trials(deepcopy=False)[self.number]
            if epoch in known.intermediate_values or math.isnan(value):
                return  # told before the run was interrupted; or for the end of the run to judge
            trial = optuna.trial.Trial(study, known._trial_id)
            trial.report(value, epoch)
            if not trial.should_prune():
                return
            reason = f"pruned after epoch {epoch}: {self.goal} {value:.4g} is worse than the median of the trials"
            trial.set_user_attr("reason", reason)
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)  # with this value
        raise Pruned(reason)


class Asked(NamedTuple):
    """What is to be run: the trial's number, the job's overrides, and where it reports, if it may be pruned."""

    number: int
    overrides: list[str]
    trial: Trial | None


STATES = {"COMPLETE": "finished", "FAIL": "failed", "PRUNED": "pruned"}


class Ended(NamedTuple):
    """A trial that came to an end: "finished", "failed" or "pruned", why, its metrics, and its value of the goal."""

    number: int
    overrides: list[str]
    state: str
    reason: str
    metrics: dict[str, float] | None
    value: float | None


class Search:
    """The trials of one search. See `opened`."""

    def __init__(self, space: Space, cfg: DictConfig):
        import optuna

        own = OmegaConf.to_container(cfg.search)
        self.total, self.prune = own.pop("trials"), own["prune"]
        self.goal, self.monitor = own.pop("goal") or cfg.fit.monitor, cfg.fit.monitor
        self.pick = {name: {"min": min, "max": max}[better(cfg, name)] for name in (self.goal, self.monitor)}
        self.sampler = OmegaConf.create({k: v for k, v in own.items() if k not in check.GROUP_KEYS["search"]})
        self.space, self.seed, self.file = space, cfg.seed, Path(cfg.output_dir).resolve() / "search.db"
        facts = [compose.signature(cfg), space.axes(), own, self.goal]
        self.name = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:8]
        with console.unbroken():
            self.study = optuna.create_study(
                study_name=self.name,
                storage=storage(self.file, os.getpid()),
                direction=f"{better(cfg, self.goal)}imize",
                load_if_exists=True,
            )

    def __iter__(self) -> Iterator[Asked]:
        """First what ran when a process died, then new trials, until there are as many as were asked for."""
        for trial in self.trials()[: self.total]:
            if not trial.state.is_finished():
                yield self._asked(trial.number, trial._trial_id)
        while (number := len(self.trials())) < self.total:
            yield self._asked(number)

    def trials(self) -> list:
        """Optuna's record of every trial, by number."""
        return self.study.get_trials(deepcopy=False)

    def _asked(self, number: int, known: int | None = None) -> Asked:
        import optuna

        # Draws depend on the seed and the trial's number, not on how often the search was started again.
        seed = int(hashlib.sha256(f"{self.seed},{number}".encode()).hexdigest()[:8], 16)
        with console.unbroken():
            self.study.sampler = build(self.sampler, seed)
            trial = self.study.ask() if known is None else optuna.trial.Trial(self.study, known)
            words = self._words(trial)  # draws what was not drawn before
        told = Trial(self.file, self.name, number, self.goal, self.prune) if self.prune else None
        return Asked(number, words, told)

    def _words(self, trial) -> list[str]:
        return self.space.job({axis.key: axis.suggest(trial) for axis in self.space.axes()})

    def tell(self, number: int, metrics: dict[str, float] | None, reason: str, folder: Path) -> None:
        """What came of a trial, whose run is in `folder`: without a finite value it failed. Pruned ones are known."""
        import optuna

        known = self.trials()[number]
        if known.state.is_finished():
            return
        value = math.nan if metrics is None else self.value(metrics, folder)
        state = optuna.trial.TrialState.COMPLETE if math.isfinite(value) else optuna.trial.TrialState.FAIL
        if metrics is not None and not math.isfinite(value):
            reason = f"{self.goal} is {value}"
        with console.unbroken():
            trial = optuna.trial.Trial(self.study, known._trial_id)
            trial.set_user_attr("metrics", metrics)
            trial.set_user_attr("reason", reason)
            self.study.tell(trial, value if math.isfinite(value) else None, state)

    def value(self, metrics: Mapping[str, float], folder: Path) -> float:
        """The goal of the model that a run kept: a final metric, or else of its best epoch by `fit.monitor`."""
        if self.goal in metrics:
            return metrics[self.goal]
        file = folder / "history.csv"
        with file.open() if file.exists() else contextlib.nullcontext([]) as lines:
            rows = [{k: float(v or "nan") for k, v in row.items()} for row in csv.DictReader(lines)]
        if not any(self.goal in row for row in rows):
            known = sorted(k for k in {*metrics, *itertools.chain(*rows)} if k.startswith("val/"))
            raise ConfigError(
                f"search.goal={self.goal}: not measured by {folder}; it has: {', '.join(known) or 'none'}"
            )
        kept = [row for row in rows if not math.isnan(row[self.monitor])]
        return self.pick[self.monitor](kept, key=lambda row: row[self.monitor])[self.goal] if kept else math.nan

    def ended(self) -> list[Ended]:
        """Every trial that came to an end, at earlier starts of the command too."""
        return [
            Ended(
                trial.number,
                self._words(trial),
                STATES[trial.state.name],
                trial.user_attrs.get("reason", ""),
                trial.user_attrs.get("metrics"),
                trial.value,
            )
            for trial in self.trials()
            if trial.state.is_finished()
        ]


@contextlib.contextmanager
def opened(space: Space, cfg: DictConfig) -> Iterator[Search]:
    """The search of a command (see `space.space` and `space.checked`), for one process at a time."""
    search = Search(space, cfg)
    lock = filelock.FileLock(search.file.with_name(f"search-{search.name}.lock"), timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout as error:
        raise AelabError("this search is running already: wait for it, or search with another seed") from error
    try:
        yield search
    finally:
        lock.release()
