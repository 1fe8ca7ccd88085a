"""What is printed: the live table, summaries, comparisons.

Promises: what comes from elsewhere cannot steer a terminal; plain lines where there is none. Never decides
anything.
"""

__all__ = ["comparison", "delimited", "live", "next_commands", "rows", "status", "summary"]
