"""The two terminals: results on standard output, complaints on standard error."""

import atexit
import contextlib
import functools
import os
import signal
import sys
from pathlib import Path
from typing import NoReturn, TextIO

from rich.console import Console
from rich.text import Text

out = Console(highlight=False, markup=False)  # "[a,b]" in a user's value is no markup
err = Console(stderr=True, highlight=False, markup=False)


def short(value: object) -> str:
    """A swept value for a table or a figure: of a path its last part."""
    return str(value).rstrip("/").rpartition("/")[2]


def complain(message: str) -> None:
    """One line, however long: an error is for reading and for grep."""
    err.print(Text.assemble(("aelab: ", "bold red"), " ".join(message.split())), soft_wrap=True)


@contextlib.contextmanager
def counter(doing: str, unit: str):
    """A live count of what is done, for work whose end is not known; gives a function to call with each part's size."""
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = SpinnerColumn(), TextColumn("{task.description} {task.completed:,.0f} " + unit), TimeElapsedColumn()
    with Progress(*columns, console=out, transient=True, disable=not out.is_terminal) as progress:
        task = progress.add_task(doing, total=None)
        yield lambda size: progress.advance(task, size)


@functools.cache
def _stand_in() -> TextIO:
    """Python's standard error on a descriptor of its own; never closed, as loggers keep a stream they once got."""
    return os.fdopen(os.dup(2), "w", buffering=1)


@contextlib.contextmanager
def native_noise_to(file: Path):
    """Send what native code writes to standard error to a file: TensorFlow's start-up messages cannot be silenced.

    Python's own standard error, and so every complaint, stays on the terminal.
    """
    sys.stderr.flush()
    terminal, python = os.dup(2), sys.stderr
    try:
        with open(file, "a", opener=lambda path, how: os.open(path, how | os.O_NONBLOCK, 0o666)) as sink:  # or a pipe
            os.dup2(terminal, _stand_in().fileno())
            sys.stderr = _stand_in()
            os.dup2(sink.fileno(), 2)
            yield
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)
        sys.stderr = python


def leave(code: int) -> NoReturn:
    """End the process after the last word: what was to be done at the exit is done, but nothing is taken apart.

    Taking TensorFlow apart costs 2.5 s, and lets native code print what is not for the user.
    """
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
    except BrokenPipeError:  # aelab --help | head
        pass
    except OSError as error:  # aelab ... > FILE, where there is no room for it
        complain(f"standard output: {error.strerror}")
        code = code or 1
    with contextlib.suppress(OSError):
        sys.stderr.flush()
    os._exit(code)


def open_streams() -> None:
    """Give a process that was started without standard streams (`>&-`) the null device in their place."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, os.O_RDWR)
            if descriptor != number:  # something else has been opened in its place
                os.dup2(descriptor, number)
                os.close(descriptor)
            setattr(sys, name, os.fdopen(number, mode))


@contextlib.contextmanager
def unbroken():
    """Puts ^C and SIGTERM off until the block is done.

    For writes to a database: one that is broken off in the middle leaves it locked, and so the next ones fail.
    """
    came = []
    held = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    held = {n: handler for n, handler in held.items() if callable(handler)}  # neither the system's own nor none
    for number in held:
        signal.signal(number, lambda number, frame: came.append((number, frame)))
    try:
        yield
    finally:
        for number, handler in held.items():
            signal.signal(number, handler)
        for number, frame in came[:1]:
            held[number](number, frame)


@contextlib.contextmanager
def leaving_at_once():
    """^C and SIGTERM end the process on the spot, while nothing is open yet.

    For imports: an exception raised in the middle of TensorFlow's aborts the process with a core dump.
    """

    def leave(number, frame):
        out.show_cursor()
        complain("interrupted" if number == signal.SIGINT else "terminated (SIGTERM)")
        sys.stdout.flush()
        os._exit(128 + number)

    wanted = (signal.SIGINT, signal.SIGTERM)
    before = {n: signal.getsignal(n) for n in wanted if signal.getsignal(n) is not signal.SIG_IGN}
    for number in before:
        signal.signal(number, leave)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
