"""The answer in its first sentence: whether to grow, how, by how much, and how sure that is.

Every place that shows the answer shows these words: the terminal, JSON, MLflow, the study's attributes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from sweeps.records import Role, TrialRecord
from sweeps.results.answer import Answer, Needs
from sweeps.results.claims import Claim
from sweeps.results.labels import configuration, grown
from sweeps.results.margin import Margin
from sweeps.results.verdict import Verdict, none_complete
from sweeps.text import counted, digits_apart

_SAME = {"equal compute": "with the same compute", "equal tokens": "for the same tokens"}
_MISSING = {
    "trials": "a grown model trained to its end",
    "control": "a control trained to its end",
    "control rates": "more learning rates of the control (control.rates; at most a quarter of budget.trials)",
    "test text": "more test text (data.test_tokens, or a larger share of held-out text)",
    "fresh seeds": "two fresh seeds or more (finalists.seeds)",
    "matched control": "a control with the FLOPs of the grown model (control.matched)",
}


def sentence(verdict: Verdict, records: Sequence[TrialRecord]) -> str:
    """What to do, in words an engineer acts on; the name of the sweep goes before it.

    Args:
        verdict: of the sweep.
        records: every trial of it.
    """
    answer, by_number = verdict.answer, {record.number: record for record in records}
    if answer.grow == "grow":
        said = _grow(answer, by_number)
    elif answer.grow == "do not grow":
        said = _do_not_grow(answer, by_number, verdict.margin)
    elif answer.grown is None:
        said = f"not shown whether to grow: {none_complete(verdict)}."
    else:
        said = f"not shown whether to grow; {deciding(answer)}."
    return f"{said}{_scores(verdict)}"


def handed_over(verdict: Verdict, records: Sequence[TrialRecord], number: int) -> str:
    """One line on a trial: what it is, and what it is and is not better than.

    Args:
        verdict: of the sweep.
        records: every trial of it.
        number: of the trial.
    """
    by_number = {record.number: record for record in records}
    return f"trial {number}, {named(by_number[number])}: {'; '.join(_standing(verdict, by_number, number))}"


def standings(verdict: Verdict, records: Sequence[TrialRecord]) -> dict[int, str]:
    """`handed_over` of each trial that was compared under fresh seeds, by number.

    Args:
        verdict: of the sweep.
        records: every trial of it.
    """
    compared = (*verdict.finalists, verdict.control, verdict.matched)
    numbers = {each.number for each in compared if each is not None}
    if verdict.answer.grown is None:
        return {}
    return {number: f"{handed_over(verdict, records, number)}." for number in sorted(numbers)}


def deciding(answer: Answer) -> str:
    """What would decide an open answer."""
    needs = answer.needs
    if needs is None:
        return "nothing is missing"
    if "earlier version" in answer.limits:
        return (
            "it was made by an earlier version and cannot be run on; a new sweep of the same spec can decide"
        )
    if "not finished" in answer.limits:
        return "the sweep is not finished"
    if "failed under a fresh seed" in answer.limits:
        return f"trial {answer.grown}, the best grown model, failed under a fresh seed"
    if needs.missing:
        return f"missing: {' and '.join(_MISSING[each] for each in needs.missing)}"
    return _seeds(answer, needs)


def named(record: TrialRecord) -> str:
    """A configuration in words: `K=2 damped lr 1.0e-03`, `the original trained on, lr 1.0e-03`."""
    if record.role is Role.MATCHED:
        return (
            f"the original trained on with the FLOPs of trial {record.replicate_of}, {configuration(record)}"
        )
    return f"the original trained on, {configuration(record)}" if record.original else configuration(record)


def span(claim: Claim) -> str:
    """A difference in words: `0.0026 nats worse (95 %: 0.0015 worse to 0.0037 worse)`."""
    ends = [each for each in (claim.low, claim.high) if each is not None]
    digits = digits_apart([claim.mean, *ends])
    mean, *bounds = (_sided(each, digits) for each in (claim.mean, *ends))
    words = mean.replace(" ", " nats ", 1)
    if not bounds:
        return f"{words} (no interval)"
    if len({each.partition(" ")[2] for each in bounds}) == 1:
        bounds = sorted(each.partition(" ")[0] for each in bounds)
    return f"{words} (95 %: {' to '.join(bounds)})"


# -- inside ----------------------------------------------------------------------------------------


def _scores(verdict: Verdict) -> str:
    """Where the search goes by a task: that losses decide, and which scores chose the grown model."""
    winner, control = verdict.chosen, verdict.control
    if verdict.objective is None or winner is None or winner.score is None:
        return ""
    beside = f", the control {control.score:.4f}" if control is not None and control.score is not None else ""
    return (
        f" That is by loss; {verdict.objective} chose trial {winner.number} among the grown models: "
        f"{winner.score:.4f}{beside}."
    )


def _grow(answer: Answer, records: Mapping[int, TrialRecord]) -> str:
    assert answer.grown is not None
    assert answer.claim is not None
    better = span(answer.claim).replace("better", "better than training the original on", 1)
    same = _SAME[answer.claim.at]
    text = f"grow with {_grown(records[answer.grown])}: "
    head, bracket, tail = better.partition(" (")
    cost = f", at {answer.cost:.2f}x the FLOPs per token" if answer.cost else ""
    return f"{text}{head} {same}{bracket}{tail}{cost}."


def _do_not_grow(answer: Answer, records: Mapping[int, TrialRecord], margin: Margin) -> str:
    assert answer.grown is not None
    assert answer.trial is not None
    assert answer.claim is not None
    claim = answer.claim
    longer = " with as much compute" if records[answer.trial].role is Role.MATCHED else ""
    head, bracket, tail = span(claim).partition(" (")
    share = f" ({margin.percent:g}%)" if margin.percent is not None else ""
    within = "" if claim.says == "worse" else f", within the margin of {_nats(claim.margin)}{share}"
    return (
        f"do not grow. The original, trained on{longer} (trial {answer.trial}), is as good or better: "
        f"the best grown model, {_grown(records[answer.grown])}, is {head} "
        f"{_SAME[claim.at]}{bracket}{tail}{within}."
    )


def _grown(record: TrialRecord) -> str:
    """`K=2 damped (trial 17)`."""
    return f"{grown(record)} (trial {record.number})" if grown(record) else f"trial {record.number}"


def _nats(value: float) -> str:
    return f"{value:.{digits_apart([value])}f} nats"


def _seeds(answer: Answer, needs: Needs) -> str:
    """By more seeds, more text or more tokens."""
    have = min((claim.n for claim in (answer.equal_tokens, answer.equal_compute) if claim), default=0)
    if needs.seeds is None:
        return (
            "no number of seeds is likely to decide, as the difference is about the margin itself; "
            "a larger budget of tokens a trial (trial.recipe.tokens) may"
        )
    more = max(needs.seeds - have, 1)
    text = f"{counted(more, 'more fresh seed')} would decide (finalists.seeds={have + more})"
    if needs.text is not None:
        text += f" with {needs.text:g} times the test text (data.test_tokens)"
    if needs.tokens:
        text += ", but a larger budget of tokens a trial (trial.recipe.tokens) is likelier to"
    return text


def _standing(verdict: Verdict, records: Mapping[int, TrialRecord], number: int) -> Iterator[str]:
    answer, record = verdict.answer, records[number]
    if (promotion := record.promotion) is not None:
        tokens = record.steps * record.settings["recipe"]["batch_tokens"]
        yield f"trial {promotion.of} trained on {tokens:,} tokens, under one seed; in no claim of the sweep"
        return
    original = record.original or record.role is Role.MATCHED
    if number == answer.grown:
        yield "the best grown model"
        yield from _of_the_best(answer)
    elif original:
        yield from _of_an_original(answer, number)
    else:
        yield f"not the best grown model, which is trial {answer.grown}"
        claim = next((each for each in verdict.claims if each.trial == number), None)
        yield _against(claim) if claim else "not compared with the control under fresh seeds"


def _of_the_best(answer: Answer) -> Iterator[str]:
    known = [claim for claim in (answer.equal_compute, answer.equal_tokens) if claim is not None]
    if not known:
        yield "not compared with the original trained on under fresh seeds"
    for claim in known:
        yield _against(claim)


def _of_an_original(answer: Answer, number: int) -> Iterator[str]:
    known = [claim for claim in (answer.equal_compute, answer.equal_tokens) if claim is not None]
    claim = next((each for each in known if each.against == number), None)
    best = "the best grown model" if answer.grown is None else f"the best grown model, trial {answer.grown}"
    if claim is None:
        yield f"not compared with {best} under fresh seeds"
    elif claim.says == "worse":
        yield f"better than {best}, {_SAME[claim.at]}"
    elif claim.other_as_good:
        yield f"as good as {best}, {_SAME[claim.at]}; not shown to be better"
    elif claim.says == "better":
        yield f"not as good as {best}, {_SAME[claim.at]}"
    else:
        yield f"not shown to be better than {best}, {_SAME[claim.at]}"


def _against(claim: Claim) -> str:
    words = {
        "better": "better than",
        "worse": "worse than",
        "as good": "as good within the margin as",
        "not shown": "not shown to be better than",
    }
    return f"{words[claim.says]} the original trained on {_SAME[claim.at]} (trial {claim.against})"


def _sided(value: float, digits: int) -> str:
    return f"{abs(value):.{digits}f} {'better' if value < 0 else 'worse'}"
