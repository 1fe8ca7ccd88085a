"""What is asked for, and which layer of the deeper model comes from where: integers, no torch.

Promises: a plan that was made can be carried out for its depth, and its JSON gives the same plan back;
problems come all at once, as PlanError. Never reads a weight, a configuration or a file.
"""

__all__ = ["checks", "described", "experts", "injection", "keywords", "plan", "stack"]
