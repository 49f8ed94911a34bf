"""Ratings: users, items, what is known of both, and how the ratings are cut. For `dataset=ratings` and for MovieLens.

Letters in shapes: n ratings, u users, i items, f features.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from scipy.sparse import csr_array

from aelab.config import ConfigError, Count, DataError, Share, Whole
from aelab.data.columns import MISSING, texts
from aelab.data.frames import read_frame
from aelab.data.limits import listed as first_names
from aelab.data.limits import plain, shown, unknown_name
from aelab.data.record import Data, Ratings, Split, fingerprint

COLUMNS = ["user", "item", "rating", "time"]
SHOWN = 3  # bad lines that an error names


@dataclass(frozen=True, eq=False)
class Catalogue:
    """What is known of users and items, in the order of their numbers from 0: frames with `id` first, as text.

    An item's frame has a `title`; texts with "|" between them are several values of one column, such as genres.
    `scale` is the lowest and the highest rating.
    """

    users: pd.DataFrame
    items: pd.DataFrame
    scale: tuple[float, float]

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of users and items."""
        return len(self.users), len(self.items)


def features(frame: pd.DataFrame) -> np.ndarray:
    """The columns of a catalogue's frame, but id and title, as float32 (n, f).

    Numbers are standardised, 0 where missing; texts become a column for each of their values, 1 where it is there.
    """
    parts = [np.zeros((len(frame), 0))]
    for name in frame.columns.difference(["id", "title"], sort=False):
        if pd.api.types.is_numeric_dtype(frame[name]):
            values = frame[name].to_numpy(float)
            known = values[np.isfinite(values)]
            constant = not len(known) or known.min() == known.max()  # its spread may be a rounding error
            scaled = np.zeros(len(values)) if constant else (values - known.mean()) / known.std()
            parts.append(np.where(np.isfinite(values), scaled, 0)[:, None])
        else:
            values = frame[name].astype(object).where(frame[name].notna(), "").astype(str)
            parts.append(values.str.get_dummies("|").to_numpy())
    return np.concatenate(parts, axis=1).astype(np.float32)


def ratings(
    *,
    name: str,
    path: str,
    user: str,
    item: str,
    rating: str | None,
    time: str | None,
    items: str | None,
    delimiter: str,
    scale: list[float] | None,
    duplicates: Literal["error", "last"],
    fold: Literal["random", "user", "last"],
    test: Share,
    validation: Share,
    split_seed: Whole,
    seed: Whole,
    limit: Count | None,
) -> Ratings:
    """Your own ratings from a CSV or Parquet file: a row each, with a user, an item, a rating and perhaps a time.

    `rating` null: every row is a like, of value 1. `items` is a file with the columns id and title, and any others
    that say something of the items. `fold` is how test ratings are drawn, see `cut`. Errors: DataError names file,
    line and column; ConfigError names the setting.
    """
    if scale is not None and (len(scale) != 2 or scale[0] > scale[1]):
        raise ConfigError(f"dataset.scale={list(scale)}: expected [lowest, highest]")
    if fold == "last" and time is None:
        raise ConfigError("dataset.fold=last: needs the column of times: dataset.time=COLUMN")
    found = read_frame(Path(path), names=None, header=True, delimiter=delimiter, missing=[])
    settings = {"user": user, "item": item, "rating": rating, "time": time}
    columns = {}
    for setting, column in settings.items():
        if column is not None and column not in found:
            raise ConfigError(f"{path}: dataset.{setting}: {unknown_name('column', column, found.columns)}")
        columns[setting] = found[column] if column else pd.Series(1.0 if setting == "rating" else 0.0, found.index)
    frame = pd.DataFrame(columns)
    known = None if items is None else described(items, delimiter)
    frame = checked(frame, path, scale, duplicates)
    parts = cut(frame, fold, test, split_seed)
    trained = parts["train"]["rating"]
    bounds = tuple(scale) if scale else (float(trained.min()), float(trained.max()))
    about = {"source": path, "licence": "yours"}
    return assemble(name, parts, None, known, bounds, validation=validation, seed=seed, limit=limit, **about)


def described(items: str, delimiter: str) -> pd.DataFrame:
    """What a file says of items: id and title as text, each id once."""
    known = read_frame(Path(items), names=None, header=True, delimiter=delimiter, missing=[])
    if not {"id", "title"} <= set(known):
        raise DataError(f"{items}: expected the columns id and title, got {first_names(known.columns)}")
    known["id"] = texts(known["id"])
    bad = known["id"].duplicated() | (known["id"] == MISSING)
    if bad.any():
        lines = ", ".join(f"line {line} (id {shown(known['id'][line])})" for line in known.index[bad][:SHOWN])
        raise DataError(f"{items}: expected an id in every line, each once; {bad.sum():,} are not: {lines}")
    if pd.api.types.is_numeric_dtype(known["title"]):  # such as 1984
        known["title"] = texts(known["title"]).where(known["title"].notna())
    return known


def checked(frame: pd.DataFrame, where: str, scale: list[float] | None, duplicates: str) -> pd.DataFrame:
    """The ratings as numbers; DataError names the lines of those that are none, not on the scale, or given twice."""

    def refuse(bad: pd.Series, expected: str, named: tuple[str, ...] = ("user", "item", "rating")) -> None:
        if bad.any():
            lines = ", ".join(
                f"line {line} ({', '.join(f'{k} {shown(v)}' for k, v in frame.loc[line, list(named)].items())})"
                for line in frame.index[bad][:SHOWN]
            )
            raise DataError(f"{where}: expected {expected}; {bad.sum():,} are not: {lines}")

    ids = {k: texts(frame[k]) for k in ("user", "item") if not pd.api.types.is_numeric_dtype(frame[k])}
    frame = frame.assign(**ids)  # before they are compared: "1" and "01" are one user
    missing = frame[["user", "item"]].isna() | frame[["user", "item"]].isin([MISSING])
    refuse(missing.any(axis=1), "a user and an item in every line")
    given = frame[["rating", "time"]]
    numbers = given.apply(pd.to_numeric, errors="coerce").astype(float).where(given.notna())
    refuse(~np.isfinite(numbers["rating"]), "a rating that is a number in every line")
    refuse(~np.isfinite(numbers["time"]), "a time that is a number in every line", ("user", "item", "time"))
    if scale is not None:
        low, high = scale
        refuse(~numbers["rating"].between(low, high), f"ratings from {plain(low)} to {plain(high)}")
    frame = frame.assign(**{name: numbers[name] for name in numbers})
    twice = frame.duplicated(["user", "item"], keep="last")
    if duplicates == "error":
        refuse(frame.duplicated(["user", "item"], keep=False), "one rating of an item by a user (or: duplicates=last)")
    return frame[~twice]


def cut(frame: pd.DataFrame, how: str, share: float, seed: int) -> dict[str, pd.DataFrame]:
    """Train and test ratings: "random" draws the share of all; "user" the share of each user's, rounded up;
    "last" takes that share of each user's by time, the latest.

    A user keeps at least one rating to train on.
    """
    from sklearn.model_selection import train_test_split

    if not 0 < share < 1:
        raise ConfigError(f"dataset.test={share}: expected a share of ratings, above 0 and below 1")
    if how == "random":
        if np.ceil(len(frame) * share) >= len(frame):
            raise ConfigError(f"dataset.test={share}: that leaves none of {len(frame):,} ratings to train on")
        train, test = train_test_split(frame, test_size=share, random_state=seed)
        return {"train": train, "test": test}
    key = frame["time"] if how == "last" else pd.Series(np.random.default_rng(seed).random(len(frame)), frame.index)
    order = frame.assign(key=key).sort_values(["user", "key"], kind="stable")
    groups = order.groupby("user", sort=False)
    size = groups["key"].transform("size")
    held = groups.cumcount(ascending=False) < np.minimum(np.ceil(size * share), size - 1)
    return {"train": frame.loc[order.index[~held]], "test": frame.loc[order.index[held]]}


def assemble(
    name: str,
    parts: dict[str, pd.DataFrame],
    users: pd.DataFrame | None,
    items: pd.DataFrame | None,
    scale: tuple[float, float],
    /,
    *,
    validation: float,
    seed: int,
    limit: int | None,
    source: str,
    licence: str,
) -> Data:
    """The record of ratings from its parts, train and test; `validation` of the training ratings are held out.

    Users and items are numbered as in their frames, where there are any, then by their ids.
    """
    numbers, frames = {}, {}
    for key, known in (("user", users), ("item", items)):
        codes, ids = pd.factorize(pd.concat([frame[key] for frame in parts.values()]))
        ids = texts(pd.Series(ids))
        frames[key] = listed(known, ids)
        numbers[key] = pd.Series(np.arange(len(frames[key])), frames[key]["id"])[ids].to_numpy()[codes]
    catalogue = Catalogue(frames["user"], frames["item"], scale)
    both = pd.concat([frame[["rating", "time"]] for frame in parts.values()])
    both = np.column_stack([numbers["user"], numbers["item"], both.to_numpy(float)])
    train, test = both[: len(parts["train"])], both[len(parts["train"]) :]
    if not len(test):
        raise DataError(f"{name}: no rating could be held out as a test: no user has two; take dataset.fold=random")
    if not 0 <= validation < 1:
        raise ConfigError(f"dataset.validation={validation}: expected a share of ratings, at least 0 and below 1")
    rng = np.random.default_rng((seed, len(train)))
    order, count = rng.permutation(len(train)), min(round(len(train) * validation), len(train) - 1)
    rows = order[count:][:limit], order[:count][:limit], rng.permutation(len(test))[:limit]
    splits = [Split(x[np.sort(r)], None) for x, r in zip((train, train, test), rows, strict=True)]
    hashes = pd.util.hash_pandas_object(pd.DataFrame(both), index=False)
    mark = fingerprint(np.sort(hashes.to_numpy()))  # in an order that no split has a part in
    span, density = f"{plain(scale[0])} to {plain(scale[1])}", len(both) / np.prod(catalogue.shape)
    told = f"{len(both):,} ratings from {span}, {density:.2%} of all"
    return Data(name, "ratings", *splits, (), source, licence, mark, told, catalogue=catalogue)


def listed(frame: pd.DataFrame | None, seen: pd.Series) -> pd.DataFrame:
    """A catalogue's frame with a row for every id that was seen, those it lacks at the end."""
    frame = pd.DataFrame({"id": []}, dtype=str) if frame is None else frame
    lacking = sorted(set(seen) - set(frame["id"]))
    frame = pd.concat([frame, pd.DataFrame({"id": lacking})], ignore_index=True)
    if "title" in frame:
        frame["title"] = frame["title"].fillna(frame["id"])
    return frame


class Known(NamedTuple):
    """What a rating model is built from; row and column 0 stand for an unknown user and an unknown item.

    `users` (u + 1, f) and `items` (i + 1, g) are features, float32; `ratings` (u + 1, i + 1) those of training.
    """

    users: np.ndarray
    items: np.ndarray
    ratings: csr_array


def known_of(catalogue: Catalogue, x: np.ndarray) -> Known:
    """What is known from a catalogue and the ratings (n, 4) of training."""
    users, items = (np.pad(features(frame), ((1, 0), (0, 0))) for frame in (catalogue.users, catalogue.items))
    index = tuple((x[:, :2] + 1).astype(np.int64).T)
    ratings = csr_array((x[:, 2].astype(np.float32), index), shape=(len(users), len(items)))
    return Known(users, items, ratings)
