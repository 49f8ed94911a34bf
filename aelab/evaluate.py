"""From predictions to metrics: one value per example, beside the value that doing nothing would have had."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from keras import ops

from aelab.config import AelabError
from aelab.fit import partials, stream

CELLS = 1 << 21
"""Numbers measured at once, which bounds the memory that a metric takes: 8 MB for each array."""


@dataclass(frozen=True)
class Result:
    """A model's test: inputs, targets and outputs (n, ...), a row for each example, and the final metrics."""

    inputs: np.ndarray
    targets: np.ndarray
    outputs: object
    examples: pd.DataFrame
    metrics: dict[str, float]


def measure(functions: Mapping[str, Callable], targets: np.ndarray, outputs: np.ndarray) -> dict[str, np.ndarray]:
    """Each metric of each example, name -> (n,)."""
    step = max(1, CELLS // math.prod(targets.shape[1:]))
    parts = range(0, len(targets), step)
    return {
        name: np.concatenate([ops.convert_to_numpy(f(targets[i : i + step], outputs[i : i + step])) for i in parts])
        for name, f in functions.items()
    }


def evaluate(task, model, split, corrupt, metrics: Mapping, seed: int) -> Result:
    """Corrupt a split (the seed fixes how), let the model restore it, and measure.

    `examples` has, for each metric, the model's value, the input's own (`_input`) and the gain (`_gain`), which is
    positive where the model does better, whichever direction the metric has.
    """
    inputs, targets = task.pairs(corrupt)(split.x, stream("test", seed))
    outputs = task.predict(model, inputs)
    if outputs.shape != targets.shape:  # a metric would broadcast them in silence
        raise AelabError(f"the model gives {outputs.shape}, but the targets are {targets.shape}")
    functions = partials(metrics, "goal")
    values, before = measure(functions, targets, outputs), measure(functions, targets, inputs)
    columns = {}
    for name in functions:
        sign = 1 if metrics[name]["goal"] == "max" else -1
        gain = sign * (values[name] - before[name])
        columns |= {name: values[name], f"{name}_input": before[name], f"{name}_gain": gain}
    examples = pd.DataFrame(columns)
    if split.y is not None:
        examples["label"] = split.y
    means = {f"test/{name}": float(np.mean(v, dtype=np.float64)) for name, v in columns.items()}
    return Result(inputs, targets, outputs, examples, means)


def unaided(result: Result) -> Result:
    """The result without what doing nothing gives, where that is perfect: inputs that are the targets."""
    if not np.array_equal(result.inputs, result.targets):
        return result
    metrics = {k: v for k, v in result.metrics.items() if not k.endswith(("_input", "_gain"))}
    return replace(result, metrics=metrics, examples=result.examples.filter(regex="^(?!.*_(input|gain)$)"))
