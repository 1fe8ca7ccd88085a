"""The answer of a sweep: whether to grow, claims with intervals, the winner; comparisons; export.

Promises: the same records give the same verdict, and what is not shown is called so. Never writes to the
study.
"""

__all__ = [
    "answer",
    "candidates",
    "caveats",
    "claims",
    "comparable",
    "compare",
    "coverage",
    "equal_cost",
    "export",
    "finalists",
    "finding",
    "kept",
    "labels",
    "listing",
    "looks",
    "margin",
    "matched",
    "noise",
    "paired",
    "posterior",
    "promotions",
    "ranking",
    "registration",
    "selection",
    "sentence",
    "setting_answers",
    "sweep",
    "tables",
    "unfinished",
    "unkept",
    "verdict",
    "winner",
]
