"""Training: a Keras model, weighted loss terms, and what is watched and recorded while it trains."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import pandas as pd
from keras import ops

from aelab import backend, callbacks, console
from aelab.call import bound
from aelab.callbacks import TrainingError
from aelab.config import Fit


class Batch(NamedTuple):
    """What a loss term sees of the data: the model's input, what it should have given, and a seed for what it draws."""

    input: object
    target: object
    seed: keras.random.SeedGenerator | None = None


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
    return {name: bound(node, *without) for name, node in nodes.items()}


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
        self.seed = keras.random.SeedGenerator()  # of its own: its state is kept with the weights
        self.means = {
            name: keras.metrics.Mean(f"mean_{name}") for name in {**self.terms, **self.measures, **self.watch}
        }

    def call(self, x, training=None):
        """The core's outputs as `members` gives them."""
        return members(self.core(x, training=training))

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """The weighted sum; on the way, the means that are logged."""
        batch, total = Batch(x, y, self.seed), sum(self.losses)
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


def compiled(objective: Objective, optimizer, steps: int) -> None:
    """Prepare for training, `steps` at a time."""
    if keras.config.dtype_policy().name == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)  # Keras would, but sees only the objective's float32
    # On a CPU XLA was no faster for convolutions and 3.5 times slower for embeddings.
    objective.compile(optimizer=optimizer, steps_per_execution=steps, jit_compile=False)


def fit(
    model, task, data, corrupt, cfg, optimizer, log, folder: Path, resume: bool = False, report: Callable | None = None
) -> pd.DataFrame:
    """Train `model` in place and leave it with its best weights on validation; returns the history.

    Its `attrs` say which epoch's weights these are, "best", and by what, "monitor"; neither without validation rows;
    and how many seconds were spent before, "earlier", where the training goes on from the folder's checkpoint, which
    `resume` asks for. Without one it begins anew.

    `optimizer` is a function from the number of steps to a Keras optimizer; `report` is called with each epoch's row.
    A model that is not a `keras.Model` has nothing to train by gradient: where it has a `fit` of its own, that is
    called with the training rows.
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
    compiled(objective, optimizer(settings.epochs * len(batches)), min(settings.steps_per_execution, len(batches)))
    best = None
    if validation is not None:  # else all epochs are trained, and the last weights are the result
        monitor, mode = watched(settings.monitor, objective, metrics)
        patience = settings.patience or settings.epochs
        best = keras.callbacks.EarlyStopping(monitor=monitor, mode=mode, patience=patience, restore_best_weights=True)
    state = callbacks.read(folder / callbacks.FILE) if resume else None
    record = callbacks.Record(folder / "history.csv", log, state["rows"] if state else [], report)
    kept = callbacks.Checkpoint(folder / callbacks.FILE, record.rows, best, state)
    bar = callbacks.Bar(settings.epochs, len(batches), next(iter([*metrics, *objective.watch]), "loss"))
    epochs = keras.callbacks.LambdaCallback(
        on_train_begin=lambda logs: backend.keep_memory(), on_epoch_begin=lambda epoch, logs: batches.start(epoch)
    )
    with bar.progress:
        try:
            objective.fit(
                batches,
                validation_data=validation,
                validation_batch_size=task.at_once,
                initial_epoch=settings.epochs if kept.stopped else kept.epoch,
                epochs=settings.epochs,
                shuffle=False,  # the batches are: by the run's seed, not by Python's global state
                callbacks=[epochs, *([best] if best else []), record, bar, kept],
                verbose=0,
            )
        finally:
            record.send()
    history = pd.DataFrame(record.rows)
    history.attrs["earlier"] = kept.seconds
    if best:
        history.attrs |= {"best": best.best_epoch + 1, "monitor": settings.monitor}
    return history
