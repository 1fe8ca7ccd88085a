"""First weights of new layers and experts, from the layers beside them or from a seed.

Promises: the same plan, base and seed give the same bytes, in memory and on disk. Never writes a file.
"""

__all__ = [
    "align",
    "assignment",
    "box_muller",
    "combine",
    "elementwise",
    "initial",
    "layers",
    "normal",
    "predict",
    "upcycle",
]
