"""Loaded first into the fork server of `launcher=processes`: it ends with the sweep, also while it still imports."""

import atexit
import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def end_with_parent(number: signal.Signals) -> None:
    """Have the system send this process a signal when its parent ends; one whose parent is gone already ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)
        if os.getppid() == 1:
            os._exit(1)


atexit.register(os._exit, 0)  # taking TensorFlow apart takes seconds
# One for the whole group is for the sweep, which ends its jobs, and hears of their ends through this process alone.
signal.signal(signal.SIGTERM, signal.SIG_IGN)
end_with_parent(signal.SIGKILL)
