"""The tracker's interface, and the tracker that does nothing."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

from sweeps.records import Point, State

Values = Mapping[str, Any]
Objective = tuple[int, float, float]  # trials, held-out loss of the best, when it was known


class Tracking(Protocol):
    """What a driver tells of a sweep as it goes. No method raises, waits for a server or loads a library."""

    def open_sweep(
        self, params: Values, tags: Values, *, again: bool = True, when: float | None = None
    ) -> None:
        """Begin the sweep, or, if it had ended, go on with it if it does `again`; `params` may be nested.

        It began `when`, now if left out.
        """

    def declare(
        self, number: int, settings: Values, tags: Values, when: float | None = None, name: str | None = None
    ) -> None:
        """A trial began, or goes on; `settings` is its whole `trial:` section, `when` now if left out.

        `name` is that of its run; its number where left out.
        """

    def points(self, number: int, attempt: int, points: Sequence[Point]) -> None:
        """Measurements of a trial; those told before are left out."""

    def end(
        self, number: int, status: State, tags: Values, metrics: Values, when: float | None = None
    ) -> None:
        """A trial is over, or was, `when`; metrics that are None are left out."""

    def register(self, number: int, attempt: int, names: Sequence[str], tags: Values) -> None:
        """The model of an attempt at a trial is to be in the registry under these names, with these tags."""

    def knows(self, number: int, steps: Collection[int], request: str | None = None) -> bool:
        """Whether a trial's end and its held-out losses at these steps were told; all of it was, then.

        With `request`, of the trial that was created under this key: a number may be given again.
        """

    def end_sweep(self, tags: Values, objectives: Sequence[Objective], when: float) -> None:
        """The sweep is over; its best loss each time that it was."""

    def rank(self, numbers: Sequence[int], first: Sequence[int] = ()) -> None:
        """The complete trials, best first; and those that stand before the others in a list of runs."""

    def gaps_against(self) -> int | None:
        """The control that gaps were told against; None where none were."""

    def gaps(self, number: int, against: int, gaps: Mapping[int, float], final: float | None) -> None:
        """A trial's losses less those of a control, by step, and that of its objective; each once."""

    def mark(self, number: int | None, tags: Values, *, again: bool = False) -> None:
        """Tags of a trial's run, or of the sweep's, that say nothing of how it stands.

        `again`: only where such tags were told of it before, which these take the place of.
        """

    def describe(self, tags: Values) -> None:
        """Tags of the experiment."""

    def report(self) -> None:
        """The HTML page in the sweep's folder was written anew."""

    def close(self, timeout: float) -> bool:
        """Wait at most so many seconds for the rest to be delivered; whether all of it was."""


class NullTracker:
    """`tracking: null`: takes everything and keeps nothing."""

    def open_sweep(
        self, params: Values, tags: Values, *, again: bool = True, when: float | None = None
    ) -> None:
        """Nothing to do."""

    def declare(
        self, number: int, settings: Values, tags: Values, when: float | None = None, name: str | None = None
    ) -> None:
        """Nothing to do."""

    def points(self, number: int, attempt: int, points: Sequence[Point]) -> None:
        """Nothing to do."""

    def end(
        self, number: int, status: State, tags: Values, metrics: Values, when: float | None = None
    ) -> None:
        """Nothing to do."""

    def register(self, number: int, attempt: int, names: Sequence[str], tags: Values) -> None:
        """Nothing to do."""

    def knows(self, number: int, steps: Collection[int], request: str | None = None) -> bool:  # noqa: ARG002
        """Nothing has to be told."""
        return True

    def end_sweep(self, tags: Values, objectives: Sequence[Objective], when: float) -> None:
        """Nothing to do."""

    def rank(self, numbers: Sequence[int], first: Sequence[int] = ()) -> None:
        """Nothing to do."""

    def gaps_against(self) -> int | None:
        """No control."""
        return None

    def gaps(self, number: int, against: int, gaps: Mapping[int, float], final: float | None) -> None:
        """Nothing to do."""

    def mark(self, number: int | None, tags: Values, *, again: bool = False) -> None:
        """Nothing to do."""

    def describe(self, tags: Values) -> None:
        """Nothing to do."""

    def report(self) -> None:
        """Nothing to do."""

    def close(self, timeout: float) -> bool:  # noqa: ARG002
        """Nothing is left to deliver."""
        return True
