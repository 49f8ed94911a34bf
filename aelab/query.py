"""The finished runs of a store, and filters on all that is known of them; without the cost of training's imports."""

import difflib
import gc
import operator
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from hydra.core.hydra_config import HydraConfig

from aelab import compose
from aelab.config import AelabError, ConfigError
from aelab.store import veiled

ORDER = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
FILTER = re.compile(r"(.+?)(!=|<=|>=|=|<|>)(.*)")
OWN = "aelab."
NONE_YET = "{}: there are no runs yet; make one with: aelab debug=fast"


class Run(NamedTuple):
    """A run: its id, parameters and metrics; and all that it can be filtered by, tags and status among it, by name."""

    id: str
    params: dict[str, str]
    metrics: dict[str, float]
    facts: dict[str, object]


class Filter(NamedTuple):
    """`key`, one of = != < <= > >=, and what it is compared with."""

    key: str
    sign: str
    wanted: str

    def __str__(self):
        return "".join(self)

    def fits(self, run: Run) -> bool:
        """Whether a run has it so; what a run has not is null, and neither less nor more than a number."""
        value = run.facts.get(self.key)
        if self.sign in ORDER:
            own = number(value)
            return own is not None and ORDER[self.sign](own, float(self.wanted))
        any_of = re.split(r",(?![^\[]*\])", self.wanted)  # a comma in [8,16] is the list's
        return any(same(value, word) for word in any_of) == (self.sign == "=")


def number(value: object) -> float | None:
    """A value as a number; None where it is none."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def same(value: object, word: str) -> bool:
    """Whether a stored value is what was typed: 0.10 is 0.1, true is True, [8,16] is [8, 16]."""
    if number(value) is not None and number(word) is not None:
        return number(value) == number(word)
    return ("null" if value is None else str(value)).replace(" ", "").lower() == word.replace(" ", "").lower()


def parse(word: str) -> Filter:
    """A filter as it was typed."""
    found = FILTER.fullmatch(word)
    if not found:
        raise ConfigError(f"{word}: expected a filter: model=unet_mini, seed!=0, or quoted, 'test/psnr>20'")
    made = Filter(*found.groups())
    if made.sign in ORDER and number(made.wanted) is None:
        raise ConfigError(f"{word}: expected a number after {made.sign}, got {made.wanted!r}")
    return made


def known(name: str, names: Iterable[str]) -> str:
    """The name, which must be one of those that there are: a metric of the test may leave `test/` out."""
    names = sorted(set(names))
    for full in (name, f"test/{name}"):
        if full in names:
            return full
    near = difflib.get_close_matches(name, names, 3, 0.4) or names[:10]
    raise ConfigError(f"{name}: no run has it; nearest are: {', '.join(near) or 'none'}")


def parsed(words: Iterable[str], runs: list[Run]) -> list[Filter]:
    """Filters as they were typed, whose names some run must have."""
    names = {name for run in runs for name in run.facts}
    return [f._replace(key=known(f.key, names)) for f in map(parse, words)]


def fitting(runs: list[Run], filters: list[Filter]) -> list[Run]:
    """The runs that fit all filters."""
    return [run for run in runs if all(f.fits(run) for f in filters)]


def place(task: str | None, output_dir: str | None) -> tuple[str | None, str, str]:
    """(tracking URI, output folder, experiment) of a task's runs, as the config has them."""
    dirs = compose.folders([])
    tasks = compose.choices("task", dirs)
    if task is not None and task not in tasks:
        raise ConfigError(f"task={task}: no such task; there are: {', '.join(tasks)}")
    with compose.session():  # not checked as a run's: nothing is run, and some tasks need more than their name
        cfg, _ = compose.based([*compose.search_path(dirs), *([f"task={task}"] if task else [])], dirs, {})
        HydraConfig.instance().set_config(cfg)
        return cfg.tracking.uri, output_dir or cfg.output_dir, cfg.tracking.experiment


def runs(uri: str | None, output_dir: str, experiment: str, any_status: bool) -> list[Run]:
    """The finished runs of an experiment, or those of any status, the newest first; parents of sweeps are none."""
    if not uri and not (Path(output_dir) / "mlflow.db").exists():
        raise AelabError(NONE_YET.format(f"{output_dir}/mlflow.db"))
    gc.disable()  # what is imported and read stays: looking through it took as long as reading it
    try:
        return read(uri, output_dir, experiment, any_status)
    finally:
        gc.freeze()
        gc.enable()


def read(uri: str | None, output_dir: str, experiment: str, any_status: bool) -> list[Run]:
    """`runs`, in as few calls of the store as there are pages of 5,000."""
    from aelab import tracking

    client = tracking.look(uri, output_dir)
    if client is None:
        raise AelabError(NONE_YET.format(veiled(uri or f"{output_dir}/mlflow.db")))
    there, found, page = client.get_experiment_by_name(experiment), [], None
    wanted = "" if any_status else "attributes.status = 'FINISHED'"
    while there:
        part = client.search_runs([there.experiment_id], wanted, max_results=5000, page_token=page)
        found, page = found + [run_of(run) for run in part], part.token
        if not page:
            break
    if found := [run for run in found if "task" in run.params]:
        return found
    others = sorted(e.name for e in client.search_experiments() if e.name not in ("Default", experiment))
    raise AelabError(
        f"experiment {experiment}: has no {'' if any_status else 'finished '}runs; "
        + (f"there are: {', '.join(others)}; give task=NAME or --experiment NAME" if others else "nor has another")
    )


def plain(metric: str) -> str:
    """Our name of a metric: `ndcg_at_10` is ndcg@10, which MLflow does not take."""
    return re.sub(r"_at_(?=\d+$)", "@", metric)


def run_of(run) -> Run:
    """MLflow's run as ours."""
    params, tags = run.data.params, run.data.tags
    metrics = {plain(name): value for name, value in run.data.metrics.items()}
    own = {name.removeprefix(OWN): value for name, value in tags.items() if name.startswith(OWN)}
    named = {"run": run.info.run_id, "name": run.info.run_name, "status": run.info.status}
    named |= {"parent": tags["mlflow.parentRunId"]} if "mlflow.parentRunId" in tags else {}
    return Run(run.info.run_id, params, metrics, own | metrics | named | params)
