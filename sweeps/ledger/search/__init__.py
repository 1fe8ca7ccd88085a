"""What to try next, and what to stop: the space, what the sampler sees, sampling, stopping rules.

Promises: the same history and seed give the same proposal. Never sees the control, or a replicate.
"""

__all__ = [
    "apart",
    "conclusion",
    "drawing",
    "estimates",
    "evidence",
    "features",
    "forecast",
    "front_proposals",
    "halving",
    "learned",
    "model",
    "model_proposals",
    "normal",
    "observations",
    "prior",
    "process",
    "proposing",
    "sampling",
    "score_front",
    "sequences",
    "space",
    "stopping",
    "summaries",
    "threads",
    "valleys",
    "view",
]
