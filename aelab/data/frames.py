"""CSV and Parquet files as frames, whole or in parts: rows are numbered by their lines in the file."""

import csv
import io
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pandas as pd

from aelab.config import DataError
from aelab.data.fetch import fetch
from aelab.data.limits import afford, listed, regular, shown
from aelab.data.lines import BLOCK, MOST_COLUMNS, REMEDY, Lines

DELIMITERS = ",;\t|"
ONE_AT_A_TIME = threading.Lock()
"""Python's filters of warnings belong to the whole process: they are changed by one reader at a time."""


def locate(file: str, urls: dict[str, list[str]] | None, md5: dict[str, str] | None, data_dir: str | None) -> Path:
    """A file as it was given, or, where there are `urls` by file name, from `data_dir`, the cache or the network."""
    where = Path(file)
    if urls is None:
        return where
    own, check = urls.get(where.name, []), (md5 or {}).get(where.name, "")
    return fetch(where.parent.as_posix(), where.name, urls=own, md5=check, data_dir=data_dir)


def read_frame(
    file: Path,
    /,
    *,
    names: list[str] | None,
    header: bool,
    delimiter: str,
    missing: list[str],
    chunk: int | None = None,
    encoding: str = "utf-8",
    quoting: int = csv.QUOTE_MINIMAL,
):
    """A CSV (plain or gzip) or Parquet file as a frame, or as frames of `chunk` rows; DataError for a broken one.

    The index of a frame is the line in the file, of a Parquet file the row from 1.
    """
    headed = header and names is None
    try:
        regular(file)
        if file.suffix == ".parquet":
            frames = parquet(file, chunk)
        else:
            frames = separated(
                Lines(file, delimiter, whole=chunk is None),
                chunk,
                sep=delimiter,
                names=names,
                header=0 if headed else None,
                na_values=missing,
                skipinitialspace=True,
                skip_blank_lines=False,  # or the lines after them would be counted wrongly
                index_col=False,  # or a field too many in every row would shift all columns
                encoding=encoding,
                quoting=quoting,
                **({"low_memory": False} if len(delimiter) == 1 else {"engine": "python"}),
            )
        first = 2 if headed and file.suffix != ".parquet" else 1
        parts = guarded((named(frame, file, delimiter, first) for frame in frames), file)
        return next(parts) if chunk is None else parts
    except FileNotFoundError as error:
        raise DataError(f"{file}: no such file") from error
    except BROKEN as error:
        raise unreadable(file, error) from error


def separated(lines: Lines, chunk: int | None, **reading) -> Iterator[pd.DataFrame]:
    """The rows of a CSV file, at most `chunk` at a time."""
    with closing(lines):
        source = io.BufferedReader(lines, BLOCK)
        found = lossless(lambda: pd.read_csv(source, chunksize=chunk, **reading))
        if chunk is None:
            yield found
            return
        while (frame := lossless(lambda: next(found, None))) is not None:
            yield frame


def lossless(read: Callable[[], Any]) -> Any:
    """What `read` gives; an error where pandas only warns: that it has left out fields of a row.

    The filter holds for this one step: what else warns in the process, or while a reader waits, is left as it is.
    """
    with ONE_AT_A_TIME, warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        return read()


BROKEN = (OSError, EOFError, zlib.error, ValueError, pd.errors.ParserWarning, MemoryError)
"""What a broken file raises; ValueError: pandas's and pyarrow's errors, and text that is not UTF-8."""


def unreadable(file: Path, error: Exception) -> DataError:
    """The error for a file that cannot be read to its end."""
    if isinstance(error, pd.errors.EmptyDataError):
        return DataError(f"{file}: expected rows, got an empty file")
    lost = isinstance(error, pd.errors.ParserWarning)
    said = shown(" ".join(str(error).split()), 300) or type(error).__name__
    said = "its rows have more fields than there are columns" if lost else said
    return DataError(f"{file}: cannot be read as a table: {said}")


def guarded(frames: Iterator[pd.DataFrame], file: Path) -> Iterator[pd.DataFrame]:
    """The same frames, of those with rows; a file that breaks off later, or has no rows, is an error of ours."""
    rows = 0
    try:
        for frame in frames:
            if len(frame):
                rows += len(frame)
                yield frame
    except BROKEN as error:
        raise unreadable(file, error) from error
    if not rows:
        raise DataError(f"{file}: expected rows, got a header alone")


def parquet(file: Path, chunk: int | None) -> Iterator[pd.DataFrame]:
    """The rows of a Parquet file, at most `chunk` at a time."""
    from pyarrow.parquet import ParquetFile

    with ParquetFile(file) as source:
        decimals = check_types(source.schema_arrow, file)
        rows = source.metadata.num_rows
        rows = rows if chunk is None else min(rows, chunk)
        afford(16 * rows * len(source.schema_arrow), str(file), REMEDY)  # a number, in Arrow's form and in pandas's
        first = 0
        for batch in [source.read()] if chunk is None else source.iter_batches(chunk):
            frame = pandas_form(batch, file).reset_index(drop=True)
            frame = frame.assign(**{name: pd.to_numeric(frame[name]) for name in decimals if name in frame})
            frame.index += first
            first += len(frame)
            yield frame


def pandas_form(batch, file: Path) -> pd.DataFrame:
    """Rows of Arrow's as a frame, as the notes say that pandas leaves in a Parquet file: the kinds of its columns."""
    try:
        return batch.to_pandas()
    except (LookupError, TypeError, AttributeError) as error:  # Arrow takes the notes as they come
        raise DataError(f"{file}: its pandas metadata are broken ({shown(repr(error))}); write it again") from error


NUMBERS, OTHER_TYPES = ("integer", "floating", "boolean", "decimal"), ("timestamp", "date", "null")
PARQUET_TYPES = (*NUMBERS, *OTHER_TYPES, "string", "large_string", "string_view")


def check_types(schema, file: Path) -> list[str]:
    """The names of decimal columns, which pandas leaves as objects; DataError for what is no number, text or date."""
    from pyarrow import types

    if len(schema) > MOST_COLUMNS:
        raise DataError(f"{file}: expected at most {MOST_COLUMNS:,} columns, got {len(schema):,}")
    if len(set(schema.names)) < len(schema):
        twice = listed(sorted({name for name in schema.names if schema.names.count(name) > 1}))
        raise DataError(f"{file}: expected each column once, got several of {twice}")
    for field in schema:
        kind = field.type.value_type if types.is_dictionary(field.type) else field.type
        if not any(getattr(types, f"is_{name}")(kind) for name in PARQUET_TYPES):
            raise DataError(
                f"{file}: column {shown(field.name)}: expected numbers, texts or dates, got {shown(field.type)}; "
                "write it as one of these, or leave it out of the file"
            )
    return [field.name for field in schema if types.is_decimal(field.type)]


def named(frame: pd.DataFrame, file: Path, delimiter: str, first: int) -> pd.DataFrame:
    """The frame, its columns named by texts and its rows by lines; DataError where the delimiter is another."""
    if all(str(c).startswith("Unnamed: ") for c in frame.columns) and not frame.notna().any(axis=None):
        raise DataError(f"{file}: expected rows, got an empty file")
    frame.columns = [f"f{c + 1}" if isinstance(c, int) else str(c) for c in frame.columns]
    if frame.shape[1] == 1:
        line = str(frame.columns[0]) + str(frame.iloc[0, 0] if len(frame) else "")
        found = [d for d in DELIMITERS if d != delimiter and d in line]
        hint = f"; it has {found[0]!r} in it: try dataset.delimiter={found[0]!r}" if found else ""
        raise DataError(f"{file}: expected columns between {delimiter!r}, got a single one{hint}")
    frame.index = frame.index + first
    return frame.dropna(how="all")  # empty lines
