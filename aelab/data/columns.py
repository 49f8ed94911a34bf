"""Frames to numbers: what each column is, and which cells are not what their column says.

Letters in shapes: n rows, c columns.
"""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from aelab.config import ConfigError, DataError
from aelab.data.limits import listed, quoted, shown, unknown_name
from aelab.data.record import Columns

MISSING = "(missing)"
"""The value that stands for an empty cell of a categorical column."""
SHOWN = 3  # bad cells that an error names


def texts(values: pd.Series) -> pd.Series:
    """Values as texts, each by itself: 1, 1.0, "1" and "01" are all "1"; empty cells are `MISSING`.

    What a value becomes must not depend on the others, or an anomaly's text would change what the normal rows say.
    """
    known = {value: _text(value) for value in values.unique()}
    return values.astype(object).map(known).fillna(MISSING).astype(object)


def _text(value: object) -> str:
    if pd.isna(value) or not str(value).strip():
        return MISSING
    text = str(value).strip()
    if not text.isascii() or "_" in text:  # Python reads 1_000 and other scripts' digits as numbers; pandas does not
        return text
    try:
        found = float(text)
    except ValueError:
        return text
    if abs(found) >= 2**53:  # a code so long that a float would merge it with its neighbours
        return text
    return f"{found:.0f}" if found.is_integer() else repr(found)


def number(values: pd.Series) -> tuple[pd.Series, pd.Series]:
    """A column as float64, NaN where empty, and which cells are neither empty nor a finite number."""
    found = pd.to_numeric(values, errors="coerce").astype(float).where(values.notna())  # a missing date has a number
    bad = (found.isna() & values.notna()) | np.isinf(found)
    return found.mask(bad), bad


def is_number(values: pd.Series) -> bool:
    """Whether a column has any number in it: one that has none is categorical."""
    return pd.api.types.is_numeric_dtype(values) or pd.to_numeric(values, errors="coerce").notna().any()


def learn(frame: pd.DataFrame, names: Iterable[str], categorical: list[str] | None, reading: dict) -> Columns:
    """The columns of a table from its normal training rows; `categorical` None: those without any number."""
    names = list(names)
    if categorical is None:
        categorical = [name for name in names if frame[name].notna().any() and not is_number(frame[name])]
    for name in categorical:
        if name not in names:
            raise ConfigError(unknown_name("dataset.categorical:", name, names))
    return Columns(names, {n: sorted(texts(frame[n]).unique()) for n in names if n in categorical}, reading)


def encode(columns: Columns, frame: pd.DataFrame, where: str, repair: str | None) -> tuple:
    """A frame as numbers: (x, kept, told).

    x is float64 (n, c), NaN where a number is missing; a categorical column counts into its known values, and the
    number after the last is any other value. `kept` (n,) are the row numbers of x in the frame, `told` a dict of what
    was repaired or unseen, by column. With `repair` null a cell that is not what its column says is a DataError that
    names file, line (the frame's index) and column; with "missing" the cell counts as empty, with "drop" its
    row is left out.
    """
    lacking = [name for name in columns.names if name not in frame]
    if lacking:
        raise DataError(f"{where}: expected a column {quoted(lacking[0])}, got {listed(frame.columns)}")
    x, wrong, told = np.empty((len(frame), len(columns.names))), np.zeros(len(frame), bool), {}
    for i, name in enumerate(columns.names):
        if name in columns.categories:
            known = columns.categories[name]
            codes = pd.Categorical(texts(frame[name]), known).codes.astype(float)
            if unseen := int((codes < 0).sum()):
                told[name] = f"{unseen:,} values not seen in training"
            x[:, i] = np.where(codes < 0, len(known), codes)
            continue
        values, bad = number(frame[name])
        x[:, i] = values
        if bad.any():
            if repair is None:
                raise DataError(f"{where}: {cells(frame[name], bad)}")
            told[name] = f"{int(bad.sum()):,} cells that are no finite number, {repair}"
            wrong |= bad.to_numpy() if repair == "drop" else False
    kept = np.flatnonzero(~wrong)
    return x[kept], kept, told


def cells(values: pd.Series, bad: pd.Series) -> str:
    """The first bad cells of a column, by line, and what to do about them."""
    named = ", ".join(f"{quoted(v)} in line {line}" for line, v in values[bad].head(SHOWN).items())
    more = f" and {int(bad.sum()) - SHOWN:,} more" if bad.sum() > SHOWN else ""
    return (
        f"column {shown(values.name)}: expected finite numbers, got {named}{more}; mend them, or ask for "
        "repair=missing (they count as empty) or repair=drop (their rows are left out): dataset.repair in a run"
    )
