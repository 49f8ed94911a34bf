"""The two terminals: results on standard output, complaints on standard error."""

import contextlib
import os
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def complain(message: str) -> None:
    """One line, however long: an error is for reading and for grep."""
    err.print(Text.assemble(("aelab: ", "bold red"), " ".join(message.split())), soft_wrap=True)


@contextlib.contextmanager
def native_noise_to(file: Path):
    """Send what native code writes to standard error to a file: TensorFlow's start-up messages cannot be silenced.

    Python's own standard error, and so every complaint, stays on the terminal.
    """
    sys.stderr.flush()
    terminal, python = os.dup(2), sys.stderr
    try:
        with open(file, "a") as sink, os.fdopen(os.dup(terminal), "w", buffering=1) as sys.stderr:
            os.dup2(sink.fileno(), 2)
            yield
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)
        sys.stderr = python
