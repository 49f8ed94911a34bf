"""Whether a change of the code changes a figure: small deterministic runs of every task and of every quick model.

    python -m bench.unchanged record before.json     with the code before the change
    python -m bench.unchanged compare before.json    with the code after it, on the same machine

`record` writes each run's metrics without its times; `compare` makes the same runs and prints each figure that is not
the same to the last digit, then ends with exit code 1. A run is known by its label here: where a change gives a value
of the config another name, its words change with it and its label stays. `only=PART` makes the runs with PART in their
label. Data sets come from AELAB_DATA_DIR where they are there; `record` and `compare` must have the same.
"""

import json
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.progress import track

SMALL = ("debug=fast", "fit.deterministic=true", "fit.precision=float32", "tracking.log_model=false")
DIGITS = ("dataset=digits", "dataset.limit=200")
IMAGES = (*DIGITS, "model.widths=[8,16]")
TABLE = ("task=anomaly", "dataset=nsl_kdd", "task.resamples=20")
FILMS = ("dataset=ml_100k", "dataset.limit=20000")
TEXT = ("task=language", "dataset.limit=8000", "fit.epochs=1", "task.written=40", "task.scored=50")
SMALL_CELL = ("model.hidden=16", "model.embedding=8")
RUNS = {
    **{f"denoise {m}": ("task=denoise", *DIGITS, f"model={m}") for m in ("unet_mini", "median", "nl_means", "tv")},
    **{f"denoise {m}": ("task=denoise", *IMAGES, f"model={m}") for m in ("conv_ae", "conv_ae_spatial", "conv_vae")},
    "denoise noise2noise": ("task=denoise", *DIGITS, "task.target=noisy", "model.width=8"),
    "denoise all corruptions": (
        *("task=denoise", *IMAGES, "model=conv_ae"),
        "corruption=[gaussian,salt_pepper,poisson,speckle,masking]",
    ),
    "denoise all losses": ("task=denoise", *IMAGES, "model=conv_ae", "loss=[mse,mae,bce,charbonnier,ssim,log_mse]"),
    "denoise real": ("task=denoise", "dataset=fashion_mnist", "model=conv_ae", "dataset.limit=200"),
    **{f"reconstruct {m}": ("task=reconstruct", *DIGITS, f"model={m}") for m in ("vanilla", "fully_connected")},
    "reconstruct recurrent_ae": ("task=reconstruct", *DIGITS, "model=recurrent_ae", "model.hidden=16"),
    "reconstruct sparse contractive": (
        *("task=reconstruct", *DIGITS, "model=fully_connected", "model.hidden=[32]"),
        "loss=[mse,sparsity,contractive]",
    ),
    "generate conv_vae": ("task=generate", *IMAGES, "task.judge_epochs=1"),
    **{f"inpaint {m}": ("task=inpaint", *DIGITS, f"mask={m}", "model.width=8") for m in ("block", "half", "random")},
    "inpaint biharmonic": ("task=inpaint", *DIGITS, "model=biharmonic"),
    "colorize": ("task=colorize", "dataset=photo_patches", "model.width=8", "dataset.limit=100"),
    "classify augmented": ("task=classify", *IMAGES, "corruption=[cutout,flip,shift]"),
    **{f"classify {m}": ("task=classify", *IMAGES, f"model={m}") for m in ("cnn", "resnet_mini")},
    "classify mlp": ("task=classify", *DIGITS, "model=mlp"),
    **{
        f"anomaly {m}": (*TABLE, f"model={m}")
        for m in ("dense_ae", "vae", "isolation_forest", "lof", "knn", "ocsvm", "gaussian_fit", "pca")
    },
    **{f"anomaly {s}": (*TABLE, f"score={s}") for s in ("mse", "mae", "max", "scaled")},
    "anomaly elbo": (*TABLE, "model=vae", "score=elbo"),
    **{f"anomaly {p}": (*TABLE, f"preparation={p}") for p in ("minmax", "quantile", "robust")},
    **{f"anomaly {t}": (*TABLE, f"threshold={t}") for t in ("false_positive_rate", "quantile")},
    "anomaly creditcard": ("task=anomaly", "dataset=creditcard", "task.resamples=20"),
    "anomaly arrhythmia": ("task=anomaly", "dataset=arrhythmia", "task.resamples=20"),
    "anomaly corrupted": (*TABLE, "corruption=[swap,jitter]"),
    **{
        f"recommend {m}": ("task=recommend", *FILMS, f"model={m}")
        for m in ("mult_vae", "user_ae", "item_ae", "ease", "edlae", "item_knn", "als", "popularity", "blend")
    },
    "recommend bpr": ("task=recommend", *FILMS, "model=user_ae", "loss=[bpr]"),
    "recommend sampled_softmax": ("task=recommend", *FILMS, "model=user_ae", "loss=[sampled_softmax]"),
    **{f"rating {m}": ("task=rating", *FILMS, f"model={m}") for m in ("embedding", "embedding_net", "svd", "biases")},
    **{
        f"item_knn {s}": ("task=recommend", *FILMS, "model=item_knn", f"similarity={s}")
        for s in (
            *("cosine", "dot", "euclidean", "exponential", "hybrid", "hyperbolic", "learned", "log_scaled"),
            *("mahalanobis", "manhattan", "ndd", "range_scaled", "spherical"),
        )
    },
    **{f"language {m}": (*TEXT, f"model={m}", *SMALL_CELL) for m in ("lstm", "gru", "rnn", "gates")},
    **{f"language {m}": (*TEXT, f"model={m}") for m in ("kneser_ney", "unigram", "uniform")},
    "language words": (*TEXT, "model=lstm", *SMALL_CELL, "dataset.unit=word"),
}


def measure(label: str, words: tuple[str, ...], folder: Path) -> dict[str, float] | str:
    """The metrics of a run without its times, or the line with which it ended."""
    place = folder / label.replace(" ", "_")
    command = [sys.executable, "-m", "aelab", *words, *SMALL, f"hydra.run.dir={place}", f"output_dir={folder}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return done.stderr.strip()
    found = json.loads((place / "metrics.json").read_text(encoding="utf-8"))
    return {name: value for name, value in found.items() if not name.startswith("time/")}


def differences(before: dict, after: dict) -> list[str]:
    """A line for each run, or figure of a run, that is not the same in both."""
    lines = []
    for label in before.keys() | after.keys():
        one, other = before.get(label), after.get(label)
        if isinstance(one, dict) and isinstance(other, dict):
            names = sorted(one.keys() | other.keys())
            pairs = [(n, json.dumps(one.get(n)), json.dumps(other.get(n))) for n in names]
            lines += [f"{label}: {n}: {a} -> {b}" for n, a, b in pairs if a != b]
        elif one != other:
            lines.append(f"{label}: {one} -> {other}")
    return sorted(lines)


def main(action: str, file: str, only: str = "") -> int:
    """Record or compare; the exit code."""
    wanted = {label: words for label, words in RUNS.items() if only.removeprefix("only=") in label}
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as pool:
        started = {label: pool.submit(measure, label, words, Path(folder)) for label, words in wanted.items()}
        found = {label: future.result() for label, future in track(started.items(), "runs")}
    for label, said in found.items():
        if isinstance(said, str):
            print(f"{label}: {said}")
    if action == "record":
        Path(file).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        return int(any(isinstance(said, str) for said in found.values()))
    before = {k: v for k, v in json.loads(Path(file).read_text(encoding="utf-8")).items() if k in wanted}
    lines = differences(before, found)
    figures = sum(len(v) for v in found.values() if isinstance(v, dict))
    print("\n".join([*lines, f"{len(found)} runs, {figures} figures: {len(lines)} differ"]))
    return int(bool(lines))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
