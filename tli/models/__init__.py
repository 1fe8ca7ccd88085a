"""A base model: found by folder or hub id, checked before it is loaded, loaded, and named.

Promises: `find` gives a base whose files agree with each other, or all problems; the fingerprint names its
bytes. Never runs code that a model brings, unless that was allowed.
"""

__all__ = [
    "base",
    "config_checks",
    "descriptions",
    "fingerprint",
    "hub",
    "known_names",
    "licence",
    "lineage",
    "loading",
    "model_files",
    "quantised",
    "references",
    "stored_shapes",
]
