"""A promotion: a trial of a sweep, trained on a larger budget; where it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Promotion:
    """Where a long run comes from.

    Attributes
    ----------
    of : int
        Number of the trial whose settings it has, with more tokens.
    first_steps : int
        Optimizer steps of that trial: at the steps where it was measured, the long run is measured, too.
    begins : int or None
        The trial, or shorter promotion, from whose state it goes on; None where it trains afresh.
    why : str
        Why it trains afresh; empty where it goes on.
    beside : int or None
        Of the control of a promotion, the number of that promotion, whose FLOPs it spends.
    """

    of: int
    first_steps: int
    begins: int | None = None
    why: str = ""
    beside: int | None = None

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Promotion:
        """The inverse of `to_json`.

        Raises:
            TypeError: it is not that.
        """
        if not isinstance(value, Mapping) or value.keys() != {each.name for each in fields(cls)}:
            raise TypeError("other values than those of a promotion")
        numbers = {name: value[name] for name in ("begins", "beside") if value[name] is not None}
        for number in (value["of"], value["first_steps"], *numbers.values()):
            if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < 2**53:
                raise TypeError("a whole number is wanted")
        if not isinstance(value["why"], str):
            raise TypeError("a text is wanted")
        return cls(**value)

    @property
    def words(self) -> str:
        """`from the state of trial 5`, or `afresh, as the rate of its trial falls to zero`."""
        return f"from the state of trial {self.begins}" if self.begins is not None else f"afresh: {self.why}"
