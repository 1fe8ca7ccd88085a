"""One model over several processes, each with its rows of every weight: read, grown, saved, written out.

Promises: the same weights, bit for bit, and the same losses but for rounding as in one process; no process
    ever holds more than its rows and one whole tensor. Every function here is called by all ranks, in the
    same order. Never starts a process.
"""

__all__ = [
    "base",
    "experts",
    "export",
    "growth",
    "processes",
    "resuming",
    "rows",
    "state_folders",
    "states",
    "wrapping",
]
