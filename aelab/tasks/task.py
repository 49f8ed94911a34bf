"""What a task is: a trainer plugin that the runner calls at four points."""

import abc
from collections.abc import Callable, Mapping
from typing import ClassVar

import numpy as np
import pandas as pd


class Task(abc.ABC):
    """Which pairs to train on, how to predict, and what to show.

    `kinds` names the kinds of input that the task takes ("image", ...). It is a literal: the command line reads it
    from the source to refuse models and data sets that do not fit, before anything is imported.
    """

    kinds: ClassVar[tuple[str, ...]]

    @abc.abstractmethod
    def pairs(self, corrupt: Callable, /) -> Callable:
        """A function of clean rows x (b, ...) and a random generator that gives (input, target) to train on."""

    @abc.abstractmethod
    def predict(self, model, inputs: np.ndarray, /) -> np.ndarray:
        """The model's outputs for inputs (n, ...), on the scale that metrics are measured on."""

    @abc.abstractmethod
    def figures(self, result, data, /) -> Mapping[str, object]:
        """Name -> matplotlib figure, from the test result."""

    @abc.abstractmethod
    def tables(self, result, data, /) -> Mapping[str, pd.DataFrame]:
        """Name -> table, from the test result."""
