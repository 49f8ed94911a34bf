"""Errors, and the types that config values may have: the lowest layer, free of heavy imports.

The types are used as annotations of YAML knobs all over the package, and `check.py` compares config values with
them before anything is imported. No default value stands here: those are in `conf/`.
"""

from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple


class AelabError(Exception):
    """An error whose message alone tells the user what was expected, what came, and what to type instead."""

    code = 1


class ConfigError(AelabError):
    """A config that cannot be run: found before anything is imported or trained."""

    code = 2


class DataError(AelabError):
    """A data file that is broken, altered or not what was asked for."""


class DataUnavailable(DataError):
    """Data that is neither on this machine nor to be downloaded."""


class Range(NamedTuple):
    """Closed bounds of a number; None is no bound."""

    low: float | None
    high: float | None

    def __str__(self):
        if self.high is None:
            return f"at least {self.low}"
        return f"from {self.low} to {self.high}" if self.low is not None else f"at most {self.high}"


Count = Annotated[int, Range(1, None)]
Whole = Annotated[int, Range(0, None)]
Level = Annotated[float, Range(0, None)]
Share = Annotated[float, Range(0, 1)]

# The kinds of input. A model's first positional parameter is annotated with the kind that it takes, a data set's
# return value with the kind that it gives, and a task names its own: so they can be matched without an import.
Image = tuple[int, int, int]
"""Shape (h, w, c) of one image; pixels are float32 in [0, 1]."""


@dataclass
class Fit:
    """Training: see `conf/config.yaml` for what each value does."""

    epochs: Whole
    batch_size: Count
    precision: Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"]
    steps_per_execution: Count
    deterministic: bool
    monitor: str
    patience: Count | None


@dataclass
class Tracking:
    """Where runs are logged."""

    uri: str | None
    experiment: str
    log_model: bool


@dataclass
class Run:
    """The settings of a run that are not a component's own."""

    choices: dict[str, str]
    seed: Whole
    fit: Fit
    tracking: Tracking
    output_dir: str
    data_dir: str | None
    allow: list[str]
    profile: bool
