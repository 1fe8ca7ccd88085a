"""Checks of a sweep's text: whether it can be read, and whether there is enough of it."""

from __future__ import annotations

import glob
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

from sweeps.checks.text_amounts import amount_notes
from sweeps.errors import InputError, Problem
from sweeps.folders import Folders
from sweeps.spec import Spec
from tli.data import corpus
from tli.data.batches import ready_counts
from tli.data.dataset import Source
from tli.data.manifests import on_the_hub
from tli.data.settings import DataSettings
from tli.data.sources import source_problems
from tli.errors import DataError

if TYPE_CHECKING:
    from tli.data.amounts import Amounts
    from tli.models.base import Base

_MOST_FILES = 50  # of a source, whose first row is looked at


class Text:
    """What a spec says of its text, looked at without writing anything."""

    def __init__(self, spec: Spec) -> None:
        """Look at nothing yet."""
        self._spec, self._settings = spec, spec.data.to_tli()
        self._cache = Folders(spec.root, spec.name).tokens
        self._found: tuple[Amounts | None] | None = None  # once it was looked for

    @property
    def from_the_hub(self) -> bool:
        """Whether a part of the text is a dataset on the hub."""
        return any(on_the_hub(source) for source in self._settings.sources)

    def problems(self) -> Iterator[Problem]:
        """Sources that cannot be used; a dataset on the hub is asked for there."""
        found = source_problems(self._settings)
        if not found:
            try:
                _ = self._pinned
            except InputError as error:
                found = list(error.problems)
        yield from (replace(problem, where=self._where(problem.where)) for problem in found)
        wrong = {problem.where for problem in found}
        for source in self._settings.sources:
            if source.name != corpus.STDLIB and source.where not in wrong:
                yield from _first_rows(source)

    def notes(self, base: Base) -> Iterator[str]:
        """What is worth knowing of text that can be used: its commit on the hub, and how far it goes."""
        for asked, found in zip(self._settings.sources, self._pinned.sources, strict=True):
            if on_the_hub(asked) and asked.revision != found.revision:
                name = "revision" if asked.where == "data.source" else "heldout_revision"
                yield f"{asked.name} is at {found.revision} on the hub; data.{name} with that keeps it there"
        amounts = self._amounts(base)
        if amounts is not None:
            sides = amounts.train, amounts.heldout, amounts.test
            yield from amount_notes(self._spec, *sides, about=not amounts.counted)

    def heldout(self, base: Base) -> int | None:
        """Tokens of the held-out side, counted or estimated; None where neither can be done."""
        amounts = self._amounts(base)
        return None if amounts is None else amounts.heldout

    def train(self, base: Base) -> int | None:
        """Tokens of the training side, counted or estimated; None where neither can be done."""
        amounts = self._amounts(base)
        return None if amounts is None else amounts.train

    def shortages(self, base: Base) -> Iterator[Problem]:
        """Sides that are shorter than one sequence, or than one batch; only where tokens could be counted."""
        amounts = self._amounts(base)
        if amounts is None or not amounts.counted:
            return
        data, batch = self._spec.data, self._spec.trial.recipe.batch_tokens
        side = "data.source" if data.heldout is None else "data.heldout"
        for where, tokens, needed, what in (
            (side, amounts.heldout, data.sequence_length + 1, "held-out tokens, one sequence"),
            (side, amounts.test, data.sequence_length + 1, "test tokens, one sequence"),
            ("data.source", amounts.train, batch + 1, "training tokens, one batch"),
        ):
            if tokens < needed:
                got = f"{tokens:,} tokens of {what.partition(' ')[0]} text"
                yield Problem(self._spec.where(where), got, f"at least {needed:,} {what}", "more text")

    def _amounts(self, base: Base) -> Amounts | None:
        from tli.data.amounts import Amounts, amounts

        if self._found is None:
            counts = ready_counts(self._pinned, base, self._cache)
            self._found = (Amounts(**counts, counted=True) if counts else amounts(self._pinned, base),)
        return self._found[0]

    @cached_property
    def _pinned(self) -> DataSettings:
        return self._settings.pinned(self._cache)

    def _where(self, setting: str) -> str:
        known = setting.removeprefix("data.") in self._spec.data.to_json()
        return self._spec.where(setting) if known else setting


def _first_rows(source: Source) -> Iterator[Problem]:
    """Whether the first row of every file of rows can be read: the column is there, and holds text."""
    for file in corpus.matching_files(source.name)[:_MOST_FILES]:
        if file.suffix in (".jsonl", ".parquet"):
            try:
                next(corpus.documents(replace(source, name=glob.escape(str(file)))), None)
            except DataError as error:
                yield from error.problems
