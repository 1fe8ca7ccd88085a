"""The report of a verification, and its subject."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from tli.errors import VerificationError
from tli.models.base import Base
from tli.planning.plan import Plan


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes
    ----------
    name : str
        What: base, depth, experts, beside, tensors, finite, and what running shows.
    ok : bool
        Whether it is as it should be.
    detail : str
        What was found, or the first difference.
    """

    name: str
    ok: bool
    detail: str


@dataclass(frozen=True)
class Report:
    """All checks of a folder, in the order they were made; true where all of them are well.

    Attributes
    ----------
    folder : str
        What was verified.
    checks : tuple of Check
        A check that could not be made is one that is not well.
    """

    folder: str
    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Whether everything is as it should be."""
        return all(check.ok for check in self.checks)

    def __bool__(self) -> bool:
        return self.ok

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {"folder": self.folder, "ok": self.ok, "checks": [asdict(check) for check in self.checks]}

    def require(self) -> None:
        """Raises VerificationError with the first difference."""
        for check in self.checks:
            if not check.ok:
                raise VerificationError(f"{self.folder}: {check.name}: {check.detail}")


@dataclass(frozen=True)
class Subject:
    """What is verified, and against what."""

    written: Base
    base: Base
    plan: Plan
    lineage: dict[str, Any]

    @property
    def trained(self) -> bool:
        """Whether the weights went on from where the plan put them."""
        return "training" in self.lineage
