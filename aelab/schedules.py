"""Learning-rate schedules: `schedule(peak, steps, /, *, knobs)` gives what a Keras optimizer takes."""

import keras

from aelab.config import Share


def constant(peak, steps, /):
    """The same learning rate at every step."""
    return peak


def cosine(peak, steps, /, *, warmup: Share, final: Share):
    """A linear rise to `peak` over the share `warmup` of all steps, then half a cosine down to `final` * peak.

    Loshchilov & Hutter, ICLR 2017, eq. 5, with a single cycle.
    """
    rise = round(warmup * steps)
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if rise else peak,
        decay_steps=max(steps - rise, 1),
        alpha=final,
        warmup_target=peak if rise else None,
        warmup_steps=rise,
    )
