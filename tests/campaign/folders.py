"""Run folders: finished runs, copied and corrupted, and a command on each. No code of theirs may run."""

import json
import os
import shutil
import sqlite3
import sys
from functools import partial
from pathlib import Path
from random import Random

import numpy as np
import pandas as pd

from aelab import cli, run_files
from campaign import damage, forks, hostile, judge
from campaign.forks import Case, Defect, Ended
from campaign.lines import plain

QUICK = ("debug=fast", "fit.epochs=1", "tracking.log_model=false")
GROUPS = ("dataset=taste_groups", "dataset.users=60", "dataset.items=30", "dataset.each=12")
RUNS = {
    "denoise": ("dataset=digits", "dataset.limit=64", "model=conv_ae", "model.widths=[4]", "model.bottleneck=4",
    *QUICK),
    "median": ("dataset=digits", "dataset.limit=40", "model=median", "model.size=3", *QUICK),
    "anomaly": ("task=anomaly", "dataset=breast_cancer", "model=dense_ae", *QUICK),
    "forest": ("task=anomaly", "dataset=breast_cancer", "model=isolation_forest", *QUICK),
    "recommend": ("task=recommend", *GROUPS, "model=ease", "tracking.log_model=false"),
    "rating": ("task=rating", *GROUPS, "model=embedding", *QUICK),
    "language": ("task=language", "dataset=python_reference", "dataset.limit=3000", "model=gru", "model.hidden=8",
    *QUICK),
    "kneser_ney": ("task=language", "dataset=python_reference", "dataset.limit=3000", "model=kneser_ney",
    "model.order=3", *QUICK),
    "generate": ("task=generate", "dataset=digits", "model=conv_vae", "model.widths=[4]",
    "model.bottleneck=2", *QUICK),
}  # fmt: skip
COMMANDS = {
    "denoise": ["predict input=images.npy output=new.npz", "predict input=images.npy output=new.npy"],
    "median": ["predict input=images.npy output=new.npz"],
    "anomaly": ["score input=rows.csv output=scored.csv"] * 2,
    "forest": ["score input=rows.csv output=scored.csv"] * 2,
    "recommend": ["recommend user=3", "recommend user=5 top=3 min_ratings=1"],
    "rating": ["recommend user=3", "similar item=3 similarity=euclidean"],
    "language": ["generate prompt=The tokens=20", "generate tokens=5"],
    "kneser_ney": ["generate prompt=The tokens=20"],
    "generate": ["generate output=drawn.npz count=3"],
}
ALL = ["evaluate", "evaluate", "evaluate", "sync", "sync output_dir=other", "rerun", "resume", "compare"]
LIMITS = {"rerun": 30, "resume": 30}
"""Seconds of a command that trains."""
WRITTEN = {"outputs", "other", "images.npy", "rows.csv", "evil.py", "new.npz", "new.npy", "scored.csv", "drawn.npz"}
"""What may stand in the working folder after a command."""


class Campaign:
    """Copies of finished runs, each corrupted once or twice, and a command on it."""

    def __init__(self, home: Path):
        import mlflow.store.tracking.sqlalchemy_store  # noqa: F401 - what each child would import otherwise
        import skops.io  # noqa: F401

        import aelab.run
        import aelab.stored  # noqa: F401

        self.home = home / "originals"

    def environment(self, box: Path) -> dict[str, str]:
        return {**plain(), "AELAB_CACHE_DIR": str(box / "cache"), "HOME": str(box)}

    def original(self, name: str) -> Path:
        """The box of a finished run; made when it is first args for."""
        box = self.home / name
        if not box.exists():
            pid = forks.fork(partial(run, RUNS[name]), forks.fresh(box), self.environment(box))
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            assert code == 0, f"no {name}: {forks.read_stream(box, 'out')} {forks.read_stream(box, 'err')}"
        return box

    def make(self, rng: Random, box: Path) -> Case:
        """A corrupted copy and a command."""
        name = rng.choice(list(RUNS))
        others = rng.sample([n for n in RUNS if n != name], 1)
        folder, sources = copy_run(self.original(name), box), folder_of(self.original(others[0]))
        sentinel = box / "guard" / "SENTINEL"
        hostile.bytes_of(sentinel)
        words = rng.choice(COMMANDS[name] if rng.random() < 0.5 else ALL).split()
        if words[0] == "resume" or rng.random() < 0.05:
            mark_stopped(folder, box)
        done = [corrupt(rng, folder, sources, sentinel) for _ in range(rng.choice((1, 1, 2)))]
        done += digests(rng, folder)
        words = command(rng, words, folder, name)
        inputs(box / "cwd", sentinel)
        before = judge.listing(box / "guard")
        return Case(
            "run folders",
            f"{name}: {'; '.join(done)}: aelab {' '.join(words)}",
            partial(run, words),
            partial(command_defects, before, words, box),
            LIMITS.get(words[0], 10),
        )


def run(words: tuple[str, ...]) -> None:
    """A command, in the child."""
    sys.argv = ["aelab", *words]
    cli.main()


def folder_of(box: Path) -> Path:
    """The run folder in a box."""
    return next((box / "cwd" / "outputs" / "runs").glob("*/*"))


def copy_run(original: Path, box: Path) -> Path:
    """Copy a run with its store, as if it had been made here; its folder."""
    shutil.copytree(original / "cwd" / "outputs", box / "cwd" / "outputs")
    old, new = str(original / "cwd"), str(box / "cwd")
    with sqlite3.connect(box / "cwd" / "outputs" / "mlflow.db") as store:
        for table, column in (("experiments", "artifact_location"), ("runs", "artifact_uri"), ("tags", "value")):
            store.execute(f"update {table} set {column} = replace({column}, ?, ?)", (old, new))
    store.close()
    folder = folder_of(box)
    done = folder / "run.json"
    done.write_text(done.read_text().replace(old, new))
    return folder


def mark_stopped(folder: Path, box: Path) -> None:
    """Make a finished run one that was stopped."""
    done = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**done, "status": "KILLED", "reason": "interrupted (^C)"}))
    with sqlite3.connect(box / "cwd" / "outputs" / "mlflow.db") as store:
        store.execute("update runs set status = 'KILLED'")
    store.close()


def digests(rng: Random, folder: Path) -> list[str]:
    """Make the digests that a run noted fit what is there now, or drop them: else no damage would get past them."""
    from aelab import callbacks

    how, file = rng.choice(("kept", "made anew", "made anew", "dropped")), folder / run_files.NAME
    if how == "kept" or not file.is_file():
        return []
    try:
        known = json.loads(file.read_text())
        del known["files"]
    except (ValueError, TypeError, KeyError, RecursionError):  # run.json is what is broken
        return []
    if how == "made anew":
        known["files"] = run_files.digests(folder, besides=callbacks.FILE)
    file.write_text(json.dumps(known, indent=2))
    return [f"digests {how}"]


def corrupt(rng: Random, folder: Path, sources: Path, sentinel: Path) -> str:
    """Do something to a run folder; says what."""
    files = sorted(
        p for p in folder.iterdir() if p.is_file() and not p.is_symlink() and p.suffix not in (".png", ".html")
    )
    by = {p.name: p for p in files}
    how = rng.choices(("file", "edit", "config", "binary", "names", "link"), (36, 18, 17, 17, 6, 6))[0]
    texts = [p for p in files if p.suffix in (".json", ".yaml") and p.stat().st_size]
    try:
        if how == "edit" and texts:
            return hostile.edit_value(rng, rng.choice(texts))
        if how == "config" and "config.yaml" in by:
            return hostile.config(rng, by["config.yaml"], sentinel)
        if how == "names" and "run.json" in by:
            return hostile.names(rng, by["run.json"])
        if how == "binary" and (
            binary := [p for p in files if p.suffix in (".skops", ".keras", ".npz", ".npy", ".parquet")]
        ):
            file = rng.choices(binary, [3 if p.suffix in (".skops", ".keras") else 1 for p in binary])[0]
            return {".skops": hostile.skops, ".keras": hostile.keras}.get(file.suffix, hostile.arrays)(
                rng, file, sentinel
            )
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        json.JSONDecodeError,
        hostile.yaml.YAMLError,
        hostile.zipfile.BadZipFile,
    ) as error:
        return f"(broken already: {type(error).__name__})"
    if how == "link" or not files:
        return hostile.links(rng, folder, sentinel.parent)
    file = rng.choice(files)
    same = (
        [p for p in sources.iterdir() if p.suffix == file.suffix]
        if rng.random() < 0.7
        else [p for p in sources.iterdir() if p.is_file()]
    )
    return f"{file.name}: {damage.replace_file(rng, file, same, sentinel.parent)}"


def command(rng: Random, words: list[str], folder: Path, name: str) -> list[str]:
    """The words of a command, with the run folder where it takes one."""
    where = f"run={folder}"
    if words[0] == "sync":
        return [words[0], str(folder), *words[1:]] if rng.random() < 0.6 or words[1:] else words
    if words[0] == "compare":
        task = next((word for word in RUNS[name] if word.startswith("task=")), "task=denoise")
        return [*words, task, "output_dir=outputs", *rng.choice(([], ["--json"], ["--group-by", "model"]))]
    return [words[0], where, *words[1:]]


def inputs(cwd: Path, sentinel: Path) -> None:
    """Files to predict and to score."""
    from sklearn.datasets import load_breast_cancer

    np.save(cwd / "images.npy", np.zeros((2, 28, 28), np.uint8))
    load_breast_cancer(as_frame=True).data.head(20).to_csv(cwd / "rows.csv", index=False)
    (cwd / "evil.py").write_text(f"open({str(sentinel)!r}, 'w')\ndef boom(*given, **named): pass\n")


def command_defects(before: dict[str, str], words: list[str], box: Path, ended: Ended) -> list[Defect]:
    """Defects of a command on a corrupted folder."""
    cwd, found = box / "cwd", judge.command(ended)
    found += judge.guard_defects(before, box / "guard")
    if strange := sorted({p.name for p in cwd.iterdir()} - WRITTEN):
        found.append(Defect(judge.OTHER, f"written outside of the output folder: {', '.join(strange)}"))
    for place in (cwd / "outputs" / "mlartifacts", cwd / "other"):
        if any(p.read_bytes() == b"SECRET" for p in place.rglob("*") if p.is_file()):
            found.append(Defect(judge.OTHER, "a linked file was uploaded"))
    if ended.code == 0 and not found:
        found += output_defects(words, cwd, ended)
    return found


def output_defects(words: list[str], cwd: Path, ended: Ended) -> list[Defect]:
    """Defects of what a command that says all is well has left."""
    if not ended.out.strip():
        return [Defect(judge.CODE, "exit code 0 without a word: something else ended the process")]
    output = next((w.partition("=")[2] for w in words if w.startswith("output=")), None)
    if output and not (cwd / output).exists():
        return [Defect(judge.OTHER, f"exit code 0, but no {output}")]
    if output and output.endswith((".npz", ".npy")):
        made = np.load(cwd / output)
        images = made if output.endswith(".npy") else made[made.files[0]]
        if not np.isfinite(images).all():
            return [Defect(judge.OTHER, f"exit code 0, but {output} is not finite")]
    if output and output.endswith(".csv") and not np.isfinite(pd.read_csv(cwd / output)["score"]).all():
        return [Defect(judge.OTHER, f"exit code 0, but scores that are not finite in {output}")]
    for file in cwd.glob("outputs/runs/*/*/evaluations/*.json"):
        if not judge.finite(json.loads(file.read_text())):
            return [Defect(judge.OTHER, f"exit code 0, but metrics that are not finite: {file.read_text()[:200]}")]
    return []
