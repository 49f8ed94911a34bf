"""Ratings: read, checked, cut into parts that share no rating, numbered; what is known of users and items; archives."""

import functools
import gzip
import hashlib
import http.server
import io
import re
import socket
import subprocess
import sys
import threading
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from scipy.sparse import csr_array
from sklearn.model_selection import train_test_split

from aelab import compose
from aelab.config import AelabError, ConfigError, DataError, DataUnavailable
from aelab.data import catalogue, movielens
from aelab.data.fetch import unpacked
from aelab.data.interactions import Lists, matrix
from aelab.data.load import load
from aelab.data.ratings import Catalogue, cut, features, known_of
from aelab.data.record import Split

PARTS = ("train", "validation", "test")


@pytest.fixture(autouse=True)
def no_network_no_home(monkeypatch, tmp_path):
    """Downloads go to an empty cache, and nothing leaves the machine by way of a proxy."""
    monkeypatch.setenv("AELAB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture
def refused():
    """URL of a port on which nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{free.getsockname()[1]}"


def node(name, data_dir=None, /, **knobs):
    """The YAML of a data set, resolved, with some values changed."""
    found = OmegaConf.load(compose.CONF / "dataset" / f"{name}.yaml")
    root = found if "dataset" in found else OmegaConf.create({"dataset": found})
    root = OmegaConf.merge(root, {"seed": 0, "data_dir": data_dir and str(data_dir), "path": knobs.get("path")})
    resolved = OmegaConf.to_container(root, resolve=True)["dataset"]
    assert set(knobs) <= set(resolved)
    return resolved | knobs


def data_set(name, data_dir=None, /, **knobs):
    """The data of a data set, without a fallback."""
    return load({k: v for k, v in node(name, data_dir, **knobs).items() if k != "fallback"}, None)[0]


def pairs(*splits):
    """The (user, item) pairs of some splits, as numbers."""
    return [tuple(row) for split in splits for row in split.x[:, :2].astype(int).tolist()]


def ordered(x):
    """The same ratings, in an order of their own."""
    return x[np.lexsort(x.T)]


def by_id(data, *parts):
    """The ratings of some parts as they stand in the files: by the ids of users and items. Where those are numbers."""
    x = np.concatenate([getattr(data, part).x for part in parts])
    ids = [frame["id"].to_numpy(int) for frame in (data.catalogue.users, data.catalogue.items)]
    return np.column_stack([*(i[x[:, j].astype(int)] for j, i in enumerate(ids)), x[:, 2:]])


def lines(file, separator="\t"):
    """The ratings of a published file."""
    return np.array([line.split(separator) for line in file.read_text().splitlines()], float)


def one_line(error, call, *args, **knobs):
    """The message of the error that a call leads to: one line."""
    with pytest.raises(error) as caught:
        call(*args, **knobs)
    assert type(caught.value) is error
    message = str(caught.value)
    assert "\n" not in message
    return message


# ---- MovieLens 100K, the real one

SIZES = dict.fromkeys(("u1", "u2", "u3", "u4", "u5"), (72_000, 8_000, 20_000))
SIZES |= dict.fromkeys(("ua", "ub"), (81_513, 9_057, 9_430))  # ten test ratings of each user
SIZES |= {"random": (72_000, 8_000, 20_000)}


@functools.cache
def mark(folder):
    """The fingerprint of another cut of the same ratings."""
    return data_set("ml_100k", folder, fold="random", split_seed=7, seed=7, validation=0).fingerprint


@pytest.mark.data
@pytest.mark.parametrize("fold", [*SIZES, "user", "last"])
def test_ml_100k_every_fold(fold, real_data):
    data = data_set("ml_100k", real_data, fold=fold)
    assert data.kind == "ratings"
    assert data.shape == (943, 1682)
    assert data.fingerprint == mark(real_data)
    assert data.notes == "100,000 ratings from 1 to 5, 6.30% of all"
    everything = pairs(data.train, data.validation, data.test)
    assert len(set(everything)) == len(everything) == 100_000  # no pair in two parts
    folder = real_data / "ml-100k"
    np.testing.assert_array_equal(ordered(by_id(data, *PARTS)), ordered(lines(folder / "u.data")))
    if fold in SIZES:
        assert tuple(len(getattr(data, part)) for part in PARTS) == SIZES[fold]
    if fold.startswith("u") and fold != "user":
        np.testing.assert_array_equal(by_id(data, "test"), lines(folder / f"{fold}.test"))
        both = by_id(data, "train", "validation")
        np.testing.assert_array_equal(ordered(both), ordered(lines(folder / f"{fold}.base")))


@pytest.mark.data
def test_ml_100k_random_is_the_split_that_sklearn_draws(real_data):
    _, held = train_test_split(lines(real_data / "ml-100k" / "u.data"), test_size=0.2, random_state=0)
    np.testing.assert_array_equal(by_id(data_set("ml_100k", real_data, fold="random"), "test"), held)
    other = by_id(data_set("ml_100k", real_data, fold="random", split_seed=1), "test")
    assert not np.array_equal(ordered(other), ordered(held))


@pytest.mark.data
def test_ml_100k_holds_out_a_share_of_every_user(real_data):
    size = np.bincount(lines(real_data / "ml-100k" / "u.data")[:, 0].astype(int))[1:]
    for fold in ("user", "last"):
        data = data_set("ml_100k", real_data, fold=fold, validation=0)
        np.testing.assert_array_equal(np.bincount(data.test.x[:, 0].astype(int)), -(-size // 5))  # 0.2, rounded up
    table = pd.DataFrame(data.train.x).groupby(0)[3].max()
    assert (pd.DataFrame(data.test.x).groupby(0)[3].min() >= table).all()


@pytest.mark.data
def test_ml_100k_seed_validation_and_limit(real_data):
    data = data_set("ml_100k", real_data)
    train = ordered(by_id(data, "train", "validation"))
    for knobs, held in (({"validation": 0}, 0), ({"seed": 1}, 8_000), ({"validation": 0.25}, 20_000)):
        other = data_set("ml_100k", real_data, **knobs)
        assert other.fingerprint == data.fingerprint
        assert len(other.validation) == held
        assert other.validation.x.shape == (held, 4)
        np.testing.assert_array_equal(ordered(by_id(other, "train", "validation")), train)
        np.testing.assert_array_equal(other.test.x, data.test.x)
    common = set(pairs(data_set("ml_100k", real_data, seed=1).validation)) & set(pairs(data.validation))
    assert 700 < len(common) < 900  # a tenth of a tenth of 80,000
    few = data_set("ml_100k", real_data, limit=500)
    assert (few.fingerprint, few.shape) == (data.fingerprint, data.shape)
    for part in PARTS:
        assert len(getattr(few, part)) == 500
        assert set(pairs(getattr(few, part))) <= set(pairs(getattr(data, part)))


@pytest.mark.data
def test_ml_100k_says_what_is_known_of_films_and_users(real_data):
    known = data_set("ml_100k", real_data).catalogue
    assert list(known.items) == ["id", "title", "year", "genres"]
    items = known.items.set_index("id")
    assert list(items.loc["1"]) == ["Toy Story (1995)", 1995, "Animation|Children's|Comedy"]
    assert list(items.loc["50"]) == ["Star Wars (1977)", 1977, "Action|Adventure|Romance|Sci-Fi|War"]
    assert list(items.loc["267", ["title", "genres"]]) == ["unknown", "unknown"]
    assert items["year"].isna().sum() == 2  # 267, and one that ends in "(1995) (V)"
    assert items.loc["1633", "title"] == "Á köldum klaka (Cold Fever) (1994)"
    users = known.users.set_index("id")
    assert list(users.loc["1"]) == [24, "M", "technician"]
    assert list(users.loc["943"]) == [22, "M", "student"]
    assert known.scale == (1, 5)
    ages = users["age"].to_numpy(float)
    found = features(known.users)
    assert found.shape == (943, 1 + 2 + 21)  # age, two genders, occupations
    np.testing.assert_allclose(found[:, 0], (ages - ages.mean()) / ages.std(), rtol=1e-5)
    np.testing.assert_array_equal(found[:, 1:].sum(axis=1), 2)
    assert features(known.items).shape == (1682, 1 + 19)  # the year; 18 genres and "unknown"


@pytest.mark.data
def test_ml_1m_sample(real_data):
    data = data_set("ml_1m", real_data, folder="ml-1m-sample")
    assert data.shape == (6040, 3883)
    assert [len(getattr(data, part)) for part in PARTS] == [43_488, 4_832, 12_080]
    published = lines(real_data / "ml-1m-sample" / "ratings.dat", "::")
    np.testing.assert_array_equal(ordered(by_id(data, *PARTS)), ordered(published))
    items, users = (frame.set_index("id") for frame in (data.catalogue.items, data.catalogue.users))
    assert list(items.loc["1"]) == ["Toy Story (1995)", 1995, "Animation|Children's|Comedy"]
    assert items.loc["11", "title"] == "American President, The (1995)"
    assert items["year"].notna().all()
    assert list(users.loc["1"]) == ["F", 1, "k12 student"]
    assert list(users.loc["2"]) == ["M", 56, "self-employed"]
    assert users["occupation"].nunique() == 21


# ---- MovieLens in small, in the published forms

GENRES = movielens.GENRES.split()


def small_100k():
    """{file name: content} of ten users who rate three films, in the form of 100K."""
    ratings = [(u, i, 1 + (u * i) % 5, 900 + 10 * u + i) for u in range(1, 11) for i in (1, 2, 3)]
    flags = {1: ("Comedy", "War"), 2: ("Drama",), 3: ()}
    titles = {1: "Léon (1994)", 2: "1984 (1984)", 3: "Nameless"}
    items = [
        "|".join([str(i), titles[i], "01-Jan-1995", "", "http://x", *("01"[g in flags[i]] for g in GENRES)])
        for i in titles
    ]
    table = ["\t".join(map(str, row)) for row in ratings]
    return {
        "u.data": "\n".join(table[::-1]),
        "u1.base": "\n".join(table[:24]),
        "u1.test": "\n".join(table[24:]),
        "u.item": "\n".join(items),
        "u.user": "\n".join(f"{u}|{20 + u}|{'MF'[u % 2]}|writer|0{u}" for u in range(1, 11)),
    }


def written(folder, files, encoding="latin-1"):
    """The folder, with files of these contents."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content.encode(encoding))
    return folder


def zipped(files, archive="ml-100k", how=zipfile.ZIP_DEFLATED):
    """The bytes of a zip as GroupLens publishes them."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", how) as file:
        for name, content in files.items():
            file.writestr(f"{archive}/{name}", content.encode("latin-1"))
    return target.getvalue()


def test_ml_100k_in_small(tmp_path):
    written(tmp_path / "ml-100k", small_100k())
    data = data_set("ml_100k", tmp_path, validation=0.25)
    assert [len(getattr(data, part)) for part in PARTS] == [18, 6, 6]
    held = [[9, 1, 5, 991], [9, 2, 4, 992], [9, 3, 3, 993], [10, 1, 1, 1001], [10, 2, 1, 1002], [10, 3, 1, 1003]]
    assert by_id(data, "test").tolist() == held
    assert list(data.catalogue.items["title"]) == ["Léon (1994)", "1984 (1984)", "Nameless"]
    assert list(data.catalogue.items["genres"]) == ["Comedy|War", "Drama", ""]
    np.testing.assert_array_equal(data.catalogue.items["year"], [1994, 1984, np.nan])
    marks = {data_set("ml_100k", tmp_path, fold=fold).fingerprint for fold in ("u1", "random", "user", "last")}
    assert marks == {data.fingerprint}


@pytest.mark.parametrize("column", [0, 1, 2, 3])
def test_the_fingerprint_sees_every_value(column, tmp_path):
    files = small_100k()
    written(tmp_path / "ml-100k", files)
    before = data_set("ml_100k", tmp_path, fold="random").fingerprint
    first, _, rest = files["u.data"].partition("\n")
    cells = first.split("\t")
    cells[column] = {0: "11", 1: "4", 2: "2", 3: "7"}[column]  # was user 10, item 3, rating 1, time 1003
    written(tmp_path / "ml-100k", {"u.data": "\t".join(cells) + "\n" + rest})
    assert data_set("ml_100k", tmp_path, fold="random").fingerprint != before


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("1\t1\tfive\t9", "a rating that is a number in every line; 1 are not: line 2 (user 1, item 1, rating five)"),
        ("1\t1\t6\t9", "ratings from 1 to 5; 1 are not: line 2 (user 1, item 1, rating 6)"),
        ("1\t\t5\t9", "a user and an item in every line; 1 are not: line 2 (user 1.0, item nan"),
        ("10\t3\t5\t9", "one rating of an item by a user"),
    ],
)
def test_a_bad_line_of_movielens_is_named(line, told, tmp_path):
    files = small_100k()
    folder = written(tmp_path / "ml-100k", files)
    rows = files["u.data"].split("\n")
    written(folder, {"u.data": "\n".join([rows[0], line, *rows[2:]])})
    message = one_line(DataError, data_set, "ml_100k", tmp_path, fold="random")
    assert message.startswith(f"{folder / 'u.data'}: expected {told}")


FILES_1M = {
    "movies.dat": "1::Misérables, Les (1998)::Drama|Musical\n5::Hello: Dolly! (1969)::Musical\n",
    "users.dat": "1::F::1::10::48067\n2::M::56::16::70072\n",
    "ratings.dat": "".join(f"{u}::{i}::{u + 2}::97830{u}{i}\n" for u in (1, 2) for i in (1, 5)),
}


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8"])
def test_ml_1m_in_either_encoding(encoding, tmp_path):
    written(tmp_path / "mine", FILES_1M, encoding)
    data = data_set("ml_1m", tmp_path, folder="mine", test=0.25, validation=0)
    assert data.catalogue.items.to_dict("list") == {
        "id": ["1", "5"],
        "title": ["Misérables, Les (1998)", "Hello: Dolly! (1969)"],
        "year": [1998, 1969],
        "genres": ["Drama|Musical", "Musical"],
    }
    assert data.catalogue.users["occupation"].tolist() == ["k12 student", "self-employed"]
    expected = [[0, 0, 3, 9783011], [0, 1, 3, 9783015], [1, 0, 4, 9783021], [1, 1, 4, 9783025]]
    assert sorted([*data.train.x.tolist(), *data.test.x.tolist()]) == expected
    assert len(data.test) == 1


def files_25m(rating="3.5"):
    return {
        "movies.csv": 'movieId,title,genres\n7,"Amer, The (2001)",(no genres listed)\n1,Été (1995),Comedy|War\n',
        "ratings.csv": "userId,movieId,rating,timestamp\n"
        + "".join(f"{u},{i},{rating if (u, i) == (2, 7) else 0.5 * u},{u}{i}\n" for u in range(1, 6) for i in (1, 7)),
    }


def test_ml_25m(tmp_path):
    written(tmp_path / "ml-25m", files_25m(), "utf-8")
    data = data_set("ml_25m", tmp_path)
    assert data.shape == (5, 2)
    assert data.catalogue.items.to_dict("list") == {
        "id": ["7", "1"],
        "title": ["Amer, The (2001)", "Été (1995)"],
        "year": [2001, 1995],
        "genres": ["(no genres listed)", "Comedy|War"],
    }
    expected = [[u, i, 3.5 if (u, i) == (2, 7) else 0.5 * u, 10 * u + i] for u in range(1, 6) for i in (1, 7)]
    assert sorted(by_id(data, *PARTS).tolist()) == expected
    assert data.catalogue.scale == (0.5, 5)


def test_ml_25m_names_file_and_line(tmp_path):
    folder = written(tmp_path / "ml-25m", files_25m("5.5"), "utf-8")
    message = one_line(DataError, data_set, "ml_25m", tmp_path)
    assert message.startswith(f"{folder / 'ratings.csv'}: expected ratings from 0.5 to 5; 1 are not: line 5 (user 2")


def test_without_network_the_fallback_is_said(refused):
    asked = node("ml_100k", mirrors=[refused], limit=30)
    data, why = load(asked, node)
    assert (data.name, len(data.train), len(data.test)) == ("taste_groups", 30, 30)
    assert "ml_100k could not be had, so this run uses taste_groups instead" in why


# ---- ratings of the user's own

FRAME = pd.DataFrame(
    {
        "user": ["bo", "bo", "al", "al", "cy", "cy", "cy", "al"],
        "item": [10, 2, 2, 30, 10, 2, 30, 10],
        "rating": [4.5, 1, 3, 5, 2, 2.5, 4, 1],
        "when": [8, 7, 6, 5, 4, 3, 2, 1],
    }
)
BY_NUMBER = [  # users al, bo, cy; items by their ids as texts: 10, 2, 30
    *([0, 0, 1, 1], [0, 1, 3, 6], [0, 2, 5, 5]),
    *([1, 0, 4.5, 8], [1, 1, 1, 7]),
    *([2, 0, 2, 4], [2, 1, 2.5, 3], [2, 2, 4, 2]),
]


def own(path, frame=FRAME, items=None, **knobs):
    """The data of a file of the user's, written from a frame or a text; CSV, or Parquet by the name."""
    if isinstance(frame, str):
        path.write_text(frame)
    elif path.suffix == ".parquet":
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=False, sep=knobs.get("delimiter", ","))
    if items is not None:
        knobs["items"] = str(path.with_name("items.csv"))
        Path(knobs["items"]).write_text(items)
    return data_set("ratings", path=str(path), **knobs)


def everything(data):
    return sorted(x for part in PARTS for x in getattr(data, part).x.tolist())


@pytest.mark.parametrize(
    ("file", "delimiter"), [("a.csv", ","), ("a.csv.gz", ","), ("a.parquet", ","), ("a.tsv", "\t"), ("a.csv", ";")]
)
def test_csv_gzip_and_parquet(file, delimiter, tmp_path):
    data = own(tmp_path / file, time="when", delimiter=delimiter, test=0.25, validation=0.2)
    assert data.catalogue.users["id"].tolist() == ["al", "bo", "cy"]
    assert data.catalogue.items["id"].tolist() == ["10", "2", "30"]
    assert everything(data) == BY_NUMBER
    assert [len(getattr(data, part)) for part in PARTS] == [5, 1, 2]
    assert data.catalogue.scale == (1, 5)
    assert data.source == str(tmp_path / file)
    whole = own(tmp_path / "plain.csv", time="when")
    assert data.fingerprint == whole.fingerprint


def test_columns_of_any_name_without_ratings_or_times(tmp_path):
    frame = FRAME.rename(columns={"user": "who", "item": "what"})
    data = own(tmp_path / "likes.csv", frame, user="who", item="what", rating=None)
    assert everything(data) == [[u, i, 1, 0] for u, i, *_ in BY_NUMBER]
    assert data.catalogue.scale == (1, 1)
    assert own(tmp_path / "a.csv", scale=[0, 10]).catalogue.scale == (0, 10)


@pytest.mark.parametrize("kind", [int, float, str, "Int64", "category"])
def test_ids_of_any_kind(kind, tmp_path):
    data = own(tmp_path / "a.parquet", FRAME.assign(item=FRAME["item"].astype(kind)), time="when")
    assert data.catalogue.items["id"].tolist() == ["10", "2", "30"]
    assert everything(data) == BY_NUMBER


def test_items_file(tmp_path):
    text = 'id,title,year,genres\n30,"Ran, or Chaos",1985,Drama|War\n99,Never rated,,\n10,,2001,War\n'
    data = own(tmp_path / "a.csv", items=text)
    items = data.catalogue.items
    assert items["id"].tolist() == ["30", "99", "10", "2"]  # those that the file lacks at the end
    assert items["title"].tolist() == ["Ran, or Chaos", "Never rated", "10", "2"]
    assert data.shape == (3, 4)
    again = {0: 2, 1: 3, 2: 0}  # the numbers of 10, 2 and 30
    assert everything(data) == sorted([u, again[i], r, 0] for u, i, r, _ in BY_NUMBER)
    expected = [[-1, 1, 1], [0, 0, 0], [1, 0, 1], [0, 0, 0]]  # year, Drama, War
    np.testing.assert_allclose(features(items), expected, atol=1e-6)


def test_titles_that_are_numbers_stay_texts(tmp_path):
    data = own(tmp_path / "a.csv", items="id,title\n2,1984\n30,\n")
    catalogue.write(tmp_path, data.catalogue, None)
    assert catalogue.read(tmp_path).items["title"].tolist() == ["1984", "30", "10"]


def test_limit_seed_and_shares_leave_something_to_train(tmp_path):
    data = own(tmp_path / "a.csv", limit=1)
    assert [len(getattr(data, part)) for part in PARTS] == [1, 1, 1]
    assert data.fingerprint == own(tmp_path / "a.csv").fingerprint
    data = own(tmp_path / "a.csv", validation=0.99)
    assert [len(getattr(data, part)) for part in PARTS] == [1, 5, 2]
    assert len(own(tmp_path / "a.csv", validation=0).validation) == 0


HEAD = "user,item,rating,when\n"
NUMBER = "a rating that is a number in every line; 1 are not: line"
ONCE = "one rating of an item by a user (or: duplicates=last); 2 are not: line"
WHEN = {"time": "when"}


@pytest.mark.parametrize(
    ("text", "knobs", "told"),
    [
        ("bo,1,5,1\n,2,4,1\n", {}, "a user and an item in every line; 1 are not: line 3 (user (missing), item 2"),
        ("bo,1,5,1\nal,,4,1\n", {}, "a user and an item in every line; 1 are not: line 3 (user al, item nan"),
        ('bo,1,5,1\n"  ",2,4,1\n', {}, "a user and an item in every line; 1 are not: line 3 (user (missing), item 2"),
        ("bo,1,5,1\nal,2,good,1\n", {}, f"{NUMBER} 3 (user al, item 2, rating good)"),
        ("bo,1,5,1\n\nal,2,,1\n", {}, f"{NUMBER} 4 (user al, item 2.0, rating nan)"),
        ("bo,1,5,1\nal,2,NaN,1\n", {}, f"{NUMBER} 3 (user al, item 2, rating nan)"),
        ("bo,1,5,1\nal,2,inf,1\n", {}, f"{NUMBER} 3 (user al, item 2, rating inf)"),
        ("bo,1,5,1\nal,2,4,May\n", WHEN, f"{NUMBER} 3 (user al, item 2, time May)".replace("rating t", "time t")),
        ("bo,1,5,1\nal,2,4,1\n", {"scale": [1, 4.5]}, "ratings from 1 to 4.5; 1 are not: line 2 (user bo, item 1, ra"),
        ("bo,1,5,1\nal,2,0.5,1\n", {"scale": [1, 5]}, "ratings from 1 to 5; 1 are not: line 3 (user al, item 2, ra"),
        ("bo,1,5,1\nbo,2,4,1\nbo,1,3,2\n", {}, f"{ONCE} 2 (user bo, item 1, rating 5.0), line 4 (user bo, item 1, "),
        ("1,1,5,1\nal,2,4,1\n01,1,3,2\n", {}, f"{ONCE} 2 (user 1, item 1, rating 5.0), line 4 (user 1, item 1, "),
    ],
)
def test_a_bad_line_is_named(text, knobs, told, tmp_path):
    for file in (tmp_path / "bad.csv", tmp_path / "bad.csv.gz"):
        content = (HEAD + text).encode()
        file.write_bytes(gzip.compress(content) if file.suffix == ".gz" else content)
        message = one_line(DataError, data_set, "ratings", path=str(file), **knobs)
        assert message.startswith(f"{file}: expected {told}")


def test_many_bad_lines_are_counted_and_three_are_named(tmp_path):
    message = one_line(DataError, own, tmp_path / "a.csv", FRAME.assign(rating="x"))
    assert "; 8 are not: " in message
    assert re.findall(r"line (\d+) ", message) == ["2", "3", "4"]


@pytest.mark.parametrize("column", ["rating", "when"])
def test_a_missing_number_of_a_parquet_file_is_named(column, tmp_path):
    whole = FRAME.assign(rating=range(8))
    for values in (whole[column].astype("Int64"), pd.to_datetime(whole[column])):
        frame = whole.assign(**{column: values})
        frame.loc[5, column] = None
        message = one_line(DataError, own, tmp_path / "a.parquet", frame, time="when")
        assert "number in every line; 1 are not: line 6 (user cy, item 2, " in message


def test_of_two_ratings_the_last_counts(tmp_path):
    again = pd.concat([FRAME, pd.DataFrame({"user": ["bo"], "item": [10], "rating": [2.0], "when": [9]})])
    data = own(tmp_path / "a.csv", again, duplicates="last", time="when")
    assert everything(data) == sorted([*(x for x in BY_NUMBER if x[:2] != [1, 0]), [1, 0, 2, 9]])


@pytest.mark.parametrize(
    ("knobs", "told"),
    [
        ({"user": "usr"}, "dataset.user: column usr: unknown; did you mean user?"),
        ({"item": "film"}, "dataset.item: column film: unknown; there are: item, rating, user, when"),
        ({"rating": "Rating"}, "dataset.rating: column Rating: unknown; did you mean rating?"),
        ({"time": "time"}, "dataset.time: column time: unknown; there are: "),
    ],
)
def test_a_missing_column_is_named(knobs, told, tmp_path):
    message = one_line(ConfigError, own, tmp_path / "a.csv", **knobs)
    assert message.startswith(f"{tmp_path / 'a.csv'}: {told}")


@pytest.mark.parametrize(
    ("knobs", "told"),
    [
        *(({"test": share}, f"dataset.test={share}: expected a share") for share in (0.0, 1.0, -0.5, 1.5)),
        ({"fold": "user", "test": 1.0}, "dataset.test=1.0: expected a share"),
        ({"fold": "last"}, "dataset.fold=last: needs the column of times: dataset.time=COLUMN"),
        *(({"validation": share}, f"dataset.validation={share}: expected a share") for share in (1.0, -0.1)),
        ({"test": 0.9}, "dataset.test=0.9: that leaves none of 8 ratings to train on"),
        ({"scale": [5.0]}, "dataset.scale=[5.0]: expected [lowest, highest]"),
        ({"scale": [5.0, 1.0]}, "dataset.scale=[5.0, 1.0]: expected [lowest, highest]"),
    ],
)
def test_settings_out_of_range(knobs, told, tmp_path):
    assert one_line(ConfigError, own, tmp_path / "a.csv", **knobs).startswith(told)


def test_broken_files(tmp_path):
    raw = gzip.compress(FRAME.to_csv(index=False).encode() * 50)
    for name, content, told in (
        ("cut.csv.gz", raw[: len(raw) // 2], "cannot be read as a table: "),
        ("not.csv.gz", b"user,item,rating\n", "cannot be read as a table: "),
        ("not.parquet", b"user,item,rating\n", "cannot be read as a table: "),
        ("empty.csv", b"", "expected rows, got an empty file"),
        ("header.csv", b"user,item,rating\n", "expected rows, got a header alone"),
        ("other.csv", b"user;item;rating\na;b;1\n", "expected columns between ',', got a single one; it has ';' in it"),
        ("binary.csv", b"user,item,rating\n\xff\xfe,1,2\n", "cannot be read as a table: "),
    ):
        (tmp_path / name).write_bytes(content)
        message = one_line(DataError, data_set, "ratings", path=str(tmp_path / name))
        assert message.startswith(f"{tmp_path / name}: {told}")
    assert "no such file" in one_line(DataError, data_set, "ratings", path=str(tmp_path / "nowhere.csv"))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("item,title\n2,a\n", "expected the columns id and title, got item, title"),
        ("id,name\n2,a\n", "expected the columns id and title, got id, name"),
        ("id,title\n2,a\n10,b\n2,c\n", "expected an id in every line, each once; 1 are not: line 4 (id 2)"),
        ("id,title\n2,a\n,b\n", "expected an id in every line, each once; 1 are not: line 3 (id (missing))"),
        ("", "expected rows, got an empty file"),
    ],
)
def test_a_bad_items_file(text, told, tmp_path):
    message = one_line(DataError, own, tmp_path / "a.csv", items=text)
    assert message.startswith(f"{tmp_path / 'items.csv'}: {told}")


# ---- the cut into train and test


def rated(*sizes, seed=0):
    """A frame in which user j has sizes[j] ratings, in mixed order, with times that are all different."""
    user = np.repeat(np.arange(len(sizes)), sizes)
    item = np.concatenate([np.arange(size) for size in sizes])
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(user))
    frame = pd.DataFrame({"user": user[order], "item": item[order], "rating": 1.0, "time": rng.permutation(len(user))})
    return frame.set_axis(range(2, 2 + len(frame)))


@given(
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=6),
    share=st.floats(0.01, 0.99),
    how=st.sampled_from(["user", "last"]),
    seed=st.integers(0, 99),
)
@settings(max_examples=60)
def test_cut_by_user(sizes, share, how, seed):
    frame = rated(*sizes, seed=seed)
    parts = cut(frame, how, share, seed)
    pd.testing.assert_frame_equal(pd.concat(parts.values()).sort_index(), frame)  # each rating once
    held = parts["test"]["user"].value_counts().reindex(range(len(sizes)), fill_value=0)
    for user, size in enumerate(sizes):
        assert held[user] <= size - 1  # one is left to train on
        assert size * share - 1e-9 <= held[user] < size * share + 1 + 1e-9 or held[user] == size - 1
    if how == "last":
        latest = parts["train"].groupby("user")["time"].max()
        assert (parts["test"]["time"] > parts["test"]["user"].map(latest)).all()


@pytest.mark.parametrize(
    ("share", "counts"), [(0.1, [0, 1, 1, 1]), (0.25, [0, 1, 1, 3]), (0.5, [0, 1, 2, 5]), (0.95, [0, 1, 3, 9])]
)
def test_cut_rounds_up_and_leaves_one(share, counts):
    for how in ("user", "last"):
        parts = cut(rated(1, 2, 4, 10), how, share, 0)
        assert parts["test"]["user"].value_counts().reindex(range(4), fill_value=0).tolist() == counts


def test_cut_by_user_is_drawn_by_the_seed():
    frame = rated(10, 10, 10)
    one, same, other = (cut(frame, "user", 0.3, seed)["test"] for seed in (0, 0, 1))
    pd.testing.assert_frame_equal(one, same)
    assert set(one.index) != set(other.index)
    assert set(cut(frame, "last", 0.3, 0)["test"].index) == set(cut(frame, "last", 0.3, 1)["test"].index)


def test_cut_last_by_hand():
    frame = pd.DataFrame({"user": list("abaabaa"), "item": range(7), "rating": 1.0, "time": [5, 1, 1, 3, 1, 2, 4]})
    parts = cut(frame, "last", 0.4, 0)
    assert sorted(parts["test"]["item"]) == [0, 4, 6]  # a's times 5 and 4; of b's two at the same time the later line
    assert sorted(parts["train"]["item"]) == [1, 2, 3, 5]


def test_cut_at_random_is_that_of_sklearn():
    frame = rated(4, 9, 7)
    train, test = train_test_split(frame, test_size=0.3, random_state=5)
    parts = cut(frame, "random", 0.3, 5)
    pd.testing.assert_frame_equal(parts["train"], train)
    pd.testing.assert_frame_equal(parts["test"], test)


# ---- what is known, as numbers


def test_features_by_hand():
    frame = pd.DataFrame(
        {
            "id": ["1", "2", "3", "4"],
            "year": [1990, 2000, np.nan, 2010],
            "title": ["a", "b", "c", "d"],
            "genres": ["War|Drama", "Drama", None, ""],
            "flag": [True, False, True, False],
        }
    )
    found = features(frame)
    step = 10 / np.sqrt(200 / 3)  # years 1990, 2000, 2010
    expected = [[-step, 1, 1, 1], [0, 1, 0, -1], [0, 0, 0, 1], [step, 0, 0, -1]]  # year, Drama, War, flag
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert found.dtype == np.float32
    assert features(frame[["id", "title"]]).shape == (4, 0)
    few = frame.iloc[:3]  # with an empty cell, but without an empty text
    np.testing.assert_array_equal(features(few.astype({"genres": "category", "year": "Int64"})), features(few))


@pytest.mark.parametrize(
    "values", [[7, 7, 7], [0.1] * 3, [np.nan] * 3, [0.3, np.nan, 0.3], [np.inf, 1, 1]], ids=lambda v: str(v[:2])
)
def test_a_constant_or_empty_column_says_nothing(values):
    with warnings.catch_warnings(action="error"):
        found = features(pd.DataFrame({"id": list("abc"), "n": values}))
    np.testing.assert_array_equal(found, [[0]] * 3)


def test_known_has_a_row_for_the_unknown():
    users = pd.DataFrame({"id": ["u", "v"], "age": [10, 30]})
    items = pd.DataFrame({"id": ["x", "y", "z"], "title": ["X", "Y", "Z"], "genres": ["a", "b", "a|b"]})
    x = np.array([[0, 2, 4.5, 9], [1, 0, 2, 9]])
    known = known_of(Catalogue(users, items, (1, 5)), x)
    assert known.users.tolist() == [[0], [-1], [1]]
    assert known.items.tolist() == [[0, 0], [1, 0], [0, 1], [1, 1]]
    assert known.ratings.toarray().tolist() == [[0, 0, 0, 0], [0, 0, 0, 4.5], [0, 2, 0, 0]]
    assert known.ratings.dtype == np.float32


# ---- generated ratings

SOME = {"users": 90, "items": 60, "groups": 3, "each": 20}


def test_taste_groups_are_the_same_for_every_seed_but_the_validation():
    one, same, other = (data_set("taste_groups", **SOME, seed=seed) for seed in (0, 0, 1))
    for part in PARTS:
        np.testing.assert_array_equal(getattr(one, part).x, getattr(same, part).x)
    np.testing.assert_array_equal(one.test.x, other.test.x)
    assert one.fingerprint == other.fingerprint
    assert set(pairs(one.validation)) != set(pairs(other.validation))
    assert everything(one) == everything(other)
    more = data_set("taste_groups", **SOME | {"each": 21})
    assert more.fingerprint != one.fingerprint


def test_taste_groups_like_what_is_of_their_taste():
    data = data_set("taste_groups", **SOME)
    assert data.shape == (90, 60)
    x = np.array(everything(data))
    assert len(set(map(tuple, x[:, :2]))) == len(x) > 90 * 20 * 0.6  # about 20 a user, less repetitions
    assert set(x[:, 2]) == {1, 2, 3, 4, 5}
    assert data.catalogue.items["genres"].tolist() == [f"taste {i % 3}" for i in range(60)]
    counts = pd.crosstab(x[:, 0], x[:, 1] % 3).to_numpy()
    taste = counts.argmax(axis=1)
    assert set(taste) == {0, 1, 2}
    within = x[:, 1] % 3 == taste[x[:, 0].astype(int)]
    assert 0.65 < within.mean() < 0.8  # three of four, less repetitions
    assert within[x[:, 2] >= 4].mean() > 0.95
    assert within[x[:, 2] <= 3].mean() < 0.05


def test_taste_groups_of_one_taste_and_of_too_many():
    assert data_set("taste_groups", users=5, items=4, groups=1, each=3).train.x[:, 2].min() >= 4
    data_set("taste_groups", users=5, items=4, groups=4, each=3)
    message = one_line(ConfigError, data_set, "taste_groups", users=5, items=3, groups=4, each=3)
    assert message == "dataset.groups=4: there are 3 items, and every group needs one"


# ---- what a run keeps


def test_catalogue_round_trip(tmp_path):
    users = pd.DataFrame({"id": ["1", "é"], "age": [1.5, np.nan]})
    items = pd.DataFrame({"id": ["x"], "title": ["Léon (1994)"], "genres": ["a|b"]})
    seen = csr_array(np.array([[4.5], [0]], np.float32))
    vectors = np.array([[0.1, 2]])
    catalogue.write(tmp_path, Catalogue(users, items, (0.5, 5.0)), vectors, seen=seen, other=seen * 2)
    known = catalogue.read(tmp_path)
    pd.testing.assert_frame_equal(known.users, users)
    pd.testing.assert_frame_equal(known.items, items)
    pd.testing.assert_frame_equal(catalogue.frame(tmp_path, "items"), items)
    assert known.scale == (0.5, 5.0)
    assert known.shape == (2, 1)
    assert catalogue.vectors(tmp_path).dtype == np.float32
    np.testing.assert_array_equal(catalogue.vectors(tmp_path), vectors.astype(np.float32))
    for name, expected in (("seen", seen), ("other", seen * 2)):
        found = catalogue.matrix(tmp_path, name)
        assert isinstance(found, csr_array)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found.toarray(), expected.toarray())
    assert list(catalogue.titles(items)) == ["Léon (1994)"]
    assert list(catalogue.titles(items[["id"]])) == ["x"]


@pytest.mark.parametrize("file", ["users.parquet", "items.parquet", "scale.npy", "vectors.npy", "seen.npz"])
def test_a_missing_file_of_a_run_is_named(file, tmp_path):
    frame = pd.DataFrame({"id": ["x"]})
    catalogue.write(tmp_path, Catalogue(frame, frame, (1, 5)), np.ones((1, 2)), seen=csr_array([[1.0]]))
    (tmp_path / file).unlink()
    read = {"vectors.npy": catalogue.vectors, "seen.npz": lambda folder: catalogue.matrix(folder, "seen")}
    message = one_line(AelabError, read.get(file, catalogue.read), tmp_path)
    why = "the model of this run has no vectors" if file == "vectors.npy" else "the run did not finish"
    assert message.startswith(f"{tmp_path / file} is not there: {why}")


def test_a_model_without_vectors_writes_none(tmp_path):
    frame = pd.DataFrame({"id": ["x"]})
    catalogue.write(tmp_path, Catalogue(frame, frame, (1, 5)), None)
    assert not (tmp_path / "vectors.npy").exists()


# ---- interactions


def test_matrix_by_hand():
    x = np.array([[1, 2, 5, 0], [0, 1, 3, 0], [1, 0, 4, 0], [1, 1, 2, 0]])
    found = matrix(x, x[:, 2] - 3, (3, 4))
    assert found.toarray().tolist() == [[0, 0, 0, 0], [1, -1, 2, 0], [0, 0, 0, 0]]
    assert found.nnz == 3  # a rating of 3 became 0
    assert found.indices.tolist() == [0, 1, 2]
    assert found.dtype == np.float32
    assert found.has_sorted_indices
    assert matrix(x, 1, (3, 4)).toarray().tolist() == [[0, 1, 0, 0], [1, 1, 1, 0], [0, 0, 0, 0]]
    assert matrix(x[:0], 1, (3, 4)).shape == (3, 4)


CELL = st.tuples(st.integers(0, 4), st.integers(0, 6), st.integers(-2, 2))


@given(cells=st.lists(CELL, max_size=35, unique_by=lambda cell: cell[:2]))
def test_matrix_holds_each_value_where_it_belongs(cells):
    x = np.array([[*cell, 0] for cell in cells], float).reshape(-1, 4)
    found = matrix(x, x[:, 2], (5, 7))
    dense = np.zeros((5, 7))
    for user, item, value in cells:
        dense[user, item] = value
    np.testing.assert_array_equal(found.toarray(), dense)
    assert found.nnz == np.count_nonzero(dense)
    for row in range(5):
        assert (np.diff(found.indices[found.indptr[row] : found.indptr[row + 1]]) > 0).all()


def test_lists_give_the_same_rows_of_both():
    known = csr_array(np.arange(12).reshape(4, 3))
    wanted = csr_array(np.arange(8).reshape(4, 2))
    both = Lists(known, wanted)
    assert (len(both), both.shape) == (4, (4, 3, 2))
    for rows in (slice(1, 3), np.array([3, 0]), np.array([True, False, False, True]), []):
        some = both[rows]
        np.testing.assert_array_equal(some.known.toarray(), known.toarray()[rows])
        np.testing.assert_array_equal(some.wanted.toarray(), wanted.toarray()[rows])
        assert some.shape == (len(some), 3, 2)


# ---- files of a published zip


class Mirror(http.server.SimpleHTTPRequestHandler):
    """Serves a folder, and notes what was downloaded."""

    gets: list

    def do_GET(self):
        self.gets.append(self.path)
        super().do_GET()

    def log_message(self, *args):
        pass


@pytest.fixture
def mirror(tmp_path):
    """(URL, its folder, the paths that were downloaded) of a server on this machine."""
    folder, gets = tmp_path / "served", []
    folder.mkdir()
    handler = type("Noting", (Mirror,), {"gets": gets})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", folder, gets
    server.shutdown()
    server.server_close()


CONTENT = {"u.data": "1\t2\t3\t4\n" * 1000, "u.item": "1|Léon\n"}


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache" / "ml-100k"


@pytest.fixture
def get(tmp_path, refused):
    """`unpacked` with a data folder and, if not said otherwise, no network."""

    def get(file="u.data", url=f"{refused}/ml-100k.zip", md5="0" * 32, data_dir=str(tmp_path / "mine")):
        return unpacked("ml-100k", file, archive="ml-100k", urls=[url], md5=md5, data_dir=data_dir)

    return get


def names(folder):
    return sorted(file.name for file in folder.iterdir()) if folder.exists() else []


def test_a_file_that_is_there_is_taken(get, cache, tmp_path):
    written(cache, {"u.data": "cached"})
    assert get().read_text() == get(data_dir=None).read_text() == "cached"
    mine = written(tmp_path / "mine" / "ml-100k", {"u.data": "mine"})
    written(tmp_path / "mine" / "ml-100k", {"ml-100k.zip": "never opened"})
    assert get() == mine / "u.data"
    assert names(cache) == ["u.data"]


@pytest.mark.parametrize("where", ["mine", "cache"])
def test_a_zip_that_is_there_is_unpacked_into_the_cache(where, get, cache, tmp_path):
    folder = tmp_path / where / "ml-100k"
    folder.mkdir(parents=True)
    (folder / "ml-100k.zip").write_bytes(zipped(CONTENT))
    assert get() == cache / "u.data"
    assert get().read_text() == CONTENT["u.data"]
    assert get("u.item").read_text("latin-1") == CONTENT["u.item"]
    assert set(names(cache)) - {"ml-100k.zip"} == {"u.data", "u.item"}
    assert (folder / "ml-100k.zip").read_bytes() == zipped(CONTENT)
    (folder / "ml-100k.zip").unlink()
    assert get().read_text() == CONTENT["u.data"]  # needs the zip no more


def test_the_zip_is_downloaded_once(get, cache, mirror):
    url, folder, gets = mirror
    raw = zipped(CONTENT)
    (folder / "ml-100k.zip").write_bytes(raw)
    knobs = {"url": f"{url}/ml-100k.zip", "md5": hashlib.md5(raw).hexdigest()}
    for file in ("u.data", "u.item", "u.data"):
        assert get(file, **knobs).read_text("latin-1") == CONTENT[file]
    assert gets == ["/ml-100k.zip"]
    assert names(cache) == ["ml-100k.zip", "u.data", "u.item"]


def test_movielens_comes_from_its_zip(tmp_path, cache, mirror, monkeypatch):
    url, folder, gets = mirror
    raw = zipped(small_100k())
    (folder / "ml-100k.zip").write_bytes(raw)
    monkeypatch.setitem(movielens.MD5, "ml-100k", hashlib.md5(raw).hexdigest())
    data = data_set("ml_100k", mirrors=[url + "/"])
    written(tmp_path / "ml-100k", small_100k())
    assert everything(data) == everything(data_set("ml_100k", tmp_path))
    assert gets == ["/ml-100k.zip"]
    assert names(cache) == ["ml-100k.zip", "u.item", "u.user", "u1.base", "u1.test"]


def flipped(raw):
    """The zip with one byte of its first file changed."""
    return raw[:500] + bytes([raw[500] ^ 1]) + raw[501:]


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        (zipped(CONTENT)[:-40], "File is not a zip file"),
        (b"<html>sign in</html>", "File is not a zip file"),
        (b"", "File is not a zip file"),
        (flipped(zipped(CONTENT, how=zipfile.ZIP_STORED)), "Bad CRC-32"),
        (zipped(CONTENT).replace(b"1|L", b"2|L").replace(zipped(CONTENT)[44:54], bytes(range(245, 255))), ""),
        (zipped({"u.item": ""}), "There is no item named 'ml-100k/u.data'"),
        (zipped(CONTENT, archive="other"), "There is no item named 'ml-100k/u.data'"),
    ],
    ids=["cut", "html", "empty", "crc", "deflate", "lacking", "folder"],
)
def test_a_broken_zip_is_named_and_leaves_nothing(raw, told, get, cache, tmp_path):
    folder = tmp_path / "mine" / "ml-100k"
    folder.mkdir(parents=True)
    (folder / "ml-100k.zip").write_bytes(raw)
    message = one_line(DataError, get)
    assert message.startswith(f"{folder / 'ml-100k.zip'}: ml-100k/u.data cannot be had from it: ")
    assert told in message
    assert names(cache) == []
    assert (folder / "ml-100k.zip").read_bytes() == raw


def test_a_zip_of_another_checksum_is_not_kept(get, cache, mirror):
    url, folder, gets = mirror
    (folder / "ml-100k.zip").write_bytes(zipped(CONTENT))
    message = one_line(DataUnavailable, get, url=f"{url}/ml-100k.zip")
    assert "ml-100k/u.data is not there" in message
    assert "MD5 hash" in message
    assert "does not match" in message
    assert len(gets) == 2
    assert names(cache) == []


def test_without_network_it_says_what_to_do(get, cache, tmp_path, mirror):
    message = one_line(DataUnavailable, get)
    for part in (
        "ml-100k/u.data is not there",
        f"ml-100k.zip is not in {tmp_path / 'mine' / 'ml-100k'} or {cache}",
        "Connection refused",
        "put the files of ml-100k into $AELAB_DATA_DIR/ml-100k/",
    ):
        assert part in message
    assert "404" in one_line(DataUnavailable, get, url=f"{mirror[0]}/ml-100k.zip")
    assert names(cache) == []


def test_a_cache_that_cannot_be_written_is_named(get, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("AELAB_CACHE_DIR", str(tmp_path / "file"))
    folder = tmp_path / "mine" / "ml-100k"
    folder.mkdir(parents=True)
    (folder / "ml-100k.zip").write_bytes(zipped(CONTENT))
    message = one_line(DataUnavailable, get)
    assert message.startswith(f"{folder / 'ml-100k.zip'} cannot be unpacked into {tmp_path / 'file' / 'ml-100k'}: ")


# ---- all of it


def test_reading_ratings_imports_no_framework():
    modules = ("ratings", "movielens", "taste_groups", "interactions", "catalogue", "fetch")
    code = "import sys\n" + "".join(f"import aelab.data.{name}\n" for name in modules)
    code += "print(*sys.modules.keys() & {'tensorflow', 'keras', 'mlflow', 'sklearn', 'pooch'})"
    root = Path(__file__).parents[1]
    out = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == ""


def test_a_split_of_ratings_is_float64_without_labels(tmp_path):
    data = own(tmp_path / "a.csv", validation=0)
    for part in PARTS:
        split = getattr(data, part)
        assert isinstance(split, Split)
        assert (split.x.dtype, split.y) == (np.float64, None)
        assert split.x.shape == (len(split), 4)
