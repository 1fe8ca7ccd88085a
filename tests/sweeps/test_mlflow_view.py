"""What a sweep looks like in MLflow: names, colours, gaps to the control, descriptions, the saved view."""

from __future__ import annotations

import base64
import json
import random
import zlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from sweeps.records import Role, State, TrialRecord
from sweeps.results.selection import verdict
from sweeps.results.sentence import sentence
from sweeps.tracking import NullTracker
from sweeps.tracking.appearance import (
    BASELINE,
    COLOUR,
    CONTROL,
    FINALISTS,
    REST,
    colours,
    ending,
    run_name,
    short_params,
)
from sweeps.tracking.control_gap import ControlGaps, best_control
from sweeps.tracking.descriptions import experiment_text, running_text
from sweeps.tracking.live import LiveProjection, show_colours
from sweeps.tracking.saved_view import FILTER, figure_ranges, saved_view
from sweeps.tracking.trial_runs import show, show_end
from tests.real_quickstart import kept
from tests.sweeps.null_sweeps import World
from tests.sweeps.null_sweeps import sweep as made

DAMPED = {
    "injection": {"method": "tli", "k": 2, "init": "damped"},
    "recipe": {"learning_rate": 8.9e-4},
    "seed": 0,
}
NONE = {**DAMPED, "injection": {"method": "none"}}


def trial(number: int, role: Role = Role.SEARCH, **fields: Any) -> TrialRecord:
    given = {"settings": DAMPED, "seed": 0, "steps": 8, "state": State.COMPLETE, "params": {}, **fields}
    return TrialRecord(number=number, role=role, **given)


def test_runs_are_named_after_what_they_train_and_what_is_different() -> None:
    again = {"replicate_of": 17, "seed": 2}
    assert run_name(trial(17)) == "17 K=2 damped lr=8.9e-4"
    assert run_name(trial(40, Role.REPLICATE, **again)) == "17 K=2 damped lr=8.9e-4, seed 2"
    assert run_name(trial(0, Role.CONTROL, settings=NONE)) == "control lr=8.9e-4"
    control = trial(30, Role.REPLICATE, settings=NONE, replicate_of=0, seed=1)
    assert run_name(control) == "control lr=8.9e-4, seed 1"
    matched = trial(50, Role.MATCHED, settings=NONE, **again)
    assert run_name(matched) == "control lr=8.9e-4, compute of 17, seed 2"
    assert run_name(trial(1, Role.BASELINE)) == "1 K=2 damped lr=8.9e-4, baseline"
    assert run_name(trial(5, settings=NONE)) == "5 original lr=8.9e-4"
    assert run_name(trial(6, settings={})) == "6 original lr=-"
    assert short_params(trial(17)) == {"grown": "K=2", "first_weights": "damped", "rate": "8.9e-4"}
    longer = {**DAMPED, "recipe": {"learning_rate": 8.9e-4, "tokens": 98_304}}
    rung = trial(70, Role.RUNG, settings=longer, replicate_of=17, seed=1)
    assert run_name(rung) == "17 K=2 damped lr=8.9e-4, 98.3k tokens, seed 1"
    # A kind of run that has no name here is named by its role.
    assert run_name(replace(trial(60), role=Role.OTHER, replicate_of=17)) == (
        "17 K=2 damped lr=8.9e-4, not run here"
    )


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("colour", [CONTROL, BASELINE, *FINALISTS])
def test_a_colour_that_says_something_is_seen_on_mlflows_light_and_dark_background(colour: str) -> None:
    for background in ("#FFFFFF", "#11171C"):
        light, dark = sorted((luminance(colour), luminance(background)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 3.0, background


class Told(NullTracker):
    """Keeps what it is told, as a tracker does."""

    def __init__(self) -> None:
        self.against: int | None = None
        self.gap: dict[int, dict[int, float]] = {}
        self.final: dict[int, float] = {}
        self.marked: dict[int | None, dict[str, Any]] = {}
        self.described: dict[str, Any] = {}
        self.declared: dict[int, tuple[str | None, dict[str, Any], dict[str, Any]]] = {}
        self.ended: dict[int, dict[str, Any]] = {}
        self.calls = 0

    def gaps_against(self) -> int | None:
        return self.against

    def gaps(self, number: int, against: int, gaps: Mapping[int, float], final: float | None) -> None:
        self.against, self.calls = against if self.against is None else self.against, self.calls + 1
        self.gap.setdefault(number, {}).update(gaps)
        self.final.update({} if final is None else {number: final})

    def mark(self, number: int | None, tags: Mapping[str, Any], *, again: bool = False) -> None:
        if not again or number in self.marked:
            self.marked.setdefault(number, {}).update(tags)

    def describe(self, tags: Mapping[str, Any]) -> None:
        self.described |= tags

    def declare(
        self,
        number: int,
        settings: Mapping[str, Any],
        tags: Mapping[str, Any],
        when: float | None = None,
        name: str | None = None,
    ) -> None:
        self.declared[number] = (name, dict(settings), dict(tags))

    def end(self, number: int, status: State, tags: Any, metrics: Any, when: float | None = None) -> None:
        self.ended[number] = dict(tags)


def test_gaps_are_to_the_best_control_under_the_same_seed_and_are_completed_when_it_comes_later() -> None:
    high = trial(0, Role.CONTROL, settings=NONE, losses={0: 4.0, 4: 3.5, 8: 3.4}, value=3.4)
    low = trial(1, Role.CONTROL, settings=NONE, losses={0: 4.0}, state=State.RUNNING)
    grown = trial(2, losses={0: 4.0, 4: 3.25, 8: 3.0}, value=3.0)
    fresh = trial(3, Role.REPLICATE, replicate_of=2, seed=1, losses={0: 4.0, 4: 3.3, 8: 3.1}, value=3.1)
    told, records = Told(), [high, low, grown, fresh]
    gaps = ControlGaps(told)
    assert best_control(records) is None, "one of the controls still runs"
    assert gaps.tell(records, best_control(records)) is None
    assert told.gap == {}
    records[1] = replace(low, state=State.COMPLETE, losses={0: 4.0, 4: 3.125, 8: 3.0625}, value=3.0625)
    assert gaps.tell(records, best_control(records)) == 1
    assert told.gap[2] == {0: 0.0, 4: 0.125, 8: -0.0625}
    assert told.gap[1] == {0: 0.0, 4: 0.0, 8: 0.0}
    assert told.final[2] == -0.0625
    assert 3 not in told.gap, "no control under its seed so far"
    own = trial(4, Role.REPLICATE, settings=NONE, replicate_of=1, seed=1, losses={0: 4.0, 4: 3.2})
    records.append(replace(own, state=State.RUNNING))
    gaps.tell(records, 1)
    assert (told.gap[3].keys(), 3 in told.final) == ({0, 4}, False)
    records[4] = replace(own, losses={0: 4.0, 4: 3.2, 8: 3.0}, value=3.0)
    gaps.tell(records, 1)
    assert told.gap[3][8] == pytest.approx(0.1)
    assert told.final[3] == pytest.approx(0.1)
    before = told.calls
    gaps.tell(records, 1)
    assert told.calls == before, "nothing is new"
    # The sweep is extended, and another control is better: what was told stays, and so does the reference.
    longer = trial(
        7, Role.RUNG, replicate_of=2, seed=0, steps=16, losses={0: 4.0, 8: 3.2, 16: 2.9}, value=2.9
    )
    ControlGaps(told).tell([*records, longer], 1)
    assert 7 not in told.gap, "at step 8 its learning rate was another"
    better = trial(5, Role.CONTROL, settings=NONE, losses={0: 4.0, 8: 2.0}, value=2.0)
    later = trial(6, losses={0: 4.0, 8: 3.0}, value=3.0)
    assert best_control([*records, better, later]) == 5
    assert ControlGaps(told).tell([*records, better, later], 5) == 1
    assert told.final[6] == pytest.approx(-0.0625)


def test_a_diverged_control_or_trial_has_no_gap_that_is_no_number() -> None:
    control = trial(0, Role.CONTROL, settings=NONE, losses={0: 4.0, 4: float("nan"), 8: 3.0}, value=3.0)
    grown = trial(1, losses={0: 4.0, 4: 3.0, 8: float("inf")}, value=float("inf"))
    told = Told()
    ControlGaps(told).tell([control, grown], 0)
    assert told.gap[1] == {0: 0.0}
    assert 1 not in told.final


def test_finalists_differ_in_colour_from_control_baseline_and_rest_and_lend_it_to_their_seeds() -> None:
    records = made(World(better=15.0), random.Random(0))
    found = verdict(records)
    chosen = [each.number for each in found.finalists]
    assert found.control is not None
    told = Told()
    show_colours(told, records, chosen, found.control.number)
    by_number = colours(records, chosen, found.control.number, None)
    shown = {number: tags[COLOUR] for number, tags in told.marked.items()}
    assert [shown[number] for number in chosen] == list(FINALISTS[: len(chosen)])
    for record in records:
        if record.replicate_of in chosen and record.role is Role.REPLICATE:
            assert shown[record.number] == shown[record.replicate_of]
    assert by_number[found.control.number] == CONTROL
    searched = [r.number for r in records if r.role is Role.SEARCH and r.number not in chosen]
    assert {by_number[number] for number in searched} == {REST}
    assert not set(searched) & shown.keys(), "they have that colour since they began"
    show_colours(told, records, chosen[1:], found.control.number)
    assert told.marked[chosen[0]][COLOUR] == REST, "no finalist any more"


def test_every_run_says_in_a_line_what_it_is_and_how_it_ended() -> None:
    told = Told()
    stopped = trial(17, state=State.PRUNED, losses={0: 4.0, 4: 3.5}, reason="stopped by learned at step 4")
    failed = trial(18, state=State.FAIL, losses={0: 4.0}, reason="boom `x`\n[link](http://x)")
    fresh = trial(40, Role.REPLICATE, replicate_of=17, seed=2, losses={8: 3.0066}, value=3.0066)
    for record in (stopped, failed, fresh):
        show(told, record)
        show_end(told, record)
    notes = {number: tags["mlflow.note.content"] for number, tags in told.ended.items()}
    assert all("\n" not in note for note in notes.values())
    assert notes[17].endswith("a trial of the search: stopped early at step 4 of 8, held-out loss 3.5000.")
    assert notes[18].endswith("failed at step 0 of 8, held-out loss 4.0000, as `boom 'x' [link](http://x)`.")
    assert "trial 17 again, under seed 2: complete, held-out loss 3.0066" in notes[40]
    assert [told.ended[n]["sweeps.end"] for n in (17, 18, 40)] == [
        "stopped early at step 4 of 8",
        "failed at step 0 of 8",
        "complete",
    ]
    assert ending(trial(1, state=State.RUNNING)) is None
    name, settings, tags = told.declared[17]
    assert name == run_name(stopped)
    assert (settings["grown"], settings["rate"]) == ("K=2", "8.9e-4")
    assert (tags["sweeps.compared"], told.declared[40][2]["sweeps.compared"]) == ("yes", "no")


class Fake:
    """A sweep as far as descriptions ask for it."""

    class spec:  # noqa: N801
        name = "quickstart"
        spread = None

        class budget:  # noqa: N801
            trials = 24

        class finalists:  # noqa: N801
            top = 3

    class folders:  # noqa: N801
        report = "runs/quickstart/report.html"

    class ledger:  # noqa: N801
        depth = 8


def test_the_experiments_description_is_the_answer_the_finalists_and_where_the_report_is() -> None:
    records, _ = kept()
    found = verdict(records, depth=8)
    text = experiment_text(Fake(), found, records, 0)  # type: ignore[arg-type]
    first, *rest = text.split("\n")
    assert first == f"quickstart: {sentence(found, records)}"
    assert "`runs/quickstart/report.html`" in text
    assert "`control_gap`" in text
    rows = [line for line in rest if line.startswith("| ")]
    assert len({line.count("|") for line in rows}) == 1, "no cell holds a bar"
    for finalist in found.finalists:
        assert any(
            line.startswith(f"| {finalist.number} ") or f"**{finalist.number} " in line for line in rows
        )
    assert sum(": best**" in line for line in rows) == 1
    assert len(text) < 5000, "MLflow cuts a tag there"


def test_of_a_sweep_that_runs_it_says_how_far_it_is_and_names_no_winner() -> None:
    records, _ = kept()
    searched = [r for r in records if not r.role.fresh]
    text = running_text(Fake(), searched, "search", 0)  # type: ignore[arg-type]
    lowest = min((r for r in searched if r.role is Role.SEARCH and r.value), key=lambda r: r.value or 9.0)
    assert text.startswith("quickstart: not finished (search), 24 of 24 trials ended")
    assert f"trial {lowest.number}, " in text
    assert "best" not in text


def test_a_running_sweep_is_told_of_seldom_and_at_once_when_its_phase_changes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    records, _ = kept()
    searched = [r for r in records if not r.role.fresh]
    told, clock = Told(), [100.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    settled = [False]
    live = LiveProjection(told, Fake(), lambda: settled[0])  # type: ignore[arg-type]
    live.update(searched[:4], "search")
    first = told.described["mlflow.note.content"]
    assert told.gap == {}, "which control it is may change"
    settled[0] = True
    live.update(searched, "search")
    assert told.gap == {}
    clock[0] += 3.0
    live.update(searched, "search")
    assert len(told.gap) > len(searched) // 2
    assert told.described["mlflow.note.content"] == first
    assert told.marked == {}
    live.update(records, "finalists")
    assert told.described["mlflow.note.content"] != first
    chosen = {r.replicate_of for r in records if r.role is Role.REPLICATE} - {0, 1}  # control, baseline
    assert {told.marked[number][COLOUR] for number in chosen} == set(FINALISTS[:3])


def state_of(view: str) -> dict[str, Any]:
    saved = json.loads(view)
    assert {"name", "createdAt", "updatedAt", "state"} == saved.keys()
    kind, _, packed = saved["state"].partition(";")
    assert kind == "deflate"
    return dict(json.loads(zlib.decompress(base64.b64decode(packed))))


def test_the_saved_view_has_the_gap_first_and_shows_where_finalists_differ() -> None:
    records, _ = kept()
    found = verdict(records, depth=8)
    ranges = figure_ranges(records, 0)
    view = saved_view(ranked=True, ranges=ranges)
    assert len(view) < 5000
    state = state_of(view)
    assert [chart["metricKey"] for chart in state["compareRunCharts"]][:2] == ["control_gap", "eval_loss"]
    assert sorted(["control_gap", "eval_loss", "flops", "initial_loss"])[:2] == ["control_gap", "eval_loss"]
    sections = {section["uuid"] for section in state["compareRunSections"]}
    assert {chart["metricSectionId"] for chart in state["compareRunCharts"]} == sections
    assert (state["searchFilter"], state["orderByKey"]) == (FILTER, "tags.`sweeps.order`")
    by_number = {record.number: record for record in records}
    (low, high), control = ranges["control_gap"], by_number[0]
    for finalist in found.finalists:
        value = by_number[finalist.number].value
        assert value is not None
        assert control.value is not None
        assert low < value - control.value < high
    assert state_of(saved_view(ranked=False))["orderByKey"] == "metrics.`objective_gap`"
    assert figure_ranges(records[:2], 0) == {}
