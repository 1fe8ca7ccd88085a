"""What a process keeps between trials (`WorkerContext`), as those see it that only use it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from sweeps.spec import Spec

if TYPE_CHECKING:
    from tli.models.base import Base
    from tli.tasks.harness import Harness


class Keeps(Protocol):
    """The base, the spec, and this process's part among those that train a model together."""

    spec: Spec
    base: Base
    leads: bool
    alone: bool

    @property
    def harness(self) -> Harness:
        """The spec's tasks with their documents."""

    def any_rank(self, wish: bool) -> bool:  # noqa: FBT001 - a vote
        """Whether any process of those that train a model together wants something."""
