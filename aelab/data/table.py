"""Tables from CSV and Parquet files: read, checked, cut into splits without a leak, encoded as numbers."""

import math
from typing import Literal

import numpy as np
import pandas as pd

from aelab.config import ConfigError, Count, DataError, Share, Whole
from aelab.data.columns import encode, learn, texts
from aelab.data.frames import locate, read_frame
from aelab.data.limits import quoted, shown, unknown_name
from aelab.data.record import Data, Split, Table, fingerprint, sample

LONGEST_DATE = 100
"""Characters of a date."""


def table(
    *,
    name: str,
    path: str,
    test_path: str | None,
    data_dir: str | None,
    urls: dict[str, list[str]] | None,
    md5: dict[str, str] | None,
    names: list[str] | None,
    header: bool,
    delimiter: str,
    missing: list[str],
    label: str,
    normal: str | float | list | None,
    positive: str | float | list | None,
    families: dict[str, list] | None,
    categorical: Literal["auto"] | list[str],
    drop: list[str],
    repair: Literal["missing", "drop"] | None,
    time: str | None,
    test: Share,
    validation: Share,
    contamination: Share,
    limit: Count | None,
    split_seed: Whole,
    seed: Whole,
    source: str,
    licence: str,
) -> Table:
    """Rows of a CSV or Parquet file, of which those with a certain label are anomalies.

    `normal` are the labels of normal rows, or `positive` those of anomalies: one of the two is given. `families` name
    kinds of anomalies by their labels. Without `test_path` a share `test` of the rows is cut off: the latest by the
    column `time`, else a stratified draw by `split_seed`, as scikit-learn's train_test_split makes it. `validation`
    is cut from the rest in the same way, by `seed`, and has anomalies as they come. The training rows are the normal
    ones of what is left, with as many anomalies mixed in as make `contamination` of them.

    Relative paths are looked for in `data_dir` and the cache, and downloaded, where `urls` are given: see `fetch`.
    Errors: DataError names file, line and column; ConfigError names the setting.
    """
    reading = {"names": names, "header": header, "delimiter": delimiter, "missing": missing}
    files = {"train": path, "validation": path, "test": test_path or path}
    frames = {file: read_frame(locate(file, urls, md5, data_dir), **reading) for file in dict.fromkeys(files.values())}
    for file, frame in frames.items():
        for setting, wanted in (("label", [label]), ("drop", drop), ("time", [time] if time else [])):
            present(frame, file, setting, wanted)
    given = {file: labels(frame[label], file, normal, positive, families) for file, frame in frames.items()}
    parts = split(frames, given, path, test_path, time, (test, split_seed), (validation, seed))
    columns = [column for column in frames[path].columns if column not in (label, *drop)]
    known = None if categorical == "auto" else categorical
    about = name, parts, given[path][1], columns, known, reading, mark(*frames.values())
    cutting = {"repair": repair, "contamination": contamination, "limit": limit, "seed": seed}
    return assemble(*about, **cutting, where=files, source=source, licence=licence)


def split(frames, given, path, test_path, time, test: tuple, validation: tuple) -> dict[str, tuple]:
    """Part -> (frame, y); `test` and `validation` are the share and the seed of each draw."""
    y, clock = given[path][0], clock_of(frames[path], time, path) if time else None
    rows, parts = np.arange(len(y)), {}
    if test_path:
        parts["test"] = frames[test_path], given[test_path][0]
    else:
        rows, held = cut(rows, y, *test, clock)
        parts["test"] = frames[path].iloc[held], y[held]
    rows, held = cut(rows, y, *validation, clock)
    return parts | {part: (frames[path].iloc[r], y[r]) for part, r in (("train", rows), ("validation", held))}


def present(frame: pd.DataFrame, where: str, setting: str, names: list[str]) -> None:
    """ConfigError for a column that is not there, with the setting that names it."""
    for name in names:
        if name not in frame:
            raise ConfigError(f"{where}: dataset.{setting}: {unknown_name('column', name, frame.columns)}")


def labels(values: pd.Series, where: str, normal, positive, families) -> tuple[np.ndarray, tuple[str, ...]]:
    """(y, names) of a label column: y int64 (n,), 0 is normal and the others count into the names of families."""
    if (normal is None) == (positive is None):
        raise ConfigError("dataset: expected either normal or positive, the labels of normal rows or of anomalies")
    if values.isna().any():
        lines, name = ", ".join(map(str, values.index[values.isna()][:3])), shown(values.name)
        raise DataError(f"{where}: column {name}: expected a label in every row, got none in line {lines}")
    found, given = texts(values), normal if positive is None else positive
    given = list(texts(pd.Series(given if isinstance(given, list) else [given], dtype=object)))
    told = ", ".join(f"{shown(k)} ({v:,})" for k, v in found.value_counts().head(6).items())
    strange = ~found.isin(given) if positive is None else found.isin(given)
    if strange.all() or not strange.any():
        which = "normal" if strange.all() else "anomalous"
        raise DataError(
            f"{where}: expected rows of both classes, got no {which} one; column {shown(values.name)} has {told}, and "
            f"{'normal' if positive is None else 'positive'} is {', '.join(map(shown, given))}"
        )
    if families is None:
        return strange.to_numpy().astype(np.int64), ("normal", "anomaly")
    names = ("normal", *families, "other")
    index = {text: i for i, f in enumerate(families, 1) for text in texts(pd.Series(families[f], dtype=object))}
    y = found.map(index).fillna(len(families) + 1).astype(np.int64)
    return np.where(strange, y, 0), names


def clock_of(frame: pd.DataFrame, time: str, where: str) -> np.ndarray:
    """The time of each row as something that can be ordered: numbers, or dates."""
    column = frame[time]
    if (missing := column.isna()).any():  # they would be sorted to the end: into the test rows
        lines = ", ".join(map(str, column.index[missing][:3]))
        raise DataError(f"{where}: column {shown(time)}: expected a time in every row, got none in line {lines}")
    if pd.api.types.is_numeric_dtype(column):
        return column.to_numpy()
    bad = column.map(lambda value: isinstance(value, str) and len(value) > LONGEST_DATE)
    try:
        if not bad.any():  # pandas takes seconds, or minutes, to see that a long text is no date
            return pd.to_datetime(column).to_numpy()
        said = ""
    except (ValueError, TypeError) as error:
        said, bad = shown(str(error), 200), pd.to_datetime(column, errors="coerce").isna()
    said = ", ".join(f"{quoted(v)} in line {line}" for line, v in column[bad].head(3).items()) or said
    raise DataError(f"{where}: column {shown(time)}: expected numbers or dates of one form, got {said}")


def cut(rows: np.ndarray, y: np.ndarray, share: float, seed: int, clock: np.ndarray | None) -> tuple:
    """(rest, held out) of row numbers: the latest `share` by the clock, else a stratified draw."""
    from sklearn.model_selection import train_test_split

    if not 0 < share < 1:
        raise ConfigError(f"dataset: expected a share of rows above 0 and below 1 to hold out, got {share}")
    if clock is not None:
        rows = rows[np.argsort(clock[rows], kind="stable")]
        count = math.ceil(len(rows) * share)
        return rows[:-count], rows[-count:]
    strange = (y[rows] > 0).astype(int)
    if min(strange.sum(), len(rows) - strange.sum()) < 2:
        raise DataError("dataset: expected at least two anomalies and two normal rows, to be drawn into the splits")
    try:
        rest, held = train_test_split(rows, test_size=share, stratify=strange, random_state=seed)
    except ValueError as error:
        raise DataError(f"{len(rows)} rows cannot be split with a share of {share}: {error}") from error
    return rest, held


def mark(*frames: pd.DataFrame) -> str:
    """The fingerprint of whole frames, before any cut."""
    return fingerprint(*(pd.util.hash_pandas_object(frame, index=False).to_numpy() for frame in frames))


def mixed(y: np.ndarray, contamination: float, seed: int) -> np.ndarray:
    """Row numbers to train on: the normal ones, and a draw of anomalies that makes `contamination` of them all."""
    calm, strange = np.flatnonzero(y == 0), np.flatnonzero(y > 0)
    if contamination == 0:
        return calm
    count = round(len(calm) * contamination / (1 - contamination)) if contamination < 1 else len(y) + 1
    if count > len(strange):
        most = len(strange) / (len(calm) + len(strange))
        raise ConfigError(
            f"dataset.contamination={contamination}: that takes {count:,} anomalies, but training has {len(strange):,};"
            f" at most {most:.4f}"
        )
    return np.sort(np.concatenate([calm, np.random.default_rng(seed).choice(strange, count, replace=False)]))


def assemble(
    name,
    parts,
    label_names,
    names,
    categorical,
    reading,
    mark,
    /,
    *,
    repair,
    contamination,
    limit,
    seed,
    where,
    source,
    licence,
) -> Data:
    """The record of a table from its parts, name -> (frame, y): columns learnt on normal training rows alone."""
    frame, y = parts["train"]
    parts["train"] = frame.iloc[rows := mixed(y, contamination, seed)], y[rows]
    frame, y = parts["train"]
    calm = frame[y == 0]
    for column in names:
        if calm[column].isna().all():
            raise DataError(
                f"{where['train']}: column {shown(column)} has no value in training; leave it out: "
                f"drop=[{shown(column)}]"
            )
    columns, splits, repaired = learn(calm, names, categorical, reading), {}, {}
    for part in ("train", "validation", "test"):
        frame, y = parts[part]
        if limit is not None and limit < len(y):
            rows = sample(y, len(y), limit, seed)
            frame, y = frame.iloc[rows], y[rows]
        x, kept, told = encode(columns, frame, where[part], repair)
        repaired |= {f"{part}, {column}": what for column, what in told.items()}
        splits[part] = Split(x, y[kept])
    kinds = f"{len(names)} columns ({len(columns.categories)} categorical)"
    empty = sum(int(np.isnan(split.x).sum()) for split in splits.values())
    told = [f"{kinds}, {empty:,} missing values", *(f"{column}: {what}" for column, what in repaired.items())]
    told += [f"anomalies: {', '.join(f'{np.mean(s.y > 0):.2%} of {part}' for part, s in splits.items())}"]
    ordered = (splits[part] for part in ("train", "validation", "test"))
    return Data(name, "table", *ordered, label_names, source, licence, mark, "; ".join(told), columns)
