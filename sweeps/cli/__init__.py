"""What `sweeps` does: each command a function of its options.

They import what they use when they are called: `sweeps --help` and a mistake are answered at once.
"""

from __future__ import annotations

from collections.abc import Mapping

from sweeps.cli.interrupt import STOPPED
from sweeps.cli.output import Command
from sweeps.cli.promote_command import promote_command
from sweeps.cli.spec_commands import OF_SPECS
from sweeps.cli.sweep_commands import OF_SWEEPS

__all__ = ["COMMANDS", "STOPPED"]

COMMANDS: Mapping[str, Command] = {**OF_SPECS, **OF_SWEEPS, "promote": promote_command}
