"""What a search draws from: the lists, ranges and intervals of its command, as they are typed for Hydra's sweeps."""

import contextlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from hydra.core.override_parser.types import ChoiceSweep, RangeSweep
from omegaconf import DictConfig

from aelab import compose, grid
from aelab.config import ConfigError
from aelab.overrides import ends, parse

SINGLE = ("search", "hydra", "sweep", "seed", "output_dir", "data_dir", "tracking", "launcher", "allow", "profile")
"""What has one value in all trials: no result depends on it, or a seed, which is not to be chosen by its result."""


class Choice(NamedTuple):
    """A key that takes one of several texts, in no order."""

    key: str
    texts: list[str]

    def __str__(self):
        return f"{self.key}: {', '.join(self.texts)}"

    def ends(self) -> list[str]:
        """The texts that have to make a good config for the search to be one."""
        return self.texts

    def suggest(self, trial) -> str:
        """What an Optuna trial has, or draws, as it is typed."""
        return trial.suggest_categorical(self.key, self.texts)


class Number(NamedTuple):
    """A key that takes a number from `low` to `high`, both included: a whole one where `low` is whole."""

    key: str
    low: float
    high: float
    step: float | None
    log: bool

    def __str__(self):
        told = f" in steps of {typed(self.step)}" if self.step else ", on a log scale" if self.log else ""
        return f"{self.key}: from {typed(self.low)} to {typed(self.high)}{told}"

    def ends(self) -> list[str]:
        """The texts that have to make a good config for the search to be one."""
        return [typed(self.low), typed(self.high)]

    def suggest(self, trial) -> str:
        """What an Optuna trial has, or draws, as it is typed."""
        if isinstance(self.low, int):
            return typed(trial.suggest_int(self.key, self.low, self.high, step=self.step or 1, log=self.log))
        return typed(trial.suggest_float(self.key, self.low, self.high, step=self.step, log=self.log))


def typed(value: float) -> str:
    """A number as a person would type it: of a fraction six digits."""
    return str(value) if isinstance(value, int) else str(float(f"{value:.6g}"))


class Space(NamedTuple):
    """A search's command: each key with its axis or its one override; and what is for the search, not for its jobs."""

    words: dict[str, Choice | Number | str]
    aside: list[str]

    def axes(self) -> list[Choice | Number]:
        """What is searched over, in the order in which it was typed."""
        return [word for word in self.words.values() if not isinstance(word, str)]

    def job(self, texts: Mapping[str, str]) -> list[str]:
        """The overrides of the job that has these values on the axes."""
        return [f"{key}={texts[key]}" if key in texts else word for key, word in self.words.items()]


def space(overrides: list[str], over: Mapping[str, str], dirs: list[Path]) -> Space:
    """What a command searches over; `over` adds what an experiment does (`sweep.over`) unless it is typed."""
    parsed = parse(grid.written_out(overrides, dirs))
    known = {o.get_key_element() for o in parsed}
    more = [f"{key}={values}" for key, values in over.items() if key not in known]
    parsed += parse(grid.written_out(more, dirs))
    words, aside = {}, []
    for o in parsed:
        root = o.key_or_group.replace("/", ".").partition(".")[0]
        if o.is_sweep_override() and root in SINGLE:
            raise ConfigError(f"{o.input_line}: {root} is the same in all trials of a search; give one value")
        if root in ("search", "sweep", "hydra"):
            aside.append(o.input_line)
        else:
            words[o.get_key_element()] = axis(o) if o.is_sweep_override() else o.input_line
    return Space(words, aside)


def axis(override) -> Choice | Number:
    """A list, range or interval of Hydra's as what Optuna draws from: an interval with both its ends."""
    key, line, sweep = override.get_key_element(), override.input_line, override.value()
    log = "log" in sweep.tags
    if other := sorted(sweep.tags - {"log"}):
        raise ConfigError(f"{line}: the only tag is log, got {other[0]}")
    if isinstance(sweep, ChoiceSweep):
        if log:
            raise ConfigError(f"{line}: log is for numbers between two ends, as in tag(log,interval(1,10))")
        return Choice(key, list(dict.fromkeys(override.sweep_string_iterator())))
    if isinstance(sweep, RangeSweep):
        (low, high), step = sorted(ends(override)), abs(sweep.step)
        if log and not (isinstance(low, int) and step == 1):
            raise ConfigError(f"{line}: a range on a log scale has whole steps of 1; or type tag(log,interval(...))")
    else:
        (low, high), step = (sweep.start, sweep.end), None
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ConfigError(f"{line}: expected two finite numbers")
        if float(low).is_integer() and float(high).is_integer():
            low, high = int(low), int(high)
    if low > high or (log and low <= 0):
        raise ConfigError(f"{line}: expected {'0 < ' if log else ''}low <= high, got {low} and {high}")
    return Number(key, low, high, step, log)


def checked(found: Space, dirs: list[Path]) -> tuple[Space, DictConfig]:
    """A search's space and config, its axes at their first values. Must be called within `compose.session`.

    All values of lists, and both ends of ranges and intervals, are composed and checked, one at a time. An interval
    between whole numbers has fractions in it where its key takes them.
    """
    if not found.axes():
        raise ConfigError(
            "nothing to search over: give a list, range(...) or interval(...), "
            "as in optimizer.learning_rate=tag(log,interval(1e-4,1e-2))"
        )
    lows, bases = {axis.key: axis.ends()[0] for axis in found.axes()}, {}

    def composed(**texts: str) -> DictConfig:
        return compose.compose([*found.aside, *found.job({**lows, **texts})], dirs, 0, bases)

    cfg, words = composed(), dict(found.words)
    goal = cfg.search.goal or cfg.fit.monitor
    better(cfg, goal)
    for name in ("seeds", "zip", "table"):
        if cfg.sweep.get(name):
            raise ConfigError(f"sweep.{name}: is not for a search, which draws its trials one by one; leave it out")
    for axis in found.axes():
        for text in axis.ends()[1:]:
            if composed(**{axis.key: text}).loss != cfg.loss and goal == "val/loss":
                raise ConfigError(f"{axis.key}={text}: makes val/loss another quantity; give search.goal=val/METRIC")
        if isinstance(axis, Number) and axis.step is None:
            with contextlib.suppress(ConfigError):  # which says that the key takes whole numbers alone
                composed(**{axis.key: typed(axis.low + 0.5)})
                words[axis.key] = axis._replace(low=float(axis.low), high=float(axis.high))
    return found._replace(words=words), cfg


def better(cfg: DictConfig, name: str) -> str:
    """Whether "min" or "max" of a value of validation is best: of losses the least, of metrics what their YAML says."""
    split, _, rest = name.partition("/")
    goals = {"loss": "min", **dict.fromkeys(cfg.loss, "min"), **{k: node.goal for k, node in cfg.metric.items()}}
    if split != "val" or rest.partition("@")[0] not in goals:
        known = ", ".join(f"val/{n}" for n in goals)
        raise ConfigError(f"{name}: no value of validation to search by; there are: {known}")
    return goals[rest.partition("@")[0]]
