"""The section of a spec about what its trials run on."""

from __future__ import annotations

from sweeps.spec.section import Settings, setting


class ResourceSettings(Settings):
    """What each process of one trial gets, how many train it together, and how many trials run at once (null:
    as many as fit).
    """

    cpus: int = setting("a whole number of at least 1", 1, ge=1)
    gpus: float = setting("a number from 0 to 1 (a share of one GPU)", 0.0, example=0, ge=0)
    workers: int = setting("a whole number of at least 1 (processes, or ranks, of one trial)", 1, ge=1)
    parallel: int | None = setting("a whole number of at least 1, or null for as many as fit", None, ge=1)

    @property
    def of_a_trial(self) -> tuple[int, float, int]:
        """What one trial has: CPUs and GPUs of a rank, and ranks."""
        return self.cpus, self.gpus, self.workers

    @property
    def all_gpus(self) -> float:
        """GPUs of one trial, of all its ranks together."""
        return self.gpus * self.workers
