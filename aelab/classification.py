"""Of labelled images: the loss term and the metrics, one value per example, from labels (b,) and logits (b, k).

The formulas are those of tokens in `aelab.ops`: a label is a text of one token.
"""

from typing import Any

import keras

from aelab import ops
from aelab.config import Share

Labelled = Any
"""Images with labels: the shape of an image and the number k of classes; of arrays, labels int (b,) below k."""


def accuracy(labels: Labelled, logits, /):
    """1 where the label has the highest logit, else 0; where n logits are highest, 1 / n."""
    return ops.accuracy(labels[:, None], logits[:, None], k=1)


def cross_entropy(labels: Labelled, logits, /):
    """Minus the log of the chance that softmax(logits) gives the label, in nats."""
    return ops.nll(labels[:, None], logits[:, None])


def smooth_cross_entropy(batch: Labelled, outputs, model, /, *, smoothing: Share):
    """Cross-entropy in nats to 1 - `smoothing` of the label and `smoothing` spread over all k classes alike.

    Szegedy et al., CVPR 2016, section 7. At its best it is not 0 but the entropy of what is aimed at.
    """
    logits = ops.full(outputs["output"])
    spread = -keras.ops.mean(keras.ops.log_softmax(logits, axis=-1), axis=-1)
    return (1 - smoothing) * cross_entropy(batch.target, logits) + smoothing * spread
