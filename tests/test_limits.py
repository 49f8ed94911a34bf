"""Files that lie about their size, have no end, or hold what a terminal would obey: one line, and no memory taken."""

import gzip
import io
import os
import struct
import threading
import warnings
import zipfile
import zlib
from datetime import UTC, datetime, time
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from PIL import Image

from aelab import compose
from aelab.config import AelabError, ConfigError, DataError
from aelab.data import cifar10, fashion_mnist, limits, lines, movielens
from aelab.data.arrays import read_arrays
from aelab.data.frames import read_frame
from aelab.data.load import load
from aelab.data.npz import npz
from aelab.data.pictures import opened

CSV = {"names": None, "header": True, "delimiter": ",", "missing": []}
HEAD = b"amount,age,label\n"
BODY = b"".join(b"%d.5,%d,%d\n" % (i, i, i % 5 == 0) for i in range(50))
X = np.random.default_rng(0).integers(0, 256, (20, 6, 5), np.uint8)


def data_set(name, **knobs):
    """The data of a data set by its YAML, with some values changed."""
    found = OmegaConf.load(compose.CONF / "dataset" / f"{name}.yaml")
    root = found if "dataset" in found else OmegaConf.create({"dataset": found})
    above = {key: knobs[key] for key in ("path", "label", "positive") if key in knobs}
    root = OmegaConf.merge(root, {"seed": 0, "data_dir": None}, above)
    node = OmegaConf.to_container(root, resolve=True)["dataset"] | knobs
    return load({key: value for key, value in node.items() if key != "fallback"}, None)[0]


def complaint(call, *args, error=DataError, **knobs) -> str:
    """The message of the error that a call leads to: one line, short, of characters that can be printed."""
    with pytest.raises(error) as caught:
        call(*args, **knobs)
    message = str(caught.value)
    assert type(caught.value) is error
    assert message.isprintable()
    assert len(message) < 800
    return message


def table(path, **knobs):
    return data_set("csv", path=str(path), **{"label": "label", "positive": 1} | knobs)


# ---- values in messages


@given(st.text(max_size=200), st.integers(1, 100))
@settings(max_examples=60)
def test_a_value_is_shown_on_one_short_line(text, longest):
    said = limits.shown(text, longest)
    assert said.isprintable()
    assert len(said) <= 10 * longest + 25
    if text.isprintable() and len(text) <= longest:
        assert said == text
    if len(text) > longest:
        assert f"({len(text)} characters)" in said


@pytest.mark.parametrize(
    "bad", [b"x" * 10**5, b"\x1b[2J\x07", "\u202e\ufeff\u2028".encode()], ids=["long", "esc", "bidi"]
)
@pytest.mark.parametrize("where", ["number", "label", "header", "time"])
def test_a_cell_is_never_printed_as_it_is(where, bad, tmp_path):
    head, knobs = HEAD, {}
    if where == "header":
        head, row, knobs = bad + b",age,label\n", b"1,1,1\n", {"label": "nothing"}
    elif where == "label":
        row, knobs = b"1,1," + bad + b"\n", {"positive": "nothing"}
    elif where == "time":
        head, row, knobs = b"when,age,label\n", bad + b",1,0\n" + bad + b",1,1\n", {"time": "when"}
    else:
        row = b"1,1,0\n" * 30 + bad + b",1,0\n"
    (tmp_path / "a.csv").write_bytes(head + (BODY + row * 3 if where != "time" else row * 9))
    error = ConfigError if where == "header" else DataError
    said = complaint(table, tmp_path / "a.csv", error=error, **knobs)
    assert "characters)" in said if len(bad) > 1000 else "\\" in said


def test_ratings_show_their_cells_in_the_same_way(tmp_path):
    (tmp_path / "a.csv").write_text("user,item,rating\nbo,1,2\n" + "u" * 10**5 + ",\x1b[31m,good\n")
    said = complaint(data_set, "ratings", path=str(tmp_path / "a.csv"))
    assert "(100,000 characters), item \\x1b[31m, rating good)" in said


def test_a_name_that_a_wide_file_lacks_lists_a_few(tmp_path):
    (tmp_path / "a.csv").write_text(",".join(f"c{i}" for i in range(5000)) + "\n" + ",".join("1" * 5000) + "\n")
    assert "(5,000 in all)" in complaint(table, tmp_path / "a.csv", label="fraud", error=ConfigError)
    assert "did you mean c9?" in complaint(table, tmp_path / "a.csv", label="c9 ", error=ConfigError)


@pytest.mark.parametrize(("low", "high", "said"), [(0.5, 1.0000001, "0.5 to 1.0000001"), (-1e-9, 1, "-1e-09 to 1")])
def test_numbers_show_what_is_wrong_with_them(low, high, said, tmp_path):
    x = np.full((20, 4, 4), low)
    x[::2] = high
    np.save(tmp_path / "a.npy", x)
    knobs = {"validation": 0.2, "test": 0.2, "limit": None, "seed": 0}
    message = complaint(npz, path=str(tmp_path / "a.npy"), **knobs)
    assert f"expected floats in [0, 1], got {said};" in message


# ---- regular files alone


READERS = {
    "a.csv": table,
    "a.csv.gz": table,
    "a.parquet": table,
    "a.npz": lambda path: data_set("npz", path=str(path)),
    "a.npy": lambda path: read_arrays(path, "input=a.npy"),
    "a.txt": lambda path: data_set("text", path=str(path)),
    "a.png": lambda path: opened(path, "input=a.png").__enter__(),
    "images.gz": lambda path: fashion_mnist.read_idx(path, fashion_mnist.Idx("", "", (1, 2, 2))),
    "data_batch_1.bin": cifar10.sized,
}


@pytest.mark.parametrize("file", READERS)
def test_what_is_no_regular_file_is_refused_without_reading_it(file, tmp_path):
    path = tmp_path / file
    os.mkfifo(path)
    assert "cannot be read: Is a pipe" in complaint(READERS[file], path)
    path.unlink()
    path.symlink_to("/dev/zero")
    assert "cannot be read: Is a device" in complaint(READERS[file], path)
    path.unlink()
    path.mkdir()
    assert "cannot be read: Is a directory" in complaint(READERS[file], path)


def test_a_folder_of_pictures_leaves_out_what_is_no_file(tmp_path):
    for i in range(9):
        Image.new("RGB", (4, 4), (i, 0, 0)).save(tmp_path / f"{i}.png")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    data = data_set("images", path=str(tmp_path))
    assert sum(len(s) for s in (data.train, data.validation, data.test)) == 9


# ---- sizes against memory


@pytest.fixture
def little(monkeypatch):
    """A machine with 3 MiB of memory left."""
    monkeypatch.setattr("aelab.data.limits.free_memory", lambda: 3 << 20)
    monkeypatch.setattr("aelab.data.lines.free_memory", lambda: 3 << 20)


def test_free_memory_is_the_least_of_machine_container_and_own_limit(monkeypatch, tmp_path):
    import psutil

    monkeypatch.setattr(limits, "CGROUP", tmp_path)
    machine = limits.free_memory()
    assert 0 < machine <= psutil.virtual_memory().total
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("5\n")
    assert limits.free_memory() > machine / 2
    (tmp_path / "memory.max").write_text("1000005\n")
    assert limits.free_memory() == 1_000_000
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory" / "memory.limit_in_bytes").write_text("900\n")
    (tmp_path / "memory" / "memory.usage_in_bytes").write_text("901\n")
    assert limits.free_memory() == 0


def test_a_size_of_pictures_that_does_not_fit_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr("aelab.data.limits.free_memory", lambda: 8 << 30)
    for i in range(20):
        Image.new("RGB", (4, 4), (i, 0, 0)).save(tmp_path / f"{i}.png")
    said = complaint(data_set, "images", path=str(tmp_path), size=[20000, 20000], error=ConfigError)
    assert said == (
        "dataset.size=[20000, 20000]: 20 pictures: would take about 52.2 GiB of memory, and 8.0 GiB are free; take a "
        "smaller size, such as dataset.size=[64,64], or fewer pictures"
    )


@pytest.mark.parametrize(
    ("name", "knobs", "said"),
    [
        ("photo_patches", {"size": 64, "stride": 1, "region": 64 * 4}, "take a larger stride"),
        ("taste_groups", {"users": 10**6, "items": 100}, "take fewer of them"),
    ],
)
def test_made_data_that_do_not_fit_are_refused(name, knobs, said, little):
    assert said in complaint(data_set, name, error=ConfigError, **knobs)


def test_images_that_do_not_fit_as_floats(tmp_path, little):
    np.save(tmp_path / "a.npy", np.zeros((700, 32, 32), np.uint8))
    said = complaint(data_set, "npz", path=str(tmp_path / "a.npy"), error=ConfigError)
    assert "would take about 3.4 MiB of memory, and 3.0 MiB are free; take fewer images: dataset.limit=COUNT" in said
    assert len(data_set("npz", path=str(tmp_path / "a.npy"), limit=100).train) == 100


@pytest.mark.parametrize("unit", ["char", "word"])
def test_a_text_that_does_not_fit(unit, tmp_path, little):
    (tmp_path / "a.txt").write_text("so much " * 20_000)
    assert "would take about" in complaint(data_set, "text", path=str(tmp_path / "a.txt"), unit=unit)


def test_a_table_that_does_not_fit(tmp_path, little):
    (tmp_path / "a.csv").write_bytes(HEAD + BODY * 1000)
    assert "a.csv: would take about" in complaint(read_frame, tmp_path / "a.csv", **CSV)
    assert sum(map(len, read_frame(tmp_path / "a.csv", **CSV, chunk=1000))) == 50_000  # in parts it does
    pd.DataFrame({f"c{i}": np.zeros(40_000) for i in range(9)}).to_parquet(tmp_path / "a.parquet")
    assert (tmp_path / "a.parquet").stat().st_size < 50_000
    assert "a.parquet: would take about 5.5 MiB" in complaint(read_frame, tmp_path / "a.parquet", **CSV)


def test_a_small_gzip_of_a_large_table(tmp_path, little):
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"0,0,0\n" * 100_000) * 120)
    assert (tmp_path / "a.csv.gz").stat().st_size < 200_000
    assert "more of memory, by its first 64.0 MiB, and 3.0 MiB are free" in complaint(
        read_frame, tmp_path / "a.csv.gz", **CSV
    )


def test_memory_that_ends_on_the_way_is_one_line(tmp_path, monkeypatch):
    def full(*args, **knobs):
        raise MemoryError

    monkeypatch.setattr("aelab.data.npz.image_data", full)
    np.save(tmp_path / "a.npy", X)
    assert "takes more memory than there is" in complaint(data_set, "npz", path=str(tmp_path / "a.npy"))


# ---- .npy and .npz whose headers lie


def header(shape, descr="<f8", version=b"\1\0"):
    text = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}".encode() + b"\n"
    return b"\x93NUMPY" + version + struct.pack("<H" if version == b"\1\0" else "<I", len(text)) + text


def packed(*members, **knobs):
    target = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(target, "w", **knobs) as file:
        warnings.simplefilter("ignore")  # of a name that is there twice
        for name, content in members:
            file.writestr(name, content)
    return target.getvalue()


def npy(array):
    target = io.BytesIO()
    np.save(target, array)
    return target.getvalue()


LIES = {
    "10^20": (header("(100000000000000000000,)") + bytes(80), "bytes, and there are 80"),
    "713 TiB": (header("(98000000000000,)") + bytes(80), "bytes, and there are 80"),
    "a byte more": (npy(X) + b"0", "600 bytes, and there are 601"),
    "a byte less": (npy(X)[:-1], "600 bytes, and there are 599"),
    "negative": (header("(-1, 3)") + bytes(80), "a header that is none"),
    "bool": (header("(True, 2)") + bytes(80), "a header that is none"),
    "nested": (header("(" * 3000) + bytes(80), "a header that is none"),
    "no type": (header("(2,)", "<q9"), "a header that is none"),
    "long": (b"\x93NUMPY\2\0" + struct.pack("<I", 2**31) + bytes(80), "a header of 2,147,483,648 bytes"),
    "version": (b"\x93NUMPY\7\1" + bytes(80), "an .npy of version 7.1"),
    "objects": (header("(2,)", "|O") + bytes(16), "without pickles"),
    "records": (npy(np.zeros(3, [("a", "<f8")])), "got records"),
    "no characters": (header("(2,)", "<U1") + b"\0\0\x11\0" * 2, "no characters"),
    "empty": (b"", "got: an empty file"),
    "something": (b"hello, world", "it is neither a zip nor"),
}


@pytest.mark.parametrize("case", LIES)
@pytest.mark.parametrize("ending", ["npy", "npz"])
def test_an_array_is_compared_with_its_header_first(case, ending, tmp_path, monkeypatch):
    monkeypatch.setattr(np, "empty", None)  # no memory is taken
    content, said = LIES[case]
    file = tmp_path / f"a.{ending}"
    file.write_bytes(content if ending == "npy" else packed(("x.npy", content)))
    if case == "no characters":
        monkeypatch.undo()
    assert said in complaint(read_arrays, file, "input=a")


def encrypted():
    raw = bytearray(packed(("x.npy", npy(X))))
    raw[6] |= 1
    raw[raw.find(b"PK\1\2") + 8] |= 1
    return bytes(raw)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (encrypted(), "x.npy is encrypted; save it without a password"),
        (packed(("x.npy", npy(X)), ("readme.txt", b"hi")), "expected arrays alone (.npy), got readme.txt"),
        (packed(("x.npy", npy(X)), ("x.npy", npy(X))), "expected each array once, got several of x.npy"),
        (packed(("x.npy", npy(X))).replace(npy(X)[-9:], bytes(9)), "Bad CRC-32"),
        (packed(("x\x1b[2J.txt", npy(X))), r"got x\x1b[2J.txt"),
    ],
    ids=["encrypted", "no array", "twice", "checksum", "name"],
)
def test_members_that_are_not_what_they_should_be(content, said, tmp_path):
    (tmp_path / "a.npz").write_bytes(content)
    assert said in complaint(read_arrays, tmp_path / "a.npz", "input=a.npz")


@pytest.mark.parametrize("array", [X, np.asfortranarray(X / 255), np.array(3.5), X[:0], np.array(["é", "b"]), X > 3])
def test_arrays_are_read_as_numpy_does(array, tmp_path):
    np.save(tmp_path / "a.npy", array)
    np.savez_compressed(tmp_path / "a.npz", a=array, b=X)
    found = [read_arrays(tmp_path / "a.npy", "")["x"], read_arrays(tmp_path / "a.npz", "")["a"]]
    for one in found:
        np.testing.assert_array_equal(one, array)
        assert (one.dtype, one.flags.f_contiguous) == (array.dtype, array.flags.f_contiguous)


@pytest.fixture(scope="module")
def stored():
    from aelab import stored

    return stored


@pytest.mark.parametrize("array", [X.astype(complex), X.astype("M8[s]"), X.astype(str), X[0, 0], X[:0], X.astype(int)])
def test_predict_takes_images_alone(array, tmp_path, stored):
    np.save(tmp_path / "a.npy", array)
    said = complaint(stored.read, tmp_path / "a.npy")
    assert "expected images (n, h, w) or (n, h, w, c), uint8 or floats in [0, 1]; got " in said


def test_predict_does_not_clip_16_bits(tmp_path, stored):
    Image.fromarray(np.full((4, 4), 60_000, np.uint16)).save(tmp_path / "a.png")
    assert "expected 8 bits a channel, got mode I" in complaint(stored.read, tmp_path / "a.png")


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_any_change_of_an_array_file_is_the_same_array_or_one_line(data, tmp_path_factory):
    raw = bytearray(data.draw(st.sampled_from([npy(X), packed(("x.npy", npy(X)), ("y.npy", npy(np.arange(20))))])))
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, min(len(raw) - 1, 200)))] = data.draw(st.integers(0, 255))
    raw = raw[: data.draw(st.sampled_from([len(raw), len(raw) // 2, 90, 20]))]
    file = tmp_path_factory.mktemp("changed") / "a.npz"
    file.write_bytes(raw)
    refused = None
    try:
        arrays = read_arrays(file, "input=a.npz")
    except AelabError as error:
        refused = str(error)
    assert refused.isprintable() if refused else all(isinstance(array, np.ndarray) for array in arrays.values())


# ---- pictures


def png(width, height):
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(60_000, 60_000), (2**31 - 1, 1), (0, 0)])
def test_pictures_that_say_they_are_huge(size, tmp_path, stored):
    (tmp_path / "a.png").write_bytes(png(*size))
    assert "a.png: " in complaint(data_set, "images", path=str(tmp_path))
    assert complaint(stored.read, tmp_path / "a.png").startswith(f"input={tmp_path / 'a.png'}: ")


def test_a_picture_that_does_not_fit(tmp_path, little):
    Image.new("RGB", (600, 600)).save(tmp_path / "a.png")
    assert "a.png: 600 x 600 pixels: would take about 4.1 MiB" in complaint(data_set, "images", path=str(tmp_path))


# ---- tables


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (HEAD + b"1\x002,1,0\n" + BODY, "it has a NUL byte at offset 18"),
        ((HEAD + BODY).decode().encode("utf-16-le"), "or UTF-16; save it as UTF-8"),
        (b"PK\x03\x04" + BODY, "expected CSV, plain or gzip, got a zip"),
        (b"PAR1\x15" + BODY, "got Parquet; unpack it, or name Parquet .parquet"),
        (gzip.compress(HEAD + BODY), "it is gzip, whose name should end in .gz"),
        (b",".join([b"a"] * 100_001) + b"\n", "expected at most 100,000 columns"),
    ],
    ids=["nul", "utf-16", "zip", "parquet", "gzip", "columns"],
)
@pytest.mark.parametrize("chunk", [None, 7])
def test_what_is_no_table(content, said, chunk, tmp_path):
    (tmp_path / "a.csv").write_bytes(content)
    assert said in complaint(lambda: list(read_frame(tmp_path / "a.csv", **CSV, chunk=chunk)))


@pytest.mark.parametrize("chunk", [None, 7])
def test_a_line_without_an_end(chunk, tmp_path, monkeypatch):
    monkeypatch.setattr(lines, "LONGEST_LINE", 100_000)
    monkeypatch.setattr(lines, "BLOCK", 10_000)
    (tmp_path / "a.csv").write_bytes(HEAD + BODY + b"1" * 99_000 + b"\n")
    assert sum(map(len, read_frame(tmp_path / "a.csv", **CSV, chunk=7))) == 51
    (tmp_path / "a.csv").write_bytes(HEAD + BODY + b"1" * 120_000)
    said = complaint(lambda: list(read_frame(tmp_path / "a.csv", **CSV, chunk=chunk)))
    assert "a line of more than 97.7 KiB" in said


def test_gzip_in_several_parts_and_a_byte_order_mark(tmp_path):
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"\xef\xbb\xbf" + HEAD) + gzip.compress(BODY))
    frame = read_frame(tmp_path / "a.csv.gz", **CSV)
    assert (list(frame.columns), len(frame)) == (["amount", "age", "label"], 50)


def test_empty_lines_that_fill_a_part(tmp_path):
    (tmp_path / "a.csv").write_bytes(HEAD + BODY + b"\n" * 40 + BODY)
    assert [frame.index[-1] for frame in read_frame(tmp_path / "a.csv", **CSV, chunk=10)][-1] == 141


@pytest.mark.parametrize("chunk", [None, 3])
def test_warnings_of_others_are_left_alone(chunk, tmp_path):
    (tmp_path / "a.csv").write_bytes(HEAD + BODY)
    (tmp_path / "wide.csv").write_bytes(HEAD + BODY.replace(b"\n", b",9\n"))
    before = list(warnings.filters)
    frames = iter(list(read_frame(tmp_path / "a.csv", **CSV, chunk=chunk)))
    assert "fields" in complaint(lambda: list(read_frame(tmp_path / "wide.csv", **CSV, chunk=chunk)))
    assert len(next(frames)) > 0 if chunk else True
    assert warnings.filters == before
    with pytest.warns(pd.errors.ParserWarning):  # not an error
        pd.read_csv(io.StringIO("a,b\n1,2,3\n"), index_col=False)


def test_readers_in_threads_leave_the_filters_as_they_were(tmp_path):
    (tmp_path / "a.csv").write_bytes(HEAD + BODY)
    before, counts = list(warnings.filters), []

    def read():
        counts.append(sum(map(len, read_frame(tmp_path / "a.csv", **CSV, chunk=2))))

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == [50] * 4
    assert warnings.filters == before


def parquet(path, **columns):
    label = (np.arange(50) % 5 == 0).astype(int)
    pd.DataFrame({"amount": np.arange(50.0), "label": label, **columns}).to_parquet(path)
    return path


@pytest.mark.parametrize(
    ("values", "kind"),
    [([[1]] * 50, "list"), ([{"a": 1}] * 50, "struct"), ([b"a"] * 50, "binary"), ([time(1)] * 50, "time")],
)
def test_kinds_of_columns_that_are_no_table(values, kind, tmp_path):
    said = complaint(table, parquet(tmp_path / "a.parquet", c=values))
    assert f"a.parquet: column c: expected numbers, texts or dates, got {kind}" in said


def test_decimals_and_dates_of_parquet(tmp_path):
    when = [datetime(2020, 1, 1, tzinfo=UTC), None] * 25
    columns = {"c": [Decimal("1.5"), None] * 25, "when": when, "kind": pd.Categorical(["x", "y"] * 25)}
    data = table(parquet(tmp_path / "a.parquet", **columns))
    assert data.columns.names == ["amount", "c", "when", "kind"]
    x = data.train.x
    assert set(x[~np.isnan(x[:, 1]), 1]) == {1.5}
    assert np.isnan(x[:, 1]).any()
    assert set(x[~np.isnan(x[:, 2]), 2]) == {1577836800e9}  # a missing date is missing, not the year 1677
    assert np.isnan(x[:, 2]).any()


def test_ids_of_other_scripts_and_with_underscores_are_texts(tmp_path):
    (tmp_path / "a.csv").write_text(
        "user,item,rating\n" + "".join(f"{u},{i},{i}\n" for u in ("1_0", "10", "١٠") for i in (1, 2, 3))
    )
    data = data_set("ratings", path=str(tmp_path / "a.csv"))
    assert sorted(data.catalogue.users["id"]) == ["10", "1_0", "١٠"]


@pytest.mark.parametrize("cell", ["", "never"])
def test_a_row_without_a_time_is_named(cell, tmp_path):
    rows = "".join(f"2020-01-{i + 1:02},{i},{i % 5 == 0:d}\n" for i in range(30))
    (tmp_path / "a.csv").write_text(f"when,age,label\n{rows}{cell},3,0\n")
    said = complaint(table, tmp_path / "a.csv", time="when", drop=["when"])
    assert "column when: expected " in said
    assert "in line 32" in said


# ---- texts


def test_a_text_with_nul_bytes(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"abc\0def " * 100)
    assert "got a NUL byte at offset 3" in complaint(data_set, "text", path=str(tmp_path / "a.txt"))


# ---- MovieLens


ROWS = [(u, i, 1 + (u * i) % 5, 890000000 + 10 * u + i) for u in range(1, 11) for i in (1, 2, 3)]
ITEMS = {i: [i, f"T{i} (1995)", "01-Jan-1995", "", "http://x", *[(i + k) % 2 for k in range(19)]] for i in (1, 2, 3)}
USERS = {u: [u, 20 + u, "MF"[u % 2], "writer", f"0{u}"] for u in range(1, 11)}


def ml_100k(folder, rows=ROWS, items=ITEMS, users=USERS):
    """The data of files in the form of MovieLens 100K."""
    home = folder / "ml-100k"
    home.mkdir(exist_ok=True)
    forms = (("u.data", "\t", rows), ("u.item", "|", items.values()), ("u.user", "|", users.values()))
    for name, separator, found in forms:
        (home / name).write_text("\n".join(separator.join(map(str, row)) for row in found))
    return data_set("ml_100k", data_dir=str(folder), fold="random")


@pytest.mark.parametrize(
    ("order", "said"),
    [
        ((2, 1, 0, 3), None),
        ((3, 1, 2, 0), "column 1 (user) looks like times: 890000011, 890000012, 890000013"),
        ((0, 3, 2, 1), "column 2 (item) looks like times"),
        ((0, 1, 3, 2), "column 3 (rating) looks like times"),
        ((1, 0, 2, 3), "expected users, then items; by their ids these columns are swapped"),
    ],
)
def test_swapped_columns_of_movielens_are_named(order, said, tmp_path):
    rows = [tuple(row[k] for k in order) for row in ROWS]
    if said is None:  # user and rating: ids up to 500 where ratings should be
        said = "column 1 (user) looks like ratings"
        rows = [(row[2], row[1], row[0] * 50, row[3]) for row in ROWS]
    assert said in complaint(ml_100k, tmp_path, rows)
    assert len(ml_100k(tmp_path).train)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"items": ITEMS | {3: ITEMS[2]}}, "u.item: expected an id in every line, each once; 1 are not: id 2"),
        ({"items": ITEMS | {3: [*ITEMS[3][:9], 7, *ITEMS[3][10:]]}}, "u.item: expected 0 or 1 for each genre"),
        ({"items": {k: [v[0], "", *v[2:]] for k, v in ITEMS.items()}}, "u.item: expected a title in every line"),
        ({"users": {k: [v[0], v[2], v[1], *v[3:]] for k, v in USERS.items()}}, "u.user: expected an age, and M or F"),
        ({"users": {k: v[:2] for k, v in USERS.items()}}, "u.user: expected an age, and M or F as gender"),
    ],
)
def test_what_movielens_says_of_items_and_users_is_checked(change, said, tmp_path):
    assert said in complaint(ml_100k, tmp_path, **change)


def test_headers_of_movielens_25m_are_compared(tmp_path):
    home = tmp_path / "ml-25m"
    home.mkdir()
    (home / "movies.csv").write_text("movieId,title,genres\n1,A (1995),War\n2,B (1996),War\n")
    (home / "ratings.csv").write_text("movieId,userId,rating,timestamp\n1,1,3,900000000\n2,1,3,900000000\n")
    said = complaint(data_set, "ml_25m", data_dir=str(tmp_path))
    assert "ratings.csv: expected the columns userId, movieId, rating, timestamp, got movieId, userId, rating" in said
    assert movielens.LATE < 789652004  # the first rating of all
