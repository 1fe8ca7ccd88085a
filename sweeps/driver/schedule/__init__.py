"""What runs next: control, baseline, search, replicates; what is tried again; what the budget allows.

Promises: the same ledger gives the same next assignment, in process and on Ray. Never runs anything.
"""

__all__ = ["agenda", "retries", "spending"]
