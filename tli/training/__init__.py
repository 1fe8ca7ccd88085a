"""Training of one model: the recipe, the loop as a generator, evaluation, training states, export.

Promises: closing the loop ends it, and a state that was written goes on to the same losses. Never knows what
a trial is.
"""

__all__ = [
    "device",
    "evaluate",
    "export",
    "frozen",
    "loop",
    "optimizer",
    "packed",
    "recipe",
    "recipe_checks",
    "saver",
    "state",
]
