"""What the figures of a report are drawn from: trials with their curves, claims, the valleys of the rate."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from sweeps.records import Role, State, TrialRecord
from sweeps.report.rows import settings_text
from sweeps.results.candidates import Candidate
from sweeps.results.claims import Claim
from sweeps.results.front import in_words
from sweeps.results.labels import configuration
from sweeps.results.layers import COSTS
from sweeps.results.verdict import Verdict
from sweeps.search_answers import SearchAnswers

_DIGITS = 6  # of a loss, after the point
_GROUPS = {Role.CONTROL: "control", Role.MATCHED: "control", Role.BASELINE: "baseline"}


def figures(
    verdict: Verdict, records: Sequence[TrialRecord], answers: SearchAnswers | None
) -> dict[str, Any]:
    """As plain JSON values.

    Args:
        verdict: of the sweep.
        records: every trial of it.
        answers: what the model of the search said; None before the search is over.
    """
    ours = [record for record in records if record.ours and not record.role.promoted]
    control = next((r for r in ours if verdict.control and r.number == verdict.control.number), None)
    initial = control.initial_loss if control else None
    found = {candidate.number: candidate for candidate in candidates(verdict)}
    valleys = answers.valleys if answers else {}
    return {
        "margin": verdict.margin.nats,
        "measure": next((claim.loss for claim in verdict.claims), "test"),
        "control": verdict.control.number if verdict.control else None,
        "base_loss": _finite(initial),
        "finalists": [finalist.number for finalist in verdict.finalists],
        "ks": sorted({k for record in ours if isinstance(k := _setting(record, "injection", "k"), int)}),
        "trials": [_trial(record) for record in ours],
        "claims": [_claim(claim, found) for claim in verdict.claims],
        "front": _front(verdict),
        "valleys": [
            {"k": k, "points": list(along.points), "means": list(along.means)} for k, along in valleys.items()
        ],
    }


def candidates(verdict: Verdict) -> list[Candidate]:
    """What ran under fresh seeds, each once: the finalists first."""
    found = [*verdict.finalists, verdict.baseline, verdict.control, verdict.matched]
    return list({each.number: each for each in found if each is not None}.values())


def _trial(record: TrialRecord) -> dict[str, Any]:
    steps = sorted(record.losses)
    tokens = record.step * _batch(record)
    return {
        "n": record.number,
        "role": str(record.role),
        "group": _GROUPS.get(record.role, "grown") if not record.original else "control",
        "state": str(record.state),
        "label": configuration(record) if not record.original else f"original {configuration(record)}",
        "fresh": record.role.after,
        "of": record.replicate_of,
        "seed": record.seed,
        "step": record.step,
        "k": None if record.original else _setting(record, "injection", "k"),
        "rate": _setting(record, "recipe", "learning_rate"),
        "params": [settings_text(record.params)] if record.params else [],
        "reason": record.reason if record.state in (State.FAIL, State.PRUNED) else None,
        "loss": _finite(record.loss),
        "batch": _batch(record),
        "fpt": record.flops / tokens if record.flops and tokens else 0,
        "sec": record.seconds,
        "curve": [steps, [_finite(record.losses[step]) for step in steps]],
    }


def _claim(claim: Claim, found: Mapping[int, Candidate]) -> dict[str, Any]:
    """With the difference under each fresh seed, and under the seed that chose the trial."""
    ours, theirs = found[claim.trial], found[claim.against]
    measured = (ours.test_losses, theirs.test_losses) if claim.loss == "test" else (ours.fresh, theirs.fresh)
    shared = sorted(measured[0].keys() & measured[1].keys())
    chose = None
    if ours.seed is not None and ours.seed == theirs.seed and ours.seed in ours.losses:
        chose = ours.losses[ours.seed] - theirs.losses[theirs.seed]
    return {
        "trial": claim.trial,
        "against": claim.against,
        "at": claim.at,
        "label": _label(ours),
        "says": claim.says,
        "mean": claim.mean,
        "low": claim.low,
        "high": claim.high,
        "dots": [measured[0][seed] - measured[1][seed] for seed in shared],
        "chose": chose,
    }


def _front(verdict: Verdict) -> dict[str, Any] | None:
    """The costs, relative to the original's where that is known, or the scores; and the differences in loss
    to it. The line joins those with `line`.
    """
    front = verdict.front
    if front is None:
        return None
    control = verdict.control.number if verdict.control else None
    relative = front.cost is not None and all(member.times is not None for member in front.members)
    members = [
        {
            "n": member.number,
            "at": member.score if front.cost is None else member.times if relative else member.cost,
            "wide": member.score_half_width,
            "mean": 0.0 if member.number == control else member.mean,
            "half": member.half_width,
            "dominated": member.stands == "dominated",
            "line": member.stands != "dominated" if member.by_means is None else member.by_means,
            "says": in_words(member),
        }
        for member in front.members
        if (member.mean is not None or member.number == control)
        and (front.cost is not None or member.score is not None)
    ]
    if front.cost is None:
        better = "higher" if front.higher_is_better else "lower"
        name = f"{front.score} ({better} is better)"
        return {"name": name, "members": members, "base": front.base, "exact": False}
    name = COSTS[front.cost]
    shown = f"{name}, relative to the original" if relative else name
    return {"name": shown, "members": members, "base": None, "exact": True}


def _label(candidate: Candidate) -> str:
    injection, recipe = candidate.settings["injection"], candidate.settings["recipe"]
    grown = f"K={injection['k']} {injection['init']}" if injection["method"] == "tli" else injection["method"]
    return f"{grown} lr {recipe['learning_rate']:.1e}"


def _setting(record: TrialRecord, section: str, name: str) -> Any:
    return record.settings.get(section, {}).get(name)


def _batch(record: TrialRecord) -> int:
    return int(_setting(record, "recipe", "batch_tokens") or 0)


def _finite(loss: float | None) -> float | None:
    return None if loss is None or not math.isfinite(loss) else round(loss, _DIGITS)
