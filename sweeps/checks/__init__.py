"""Checks before anything is reserved: stores, machine, memory, text, unusual settings, cost.

Promises: nothing is created or changed by looking, and all problems come at once. Never opens the ledger.
"""

__all__ = [
    "budget",
    "data",
    "estimate",
    "machine",
    "memory",
    "placement",
    "preflight",
    "promotion",
    "shapes",
    "stores",
    "text_amounts",
    "usual_values",
]
