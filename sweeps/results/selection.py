"""The verdict from the ledger's records: the winner, what is claimed of it, and the answer."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from sweeps.records import Role, State, TrialRecord
from sweeps.results.answer import Course, answer_of
from sweeps.results.candidates import Candidate, matched_control
from sweeps.results.caveats import caveats, foreign
from sweeps.results.claims import Claim, Claims
from sweeps.results.coverage import spent, untried
from sweeps.results.finalists import control_of
from sweeps.results.front import Front, front_of
from sweeps.results.layers import COSTS
from sweeps.results.matched import matched_due, spends_more
from sweeps.results.paired import Difference
from sweeps.results.posterior import chances, lowest_under, shared
from sweeps.results.searched import Searched
from sweeps.results.setting_answers import setting_answers
from sweeps.results.verdict import Ending, Verdict
from sweeps.results.winner import Compared, compared

__all__ = ["verdict"]

_SAME_RATE = math.log(1.05)  # rates that are closer train alike


def verdict(
    records: Sequence[TrialRecord],
    *,
    top: int = 3,
    seeds: int = 3,
    per: str | None = None,
    depth: int | None = None,
    margin: float | str | None = None,
    searched: Searched | None = None,
) -> Verdict:
    """What the sweep has found so far; can be asked at any time, on any records.

    Args:
        records: of the sweep.
        top: finalists (of each value of `per`).
        seeds: fresh ones of each.
        per: the dotted path of a setting, the name of a cost or a score, or None.
        depth: layers of the base, where they are known.
        margin: below which a difference does not matter, nats per token or a percentage of the control's
            loss; None for one from the data.
        searched: the values that settings may have, estimates of a model of the search, and how often the
            answer was read.
    """
    searched = searched or Searched()
    look = searched.look
    others, strange = [record for record in records if not record.ours], list(foreign(records))
    ours = (record for record in records if record.ours and not record.role.promoted)
    everything = sorted(ours, key=lambda record: record.number)
    # Rungs of the ladder have another budget, and evaluations repeat: no claim rests on them.
    scored = {r.replicate_of: r.aim for r in everything if r.role is Role.EVALUATION and r.aim is not None}
    records = [
        record if record.aim is not None else replace(record, aim=scored.get(record.number))
        for record in everything
        if record.role not in (Role.RUNG, Role.EVALUATION)
    ]
    known = compared(records, top=top, seeds=seeds, per=per, depth=depth, margin=margin, look=look)
    winner = known.winner
    control, numbered = control_of(records), {record.number: record for record in records}
    matched = matched_control(numbered[winner.number], records, control) if winner and control else None
    everyone = [*known.everyone, *([matched] if matched else [])]
    claims = Claims(everyone, known.margin.nats, known.grown, look)
    against = [claims.of(each, known.control, "equal tokens") for each in known.finalists]
    compute = claims.of(winner, matched, "equal compute", first=against[0] if against else None)
    shown = _with_numbers(known, claims)
    originals = [record for record in records if not record.role.after]
    waiting = searched.matched and bool(
        matched_due(records, top, seeds, per, depth=depth, margin=margin, look=look)
    )
    answer = answer_of(
        winner,
        known.control,
        matched,
        against[0] if against else None,
        compute,
        Course(
            dearer=_dearer(records, known),
            finished=_finished(records, known, over=searched.over) and not waiting,
            waiting=waiting,
            rate_open=searched.rates and _rate_open(records, known.control),
            earlier=searched.earlier,
        ),
    )
    return Verdict(
        answer=answer,
        finalists=shown.finalists,
        control=shown.control,
        matched=matched,
        baseline=shown.baseline,
        best_grown=winner.number if winner else None,
        lowest=known.lowest,
        as_good=known.as_good,
        claims=tuple(claim for claim in (*against, compute) if claim is not None),
        margin=replace(known.margin, was=searched.margin_was),
        look=look,
        settings=setting_answers(originals, known.margin.nats, searched),
        untried=untried(originals, searched.choices),
        stopping=searched.stopping,
        spent=spent(everything),
        counts=_count(originals),
        replicates=_count([record for record in records if record.role.fresh]),
        others=_count(others),
        stopped=tuple(_ending(record) for record in records if record.state is State.PRUNED),
        failed=tuple(_ending(record) for record in everything if record.state is State.FAIL),
        warnings=(*caveats(originals, shown, matched, answer), *strange),
        front=_front(records, shown, per, look) if per in COSTS else None,
        objective=next((record.aim.name for record in records if record.aim is not None), None),
    )


def _front(records: Sequence[TrialRecord], shown: Compared, cost: str, look: int) -> Front:
    """The front of what ran for as many tokens under fresh seeds."""
    by_number = {record.number: record for record in records}
    margin = shown.margin.nats
    return front_of(shown.everyone, shown.control, by_number, cost=cost, margin=margin, look=look)


def _with_numbers(known: Compared, claims: Claims) -> Compared:
    """The candidates with their differences, and their chances to be the best."""
    steady = {each.number: claims.table[each.number] for each in known.everyone if not each.failed_seeds}
    known_text = claims.knows_text_error(*(each for each in known.everyone if each.number in steady))
    chance = chances(steady) if known_text else {}
    lowest, n = lowest_under(steady), len(shared(steady))

    def numbered(each: Candidate) -> Candidate:
        own = None if each is known.control else claims.of(each, known.control, "equal tokens")
        from_spec = claims.of(each, known.baseline, "equal tokens")
        return replace(
            each,
            against_control=_difference(own),
            against_baseline=None if each is known.control else _difference(from_spec),
            chance_best=chance.get(each.number),
            lowest_under=(lowest[each.number], n) if n and each.number in lowest else None,
        )

    return replace(
        known,
        finalists=tuple(map(numbered, known.finalists)),
        control=numbered(known.control) if known.control else None,
        baseline=numbered(known.baseline) if known.baseline else None,
    )


def _difference(claim: Claim | None) -> Difference | None:
    return Difference(claim.mean, claim.half_width, claim.n) if claim else None


def _dearer(records: Sequence[TrialRecord], known: Compared) -> bool:
    """Whether equal tokens are not equal compute."""
    if known.winner is None or known.control is None:
        return True
    by_number = {record.number: record for record in records}
    return spends_more(by_number[known.winner.number], by_number[known.control.number])


def _finished(records: Sequence[TrialRecord], known: Compared, *, over: bool) -> bool:
    """Whether no trial waits or runs, and no fresh seed of what is compared is still to be run.

    `over`: a limit of the budget is used up, and what is enqueued waits for more of it.
    """
    ended = (record.state.finished or (over and record.state is State.WAITING) for record in records)
    return all(ended) and not any(each.open_seeds for each in known.everyone)


def _rate_open(records: Sequence[TrialRecord], control: Candidate | None) -> bool:
    """Whether grown models had rates beyond the best one of the control, on a side where it had none."""
    if control is None:
        return False
    own = _rate(control.settings)
    ended = [record for record in records if not record.role.after and record.state.finished]
    originals = [_rate(record.settings) for record in ended if record.original]
    grown = [_rate(record.settings) for record in ended if not record.original and record.settings]
    return any(
        any(side * math.log(rate / own) > _SAME_RATE for rate in grown)
        and not any(side * math.log(rate / own) > _SAME_RATE for rate in originals)
        for side in (-1, 1)
    )


def _rate(settings: Mapping[str, Any]) -> float:
    return float(settings["recipe"]["learning_rate"])


def _count(records: Sequence[TrialRecord]) -> dict[str, int]:
    found = Counter(record.state.value for record in records)
    return {state.value: found[state.value] for state in State}


def _ending(record: TrialRecord) -> Ending:
    loss = record.loss if record.loss is not None and math.isfinite(record.loss) else None
    return Ending(record.number, record.role, record.step, record.steps, loss, record.reason)
