"""`aelab --help`: what there is, which fits which, and what to type. Reads `conf/`; imports nothing heavy."""

import itertools
import re
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from aelab import compose, declared
from aelab.config import ConfigError

EXAMPLES = (
    ("aelab task=denoise model=unet_mini", "train, test, draw, and log one run"),
    (
        "aelab -m task=denoise model=conv_ae corruption.level=0.1,0.2,0.4 model.bottleneck=8,16,32",
        "a sweep: nine runs under one parent",
    ),
    ("aelab task=recommend dataset.fold=u1", "rank films for people by what they like"),
    ("aelab task=anomaly dataset=nsl_kdd", "find the attacks among network connections"),
    ("aelab task=language dataset=shakespeare", "an LSTM that learns to write like Shakespeare"),
    (
        "aelab evaluate run=outputs/runs/DAY/RUN corruption.level=0.2",
        "test a finished run on another noise level",
    ),
)
COMMANDS = (
    ("aelab key=value ...", "one run; -m before it makes every list of values (a,b,c) a sweep"),
    ("aelab evaluate run=DIR_OR_ID", "test a finished run again, also with other values"),
    (
        "aelab predict run=DIR_OR_ID input=FILE output=FILE",
        "restore your own images (.npy, .npz, .png, .jpg)",
    ),
    (
        "aelab score run=DIR_OR_ID input=FILE output=FILE",
        "anomaly scores of your own rows (.csv, .csv.gz, .parquet)",
    ),
    ("aelab recommend run=DIR_OR_ID user=ID top=10", "what a user does not know yet, best first"),
    (
        'aelab similar run=DIR_OR_ID item="TITLE" similarity=ndd',
        "the items nearest to another, by title, a part of it, or id",
    ),
    (
        'aelab generate run=DIR_OR_ID prompt="Hello" tokens=200 temperature=0.8 top_k=40 seed=1',
        "text that a language model writes",
    ),
    (
        "aelab generate run=DIR_OR_ID output=FILE.png count=100 temperature=1 seed=0",
        "images that a variational autoencoder draws (also .npy, .npz)",
    ),
    (
        'aelab compare task=denoise "test/psnr>20" --baseline model=median',
        "finished runs: what differs, best first (--metric --group-by --csv --md --json)",
    ),
    ("aelab rerun run=DIR_OR_ID", "start a run again from its stored config"),
    ("aelab resume run=DIR_OR_ID", "go on with a run that was stopped, from its last checkpoint"),
    ("aelab sync to=URI", "bring runs to a store that lost them, or has never seen them"),
    ("aelab ui port=5000", "open the MLflow UI on the runs made here"),
    ("aelab doctor", "versions, devices, precision, store, data"),
    ("aelab --cfg job key=value ...", "show the composed config and run nothing"),
    ('eval "$(aelab -sc install=bash)"', "shell completion (also zsh, fish)"),
)


def _rows(pairs, first: str = "bold") -> Padding:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style=first, overflow="fold")
    grid.add_column(overflow="fold")
    for pair in pairs:
        grid.add_row(*pair)
    return Padding(grid, (0, 0, 1, 2))


def about(file: Path) -> str:
    """A choice in a line: the first sentence of its file, and its knobs."""
    found = declared.signature(compose.target(file) or "")
    lines = itertools.takewhile(lambda line: line.startswith("# "), file.read_text(encoding="utf-8").splitlines())
    text = " ".join(line.removeprefix("# ") for line in lines if "@package" not in line)
    said = re.split(r"(?<=\.) ", text)[0]
    return f"{escape(said)}{_knobs(found)}"


def _knobs(found: declared.Signature | None) -> str:
    return f" [dim]({', '.join(found.knobs)})[/dim]" if found and found.knobs else ""


def show(dirs: list[Path], task: str | None = None) -> None:
    """Print the help text: of everything in short, or of all that fits one task, each with what it is."""
    out = Console(highlight=False)
    tasks = compose.choices("task", dirs)
    if task is not None:
        if task not in tasks:
            raise ConfigError(f"task={task}: no such task; there are: {', '.join(tasks)}")
        _task(out, task, dirs)
        return
    out.print("[bold]aelab[/bold]: train, test and compare autoencoders from one command\n")
    out.print("[bold]Commands[/bold]")
    out.print(_rows(COMMANDS))
    out.print("[bold]Examples[/bold]")
    out.print(_rows(EXAMPLES))
    out.print("[bold]Tasks[/bold], and what fits each; what a choice is, and its values: aelab --help task=NAME\n")
    for name, file in tasks.items():
        target = compose.target(file)
        fit = [(f"{g}=", ", ".join(_fitting(g, target, dirs))) for g in ("model", "dataset")]
        out.print(f"[bold]task={name}[/bold]  {declared.summary(target)}")
        out.print(_rows(fit, ""))
    out.print("[bold]Other choices[/bold] (group=name; several as group=\\[a,b] for corruption, loss and metric)")
    rest = [g for g in compose.groups(dirs) if g not in ("task", "model", "dataset", "tracking")]
    out.print(_rows([(f"{g}=", ", ".join(compose.choices(g, dirs)) or "none yet") for g in rest]))
    out.print("[bold]Values[/bold]  seed=1  fit.epochs=20  fit.precision=float32  optimizer.learning_rate=0.001 ...")
    out.print("         every value and its meaning: aelab --cfg job, and the files under " + str(compose.CONF))


def _fitting(group: str, target: str, dirs: list[Path]) -> list[str]:
    return compose.fitting(group, declared.kinds("task", target) or (), dirs)


def _task(out: Console, task: str, dirs: list[Path]) -> None:
    """All that fits a task, each in a line with its knobs."""
    target = compose.target(compose.choices("task", dirs)[task])
    out.print(f"[bold]task={task}[/bold]  {declared.summary(target)}{_knobs(declared.signature(target))}")
    needed = [*(declared.class_value(target, "needs") or ()), *(declared.class_value(target, "may") or ())]
    for group in ("model", "dataset", "corruption", "loss", "metric", *needed):
        if fit := _fitting(group, target, dirs):
            files = compose.choices(group, dirs)
            out.print(f"  {group}=")
            out.print(Padding(_rows([(name, about(files[name])) for name in fit]), (0, 0, 0, 2)))
    out.print("In brackets the values of each: model.NAME=..., dataset.NAME=..., loss.LOSS.NAME=... and so on")
