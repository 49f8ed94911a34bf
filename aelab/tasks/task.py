"""What a task is: a trainer plugin that the runner calls at a few points."""

import abc
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd

from aelab import evaluate
from aelab.data.record import Data, Split
from aelab.evaluate import Result
from aelab.fit import Batches


class Task(abc.ABC):
    """Which pairs to train on, how to predict, how to test, and what to show.

    `kinds` names the kinds that the task's components may be for ("image", "table", "ratings"...), `needs` the config
    groups beyond the usual that it calls, `may` those that it takes where they are given. All are literals: the command
    line reads them from the source to refuse models and data sets
    that do not fit, before anything is imported. `by_example` says that metrics compare each example's output with
    its target, so that they can be measured in every epoch; `watches` names what `watch` measures beside these, with
    knobs in braces, and a metric's name only where that metric is chosen.
    """

    kinds: ClassVar[tuple[str, ...]]
    needs: ClassVar[tuple[str, ...]] = ()
    may: ClassVar[tuple[str, ...]] = ()
    by_example: ClassVar[bool] = True
    watches: ClassVar[tuple[str, ...]] = ()
    at_once: int = 512
    """Held-out rows that a model is given at once."""

    def prepare(self, data: Data, cfg: Mapping) -> Data:
        """The data as the model takes them; what is fitted for that is fitted on training rows."""
        return data

    def shape(self, data: Data):
        """What a model is built from: the shape of its input, or whatever else its first parameter says."""
        return data.shape

    def held_out(self, validation: Split) -> Split:
        """The validation rows that the loss is measured on."""
        return validation

    def batches(self, model, x, pairs: Callable, cfg: Mapping):
        """The training batches: a `keras.utils.PyDataset` whose `start(epoch)` is called before each epoch."""
        return Batches(x, pairs, cfg.fit.batch_size, cfg.seed)

    def watch(self) -> Mapping[str, Callable]:
        """Name -> function of (batch, outputs): one value per example, higher is better, measured in every epoch.

        Beside the metrics of the config, for a task whose metrics are no mean over examples.
        """
        return {}

    def pairs(self, corrupt: Callable, /) -> Callable:
        """A function of rows x (b, ...) and a random generator that gives (input, target) to train on.

        Where a task says nothing else: (corrupted, clean).
        """
        return lambda x, rng: (corrupt(x, rng), x)

    @abc.abstractmethod
    def predict(self, model, inputs: np.ndarray, /):
        """The model's outputs for inputs (n, ...), on the scale that metrics are measured on."""

    def test(self, model, data: Data, corrupt: Callable, cfg: Mapping) -> Result:
        """The test, once: all that is reported comes from this."""
        return evaluate.evaluate(self, model, data.test, corrupt, cfg.metric, cfg.seed)

    def keep(self, folder: Path) -> None:
        """Write what the task has fitted, for `recall`; most tasks have nothing."""
        return

    def recall(self, folder: Path) -> None:
        """Take up what a finished run has fitted, so that nothing is fitted anew."""
        return

    @abc.abstractmethod
    def figures(self, result: Result, data: Data, /) -> Mapping[str, object]:
        """Name -> matplotlib figure, from the test result."""

    @abc.abstractmethod
    def tables(self, result: Result, data: Data, /) -> Mapping[str, pd.DataFrame]:
        """Name -> table, from the test result."""
