"""The bytes of a CSV file as pandas reads them, plain or gzip, with what it would swallow or choke on refused."""

import gzip
import io
from pathlib import Path

from aelab.config import DataError
from aelab.data.limits import afford, free_memory, regular, size

BLOCK = 1 << 20
"""Bytes that are given to pandas at a time."""
READ_AHEAD = 1 << 16
"""Bytes that are read at a time: few, so that how much of a gzip file is read says how much is still to come."""
LONGEST_LINE = 64 << 20
MOST_COLUMNS = 100_000
"""More fields in the first line than this make pandas slower than anyone waits."""
GZIP, OTHERS = b"\x1f\x8b", {b"PK\x03\x04": "a zip", b"PAR1\x15": "Parquet", b"\x28\xb5\x2f\xfd": "zstd"}
REMEDY = "take fewer rows, or a machine with more memory"


class Lines(io.RawIOBase):
    """A stream over a file that is unpacked on the way; `whole`: all of it will be in memory at once.

    Errors: DataError for what is no text: NUL bytes (pandas ends a cell there, silently), a line without an end, more
    columns or more bytes than can be read; also for what a small gzip file unpacks to.
    """

    def __init__(self, file: Path, delimiter: str, whole: bool):
        self.length, self.file, self.whole, self.delimiter = regular(file), file, whole, delimiter.encode()
        self.raw = file.open("rb", buffering=READ_AHEAD)
        start = self.raw.peek(READ_AHEAD)
        packed = file.suffix == ".gz"
        if found := next((kind for magic, kind in OTHERS.items() if start.startswith(magic)), None):
            raise self.refusal(f"expected CSV, plain or gzip, got {found}; unpack it, or name Parquet .parquet")
        if start[:2] == GZIP and not packed:
            raise self.refusal("it is gzip, whose name should end in .gz")
        self.source = gzip.GzipFile(fileobj=self.raw) if packed else self.raw
        self.read_bytes, self.open_line, self.mark = 0, 0, 1
        self.first, self.rate = None, 1.0
        if whole and not packed:
            self.rate = expansion(start, self.delimiter)
            afford(int(self.length * self.rate), str(file), REMEDY)

    def refusal(self, said: str) -> DataError:
        """The error for what is no table."""
        return DataError(f"{self.file}: cannot be read as a table: {said}")

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, target) -> int:
        """The next bytes, checked."""
        block = self.source.read(min(len(target), BLOCK))
        target[: len(block)] = block
        if (at := block.find(b"\0")) >= 0:
            raise self.refusal(
                f"it has a NUL byte at offset {self.read_bytes + at:,}: it is no text, or UTF-16; save it as UTF-8"
            )
        self.check_lines(block)
        self.read_bytes += len(block)
        if self.whole and self.read_bytes >> 26 >= self.mark:  # every 64 MiB
            self.mark = (self.read_bytes >> 26) + 1
            self.check_memory()
        return len(block)

    def check_memory(self) -> None:
        """DataError where what has come does not fit into memory, or a gzip file unpacks to twice as much and more."""
        share, free = self.raw.tell() / self.length, free_memory()
        needed = self.read_bytes * (self.rate - 1)
        if needed > free or needed / share > 2 * free:
            raise DataError(
                f"{self.file}: would take about {size(needed / share)} more of memory, by its first "
                f"{size(self.read_bytes)}, and {size(free)} are free; {REMEDY}"
            )

    def check_lines(self, block: bytes) -> None:
        """DataError for a first line with too many fields, and for a line that is too long."""
        end = max(block.rfind(b"\n"), block.rfind(b"\r"))
        if self.first is None:
            self.first, self.rate = 0, max(self.rate, expansion(block, self.delimiter))
        if self.first >= 0:
            line = block if end < 0 else block.replace(b"\r", b"\n").partition(b"\n")[0]
            self.first += line.count(self.delimiter)
            if self.first >= MOST_COLUMNS:
                raise self.refusal(f"expected at most {MOST_COLUMNS:,} columns, got more in its first line")
            self.first = self.first if end < 0 else -1
        self.open_line = self.open_line + len(block) if end < 0 else len(block) - end - 1
        if self.open_line > LONGEST_LINE:
            raise self.refusal(f"a line of more than {size(LONGEST_LINE)}: it is no text of lines")

    def close(self) -> None:
        """Close the file too."""
        self.raw.close()
        super().close()


def expansion(start: bytes, delimiter: bytes) -> float:
    """Bytes of memory that pandas takes at its peak for a byte of such text: the text, and 24 for each cell."""
    cells = start.count(delimiter) + start.count(b"\n")
    return 1 + 24 * cells / max(len(start), 1)
