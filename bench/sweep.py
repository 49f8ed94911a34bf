"""What the runner itself takes in sweeps, by the real command: overhead of a job, two at a time, looking up, comparing.

    python -m bench.sweep                everything, about six minutes
    python -m bench.sweep only=twice     a single part: overhead, twice, again, plan or compare

Jobs are small (scikit-learn's digits, a narrow convolutional autoencoder): with large ones the runner would not show.
"""

import contextlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.table import Table

from bench.denoise import AELAB, console

SMALL = ("dataset=digits", "model=conv_ae", "model.widths=[8,16]", "fit.epochs=6", "tracking.log_model=false")
FILTER = ("dataset=digits", "model=median", "dataset.limit=40")


def seconds(folder: Path, *words: str) -> float:
    """How long a command takes, in a folder."""
    clock = time.perf_counter()
    done = subprocess.run([AELAB, *words], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}: ended with {done.returncode}\n{done.stderr}")
    return time.perf_counter() - clock


def overhead(folder: Path) -> dict[str, float]:
    """Seconds of a job outside fit, figures among them; the first job, which pays for the imports, is left out."""
    seconds(folder, "-m", *SMALL, "model.bottleneck=4,8,16,32,64,128")
    found = [json.loads(file.read_text()) for file in folder.glob("outputs/sweeps/*/*/[1-9]*/metrics.json")]
    outside = [m["time/total_s"] - m["time/fit_s"] for m in found]
    return {"outside fit, a job, s (limit 2 beside figures)": sum(outside) / len(outside)}


def twice(folder: Path) -> dict[str, float]:
    """Jobs a minute by one and by two processes at a time."""
    found = {}
    for at_once in (1, 2):
        words = ("-m", "launcher=processes", f"launcher.at_once={at_once}", *SMALL, f"seed={at_once}")
        taken = seconds(folder, *words, "model.bottleneck=4,8,16,32,64,128,256,512", f"output_dir=by{at_once}")
        found[f"jobs a minute, {at_once} at a time"] = 8 / taken * 60
    one, two = found.values()
    return found | {"ratio (wanted: 1.3)": two / one}


def again(folder: Path) -> dict[str, float]:
    """Twenty finished jobs, planned and issued again."""
    words = ("-m", *FILTER, "model.size=3,5,7,9,11", "corruption.level=0.1,0.2,0.3,0.4")
    seconds(folder, *words)
    planned = min(seconds(folder, *words, "sweep.plan=true") for _ in range(3))
    return {"plan of 20 finished jobs, s (limit 3)": planned, "the sweep again, s": seconds(folder, *words)}


def plan(folder: Path) -> dict[str, float]:
    """Five hundred new jobs."""
    values = ",".join(str(n) for n in range(1, 126))
    words = ("-m", "model=conv_ae", f"model.bottleneck={values}", "corruption.level=0.1,0.2,0.3,0.4")
    return {"plan of 500 jobs, s (limit 60)": seconds(folder, *words, "sweep.plan=true")}


def compare(folder: Path) -> dict[str, float]:
    """Two hundred finished runs of 60 parameters, 20 metrics and 20 tags."""
    from aelab import tracking

    with contextlib.chdir(folder):
        client, artifacts = tracking.connect(None, "outputs")
        where = tracking.experiment(client, "aelab-denoise", artifacts)
        for n in range(200):
            run = client.create_run(where, tags={f"aelab.tag{i}": "x" for i in range(20)}).info.run_id
            log = tracking.Log(client, run, where, folder / "runs" / str(n))
            params = {f"value.{i}": n if i < 3 else i for i in range(58)} | {
                "task": "denoise",
                "metric.psnr.goal": "max",
            }
            log.batch(params=params, metrics={"test/psnr": n, **{f"test/m{i}": n * i for i in range(19)}})
            client.set_terminated(run)
    return {"compare of 200 runs, s (limit 3)": min(seconds(folder, "compare", "--metric", "psnr") for _ in range(3))}


PARTS = {part.__name__: part for part in (overhead, twice, again, plan, compare)}


def main() -> None:
    wanted = [w.partition("=")[2] for w in sys.argv[1:] if w.startswith("only=")] or list(PARTS)
    table = Table("sweeps", "measured")
    for name in wanted:
        with tempfile.TemporaryDirectory() as folder:
            for what, value in PARTS[name](Path(folder)).items():
                table.add_row(what, f"{value:.2f}")
    console.print(table)


if __name__ == "__main__":
    main()
