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
    "ladder",
    "listing",
    "longer",
    "looks",
    "margin",
    "matched",
    "method_table",
    "noise",
    "paired",
    "posterior",
    "rank_correlation",
    "ranking",
    "selection",
    "sentence",
    "setting_answers",
    "sweep",
    "tables",
    "task_scores",
    "unfinished",
    "unkept",
    "verdict",
    "winner",
]
