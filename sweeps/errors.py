"""Errors of the sweep service; a user's mistake has the shape that `tli.errors` gives it."""

from __future__ import annotations

from tli.errors import InputError, Problem, TliError

__all__ = [
    "InputError",
    "LedgerHeldError",
    "PreemptedError",
    "Problem",
    "SpecError",
    "StaleAttemptError",
    "StopRequestedError",
    "SweepError",
]


class SweepError(TliError):
    """Anything the sweep service raises on purpose that is not bad input."""


class SpecError(InputError):
    """A spec that cannot be run, with every problem in it."""


class LedgerHeldError(SweepError):
    """Another driver is working on this study."""


class StaleAttemptError(SweepError):
    """A report or result from an attempt that is no longer the trial's current one."""


class PreemptedError(SweepError):
    """This process was told to go, in the middle of a trial."""


class StopRequestedError(SweepError):
    """The driver asked this trial to stop; its state is not needed."""
