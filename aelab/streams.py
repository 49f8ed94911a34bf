"""A text as batches: in streams side by side for training, in windows for what is held out.

Letters in shapes: n tokens, b streams, t steps, k windows.
"""

import keras
import numpy as np

from aelab.fit import stream

MASKED = -1
"""A target that does not count."""


class Streams(keras.utils.PyDataset):
    """Training batches (b, t) of a text that is cut into b streams side by side: each goes on where the last stopped.

    In each epoch the streams begin a little later in the text, so that the cuts fall elsewhere; a model that carries
    its state from batch to batch starts anew.
    """

    def __init__(self, model, x: np.ndarray, pairs, b: int, t: int, seed: int):
        super().__init__()
        self.model, self.x, self.pairs, self.b, self.t, self.seed = model, x, pairs, b, t, seed
        self.start(0)

    def start(self, epoch: int) -> None:
        """Take up an epoch."""
        offset = stream("order", self.seed, epoch).integers(self.t)
        apart = (len(self.x) - 1 - offset) // self.b
        self.begins = offset + apart * np.arange(self.b)[:, None]
        for layer in self.model.layers:
            if hasattr(layer, "reset_state"):
                layer.reset_state()

    def __len__(self):
        return (len(self.x) - self.t) // (self.b * self.t)

    def __getitem__(self, index):
        at = self.begins + index * self.t + np.arange(self.t)
        return self.pairs(np.stack([self.x[at], self.x[at + 1]], axis=1), None)


def windows(x: np.ndarray, first: int, context: int, scored: int) -> np.ndarray:
    """Tokens x (n,) from `first` on, each scored once: int32 (k, 2, t), inputs and targets, else `MASKED`.

    Before the first scored target of a window the model reads at least `context` tokens, or all that there are: the
    first window of a text that begins at 0 is read from nothing. Nothing to score gives no window.
    """
    if first >= len(x):
        return np.empty((0, 2, 1), np.int32)
    groups = np.array_split(np.arange(max(first, 1), len(x)), -(-(len(x) - max(first, 1)) // scored))
    t = min(context + len(groups[0]), len(x) - 1)
    found = np.full((len(groups), 2, t), MASKED, np.int32)
    for row, group in zip(found, groups, strict=True):
        end = max(group[-1], t)
        row[0] = x[end - t : end]
        row[1, group - (end - t) - 1] = x[group]
    return found
