"""Of an answered setting, the other values in words: as good is shown, not shown to be worse is not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sweeps.results.setting_answers import SettingAnswer
from sweeps.text import short_value


def all_named(values: Sequence[Any]) -> str:
    """Each value, short."""
    return ", ".join(map(short_value, values))


def beside_the_best(answer: SettingAnswer, names: Callable[[Sequence[Any]], str] = all_named) -> str:
    """`as good: 4; not shown to be worse: 2, 1`; empty where every other value is worse.

    Args:
        answer: of a setting, with a value.
        names: several values in words.
    """
    similar = [each.value for each in answer.values if each.says == "no better"]
    said = {"as good": answer.as_good, "not shown to be worse": similar}
    return "; ".join(f"{words}: {names(values)}" for words, values in said.items() if values)
