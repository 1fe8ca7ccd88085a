"""Two models on the same documents: the difference of their scores, with an interval over documents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import comb
from typing import Any

RESAMPLES = 2000  # of the documents; the ends of an interval move by some 3 % of its width
_AT_ONCE = 2**22  # numbers drawn together
_SEED = 0  # the same scores give the same interval, wherever they are read


@dataclass(frozen=True)
class PairedDifference:
    """The mean score of one model minus that of another, by document.

    Attributes:
        mean: above 0 where the first scored more.
        low, high: ends of the 95 % interval, by percentiles of the bootstrap over documents; None where all
            documents have the same difference, which says nothing of others.
        documents: how many.
        runs: of each side whose results are averaged by document first.
        p: two-sided, of McNemar's exact test; only for one run of each side whose results are right or wrong.
    """

    mean: float
    low: float | None
    high: float | None
    documents: int
    runs: int
    p: float | None

    @property
    def significant(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low is not None and self.high is not None and not self.low <= 0 <= self.high

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values, with how the interval came about."""
        return {**asdict(self), "interval": "bootstrap over documents, 95 %"}


def paired_difference(
    ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]]
) -> PairedDifference | None:
    """Compare two models by document; None where there is nothing to compare.

    Args:
        ours, theirs: results by document of each run, in the same order of documents; run i of both has the
            same seed.
    """
    import numpy as np

    shape = {len(each) for each in (*ours, *theirs)}
    if not ours or len(ours) != len(theirs) or len(shape) != 1 or shape == {0}:
        return None
    first, second = np.asarray(ours, dtype=float), np.asarray(theirs, dtype=float)
    differences = (first - second).mean(axis=0)
    count = len(differences)
    low = high = None
    if len(np.unique(differences)) > 1:
        generator = np.random.default_rng(_SEED)
        means: list[float] = []
        for _ in range(0, RESAMPLES, step := max(1, min(RESAMPLES, _AT_ONCE // count))):
            picked = generator.integers(0, count, size=(min(step, RESAMPLES - len(means)), count))
            means += differences[picked].mean(axis=1).tolist()
        low, high = (float(each) for each in np.percentile(means, [2.5, 97.5]))
    p = None
    if len(ours) == 1 and set(np.unique(np.concatenate([first, second]))) <= {0.0, 1.0}:
        p = mcnemar(int((differences > 0).sum()), int((differences < 0).sum()))
    return PairedDifference(float(differences.mean()), low, high, count, len(ours), p)


def mcnemar(ours_alone: int, theirs_alone: int) -> float:
    """The exact two-sided p value of McNemar's test.

    Args:
        ours_alone, theirs_alone: documents that only one of two models has right.
    """
    n, fewer = ours_alone + theirs_alone, min(ours_alone, theirs_alone)
    tail: int = sum(comb(n, k) for k in range(fewer + 1))
    return min(1.0, float(2 * tail / 2**n))
