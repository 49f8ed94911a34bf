"""Arrays of .npy and .npz files: what a header declares is compared with what is there before memory is taken."""

import ast
import lzma
import math
import re
import struct
import sys
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

from aelab.config import DataError
from aelab.data.limits import afford, regular, shown

MAGIC = b"\x93NUMPY"
LONGEST_HEADER = 10_000
"""Bytes of a header: that of a plain array has about 100."""
BLOCK = 1 << 24
"""Bytes that are read at a time."""
BROKEN = (
    *(OSError, EOFError, ValueError, RuntimeError, NotImplementedError, KeyError, OverflowError, struct.error),
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError),
)
"""What a broken .npy or .npz raises; RuntimeError: zipfile's for an encrypted member."""


def read_arrays(file: Path, where: str) -> dict[str, np.ndarray]:
    """Every array of the file by its key; an .npy file has one, `x`. Pickled objects are refused: they could run code.

    Errors: DataError that begins with `where`; FileNotFoundError as it comes.
    """
    try:
        size = regular(file)
        with file.open("rb") as stream:
            if stream.read(4) != b"PK\x03\x04" and not zipfile.is_zipfile(file):
                stream.seek(0)
                return {"x": read_array(stream, size, where)}
            with zipfile.ZipFile(stream) as archive:
                return {key_of(info, where): member(archive, info, where) for info in members(archive, where)}
    except FileNotFoundError:
        raise
    except BROKEN as error:
        said = shown(" ".join(str(error).split()), 200) or type(error).__name__
        raise DataError(f"{where}: expected a whole .npz or .npy without pickles, got: {said}") from error


def members(archive: zipfile.ZipFile, where: str) -> list[zipfile.ZipInfo]:
    """The members of an .npz, whose names differ."""
    found = archive.infolist()
    if len({info.filename for info in found}) < len(found):
        names = [info.filename for info in found]
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"{where}: expected each array once, got several of {shown(twice)}")
    return found


def key_of(info: zipfile.ZipInfo, where: str) -> str:
    """The key of a member; DataError for one that is no plain array."""
    if not info.filename.endswith(".npy"):
        raise DataError(f"{where}: expected arrays alone (.npy), got {shown(info.filename)}; save with np.savez")
    if info.flag_bits & 1:
        raise DataError(f"{where}: {shown(info.filename)} is encrypted; save it without a password")
    return info.filename.removesuffix(".npy")


def member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, where: str) -> np.ndarray:
    """The array of a member, to its end: there zipfile compares the checksum."""
    with archive.open(info) as stream:
        found = read_array(stream, info.file_size, f"{where}: {shown(info.filename.removesuffix('.npy'))}")
        if stream.read(1):
            raise EOFError(f"{shown(info.filename)} is longer than it says")
        return found


def read_array(stream: BinaryIO, size: int, where: str) -> np.ndarray:
    """The array of a stream of `size` bytes in the .npy format; DataError where its header says something else."""
    shape, fortran, dtype, start = read_header(stream)
    if dtype.hasobject or dtype.kind == "V":
        what = "pickled objects" if dtype.hasobject else "records"
        raise DataError(f"{where}: expected a whole .npz or .npy without pickles, of numbers or texts, got {what}")
    needed = math.prod(shape) * dtype.itemsize
    if needed != size - start:
        raise DataError(
            f"{where}: expected a whole array: its header says {dtype} {shown(shape)}, {needed:,} bytes, and there "
            f"are {size - start:,}"
        )
    afford(needed, where, "save fewer images, or a smaller type such as uint8")
    buffer, at = np.empty(needed, np.uint8), 0
    while at < needed:
        block = stream.read(min(BLOCK, needed - at))
        if not block:
            raise EOFError(f"it ends after {at:,} of {needed:,} bytes")
        buffer[at : at + len(block)] = np.frombuffer(block, np.uint8)
        at += len(block)
    if not needed:
        return np.empty(shape, dtype)
    if dtype.kind == "U" and buffer.view(np.dtype("u4").newbyteorder(dtype.byteorder)).max() > sys.maxunicode:
        raise ValueError("texts with numbers that are no characters")
    return buffer.view(dtype).reshape(shape, order="F" if fortran else "C")


def read_header(stream: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    """(shape, whether in Fortran's order, dtype, where the data start) of the .npy format 1.0 or 2.0.

    Errors: ValueError, EOFError.
    """
    start = stream.read(8)
    if start[:6] != MAGIC:
        raise ValueError("it is neither a zip nor does it begin as an .npy" if start else "an empty file")
    versions = {b"\1\0": "<H", b"\2\0": "<I"}
    if start[6:] not in versions:
        raise ValueError(f"an .npy of version {'.'.join(map(str, start[6:]))}")
    form = versions[start[6:]]
    raw = stream.read(struct.calcsize(form))
    (length,) = struct.unpack(form, raw)
    if length > LONGEST_HEADER:
        raise ValueError(f"a header of {length:,} bytes")
    text = stream.read(length)
    if len(text) < length:
        raise EOFError("it ends in its header")
    try:
        found = ast.literal_eval(re.sub(r"(\d)L\b", r"\1", text.decode("latin-1").strip()))  # 3L: by Python 2
        shape, fortran, dtype = found["shape"], found["fortran_order"], np.dtype(found["descr"])
    except (SyntaxError, ValueError, TypeError, KeyError, IndexError, RecursionError, MemoryError) as error:
        raise ValueError(f"a header that is none: {shown(text.decode('latin-1').strip())}") from error
    sizes = isinstance(shape, tuple) and all(type(n) is int and n >= 0 for n in shape) and len(shape) <= 32
    if not sizes or not isinstance(fortran, bool):
        raise ValueError(f"a header that is none: {shown(text.decode('latin-1').strip())}")
    return shape, fortran, dtype, 8 + struct.calcsize(form) + length
