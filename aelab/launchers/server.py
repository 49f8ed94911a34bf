"""Loaded first into the fork server of `launcher=processes`: it ends with the sweep, also while it still imports."""

import atexit
import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1

atexit.register(os._exit, 0)  # taking TensorFlow apart takes seconds
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() == 1:  # its parent was gone before
        os._exit(1)
