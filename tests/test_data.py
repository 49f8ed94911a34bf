import gzip
import hashlib
import http.server
import importlib
import inspect
import io
import socket
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from contract import DataContract
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from PIL import Image

from aelab.config import ConfigError, DataError, DataUnavailable
from aelab.data import cifar10 as cifar
from aelab.data import fashion_mnist as fashion
from aelab.data import fetch as fetching
from aelab.data.digits import digits
from aelab.data.fetch import fetch
from aelab.data.images import images
from aelab.data.load import load
from aelab.data.npz import npz
from aelab.data.photo_patches import photo_patches
from aelab.data.record import fingerprint, split_validation

CONF = Path(__file__).parents[1] / "conf" / "dataset"


def some_images(n, *shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), np.uint8)


@pytest.fixture(autouse=True)
def no_network_no_home(monkeypatch, tmp_path):
    """Downloads go to an empty cache, and nothing leaves the machine by way of a proxy."""
    monkeypatch.setenv("AELAB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "*")


# ---- the record


@given(
    y=st.lists(st.integers(0, 3), min_size=2, max_size=80),
    share=st.floats(0.01, 0.99),
    seed=st.integers(0, 2**32),
    labelled=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_split_validation(y, share, seed, labelled):
    x, y = np.arange(len(y)), np.array(y)
    rest, held = split_validation(x, y if labelled else None, validation=share, seed=seed)
    assert sorted([*rest.x, *held.x]) == list(x)  # every row once: nothing leaks, nothing is lost
    assert len(held) == min(max(round(len(x) * share), 1), len(x) - 1)
    again = split_validation(x, y if labelled else None, validation=share, seed=seed)[1]
    np.testing.assert_array_equal(held.x, again.x)
    if labelled:
        np.testing.assert_array_equal(held.y, y[held.x])
        expected = np.bincount(y, minlength=4) * len(held) / len(x)
        assert (np.abs(np.bincount(held.y, minlength=4) - expected) < 1).all()
    else:
        assert rest.y is None
        assert held.y is None


@pytest.mark.parametrize("share", [0, 1, -0.1, 1.5])
def test_split_validation_refuses_a_share_that_leaves_a_side_empty(share):
    with pytest.raises(ConfigError, match=f"above 0 and below 1 .* got {share}"):
        split_validation(np.arange(9), None, validation=share, seed=0)


def test_split_validation_needs_two_rows():
    with pytest.raises(DataError, match=r"at least 2 rows .* got 1"):
        split_validation(np.arange(1), None, validation=0.5, seed=0)


def test_fingerprint_sees_dtype_shape_bytes_and_missing_labels():
    x = np.arange(4, dtype=np.uint8)
    others = [x[::-1], x.reshape(2, 2), x.view(np.int8), x.astype(np.int64), None]
    assert len({fingerprint(a) for a in [x, *others]}) == 6
    assert fingerprint(x.reshape(2, 2).T) == fingerprint(np.array([[0, 2], [1, 3]], np.uint8))
    # By hand: sha256sum of the bytes "|u1(4,);" 0 1 2 3
    assert fingerprint(x) == hashlib.sha256(b"|u1(4,);\0\1\2\3").hexdigest()


def test_importing_the_data_layer_is_light():
    names = ("digits", "fashion_mnist", "cifar10", "photo_patches", "npz", "images", "load", "table", "columns")
    names += ("nsl_kdd", "breast_cancer")
    code = "import sys\n" + "".join(f"import aelab.data.{name}\n" for name in names)
    code += "print(*sys.modules.keys() & {'tensorflow', 'keras', 'mlflow', 'sklearn', 'scipy', 'PIL', 'pooch'})"
    root = Path(__file__).parents[1]
    out = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == ""


@pytest.mark.parametrize("file", sorted(CONF.glob("*.yaml")), ids=lambda file: file.stem)
def test_yaml_and_signature_name_the_same_knobs(file):
    node = OmegaConf.load(file)
    node = node.get("dataset", node)
    module, _, name = node["_target_"].rpartition(".")
    assert module in (f"aelab.data.{name}", "aelab.data.movielens", "aelab.data.text")
    assert name in (file.stem, "table")  # a table of one's own needs no code
    knobs = inspect.signature(getattr(importlib.import_module(module), name)).parameters
    assert set(node) - {"_target_", "fallback"} == set(knobs)
    assert all(knob.kind is knob.KEYWORD_ONLY and knob.default is knob.empty for knob in knobs.values())


# ---- Fashion-MNIST, in small: 40 + 10 images in the published format


@pytest.fixture
def small_fashion(monkeypatch):
    """{file name: published .gz bytes} of a small Fashion-MNIST, which the module takes for the real one."""
    files, table = {}, {}
    for part, n in (("train", 40), ("t10k", 10)):
        for kind, array in (
            ("images-idx3", some_images(n, 28, 28, seed=n)),
            ("labels-idx1", (np.arange(n) % 10).astype(np.uint8)),
        ):
            content = fashion.Idx("", "", array.shape).header + array.tobytes()
            name = f"{part}-{kind}-ubyte.gz"
            files[name] = gzip.compress(content, mtime=0)
            md5 = [hashlib.md5(data).hexdigest() for data in (files[name], content)]
            table[name] = fashion.Idx(*md5, array.shape)
    monkeypatch.setattr(fashion, "FILES", table)
    return files


def written(folder, files):
    """A new folder with files by name."""
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def folder(small_fashion, tmp_path):
    """A data folder of the user's with the small files."""
    return written(tmp_path / "data" / "fashion-mnist", small_fashion)


def small(folder, **knobs):
    data_dir = None if folder is None else str(folder.parent)
    knobs = {"data_dir": data_dir, "validation": 0.25, "limit": None, "seed": 0, "mirrors": []} | knobs
    return fashion.fashion_mnist(**knobs)


class TestFashionMNIST(DataContract):
    @pytest.fixture(autouse=True)
    def files(self, folder):
        self.folder = folder

    def load(self, **knobs):
        return small(self.folder, **knobs)


TRAIN = "train-images-idx3-ubyte.gz"


def test_fashion_header_is_the_published_one():
    shape = (60_000, 28, 28)
    assert fashion.Idx("", "", shape).header.hex() == "000008030000ea600000001c0000001c"


def test_fashion_takes_recompressed_and_uncompressed_files(folder, small_fashion):
    published = small(folder)
    content = gzip.decompress(small_fashion[TRAIN])
    recompressed = gzip.compress(content, 1, mtime=123)
    assert recompressed != small_fashion[TRAIN]
    (folder / TRAIN).write_bytes(recompressed)
    assert small(folder).fingerprint == published.fingerprint
    (folder / TRAIN).unlink()
    (folder / TRAIN.removesuffix(".gz")).write_bytes(content)
    assert small(folder).fingerprint == published.fingerprint


def altered(content):
    return content[:-1] + bytes([content[-1] ^ 1])


@pytest.mark.parametrize(
    ("spoil", "got"),
    [
        (lambda raw: raw[: len(raw) // 2], "expected a whole gzip file"),
        (lambda raw: b"", "got 0 bytes"),
        (lambda raw: b"<html>sign in</html>", "got 20 bytes .* header 3c68746d6c"),
        (lambda raw: raw[:-8] + bytes(8), "CRC check failed"),
        (
            lambda raw: gzip.compress(altered(gzip.decompress(raw))),
            "expected 31,376 bytes .* got 31,376 bytes",
        ),
        (lambda raw: gzip.compress(gzip.decompress(raw)[:-1]), "expected 31,376 bytes .* got 31,375 bytes"),
        (
            lambda raw: gzip.compress(b"\0\0\x08\x01" + gzip.decompress(raw)[4:]),
            "header 00000801000000280000001c0000001c not 00000803000000280000001c0000001c",
        ),
    ],
    ids=["truncated", "empty", "html", "crc", "altered", "short", "magic"],
)
def test_fashion_broken_file_is_named_and_kept(folder, small_fashion, spoil, got):
    file = folder / TRAIN
    file.write_bytes(spoil(small_fashion[TRAIN]))
    before = file.read_bytes()
    with pytest.raises(DataError, match=got) as error:
        small(folder, mirrors=["http://127.0.0.1:9/"])
    assert str(file) in str(error.value)
    assert "move it away" in str(error.value)
    assert not isinstance(error.value, DataUnavailable)  # broken data never lead to the fallback
    assert file.read_bytes() == before


# ---- downloads, from a real server on this machine


class Mirror:
    """An HTTP server; `script[path]` lists what each GET in turn gives: bytes, an error code, or "cut"."""

    def __init__(self, files):
        self.files, self.script, self.gets = files, {}, []
        mirror = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_HEAD(self):
                self.send_response(200)
                self.end_headers()

            def do_GET(self):
                name = self.path.rpartition("/")[2]
                mirror.gets.append(name)
                todo = mirror.script.get(name)
                answer = todo.pop(0) if todo else mirror.files.get(name, 404)
                if isinstance(answer, int):
                    self.send_error(answer)
                    return
                body = mirror.files[name] if answer == "cut" else answer
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[: len(body) // 2] if answer == "cut" else body)

            def log_message(self, *args):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()


@pytest.fixture
def mirror(small_fashion):
    mirror = Mirror(small_fashion)
    yield mirror
    mirror.server.shutdown()
    mirror.server.server_close()


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache" / "fashion-mnist"


@pytest.fixture
def refused():
    """URL of a port on which nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{free.getsockname()[1]}/"


def test_download_goes_to_the_cache_once(mirror, cache, small_fashion, folder):
    data = small(None, mirrors=[mirror.url])
    assert data.fingerprint == small(folder).fingerprint
    assert {file.name: file.read_bytes() for file in cache.iterdir()} == small_fashion
    small(None, mirrors=[mirror.url])
    assert sorted(mirror.gets) == sorted(small_fashion)


def test_download_shows_progress_on_a_terminal_only(mirror, capsys, monkeypatch):
    knobs = {"urls": [mirror.url + TRAIN], "md5": fashion.FILES[TRAIN].published, "data_dir": None}
    fetch("quiet", TRAIN, **knobs)
    assert capsys.readouterr() == ("", "")
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    fetch("shown", TRAIN, **knobs)
    out, err = capsys.readouterr()
    assert out == ""
    assert TRAIN in err
    size = len(mirror.files[TRAIN]) / 1000
    assert f"{size:.1f}/{size:.1f} kB" in err


def test_download_uses_the_second_mirror_when_the_first_is_down(mirror, cache, refused):
    small(None, mirrors=[refused, mirror.url])
    assert len(list(cache.iterdir())) == 4


def test_download_uses_the_second_mirror_when_the_first_lacks_the_file(mirror, small_fashion):
    other = Mirror({})
    try:
        small(None, mirrors=[other.url, mirror.url])
    finally:
        other.server.shutdown()
        other.server.server_close()
    assert sorted(mirror.gets) == sorted(small_fashion)


def test_download_retries_a_cut_connection(mirror, cache, small_fashion):
    mirror.script[TRAIN] = ["cut"]
    small(None, mirrors=[mirror.url])
    assert mirror.gets.count(TRAIN) == 2
    assert (cache / TRAIN).read_bytes() == small_fashion[TRAIN]


@pytest.mark.parametrize(
    ("answer", "why"),
    [("cut", "IncompleteRead|broken"), (b"<html>sign in</html>", "MD5 hash .* does not match"), (503, "503")],
    ids=["cut", "checksum", "503"],
)
def test_download_that_fails_twice_leaves_nothing(mirror, cache, answer, why):
    mirror.script[TRAIN] = [answer] * 2
    with pytest.raises(DataUnavailable, match=why):
        small(None, mirrors=[mirror.url])
    assert mirror.gets == [TRAIN] * 2
    assert list(cache.iterdir()) == []


def test_download_fills_in_for_missing_files_without_touching_the_users(mirror, cache, folder, small_fashion):
    (folder / TRAIN).unlink()
    before = {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in folder.iterdir()}
    small(folder, mirrors=[mirror.url])
    assert {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in folder.iterdir()} == before
    assert [file.name for file in cache.iterdir()] == [TRAIN]


def test_fetch_never_replaces_a_file(mirror, folder, cache):
    cache.mkdir(parents=True)
    for mine in (folder / TRAIN, cache / TRAIN):
        mine.write_bytes(b"mine")
        found = fetch("fashion-mnist", TRAIN, urls=[mirror.url + TRAIN], md5="0" * 32, data_dir=folder.parent)
        assert found.read_bytes() == b"mine"
    assert mirror.gets == []


def test_fetch_without_network_says_what_to_do_in_one_line(refused, tmp_path):
    start = time.perf_counter()
    with pytest.raises(DataUnavailable) as error:
        fetch("ml-100k", "u.data", urls=[f"{refused}u.data"] * 2, md5="0" * 32, data_dir=str(tmp_path / "mine"))
    assert time.perf_counter() - start < 4
    text = str(error.value)
    assert "\n" not in text
    assert "Connection refused" in text
    assert str(tmp_path / "mine" / "ml-100k") in text
    assert f"put the files of ml-100k into $AELAB_DATA_DIR/ml-100k/ or {tmp_path}/cache/ml-100k/" in text


def test_fetch_does_not_wait_for_a_name_look_up_that_hangs(monkeypatch):
    monkeypatch.setattr(fetching, "ANSWER_S", 0.1)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: time.sleep(8) or [])
    start = time.perf_counter()
    with pytest.raises(DataUnavailable, match=r"mirror\.invalid: no answer within 0\.1 s"):
        fetch("a", "b.gz", urls=["http://mirror.invalid/b.gz"] * 2, md5="0" * 32, data_dir=None)
    assert time.perf_counter() - start < 4


def test_fetch_does_not_wait_for_a_server_that_says_nothing(monkeypatch):
    monkeypatch.setattr(fetching, "ANSWER_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/b.gz"
        with pytest.raises(DataUnavailable, match=r"no answer within|timed out"):
            fetch("a", "b.gz", urls=[url], md5="0" * 32, data_dir=None)


def test_fetch_says_that_the_cache_cannot_be_written(mirror, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("AELAB_CACHE_DIR", str(tmp_path / "file"))
    with pytest.raises(DataUnavailable, match=r"Not a directory|File exists"):
        small(None, mirrors=[mirror.url])


# ---- digits


class TestDigits(DataContract):
    def load(self, **knobs):
        return digits(**{"validation": 0.1, "test": 0.2, "limit": None, "seed": 0} | knobs)


def test_digits_cover_all_classes_and_fill_the_range():
    data = TestDigits().load()
    assert (len(data.train), len(data.validation), len(data.test)) == (1294, 144, 359)
    assert data.shape == (28, 28, 1)
    assert np.bincount(data.test.y).min() >= 34
    assert (data.train.x.min(), data.train.x.max()) == (0, 1)


# ---- CIFAR-10, in small: 20 images a file


@pytest.fixture
def batches(monkeypatch):
    """{file name: content} of a small CIFAR-10, which the module takes for the real one."""
    monkeypatch.setattr(cifar, "EACH", 20)
    return {
        name: b"".join(bytes([i % 10]) + some_images(3072, seed=[number, i]).tobytes() for i in range(20))
        for number, name in enumerate(cifar.FILES)
    }


@pytest.fixture
def archive(batches, monkeypatch):
    """The published archive of the small CIFAR-10."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in batches.items():
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    monkeypatch.setattr(cifar, "MD5", hashlib.md5(packed.getvalue()).hexdigest())
    return packed.getvalue()


@pytest.fixture
def unpacked(batches, tmp_path):
    """A folder of the user's with the six files."""
    return written(tmp_path / "data" / "cifar-10-batches-bin", batches)


def load_cifar(data_dir, **knobs):
    knobs = {"validation": 0.2, "limit": None, "seed": 0, "mirrors": []} | knobs
    return cifar.cifar10(data_dir=data_dir and str(data_dir), **knobs)


class TestCifar10(DataContract):
    @pytest.fixture(autouse=True)
    def files(self, unpacked):
        self.folder = unpacked.parent

    def load(self, **knobs):
        return load_cifar(self.folder, **knobs)


def test_cifar_keeps_reds_greens_and_blues_apart(unpacked, batches):
    data, content = load_cifar(unpacked.parent), batches["test_batch.bin"]
    assert (len(data.train), len(data.validation), len(data.test), data.shape) == (80, 20, 20, (32, 32, 3))
    for image, row, column, channel in ((0, 0, 0, 0), (0, 31, 2, 1), (19, 5, 30, 2)):
        byte = content[3073 * image + 1 + 1024 * channel + 32 * row + column]
        assert data.test.x[image, row, column, channel] == np.float32(byte / 255)
    np.testing.assert_array_equal(data.test.y, np.arange(20) % 10)
    assert data.label_names[3] == "cat"


def test_cifar_is_downloaded_once_and_read_from_its_archive(unpacked, archive, tmp_path):
    mirror = Mirror({cifar.ARCHIVE: archive})
    try:
        data = load_cifar(None, mirrors=[mirror.url])
        load_cifar(None, mirrors=[mirror.url])
    finally:
        mirror.server.shutdown()
        mirror.server.server_close()
    assert mirror.gets == [cifar.ARCHIVE]
    assert data.fingerprint == load_cifar(unpacked.parent).fingerprint
    mine = tmp_path / "mine" / "cifar10" / cifar.ARCHIVE
    mine.parent.mkdir(parents=True)
    mine.write_bytes(archive[:-100])
    with pytest.raises(DataError, match=r"mine/cifar10/cifar-10-binary\.tar\.gz: expected the published archive"):
        load_cifar(tmp_path / "mine")


@pytest.mark.parametrize(
    ("name", "spoil", "got"),
    [
        ("data_batch_2.bin", lambda raw: raw[:-1], r"data_batch_2\.bin: expected 61,460 bytes, got 61,459"),
        ("test_batch.bin", lambda raw: raw + b"0", r"test_batch\.bin: expected 61,460 bytes, got 61,461"),
        ("data_batch_1.bin", lambda raw: b"\x0a" + raw[1:], r"data_batch_1\.bin: expected labels from 0 to 9, got 10"),
        ("data_batch_5.bin", lambda raw: b"\x09" + raw[1:], "as many training images of each class, got 9, 10, .*, 11"),
        ("data_batch_3.bin", None, r"expected all six files of CIFAR-10, but lacks data_batch_3\.bin"),
    ],
    ids=["truncated", "long", "label", "altered", "missing"],
)
def test_cifar_broken_file_is_named(unpacked, batches, name, spoil, got):
    (unpacked / name).unlink()
    if spoil:
        (unpacked / name).write_bytes(spoil(batches[name]))
    with pytest.raises(DataError, match=got) as error:
        load_cifar(unpacked.parent)
    assert str(unpacked) in str(error.value)
    assert not isinstance(error.value, DataUnavailable)  # broken data never lead to the fallback


def test_cifar_falls_back_on_photographs(refused):
    data, why = load(node("cifar10", mirrors=[refused], limit=5), node)
    assert (data.name, data.shape, len(data.train)) == ("photo_patches", (32, 32, 3), 5)
    assert "cifar10 could not be had, so this run uses photo_patches instead" in why


# ---- patches of photographs


class TestPhotoPatches(DataContract):
    def load(self, **knobs):
        return photo_patches(**KNOBS | knobs)


KNOBS = {"size": 32, "stride": 16, "region": 64, "validation": 0.1, "test": 0.2, "limit": None, "seed": 0}


def test_patches_of_two_splits_share_no_pixel(monkeypatch):
    """Photographs whose colours number their pixels: a patch shows where it comes from."""
    number = np.arange(2 * 427 * 640).reshape(2, 427, 640)
    made = list(np.stack([number >> 16, number >> 8 & 255, number & 255], axis=-1).astype(np.uint8))
    monkeypatch.setattr("sklearn.datasets.load_sample_images", lambda: SimpleNamespace(images=made))
    data = photo_patches(**KNOBS | {"size": 40, "stride": 15, "region": 100, "seed": 3})
    pixels, corner = [], np.arange(40)[:, None] * 640 + np.arange(40)
    for split in (data.train, data.validation, data.test):
        found = np.rint(split.x * 255).astype(int) @ [65536, 256, 1]
        np.testing.assert_array_equal(found, found[:, :1, :1] + corner)  # whole patches, the right way up
        np.testing.assert_array_equal(split.y, found[:, 0, 0] // (427 * 640))
        pixels.append(set(found.ravel()))
    assert sum(map(len, pixels)) == len(set.union(*pixels))
    # 4 x 6 regions a photograph, 5 x 5 patches a region: of 48 regions 10 are for test, of 38 4 for validation
    assert [len(s) for s in (data.train, data.validation, data.test)] == [34 * 25, 4 * 25, 10 * 25]


@pytest.mark.parametrize("knobs", [{"size": 65}, {"region": 428}])
def test_patches_that_do_not_fit_are_refused(knobs):
    with pytest.raises(ConfigError, match="expected size <= region <= 427, in pixels"):
        photo_patches(**KNOBS | knobs)


# ---- the user's arrays


def load_npz(path, **knobs):
    return npz(**{"path": str(path), "validation": 0.2, "test": 0.2, "limit": None, "seed": 0} | knobs)


class TestNpz(DataContract):
    @pytest.fixture(autouse=True)
    def file(self, tmp_path):
        self.path = tmp_path / "mine.npz"
        np.savez(self.path, x=some_images(50, 6, 5), y=np.arange(50) % 4)

    def load(self, **knobs):
        return load_npz(self.path, **knobs)


def test_npz_with_the_keys_of_keras(tmp_path):
    x = some_images(30, 4, 4, 3)
    y = np.array([3, 7, 9])[np.arange(30) % 3]
    path = tmp_path / "keras.npz"
    np.savez(path, x_train=x[:20], y_train=y[:20, None], x_test=x[20:], y_test=y[20:])
    data = load_npz(path, validation=0.1)
    assert (data.name, data.shape, data.label_names) == ("keras", (4, 4, 3), ("3", "7", "9"))
    np.testing.assert_array_equal(data.test.x, x[20:] / np.float32(255))
    np.testing.assert_array_equal(data.test.y, np.arange(20, 30) % 3)
    assert (len(data.train), len(data.validation)) == (18, 2)
    np.savez(path, x_train=x[:20], x_test=x[20:], x_val=x[15:17])
    data = load_npz(path)
    assert (len(data.train), len(data.validation), len(data.test)) == (20, 2, 10)
    assert data.test.y is None


def test_npz_takes_npy_and_floats_as_they_are(tmp_path):
    x = np.random.default_rng(0).random((10, 3, 3))
    np.save(tmp_path / "a.npy", x)
    data = load_npz(tmp_path / "a.npy")
    everything = np.concatenate([data.train.x, data.validation.x, data.test.x])
    np.testing.assert_array_equal(np.sort(everything, axis=0), np.sort(x.astype(np.float32)[..., None], axis=0))


X = some_images(10, 4, 4)


@pytest.mark.parametrize(
    ("arrays", "got"),
    [
        (
            {"x": X.astype(float)},
            r"expected floats in \[0, 1\], got \d+ to 2\d\d; rescale",
        ),
        ({"x": X / 127.5 - 1}, r"expected floats in \[0, 1\], got -1 to"),
        ({"x": np.where(X > 128, np.nan, 0.5)}, "expected finite values, got [0-9]+ NaN or infinite"),
        ({"x": X.astype(int)}, "expected uint8 or float pixels, got int64"),
        ({"x": X.reshape(10, 16)}, r"x: expected shape \(n, h, w\) or \(n, h, w, c\), got \(10, 16\)"),
        ({"x": some_images(10, 3, 8, 8)}, r"expected channels last, got \(10, 3, 8, 8\)"),
        ({"x": X[:0]}, "expected at least one image"),
        ({"x": X, "y": np.arange(9)}, r"expected 10 labels, .* got shape \(9,\)"),
        ({"x": X, "y": np.eye(10)}, r"expected integer or string labels .* got float64 \(10, 10\)"),
        ({"x_train": X, "y_train": np.arange(10), "x_test": X}, "for each x or for none, got none"),
        (
            {"x_train": X, "x_test": some_images(5, 8, 8)},
            r"test images: expected .* \(4, 4, 1\), got \(5, 8, 8",
        ),
        ({"a": X, "b": X}, "expected x_train, or x, or a single array, got a, b"),
        ({"x": np.array([{}, []], object)}, "without pickles"),
        ({}, "at least one array, got none"),
    ],
    ids=lambda value: None if isinstance(value, str) else "-".join(value) or "empty",
)
def test_npz_refuses(tmp_path, arrays, got):
    path = tmp_path / "mine.npz"
    np.savez(path, **arrays)
    with pytest.raises(DataError, match=got) as error:
        load_npz(path)
    assert str(path) in str(error.value)


def test_npz_refuses_missing_and_broken_files(tmp_path):
    path = tmp_path / "mine.npz"
    with pytest.raises(DataError, match=r"mine\.npz: no such file"):
        load_npz(path)
    np.savez_compressed(path, x=X)
    raw = path.read_bytes()
    for spoiled in (b"", b"hello", raw[: len(raw) // 2], raw[:80] + bytes(20) + raw[100:]):
        path.write_bytes(spoiled)
        with pytest.raises(DataError, match=r"mine\.npz: expected a whole"):
            load_npz(path)


# ---- the user's pictures


def load_images(path, **knobs):
    knobs = {"path": str(path), "size": [6, 8], "channels": 1, "validation": 0.2, "test": 0.2} | knobs
    return images(**{"limit": None, "seed": 0} | knobs)


@pytest.fixture
def pictures(tmp_path):
    """Two classes of ten pictures, in several formats, among other files."""
    for i, picture in enumerate(some_images(20, 12, 9, 3)):
        folder = tmp_path / "pets" / ("cat" if i % 2 else "dog") / ("deep" if i > 16 else "")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(folder / f"{i}.{('png', 'JPG', 'bmp', 'webp')[i % 4]}")
    (tmp_path / "pets" / "README.txt").write_text("not a picture")
    (tmp_path / "pets" / "cat" / "._1.png").write_text("not a picture either")
    (tmp_path / "pets" / "empty").mkdir()
    return tmp_path / "pets"


class TestImages(DataContract):
    @pytest.fixture(autouse=True)
    def folder(self, pictures):
        self.path = pictures

    def load(self, **knobs):
        return load_images(self.path, **knobs)


def test_images_of_classes_and_of_a_flat_folder(pictures):
    data = load_images(pictures, channels=3)
    assert (data.name, data.shape, data.label_names) == ("pets", (6, 8, 3), ("cat", "dog"))
    assert (len(data.train), len(data.validation), len(data.test)) == (13, 3, 4)
    assert list(np.bincount(data.test.y)) == [2, 2]
    for file in (pictures / "cat" / "deep").iterdir():
        file.unlink()
    flat = load_images(pictures / "cat")
    assert (flat.label_names, flat.train.y, flat.shape) == ((), None, (6, 8, 1))


def test_images_keep_their_pixels_at_their_own_size(tmp_path):
    rows = some_images(4, 6, 8)
    for i, row in enumerate(rows):
        Image.fromarray(row).save(tmp_path / f"{i}.png")
    data = load_images(tmp_path)
    found = {x.tobytes() for split in (data.train, data.validation, data.test) for x in split.x}
    assert found == {(row / np.float32(255)).tobytes() for row in rows}


def test_images_refuse_what_cannot_be_read(pictures):
    bad = pictures / "cat" / "bad.png"
    good = (pictures / "dog" / "0.png").read_bytes()
    for content in (b"", b"hello", good[: len(good) // 2]):
        bad.write_bytes(content)
        with pytest.raises(DataError, match=r"cat/bad\.png: expected a picture, got"):
            load_images(pictures)
    Image.fromarray(np.full((4, 4), 60_000, np.uint16)).save(bad)
    with pytest.raises(DataError, match=r"bad\.png: expected 8 bits a channel, got mode I"):
        load_images(pictures)


def test_images_refuse_folders_that_are_not_meant(pictures, tmp_path):
    with pytest.raises(DataError, match="nowhere: no such folder"):
        load_images(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"empty: expected pictures \(\.png"):
        load_images(pictures / "empty")
    with pytest.raises(DataError, match=r"expected \[height, width\] in pixels, got \[28\]"):
        load_images(pictures, size=[28])
    Image.new("L", (4, 4)).save(pictures / "loose.png")
    with pytest.raises(DataError, match=r"got loose\.png and cat/"):
        load_images(pictures)
    (pictures / "loose.png").unlink()
    (pictures / "cat").rename(pictures / "train")
    (pictures / "dog").rename(pictures / "test")
    with pytest.raises(DataError, match=r"got train/ and test/; type path=.*/pets/train"):
        load_images(pictures)


# ---- load: config to data


def node(name, **knobs):
    """The config node of a data set, resolved."""
    asked = OmegaConf.merge(OmegaConf.load(CONF / f"{name}.yaml"), knobs)
    config = OmegaConf.create({"seed": 5, "data_dir": None, "dataset": asked})
    OmegaConf.resolve(config)
    return config.dataset


def test_load_falls_back_and_says_so(refused):
    asked = node("fashion_mnist", mirrors=[refused], limit=50, validation=0.25)
    data, why = load(asked, node)
    assert data.name == "digits"
    assert (len(data.train), len(data.validation), len(data.test)) == (50, 50, 50)
    whole = digits(validation=0.25, test=0.2, limit=50, seed=5)  # the knobs that both have came along
    np.testing.assert_array_equal(data.validation.x, whole.validation.x)
    assert "fashion_mnist could not be had, so this run uses digits instead" in why
    assert "$AELAB_DATA_DIR/fashion-mnist/" in why
    assert "dataset.fallback=null" in why
    assert "\n" not in why


def test_load_without_a_fallback_raises(refused):
    with pytest.raises(DataUnavailable):
        load(node("fashion_mnist", mirrors=[refused], fallback=None), node)


def test_load_never_replaces_broken_data(folder):
    (folder / TRAIN).write_bytes(b"broken")
    with pytest.raises(DataError, match="move it away"):
        load(node("fashion_mnist", data_dir=str(folder.parent)), node)


def test_load_without_a_fallback_key():
    data, why = load(node("digits", limit=5), None)
    assert (data.name, why) == ("digits", None)


# ---- the real thing


@pytest.mark.data
def test_real_fashion_mnist(real_data):
    knobs = {"data_dir": str(real_data), "validation": 0.1, "limit": None, "seed": 0, "mirrors": []}
    data = fashion.fashion_mnist(**knobs)
    assert (len(data.train), len(data.validation), len(data.test)) == (54_000, 6_000, 10_000)
    assert data.shape == (28, 28, 1)
    assert data.fingerprint == "bfaaf73a8e2ad653ce8c90217a988976ae83ecca45d056b73a427dd6f5061372"
    assert list(np.bincount(data.validation.y)) == [600] * 10
    assert list(np.bincount(data.test.y)) == [1000] * 10
    assert data.label_names[data.test.y[0]] == "Ankle boot"
    few = fashion.fashion_mnist(**knobs | {"limit": 200})
    assert list(np.bincount(few.train.y)) == [20] * 10
