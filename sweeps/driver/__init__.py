"""The whole sweep, from a checked spec to the answer, here or on Ray; or one trial of it alone.

Promises: every decision is in the ledger before it acts, so the same command goes on after a kill. Never
trains.
"""

__all__ = [
    "existing_study",
    "inline",
    "promoting",
    "promotion_plan",
    "report_page",
    "run_arguments",
    "service",
    "single",
    "tidying",
    "tokenising",
    "watchers",
]
