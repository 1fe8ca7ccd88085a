"""The errors of both packages, and the one form of every problem with input."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

SHOWN = 8  # problems named one by one in a file before the rest is only counted
ENOUGH = 1000  # problems after which a file is not read further

_PLACED = re.compile(r"(?P<file>.+?):(?P<line>\d+):(?P<column>\d+)(?: (?P<path>.+))?", re.DOTALL)


@dataclass(frozen=True)
class Problem:
    """One mistake in what the user gave: where it is, what stands there, what belongs there, how to mend it.

    Attributes
    ----------
    where : str
        A place to go to: a file, `file:line:column`, a dotted setting, an option.
    got, expected : str
        What stands there, and what belongs there.
    remedy : str
        What to try; empty where nothing is known.
    """

    where: str
    got: str
    expected: str
    remedy: str = ""

    def __str__(self) -> str:
        text = f"{self.where}: got {self.got}; expected {self.expected}"
        return f"{text}; try {self.remedy}" if self.remedy else text

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values; `file`, `line` and `column` (from 1) are null where no line is known."""
        placed = _PLACED.fullmatch(self.where)
        return {
            "file": placed["file"] if placed else None,
            "line": int(placed["line"]) if placed else None,
            "column": int(placed["column"]) if placed else None,
            "path": placed["path"] if placed else self.where,
            "got": self.got,
            "expected": self.expected,
            "try": self.remedy or None,
        }


class TliError(Exception):
    """Anything this project raises on purpose."""


class InputError(TliError, ValueError):
    """The user's mistake, with all problems found, one a line; a ``ValueError``, too.

    Commands end with exit code 2 and no traceback.

    Attributes
    ----------
    problems : tuple of Problem
        Each with ``where``, ``got``, ``expected`` and ``remedy``, all texts; the last may be empty.

    Examples
    --------
    >>> import tli
    >>> try:
    ...     tli.plan(8, k=9, init="idenity")
    ... except tli.InputError as error:
    ...     [(problem.where, problem.remedy) for problem in error.problems]
    [('injection.init', 'identity'), ('injection.k', '8')]
    """

    def __init__(self, *problems: Problem) -> None:
        assert problems, "an InputError names at least one problem"
        self.problems = problems
        super().__init__("\n".join(str(problem) for problem in problems))

    def __reduce__(self) -> tuple[type, tuple[Problem, ...]]:
        # Errors cross process borders; the default would rebuild them from the joined text.
        return type(self), self.problems


class PlanError(InputError):
    """Injection settings that do not describe a deeper model."""


class FamilyError(InputError):
    """An architecture that cannot be upscaled, with the reason."""


class CheckpointError(InputError):
    """A model folder that is missing, broken, unsafe or not a causal language model."""


class Problems:
    """The first problems of a file by name and the number of the others: a hostile one must fill neither the
    screen nor the memory.
    """

    def __init__(self, where: str) -> None:
        self.where, self.count = where, 0
        self._shown: list[Problem] = []

    def add(self, problem: Problem) -> None:
        """Takes one more."""
        self.count += 1
        if self.count <= SHOWN:
            self._shown.append(problem)

    def require(self) -> None:
        """Raises CheckpointError when there is any."""
        number = f"{self.count - SHOWN}{' or' * (self.count >= ENOUGH)}"
        more = [Problem(self.where, f"{number} more of the kind", "none")]
        if self.count:
            raise CheckpointError(*self._shown, *(more if self.count > SHOWN else []))


class DataError(InputError):
    """Text that is missing, empty, unreadable or used on both sides of the split."""


class DivergedError(TliError):
    """A loss or gradient that is not finite, or a held-out loss from which training does not come back.

    Examples
    --------
    >>> import numpy, tli
    >>> from tli.data.batches import Batches
    >>> ids = numpy.arange(1000) % 100
    >>> recipe = tli.Recipe(learning_rate=1e6, tokens=640, batch_tokens=64, clip=None)
    >>> batches, heldout = Batches(ids, 16, rows=4, seed=0), ids[:34].reshape(2, 17)
    >>> training = tli.Training(tli.load_model("my-model/"), recipe, batches, heldout)
    >>> try:
    ...     losses = [progress.eval_loss for progress in training.run([10])]
    ... except tli.DivergedError:
    ...     print(f"diverged, with a rate of {recipe.learning_rate:g}")
    diverged, with a rate of 1e+06
    """


class VerificationError(TliError):
    """A written model that is not what its plan says."""
