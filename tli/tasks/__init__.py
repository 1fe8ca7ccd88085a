"""Downstream tasks: known by name, their data on this machine or the hub, scored by lm-evaluation-harness.

Promises: what cannot be evaluated is a problem before a model is touched; scores, their errors and each
document's result are those of the harness run by hand on the same model. Local files are read without a
network. Never trains, and changes nothing of the model that it is given. Needs the extra `eval`.
"""

__all__ = [
    "available",
    "batching",
    "checks",
    "harness",
    "kobest",
    "paired",
    "scores",
]
