"""Looks at the answer: what is paid for reading it again once fresh seeds, or other finalists, were added.

The error that all claims of a sweep may make together is spent over its looks (Bonferroni): four fifths of it
on the first, of what is left again four fifths on the next, and so on. So the intervals of every look hold
together at 95 %, and the first one does not have to know whether another follows.

How many seeds are added may follow from what was seen: the remedy computes it from the very differences that
are tested, which is the choice that flatters a plain test most. So from the second look on the critical value
is the one for the worst such choice. At look k a standardised mean is a sum of k independent normal parts,
what each look adds to all before it (the error of the test text, which they share, is in the first); the
choices set their weights, which are positive and whose squares sum to one. Whatever these are, the sum
exceeds z no more often than the norm of the positive parts does, which is chi-bar-squared (Proschan and
Hunsberger 1995, Biometrics 51, for two looks; Shapiro 1988, International Statistical Review 56, for the
distribution). The tail that this leaves is taken of Student's t (simulated in tests/sweeps/test_looks.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from statistics import NormalDist

from sweeps.records import TrialRecord
from sweeps.search_answers import SweepCompletion

ONE_SIDED = 0.025  # that all claims of a sweep may err with, on each side
FIRST_SHARE = 0.8  # of what is left of it, that each look spends
RULE = (
    "Bonferroni over looks, four fifths of what is left of 5 % each; from the second on the critical value "
    "for the worst number of added seeds (chi-bar-squared)"
)

_NORMAL = NormalDist()


def look_of(records: Sequence[TrialRecord], completions: Sequence[SweepCompletion]) -> int:
    """Which look at the answer this is, from 1: one more than the times that it was read with less.

    Args:
        records: of the sweep.
        completions: each time that all of it was carried out; the answer was read then.
    """
    fresh = [record.number for record in records if record.role.fresh and record.state.finished]
    read = {sum(number < each.trials for number in fresh) for each in completions}
    return 1 + sum(0 < known < len(fresh) for known in read)


def share_of(look: int) -> float:
    """What a look spends of the error of all of them."""
    return float(FIRST_SHARE * (1 - FIRST_SHARE) ** (look - 1))


@cache
def tail_of(look: int, compared: int) -> float:
    """One-sided tail of Student's t at each end of an interval.

    Args:
        look: from 1.
        compared: differences whose intervals hold together (Bonferroni).
    """
    wanted = ONE_SIDED * share_of(look) / compared
    low, high = 0.0, 40.0
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if _beyond(middle, look) > wanted else (low, middle)
    return wanted if look == 1 else _NORMAL.cdf(-high)


def adjusted(p: float, look: int, compared: int) -> float:
    """A one-sided p value with looks and comparisons paid for: at most 2.5 % where the interval decides.

    Args:
        p: of the one comparison, as if it were all.
        look: from 1.
        compared: as for `tail_of`.
    """
    beyond = p if look == 1 or not 0 < p < 0.5 else _beyond(-_NORMAL.inv_cdf(p), look)
    return min(1.0, compared * beyond / share_of(look))


def _beyond(z: float, parts: int) -> float:
    """P(norm of the positive parts of so many independent standard normals > z), z of 0 or more."""
    chances = (math.comb(parts, j) * _chi2_above(z * z, j) for j in range(1, parts + 1))
    return sum(chances) / float(2**parts)


def _chi2_above(value: float, degrees: int) -> float:
    """P(chi-squared > value), by the recurrence over degrees of freedom."""
    half = value / 2
    found = math.erfc(math.sqrt(half)) if degrees % 2 else math.exp(-half)
    for d in range(2 - degrees % 2, degrees, 2):
        found += half ** (d / 2) * math.exp(-half) / math.gamma(d / 2 + 1)
    return found
