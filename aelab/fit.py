"""Training: a Keras model, weighted loss terms, and what is watched and recorded while it trains."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import pandas as pd
from hydra.utils import instantiate
from keras import ops
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from aelab import backend, console
from aelab.config import AelabError, Fit


class TrainingError(AelabError):
    """Training that cannot go on."""


class Batch(NamedTuple):
    """What a loss term sees of the data: the model's input, and what it should have given."""

    input: object
    target: object


WRITING = 0.1
"""Share of the time that writes to the tracker may take: one takes about 75 ms, as long as some epochs."""
LATEST_S = 5
"""After so many seconds it is written in any case: more is never lost by a kill."""
STREAMS = ("order", "noise", "validation", "test")


def stream(name: str, seed: int, epoch: int = 0, index: int = 0) -> np.random.Generator:
    """The random numbers for one purpose: independent of every other purpose, epoch and batch."""
    return np.random.default_rng([seed, STREAMS.index(name), epoch, index])


def members(outputs) -> list[dict]:
    """A model's outputs as a list of dicts that have at least "output"; several where it is an ensemble."""
    if isinstance(outputs, list | tuple):
        return list(outputs)
    return [outputs if isinstance(outputs, dict) else {"output": outputs}]


def partials(nodes: Mapping, *without: str) -> dict[str, Callable]:
    """The functions of a config group by name, their knobs filled in; `without` are the group's own keys."""
    return {
        name: instantiate({k: v for k, v in node.items() if k not in without}, _partial_=True)
        for name, node in nodes.items()
    }


class Objective(keras.Model):
    """A model together with what it is trained for: sum of weight * mean over examples of each term.

    Terms and metrics give one value per example; all averaging happens here. Metrics are measured in validation. A
    name that is both a term's and a metric's is the metric's throughout, so that train/ssim and val/ssim are the same
    quantity (the term is 1 - SSIM). It stays in float32 whatever the policy: losses need full precision. The weight of
    a term with a `warmup` rises from 0 over so many epochs of `steps`; in validation it is whole from the start.
    `watch` has functions of (batch, outputs) that are measured in validation alone.
    """

    def __init__(self, core: keras.Model, terms: Mapping, metrics: Mapping, steps: int = 1, watch: Mapping = {}):
        super().__init__(dtype="float32")
        self.core = core
        self.weights_of = {name: float(node["weight"]) for name, node in terms.items()}
        self.warmup = {name: steps * (node.get("warmup") or 0) for name, node in terms.items()}
        self.terms = partials(terms, "weight", "warmup")
        self.measures = partials(metrics, "goal")
        self.watch = dict(watch)
        self.means = {
            name: keras.metrics.Mean(f"mean_{name}") for name in {**self.terms, **self.measures, **self.watch}
        }

    def call(self, x, training=None):
        """The core's outputs as `members` gives them."""
        return members(self.core(x, training=training))

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """The weighted sum; on the way, the means that are logged."""
        batch, total = Batch(x, y), sum(self.losses)
        for name, term in self.terms.items():
            try:
                values = sum(term(batch, outputs, self.core) for outputs in y_pred) / len(y_pred)
            except KeyError as lacking:
                given = ", ".join(y_pred[0])
                raise TrainingError(f"loss={name}: the model gives no {lacking}, only {given}") from lacking
            weight = self.weights_of[name]
            if training and self.warmup[name]:
                weight *= ops.minimum(ops.cast(self.optimizer.iterations, "float32") / self.warmup[name], 1.0)
            total += weight * ops.mean(values)
            if name not in self.measures:
                self.means[name].update_state(values)
        for name, metric in self.measures.items():
            if name in self.terms or not training:
                self.means[name].update_state(metric(y, y_pred[0]["output"]))
        for name, function in self.watch.items() if not training else ():
            self.means[name].update_state(function(batch, y_pred[0]))
        return total


class Batches(keras.utils.PyDataset):
    """Training batches, shuffled and corrupted afresh every epoch; (seed, epoch, index) fixes each batch."""

    def __init__(self, x: np.ndarray, pairs: Callable, batch_size: int, seed: int):
        super().__init__()
        self.x, self.pairs, self.batch_size, self.seed = x, pairs, batch_size, seed
        self.start(0)

    def start(self, epoch: int) -> None:
        """Take up an epoch: its order, and its own noise."""
        self.epoch, self.order = epoch, stream("order", self.seed, epoch).permutation(len(self.x))

    def __len__(self):
        return -(-len(self.x) // self.batch_size)

    def __getitem__(self, index):
        rows = self.order[index * self.batch_size : (index + 1) * self.batch_size]
        return self.pairs(self.x[rows], stream("noise", self.seed, self.epoch, index))


def public(logs: Mapping, objective: Objective) -> dict[str, float]:
    """Keras's logs under our names: val_mean_psnr -> val/psnr. Without what was not measured in training."""
    named = {}
    for key, value in sorted(logs.items()):
        split, name = ("val", key[4:]) if key.startswith("val_") else ("train", key)
        name = name.removeprefix("mean_")
        if split == "val" or name == "loss" or name in objective.terms:
            named[f"{split}/{name}"] = float(value)
    return named


def watched(monitor: str, objective: Objective, metrics: Mapping) -> tuple[str, str]:
    """Keras's name of a monitored value such as val/psnr, and whether less or more of it is better."""
    split, _, name = monitor.partition("/")
    if monitor == "val/loss":
        return "val_loss", "min"
    if split != "val" or name not in objective.means:
        known = ", ".join(f"val/{n}" for n in ("loss", *objective.means))
        raise TrainingError(f"fit.monitor={monitor}: no such value; there are: {known}")
    better = "max" if name in objective.watch else "min"
    return f"val_mean_{name}", metrics[name]["goal"] if name in metrics else better


class Record(keras.callbacks.Callback):
    """One row an epoch: to history.csv and to the tracker; stops with an error at the first loss that is not finite."""

    def __init__(self, file: Path, log):
        super().__init__()
        self.file, self.log, self.rows, self.pending = file, log, [], []
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
        pd.DataFrame(self.rows).to_csv(self.file, index=False)
        self.pending.append(row)
        now = time.perf_counter()
        if self.writing <= WRITING * (now - self.began) or now - self.sent >= LATEST_S:
            self.send()

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


def fit(model, task, data, corrupt, cfg, optimizer, log, folder: Path) -> pd.DataFrame:
    """Train `model` in place and leave it with its best weights on validation; returns the history.

    Its `attrs` say which epoch's weights these are, "best", and by what, "monitor"; neither without validation rows.

    `optimizer` is a function from the number of steps to a Keras optimizer. A model that is not a `keras.Model` has
    nothing to train by gradient: where it has a `fit` of its own, that is called with the training rows.
    """
    if not isinstance(model, keras.Model):
        if hasattr(model, "fit"):
            with console.out.status("fitting"):
                model.fit(data.train.x)
        return pd.DataFrame()
    settings: Fit = cfg.fit
    pairs = task.pairs(corrupt)
    batches = task.batches(model, data.train.x, pairs, cfg)
    held = task.held_out(data.validation)
    validation = pairs(held.x, stream("validation", cfg.seed)) if len(held.x) else None
    metrics = cfg.metric if task.by_example else {}
    objective = Objective(model, cfg.loss, metrics, len(batches), task.watch())
    made = optimizer(settings.epochs * len(batches))
    if keras.config.dtype_policy().name == "mixed_float16":
        made = keras.optimizers.LossScaleOptimizer(made)  # Keras would, but sees only the objective's float32
    objective.compile(
        optimizer=made,
        steps_per_execution=min(settings.steps_per_execution, len(batches)),
        jit_compile=False,  # on a CPU XLA was no faster for convolutions and 3.5 times slower for embeddings
    )
    record = Record(folder / "history.csv", log)
    bar = Bar(settings.epochs, len(batches), next(iter([*metrics, *objective.watch]), "loss"))
    epochs = keras.callbacks.LambdaCallback(
        on_train_begin=lambda logs: backend.keep_memory(), on_epoch_begin=lambda epoch, logs: batches.start(epoch)
    )
    callbacks, best = [epochs, record, bar], None
    if validation is not None:  # else all epochs are trained, and the last weights are the result
        monitor, mode = watched(settings.monitor, objective, metrics)
        patience = settings.patience or settings.epochs
        best = keras.callbacks.EarlyStopping(monitor=monitor, mode=mode, patience=patience, restore_best_weights=True)
        callbacks.append(best)
    with bar.progress:
        try:
            objective.fit(
                batches,
                validation_data=validation,
                validation_batch_size=task.at_once,
                epochs=settings.epochs,
                shuffle=False,  # the batches are: by the run's seed, not by Python's global state
                callbacks=callbacks,
                verbose=0,
            )
        finally:
            record.send()
    history = pd.DataFrame(record.rows)
    if best:
        history.attrs |= {"best": best.best_epoch + 1, "monitor": settings.monitor}
    return history
