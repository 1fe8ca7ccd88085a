"""Several texts as one: batches that mix sources by weight, and held-out text of each beside the others.

Every text has token files of its own, so that another weight or one more source makes none anew.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tli.data.batches import Batches, Tokens, open_tokens
from tli.data.overlap import overlaps
from tli.data.portions import Portion, exact_weights, placing, portion_problems, shares
from tli.data.tokenise import OnProgress
from tli.errors import DataError

if TYPE_CHECKING:
    import numpy as np

    from tli.models.base import Base


class Mixture:
    """Texts whose token files are open, in the order of their settings.

    Attributes:
        portions: all of them.
        tokens: their token files, by name.
        shares: the part of each trained text in all tokens that are trained on, by name.
        digest: of all texts, names and weights; of a single text, that of its token files.
    """

    def __init__(self, portions: Sequence[Portion], tokens: Mapping[str, Tokens]) -> None:
        self.portions, self.tokens = tuple(portions), dict(tokens)
        self.shares = shares(portions)
        self.digest = _digest(self.portions, self.tokens)

    def batches(self, *, sequence_length: int, batch_tokens: int, seed: int) -> Batches:
        """Training batches of `batch_tokens` predicted tokens each.

        Raises:
            DataError: a single text is shorter than one batch, one of several than a sequence.
        """
        rows = batch_tokens // sequence_length
        trained = [each for each in self.portions if each.trained]
        if len(trained) == 1:
            with placing(trained[0]):
                return self.tokens[trained[0].name].batches(
                    sequence_length=sequence_length, batch_tokens=batch_tokens, seed=seed
                )
        streams = {}
        for each in trained:
            found = self.tokens[each.name]
            with placing(each):
                streams[each.name] = Batches(found.train, sequence_length, 1, seed, found.starts["train"])
        return MixedBatches(list(streams.values()), whole_weights(trained), rows)

    def heldout_windows(self, *, sequence_length: int, eval_tokens: int) -> dict[str, np.ndarray]:
        """Windows of each text's held-out side, by name; every text has as many of the tokens.

        Raises:
            DataError: a held-out side is shorter than one window.
        """
        each_tokens = eval_tokens // len(self.portions)
        windows = {}
        for each in self.portions:
            with placing(each):
                windows[each.name] = self.tokens[each.name].heldout_windows(
                    sequence_length=sequence_length, eval_tokens=each_tokens
                )
        return windows

    def test_windows(self, *, sequence_length: int, test_tokens: int) -> dict[str, np.ndarray]:
        """Windows of each text's test side, by name; every text has as many of the tokens.

        Raises:
            DataError: a test side is shorter than one window.
        """
        each_tokens = test_tokens // len(self.portions)
        windows = {}
        for each in self.portions:
            with placing(each):
                windows[each.name] = self.tokens[each.name].test_windows(
                    sequence_length=sequence_length, test_tokens=each_tokens
                )
        return windows


def open_mixture(
    portions: Sequence[Portion],
    base: Base,
    cache: Path,
    *,
    on_progress: OnProgress = lambda _progress: None,
    workers: int | None = None,
) -> Mixture:
    """The token files of several texts, those that are not in the cache made now; as `open_tokens` does.

    Raises:
        DataError: what `open_tokens` raises, of all texts at once; or two of them are the same text.
        CheckpointError: the base has no tokenizer, or one that is not the model's.
    """
    if problems := portion_problems(portions):
        raise DataError(*problems)
    found: dict[str, Tokens] = {}
    for each in portions:
        try:
            with placing(each):
                found[each.name] = open_tokens(
                    each.settings, base, cache, on_progress=on_progress, workers=workers
                )
        except DataError as error:
            problems += error.problems
    problems += overlaps(portions, found)
    if problems:
        raise DataError(*problems)
    return Mixture(portions, found)


def _digest(portions: Sequence[Portion], tokens: Mapping[str, Tokens]) -> str:
    if len(portions) == 1:
        return tokens[portions[0].name].digest
    parts = shares(portions)
    lines = (f"{each.name} {parts.get(each.name)} {tokens[each.name].digest}\n" for each in portions)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def whole_weights(portions: Sequence[Portion]) -> list[int]:
    """Weights of trained texts as the smallest whole numbers of the same proportion."""
    exact = list(exact_weights(portions).values())
    scale = math.lcm(*(each.denominator for each in exact))
    whole = [int(each * scale) for each in exact]
    return [each // math.gcd(*whole) for each in whole]


def allotted(rows: int, weights: Sequence[int]) -> list[int]:
    """How many of the first `rows` sequences come from each source; together `rows`, and never fewer later.

    By the method of Webster and Sainte-Laguë: sequence j (from 0) of a source of weight w stands at
    (j + 1/2) / w, and the sequences of all sources are taken in the order of their places. The counts follow
    from the number of rows alone, so any step can be begun at.
    """
    total, count = sum(weights), len(weights)
    # All that stand before (rows - count / 2) / total; that leaves `count` places or fewer to be filled.
    found = [max(0, (weight * (2 * rows - count) + total) // (2 * total)) for weight in weights]
    scale = math.lcm(*weights)
    while sum(found) < rows:
        nearest = min(range(count), key=lambda i: (2 * found[i] + 1) * (scale // weights[i]))
        found[nearest] += 1
    return found


class MixedBatches(Batches):
    """Batches of several sources in a fixed proportion of sequences, and so of tokens.

    Each source has the order that it would have alone: every window once an epoch. A batch depends on seed
    and step alone. A source that is used up begins again, in another order.
    """

    def __init__(self, streams: Sequence[Batches], weights: Sequence[int], rows: int) -> None:
        """Nothing is read before the first batch.

        Args:
            streams: of one row a step, one for each source.
            weights: their proportion.
            rows: of a batch.
        """
        self._streams, self._weights = list(streams), list(weights)
        self._scale = math.lcm(*weights)
        self.sequence_length, self.seed = streams[0].sequence_length, streams[0].seed
        self.rows = rows

    @property
    def packed(self) -> bool:
        """Whether windows know where documents start."""
        return self._streams[0].packed

    def __getitem__(self, step: int) -> np.ndarray:
        """The batch of one step (counted from 0), shape [rows, sequence_length + 1], or packed."""
        import numpy as np

        begins = allotted(step * self.rows, self._weights)
        ends = allotted((step + 1) * self.rows, self._weights)
        places = [
            ((2 * number + 1) * (self._scale // weight), source, number)
            for source, weight in enumerate(self._weights)
            for number in range(begins[source], ends[source])
        ]
        return np.concatenate([self._streams[source][number] for _, source, number in sorted(places)])
