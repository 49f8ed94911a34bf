"""CSV and Parquet files as frames, whole or in parts: rows are numbered by their lines in the file."""

import csv
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from aelab.config import DataError
from aelab.data.fetch import fetch

DELIMITERS = ",;\t|"


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
    warnings.simplefilter("error", pd.errors.ParserWarning)  # it says that fields were lost
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
                skip_blank_lines=False,  # or the lines after them would be counted wrongly
                index_col=False,  # or a field too many in every row would shift all columns
                chunksize=chunk,
                encoding=encoding,
                quoting=quoting,
                **({"low_memory": False} if len(delimiter) == 1 else {"engine": "python"}),
            )
            frames = [frames] if chunk is None else frames
        first = 2 if headed and file.suffix != ".parquet" else 1
        parts = guarded((named(frame, file, delimiter, first) for frame in frames), file)
        return next(parts) if chunk is None else parts
    except FileNotFoundError as error:
        raise DataError(f"{file}: no such file") from error
    except pd.errors.EmptyDataError as error:
        raise DataError(f"{file}: expected rows, got an empty file") from error
    except BROKEN as error:
        raise unreadable(file, error) from error


BROKEN = (OSError, EOFError, zlib.error, ValueError, pd.errors.ParserWarning)
"""What a broken file raises; ValueError: pandas's and pyarrow's errors, and text that is not UTF-8."""


def unreadable(file: Path, error: Exception) -> DataError:
    """The error for a file that cannot be read to its end."""
    lost = isinstance(error, pd.errors.ParserWarning)
    said = "its rows have more fields than there are columns" if lost else " ".join(str(error).split())
    return DataError(f"{file}: cannot be read as a table: {said}")


def guarded(frames: Iterator[pd.DataFrame], file: Path) -> Iterator[pd.DataFrame]:
    """The same frames; a file that breaks off later is an error of ours as well."""
    try:
        yield from frames
    except FileNotFoundError:
        raise
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
    if all(str(c).startswith("Unnamed: ") for c in frame.columns) and not frame.notna().any(axis=None):
        raise DataError(f"{file}: expected rows, got an empty file")
    frame.columns = [f"f{c + 1}" if isinstance(c, int) else str(c) for c in frame.columns]
    if frame.shape[1] == 1:
        line = str(frame.columns[0]) + str(frame.iloc[0, 0] if len(frame) else "")
        found = [d for d in DELIMITERS if d != delimiter and d in line]
        hint = f"; it has {found[0]!r} in it: try dataset.delimiter={found[0]!r}" if found else ""
        raise DataError(f"{file}: expected columns between {delimiter!r}, got a single one{hint}")
    frame.index = frame.index + first
    frame = frame.dropna(how="all")  # empty lines
    if not len(frame):
        raise DataError(f"{file}: expected rows, got a header alone")
    return frame
