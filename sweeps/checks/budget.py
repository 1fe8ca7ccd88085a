"""The budget before a run: limits beside the number of trials, and how many trials each is enough for.

Spent is what the controls, the baseline and the searched trials trained, by the ledger, and the time in which
a driver searched. Work that was lost and done again counts once; measuring counts as time alone. Runs under
fresh seeds come on top, as they do in trials.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from sweeps.spec import BudgetSettings
from sweeps.text import counted, duration

# -- two budgets of one study ---------------------------------------------------------------------


def amount(name: str, value: float | None) -> str:
    """A setting of the budget in words: `24 trials`, `1,000,000 tokens`, `1h30m of search`."""
    if value is None:
        return "no limit"
    shown = {
        "trials": counted(round(value), "trial"),
        "tokens": counted(round(value), "token"),
        "flops": f"{value:.3g} FLOPs",
        "gpu_hours": f"{value:.4g} GPU-hours",
        "wall": f"{duration(value)} of search",
    }
    return shown[name]


def spent_in_words(spent: Mapping[str, float], limits: Mapping[str, float]) -> str:
    """What is limited, and how much of it is spent: `42,624 of 60,000 tokens, 1m20s of 1h00m of search`."""
    parts = (
        f"{amount(name, spent[name]).partition(' ')[0]} of {amount(name, limits[name])}" for name in limits
    )
    return ", ".join(parts)


# -- before anything runs -------------------------------------------------------------------------


@dataclass(frozen=True)
class Reach:
    """How far one setting of a budget takes the search: trials, the controls and the baseline included.

    `least` were none stopped and all as deep as the deepest, `expected` if the stopping rule keeps its share
    and all depths are tried alike; None where the speed is not known.
    """

    name: str
    value: float
    least: float | None
    expected: float | None


def reaches(
    budget: BudgetSettings,
    first: Mapping[str, float],
    worst: Mapping[str, float],
    mean: Mapping[str, float],
    *,
    fixed: int = 2,
) -> tuple[Reach, ...]:
    """How far each setting of a budget takes the search.

    Args:
        budget: of the spec.
        first: what the controls and the baseline spend, by limit; those that are not known are left out.
        worst: what a whole trial of the deepest spends.
        mean: what a searched trial spends on average.
        fixed: how many trials are controls or the baseline.
    """

    def paid(name: str, most: float, each: Mapping[str, float]) -> float | None:
        return fixed + max(0.0, most - first[name]) / each[name] if each.get(name) else None

    limits = budget.limits.items()
    trials = Reach("trials", budget.trials, budget.trials, budget.trials)
    return trials, *(Reach(n, most, paid(n, most, worst), paid(n, most, mean)) for n, most in limits)


def enough_for(reached: Sequence[Reach], *, fixed: int = 2) -> tuple[float, float]:
    """Searched trials that a budget is enough for, at least and expected, whatever is used up first; beside
    so many that are controls or the baseline.
    """
    least = min(each.least for each in reached if each.least is not None)
    return least - fixed, min(each.expected for each in reached if each.expected is not None) - fixed


def preview(reached: Sequence[Reach]) -> Iterator[tuple[str, str, str]]:
    """Rows of a table, its head first: each setting, and the trials that it is enough for."""
    yield "the search ends at", "at least", "expected"
    for each in reached:
        yield amount(each.name, each.value), _whole(each.least), _whole(each.expected)


def used_up_first(reached: Sequence[Reach]) -> str:
    """In a sentence, which setting it is that ends the search, as far as that is known."""
    known = {each.name: each.expected for each in reached if each.expected is not None}
    first = min(known, key=lambda name: known[name])
    unknown = [f"budget.{each.name}" for each in reached if each.name not in known]
    rest = f"; of {' and '.join(unknown)} nothing is known without --calibrate" if unknown else ""
    return f"budget.{first} is used up first, after about {_whole(known[first])}{rest}"


def _whole(trials: float | None) -> str:
    return "not known" if trials is None else counted(math.floor(trials), "trial")
