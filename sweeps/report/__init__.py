"""What is printed: the live table, the answer, comparisons.

Promises: what comes from elsewhere cannot steer a terminal; plain lines where there is none. Never decides
anything.
"""

__all__ = [
    "answer",
    "comparison",
    "delimited",
    "finalists",
    "ladder",
    "live",
    "longer",
    "method_table",
    "next_commands",
    "overview",
    "rows",
    "status",
    "styled",
    "summary",
]
