"""What to try next, and what to stop: the space, what the sampler sees, sampling, stopping rules.

Promises: the same history and seed give the same proposal. Never sees the control, or a replicate.
"""

__all__ = [
    "conclusion",
    "estimates",
    "evidence",
    "features",
    "forecast",
    "halving",
    "learned",
    "model",
    "model_proposals",
    "normal",
    "observations",
    "process",
    "sampling",
    "sequences",
    "space",
    "stopping",
    "summaries",
    "threads",
    "valleys",
    "view",
]
