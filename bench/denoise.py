"""Side by side: the document's denoiser in plain Keras, and aelab, on the same data and machine, one after the other.

    make bench                             the baseline (10 epochs), the default run, conv_ae_spatial, start-up times
    python -m bench.denoise best           also experiment=denoise_best
    python -m bench.denoise only=default   a single part: baseline, default, spatial, best or startup

The baseline script is looked for in $AELAB_BASELINES, else ../shared/baselines; without it aelab runs alone.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

HERE = Path(__file__).resolve().parent.parent
BASELINES = Path(os.environ.get("AELAB_BASELINES", HERE.parent / "shared" / "baselines"))
AELAB = Path(sys.executable).with_name("aelab")
TIMED = [sys.executable, "-X", "importtime", "-m", "aelab"]  # the same command, and what each import costs it
OUT = HERE / "outputs" / "bench"
RUNS = {
    "default": ["task=denoise", "model=unet_mini"],
    "spatial": ["task=denoise", "model=conv_ae_spatial", "fit.epochs=10"],
    "best": ["experiment=denoise_best"],
}
console = Console(width=120)


def baseline() -> dict:
    """The plain Keras script, 10 epochs: PSNR, SSIM and seconds from its RESULT line."""
    script = BASELINES / "denoise.py"
    done = subprocess.run([sys.executable, script, "10"], capture_output=True, text=True, check=True)
    found = dict(re.findall(r"(\w+) ([\d.e-]+)", done.stdout[done.stdout.index("RESULT") :]))
    return {k: float(found[k]) for k in ("MSE", "PSNR", "SSIM", "fit_s", "total_s")}


def aelab(name: str) -> dict:
    """One aelab run by the real command: the same figures from its metrics.json, and the time by our own clock."""
    folder = OUT / name
    shutil.rmtree(folder, ignore_errors=True)  # its log would be added to
    clock = time.perf_counter()
    words = [*RUNS[name], f"hydra.run.dir={folder}", "dataset.fallback=null"]
    done = subprocess.run([*TIMED, *words], stderr=subprocess.PIPE, text=True, check=True)
    wall = time.perf_counter() - clock
    metrics = json.loads((folder / "metrics.json").read_text())
    return {
        "MSE": metrics["test/mse"],
        "PSNR": metrics["test/psnr"],
        "SSIM": metrics["test/ssim"],
        "fit_s": metrics["time/fit_s"],
        "total_s": wall,
        "import_s": imports(done.stderr + (folder / "run.log").read_text()),
    }


def imports(text: str) -> float:
    """Seconds in imports, early and late, from the lines of Python's -X importtime: "import time: self | ..."."""
    return sum(int(us) for us in re.findall(r"import time:\s+(\d+) \|", text)) / 1e6


def startup() -> dict:
    """Seconds for the commands that train nothing: the best of three."""
    commands = {"--help": ["--help"], "config error": ["model=unet_mny"], "--cfg job": ["--cfg", "job"]}
    best = {}
    for name, words in commands.items():
        times = []
        for _ in range(3):
            clock = time.perf_counter()
            subprocess.run([AELAB, *words], capture_output=True, check=False)
            times.append(time.perf_counter() - clock)
        best[name] = min(times)
    return best


def main(argv: list[str]) -> None:
    """Run the parts, print the table with ratios against the baseline, keep it in outputs/bench/denoise.json."""
    only = [a.partition("=")[2] for a in argv if a.startswith("only=")]
    parts = only or ["startup", "baseline", "default", "spatial", *(["best"] if "best" in argv else [])]
    OUT.mkdir(parents=True, exist_ok=True)
    file = OUT / "denoise.json"
    results = json.loads(file.read_text()) if only and file.exists() else {}
    for part in parts:
        console.rule(part)
        if part == "startup":
            results[part] = startup()
        elif part == "baseline" and not (BASELINES / "denoise.py").exists():
            console.print(f"no {BASELINES / 'denoise.py'}: aelab runs alone")
        else:
            results[part] = baseline() if part == "baseline" else aelab(part)
        file.write_text(json.dumps(results, indent=2) + "\n")
    report(results)


def report(results: dict) -> None:
    """The table: figures of each part and its time as a share of the baseline's."""
    for name, seconds in results.get("startup", {}).items():
        console.print(f"aelab {name}: {seconds:.2f} s")
    if results.keys() <= {"startup"}:
        return
    whole = results.get("baseline")
    table = Table(title="Fashion-MNIST, Gaussian noise 0.4, test split of 10,000, seed 0")
    for column in (
        "run",
        "MSE",
        "PSNR dB",
        "SSIM",
        "fit s",
        "total s",
        "total / baseline",
        "outside fit s",
        "imports s",
    ):
        table.add_column(column, justify="right")
    for name, r in results.items():
        if name == "startup":
            continue
        table.add_row(
            name,
            f"{r['MSE']:.5f}",
            f"{r['PSNR']:.2f}",
            f"{r['SSIM']:.4f}",
            f"{r['fit_s']:.1f}",
            f"{r['total_s']:.1f}",
            f"{r['total_s'] / whole['total_s']:.2f}" if whole else "",
            f"{r['total_s'] - r['fit_s']:.1f}",
            f"{r['import_s']:.1f}" if "import_s" in r else "",
        )
    console.print(table)


if __name__ == "__main__":
    main(sys.argv[1:])
