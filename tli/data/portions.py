"""`Portion`: one text among several that are mixed by weight, or one that is only measured."""

from __future__ import annotations

import filecmp
import itertools
import math
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

from tli.data import corpus
from tli.data.corpus import matching_files
from tli.data.dataset import Source
from tli.data.settings import DataSettings
from tli.data.sources import source_problems
from tli.errors import DataError, Problem

MEASURED_SHARE = 0.99  # of a text that is only measured; a part of it would be left to train on, at the least


@dataclass(frozen=True)
class Portion:
    """One text among several.

    Attributes:
        name: that its losses are reported under.
        settings: where it is read from and how it is split; `sequence_length` and the like are not read.
        weight: its part of the tokens that are trained on, beside the weights of the others; None of a text
            that is only measured.
        where: the section of settings that it came from, for messages.
    """

    name: str
    settings: DataSettings
    weight: float | None = 1.0
    where: str = "data"

    @property
    def trained(self) -> bool:
        """Whether it is trained on."""
        return self.weight is not None

    def pinned(self, cache: Path) -> Portion:
        """The same text for good: datasets on the hub at the commits that they are at now.

        Raises:
            DataError: there is no such dataset or revision, or neither the hub nor token files.
        """
        with placing(self):
            return replace(self, settings=self.settings.pinned(cache))

    def placed(self, problem: Problem) -> Problem:
        """A problem of its settings, at their own place and not at that of a single source."""
        if self.where == "data":
            return problem
        if not self.trained:  # which has no held-out text of another place
            remedy = "other text" if problem.remedy.startswith("data.heldout") else problem.remedy
            problem = replace(
                problem, where=problem.where.replace("data.heldout", "data.source"), remedy=remedy
            )
        where, remedy = (
            f"{self.where}.{text.removeprefix('data.')}" if text.startswith("data.") else text
            for text in (problem.where, problem.remedy)
        )
        return replace(problem, where=where, remedy=remedy)


@contextmanager
def placing(portion: Portion) -> Iterator[None]:
    """Problems that are raised within name the place of this text's settings."""
    try:
        yield
    except DataError as error:
        raise DataError(*map(portion.placed, error.problems)) from None


def shares(portions: Sequence[Portion]) -> dict[str, float]:
    """The part of each trained text in all tokens that are trained on, by name; together 1."""
    exact = exact_weights(portions)
    total = sum(exact.values())
    return {name: float(weight / total) for name, weight in exact.items()}


def exact_weights(portions: Sequence[Portion]) -> dict[str, Fraction]:
    """Weights by name as they are written: 0.1 is a tenth."""
    return {each.name: Fraction(repr(each.weight)) for each in portions if each.weight is not None}


def portion_problems(portions: Sequence[Portion]) -> list[Problem]:
    """What is wrong with texts, each and together; files of one size alone are read, and not the hub."""
    problems: list[Problem] = []
    for each in portions:
        problems += source_problems(each.settings, each.where)
        weight = each.weight
        if weight is not None and not (math.isfinite(weight) and weight > 0):
            problems.append(Problem(f"{each.where}.weight", repr(weight), "a finite number above 0", "1.0"))
    names = [each.name for each in portions]
    problems += [
        Problem(each.where, f"the name {each.name!r} again", "a name of its own", f"{each.name}_2")
        for place, each in enumerate(portions)
        if each.name in names[:place]
    ]
    if not any(each.trained for each in portions):
        problems.append(Problem("data", "no text to train on", "one source at least", "data.source: TEXT"))
    return problems + list(_shared(portions))


def _shared(portions: Sequence[Portion]) -> Iterator[Problem]:
    """Texts that two portions read: what one holds out the other would train on."""
    for one, other in itertools.combinations(portions, 2):
        for ours, theirs in itertools.product(one.settings.sources, other.settings.sources):
            what = _same(theirs, ours)
            if what is not None:
                field = theirs.where.rpartition(".")[2]
                got = f"{what}, which is also text of {one.name!r} ({one.where})"
                where = f"{other.where}.{field}"
                yield Problem(where, got, "text of its own", "other text, or deleting one of the two")
                break


def _same(ours: Source, theirs: Source) -> str | None:
    """What two sources both read; None where that is nothing, as far as names and files tell."""
    if ours.name == theirs.name and (ours.name == corpus.STDLIB or not matching_files(ours.name)):
        alike = replace(ours, where="", text_field="") == replace(theirs, where="", text_field="")
        return ours.shown if alike else None
    mine, others = ({path.resolve() for path in matching_files(each.name)} for each in (ours, theirs))
    if shared := mine & others:
        return repr(str(min(shared)))
    copies = _copies(mine, others)
    return None if copies is None else f"{str(copies[0])!r}, with the bytes of {str(copies[1])!r}"


def _copies(mine: Collection[Path], others: Collection[Path]) -> tuple[Path, Path] | None:
    """Two files with the same bytes; those of one size alone are read, up to where they differ."""
    sizes: dict[int, list[Path]] = {}
    for path in sorted(others):
        sizes.setdefault(path.stat().st_size, []).append(path)
    for path in sorted(mine):
        size = path.stat().st_size
        for other in sizes.get(size, ()) if size else ():
            if filecmp.cmp(path, other, shallow=False):
                return path, other
    return None
