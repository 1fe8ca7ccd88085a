"""Claims: their intervals against the textbook, and how often they err and succeed in made-up sweeps.

The simulated figures are those of `sweeps_judged`; 2,000 sweeps of each world run with `-m slow`, and print
them, fewer by default. A noise unit is the standard deviation of the difference that one run of each under
one seed shows on one test text (`World.unit`).
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from dataclasses import dataclass, replace
from statistics import fmean

import pytest

from sweeps.records import Role, TrialRecord
from sweeps.results.answer import Answer, Course, answer_of
from sweeps.results.candidates import Candidate, matched_control
from sweeps.results.claims import Claim, Claims
from sweeps.results.finalists import control_of
from sweeps.results.looks import tail_of
from sweeps.results.noise import PRIOR, Noisy, paired, pool
from sweeps.results.posterior import chances
from sweeps.results.winner import compared
from sweeps.student import t_quantile
from tests.sweeps.null_sweeps import BLOCKS, LOSS, World, sweep, sweeps

# -- one interval -----------------------------------------------------------------------------------


def plain(losses: dict[int, list[float]]) -> dict[int, dict[int, tuple[float, ...]]]:
    """A table without blocks of text."""
    return {number: {seed: (loss,) for seed, loss in enumerate(each, 1)} for number, each in losses.items()}


def test_two_configurations_alone_have_the_paired_t_interval_of_the_textbook() -> None:
    table = plain({0: [0.0, 0.0, 0.0], 1: [1.0, 2.0, 4.0]})
    found = paired(table[1], table[0], pool(table))
    assert found is not None
    mean, n, noise = found
    assert noise is not None
    assert (mean, n, noise.degrees()) == (pytest.approx(7 / 3), 3, 2)
    assert noise.half_width(0.025) == pytest.approx(4.30265273 * math.sqrt(7 / 3) / math.sqrt(3))


def test_the_variance_is_drawn_towards_that_of_all_pairs_by_the_degrees_of_the_prior() -> None:
    # Paired variances: 0 and 1: 1; 0 and 2: 4; 1 and 2: 9. So their mean is 14/3.
    table = plain({0: [0.0, 0.0, 0.0], 1: [-1.0, 0.0, 1.0], 2: [2.0, 0.0, -2.0]})
    pooled = pool(table)
    assert pooled is not None
    assert (pooled.variance, pooled.degrees) == (pytest.approx(14 / 3), 4)
    found = paired(table[1], table[0], pooled)
    assert found is not None
    assert found[2] is not None
    assert found[2].seed_variance == pytest.approx((2 * 1 + PRIOR * 14 / 3) / (2 + PRIOR))
    assert found[2].degrees() == 2 + PRIOR


def test_the_error_of_the_text_is_added_with_degrees_of_its_own() -> None:
    noise = Noisy(0.0, 3, seed_variance=3.0, seed_degrees=4, text_variance=1.0, text_degrees=15)
    assert noise.error() == pytest.approx(math.sqrt(2))
    assert noise.degrees() == math.floor(4 / (1 / 4 + 1 / 15))
    assert noise.half_width(0.0125) == pytest.approx(t_quantile(12, 0.975) * math.sqrt(2))
    assert noise.error(n=6) == pytest.approx(math.sqrt(1.5))
    assert noise.error(text=4) == pytest.approx(math.sqrt(1.25))


def test_blocks_of_text_that_a_seed_moves_alike_leave_the_difference_between_configurations() -> None:
    ours = {1: (3.0, 3.2), 2: (4.0, 4.2)}
    theirs = {1: (3.1, 3.1), 2: (4.1, 4.1)}
    found = paired(ours, theirs, pool({0: ours, 1: theirs}))
    assert found is not None
    mean, _, noise = found
    assert noise is not None
    assert mean == pytest.approx(0, abs=1e-12)
    assert noise.seed_variance == pytest.approx(0, abs=1e-12)
    assert noise.text_variance == pytest.approx(0.02 / 2)  # of -0.1 and 0.1
    assert noise.text_degrees == 1


def test_runs_measured_on_other_blocks_say_nothing_of_the_text() -> None:
    ours, theirs = {1: (3.0, 3.2), 2: (4.0, 4.2)}, {1: (3.1,), 2: (4.0,)}
    found = paired(ours, theirs, pool({0: ours, 1: theirs}))
    assert found is not None
    assert found[2] is not None
    assert (found[2].text_variance, found[2].text_degrees) == (0, 0)


def test_the_chances_are_those_of_draws_from_the_posterior() -> None:
    numpy = pytest.importorskip("numpy")
    draw = numpy.random.default_rng(3)
    losses = draw.standard_normal((4, 3)) * 0.4 + numpy.arange(4)[:, None] * 0.2 + draw.standard_normal(3)
    found = chances(plain({number: list(map(float, row)) for number, row in enumerate(losses)}))
    residual = losses - losses.mean(1, keepdims=True) - losses.mean(0) + losses.mean()
    scale = math.sqrt((residual**2).sum() / 6 / 3)
    spread = scale * numpy.sqrt(6 / draw.chisquare(6, 200_000))[:, None]
    drawn = losses.mean(1) + draw.standard_normal((200_000, 4)) * spread
    shares = numpy.bincount(drawn.argmin(1), minlength=4) / 200_000
    assert sum(found.values()) == pytest.approx(1)
    assert list(found.values()) == pytest.approx(list(shares), abs=0.005)


def test_a_chance_of_losses_without_noise_is_that_of_the_lowest() -> None:
    assert chances(plain({0: [1.0, 2.0, 3.0], 1: [2.0, 3.0, 4.0]})) == {0: 1.0, 1: 0.0}
    assert chances(plain({0: [1.0, 2.0], 1: [2.0, 3.0]})) == {}


# -- how often they err, and how often they succeed -------------------------------------------------


@dataclass(frozen=True)
class Judged:
    """One made-up sweep, as it is judged."""

    answer: Answer
    claims: tuple[Claim, ...]


def judged(
    records: list[TrialRecord], margin: float | None = None, *, seeds: int = 3, look: int = 1
) -> Judged:
    """What `verdict` does for the claims and the answer, without chances and settings, which take longer."""
    known = compared(records, top=3, seeds=seeds, per=None, depth=None, margin=margin, look=look)
    winner = known.winner
    assert winner is not None
    grown = next(record for record in records if record.number == winner.number)
    control = control_of(records)
    assert control is not None
    matched = matched_control(grown, records, control)
    assert matched is not None
    claims = Claims([*known.everyone, matched], known.margin.nats, known.grown, look)
    tokens = [claims.of(each, known.control, "equal tokens") for each in known.finalists]
    compute = claims.of(winner, matched, "equal compute", first=tokens[0])
    course = Course(dearer=True, finished=True, waiting=False, rate_open=False)
    answer = answer_of(winner, known.control, matched, tokens[0], compute, course)
    return Judged(answer, tuple(claim for claim in (*tokens, compute) if claim is not None))


NOISY = dict.fromkeys(range(0, 22, 2), 2.0)  # variances that differ fourfold, the control's too
WORLDS = {
    "normal": World(spread=0),
    "heavy tails": World(spread=0, heavy=True),
    "unequal variances": World(spread=0, noisy=NOISY),
    "noisy controls": World(spread=0, noisy={0: 2.0, -1: 2.0}),
    "noisy grown models": World(spread=0, noisy=dict.fromkeys(range(1, 22), 2.0)),
    "no noise of the text": World(spread=0, text=0.0),
}
COUNTS = [300, pytest.param(2000, marks=pytest.mark.slow)]


def _beyond(share: float, count: int) -> float:
    """What a count with this share of successes exceeds once in a thousand times."""
    return share + 3.1 * math.sqrt(share * (1 - share) / count)


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("name", WORLDS)
def test_where_no_grown_model_is_better_it_is_hardly_ever_claimed(name: str, count: int) -> None:
    found = [judged(records) for records in sweeps(WORLDS[name], count, seed=1)]
    better = fmean(any(claim.says == "better" for claim in each.claims) for each in found)
    grow = fmean(each.answer.grow == "grow" for each in found)
    covering = [[_covers(claim, 0.0) for claim in each.claims] for each in found]
    together = fmean(all(each[:-1]) for each in covering)
    print(f"\n{name}, null, {count}: better {better:.4f}, grow {grow:.4f}, simultaneous {together:.4f}")
    assert better <= _beyond(0.025, count)
    assert grow <= _beyond(0.005, count), "it takes both comparisons"
    assert 1 - together <= _beyond(0.05, count), "all intervals at equal tokens"
    assert fmean(each[-1] for each in covering) >= 1 - _beyond(0.05, count)


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("name", WORLDS)
def test_one_that_is_better_by_three_noise_units_is_found_and_claimed(name: str, count: int) -> None:
    world = replace(WORLDS[name], better=3.0, spread=0.001)
    found = [judged(records, margin=0.0005) for records in sweeps(world, count, seed=2)]
    better = fmean(
        any(claim.says == "better" and claim.trial == 2 for claim in each.claims) for each in found
    )
    grow = fmean(each.answer.grow == "grow" for each in found)
    print(f"\n{name}, better by three units, {count}: better {better:.4f}, grow {grow:.4f}")
    room = _beyond(0.8, count) - 0.8
    # Without the text's noise a unit is smaller, and the critical value for four comparisons is not.
    assert better >= (0.7 if name == "no noise of the text" else 0.8) - room
    assert grow > 0.6


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("name", ["normal", "heavy tails", "unequal variances"])
def test_one_that_is_better_by_the_margin_is_hardly_ever_given_up(name: str, count: int) -> None:
    """The other error: "do not grow", where the original is not as good within the margin."""
    world = replace(WORLDS[name], better=3.0, spread=0.001)
    margin = 3.0 * world.unit
    found = [judged(records, margin=margin).answer for records in sweeps(world, count, seed=5)]
    wrong = fmean(each.grow == "do not grow" and each.grown == 2 for each in found)
    print(f"\n{name}, better by the margin, {count}: do not grow {wrong:.4f}")
    assert wrong <= _beyond(0.025, count)


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("name", ["normal", "heavy tails", "unequal variances"])
def test_the_interval_of_one_comparison_fixed_beforehand_covers_at_its_level(name: str, count: int) -> None:
    """Marginal coverage: the baseline against the control, with nothing paid for, over seeds and texts."""
    inside = []
    for records in sweeps(replace(WORLDS[name], searched=4, finalists=2), count, seed=3):
        known = compared(records, top=2, seeds=3, per=None, depth=None, margin=None)
        claim = Claims(known.everyone, 0.001, 1).of(known.baseline, known.control, "equal tokens")
        assert claim is not None
        inside.append(_covers(claim, 0.0))
    covered = fmean(inside)
    print(f"\n{name}, marginal coverage, {count}: {covered:.4f}")
    room = _beyond(0.05, count) - 0.05
    assert 0.93 - room <= covered <= 0.97 + room


def _covers(claim: Claim, truth: float) -> bool:
    assert claim.low is not None
    assert claim.high is not None
    return claim.low <= truth <= claim.high


def test_the_made_up_sweeps_have_the_noise_that_they_say() -> None:
    world = World(searched=3, finalists=1, spread=0)
    seeds, pairs, texts = [], [], []
    for records in sweeps(world, 400, seed=4):
        runs = {(r.replicate_of, r.seed): r for r in records if r.role is Role.REPLICATE}
        ours, theirs = ([runs[number, seed] for seed in (1, 2, 3)] for number in (1, 0))
        delta = [(a.test_loss or 0) - (b.test_loss or 0) for a, b in zip(ours, theirs, strict=True)]
        seeds.append(_variance([r.value or 0 for r in theirs]))
        pairs.append(_variance(delta))
        texts.append(fmean(delta) ** 2)
    assert math.sqrt(fmean(seeds)) == pytest.approx(0.0039, rel=0.1)
    assert math.sqrt(fmean(pairs)) == pytest.approx(0.0004 * math.sqrt(2), rel=0.1)
    assert math.sqrt(fmean(texts)) == pytest.approx(math.sqrt(2 * 0.0004**2 / 3 + 0.0003**2), rel=0.1)
    assert len(sweep(world, random.Random(0))[-1].test_losses) == BLOCKS


def _variance(values: Iterable[float]) -> float:
    known = list(values)
    return sum((value - fmean(known)) ** 2 for value in known) / (len(known) - 1)


# -- what is answered -------------------------------------------------------------------------------


def candidate(number: int, role: Role = Role.SEARCH, cost: float = 1.0) -> Candidate:
    return Candidate(number, role, {}, {}, 0, {0: LOSS}, {}, None, cost, None, {}, ())


WINNER, CONTROL, MATCHED = candidate(5, cost=1.2), candidate(0, Role.CONTROL), candidate(9, Role.MATCHED)


def claim(
    mean: float, half_width: float | None, against: int = 0, first: Claim | None = None, margin: float = 0.001
) -> Claim:
    """With an interval that is asked for: three seeds, of which one variance is known."""
    noise = None
    if half_width is not None:
        seed_variance = 3 * (half_width / t_quantile(4, 1 - 2 * tail_of(1, 3))) ** 2
        noise = Noisy(mean, 3, seed_variance, 4, 0.0, 0)
    at = "equal tokens" if against == 0 else "equal compute"
    shown = first is None or first.says == "better"
    tests = (0.01, 0.9, 0.02, 0.03)
    return Claim(5, against, at, "test", mean, half_width, 3, margin, 3, 1, noise, shown, *tests)


def answered(tokens: Claim | None, compute: Claim | None, **fields: bool) -> Answer:
    control = CONTROL if tokens else None
    matched = MATCHED if compute else None
    given = {"dearer": True, "finished": True, "waiting": False, "rate_open": False} | fields
    return answer_of(WINNER, control, matched, tokens, compute, Course(**given))


BETTER, WORSE, OPEN, EQUAL = (-0.003, 0.001), (0.003, 0.001), (-0.0005, 0.002), (0.0, 0.0005)


@pytest.mark.parametrize(
    ("tokens", "compute", "grow", "trial"),
    [
        (BETTER, BETTER, "grow", 5),
        (BETTER, WORSE, "do not grow", 9),
        (BETTER, EQUAL, "do not grow", 9),
        (BETTER, OPEN, "not shown", 5),
        (WORSE, WORSE, "do not grow", 9),
        (EQUAL, WORSE, "do not grow", 9),
        (OPEN, WORSE, "do not grow", 9),
        (OPEN, EQUAL, "do not grow", 9),
        (EQUAL, OPEN, "do not grow", 0),
        (OPEN, OPEN, "not shown", 5),
        (OPEN, (0.0005, 0.002), "not shown", 9),
        (BETTER, None, "grow", 5),
        (EQUAL, None, "do not grow", 0),
        (OPEN, None, "not shown", 5),
        ((0.0005, 0.002), None, "not shown", 0),
        (None, BETTER, "not shown", 5),
        (None, WORSE, "do not grow", 9),
        ((-0.0006, 0.0003), BETTER, "do not grow", 0),  # better, by less than the margin
        (None, None, "not shown", 5),
        ((-0.003, None), None, "not shown", 5),
    ],
)
def test_the_rules_of_the_answer(
    tokens: tuple[float, float] | None, compute: tuple[float, float] | None, grow: str, trial: int
) -> None:
    first = claim(*tokens) if tokens else None
    found = answered(first, claim(*compute, against=9, first=first) if compute else None)
    assert (found.grow, found.trial) == (grow, trial)
    assert ("no compute-matched control" in found.limits) == (compute is None)
    assert (found.needs is not None) == (grow == "not shown")
    assert (found.confidence is not None) == (grow != "not shown")


def test_better_at_equal_tokens_waits_for_the_comparison_at_equal_compute() -> None:
    assert answered(claim(*BETTER), None, finished=False).grow == "not shown"
    assert answered(claim(*BETTER), None).grow == "grow"


def test_nothing_is_grown_over_a_control_that_had_no_fair_rate_or_after_a_failure() -> None:
    tokens = claim(*BETTER)
    both = tokens, claim(*BETTER, against=9, first=tokens)
    assert answered(*both).grow == "grow"
    waiting = answered(*both, waiting=True, finished=False)
    assert (waiting.grow, waiting.limits) == ("not shown", ("not finished",))
    unfair = answered(*both, rate_open=True)
    assert (unfair.grow, unfair.limits) == ("not shown", ("control's rate not found",))
    assert unfair.needs is not None
    assert unfair.needs.missing == ("control rates",)
    course = Course(dearer=True, finished=True, waiting=False, rate_open=False)
    failed = answer_of(replace(WINNER, failed_seeds={2: "diverged"}), CONTROL, MATCHED, *both, course)
    assert (failed.grow, failed.limits) == ("not shown", ("failed under a fresh seed",))


def test_a_winner_that_spends_no_more_than_the_control_needs_no_other_one() -> None:
    found = answered(claim(*BETTER), None, dearer=False, finished=False)
    assert (found.grow, found.limits) == ("grow", ("not finished",))
    still_open = answered(claim(*OPEN), None, dearer=False)
    assert still_open.needs is not None
    assert still_open.needs.missing == ()


def test_better_at_equal_compute_is_claimed_only_once_it_is_at_equal_tokens() -> None:
    gated = claim(*BETTER, against=9, first=claim(*OPEN))
    assert gated.says == "as good"
    assert claim(*BETTER, against=9, first=claim(*BETTER)).says == "better"


def test_what_decided_comes_first_in_the_answer() -> None:
    tokens = claim(*BETTER)
    compute = claim(*WORSE, against=9, first=tokens)
    found = answered(tokens, compute)
    assert found.claim is compute
    assert (found.equal_tokens, found.equal_compute) == (tokens, compute)
    assert found.cost == pytest.approx(1.2)
    assert answered(claim(*EQUAL), claim(*OPEN, against=9)).claim == claim(*EQUAL)


def needed(mean: float, half_width: float, margin: float = 0.001) -> tuple[int | None, bool]:
    found = answered(claim(mean, half_width, margin=margin), None)
    assert found.needs is not None
    assert found.needs.missing == ("matched control",)
    return found.needs.seeds, found.needs.tokens


def test_the_seeds_that_would_decide_are_those_after_which_the_interval_would() -> None:
    open_claim = claim(-0.003, 0.004)
    assert open_claim.noise is not None
    seeds, tokens = needed(-0.003, 0.004)
    assert seeds is not None
    assert 3 < seeds < 10
    again, noise = tail_of(2, 3), open_claim.noise
    assert noise.half_width(again, seeds) < 0.003 <= noise.half_width(again, seeds - 1)
    assert not tokens
    # Within the margin it is "as good" that is nearer, at 0.0005 from -margin.
    closer, _ = needed(-0.0005, 0.001)
    assert closer is not None
    assert noise.half_width(again, closer) / 4 < 0.0005
    assert needed(-0.00101, 0.05) == (None, True), "more seeds than are worth a run"


def test_both_comparisons_have_to_be_decided_to_grow_and_one_to_leave_it() -> None:
    tokens, compute = claim(-0.003, 0.004), claim(-0.003, 0.006, against=9)
    both = answered(tokens, compute).needs
    alone = answered(tokens, None).needs
    assert both is not None
    assert alone is not None
    assert both.seeds is not None
    assert alone.seeds is not None
    assert both.seeds > alone.seeds
    against = answered(tokens, claim(0.0, 0.0012, against=9)).needs
    assert against is not None
    assert against.seeds is not None
    assert against.seeds < min(both.seeds, alone.seeds)


def test_the_test_text_is_named_where_its_error_stands_in_the_way() -> None:
    noise = Noisy(-0.003, 3, seed_variance=1e-8, seed_degrees=4, text_variance=4e-6, text_degrees=15)
    first = tail_of(1, 3)
    stuck = replace(claim(-0.003, noise.half_width(first)), noise=noise)
    found = answered(stuck, None)
    assert found.grow == "not shown"
    assert found.needs is not None
    assert found.needs.text is not None
    assert noise.half_width(first, 100) > 0.003 > noise.half_width(first, 20, found.needs.text)
