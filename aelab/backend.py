"""All that depends on the backend, the processor or its devices: seeds, precision, determinism, quiet start-up."""

import ctypes
import gc
import logging
import os
import platform
import warnings
import zlib
from functools import cache
from pathlib import Path
from zipfile import BadZipFile, is_zipfile

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # must stand before the import: it silences the C++ side

import keras
import tensorflow as tf

from aelab import archive, run_files
from aelab.config import AelabError, Fit

gc.freeze()  # what the imports made stays for good: each collection would look through all of it, 0.4 s
tf.get_logger().handlers[:] = [logging.NullHandler()]  # its warnings go to run.log, not to the terminal

BROKEN = (
    *(OSError, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError, ImportError, RecursionError),
    *(RuntimeError, MemoryError, OverflowError, AssertionError, BadZipFile, zlib.error, tf.errors.OpError),
)
"""What Keras raises for a .keras file that is not as it should be: it calls layers with whatever the file says."""
NATIVE_BFLOAT16 = {"avx512_bf16", "amx_bf16"}


@cache
def cpu_flags() -> frozenset[str]:
    """The processor's features as Linux lists them; empty where it does not say."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return frozenset(next((line.split(":")[1].split() for line in lines if line.startswith("flags")), ()))


def devices() -> list[str]:
    """The names of the accelerators, or of the processor where there are none."""
    gpus = tf.config.list_physical_devices("GPU")
    names = [tf.config.experimental.get_device_details(g).get("device_name", g.name) for g in gpus]
    return names or [f"CPU ({platform.machine()}, {os.cpu_count()} threads)"]


def native_bfloat16() -> bool:
    """Whether the device computes in bfloat16 itself: GPUs from compute capability 8, CPUs by their flags."""
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        return all(tf.config.experimental.get_device_details(g).get("compute_capability", (0,))[0] >= 8 for g in gpus)
    return bool(cpu_flags() & NATIVE_BFLOAT16)


def precision(wanted: str) -> str:
    """The dtype policy for `fit.precision`: `auto` is bfloat16 only where that is computed natively."""
    if wanted != "auto":
        return wanted
    return "mixed_bfloat16" if native_bfloat16() else "float32"


def restored(file: Path) -> keras.Model:
    """The model of a .keras file that a run left; AelabError where it is broken."""
    with run_files.reading(file, *BROKEN, UserWarning), warnings.catch_warnings():
        warnings.filterwarnings("error", "Skipping ", UserWarning)  # weights left as they are made, paths to elsewhere
        if not is_zipfile(file):  # of which Keras says that there is no file
            raise AelabError(f"{file}: is not whole; {run_files.REMEDY}")
        archive.check_keras(file)
        model = keras.saving.load_model(file, compile=False)
    if not isinstance(model, keras.Model):
        raise AelabError(f"{file}: expected a model, got a {type(model).__name__}; {run_files.REMEDY}")
    return model


def prepare(seed: int, cfg: Fit) -> str:
    """Forget the last model, seed everything, set the precision; returns the dtype policy that was chosen."""
    keras.utils.clear_session(free_memory=True)
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)  # what `keep_memory` kept of the last job
    keras.utils.set_random_seed(seed)
    if cfg.deterministic:
        tf.config.experimental.enable_op_determinism()  # for the rest of the process: it cannot be taken back
    chosen = precision(cfg.precision)
    keras.config.set_dtype_policy(chosen)
    return chosen


def keep_memory() -> None:
    """Let glibc keep freed memory for the next step, up to 1 GiB, instead of giving it back and faulting it in again.

    TensorFlow does the opposite once it makes a data set from a Python generator: to be called after that. Measured
    on a convolutional autoencoder: 1,400 page faults and 2 ms a step without, 1 fault with.
    """
    if platform.libc_ver()[0] == "glibc":
        trim, mmap = -1, -3  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD in malloc.h
        libc = ctypes.CDLL(None)
        libc.mallopt(trim, 1 << 30)
        libc.mallopt(mmap, 32 << 20)


def gradient(function, x):
    """d function(x) / d x as an array of the shape of x, where function gives one number."""
    x = tf.convert_to_tensor(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = function(x)
    return tape.gradient(y, x).numpy()


def jacobian(function, x):
    """d function(x) / d x of each example, (b, k, ...), where function gives (b, k); can itself be differentiated."""
    with tf.GradientTape() as tape:
        x = tf.convert_to_tensor(x)
        tape.watch(x)
        y = function(x)
    return tape.batch_jacobian(y, x)


@tf.function(jit_compile=True)
def _opened(x, recurrent, C):
    """sigma of i, f, o side by side, C~, tanh of the new C, the new C, the new h, and h as x is.

    The arguments z (b, 4n) are x, of the input, and recurrent, of the last h; C is (b, n).
    """
    z, n = tf.cast(x, tf.float32) + tf.cast(recurrent, tf.float32), C.shape[1]
    gates, candidate = tf.sigmoid(z[:, : 3 * n]), tf.tanh(z[:, 3 * n :])
    i, f, o = tf.split(gates, 3, axis=-1)
    C = f * C + i * candidate
    shown = tf.tanh(C)
    h = o * shown
    return gates, candidate, shown, C, h, tf.cast(h, x.dtype)


@tf.function(jit_compile=True)
def _closed(gates, candidate, shown, C, own, later, dC):
    """The gradients of z, as `later` is, and of the old C, of those of h, its own and that of later steps, and of C."""
    i, f, o = tf.split(gates, 3, axis=-1)
    dh = own + tf.cast(later, tf.float32)
    dC += dh * o * (1 - shown * shown)
    inner = tf.concat([dC * candidate, dC * C, dh * shown], axis=-1) * gates * (1 - gates)
    return tf.cast(tf.concat([inner, dC * i * (1 - candidate * candidate)], axis=-1), later.dtype), dC * f


def lstm(xz, R, h, C):
    """Every h (b, t, n), the last h and the last C of an LSTM, t steps written out, for training.

    xz (b, t, 4n) is the inputs' part of the arguments, R (n, 4n) the recurrent kernel, columns in Keras's order i, f,
    C~, o; h and C are (b, n). Products with R are in the precision of xz and R, all else in float32. The gradient is
    written out too, so that R's is one product over all steps instead of t small ones: with that and in bfloat16 a
    step of training took less than a third of the time of Keras's loop (512 units, 64 steps, 2 cores).
    """

    def ordered(x):
        i, f, candidate, o = tf.split(x, 4, axis=-1)
        return tf.concat([i, f, o, candidate], axis=-1)

    @tf.custom_gradient
    def core(xz, R, h, C):
        before, kept, hs = [tf.cast(h, R.dtype)], [], []
        for x in tf.unstack(xz, axis=0):
            gates, candidate, shown, new, h, low = _opened(x, tf.matmul(before[-1], R), C)
            kept.append((gates, candidate, shown, C))
            before.append(low)
            hs.append(h)
            C = new

        def gradient(dhs, dh, dC):
            dzs, dh = [], tf.cast(dh, R.dtype)
            for own, values in zip(reversed(tf.unstack(dhs, axis=0)), reversed(kept), strict=True):
                dz, dC = _closed(*values, own, dh, dC)
                dzs.append(dz)
                dh = tf.matmul(dz, R, transpose_b=True)
            dz = tf.stack(dzs[::-1])
            seen = tf.reshape(tf.stack(before[:-1]), (-1, R.shape[0]))
            dR = tf.matmul(seen, tf.reshape(dz, (-1, R.shape[1])), transpose_a=True)
            return dz, dR, tf.cast(dh, tf.float32), dC

        return (tf.stack(hs), h, C), gradient

    h, C = tf.identity(h), tf.identity(C)  # as they are now: variables may have changed when the gradient is taken
    hs, h, C = core(tf.transpose(ordered(xz), (1, 0, 2)), ordered(R), h, C)
    return tf.transpose(hs, (1, 0, 2)), h, C


def sparse_product(index, values, shape: tuple[int, int], dense):
    """Sparse (n, k), given by index (e, 2) in order of rows and values (e,), times dense (k, d): (n, d)."""
    return tf.sparse.sparse_dense_matmul(tf.SparseTensor(index, values, shape), dense)
