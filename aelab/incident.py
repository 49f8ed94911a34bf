"""An error that nobody thought of: its traceback goes to a file, and a line says where that is."""

import contextlib
import os
import shlex
import tempfile
import traceback
from pathlib import Path

from aelab import circumstances
from aelab.check import short
from aelab.store import veiled

LINE = 200
"""Characters of a command line that is repeated in the message."""


def report(error: Exception, argv: list[str]) -> str:
    """Write what is needed to mend an error to a file; returns the line for the terminal."""
    words = veiled(shlex.join(["aelab", *argv]))
    said = short(" ".join(f"{type(error).__name__}: {error}".split()).removesuffix(": "), 300)
    file = keep(f"{words}\n\n{veiled(''.join(traceback.format_exception(error)))}", argv)
    again = f"; it came of: {words}" if len(words) <= LINE else ""
    return f"internal error, not of your making: {said} (details: {file or 'no file could be written'}){again}"


def keep(text: str, argv: list[str]) -> Path | None:
    """The file that a text went to: in the folder of results if it is there, else in that for temporary files."""
    here = next((a.partition("=")[2] for a in reversed(argv) if a.startswith("output_dir=")), "outputs")
    facts = ", ".join(f"{name} {version}" for name, version in circumstances.versions().items())
    for folder in (here, tempfile.gettempdir()):
        with contextlib.suppress(OSError, ValueError):
            descriptor, name = tempfile.mkstemp(prefix="aelab-error-", suffix=".txt", dir=Path(folder).absolute())
            with open(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
                file.write(f"{text}\n{facts}\nprocess {os.getpid()} in {Path.cwd()}\n")
            return Path(name)
    return None
