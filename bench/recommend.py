"""Side by side: the document's recommenders in plain Keras, and aelab; then aelab on ten million interactions.

    python -m bench.recommend                the baselines, aelab's defaults, 100,000 users x 20,000 items
    python -m bench.recommend only=scale     a single part: rating_baseline, rating, top_k_baseline, top_k or scale

The interactions of the last part are drawn at random with tastes planted in them. The baseline scripts are looked for
in $AELAB_BASELINES, else ../shared/baselines; rating.py predicts ratings, recommend.py ranks (fold u1).
"""

import json
import re
import subprocess
import sys

import numpy as np
import pandas as pd

from bench.anomaly import measured, together
from bench.denoise import AELAB, BASELINES, HERE

OUT = HERE / "outputs" / "bench"
USERS, ITEMS, EACH = 100_000, 20_000, 100
SHOWN = {"MAE": "test/mae", "RMSE": "test/rmse", "NDCG@10": "test/ndcg@10", "P@10": "test/precision@10"}


def baseline(script: str) -> dict:
    """The plain Keras script: its RESULT line."""
    done = subprocess.run([sys.executable, BASELINES / script], capture_output=True, text=True, check=True)
    line = next(line for line in done.stdout.splitlines() if line.startswith("RESULT"))
    found = [float(x) for x in re.findall(r"(?:np\.float64\()?(\d+\.\d+)", line)]
    names = (
        ["MSE", "MAE", "fit_s", "total_s"] if script == "rating.py" else ["P@10", "R@10", "NDCG@10", "fit_s", "total_s"]
    )
    return {k: v for k, v in zip(names, found, strict=True) if k != "MSE"}


def run(name: str, *words: str) -> dict:
    """An aelab run by the real command, with its figures."""
    folder = OUT / name
    found = measured([AELAB, *words, f"hydra.run.dir={folder}"])
    metrics = json.loads((folder / "metrics.json").read_text())
    return {k: metrics[v] for k, v in SHOWN.items() if v in metrics} | {"fit_s": metrics["time/fit_s"], **found}


def scale() -> dict:
    """One epoch of the user autoencoder, the test and the report, on generated likes in a Parquet file."""
    rng, file = np.random.default_rng(0), OUT / "likes.parquet"
    popular = np.sort(rng.pareto(1.2, ITEMS) + 0.05)[::-1]
    odds = np.cumsum(popular / popular.sum())
    user = np.repeat(np.arange(USERS, dtype=np.int32), EACH)
    item = np.searchsorted(odds, rng.random(len(user)) * odds[-1]).astype(np.int32)
    item = (item + (user % 20) * (ITEMS // 20) * (rng.random(len(user)) < 0.7)) % ITEMS  # twenty tastes
    frame = pd.DataFrame({"user": user, "item": item})
    more = rng.integers(0, (USERS, ITEMS), (len(frame), 2), dtype=np.int32)  # in place of those drawn twice
    twice = frame.duplicated()
    frame.loc[twice] = more[twice]
    frame = frame.drop_duplicates()
    frame.to_parquet(file)
    data = ("dataset=ratings", f"path={file}", "dataset.rating=null", "task.positive=1", "model=user_ae")
    found = run("scale_top_k", "task=recommend", *data, "fit.epochs=1", "fit.batch_size=500", "task.at=[10]")
    file.unlink()
    return found | {"interactions": float(len(frame))}


PARTS = {
    "rating_baseline": lambda: baseline("rating.py"),
    "rating": lambda: run("rating", "task=rating", "dataset.fallback=null"),
    "top_k_baseline": lambda: baseline("recommend.py"),
    "top_k": lambda: run("top_k", "task=recommend", "task.hide=liked", "dataset.fallback=null"),
    "scale": scale,
}


if __name__ == "__main__":
    compared = {"rating": "rating_baseline", "top_k": "top_k_baseline"}
    together("recommend", "ratings and top-K recommendation", PARTS, compared, sys.argv[1:])
