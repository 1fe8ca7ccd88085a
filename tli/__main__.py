# PYTHON_ARGCOMPLETE_OK
"""`python -m tli`, the command `tli`."""

import os
import sys
from collections.abc import Sequence

from tli.cli import commands


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; see `tli.cli.commands.main`."""
    return commands.main(arguments, completing="_ARGCOMPLETE" in os.environ)


if __name__ == "__main__":
    sys.exit(main())
