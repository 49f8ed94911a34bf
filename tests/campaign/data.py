"""Data files: a good one for each reader, broken, and read as a run reads it, or as `predict` and `score` do."""

import gzip
import hashlib
import io
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random

import numpy as np
import pandas as pd
from PIL import Image

from aelab import compose, stored
from aelab.config import AelabError
from aelab.data import fashion_mnist
from aelab.data.columns import encode
from aelab.data.frames import read_frame
from aelab.data.load import load
from aelab.data.record import Columns, Data
from campaign import damage, judge
from campaign.forks import Case, Defect, Ended
from campaign.lines import plain

WRONG = 96
"""Exit code of a reader that gave a data set which is none."""
LONGEST = 600
MIRROR = "http://127.0.0.1:9/"
READING = {"names": None, "header": True, "delimiter": ",", "missing": []}
COLUMNS = Columns(["amount", "age", "kind"], {"kind": ["a", "b", "c"]}, READING)


def rows(rng: np.random.Generator, n: int = 80) -> pd.DataFrame:
    """A table of people and what they paid, some of them frauds."""
    made = {
        "amount": rng.lognormal(3, 1, n).round(2),
        "age": rng.integers(18, 90, n),
        "kind": rng.choice(list("abc"), n),
    }
    return pd.DataFrame({**made, "fraud": (rng.random(n) < 0.2).astype(int)})


def likes(rng: np.random.Generator, n: int = 150) -> pd.DataFrame:
    """Ratings, none of them twice."""
    pairs = rng.choice(30 * 20, n, replace=False)
    return pd.DataFrame(
        {
            "user": pairs // 20 + 1,
            "item": pairs % 20 + 1,
            "rating": rng.integers(1, 6, n),
            "time": 880_000_000 + rng.integers(0, 10**6, n),
        }
    )


def saved_bytes(save: Callable, *given, **named) -> bytes:
    """The bytes of what writes to a file."""
    file = io.BytesIO()
    save(file, *given, **named)
    return file.getvalue()


def text(frame: pd.DataFrame, sep: str = ",", header: bool = True) -> bytes:
    """A frame as lines."""
    lines = [sep.join(map(str, row)) for row in ([list(frame)] if header else []) + frame.to_numpy(object).tolist()]
    return ("\n".join(lines) + "\n").encode("latin-1")


def picture(rng: np.random.Generator, form: str, colours: int) -> bytes:
    """A small picture."""
    pixels = rng.integers(0, 256, (12, 10, colours), dtype=np.uint8).squeeze()
    return saved_bytes(lambda file: Image.fromarray(pixels).save(file, form))


def files() -> dict[str, dict[str, bytes]]:
    """The good files of each kind, always the same."""
    rng = np.random.default_rng(0)
    table, ratings = rows(rng), likes(rng)
    x, y = rng.integers(0, 256, (40, 12, 10), dtype=np.uint8), rng.integers(0, 3, 40)
    items = pd.DataFrame({"id": range(1, 21), "title": [f"Film {i} (19{50 + i})" for i in range(1, 21)]})
    genres = items.assign(genres="Drama|Comedy")
    old = items.assign(date="", video="", url="", **{f"g{i}": rng.integers(0, 2, 20) for i in range(19)})
    users = pd.DataFrame({"id": range(1, 31), "age": 30, "gender": "F", "occupation": "writer", "zip": "0815"})
    new = users[["id", "gender", "age", "occupation", "zip"]].assign(occupation=20)
    net = pd.DataFrame(
        [
            [0, "tcp", "http", "SF", *rng.integers(0, 9, 37), ("normal", "neptune", "ipsweep")[i % 3], 20]
            for i in range(60)
        ]
    )
    pictures = {
        f"{label}/{i}.{form.lower()}": picture(rng, form, c)
        for label in "ab"
        for i, (form, c) in enumerate((("PNG", 1), ("JPEG", 3), ("BMP", 3), ("GIF", 1), ("PNG", 4)))
    }
    arrays = {"x_train": x, "y_train": y, "x_test": x[:9], "y_test": y[:9]}
    idx = {name: gzip.compress(known.header + bytes(range(200)) * 4) for name, known in idx_files().items()}
    return {
        "csv": {"f.csv": text(table)},
        "csv.gz": {"f.csv.gz": gzip.compress(text(table))},
        "parquet": {"f.parquet": saved_bytes(lambda file: table.to_parquet(file))},
        "npz": {"f.npz": saved_bytes(np.savez_compressed, **arrays)},
        "npz floats": {"f.npz": saved_bytes(np.savez, x=(x / 255).astype(np.float32), y=np.array(list("abcd"))[y])},
        "npy": {"f.npy": saved_bytes(np.save, x)},
        "images": pictures,
        "ratings": {"f.csv": text(ratings), "items.csv": text(items)},
        "ml_100k": {"ml-100k/u.data": text(ratings, "\t", False), "ml-100k/u.item": text(old, "|", False),
        "ml-100k/u.user": text(users, "|", False)},
        "ml_100k u1": {f"ml-100k/{n}": t for n, t in (("u1.base", text(ratings[:100], "\t", False)),
        ("u1.test", text(ratings[100:], "\t", False)), ("u.item", text(old, "|", False)),
        ("u.user", text(users, "|", False)))},
        "ml_1m": {"ml-1m/ratings.dat": text(ratings, "::", False), "ml-1m/movies.dat": text(genres, "::", False),
        "ml-1m/users.dat": text(new, "::", False)},
        "ml_25m": {
            "ml-25m/ratings.csv": text(ratings.set_axis(["userId", "movieId", "rating", "timestamp"], axis=1)),
            "ml-25m/movies.csv": text(genres.set_axis(["movieId", "title", "genres"], axis=1)),
        },
        "nsl_kdd": {f"nsl-kdd/{name}": text(net, ",", False) for name in ("KDDTrain+_20Percent.txt", "KDDTest+.txt")},
        "idx": idx,
        "text": {"f.txt": ("Ein Text, nicht lang.\nAber mit Wörtern; und mit Zeilen!\n" * 40).encode()},
        "text words": {"f.txt": ("To be, or not to be: that is the question.\n" * 40).encode()},
        "score csv": {"f.csv": text(table)},
        "score parquet": {"f.parquet": saved_bytes(lambda file: table.to_parquet(file))},
        "predict npy": {"f.npy": saved_bytes(np.save, x)},
        "predict npz": {"f.npz": saved_bytes(np.savez_compressed, x=(x / 255).astype(np.float32))},
        "predict png": {"f.png": picture(rng, "PNG", 3)},
        "predict jpg": {"f.jpg": picture(rng, "JPEG", 3)},
    }  # fmt: skip


def idx_files() -> dict:
    """Names of idx files, with what is expected of them: 800 bytes, as images and as labels."""
    content = bytes(range(200)) * 4
    made = {}
    for name, shape in (("images.gz", (2, 20, 20)), ("labels.gz", (800,))):
        known = fashion_mnist.Idx("", "", shape)
        made[name] = known._replace(content=hashlib.md5(known.header + content, usedforsecurity=False).hexdigest())
    return made


def dataset(node, paths: dict[str, str], box: Path) -> None:
    """Load by a config node, whose paths are in the folder; what comes must be a data set."""
    data, _ = load({**node, **{key: str(box / "cwd" / name) for key, name in paths.items()}}, lambda name: {})
    if wrong := broken(data):
        raise SystemExit(f"no data set: {wrong}")


def broken(data: Data) -> str:
    """In what a data set is none; empty where all is as it should be."""
    parts = {"train": data.train, "validation": data.validation, "test": data.test}
    for name, part in parts.items():
        x, y = part.x, part.y
        if not len(x) and not (name == "validation" and data.kind in ("ratings", "text")):
            return f"{name} is empty"
        if y is not None and len(y) != len(x):
            return f"{name}: {len(y)} labels of {len(x)} rows"
        if data.kind == "image" and not (
            x.dtype == np.float32 and x.ndim == 4 and np.isfinite(x).all() and x.min() >= 0 and x.max() <= 1
        ):
            return f"{name}: {x.dtype} {x.shape} from {x.min()} to {x.max()}"
        if data.kind == "table" and (x.dtype != np.float64 or x.ndim != 2 or np.isinf(x).any()):
            return f"{name}: {x.dtype} {x.shape}, with infinite values"
        if data.kind == "ratings" and not (
            np.isfinite(x).all() and (x[:, :2] >= 0).all() and (x[:, :2] < data.catalogue.shape).all()
        ):
            return f"{name}: users or items that are not there, or numbers that are none"
        if data.kind == "text" and len(x) and not 0 <= x.min() <= x.max() < len(data.label_names):
            return f"{name}: tokens that are not in the vocabulary"
        if (
            data.kind in ("image", "table")
            and y is not None
            and len(y)
            and not 0 <= y.min() <= y.max() < max(len(data.label_names), 1)
        ):
            return f"{name}: labels from {y.min()} to {y.max()}, of {len(data.label_names)}"
    return ""


def rows_to_score(name: str, repair: str | None, box: Path) -> None:
    """Read rows as `aelab score` does."""
    file = box / "cwd" / name
    for frame in read_frame(file, **READING, chunk=30):
        raw, kept, _ = encode(COLUMNS, frame, str(file), repair)
        if raw.shape != (len(kept), 3) or np.isinf(raw).any():
            raise SystemExit(f"no rows: {raw.shape} of {len(kept)}, finite or missing: {not np.isinf(raw).any()}")


def images_to_restore(name: str, holes: bool, box: Path) -> None:
    """Read images as `aelab predict` does."""
    images, _ = stored.read(box / "cwd" / name, holes)
    seen = images[~np.isnan(images)] if holes else images
    if images.ndim != 4 or not seen.size or not np.isfinite(seen).all() or seen.min() < 0 or seen.max() > 1:
        raise SystemExit(f"no images: {images.shape}")


def idx(box: Path) -> None:
    """Read both idx files."""
    for name, known in idx_files().items():
        found = fashion_mnist.read_idx(box / "cwd" / name, known)
        if found.shape != known.shape:
            raise SystemExit(f"no idx: {found.shape}")


class Campaign:
    """Broken files, each of some kind."""

    def __init__(self, home: Path):
        self.files, nodes = files(), {}

        def node(*words: str):
            with compose.session():
                cfg = compose.compose(list(words), [compose.CONF])
            return {k: v for k, v in compose.OmegaConf.to_container(cfg.dataset).items() if k != "fallback"}

        table = ("task=anomaly", "dataset=csv", "path=x", "label=fraud", "positive=1")
        for name, words in {
            "csv": table, "csv.gz": table, "parquet": table,
            "csv missing": (*table, "dataset.repair=missing"), "csv drop": (*table, "dataset.repair=drop"),
            "csv time": (*table, "time=age"),
            "npz": ("dataset=npz", "path=x"), "npz floats": ("dataset=npz", "path=x"), "npy": ("dataset=npz", "path=x"),
            "images": ("dataset=images", "path=x"), "images colour": ("dataset=images", "path=x", "dataset.channels=3"),
            "ratings": ("task=recommend", "dataset=ratings", "path=x", "dataset.items=x"),
            "ratings last": ("task=recommend", "dataset=ratings", "path=x", "dataset.items=x",
            "dataset.duplicates=last", "dataset.fold=last", "dataset.time=time", "dataset.scale=[1,5]"),
            "ml_100k": ("task=rating", "dataset=ml_100k", "dataset.fold=random"),
            "ml_100k u1": ("task=recommend", "dataset=ml_100k"),
            "ml_1m": ("task=rating", "dataset=ml_1m"), "ml_25m": ("task=rating", "dataset=ml_25m"),
            "nsl_kdd": ("task=anomaly", "dataset=nsl_kdd"),
            "text": ("task=language", "dataset=text", "path=x"),
            "text words": ("task=language", "dataset=text", "path=x", "dataset.unit=word"),
        }.items():  # fmt: skip
            nodes[name] = node(*words)
        self.readers: list[tuple[str, Callable[[Path], None]]] = []
        for name, made in nodes.items():
            if "mirrors" in made:
                made["mirrors"] = [MIRROR]
            own = name if name in self.files else name.split()[0]
            paths = (
                {"data_dir": "."}
                if "mirrors" in made
                else {"path": "." if own == "images" else next(iter(self.files[own]))}
            )
            paths |= {"items": "items.csv"} if own == "ratings" else {}
            self.readers.append((own, partial(dataset, made, paths)))
        for name in ("score csv", "score parquet"):
            self.readers += [
                (name, partial(rows_to_score, next(iter(self.files[name])), repair))
                for repair in (None, "missing", "drop")
            ]
        for name in ("predict npy", "predict npz", "predict png", "predict jpg"):
            self.readers += [
                (name, partial(images_to_restore, next(iter(self.files[name])), holes)) for holes in (False, True)
            ]
        self.readers.append(("idx", idx))

    def environment(self, box: Path) -> dict[str, str]:
        return {**plain(), "AELAB_CACHE_DIR": str(box / "cache"), "HOME": str(box)}

    def make(self, rng: Random, box: Path) -> Case:
        """Good files, one of them broken."""
        name, read = rng.choice(self.readers)
        for file, content in self.files[name].items():
            (box / "cwd" / file).parent.mkdir(parents=True, exist_ok=True)
            (box / "cwd" / file).write_bytes(content)
        chosen = rng.choice(list(self.files[name]))
        others = [box / "other"]
        others[0].write_bytes(rng.choice([c for kind in self.files.values() for c in kind.values()]))
        how = damage.replace_file(rng, box / "cwd" / chosen, others, box / "guard")
        before = judge.listing(box / "guard")

        def judged(ended: Ended) -> list[Defect]:
            if ended.code == WRONG:
                return [Defect(judge.OTHER, ended.err.strip()[:300])]
            return judge.command(ended, LONGEST) + judge.guard_defects(before, box / "guard")

        return Case("data files", f"{name}: {chosen} with {how}", partial(outcome, partial(read, box)), judged)


def outcome(read: Callable[[], None]) -> int:
    """Read; what a user would see of an error goes to standard error, as `cli.main` tells it."""
    warnings.showwarning = lambda *given, **named: None  # in a run they go to run.log
    try:
        read()
    except SystemExit as wrong:
        print(wrong, file=sys.stderr)
        return WRONG
    except AelabError as error:
        print("aelab:", *str(error).split(), file=sys.stderr)
        return error.code
    except OSError as error:
        print("aelab:", error.strerror or error, error.filename or "", file=sys.stderr)
        return 1
    return 0
