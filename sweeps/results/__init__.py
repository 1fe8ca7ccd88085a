"""The answer of a sweep: pairs of seeds, intervals, the winner and its doubts; comparisons; export.

Promises: the same records give the same verdict, and a tie is called one. Never writes to the study.
"""

__all__ = [
    "bootstrap",
    "caveats",
    "compare",
    "equal_cost",
    "export",
    "finalists",
    "finding",
    "kept",
    "labels",
    "listing",
    "paired",
    "selection",
    "sweep",
    "tables",
    "unfinished",
    "verdict",
]
