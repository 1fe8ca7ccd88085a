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
    """Anything the sweep service raises on purpose that is not bad input.

    Examples
    --------
    >>> import sweeps
    >>> try:
    ...     sweep = sweeps.run("mine.yaml", runner="inline")
    ... except sweeps.SweepError as error:
    ...     print(f"the same call again goes on, once this is mended: {error}")
    """


class SpecError(InputError):
    """A spec that cannot be run, or a sweep that is not there; an `InputError` with every problem in it.

    Examples
    --------
    >>> import sweeps
    >>> try:
    ...     sweeps.load_spec("mine.yaml", overrides={"budget.trails": 8})
    ... except sweeps.SpecError as error:
    ...     print(*(f"{problem.where}: {problem.remedy}" for problem in error.problems))
    --set budget.trails=8: budget.trials
    """


class LedgerHeldError(SweepError):
    """Another process drives this sweep; it can be read meanwhile.

    Examples
    --------
    >>> import sweeps
    >>> try:
    ...     sweep = sweeps.run("mine.yaml", runner="inline")
    ... except sweeps.LedgerHeldError:
    ...     sweep = sweeps.find("mine")
    >>> sweep.spec.name
    'mine'
    """


class StaleAttemptError(SweepError):
    """A report or result from an attempt that is no longer the trial's current one."""


class PreemptedError(SweepError):
    """This process was told to go, in the middle of a trial."""


class StopRequestedError(SweepError):
    """The driver asked this trial to stop; its state is not needed."""
