"""Questions to a finished run on ratings: what to recommend to a user, and which items are near to another."""

import difflib
import os
from pathlib import Path

import numpy as np
import pandas as pd
from omegaconf import DictConfig
from rich.table import Table

from aelab import archive, console, ranking, similarities
from aelab.config import AelabError
from aelab.data import catalogue
from aelab.figures import number

NEAR = 3  # other names that an error offers


def user_number(users: pd.DataFrame, user: str) -> int:
    """The row of a user by id; AelabError offers ids that look alike."""
    found = np.flatnonzero(users["id"] == user)
    if len(found):
        return int(found[0])
    near = difflib.get_close_matches(user, users["id"], NEAR, 0.5) or list(users["id"][:NEAR])
    raise AelabError(f"user={user}: unknown; there are {len(users):,} users, such as {', '.join(near)}")


def item_number(items: pd.DataFrame, item: str) -> int:
    """The row of an item by id, by title, by a part of it that only one title has, or by the nearest title."""
    titles = catalogue.titles(items).astype(str)
    plain = titles.str.casefold()
    for match in (items["id"] == item, titles == item, plain.str.contains(item.casefold(), regex=False)):
        found = np.flatnonzero(match)
        if len(found) == 1:
            return int(found[0])
        if len(found) > 1:
            some = ", ".join(f"{titles.iloc[i]} (item={items['id'].iloc[i]})" for i in found[:NEAR])
            raise AelabError(f"item={item}: {len(found)} titles have it: {some}{' ...' * (len(found) > NEAR)}")
    near = difflib.get_close_matches(item.casefold(), plain.tolist(), NEAR, 0.5)
    rows = [int(np.flatnonzero(plain == name)[0]) for name in near]
    if len(near) and difflib.SequenceMatcher(None, item.casefold(), near[0]).ratio() > 0.85:
        console.out.print(f"item={item}: taken as {titles.iloc[rows[0]]}")
        return rows[0]
    some = f"did you mean {' or '.join(titles.iloc[rows])}?" if near else f"such as {titles.iloc[0]}"
    raise AelabError(f"item={item}: unknown among {len(items):,} items; {some}")


def similar(folder: Path, cfg: DictConfig, item: str, top: int) -> None:
    """Print the items nearest to one, by the similarity of the config."""
    items, vectors = catalogue.frame(folder, "items"), catalogue.vectors(folder)
    row = item_number(items, item)
    rated = catalogue.matrix(folder, "rated")
    compare = similarities.fitted(cfg.similarity, vectors, rated)
    scores = compare(vectors[[row]], vectors)[0]
    scores[row] = -np.inf
    titles, counts = catalogue.titles(items), rated.astype(bool).sum(axis=0)
    table = Table(
        "", "item", "similarity", "ratings", title=f"nearest to {titles.iloc[row]} by {cfg.choices.similarity}"
    )
    for place, i in enumerate(ranking.best(scores[None], min(top, len(items) - 1))[0], 1):
        table.add_row(str(place), str(titles.iloc[i]), number(float(scores[i])), str(counts[i]))
    console.out.print(table)


def recommend(folder: Path, cfg: DictConfig, user: str, top: int, min_ratings: int, shrink: float) -> None:
    """Print the items that a user does not know, best first: by score, or by predicted rating.

    A predicted rating p counts beside `shrink` ratings of the mean m of the user's predictions: (n p + shrink m) /
    (n + shrink), with n the ratings of the item. Only items with `min_ratings` or more are taken.
    """
    row = user_number(catalogue.frame(folder, "users"), user)
    items, rated = catalogue.frame(folder, "items"), catalogue.matrix(folder, "rated")
    scores, is_rating = scores_of(folder, cfg, row)
    counts = rated.astype(bool).sum(axis=0)
    seen = rated[[row]].indices
    if not len(seen):
        console.out.print(f"user {user} has no rating in training: the list is for somebody unknown")
    value = scores.astype(np.float64)
    if is_rating:
        value = (counts * value + shrink * value.mean()) / np.maximum(counts + shrink, 1e-9)
    open_ = (counts >= min_ratings) & ~np.isin(np.arange(len(items)), seen)
    if not open_.any():
        raise AelabError(f"min_ratings={min_ratings}: no item that user {user} does not know has as many")
    order = ranking.best(np.where(open_, value, -np.inf)[None], min(top, int(open_.sum())))[0]
    titles = catalogue.titles(items)
    columns = ("predicted", "shrunk", "ratings") if is_rating else ("score", "ratings")
    table = Table("", "item", *columns, title=f"for user {user}, who has rated {len(seen)} items")
    for place, i in enumerate(order, 1):
        shown = (scores[i], value[i]) if is_rating else (scores[i],)
        table.add_row(str(place), str(titles.iloc[i]), *(number(float(v)) for v in shown), str(counts[i]))
    console.out.print(table)
    if is_rating:
        plain = np.where(np.isin(np.arange(len(items)), seen), -np.inf, scores)
        first = ranking.best(plain[None], min(top, len(items) - len(seen)))[0]
        told = "; ".join(f"{titles.iloc[i]} ({number(float(scores[i]))}, {counts[i]} ratings)" for i in first[:5])
        same = len(set(first) & set(order))
        console.out.print(
            f"by the prediction alone (min_ratings=0 shrink=0): {told} ...; {same} of {len(order)} are the same"
        )


def scores_of(folder: Path, cfg: DictConfig, user: int) -> tuple[np.ndarray, bool]:
    """(a score for each item, whether it is a rating); loads TensorFlow only where the model needs it."""
    if os.path.lexists(folder / "model.skops") and cfg.choices.task == "recommend":
        return archive.model(folder / "model.skops").predict(catalogue.matrix(folder, "known")[[user]])[0], False
    from aelab import stored  # TensorFlow

    return stored.scores_of(folder, cfg, user), cfg.choices.task == "rating"
