"""Places that list the kinds of runs of a sweep: none forgets one, and none counts one as another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sweeps.cli.following import phase_of
from sweeps.promotion import Promotion
from sweeps.records import Role, State, TrialRecord
from sweeps.report.rows import plain
from sweeps.report.status import status_text
from sweeps.results.coverage import spent
from sweeps.results.standing import Board, aim_of
from sweeps.results.sweep import Sweep
from sweeps.spec import load_spec
from sweeps.tracking.appearance import CONTROL, FINALISTS, REST, colours, run_name
from sweeps.tracking.trial_runs import NOTE, show
from tests.sweeps.test_mlflow_view import DAMPED, NONE, Told

ROOT = Path(__file__).parents[2]


def settings(base: dict[str, Any], tokens: int) -> dict[str, Any]:
    return {**base, "recipe": {"learning_rate": 8.9e-4, "tokens": tokens, "batch_tokens": 64}}


def one_of_each() -> list[TrialRecord]:
    """A complete sweep with one run of every kind that it can have."""
    kinds: list[tuple[Role, dict[str, Any], dict[str, Any]]] = [
        (Role.CONTROL, NONE, {}),
        (Role.BASELINE, DAMPED, {}),
        (Role.SEARCH, DAMPED, {}),
        (Role.REPLICATE, DAMPED, {"replicate_of": 2, "seed": 1}),
        (Role.MATCHED, NONE, {"replicate_of": 2, "seed": 1}),
        (Role.RUNG, DAMPED, {"replicate_of": 2}),
        (Role.EVALUATION, NONE, {"steps": 0, "tokens": 0}),
        (Role.EVALUATION, DAMPED, {"replicate_of": 3, "seed": 1}),
        (Role.EVALUATION, NONE, {"replicate_of": 4, "seed": 1}),
        (Role.PROMOTION, DAMPED, {"promotion": Promotion(2, 8)}),
        (Role.PROMOTED_CONTROL, NONE, {"promotion": Promotion(0, 8, beside=9)}),
    ]
    made = []
    for number, (role, base, more) in enumerate(kinds):
        long = 640 if role is Role.RUNG or role.promoted else 512
        given = {"seed": 0, "steps": long // 64, "tokens": long, "finished": number + 1.0, **more}
        losses = {0: 4.0, given["steps"]: 3.0}
        made.append(
            TrialRecord(
                number,
                role,
                State.COMPLETE,
                {},
                settings(base, long),
                value=3.0,
                losses=losses,
                started=float(number),
                **given,
            )
        )
    return made


def test_every_kind_is_here() -> None:
    assert {record.role for record in one_of_each()} | {Role.OTHER} == set(Role)


@pytest.mark.parametrize("role", Role)
def test_the_documents_name_every_kind(role: Role) -> None:
    text = (ROOT / "docs/reference/json.md").read_text()
    (row,) = [line for line in text.splitlines() if line.startswith("| `trials[].role`")]
    assert f"`{role}`" in row
    assert str(role) in " ".join((Sweep.to_dataframe.__doc__ or "").split())


def test_every_run_has_a_name_and_a_note_of_its_own_in_mlflow() -> None:
    records, told = one_of_each(), Told()
    for record in records:
        show(told, record)
    notes = [told.declared[record.number][2][NOTE] for record in records]
    assert len(set(notes)) == len(records)
    assert not [note for note in notes if note.endswith(tuple(f": {role.value}." for role in Role))]
    names = [run_name(record) for record in records]
    assert len(set(names)) == len(records)
    assert names[9] == "2 K=2 damped lr=8.9e-4, 640 tokens, promotion", "under the number of the trial"
    assert names[5] != names[9]
    assert names[6] == "base, evaluation"
    assert "the base" in notes[6]


def test_what_runs_a_finalist_again_has_its_colour_and_what_runs_the_control_has_the_controls() -> None:
    shown = colours(one_of_each(), [2], 0, 1)
    assert {shown[number] for number in (2, 3, 5, 7, 9)} == {FINALISTS[0]}
    assert {shown[number] for number in (0, 4, 8, 10)} == {CONTROL}
    assert shown[6] == REST, "the base"


def test_every_line_of_a_list_says_whose_run_it_is() -> None:
    lines = status_text(one_of_each(), driven=False).splitlines()[-11:]
    assert [line for line in lines[3:] if " of " not in line and "the base" not in line] == []
    assert "the base" in lines[6]
    assert "of the base" in plain(one_of_each()[6])


def test_long_runs_are_no_runs_of_the_sweep_where_these_are_counted(
    tiny_model: Callable[[str], Path],
) -> None:
    spec = load_spec(
        "quickstart",
        overrides=[f"base.model={tiny_model('llama')}", "evaluation={tasks: [kobest_copa]}"],
    )
    aim = aim_of(spec)
    assert aim.fresh == spec.replicates + spec.rung_runs + 1, "the base is scored in a run of its own"
    records = one_of_each()
    counted, long = Board(aim), Board(replace(aim, long=True))
    for board in (counted, long):
        board.take(records, "finished")
    assert (counted.count, long.count) == (9, 11)


def test_training_again_for_scores_is_no_training_under_fresh_seeds() -> None:
    found = spent([record for record in one_of_each() if not record.role.promoted])
    assert found.tokens == 7 * 512 + 640
    assert found.tokens_of_search == 3 * 512
    assert found.tokens_of_ladder == 640
    assert found.tokens_after == 4 * 512
    assert found.tokens_of_scoring == 2 * 512


@pytest.mark.parametrize(
    ("running", "phase"),
    [(2, "search"), (3, "finalists"), (5, "ladder"), (7, "evaluation"), (9, "promotion"), (None, "finished")],
)
def test_the_phase_is_that_of_what_runs(running: int | None, phase: str) -> None:
    records = one_of_each()
    if running is not None:
        records = [*records[:running], replace(records[running], state=State.RUNNING)]
    done = running in (None, 9)
    ledger = SimpleNamespace(finished=done, driver="one" if running is not None else None)
    assert phase_of(SimpleNamespace(records=records, ledger=ledger)) == phase  # type: ignore[arg-type]
