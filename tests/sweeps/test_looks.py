"""Reading the answer again after more fresh seeds: what it costs, and that it never claims too often."""

from __future__ import annotations

import math
import random
from statistics import fmean

import pytest

from sweeps.records import Role, State
from sweeps.results.looks import ONE_SIDED, adjusted, look_of, share_of, tail_of
from sweeps.search_answers import SweepCompletion
from tests.sweeps.made_records import replicate, trial
from tests.sweeps.null_sweeps import MadeSweep
from tests.sweeps.test_claims import WORLDS, Judged, _beyond, _covers, judged

_MOST = 24  # fresh seeds that a remedy is followed to


def test_the_first_look_spends_four_fifths_and_all_of_them_together_all() -> None:
    assert share_of(1) == pytest.approx(0.8)
    assert [share_of(look + 1) / share_of(look) for look in (1, 2, 3)] == pytest.approx([0.2] * 3)
    assert sum(map(share_of, range(1, 30))) == pytest.approx(1)
    assert tail_of(1, 4) == pytest.approx(0.8 * ONE_SIDED / 4)


@pytest.mark.parametrize("look", [1, 2, 3])
def test_a_p_value_is_at_the_level_where_the_interval_ends_at_0(look: int) -> None:
    assert adjusted(tail_of(look, 3), look, 3) == pytest.approx(ONE_SIDED)
    assert adjusted(tail_of(look, 3) * 1.01, look, 3) > ONE_SIDED > adjusted(tail_of(look, 3) * 0.99, look, 3)
    assert adjusted(0.0, look, 3) == 0.0
    assert adjusted(0.7, look, 3) == 1.0


def test_the_worst_number_of_seeds_to_add_errs_at_the_level_of_the_second_look() -> None:
    """By draws: of a normal mean after one part, the number is taken at which it would just be shown."""
    numpy = pytest.importorskip("numpy")
    draw = numpy.random.default_rng(5)
    wanted = ONE_SIDED * share_of(2)  # of one comparison
    plain, critical = 2.6521, -math.sqrt(2) * _erfc_inverse(2 * tail_of(2, 1))
    errs = {}
    for z in (plain, critical):
        first = draw.standard_normal(1_000_000)
        more = numpy.where((first > 0) & (first < z), (z / numpy.clip(first, 1e-3, None)) ** 2 - 1, 1.0)
        second = (first + numpy.sqrt(more) * draw.standard_normal(1_000_000)) / numpy.sqrt(1 + more)
        errs[z] = float(numpy.mean(second >= z))
    assert errs[plain] > 1.5 * wanted, "which one look's critical value does not hold"
    assert 0.5 * wanted < errs[critical] <= wanted


def _erfc_inverse(value: float) -> float:
    """Of the normal tail, by bisection; negative."""
    low, high = -10.0, 0.0
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if math.erfc(-middle) < value else (low, middle)
    return high


def test_a_look_is_one_more_than_the_times_that_the_answer_was_read_with_less() -> None:
    def completed(trials: int) -> SweepCompletion:
        return SweepCompletion(trials, {"trials": 2}, 0.0, "trials")

    records = [trial(0, 3.5, role=Role.CONTROL), trial(1, 3.2), replicate(2, 1, 1, 3.2)]
    assert look_of(records[:2], []) == look_of(records, []) == 1
    assert look_of(records, [completed(3), completed(3)]) == 1
    more = [*records, trial(3, 3.3)]
    assert look_of(more, [completed(3), completed(4)]) == 1, "a trial of the search is no fresh run"
    more += [replicate(4, 1, 2, None, state=State.RUNNING)]
    assert look_of(more, [completed(3), completed(4)]) == 1, "nothing is seen of it yet"
    more[-1] = replicate(4, 1, 2, 3.1)
    assert look_of(more, [completed(3), completed(4)]) == 2
    assert look_of(more, [completed(3), completed(4), completed(5)]) == 2
    assert look_of([*more, replicate(5, 1, 3, 3.1)], [completed(3), completed(5)]) == 3
    assert look_of(records, [completed(2)]) == 1, "it was read before anything ran under a fresh seed"


# -- how often two looks err ------------------------------------------------------------------------


def looked_twice(made: MadeSweep, *, adding: int | None) -> list[Judged]:
    """The first look, and where it is undecided a second one: with `adding` seeds, or those it asks for."""
    first = judged(made.records)
    needs = first.answer.needs
    if first.answer.grow != "not shown":
        return [first]
    asked = needs.seeds if needs is not None and needs.seeds is not None else made.seeds + 1
    made.run(made.seeds + adding if adding else min(asked, _MOST))
    return [first, judged(made.records, seeds=made.seeds, look=2)]


@pytest.mark.parametrize(
    ("name", "adding", "count"),
    [
        ("unequal variances", 5, 150),
        ("noisy grown models", None, 150),
        *(
            pytest.param(name, adding, 2000, marks=pytest.mark.slow)
            for name in WORLDS
            for adding in (5, None)
        ),
    ],
)
def test_two_looks_hardly_ever_claim_what_is_not_so(name: str, adding: int | None, count: int) -> None:
    rng = random.Random(11)
    found = [looked_twice(MadeSweep(WORLDS[name], rng), adding=adding) for _ in range(count)]
    better = fmean(any(claim.says == "better" for look in each for claim in look.claims) for each in found)
    grow = fmean(any(look.answer.grow == "grow" for look in each) for each in found)
    covering = fmean(
        all(_covers(claim, 0.0) for look in each for claim in look.claims[:-1]) for each in found
    )
    again = fmean(len(each) == 2 for each in found)
    print(f"\n{name}, null, {adding or 'as asked'} more, {count}: looked again {again:.3f}, ", end="")
    print(f"better {better:.4f}, grow {grow:.4f}, simultaneous {covering:.4f}")
    assert again > 0.05
    assert better <= _beyond(0.025, count)
    assert grow <= _beyond(0.005, count)
    assert 1 - covering <= _beyond(0.05, count)
