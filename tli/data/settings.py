"""`DataSettings`: what text is trained on, what is held out, and what is test text."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from tli.data import corpus
from tli.data.dataset import Source
from tli.data.manifests import pinned_commit
from tli.data.packing import Packing


@dataclass(frozen=True)
class DataSettings:
    """What text is trained on and what is not.

    Without `heldout`, a fixed share of the documents is not trained on, chosen by a hash of their text; a
    source of one single document is cut, and its end is that. Of what is not trained on one half is held out:
    losses on it choose. The other half is test text, for what is claimed of what was chosen.

    Split, configuration and revision are those of a Hugging Face dataset. Where those of `heldout` are left
    out, they are those of `source` if it is the same dataset; of another one the same split, the only
    configuration and the main branch. `max_tokens` ends the training side; no more is read than that takes.

    `packing` says what windows take notice of: nothing ("stream"), so a token sees all of its window that is
    before it, or documents, which then do not see each other and whose first token is not predicted.
    """

    source: str = corpus.STDLIB
    heldout: str | None = None
    heldout_fraction: float = 0.05
    text_field: str = "text"
    split: str = "train"
    configuration: str | None = None
    revision: str | None = None
    heldout_split: str | None = None
    heldout_configuration: str | None = None
    heldout_revision: str | None = None
    max_tokens: int | None = None
    packing: Packing = "stream"
    sequence_length: int = 128
    eval_tokens: int = 16_384
    test_tokens: int = 65_536

    @property
    def train_source(self) -> Source:
        """Where the training text is read from."""
        return Source(self.source, self.text_field, self.split, self.configuration, self.revision)

    @property
    def heldout_source(self) -> Source | None:
        """Where the held-out text is read from, if it is another place."""
        if self.heldout is None:
            return None
        same = self.heldout == self.source
        return Source(
            self.heldout,
            self.text_field,
            self.heldout_split or self.split,
            self.heldout_configuration or (self.configuration if same else None),
            self.heldout_revision or (self.revision if same else None),
            where="data.heldout",
        )

    @property
    def sources(self) -> tuple[Source, ...]:
        """The one or two of them."""
        return (self.train_source, *([self.heldout_source] if self.heldout_source else []))

    def pinned(self, cache: Path) -> DataSettings:
        """The same text for good: datasets on the hub at the commits that they are at now.

        Where the hub cannot be reached, those of which token files are in the cache.

        Raises:
            DataError: there is no such dataset or revision, or neither the hub nor token files.
        """
        commits = tuple(pinned_commit(source, cache) for source in self.sources)
        return replace(self, revision=commits[0], heldout_revision=commits[1] if commits[1:] else None)
