"""`aelab` and `python -m aelab`: a ^C while Python still imports ends as one later does, without a traceback."""

import sys
from typing import NoReturn


def main() -> NoReturn:
    """The command, once it is imported."""
    try:
        from aelab import cli
    except KeyboardInterrupt:
        print("aelab: interrupted", file=sys.stderr)
        sys.exit(130)
    cli.main()


if __name__ == "__main__":
    main()
