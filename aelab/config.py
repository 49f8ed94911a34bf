"""Errors, and the types of config values and what conforms to them: the lowest layer, free of heavy imports.

The types are used as annotations of YAML knobs all over the package, and `check.py` compares config values with
them before anything is imported. No default value stands here: those are in `conf/`.
"""

import re
import sys
import types
import typing
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple, Union


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


class Stopped(AelabError):
    """A run that is ended before its time, on purpose: it did not fail, and can be gone on with."""

    code = 0


FINITE = sys.float_info.max
MOST = 2**31 - 1
"""The largest whole number that a config may have: TensorFlow counts in 32 bits, and NumPy's seeds have no more."""


class Range(NamedTuple):
    """Bounds of a number: `low` is out where `open`, `high` where `below`; None is no bound."""

    low: float | None
    high: float | None
    open: bool = False
    below: bool = False

    def __str__(self):
        high = None if self.high == MOST else self.high  # said only where it is passed
        if self.open:
            return f"above {self.low}" + (f" and {'below' if self.below else 'at most'} {high}" if high else "")
        if high is None:
            return f"at least {self.low}"
        if self.below:
            return f"at least {self.low} and below {high}"
        return f"from {self.low} to {high}" if self.low is not None else f"at most {high}"

    def holds(self, value: float) -> bool:
        """Whether a number is within the bounds."""
        above = self.low is None or value > self.low or (value == self.low and not self.open)
        return above and (self.high is None or value < self.high or (value == self.high and not self.below))


class Pattern(NamedTuple):
    """What the whole of a text must match, and that in words."""

    regex: str
    words: str

    def holds(self, value: str) -> bool:
        """Whether a text matches."""
        return re.fullmatch(self.regex, value) is not None


NAMES = r"(?!\.{1,2}$)(?!\s)[^/\\\x00-\x1f\x7f]{1,200}(?<!\s)"
Name = Annotated[str, Pattern(NAMES, "a name, of at most 200 characters and without /")]
Folder = Annotated[str, Pattern(r"(?=.*\S)[^\x00-\x1f\x7f]+", "the path of a folder")]
Count = Annotated[int, Range(1, MOST)]
Whole = Annotated[int, Range(0, MOST)]
Level = Annotated[float, Range(0, None)]
Above = Annotated[float, Range(0, None, open=True)]
Share = Annotated[float, Range(0, 1)]
Part = Annotated[float, Range(0, 1, open=True)]
Rest = Annotated[float, Range(0, 1, below=True)]
"""A share that leaves something."""
Held = Annotated[float, Range(0, 1, open=True, below=True)]
"""A share that is something, and leaves something."""


class Of(NamedTuple):
    """What a knob is whose value is itself a component: of a group, called by what has the knob."""

    group: str


ModelNode = Annotated[dict, Of("model")]
"""The config of a model, with its `_target_`."""
ModelNodes = dict[str, ModelNode]
SimilarityNode = Annotated[dict, Of("similarity")]

# The kinds of input. A model's first positional parameter is annotated with the kind that it takes, a data set's
# return value with the kind that it gives, and a task names its own: so they can be matched without an import.
Image = tuple[int, int, int]
"""Shape (h, w, c) of one image; pixels are float32 in [0, 1]."""
Coded = tuple[int, int, int]
"""The same, of a model that puts the whole image through a code: its outputs are a dict with "output" and "code"."""
Drawn = tuple[int, int, int]
"""The same, with a distribution as code, "mean" and "log_variance", and one layer `Draw` from it to a code."""
Row = tuple[int]
"""Shape (d,) of one prepared row of a table; features are float32."""
# The same for the arrays that corruptions and metrics work on.
Pixels = Any
"""Images, float32 (n, h, w, c) in [0, 1]."""
Rows = Any
"""Rows of a table: prepared, float32 (n, d); before preparation float64 (n, columns), NaN where missing."""
Labels = Any
"""Which rows are anomalies: bool (n,), beside their scores, float (n,), higher = stranger."""

Masked = Any
"""Images some of whose pixels are hidden, or are to be; of a model, the shape (h, w, c) of one."""
Interactions = tuple[int, int]
"""(k, w): how many numbers are known of a user, and how many are wanted: what a top-K model takes and gives."""
ByItem = tuple[int, int]
"""The same of an item: a row for each item instead of each user."""
Catalogue = Any
"""A catalogue of items whose vectors are known already."""
Pairs = Any
"""Pairs of a user and an item, and what is known of both: what a rating model is built from."""
Tokens = tuple[int, int]
"""(v, b): the size of the vocabulary, and how many streams of text are read side by side in training."""
Hits = Any
"""Which places of top-K lists hold a wanted item: bool (u, k), beside how many were wanted, int (u,)."""
Values = Any
"""Targets of any shape, (b, ...), to be compared with outputs of the same shape."""
Rebuilt = Any
"""The same, of a batch that a model is trained on."""


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
    experiment: Name
    log_model: bool


@dataclass
class Sweep:
    """Which jobs `-m` makes, what it does with those that were run before, and whether it only shows them."""

    plan: bool
    force: bool
    retry: Literal["failed"] | None
    on_error: Literal["continue", "stop"]
    seeds: Count | None
    zip: list[str]
    table: str | None
    over: dict[str, str | float | bool] | None
    max_jobs: Count


@dataclass
class Run:
    """The settings of a run that are not a component's own."""

    choices: dict[str, str]
    seed: Whole
    fit: Fit
    tracking: Tracking
    sweep: Sweep
    output_dir: Folder
    data_dir: str | None
    allow: list[str]
    profile: bool


PARTS = ("input", "biharmonic", "gain", "pca", "real", "palette", "low", "high")
"""Beside a metric: doing nothing, biharmonic inpainting, the gain, PCA, real rows, mean colours, an interval's ends."""
BESIDE = tuple(f"_{name}" for name in PARTS)


def group_of(kind: Any) -> tuple[str | None, bool]:
    """(the group of the component that a value of this type is, or None; whether it is several by their names)."""
    several = typing.get_origin(kind) is dict
    args = typing.get_args(typing.get_args(kind)[1] if several else kind)
    return next((a.group for a in args if isinstance(a, Of)), None), several


def describe(kind: Any) -> str:
    """A type in words, for errors."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        bounds = next((a for a in args[1:] if isinstance(a, Range | Pattern)), None)
        if isinstance(bounds, Pattern):
            return bounds.words
        return f"{describe(args[0])} {bounds}" if bounds else describe(args[0])
    if origin is Literal:
        return "one of " + ", ".join(map(str, args))
    if origin in (Union, types.UnionType):
        return " or ".join(describe(a) for a in args)
    if origin in (list, tuple) or kind in (list, tuple):
        return f"a list: each {describe(args[0])}" if args else "a list"
    if origin is dict:
        return f"names, and for each {describe(args[1])}"
    names = {
        int: "a whole number",
        float: "a number",
        str: "a text",
        bool: "true or false",
        types.NoneType: "null",
        dict: "values by name",
    }
    return names.get(kind, getattr(kind, "__name__", str(kind)))


def conforms(value: Any, kind: Any) -> bool:
    """Whether a config value is of an annotated type; types that are not simple are let through."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        bounds = [a for a in args[1:] if isinstance(a, Range | Pattern)]
        return conforms(value, args[0]) and (value is None or all(bound.holds(value) for bound in bounds))
    if origin is Literal:
        return value in args
    if origin in (Union, types.UnionType):
        return any(conforms(value, a) for a in args)
    if origin is dict:
        pairs = value.items() if isinstance(value, dict) else [(None, None)]
        return all(conforms(k, args[0]) and conforms(v, args[1]) for k, v in pairs)
    if origin in (list, tuple) or kind in (list, tuple):
        return isinstance(value, list) and all(conforms(v, args[0]) for v in value if args)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= FINITE
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if kind in (str, bool, types.NoneType, dict):
        return isinstance(value, kind)
    return True
