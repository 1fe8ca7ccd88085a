"""A plan applied, to a model in memory or from folder to folder; its proof and its cost.

Promises: both ways give the same model, and a folder that was written is whole. Never changes the base.
"""

__all__ = [
    "activations",
    "attention_sizes",
    "cost",
    "experts_on_disk",
    "folders",
    "importance",
    "in_memory",
    "layer_sizes",
    "memory",
    "on_disk",
    "outside_sizes",
    "traffic",
    "verify",
    "verify_by_running",
    "verify_report",
]
