"""Training of one model: the recipe, the loop as a generator, evaluation, training states, export.

Promises: closing the loop ends it, and a state that was written goes on to the same losses. Never knows what
a trial is.
"""

__all__ = [
    "acceleration",
    "device",
    "evaluate",
    "export",
    "feed",
    "frozen",
    "heldout",
    "loop",
    "losses",
    "micro_batches",
    "moments",
    "optimizer",
    "packed",
    "readings",
    "recipe",
    "recipe_checks",
    "saver",
    "state",
]
