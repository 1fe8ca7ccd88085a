"""The ladder of a budget as it is written: rising amounts of tokens, as `[50M, 200M, 1B]`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from sweeps.wording import Fault, formatted

_AMOUNT = re.compile(r"\s*(?P<number>[0-9][0-9_,]*(?:\.[0-9]+)?)\s*(?P<unit>[kKMBGT]?)\s*")
_UNITS = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "B": 10**9, "G": 10**9, "T": 10**12}
_MOST = 2**53


def tokens_of(written: Any) -> Any:
    """An amount of tokens: 50000000 of `50M`; what is no whole amount stays as it was written."""
    if isinstance(written, float) and written.is_integer() and abs(written) < _MOST:
        return int(written)
    match = _AMOUNT.fullmatch(written) if isinstance(written, str) else None
    if match is None:
        return written
    amount = Decimal(re.sub("[_,]", "", match["number"])) * _UNITS[match["unit"]]
    return int(amount) if amount == int(amount) else written


def rungs(written: Any) -> Any:
    """A list of amounts of tokens; none of null."""
    if written is None:
        return []
    return list(map(tokens_of, written)) if isinstance(written, list | tuple) else written


def ladder_faults(ladder: Any, tokens: int, batch_tokens: int) -> Iterator[Fault]:
    """Rungs that are no amounts, or do not rise, from the tokens of a trial on, by a batch or more.

    Args:
        ladder: as `rungs` gives it.
        tokens: of a trial.
        batch_tokens: of a step.
    """
    path, example = "budget.ladder", f"[{4 * tokens}, {16 * tokens}]"
    if not isinstance(ladder, list):
        yield Fault(path, formatted(ladder), "a list of rising amounts of tokens, as in [50M, 200M]", example)
        return
    below, what = tokens, "trial.recipe.tokens"
    for index, rung in enumerate(ladder):
        place = f"{path}[{index}]"
        if isinstance(rung, bool) or not isinstance(rung, int) or not 0 < rung < _MOST:
            yield Fault(place, formatted(rung), "a whole amount of tokens, as in 50M", str(4 * below))
        elif -(-rung // batch_tokens) <= -(-below // batch_tokens):
            expected = f"more than {below:,}, {what}, by a batch of {batch_tokens:,} at least"
            yield Fault(place, f"{rung:,}", expected, str(4 * below), _INVOLVED)
        else:
            below, what = rung, f"{path}[{index}]"


_INVOLVED = ("trial.recipe.tokens", "trial.recipe.batch_tokens")
