"""Picture files, opened with what pillow makes of a broken one as one error."""

import contextlib
import logging
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

from aelab.config import DataError
from aelab.data.limits import afford, regular, shown


@contextlib.contextmanager
def opened(file: Path, where: str) -> Iterator:
    """The picture of a file, as pillow has it: decoded inside the block, when its pixels are asked for.

    Errors: DataError that begins with `where` for a file that is no picture, is cut off, takes more memory than there
    is, or has more than 8 bits a channel, which pillow would clip at 255.
    """
    from PIL import Image

    logging.getLogger("PIL").setLevel(logging.CRITICAL)  # of an error it also logs a part, on standard error
    # What pillow's readers raise for broken files, beside OSError: each format has a reader of its own.
    broken = (OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, ArithmeticError, RuntimeError)
    broken = (*broken, NotImplementedError, AttributeError, MemoryError, struct.error, zlib.error)
    try:
        regular(file)
        with Image.open(file) as picture:
            if picture.mode[0] in "IF":
                raise DataError(f"{where}: expected 8 bits a channel, got mode {picture.mode}; save it so")
            width, height = picture.size
            afford(12 * width * height, f"{where}: {width:,} x {height:,} pixels", "make it smaller")
            yield picture
    except FileNotFoundError as error:
        raise DataError(f"{where}: no such file") from error
    except (*broken, Image.DecompressionBombError) as error:
        said = shown(" ".join(str(error).split()), 200) or type(error).__name__
        raise DataError(f"{where}: expected a picture, got: {said}; repair it or take it out") from error
