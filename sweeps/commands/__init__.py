"""What `sweeps` can be told to do, each command a function of its options.

They import what they use when they are called: `sweeps --help` and a mistake are answered at once.
"""

from __future__ import annotations

from collections.abc import Mapping

from sweeps.commands.of_specs import OF_SPECS, STOPPED
from sweeps.commands.of_sweeps import OF_SWEEPS
from sweeps.commands.shown import Command

__all__ = ["COMMANDS", "STOPPED"]

COMMANDS: Mapping[str, Command] = {**OF_SPECS, **OF_SWEEPS}
