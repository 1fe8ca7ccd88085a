"""The table of what ran under fresh seeds, the margin, and how several comparisons are paid for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sweeps.records import TrialRecord
from sweeps.results.candidates import Candidate
from sweeps.results.claims import Claim
from sweeps.results.margin import Margin
from sweeps.results.paired import Difference
from sweeps.results.sentence import named
from sweeps.results.verdict import Verdict
from sweeps.text import digits_apart, indented, table, these

_SOURCES = {
    "spec": "the spec's finalists.margin",
    "seeds": "half of what another seed moves the validation loss by (standard deviation)",
    "bound": "a share of the loss that bounds it: half of what another seed moves the validation loss by "
    "(standard deviation) lies beyond",
    "loss": "a share of the loss, as fewer than two fresh seeds say what another seed moves it by",
}


def finalists_text(verdict: Verdict, records: Sequence[TrialRecord]) -> list[str]:
    """Finalists, baseline, controls: losses over fresh seeds, the difference to the control, FLOPs."""
    listed = _listed(verdict)
    if not listed:
        return []
    by_number = {record.number: record for record in records}
    tested = digits_apart([each.test_loss for each in listed if each.test_loss is not None])
    digits = digits_apart([each.mean for each in listed])
    wide = digits_of([each.against_control for each in listed if each.against_control is not None])
    rows = [
        (
            f"{each.number}{_mark(each, verdict)}",
            str(len(each.fresh)),
            f"{each.mean:.{digits}f}",
            "-" if each.test_loss is None else f"{each.test_loss:.{tested}f}",
            _interval(each.against_control, wide),
            _chance(each),
            _cost(each, verdict.control),
        )
        for each in listed
    ]
    chance = "P(best)" if any(each.chance_best is not None for each in listed) else "lowest"
    header = ("trial", "seeds", "validation", "test", "less the control", chance, "FLOPs")
    first, *lines = table(header, rows, left={0})
    shown = [first]
    for line, each in zip(lines, listed, strict=True):
        shown += [line, f"    {named(by_number[each.number])}"]
    return [
        "Under fresh seeds",
        *(f"  {line}" for line in shown),
        *indented(" ".join(_legend(verdict, chance))),
    ]


def margin_text(verdict: Verdict) -> list[str]:
    """The winner at equal compute, the margin and where it comes from, and what several comparisons cost."""
    if not verdict.finalists:
        return []
    lines = []
    if (claim := verdict.answer.equal_compute) is not None:
        text = f"trial {claim.trial} less the original trained with its FLOPs (trial {claim.against}): "
        lines += indented(f"{text}{_interval(claim, digits_of([claim]))} nats of {claim.loss} loss.")
    margin = verdict.margin
    lines += indented(f"Margin: {_margin(margin)}")
    if any(each.reason is None for each in verdict.settings):
        lines += indented(
            "K, first weights and other settings are answered by "
            f"{'the model of the search, of' if verdict.objective is None else 'a model of'} validation loss "
            "under the seed that chose."
        )
    if verdict.as_good:
        lines += indented(
            f"As good as the lowest mean of the finalists, trial {verdict.lowest}, within the margin: "
            f"{these('trial', verdict.as_good)}. The best grown model is the cheapest grown one of these."
        )
    return ["Equal compute, and the margin", *lines]


def _margin(margin: Margin) -> str:
    shown = f"{margin.nats:.{digits_apart([margin.nats])}f} nats"
    share = f", {margin.percent:g}% of the control's test loss" if margin.percent is not None else ""
    was = (
        f" It was changed after the sweep had been read with another: {margin.was}; intervals are the same."
        if margin.was
        else ""
    )
    return f"{shown}{share}, {_SOURCES[margin.source]}.{was}"


def digits_of(differences: Sequence[Claim | Difference]) -> int:
    """Digits with which the numbers of each difference differ, its ends too, and none looks like 0."""
    found = []
    for each in differences:
        width = each.half_width
        ends = [] if width is None else [width, each.mean - width, each.mean + width]
        found.append(digits_apart([each.mean, *ends]))
    return max(found, default=4)


# -- inside ----------------------------------------------------------------------------------------


def _listed(verdict: Verdict) -> list[Candidate]:
    found = [*verdict.finalists, verdict.baseline, verdict.control, verdict.matched]
    return list({each.number: each for each in found if each is not None}.values())


def _legend(verdict: Verdict, chance: str) -> Iterator[str]:
    measure = next((claim.loss for claim in verdict.claims), "test")
    chose = "validation" if verdict.objective is None else f"scores of {verdict.objective}"
    yield f"Losses: means in nats per token; {chose} chose, claims are about {measure} loss."
    if verdict.claims:
        paid, look = verdict.claims[0].compared, verdict.look
        models = f" for all {paid} grown models together" if paid > 1 else ""
        yield (
            f"Differences: paired by seed at equal tokens, with 95 % intervals that hold{models}, however "
            f"often fresh seeds are added and the answer is read again (this is look {look}; Bonferroni)."
        )
    if chance == "P(best)":
        yield (
            "P(best): posterior probability of the lowest expected test loss of those trained on equal "
            "tokens (t tails, a seed's effect shared); it chooses nothing."
        )
    else:
        yield "Lowest: under so many of the seeds that all share; P(best) takes three fresh ones."
    yield "FLOPs: per token, relative to the control."


def _mark(candidate: Candidate, verdict: Verdict) -> str:
    answer = verdict.answer
    return (
        " best"
        if candidate.number == answer.trial
        else " best grown"
        if candidate.number == answer.grown
        else ""
    )


def _interval(claim: Claim | Difference | None, digits: int) -> str:
    if claim is None:
        return "-"
    spread = f" ± {claim.half_width:.{digits}f}" if claim.half_width is not None else ""
    return f"{claim.mean:+.{digits}f}{spread}"


def _chance(candidate: Candidate) -> str:
    if candidate.chance_best is not None:
        return in_percent(candidate.chance_best)
    if candidate.lowest_under is None:
        return "-"
    lowest, seeds = candidate.lowest_under
    return f"{lowest} of {seeds}"


def in_percent(chance: float) -> str:
    """Never 0 or 100 %, which no posterior says."""
    return "<1%" if chance < 0.01 else ">99%" if chance > 0.99 else f"{chance:.0%}"


def _cost(candidate: Candidate, control: Candidate | None) -> str:
    ours, theirs = candidate.flops_per_token, control.flops_per_token if control else None
    return f"{ours / theirs:.2f}x" if ours and theirs else "-"
