"""The command line, where it is installed: `microtome`, and `python -m microtome`."""

import sys
from importlib import import_module

from microtome.errors import InputError
from microtome.missing import needing


def main() -> None:
    """Run a command."""
    try:
        with needing("the command line"):
            import_module("flows.cli").main()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
