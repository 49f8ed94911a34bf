"""Loss terms that look at the model itself, beside what it gives."""

from keras import ops

from aelab import backend
from aelab.ops import full


def contractive(batch, outputs, model, /):
    """Squared Frobenius norm of d code / d input of each example: the sum over all numbers of code and input.

    Exact, by as many backward passes as the code has numbers. Rifai et al., ICML 2011, eq. 5 and 7. A draw or dropout
    between the two is left out.
    """
    jacobian = backend.jacobian(lambda x: full(model(x, training=False)["code"]), batch.input)
    return ops.sum(ops.square(jacobian), axis=tuple(range(1, len(jacobian.shape))))
