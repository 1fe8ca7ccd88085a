"""What each command answers in JSON, under the same names everywhere; docs/reference/json.md has them all.

`sweep` is the name of a sweep, `trial` the number of a trial, `trials` a list of those,
`trial_count` how many.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from sweeps.checks.estimate import Estimate
    from sweeps.driver.promotion_plan import Planned
    from sweeps.records import Point, TrialRecord
    from sweeps.results.equal_cost import Comparison
    from sweeps.results.left import Left
    from sweeps.results.listing import Listed
    from sweeps.results.standing import Standing
    from sweeps.results.sweep import Sweep
    from sweeps.results.unfinished import Progress
    from sweeps.results.verdict import Verdict
    from sweeps.tracking.sync import Synced


def listed(found: Mapping[str, Listed]) -> dict[str, Any]:
    """Of `sweeps list`."""
    return {
        "sweeps": [
            {
                "sweep": name,
                "trial_count": None if each.reason else sum(record.ours for record in each.records),
                "finished": None if each.reason else each.finished,
                "best": each.best.number if each.best else None,
                "best_loss": each.best.mean if each.best else None,
                "unreadable": each.reason,
            }
            for name, each in found.items()
        ]
    }


def status(sweep: Sweep, spent: Mapping[str, float]) -> dict[str, Any]:
    """Of `sweeps status`."""
    ledger, driver = sweep.ledger, sweep.ledger.driver
    return {
        "sweep": sweep.spec.name,
        "finished": ledger.finished,
        "driver": driver,
        "spent": dict(spent),
        "trials": [_trial(each if driver else replace(each, waits=None)) for each in sweep.records],
    }


def followed(sweep: Sweep, standing: Standing) -> dict[str, Any]:
    """One line of `sweeps status --follow`: how it stands, without a row for each trial."""
    ledger = sweep.ledger
    return {
        "sweep": sweep.spec.name,
        "finished": ledger.finished,
        "driver": ledger.driver,
        **standing.to_json(),
    }


def best(
    sweep: Sweep, verdict: Verdict, records: Sequence[TrialRecord], progress: Progress
) -> dict[str, Any]:
    """Of `sweeps best`: the answer, promotions, and how far the sweep is."""
    from sweeps.results.promotions import promotions

    more = {
        "promotions": promotions(records, sweep.model_of, verdict.sources),
        "progress": progress.to_json(),
    }
    return {**_verdict(sweep, verdict, records), **more}


def promoted(planned: Planned, sweep: Sweep, **handed: Any) -> dict[str, Any]:
    """Of `sweeps promote`: what was planned of each run, and how it stands; `handed` is the rest."""
    from sweeps.results.promotions import promotions

    of = planned.long_runs[0].promotion.of
    plan = [
        {
            "role": str(run.role),
            "of": run.promotion.of,
            "trial": run.record.number if run.record is not None else None,
            "tokens": run.tokens,
            "steps": run.steps,
            "begins": run.promotion.begins,
            "afresh": run.promotion.why or None,
            "first_step": run.first_step,
            "settings": dict(run.settings),
            "expected": asdict(expected),
        }
        for run, expected in planned.takes
    ]
    steps = planned.long_runs[0].steps
    records = sweep.records
    known = promotions(records, sweep.model_of, sweep.answer(records).sources)
    found = [each for each in known if each["of"] == of and each["steps"] == steps]
    stands = found[-1] if found else None
    what = {"sweep": sweep.spec.name, "what": planned.what, "ranks": planned.ranks, "plan": plan}
    return {**what, "promotion": stands, **handed}


def exported(
    name: str, trial: int, out: Path, loss: float | None, more: Mapping[str, Any], progress: Progress
) -> dict[str, Any]:
    """Of `sweeps export`; `more` says what was exported."""
    answer = {"sweep": name, "trial": trial, "out": str(out), "heldout_loss": loss}
    return {**answer, **more, "progress": progress.to_json()}


def results(name: str, rows: Sequence[Mapping[str, Any]], *, curves: bool) -> dict[str, Any]:
    """Of `sweeps results`: a row a trial, or a row a measurement."""
    return {"sweep": name, "curves" if curves else "trials": list(rows)}


def _verdict(sweep: Sweep, verdict: Verdict, records: Sequence[TrialRecord]) -> dict[str, Any]:
    from sweeps.results.ladder import ladder_of
    from sweeps.results.longer import longer
    from sweeps.results.sentence import sentence
    from sweeps.results.tasks import task_table

    climbed = ladder_of(verdict, records, sweep.ledger.spec.budget.ladder)
    found = verdict.to_json()
    found |= {"longer": longer(verdict, records).to_json(), "ladder": climbed.to_json() if climbed else None}
    for key in ("finalists", "stopped", "failed"):
        found[key] = [_numbered(each) for each in found[key]]
    for key in ("control", "matched", "baseline"):
        found[key] = _numbered(found[key]) if found[key] else None
    if found["front"]:
        found["front"]["members"] = [_numbered(each) for each in found["front"]["members"]]
    begun = [each.summary() for each in sweep.ledger.study.warm_start]
    scores = task_table(sweep, verdict, records)
    tasks = scores.to_json() if scores else None
    said = {"sweep": sweep.spec.name, "sentence": sentence(verdict, records)}
    return {**said, **found, "warm_start": begun, "tasks": tasks}


def ran(sweep: Sweep, verdict: Verdict, places: Mapping[str, str]) -> dict[str, Any]:
    """Of `sweeps run` and `sweeps resume`."""
    answer = _verdict(sweep, verdict, sweep.records)
    name = answer.pop("sweep")
    return {"sweep": name, "verdict": answer, "ended_by": sweep.ended_by, "places": dict(places)}


def compared(found: Comparison) -> dict[str, Any]:
    """Of `sweeps compare`."""
    value = found.to_json()
    rows = [{"reference": row["trial"], **_numbered(row)} for row in value["trials"]]
    return {**value, "trials": rows}


def planned(plan: Estimate, notes: Sequence[str], left: Left | None = None) -> dict[str, Any]:
    """Of `sweeps plan`; `left` is of a sweep that was begun."""
    value = plan.to_json()
    name, count = value.pop("name"), value.pop("trials")
    return {
        "sweep": name,
        "trial_count": count,
        **value,
        "left": left and left.to_json(),
        "notes": list(notes),
    }


def measured(name: str, number: int, point: Point) -> dict[str, Any]:
    """One line of `sweeps trial`."""
    return {"sweep": name, "trial": number, **point.to_json()}


def synced(name: str, found: Synced) -> dict[str, Any]:
    """Of `sweeps sync`."""
    counts = {"trial_count": found.trials, "point_count": found.points}
    return {"sweep": name, "uri": found.uri, **counts, "lost": list(found.lost)}


def _trial(record: TrialRecord) -> dict[str, Any]:
    return {**_numbered(asdict(record)), "step": record.step, "loss": record.loss}


def _numbered(row: Mapping[str, Any]) -> dict[str, Any]:
    rest = {key: value for key, value in row.items() if key not in ("number", "trial")}
    return {"trial": row["number"], **rest}
