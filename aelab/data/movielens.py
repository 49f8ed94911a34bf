"""MovieLens 100K, 1M and 25M (GroupLens): ratings of films, with what is known of films and users."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import pandas as pd

from aelab.config import Count, DataError, Share, Whole
from aelab.data.columns import MISSING, texts
from aelab.data.fetch import Way, reads, unpacked
from aelab.data.frames import read_frame
from aelab.data.limits import listed as first_names
from aelab.data.limits import shown
from aelab.data.ratings import COLUMNS, assemble, checked, cut
from aelab.data.record import Ratings

HOME = "https://grouplens.org/datasets/movielens/"
LICENCE = "for research, with citation, not to be passed on (see its README)"
GENRES = """
unknown Action Adventure Animation Children's Comedy Crime Documentary Drama Fantasy Film-Noir Horror Musical Mystery
Romance Sci-Fi Thriller War Western
"""
OCCUPATIONS = """
other/academic/artist/clerical/student/service/doctor/executive/farmer/homemaker/k12 student/lawyer/programmer/retired/
sales/scientist/self-employed/engineer/craftsman/unemployed/writer
"""
PUBLISHED = ("u1", "u2", "u3", "u4", "u5", "ua", "ub")
SCALES = {"ml-100k": (1.0, 5.0), "ml-1m": (1.0, 5.0), "ml-25m": (0.5, 5.0)}
LATE = 1e8
"""Every time is later, in seconds since 1970, and every id smaller."""
MD5 = {
    "ml-100k": "0e33842e24a9c977be4e0107933c0723",
    "ml-1m": "c4d9eecfca2ab87c1945afe126590906",
    "ml-25m": "6b51fb2759a8657d3bfcbfc42b592ada",
}


def ways(archive: str, names: Callable[[Mapping], tuple[str, ...]]) -> Callable[[Mapping], list[Way]]:
    """The files of an archive, unpacked, or the archive."""

    def of(knobs: Mapping) -> list[Way]:
        folder = knobs.get("folder", archive)
        return [Way(folder, names(knobs), []), Way(folder, (f"{archive}.zip",), knobs["mirrors"])]

    return of


def names_100k(knobs: Mapping) -> tuple[str, ...]:
    """The files of MovieLens 100K for a fold."""
    fold = knobs["fold"]
    return ("u.item", "u.user", *((f"{fold}.base", f"{fold}.test") if fold in PUBLISHED else ("u.data",)))


@reads(ways("ml-100k", names_100k))
def ml_100k(
    *,
    fold: Literal["u1", "u2", "u3", "u4", "u5", "ua", "ub", "random", "user", "last"],
    test: Share,
    validation: Share,
    split_seed: Whole,
    seed: Whole,
    limit: Count | None,
    data_dir: str | None,
    mirrors: list[str],
) -> Ratings:
    """100,000 ratings, 943 users, 1,682 films; the published folds u1 to u5, ua, ub, or a split of our own.

    In a fold of ours `test` of the ratings are held out: see `aelab.data.ratings.cut`. Harper and Konstan, 2015.
    """
    read = Reader("ml-100k", "ml-100k", data_dir, mirrors)
    names = ["id", "title", "date", "video", "url", *GENRES.split()]
    items = read("u.item", names, "|", encoding="latin-1")
    read.expect("u.item", items[GENRES.split()].isin([0, 1]).all(axis=1), items, "0 or 1 for each genre")
    genres = items[GENRES.split()].astype(bool).apply(lambda row: "|".join(row.index[row]), axis=1)
    items = pd.DataFrame({"id": items["id"], "title": items["title"], "year": year(items["title"]), "genres": genres})
    users = read("u.user", ["id", "age", "gender", "occupation", "zip"], "|").drop(columns="zip")
    read.expect("u.user", people(users), users, "an age, and M or F as gender")
    files = {"train": f"{fold}.base", "test": f"{fold}.test"} if fold in PUBLISHED else {"all": "u.data"}
    parts = {part: read.ratings(file, users=users, items=items) for part, file in files.items()}
    parts = parts if fold in PUBLISHED else cut(parts["all"], fold, test, split_seed)
    name = f"ml_100k {fold}"
    return assemble(
        name, parts, users, items, SCALES["ml-100k"], validation=validation, seed=seed, limit=limit, **ABOUT
    )


@reads(ways("ml-1m", lambda knobs: ("ratings.dat", "movies.dat", "users.dat")))
def ml_1m(
    *,
    folder: str,
    fold: Literal["random", "user", "last"],
    test: Share,
    validation: Share,
    split_seed: Whole,
    seed: Whole,
    limit: Count | None,
    data_dir: str | None,
    mirrors: list[str],
) -> Ratings:
    """1,000,209 ratings, 6,040 users, 3,883 films, `test` of the ratings held out as `fold` says."""
    read = Reader("ml-1m", folder, data_dir, mirrors)
    items = read("movies.dat", ["id", "title", "genres"], "::")
    items.insert(2, "year", year(items["title"]))
    users = read("users.dat", ["id", "gender", "age", "occupation", "zip"], "::").drop(columns="zip")
    read.expect("users.dat", people(users), users, "F or M as gender, and an age")
    users["occupation"] = users["occupation"].map(dict(enumerate(OCCUPATIONS.replace("\n", "").split("/"))))
    read.expect("users.dat", users["occupation"].notna(), users, "an occupation from 0 to 20")
    parts = cut(read.ratings("ratings.dat", "::", users=users, items=items), fold, test, split_seed)
    return assemble(
        "ml_1m", parts, users, items, SCALES["ml-1m"], validation=validation, seed=seed, limit=limit, **ABOUT
    )


@reads(ways("ml-25m", lambda knobs: ("ratings.csv", "movies.csv")))
def ml_25m(
    *,
    fold: Literal["random", "user", "last"],
    test: Share,
    validation: Share,
    split_seed: Whole,
    seed: Whole,
    limit: Count | None,
    data_dir: str | None,
    mirrors: list[str],
) -> Ratings:
    """25,000,095 ratings, 162,541 users, 62,423 films, `test` of the ratings held out as `fold` says."""
    read = Reader("ml-25m", "ml-25m", data_dir, mirrors)
    items = read("movies.csv", ["movieId", "title", "genres"], ",", header=True)
    items = items.set_axis(["id", "title", "genres"], axis=1)
    read.check_ids("movies.csv", items)
    items.insert(2, "year", year(items["title"]))
    found = read("ratings.csv", ["userId", "movieId", "rating", "timestamp"], ",", header=True).set_axis(
        COLUMNS, axis=1
    )
    read.in_place("ratings.csv", found, None, items)
    parts = cut(checked(found, str(read.path("ratings.csv")), list(SCALES["ml-25m"]), "error"), fold, test, split_seed)
    return assemble(
        "ml_25m", parts, None, items, SCALES["ml-25m"], validation=validation, seed=seed, limit=limit, **ABOUT
    )


ABOUT = {"source": HOME, "licence": LICENCE}


class Reader:
    """Reads the files of one of the archives, from a folder of the user's, the cache, or the downloaded archive."""

    def __init__(self, archive: str, folder: str, data_dir: str | None, mirrors: list[str]):
        urls = [f"{mirror.rstrip('/')}/{archive}.zip" for mirror in mirrors]
        self.where = {"archive": archive, "urls": urls, "md5": MD5[archive], "data_dir": data_dir}
        self.folder, self.scale = folder, SCALES[archive]

    def __call__(
        self, file: str, names: list[str], delimiter: str, encoding: str | None = None, header: bool = False
    ) -> pd.DataFrame:
        """A file as a frame with columns of these names; its ids, if it has them, as text."""
        path = self.path(file)
        reading = {"encoding": encoding or encoded(path), "quoting": 0 if delimiter == "," else 3}
        given = None if header else names
        frame = read_frame(path, names=given, header=header, delimiter=delimiter, missing=[], **reading)
        if list(frame.columns) != names:
            raise DataError(f"{path}: expected the columns {', '.join(names)}, got {first_names(frame.columns)}")
        if "id" in names:
            self.check_ids(file, frame)
            frame = frame.reset_index(drop=True)
        return frame

    def check_ids(self, file: str, frame: pd.DataFrame) -> None:
        """Make the ids texts; DataError for one that is missing or there twice, and for a title that is missing."""
        frame["id"] = texts(frame["id"])
        fine = ~frame["id"].duplicated() & (frame["id"] != MISSING)
        self.expect(file, fine, frame, "an id in every line, each once")
        if "title" in frame:
            self.expect(file, frame["title"].notna(), frame, "a title in every line")
            frame["title"] = frame["title"].astype(str)

    def expect(self, file: str, fine: pd.Series, frame: pd.DataFrame, expected: str) -> None:
        """DataError that names the first lines that are not fine."""
        if not fine.all():
            bad = frame["id"][~fine].head(3).map(shown)
            raise DataError(
                f"{self.path(file)}: expected {expected}; {(~fine).sum():,} are not: id {', '.join(bad)}; are columns "
                "missing or swapped?"
            )

    def path(self, file: str) -> Path:
        """Where a file is."""
        return unpacked(self.folder, file, **self.where)

    def ratings(self, file: str, delimiter: str = "\t", *, users: pd.DataFrame, items: pd.DataFrame) -> pd.DataFrame:
        """A file of ratings, checked."""
        frame = self(file, COLUMNS, delimiter)
        self.in_place(file, frame, users, items)
        return checked(frame, str(self.path(file)), list(self.scale), "error")

    def in_place(self, file: str, frame: pd.DataFrame, users: pd.DataFrame | None, items: pd.DataFrame) -> None:
        """DataError where columns of ratings look swapped: where another column has what is missing in its place.

        Times are seconds since 1970, and no id is as large; ratings are those of the scale; ids are in the catalogue.
        """
        numbers = frame.apply(pd.to_numeric, errors="coerce")
        low, high = self.scale
        late = (numbers > LATE).mean() > 0.5
        rated = (numbers.ge(low) & numbers.le(high)).mean()
        wrong = [name for name in ("user", "item", "rating") if late[name]]
        if not wrong and rated["rating"] < 0.5:
            wrong = [name for name in ("user", "item", "time") if rated[name] > 0.99]
        if wrong:
            looks, name = "times" if late[wrong[0]] else "ratings", wrong[0]
            raise DataError(
                f"{self.path(file)}: expected the columns {', '.join(COLUMNS)}, but column {COLUMNS.index(name) + 1} "
                f"({name}) looks like {looks}: {first_names(frame[name].head(3))}; are columns swapped?"
            )
        if users is None:
            return
        known = {"user": set(users["id"]), "item": set(items["id"])}
        user, item = (set(texts(pd.Series(frame[name].unique()))) for name in ("user", "item"))
        if not (user <= known["user"] and item <= known["item"]) and item <= known["user"] and user <= known["item"]:
            raise DataError(f"{self.path(file)}: expected users, then items; by their ids these columns are swapped")


def people(users: pd.DataFrame) -> pd.Series:
    """Which rows of users are whole: with an age and a gender."""
    return pd.to_numeric(users["age"], errors="coerce").notna() & users["gender"].isin(["M", "F"])


def encoded(path: Path) -> str:
    """UTF-8, or Latin-1 as GroupLens published the older files."""
    try:
        path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return "latin-1"
    return "utf-8"


def year(titles: pd.Series) -> pd.Series:
    """The year at the end of a title, "Toy Story (1995)"; NaN where there is none."""
    return titles.str.extract(r"\((\d{4})\)\s*$")[0].astype(float)
