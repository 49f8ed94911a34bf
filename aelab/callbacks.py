"""What happens beside training: its rows are recorded, a bar is shown, and its state is kept to go on from."""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import keras
import numpy as np
import pandas as pd
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from aelab import account, console, run_files
from aelab.config import AelabError, Count, Level, Whole, conforms

WRITING = 0.1
"""Share of the time that writes to the tracker may take: one takes about 75 ms, as long as some epochs."""
LATEST_S = 5
"""After so many seconds it is written in any case: more is never lost by a kill."""
FILE = "checkpoint.npz"
SHARE = 0.05
"""Share of the time of training that writing may take: large models with short epochs are not kept after each."""
KEPT = ("wait", "stopped_epoch", "best", "best_epoch")
"""What early stopping remembers, beside the best weights."""
FACTS = {"epoch": Count, "seconds": Level, "rows": list}
BEST = {"wait": Whole, "stopped_epoch": Whole, "best_epoch": Whole, "best weights": Whole}
"""What a checkpoint says beside its arrays; the latter where there is early stopping."""
ANEW = "delete it to start this run from its beginning"


class TrainingError(AelabError):
    """Training that cannot go on."""


def public(logs: Mapping, objective) -> dict[str, float]:
    """Keras's logs under our names: val_mean_psnr -> val/psnr. Without what was not measured in training."""
    named = {}
    for key, value in sorted(logs.items()):
        split, name = ("val", key[4:]) if key.startswith("val_") else ("train", key)
        name = name.removeprefix("mean_")
        if split == "val" or name == "loss" or name in objective.terms:
            named[f"{split}/{name}"] = float(value)
    return named


class Record(keras.callbacks.Callback):
    """One row an epoch: to history.csv and to the tracker; stops with an error at the first loss that is not finite."""

    def __init__(self, file: Path, log, rows: list[dict], report: Callable | None = None):
        super().__init__()
        self.file, self.log, self.rows, self.report = file, log, rows, report
        self.pending = list(rows)  # of an earlier start: the tracker drops what it has already
        self.began = self.sent = time.perf_counter()
        self.writing = 0.0

    def on_train_batch_end(self, batch, logs=None):
        """Stop at once: weights that are not finite never recover."""
        if not np.isfinite(logs["loss"]):
            raise TrainingError(
                f"the loss became {logs['loss']} in epoch {len(self.rows) + 1}, step {batch + 1}; try a lower "
                "optimizer.learning_rate or fit.precision=float32"
            )

    def on_epoch_begin(self, epoch, logs=None):
        """Start the clock."""
        self.started = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        """Write the row at once: a run that is killed keeps it."""
        row = {"epoch": epoch + 1} | public(logs, self.model)
        row["learning_rate"] = float(self.model.optimizer.learning_rate)
        row["time/epoch_s"] = time.perf_counter() - self.started
        self.rows.append(row)
        account.write(self.file, pd.DataFrame(self.rows).to_csv(index=False))
        self.pending.append(row)
        now = time.perf_counter()
        if self.writing <= WRITING * (now - self.began) or now - self.sent >= LATEST_S:
            self.send()
        if self.report:
            self.report(row)

    def send(self):
        """Epochs that are quicker than a write to the tracker go there together."""
        clock = time.perf_counter()
        if self.pending:
            self.log.epochs(self.pending)
        self.sent = time.perf_counter()
        self.pending, self.writing = [], self.writing + self.sent - clock


class Bar(keras.callbacks.Callback):
    """A live bar over the whole of training: epoch, step, loss, a validation metric, time left."""

    def __init__(self, epochs: int, steps: int, metric: str):
        super().__init__()
        self.epochs, self.steps, self.metric, self.last = epochs, steps, metric, ""
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[state]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console.out,
            refresh_per_second=4,
            disable=not console.out.is_terminal,
        )
        self.bar = self.progress.add_task("fit", total=epochs * steps, state="starting")

    def _show(self, epoch: int, step: int, logs: Mapping):
        self.progress.update(
            self.bar,
            completed=epoch * self.steps + step,
            description=f"epoch {epoch + 1}/{self.epochs}",
            state=f"step {step}/{self.steps}  loss {logs['loss']:.4g}{self.last}",
        )

    def on_epoch_begin(self, epoch, logs=None):
        """Remember which epoch the steps belong to."""
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        """Move the bar."""
        self._show(self.epoch, min(batch + 1, self.steps), logs)  # the last call may count steps that were not there

    def on_epoch_end(self, epoch, logs=None):
        """Show the validation metric; where there is no live terminal, print a line."""
        name = f"val_mean_{self.metric}"
        shown = name if name in logs else "val_loss"
        if shown in logs:
            self.last = f"  val {self.metric if shown == name else 'loss'} {logs[shown]:.4g}"
        if not console.out.is_terminal:
            console.out.print(f"epoch {epoch + 1}/{self.epochs}  loss {logs['loss']:.4g}{self.last}")


def read(file: Path) -> dict | None:
    """What was written, name -> array or plain value; None where there is no such file."""
    if not file.exists():
        return None
    try:
        with np.load(run_files.plain(file), allow_pickle=False) as found:
            facts = json.loads(str(found["facts"]))
            if not sound(facts):
                raise ValueError("its facts are not those of a training")
            return facts | {name: found[name] for name in found.files if name != "facts"}
    except run_files.NUMPYS as error:
        what = " ".join(str(error).split())
        raise AelabError(f"{file}: cannot be read ({what}); {ANEW}") from error


def sound(facts: object) -> bool:
    """Whether the facts of a checkpoint are of the types that one is written with."""
    if not isinstance(facts, dict) or not all(conforms(facts.get(name), kind) for name, kind in FACTS.items()):
        return False
    if "best weights" in facts and not all(conforms(facts.get(name), kind) for name, kind in BEST.items()):
        return False
    if not all(isinstance(row, dict) and conforms(row.get("epoch"), Count) for row in facts["rows"]):
        return False
    best = facts.get("best")  # a figure may be NaN or infinite: the loss in validation, say, before training stops
    figures = [value for row in facts["rows"] for value in row.values()] + ([] if best is None else [best])
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in figures)


class Checkpoint(keras.callbacks.Callback):
    """Writes the state after an epoch, and puts back that of `state`, as `read` gave it, before the first.

    Everything that the next epoch depends on is in it: weights, the optimizer with the place on its schedule, the
    random states of layers and losses, what early stopping remembers, and the rows of the history. Order, noise and
    corruption of an epoch follow from the seed and its number alone.
    """

    def __init__(self, file: Path, rows: list[dict], best: keras.callbacks.EarlyStopping | None, state: dict | None):
        super().__init__()
        self.file, self.rows, self.best, self.state = file, rows, best, state or {}
        self.began, self.writing = time.perf_counter(), 0.0

    @property
    def epoch(self) -> int:
        """The number of epochs that were trained."""
        return self.state.get("epoch", 0)

    @property
    def stopped(self) -> bool:
        """Whether early stopping had ended it."""
        return self.state.get("stopped_epoch", 0) > 0

    @property
    def seconds(self) -> float:
        """How long training had taken."""
        return self.state.get("seconds", 0.0)

    def _variables(self) -> list:
        unique = {id(v): v for v in (*self.model.variables, *self.model.optimizer.variables)}
        return list(unique.values())

    def on_train_begin(self, logs=None):
        """Put everything back; after early stopping has forgotten what it knew."""
        self.model.optimizer.build(self.model.trainable_variables)
        if self.state:
            self._check()
        for number, variable in enumerate(self._variables() if self.state else ()):
            variable.assign(self.state[f"variable {number}"])
        if self.state and self.best:
            for name in KEPT:
                setattr(self.best, name, self.state[name])
            self.best.best_weights = [self.state[f"best {i}"] for i in range(self.state["best weights"])] or None
        self.state = {k: v for k, v in self.state.items() if not isinstance(v, np.ndarray)}  # free the memory

    def _check(self):
        """That the arrays are those of the model; else the first difference shows in the middle of the assignments."""
        expected = {f"variable {i}": tuple(v.shape) for i, v in enumerate(self._variables())}
        if self.best and self.state.get("best weights"):
            expected |= {f"best {i}": w.shape for i, w in enumerate(self.model.get_weights())}
        found = {name: a for name, a in self.state.items() if isinstance(a, np.ndarray)}
        same = {n: a.shape for n, a in found.items()} == expected and all(
            a.dtype.kind in "iufV" for a in found.values()
        )
        if not same or (self.best and "best weights" not in self.state):
            raise AelabError(f"{self.file}: is of another model; {ANEW}")

    def on_epoch_end(self, epoch, logs=None):
        """Write all to a new file, then put it in the place of the last: a kill leaves one or the other."""
        clock = time.perf_counter()
        if self.writing > SHARE * (clock - self.began):
            return
        facts = {"epoch": epoch + 1, "seconds": self.seconds + clock - self.began, "rows": self.rows}
        arrays = {f"variable {i}": np.asarray(v) for i, v in enumerate(self._variables())}
        if self.best:
            weights = self.best.best_weights or []
            facts |= {name: getattr(self.best, name) for name in KEPT} | {"best weights": len(weights)}
            facts["best"] = None if self.best.best is None else float(self.best.best)
            arrays |= {f"best {i}": w for i, w in enumerate(weights)}
        with account.whole(self.file) as half, half.open("wb") as file:
            np.savez(file, facts=json.dumps(facts), **arrays)
        self.writing += time.perf_counter() - clock
