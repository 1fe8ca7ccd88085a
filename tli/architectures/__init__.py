"""Facts of every architecture, as data: layers, residual writers, experts, configuration.

Promises: one row an architecture, and `family_of` finds it or says why there is none. Never holds a branch
for one model outside its row.
"""

__all__ = ["config", "family", "lengths", "lookup", "mixtures", "per_layer", "roles", "table"]
