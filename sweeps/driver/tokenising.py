"""The token files of a sweep, made beside what else has to start."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Self

from sweeps.driver.watchers import Watcher, doing
from sweeps.folders import Folders
from sweeps.spec import Spec
from sweeps.wording import masked

if TYPE_CHECKING:
    from tli.data.tokenise import Progress
    from tli.models.base import Base


class Tokenising:
    """The token files, made in a thread while the cluster starts; not finished where the sweep is stopped."""

    def __init__(self, spec: Spec, base: Base, watcher: Watcher) -> None:
        """Begin: spec with absolute paths."""
        self._spec, self._base, self._watcher = spec, base, watcher
        self._stopped = False
        self._thread = ThreadPoolExecutor(1)
        self._made = self._thread.submit(self._make)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped = True
        self._thread.shutdown()

    def digest(self) -> str:
        """What tells the text from another, once it is made."""
        return self._made.result()

    def _make(self) -> str:
        """Make the token files, if they are not there, and see that each side is long enough.

        Here and not in a worker, so that text that will not do ends the command before it is in the ledger.
        """
        from tli.data.batches import tokens_ready
        from tli.data.mixture import open_mixture

        spec, data = self._spec, self._spec.data
        cache, portions = Folders(spec.root, spec.name).tokens, data.portions()
        for each in portions:
            if not tokens_ready(each.settings, self._base, cache):
                self._watcher.note(f"tokenising {masked(each.settings.source)}, once")
        with doing(self._watcher, "tokenising"):
            texts = open_mixture(portions, self._base, cache, on_progress=self._show)
        texts.heldout_windows(sequence_length=data.sequence_length, eval_tokens=data.eval_tokens)
        texts.test_windows(sequence_length=data.sequence_length, test_tokens=data.test_tokens)
        batch = spec.trial.recipe.batch_tokens
        texts.batches(sequence_length=data.sequence_length, batch_tokens=batch, seed=spec.trial.seed)
        return texts.digest

    def _show(self, now: Progress) -> None:
        if self._stopped:
            raise _StoppedError
        self._watcher.progress("tokenising", f"{now.tokens:,} tokens", now.share)


class _StoppedError(Exception):
    """Ends the making of token files that are not waited for any more."""
