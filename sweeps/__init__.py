"""Run many short upscaling trials over a cluster and give one defensible answer.

Examples
--------
>>> import sweeps
>>> sweep = sweeps.run("mine.yaml", runner="inline")
>>> sweep.verdict.best in {record.number for record in sweep.records}
True
>>> sweep.export("winner/") == sweep.verdict.best
True
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__all__ = [
    "InputError",
    "LedgerHeldError",
    "Spec",
    "SpecError",
    "Sweep",
    "SweepError",
    "TrialRecord",
    "Verdict",
    "__version__",
    "compare",
    "export",
    "find",
    "load_spec",
    "run",
]

if TYPE_CHECKING:
    from sweeps.driver.service import run
    from sweeps.errors import InputError, LedgerHeldError, SpecError, SweepError
    from sweeps.records import TrialRecord
    from sweeps.results.compare import compare
    from sweeps.results.export import export
    from sweeps.results.finding import find
    from sweeps.results.sweep import Sweep
    from sweeps.results.verdict import Verdict
    from sweeps.spec.model import Spec
    from sweeps.spec.source import load_spec

    __version__: str
else:  # hidden from type checkers, which would believe that every name is there
    from tli.lazy import lazy

    __getattr__, __dir__ = lazy(
        __name__,
        {
            "InputError": "sweeps.errors",
            "LedgerHeldError": "sweeps.errors",
            "Spec": "sweeps.spec.model",
            "SpecError": "sweeps.errors",
            "Sweep": "sweeps.results.sweep",
            "SweepError": "sweeps.errors",
            "TrialRecord": "sweeps.records",
            "Verdict": "sweeps.results.verdict",
            "compare": "sweeps.results.compare",
            "export": "sweeps.results.export",
            "find": "sweeps.results.finding",
            "load_spec": "sweeps.spec.source",
            "run": "sweeps.driver.service",
        },
    )
