"""The report: one self-contained HTML page of a sweep's answer, its figures and tables.

Promises: no network, numbers as in `sweeps best --json`, whatever comes from elsewhere is escaped. Never
decides anything.
"""

__all__ = ["content", "html", "tables", "writing"]
