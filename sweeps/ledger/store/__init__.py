"""The only door to Optuna's storage and to SQL: opened, leased, retried, mirrored in memory.

Promises: an event of a trial is one write, all or none, and a driver without the lease cannot write. Private
parts of Optuna are used here alone.
"""

__all__ = [
    "created",
    "holder",
    "internals",
    "lease",
    "loading",
    "looking",
    "marks",
    "mirror",
    "retrying",
    "rows",
    "storage",
    "trials",
    "visible",
    "writing",
]
