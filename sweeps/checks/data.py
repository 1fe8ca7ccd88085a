"""Checks of a sweep's text: whether it can be read, and whether there is enough of it."""

from __future__ import annotations

import glob
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

from sweeps.checks.text_amounts import amount_notes, mixture_notes
from sweeps.errors import InputError, Problem
from sweeps.folders import Folders
from sweeps.spec import Spec
from tli.data import corpus
from tli.data.batches import ready_counts
from tli.data.dataset import Source
from tli.data.manifests import on_the_hub
from tli.data.portions import Portion, portion_problems, shares
from tli.errors import DataError

if TYPE_CHECKING:
    from tli.data.amounts import Amounts
    from tli.models.base import Base

_MOST_FILES = 50  # of a source, whose first row is looked at


class Text:
    """What a spec says of its texts, looked at without writing anything."""

    def __init__(self, spec: Spec) -> None:
        """Look at nothing yet."""
        self._spec, self._portions = spec, spec.data.portions()
        self._cache = Folders(spec.root, spec.name).tokens
        self._found: dict[str, Amounts | None] | None = None  # once it was looked for

    @property
    def from_the_hub(self) -> bool:
        """Whether a part of the text is a dataset on the hub."""
        return any(on_the_hub(source) for each in self._portions for source in each.settings.sources)

    def problems(self) -> Iterator[Problem]:
        """Sources that cannot be used; a dataset on the hub is asked for there."""
        found = portion_problems(self._portions)
        if not found:
            try:
                _ = self._pinned
            except InputError as error:
                found = list(error.problems)
        yield from (replace(problem, where=self._where(problem.where)) for problem in found)
        wrong = {problem.where for problem in found}
        for each in self._portions:
            for source in each.settings.sources:
                place = each.placed(Problem(source.where, "", "")).where
                if source.name != corpus.STDLIB and place not in wrong:
                    yield from (each.placed(problem) for problem in _first_rows(source))

    def notes(self, base: Base) -> Iterator[str]:
        """What is worth knowing of text that can be used: its commit on the hub, and how far it goes."""
        for portion, pinned in zip(self._portions, self._pinned, strict=True):
            for asked, found in zip(portion.settings.sources, pinned.settings.sources, strict=True):
                if on_the_hub(asked) and asked.revision != found.revision:
                    name = "revision" if asked.where == "data.source" else "heldout_revision"
                    keeps = f"{portion.where}.{name} with that keeps it there"
                    yield f"{asked.name} is at {found.revision} on the hub; {keeps}"
        known = {name: each for name, each in self._amounts(base).items() if each is not None}
        for name, each in known.items():
            sides = each.train, each.heldout, each.test
            yield from amount_notes(self._spec, name, *sides, about=not each.counted)
        trained = {name: each.train for name, each in known.items()}
        yield from mixture_notes(self._spec, trained, about=not all(each.counted for each in known.values()))

    def heldout(self, base: Base) -> int | None:
        """Tokens of the held-out sides, counted or estimated; None where neither can be done."""
        found = [None if each is None else each.heldout for each in self._amounts(base).values()]
        known = [each for each in found if each is not None]
        return sum(known) if len(known) == len(found) else None

    def train(self, base: Base) -> int | None:
        """Tokens of training after which a text begins again; None where they cannot be counted or estimated.

        Of one text all of its training side; of several that which is used up first, by its share.
        """
        found, portions = self._amounts(base), shares(self._portions)
        known = [(each.train, share) for name, share in portions.items() if (each := found[name]) is not None]
        return min(int(train / share) for train, share in known) if len(known) == len(portions) else None

    def shortages(self, base: Base) -> Iterator[Problem]:
        """Sides that are shorter than one sequence, or than one batch; only where tokens could be counted."""
        data, batch = self._spec.data, self._spec.trial.recipe.batch_tokens
        sequence = data.sequence_length + 1
        alone = len(data.sources) < 2  # else a batch has a part of its sequences from each
        for each in self._portions:
            amounts = self._amounts(base)[each.name]
            if amounts is None or not amounts.counted:
                continue
            side = "source" if each.settings.heldout is None else "heldout"
            train = (batch + 1, "training tokens, one batch") if alone else (sequence, "training tokens")
            wanted = [
                (side, amounts.heldout, sequence, "held-out tokens, one sequence"),
                (side, amounts.test, sequence, "test tokens, one sequence"),
                *([("source", amounts.train, *train)] if each.trained else []),
            ]
            for field, tokens, needed, what in wanted:
                if tokens < needed:
                    got = f"{tokens:,} tokens of {what.partition(' ')[0]} text"
                    place = self._spec.where(f"{each.where}.{field}")
                    yield Problem(place, got, f"at least {needed:,} {what}", "more text")

    def _amounts(self, base: Base) -> dict[str, Amounts | None]:
        from tli.data.amounts import Amounts, amounts

        if self._found is None:
            self._found = {}
            for each in self._pinned:
                counts = ready_counts(each.settings, base, self._cache)
                known = Amounts(**counts, counted=True) if counts else amounts(each.settings, base)
                self._found[each.name] = known
        return self._found

    @cached_property
    def _pinned(self) -> list[Portion]:
        return [each.pinned(self._cache) for each in self._portions]

    def _where(self, setting: str) -> str:
        return self._spec.where(setting) if setting == "data" or setting.startswith("data.") else setting


def _first_rows(source: Source) -> Iterator[Problem]:
    """Whether the first row of every file of rows can be read: the column is there, and holds text."""
    for file in corpus.matching_files(source.name)[:_MOST_FILES]:
        if file.suffix in (".jsonl", ".parquet"):
            try:
                next(corpus.documents(replace(source, name=glob.escape(str(file)))), None)
            except DataError as error:
                yield from error.problems
