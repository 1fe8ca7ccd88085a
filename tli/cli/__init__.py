"""The command `tli`: its options, its commands, and how an error reads.

Promises: bad input ends with exit code 2, all problems at once, before anything is written. Never computes:
the other folders do.
"""

__all__ = [
    "arguments",
    "commands",
    "console",
    "model_commands",
    "models",
    "plan_commands",
    "usage",
    "verbosity",
]
