"""A real quickstart's trials, which the documentation explains: `python -m tests.real_quickstart RUNS` takes them anew.

Kept are the numbers that an answer is made of; losses between the first and the last measurement are left out.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import sweeps
from sweeps.records import Role, State, TrialRecord
from sweeps.search_answers import SearchAnswers

KEPT = Path(__file__).with_name("real_quickstart.json")


def kept() -> tuple[list[TrialRecord], SearchAnswers]:
    """Its trials, and what the model of its search said."""
    plain = json.loads(KEPT.read_text())
    return [_record(each) for each in plain["trials"]], SearchAnswers.from_json(plain["search_answers"])


def _record(plain: dict[str, Any]) -> TrialRecord:
    losses = {int(step): loss for step, loss in plain["losses"].items()}
    named = {"role": Role(plain["role"]), "state": State(plain["state"]), "losses": losses}
    return TrialRecord(**{**plain, **named, "test_losses": tuple(plain["test_losses"])})


def main() -> int:
    """Write what there is of a finished quickstart."""
    sweep = sweeps.find("quickstart", runs=sys.argv[1])
    answers = sweep.ledger.study.search_answers
    assert answers is not None, "a sweep that has ended"
    trials = []
    for record in sweep.records:
        plain = {name: value for name, value in asdict(record).items() if value not in (None, ())}
        plain["losses"] = {step: loss for step, loss in record.losses.items() if step in (0, record.step)}
        plain["test_losses"] = [round(loss, 6) for loss in record.test_losses]
        trials.append({**plain, "request": None, "retries": {}})
    KEPT.write_text(
        json.dumps({"trials": trials, "search_answers": answers.to_json()}, separators=(",", ":")) + "\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
