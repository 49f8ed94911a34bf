"""Side by side: the document's dense autoencoder on NSL-KDD in plain Keras, and aelab; then aelab at full size.

    python -m bench.anomaly                the baseline, aelab's dense autoencoder, 284,807 rows, scoring a large file
    python -m bench.anomaly only=baseline,dense    some parts of: baseline, dense, ensemble, scale, score
    python -m bench.anomaly only=score gigabytes=5

The rows of the last two parts are drawn at random in the shape of the credit card data: nothing is to be learnt from
their metrics. The baseline script is looked for in $AELAB_BASELINES, else ../shared/baselines.
"""

import json
import re
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import psutil
from rich.table import Table

from bench.denoise import AELAB, BASELINES, HERE, console

OUT = HERE / "outputs" / "bench"
ROWS = 284_807


def measured(words: list[str]) -> dict:
    """A command: seconds by our clock, and the most memory it held, in GB."""
    clock, most = time.perf_counter(), 0
    process = subprocess.Popen(list(map(str, words)), stdout=subprocess.DEVNULL)
    watched = psutil.Process(process.pid)
    while process.poll() is None:
        try:
            most = max(most, watched.memory_info().rss)
        except psutil.NoSuchProcess:
            break
        time.sleep(0.1)
    if process.wait():
        raise SystemExit(f"{' '.join(map(str, words))}: ended with {process.returncode}")
    return {"total_s": time.perf_counter() - clock, "memory_gb": most / 1e9}


def run(name: str, *words: str) -> dict:
    """An aelab run by the real command, with its figures."""
    folder = OUT / name
    found = measured([AELAB, "task=anomaly", *words, f"hydra.run.dir={folder}"])
    metrics = json.loads((folder / "metrics.json").read_text())
    return {
        "ROC-AUC": metrics["test/roc_auc"],
        "PR-AUC": metrics["test/pr_auc"],
        "fit_s": metrics["time/fit_s"],
        **found,
    }


def baseline() -> dict:
    """The plain Keras script: its RESULT line."""
    done = subprocess.run([sys.executable, BASELINES / "anomaly.py"], capture_output=True, text=True, check=True)
    found = dict(re.findall(r"(roc|pr|fit_s|total_s) (?:np\.float64\()?([\d.e-]+)", done.stdout))
    return {"ROC-AUC": float(found["roc"]), "PR-AUC": float(found["pr"])} | {
        k: float(found[k]) for k in ("fit_s", "total_s")
    }


def payments(rows: int, seed: int) -> pd.DataFrame:
    """Rows in the shape of the credit card data, one in 579 of them far out."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, 28)).astype(np.float32)
    strange = rng.random(rows) < 492 / ROWS
    x[strange] += rng.normal(0, 4, (int(strange.sum()), 28))
    frame = pd.DataFrame(x, columns=[f"V{i}" for i in range(1, 29)])
    frame.insert(0, "Time", np.sort(rng.integers(0, 172_792, rows)))
    return frame.assign(Amount=rng.lognormal(3, 1.5, rows).round(2), Class=strange.astype(int))


def scale() -> dict:
    """Ten epochs on as many rows as the published file has, and the test."""
    file = OUT / "payments.csv"
    payments(ROWS, 0).to_csv(file, index=False)
    return run("scale", "dataset=csv", f"path={file}", "label=Class", "positive=1", "fit.epochs=10")


def score(gigabytes: float) -> dict:
    """A large file through `aelab score`, with the model of the part `scale`."""
    file, part = OUT / "large.csv", payments(100_000, 1).drop(columns="Class").to_csv(index=False)
    header, _, body = part.partition("\n")
    with file.open("w") as target:
        target.write(header + "\n")
        while target.tell() < gigabytes * 1e9:
            target.write(body)
    found = measured([AELAB, "score", f"run={OUT / 'scale'}", f"input={file}", f"output={OUT / 'scored.csv'}"])
    found["gigabytes"] = file.stat().st_size / 1e9
    for name in (file, OUT / "scored.csv"):
        name.unlink()
    return found


def together(name: str, title: str, parts: dict, ratios: dict[str, str], argv: list[str]) -> None:
    """Run the parts, or those that `only=` names, print their table, keep all in outputs/bench/NAME.json.

    `parts` are functions by name; a part whose name ends in "baseline" is left out where there are no scripts.
    `ratios` are pairs of parts whose times in `fit` are compared, where both ran now.
    """
    only = [part for a in argv if a.startswith("only=") for part in a.partition("=")[2].split(",")]
    OUT.mkdir(parents=True, exist_ok=True)
    file = OUT / f"{name}.json"
    kept, results = json.loads(file.read_text()) if only and file.exists() else {}, {}
    for part in only or parts:
        console.rule(part)
        if part.endswith("baseline") and not BASELINES.is_dir():
            console.print(f"no {BASELINES}: aelab runs alone")
            continue
        results[part] = parts[part]()
        file.write_text(json.dumps(kept | results, indent=2) + "\n")
    table = Table(title=title)
    columns = list(dict.fromkeys(k for r in results.values() for k in r))
    for column in ("part", *columns):
        table.add_column(column, justify="right")
    for part, r in results.items():
        table.add_row(part, *(f"{r[k]:.4g}" if k in r else "" for k in columns))
    console.print(table)
    for part, other in ratios.items():
        if {part, other} <= results.keys():
            console.print(f"{part}: fit / baseline's fit {results[part]['fit_s'] / results[other]['fit_s']:.2f}")


def main(argv: list[str]) -> None:
    """The parts of this page."""
    size = next((float(a.partition("=")[2]) for a in argv if a.startswith("gigabytes=")), 0.5)
    parts = {
        "baseline": baseline,
        "dense": lambda: run("dense", "experiment=anomaly_nsl_kdd", "model.members=1", "dataset.fallback=null"),
        "ensemble": lambda: run("ensemble", "experiment=anomaly_nsl_kdd", "dataset.fallback=null"),
        "scale": scale,
        "score": lambda: score(size),
    }
    together("anomaly", "anomaly detection", parts, {"dense": "baseline", "ensemble": "baseline"}, argv)


if __name__ == "__main__":
    main(sys.argv[1:])
