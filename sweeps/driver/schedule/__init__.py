"""What runs next: controls, baseline, search, runs under fresh seeds; retries; what the budget allows.

Promises: the same ledger gives the same next assignment, in process and on Ray. Never runs anything.
"""

__all__ = [
    "after_search",
    "agenda",
    "controls",
    "line_search",
    "orphans",
    "promotions",
    "retries",
    "spending",
]
