"""Tables from CSV and Parquet files: read, checked, cut into splits without a leak, encoded as numbers."""

import math
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from aelab.check import unknown
from aelab.config import ConfigError, Count, DataError, Share, Whole
from aelab.data.columns import encode, learn, texts
from aelab.data.fetch import fetch
from aelab.data.record import Data, Split, Table, fingerprint, sample

DELIMITERS = ",;\t|"


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

    def read(file: str) -> pd.DataFrame:
        where = Path(file)
        if urls is not None:
            folder, filename = where.parent.as_posix(), where.name
            sums = md5 or {}
            where = fetch(folder, filename, urls=urls.get(filename, []), md5=sums.get(filename, ""), data_dir=data_dir)
        frame = read_frame(where, names=names, header=header, delimiter=delimiter, missing=missing)
        if label not in frame:
            raise ConfigError(f"{where}: {unknown(f'dataset.label={label}', label, map(str, frame.columns))}")
        return frame

    whole, held = read(path), read(test_path) if test_path else None
    y, label_names = labels(whole[label], path, normal, positive, families)
    parts = {"train": np.arange(len(whole))}
    if held is None:
        clock = None if time is None else clock_of(whole, time, path)
        parts["train"], parts["test"] = cut(parts["train"], y, test, split_seed, clock)
    else:
        clock = None if time is None else clock_of(whole, time, path)
        test_y, label_names = labels(held[label], test_path, normal, positive, families)
    parts["train"], parts["validation"] = cut(parts["train"], y, validation, seed, clock)
    return assemble(
        name,
        {part: (whole.iloc[rows], y[rows]) for part, rows in parts.items()}
        | ({} if held is None else {"test": (held, test_y)}),
        label_names,
        [column for column in whole.columns if column not in (label, *known(drop, whole, path))],
        None if categorical == "auto" else categorical,
        {"names": names, "header": header, "delimiter": delimiter, "missing": missing},
        repair=repair,
        contamination=contamination,
        limit=limit,
        seed=seed,
        where={"train": path, "validation": path, "test": test_path or path},
        source=source,
        licence=licence,
    )


def known(drop: list[str], frame: pd.DataFrame, where: str) -> list[str]:
    """The columns to leave out, which must be there."""
    for name in drop:
        if name not in frame:
            raise ConfigError(f"{where}: {unknown(f'dataset.drop: {name}', name, map(str, frame.columns))}")
    return drop


def read_frame(
    file: Path,
    /,
    *,
    names: list[str] | None,
    header: bool,
    delimiter: str,
    missing: list[str],
    chunk: int | None = None,
):
    """A CSV (plain or gzip) or Parquet file as a frame, or as frames of `chunk` rows; DataError for a broken one.

    The index of a frame is the line in the file, of a Parquet file the row from 1.
    """
    headed = header and names is None
    try:
        if file.suffix == ".parquet":
            frames = parquet(file, chunk)
        else:
            frames = pd.read_csv(
                file,
                sep=delimiter,
                names=names,
                header=0 if headed else None,
                na_values=missing,
                skipinitialspace=True,
                low_memory=False,
                chunksize=chunk,
            )
            frames = [frames] if chunk is None else frames
        whole = (named(frame, file, delimiter, 2 if headed else 1) for frame in frames)
        return next(whole) if chunk is None else guarded(whole, file)
    except FileNotFoundError as error:
        raise DataError(f"{file}: no such file") from error
    except pd.errors.EmptyDataError as error:
        raise DataError(f"{file}: expected rows, got an empty file") from error
    except BROKEN as error:
        raise unreadable(file, error) from error


BROKEN = (OSError, EOFError, zlib.error, ValueError)
"""What a broken file raises; ValueError: pandas's and pyarrow's errors, and text that is not UTF-8."""


def unreadable(file: Path, error: Exception) -> DataError:
    """The error for a file that cannot be read to its end."""
    return DataError(f"{file}: cannot be read as a table: {' '.join(str(error).split())}")


def guarded(frames: Iterator[pd.DataFrame], file: Path) -> Iterator[pd.DataFrame]:
    """The same frames; a file that breaks off later is an error of ours as well."""
    try:
        yield from frames
    except BROKEN as error:
        raise unreadable(file, error) from error


def parquet(file: Path, chunk: int | None) -> Iterator[pd.DataFrame]:
    """The rows of a Parquet file, at most `chunk` at a time."""
    from pyarrow.parquet import ParquetFile

    if chunk is None:
        yield pd.read_parquet(file).reset_index(drop=True)
        return
    first = 0
    for batch in ParquetFile(file).iter_batches(chunk):
        frame = batch.to_pandas().reset_index(drop=True)
        frame.index += first
        first += len(frame)
        yield frame


def named(frame: pd.DataFrame, file: Path, delimiter: str, first: int) -> pd.DataFrame:
    """The frame, its columns named by texts and its rows by lines; DataError where the delimiter is another."""
    frame.columns = [f"f{c + 1}" if isinstance(c, int) else str(c) for c in frame.columns]
    if frame.shape[1] == 1:
        line = str(frame.columns[0]) + str(frame.iloc[0, 0] if len(frame) else "")
        found = [d for d in DELIMITERS if d != delimiter and d in line]
        hint = f"; it has {found[0]!r} in it: try dataset.delimiter={found[0]!r}" if found else ""
        raise DataError(f"{file}: expected columns between {delimiter!r}, got a single one{hint}")
    if not len(frame):
        raise DataError(f"{file}: expected rows, got a header alone")
    frame.index = frame.index + first
    return frame


def labels(values: pd.Series, where: str, normal, positive, families) -> tuple[np.ndarray, tuple[str, ...]]:
    """(y, names) of a label column: y int64 (n,), 0 is normal and the others count into the names of families."""
    if (normal is None) == (positive is None):
        raise ConfigError("dataset: expected either normal or positive, the labels of normal rows or of anomalies")
    found, given = texts(values), normal if positive is None else positive
    given = [str(v) for v in (given if isinstance(given, list) else [given])]
    told = ", ".join(f"{k} ({v:,})" for k, v in found.value_counts().head(6).items())
    strange = ~found.isin(given) if positive is None else found.isin(given)
    if strange.all() or not strange.any():
        which = "normal" if strange.all() else "anomalous"
        raise DataError(
            f"{where}: expected rows of both classes, got no {which} one; column {values.name} has {told}, and "
            f"{'normal' if positive is None else 'positive'} is {', '.join(given)}"
        )
    if families is None:
        return strange.to_numpy().astype(np.int64), ("normal", "anomaly")
    names = ("normal", *families, "other")
    index = {str(value): i for i, family in enumerate(families, 1) for value in families[family]}
    y = found.map(index).fillna(len(families) + 1).astype(np.int64)
    return np.where(strange, y, 0), names


def clock_of(frame: pd.DataFrame, time: str, where: str) -> np.ndarray:
    """The time of each row as something that can be ordered: numbers, or dates."""
    if time not in frame:
        raise ConfigError(f"{where}: {unknown(f'dataset.time={time}', time, map(str, frame.columns))}")
    column = frame[time]
    try:
        return (column if pd.api.types.is_numeric_dtype(column) else pd.to_datetime(column)).to_numpy()
    except ValueError as error:
        raise DataError(f"{where}: column {time}: expected numbers or dates: {error}") from error


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
        raise DataError("expected at least two anomalies and two normal rows, to be drawn into the splits")
    try:
        rest, held = train_test_split(rows, test_size=share, stratify=strange, random_state=seed)
    except ValueError as error:
        raise DataError(f"{len(rows)} rows cannot be split with a share of {share}: {error}") from error
    return rest, held


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
    mark = fingerprint(*(pd.util.hash_pandas_object(f).to_numpy() for f, _ in parts.values()))
    parts["train"] = frame.iloc[rows := mixed(y, contamination, seed)], y[rows]
    frame, y = parts["train"]
    calm = frame[y == 0]
    for column in names:
        if calm[column].isna().all():
            raise DataError(
                f"{where['train']}: column {column} has no value in training; leave it out: drop=[{column}]"
            )
    columns, splits, repaired = learn(calm, names, categorical, reading), {}, {}
    for part, (frame, y) in parts.items():
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
