"""How files get broken: bytes, members of archives, and things that are no files."""

import gzip
import io
import os
import struct
import zipfile
from pathlib import Path
from random import Random

NUMBERS = (b"nan", b"inf", b"-1", b"1e999", b"99999999999999999999999", b"0x10", b"1,5", b"", b"\xff\xfe", b"\x00")
TEXTS = (
    ("x" * 2_000_000).encode(),
    "ü€😀".encode("utf-16"),
    b"\xef\xbb\xbf",
    b"\r",
    b"\n\n\n",
    b'"',
    b"'",
    b";",
    b"\x80",
)


def flip(rng: Random, data: bytearray) -> None:
    """Some bits, turned."""
    for _ in range(rng.choice((1, 3, 30))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def cut(rng: Random, data: bytearray) -> None:
    """The end, or the beginning, is gone."""
    at = rng.randrange(len(data))
    if rng.random() < 0.7:
        del data[at:]
    else:
        del data[:at]


def drop(rng: Random, data: bytearray) -> None:
    """A piece in the middle is gone."""
    at = rng.randrange(len(data))
    del data[at : at + rng.choice((1, 7, 200, 5000))]


def double(rng: Random, data: bytearray) -> None:
    """A piece stands there twice."""
    at = rng.randrange(len(data))
    data[at:at] = data[at : at + rng.choice((1, 40, 3000))]


def swap(rng: Random, data: bytearray) -> None:
    """Two pieces change places."""
    size = rng.choice((1, 16, 512))
    a, b = (rng.randrange(len(data)) for _ in range(2))
    data[a : a + size], data[b : b + size] = data[b : b + size], data[a : a + size]


def head(rng: Random, data: bytearray) -> None:
    """Something else among the first bytes."""
    for _ in range(rng.choice((1, 2, 8))):
        data[rng.randrange(min(128, len(data)))] = rng.choice((0, 1, 255, rng.randrange(256)))


def lie(rng: Random, data: bytearray) -> None:
    """A number of four bytes that says too much."""
    at = rng.randrange(min(200, len(data)))
    data[at : at + 4] = struct.pack(rng.choice("<>") + "I", rng.choice((0, 1, 2**16, 2**31 - 1, 2**32 - 1)))


def word(rng: Random, data: bytearray) -> None:
    """A number or a word of a text is another."""
    marks = [i for i, byte in enumerate(data[:100_000]) if byte in b",;\t|:\n "] or [0]
    a = rng.choice(marks)
    b = next((m for m in marks if m > a), len(data))
    data[a + 1 : b] = rng.choice((*NUMBERS, *TEXTS))


def stuff(rng: Random, data: bytearray) -> None:
    """Something put in between."""
    at = rng.randrange(len(data) + 1)
    data[at:at] = rng.choice((*NUMBERS, *TEXTS, os.urandom(0), rng.randbytes(50)))


BYTES = (flip, cut, drop, double, swap, head, lie, word, stuff)


def mangle(rng: Random, data: bytes) -> bytes:
    """Broken bytes; those of a compressed file are sometimes broken within."""
    if data[:2] == b"\x1f\x8b" and rng.random() < 0.5:
        return gzip.compress(mangle(rng, gzip.decompress(data)), 1)
    if data[:2] == b"PK" and rng.random() < 0.6:
        return rezip(rng, data)
    made = bytearray(data or b"\0")
    for _ in range(rng.choice((1, 1, 2, 4))):
        rng.choice(BYTES)(rng, made)
        made = made or bytearray(b"\0")
    return bytes(made)


def rezip(rng: Random, data: bytes) -> bytes:
    """A zip with a member that is broken, gone, doubled, renamed, encrypted by its flag, or a bomb."""
    with zipfile.ZipFile(io.BytesIO(data)) as source:
        members = [(name, source.read(name)) for name in source.namelist()]
    at, how = (
        rng.randrange(len(members)),
        rng.choice(("break", "gone", "twice", "name", "flag", "bomb", "shape", "text")),
    )
    name, content = members[at]
    if how == "break":
        members[at] = name, mangle(rng, content)
    elif how == "gone":
        del members[at]
    elif how == "twice":
        members.append((name, mangle(rng, content)))
    elif how == "name":
        members[at] = rng.choice(("../../guard/x", "/tmp/x", "x.npy", "", "a" * 300, "é\ud83d.npy"[:2])), content
    elif how == "bomb":
        members[at] = name, content[:200] + bytes(300_000_000)
    elif how == "shape":
        members[at] = name, lie_about_shape(rng, content)
    elif how == "text":
        members[at] = name, b"this is no array"
    target = io.BytesIO()
    import warnings

    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a name twice
        for name, content in members:
            file.writestr(name.encode("utf-8", "replace").decode() or "?", content)
    made = bytearray(target.getvalue())
    if how == "flag":
        for sign, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
            if (found := made.find(sign)) >= 0:
                made[found + offset] |= 1
    return bytes(made)


def lie_about_shape(rng: Random, data: bytes) -> bytes:
    """An .npy whose header says another shape, type or order than its bytes have."""
    if data[:6] != b"\x93NUMPY":
        return mangle(rng, data)
    size = struct.unpack("<H", data[8:10])[0]
    shape = rng.choice(
        ("(100000000000000000000,)", "(10000000, 10000000)", "(-1, 28)", "()", "(0,)", "(3, 0, 4)", "x", "(1.5,)")
    )
    kind = rng.choice(("<f4", "|u1", "<f8", "|O", "<U9", "<c16", "<M8[s]", "|V8", "zz", "<i8"))
    order = rng.choice(("False", "True", "3"))
    header = f"{{'descr': '{kind}', 'fortran_order': {order}, 'shape': {shape}, }}\n".encode()
    return data[:8] + struct.pack("<H", len(header)) + header + data[10 + size :]


def replace_file(rng: Random, file: Path, others: list[Path], guard: Path) -> str:
    """Put something else where a file was; says what."""
    how = rng.choice(("bytes",) * 6 + ("empty", "gone", "other", "other", "folder", "link", "fifo", "loop", "zeros"))
    content = file.read_bytes() if file.is_file() else b""
    if how in ("bytes", "empty", "zeros") or (how == "other" and not others):
        file.write_bytes(
            {"empty": b"", "zeros": bytes(len(content))}.get(how) or (b"" if how == "empty" else mangle(rng, content))
        )
        return how
    file.unlink()
    if how == "other":
        source = rng.choice(others)
        file.write_bytes(source.read_bytes())
        return f"other: {source.name}"
    if how == "folder":
        file.mkdir()
    elif how == "link":
        file.symlink_to(rng.choice((guard / "secret.log", guard, Path("/nowhere"), Path("/dev/zero"))))
    elif how == "loop":
        file.symlink_to(file.name)
    elif how == "fifo":
        os.mkfifo(file)
    return how
