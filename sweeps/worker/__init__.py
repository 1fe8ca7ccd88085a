"""One attempt at one trial in one process: grow a copy of the base, train it, measure it, keep it.

Promises: an attempt goes on from the last good state, and one that is no longer wanted writes nothing. Never
opens the ledger: points go to the driver, and into the curve on disk.
"""

__all__ = [
    "causes",
    "execution",
    "growing",
    "preemption",
    "ranks",
    "recipe",
    "saving",
    "texts",
    "trial",
    "watchdog",
]
