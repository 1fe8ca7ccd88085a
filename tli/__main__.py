"""`python -m tli`, the command `tli`."""

import sys

from tli.cli.commands import main

if __name__ == "__main__":
    sys.exit(main())
