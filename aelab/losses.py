"""Loss terms: `term(batch, outputs, model, /, *, knobs)` gives one value per example, (b,), lower is better.

`batch` has `.input` and `.target`; `outputs` is a dict whose "output" is compared with the target. Weighting and
averaging happen once, in `aelab.fit.Objective`.
"""

import math

import keras

from aelab import ops
from aelab.config import Count, Interactions, Level, Pixels, Rebuilt, Share, Tokens


def mse(batch: Rebuilt, outputs, model, /):
    """Mean squared error of each example."""
    return ops.mse(batch.target, outputs["output"])


def mae(batch: Rebuilt, outputs, model, /):
    """Mean absolute error of each example."""
    return ops.mae(batch.target, outputs["output"])


def bce(batch: Rebuilt, outputs, model, /):
    """Binary cross-entropy of each example in nats a pixel, with values read as probabilities."""
    return ops.bce(batch.target, outputs["output"])


def charbonnier(batch: Rebuilt, outputs, model, /, *, epsilon: Level):
    """Mean of sqrt(e^2 + epsilon^2) of each example."""
    return ops.charbonnier(batch.target, outputs["output"], epsilon=epsilon)


def ssim(batch: Pixels, outputs, model, /, *, max_value: Level, window: Count, sigma: Level):
    """1 - SSIM of each image, in [0, 2]."""
    return 1.0 - ops.ssim(batch.target, outputs["output"], max_value=max_value, window=window, sigma=sigma)


def log_mse(batch: Rebuilt, outputs, model, /):
    """ln(mse) of each example: minus its PSNR, up to scale and a constant.

    Its mean over images is what the mean PSNR measures, where `mse` lets the hard images outweigh the rest.
    """
    return keras.ops.log(keras.ops.maximum(ops.mse(batch.target, outputs["output"]), ops.SMALLEST_MSE))


def kl(batch, outputs, model, /, *, free_bits: Level, whole: bool):
    """KL(N(mean, exp(log_variance)) || N(0, 1)) of each example, in nats; unless `whole`, in nats a feature.

    Divided by the number of features as the mean squared error is, so that weight 1 is the VAE's own balance for
    errors of variance 1/2; `whole` beside a log-likelihood that is a sum, such as `multinomial`. A number of the code
    below `free_bits` nats counts as that (Kingma et al., 2016).
    """
    mean, log_variance = ops.full(outputs["mean"]), ops.full(outputs["log_variance"])
    nats = 0.5 * (keras.ops.square(mean) + keras.ops.exp(log_variance) - log_variance - 1.0)
    size = 1 if whole else math.prod(batch.target.shape[1:])
    return keras.ops.sum(keras.ops.maximum(nats, free_bits), axis=-1) / size


def nll(batch: Tokens, outputs, model, /):
    """Mean negative log-likelihood of each example's tokens, in nats; targets below 0 do not count."""
    return ops.nll(batch.target, outputs["output"])


def sparsity(batch, outputs, model, /, *, rho: Share | None):
    """Mean absolute value of each example's code: few numbers of it are used at a time.

    With `rho`, sum over the code of KL(rho || a), the same for each example: a is the mean of the number's sigmoid over
    the batch, how often it is on. Ng, CS294A lecture notes, 2011.
    """
    code = ops.full(outputs["code"])
    if rho is None:
        return keras.ops.mean(keras.ops.abs(code), axis=-1)
    on = keras.ops.clip(keras.ops.mean(keras.ops.sigmoid(code), axis=0), 1e-6, 1 - 1e-6)
    nats = rel_entr(rho, on) + rel_entr(1 - rho, 1 - on)
    return keras.ops.sum(nats) * keras.ops.ones_like(code[:, 0])


def rel_entr(p: float, q):
    """p ln(p / q), 0 where p is."""
    return p * (math.log(p) - keras.ops.log(q)) if p else keras.ops.zeros_like(q)


# ---- of interactions: "output" has a logit for each item, the target is above 0 where there is an interaction
#
# What is in the input but not in the target is known already, and does not count: what was held out for validation is
# so looked for among the rest.


def multinomial(batch: Interactions, outputs, model, /):
    """Minus the log-likelihood of a user's items drawn from softmax(logits), in nats; an item counts by its value.

    Liang et al., WWW 2018, eq. 2.
    """
    x, _, open_ = asked(batch, outputs)
    likely = keras.ops.log_softmax(keras.ops.where(open_ > 0, x, -1e9), axis=-1)
    return -keras.ops.sum(ops.full(batch.target) * likely, axis=-1)


def bce_logits(batch: Interactions, outputs, model, /, *, alpha: Level):
    """Mean binary cross-entropy of logits, in nats; an interaction counts `alpha` times as much as none."""
    x, y, open_ = asked(batch, outputs)
    return keras.ops.mean(open_ * (alpha * y * keras.ops.softplus(-x) + (1 - y) * keras.ops.softplus(x)), axis=-1)


def bpr(batch: Interactions, outputs, model, /, *, negatives: Count):
    """Bayesian personalised ranking: mean of -log sigmoid(logit - logit of an item that the user does not have).

    Over all of a user's items, each against the same `negatives` drawn items. Rendle et al., UAI 2009, eq. 5.
    """
    x, y, open_ = asked(batch, outputs)
    others = drawn(x, open_ * (1 - y), negatives, batch.seed)
    margin = x[:, :, None] - others[:, None, :]
    return mean_of(y, keras.ops.mean(keras.ops.softplus(-margin), axis=-1))


def sampled_softmax(batch: Interactions, outputs, model, /, *, negatives: Count):
    """Mean of -log of an item's share of exp(logit) among itself and `negatives` drawn items that the user lacks."""
    x, y, open_ = asked(batch, outputs)
    rest = keras.ops.logsumexp(drawn(x, open_ * (1 - y), negatives, batch.seed), axis=-1, keepdims=True)
    return mean_of(y, keras.ops.logaddexp(x, rest) - x)


def asked(batch, outputs):
    """(logits, 1 where there is an interaction, 1 where the item counts), each float32 (b, i)."""
    x, y = ops.full(outputs["output"]), keras.ops.cast(batch.target > 0, "float32")
    known = keras.ops.cast(batch.input[:, : y.shape[1]] > 0, "float32")
    return x, y, 1 - known * (1 - y)


def drawn(logits, among, number: int, seed):
    """The logits (b, number) of items drawn anew for each user, without replacement, where `among` (b, i) is 1.

    Where these are fewer, the rest is -1e9; where there are fewer items at all, so are the logits.
    """
    number = min(number, logits.shape[-1])
    chance = keras.random.uniform(keras.ops.shape(logits), seed=seed)
    items = keras.ops.top_k(chance + among, number, sorted=False)[1]
    found, fit = (keras.ops.take_along_axis(x, items, axis=-1) for x in (logits, among))
    return keras.ops.where(fit > 0, found, -1e9)


def mean_of(y, values):
    """Mean of values (b, i) where y is 1: (b,)."""
    return keras.ops.sum(y * values, axis=-1) / keras.ops.maximum(keras.ops.sum(y, axis=-1), 1.0)
