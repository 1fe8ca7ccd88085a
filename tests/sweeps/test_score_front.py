"""Losses against the score on a task: the aims in the spec, the search along the front, its answer, its faces."""

from __future__ import annotations

import json
import math
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest

from sweeps.__main__ import main
from sweeps.checks.evaluation import evaluation_notes, evaluation_problems
from sweeps.driver.service import run
from sweeps.errors import SpecError
from sweeps.ledger.search.features import Features
from sweeps.ledger.search.model_proposals import ModelProposals
from sweeps.ledger.search.observations import by_front_score
from sweeps.ledger.search.space import Space
from sweeps.records import Outcome, Point, Role, State, TrialRecord
from sweeps.report.front import _less_score, front_line, front_text
from sweeps.results.candidates import Candidate
from sweeps.results.finalists import control_of, finalists, may_be_finalists
from sweeps.results.front import Front, in_words
from sweeps.results.score_front import front_of_scores
from sweeps.results.scored_runs import Cell
from sweeps.results.sweep import Sweep
from sweeps.spec import Range, Spec, difference, load_spec
from sweeps.task_scores import Aimed
from sweeps.tracking import NullTracker
from sweeps.tracking.descriptions import run_text
from sweeps.tracking.live import show_colours
from tests.sweeps.aimed_specs import AIM, write_aimed
from tests.sweeps.conftest import Silent, agenda_of, taken
from tests.sweeps.made_records import trial

FRONT = f"[eval_loss, {AIM}]"
K, RATE = "injection.k", "recipe.learning_rate"


@pytest.fixture
def path(tmp_path: Path, tiny_model: Callable[[str], Path]) -> str:
    return write_aimed(tmp_path, tiny_model("llama"), objective=FRONT)


# -- the spec -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "metric", "score"),
    [
        (FRONT, "eval_loss", AIM),
        (f"[{AIM}, eval_loss]", "eval_loss", AIM),
        (f"[{AIM}]", AIM, None),
    ],
)
def test_a_list_of_aims_with_a_task_is_the_section(
    written: str, metric: str, score: str | None, tmp_path: Path, tiny_model: Callable[[str], Path]
) -> None:
    spec = load_spec(write_aimed(tmp_path, tiny_model("llama"), objective=written))
    assert (spec.objective.metric, spec.objective.score, spec.spread) == (metric, score, score)
    assert spec.objective.scored == ("kobest_copa", "acc")
    assert Spec.from_json(spec.to_json()) == spec


@pytest.mark.parametrize(
    ("aims", "place", "remedy"),
    [
        ("[eval_loss, kobest_cop/acc]", "objective[1]", AIM),
        ("[eval_loss, hellaswag/acc]", "objective[1]", "evaluation: {tasks: [hellaswag]}"),
        ("[eval_loss, kobest_copa]", "objective[1]", AIM),
        ("[eval_loss, kobest_copa/]", "objective[1]", AIM),
        (f"[eval_loss, {AIM}, kobest_boolq/acc]", "objective", FRONT),
        (f"[eval_loss, {AIM}, parameters]", "objective", FRONT),
        (f"[{AIM}, parameters]", "objective", FRONT),
        (f"[{AIM}, kobest_boolq/acc]", "objective", FRONT),
        (f"[{AIM}, {AIM}]", "objective", FRONT),
        (f"[eval_loss, {AIM}, {AIM}]", "objective", FRONT),
        (f"[eval_loss, eval_loss, {AIM}]", "objective", FRONT),
    ],
)
def test_aims_that_make_no_front_are_refused_at_their_place(
    aims: str, place: str, remedy: str, tmp_path: Path, tiny_model: Callable[[str], Path]
) -> None:
    written = write_aimed(tmp_path, tiny_model("llama"), objective=aims)
    with pytest.raises(SpecError) as raised:
        load_spec(written)
    (problem,) = raised.value.problems
    line = 1 + Path(written).read_text().split("\n").index(f"objective: {aims}")
    assert problem.where.startswith(f"{written}:{line}:")
    assert problem.where.endswith(f" {place}")
    assert problem.remedy == remedy
    assert problem.expected


@pytest.mark.parametrize("objective", ["[eval_loss, {}]", "{{metric: {}}}", "{{score: {}}}"])
@pytest.mark.parametrize(
    ("tasks", "aim", "remedies"),
    [
        ("kobest_copaa", AIM, {"tasks[0]": "kobest_copa", "": "evaluation: {tasks: [kobest_copa]}"}),
        ("kobest_boolq, kobest_copaa", "kobest_cpa/acc", {"tasks[1]": "kobest_copa", "": AIM}),
        ("kobest_copaa", "kobest_copa", {"": AIM}),
    ],
)
def test_a_misspelt_task_is_never_proposed(
    objective: str,
    tasks: str,
    aim: str,
    remedies: Mapping[str, str],
    tmp_path: Path,
    tiny_model: Callable[[str], Path],
) -> None:
    with pytest.raises(SpecError) as raised:
        load_spec(write_aimed(tmp_path, tiny_model("llama"), objective=objective.format(aim), tasks=tasks))
    found = {each.where.rpartition("evaluation.")[2]: each.remedy for each in raised.value.problems}
    places = {where if where.startswith("tasks") else "": remedy for where, remedy in found.items()}
    assert places == remedies


def test_what_a_front_of_scores_has_no_use_for_is_refused(path: str) -> None:
    others = {
        "stopping.rule": "learned",
        "sampler.name": "tpe",
        "finalists.per": "injection.k",
        "budget.ladder": "[1024]",
        "evaluation.on": "[finalists]",
    }
    with pytest.raises(SpecError) as raised:
        load_spec(path, overrides=[f"{name}={value}" for name, value in others.items()])
    places = {each.where.removeprefix("--set ").partition("=")[0] for each in raised.value.problems}
    assert places == set(others)
    for section, place in (
        (f"{{score: {AIM}, cost: parameters}}", "objective.cost"),
        (f"{{metric: {AIM}, score: kobest_boolq/acc}}", "objective.score"),
        ("{score: eval_loss}", "objective.score"),
        (f"{{score: {AIM}, answer: each}}", "objective.answer"),
    ):
        with pytest.raises(SpecError) as raised:
            load_spec(path, overrides=[f"objective={section}"])
        assert [each.where.rpartition(" ")[2] for each in raised.value.problems] == [place]


def test_a_wrong_front_reserves_nothing(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", path, "--set", "objective=[eval_loss, kobest_cop/acc]"]) == 2
    said = capsys.readouterr().err
    assert "kobest_cop/acc" in said
    assert "try kobest_copa/acc" in said
    assert not (Path(path).parent / "runs").exists()


def test_a_metric_that_the_task_does_not_have_is_found_before_anything_is_made(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {"acc": True, "f1": True, "seconds": None}
    monkeypatch.setattr("sweeps.checks.evaluation.metrics_of", lambda *_: known)
    monkeypatch.setattr("sweeps.checks.evaluation.task_problems", lambda *_: [])
    spec = load_spec(path, overrides=["objective=[eval_loss, kobest_copa/ac]"])
    (problem,) = evaluation_problems(spec)
    assert problem.where.endswith("objective[1]")
    assert (problem.remedy, "f1" in problem.expected) == (AIM, True)


def test_scores_of_another_limit_are_another_sweep(path: str) -> None:
    one, other = load_spec(path), load_spec(path, overrides=["evaluation.limit=8"])
    assert difference(one, other) == ["evaluation.limit: 12 -> 8"]
    assert any(AIM in note and "front" in note for note in evaluation_notes(one))


# -- the search ---------------------------------------------------------------------------------------


def scored(number: int, loss: float, score: float, *, higher: bool = True, **fields: Any) -> TrialRecord:
    return trial(number, loss, **{"front_score": Aimed(AIM, score, higher), **fields})


def test_the_process_of_scores_sees_what_is_minimised_of_them() -> None:
    stopped = trial(1, 3.0, state=State.PRUNED)
    other = trial(2, 3.0, role=Role.OTHER)
    diverged = trial(3, None, state=State.FAIL, reason="diverged")
    found = by_front_score([scored(0, 3.0, 0.6), scored(4, 3.0, 9.0, higher=False), stopped, other, diverged])
    assert [(each.number, each.value) for each in found] == [(0, -0.6), (4, 9.0), (3, None)]


SEARCH = {K: Range(choice=(1, 2, 4, 8)), RATE: Range(log=(1e-4, 1e-2))}


def aims_of(params: Mapping[str, Any]) -> tuple[float, float]:
    """Loss and accuracy: low rates keep what was known, higher ones learn the text; each K has its own place."""
    at = math.log10(params[RATE])
    loss = 3.0 + 0.02 * (at + 2.3) ** 2 + 0.01 * math.log2(params[K])
    score = 0.7 - 0.1 * (at + 3.7) ** 2 - 0.02 * (3 - math.log2(params[K]))
    return loss, score


def _hypervolume(records: Sequence[TrialRecord]) -> float:
    """Of losses below 3.1 and scores above 0.4: from the lowest loss on, each adds what it scores more."""
    area, best = 0.0, 0.4
    for record in sorted(records, key=lambda each: each.value or 9.0):
        score = record.front_score.score if record.front_score else 0.0
        area += max(0.0, 3.1 - (record.value or 9.0)) * max(0.0, score - best)
        best = max(best, score)
    return area


def _searched(spec: Spec, seed: int, *, front: bool) -> list[TrialRecord]:
    proposals = ModelProposals(
        Features(spec.search), Space.of(spec), answer="best", rate=lambda: 5e-3, front_scores=front
    )
    done: list[TrialRecord] = []
    for number in range(14):
        params = proposals.propose(100 * seed + number, done, lambda r: r.number, [], {}, lambda _: True)
        assert params is not None
        settings, (loss, score) = spec.settings_for(params).model_dump(), aims_of(params)
        done.append(scored(number, loss, score, params=params, settings=settings))
    return done


def test_the_search_goes_along_the_front_and_not_to_the_lowest_loss_alone() -> None:
    plain = load_spec("quickstart").to_json()
    plain["search"] = {path: wanted.to_json() for path, wanted in SEARCH.items()}
    spec = Spec.from_json(plain)
    front, alone = (_searched(spec, 0, front=front) for front in (True, False))
    assert _hypervolume(front) > 1.1 * _hypervolume(alone)
    scores = [each.front_score.score for each in front if each.front_score]
    assert max(scores) > 0.66, "the end with the best score"
    assert min(each.value or 9.0 for each in front) < 3.01, "and that with the lowest loss"


# -- finalists ----------------------------------------------------------------------------------------


def _made(seed: int, *, higher: bool) -> list[TrialRecord]:
    """Coarse scores, as of few documents: many equal ones, zero among them."""
    chance = random.Random(seed)
    return [
        scored(n, 3 + chance.random(), chance.choice((0, 1, 2, 3)) / 4, higher=higher) for n in range(1, 21)
    ]


@pytest.mark.parametrize("higher", [True, False])
def test_finalists_are_of_the_front_that_optuna_sees(higher: bool) -> None:
    for seed in range(10):
        records = _made(seed, higher=higher)
        directions = ["minimize", "maximize" if higher else "minimize"]
        study = optuna.create_study(directions=directions)
        for each in records:
            assert each.front_score is not None
            study.add_trial(optuna.trial.create_trial(values=[each.value or 0.0, each.front_score.score]))
        theirs = {each.number + 1 for each in study.best_trials}
        ours = [each.number for each in finalists(records, len(theirs), AIM)]
        assert set(ours) == theirs
        best = min(records, key=lambda each: each.value or 9.0)
        assert [each.number for each in finalists(records, 1, AIM)] == [best.number]
        ends = {each.number for each in finalists(records, 2, AIM)}
        best_score = min(each.front_score.minimised for each in records if each.front_score)
        assert len(ends) == 1 or best_score in {
            each.front_score.minimised for each in records if each.number in ends and each.front_score
        }


def test_what_is_freed_never_becomes_a_finalist() -> None:
    for seed in range(10):
        records, kept = _made(seed, higher=True), list[TrialRecord]()
        for each in records:
            kept = may_be_finalists([*kept, each], 3, AIM)
        assert finalists(kept, 3, AIM) == finalists(records, 3, AIM)


def test_the_control_of_a_front_is_the_one_with_the_lowest_loss() -> None:
    records = [
        scored(0, 3.1, 0.9, role=Role.CONTROL),
        scored(1, 3.0, 0.5, role=Role.CONTROL),
        scored(2, 2.9, 0.7),
    ]
    found = control_of(records)
    assert found is not None
    assert (found.number, found.minimised) == (1, 3.0)


# -- the answer ---------------------------------------------------------------------------------------


def _candidate(number: int, losses: Sequence[float]) -> Candidate:
    blocks = {
        seed: tuple(loss + 0.001 * math.sin(7 * number + 3 * block + seed) for block in range(16))
        for seed, loss in enumerate(losses, 1)
    }
    return Candidate(
        number, Role.SEARCH, {}, {}, 0, dict(enumerate(losses, 1)), blocks, 4.0, 1.0, 1000, {}, ()
    )


def _front(higher: bool = True, documents: bool = True) -> Front:
    """Of one with the best loss, one with the best score, one behind both, one beside the first."""
    losses = {0: 3.0, 1: 3.2, 2: 3.3, 3: 3.0004}
    right = {0: 0.50, 1: 0.75, 2: 0.25, 3: 0.50}
    sign = -1.0 if higher else 1.0
    candidates = [_candidate(n, [loss, loss + 0.001, loss - 0.001]) for n, loss in losses.items()]
    chance, order = random.Random(0), list(range(200))
    chance.shuffle(order)
    table = {
        n: {seed: tuple(sign * ((place < 200 * share) == higher) for place in order) for seed in (1, 2, 3)}
        for n, share in right.items()
    }
    cells = {n: Cell(share if higher else 1 - share, 0.03, (n,)) for n, share in right.items()}
    empty = Front(None, score=AIM, higher_is_better=higher, base=0.4, base_error=0.03)
    return front_of_scores(candidates, candidates[0], cells, table if documents else {}, empty, margin=0.002)


@pytest.mark.parametrize("higher", [True, False])
def test_the_front_says_what_is_shown_in_either_direction(higher: bool) -> None:
    front = _front(higher)
    assert [each.number for each in front.members] == [0, 3, 1, 2], "the lowest loss first"
    stands = {each.number: (each.stands, each.than, each.by_means) for each in front.members}
    assert stands == {
        0: ("not shown to be on the front", 3, True),
        3: ("not shown to be on the front", 0, False),
        1: ("on the front", None, True),
        2: ("dominated", 0, False),
    }
    assert front.compared == 12
    better = {each.number: each.score_mean for each in front.members}
    assert better[0] is None
    assert better[1] == pytest.approx(0.25 if higher else -0.25)
    assert "dominated by trial 0, which is better in both" in map(in_words, front.members)


def test_without_what_each_document_gave_nothing_is_shown_of_scores() -> None:
    front = _front(documents=False)
    stands = {each.number: (each.stands, each.than) for each in front.members}
    assert stands[2] == ("not shown to be on the front", 0)
    assert stands[1] == ("not shown to be on the front", 0), "a higher loss, and a score that is not shown"
    assert [each.score for each in front.members] == [0.5, 0.5, 0.75, 0.25]


@pytest.mark.parametrize("difference", [0.0, 1.0])
def test_documents_that_all_differ_alike_leave_no_interval_of_scores(difference: float) -> None:
    candidates = [_candidate(n, [loss, loss + 0.001, loss - 0.001]) for n, loss in enumerate((3.0, 3.2, 3.3))]
    right = dict(enumerate((0.0, difference, 0.5)))
    alike = {0: (0.0,) * 8, 1: (-difference,) * 8, 2: (0.0, -1.0) * 4}
    # The third has other scores under each seed, so that there is a variance between seeds to borrow.
    table = {n: dict.fromkeys((1, 2, 3), those) for n, those in alike.items()}
    table[2] |= {2: (-1.0,) * 4 + (0.0,) * 4, 3: (-1.0,) * 6 + (0.0,) * 2}
    cells = {n: Cell(share, 0.0, (n,)) for n, share in right.items()}
    empty = Front(None, score=AIM, higher_is_better=True, base=0.4, base_error=0.03)
    front = front_of_scores(candidates, candidates[0], cells, table, empty, margin=0.002)
    members = {each.number: each for each in front.members}
    assert (members[1].score_mean, members[1].score_half_width) == (difference, None)
    assert members[1].stands == "not shown to be on the front"
    assert members[2].score_half_width is not None
    assert _less_score(members[1]) == f"{difference:+.3f}, no interval"


# -- a sweep ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, tiny_model: Callable[[str], Path]) -> Sweep:
    root = tmp_path_factory.mktemp("fronts")
    spec = write_aimed(
        root,
        tiny_model("llama"),
        objective=FRONT,
        tasks="kobest_copa",
        **{"{top: 2, seeds: 1}": "{top: 2, seeds: 2}"},
    )
    return run(load_spec(spec), Silent(), runner="inline")


def test_every_trial_has_its_two_values_in_the_ledger(swept: Sweep) -> None:
    study = optuna.load_study(study_name="aimed", storage=swept.spec.study_url)
    assert study.direction is optuna.study.StudyDirection.MINIMIZE, "the loss, under one direction"
    searched = [each for each in swept.records if not each.role.after]
    for each in searched:
        assert (each.state, each.aim) == (State.COMPLETE, None)
        assert each.front_score is not None
        assert each.front_score.score == each.tasks["kobest_copa"].metrics["acc"].value
        theirs = study.trials[each.number]
        assert theirs.user_attrs["kobest_copa acc"] == each.front_score.score
        assert each.value == each.loss == each.minimised
        if each.role is not Role.CONTROL:
            assert theirs.value == each.loss
    assert study.best_trial.number == swept.verdict.best_grown


def test_the_answer_has_the_front_with_control_and_base_beside_it(
    swept: Sweep, capsys: pytest.CaptureFixture[str]
) -> None:
    front, verdict = swept.verdict.front, swept.verdict
    assert front is not None
    assert (front.cost, front.score, front.higher_is_better, verdict.objective) == (None, AIM, True, None)
    baseline = {each.number for each in swept.records if each.role is Role.BASELINE}
    assert verdict.control is not None
    expected = {*(each.number for each in verdict.finalists), verdict.control.number, *baseline}
    assert {each.number for each in front.members} == expected
    runs = [each for each in swept.records if each.role is Role.REPLICATE]
    for each in front.members:
        own = [r.tasks["kobest_copa"].metrics["acc"].value for r in runs if r.replicate_of == each.number]
        assert each.score == pytest.approx(sum(own) / 2)
        assert each.score_error is not None
        assert each.score_half_width != 0, "documents that all differ alike have no interval"
        assert not each.original or each.score_half_width is None
    base = next(r for r in swept.records if r.role is Role.EVALUATION)
    assert front.base == base.tasks["kobest_copa"].metrics["acc"].value
    assert front.base_error is not None
    runs_folder = str(swept.folders.artifacts)
    assert main(["best", "aimed", "--json", "--runs", runs_folder]) == 0
    told = json.loads(capsys.readouterr().out)["front"]
    assert (told["score"], told["base"]) == (AIM, front.base)
    assert [each["trial"] for each in told["members"]] == [each.number for each in front.members]
    shown = "\n".join(front_text(verdict, swept.records))
    assert "  base " in shown
    assert f"{AIM}: higher is better" in shown
    assert front_line(front, swept.records).startswith("acc ")


def test_the_page_has_the_score_on_its_axis_and_the_base(swept: Sweep) -> None:
    page = swept.folders.report.read_text()
    data = json.loads(page.partition('id="data">')[2].partition("</script>")[0])["front"]
    assert data["name"] == f"{AIM} (higher is better)"
    assert swept.verdict.front is not None
    assert data["base"] == swept.verdict.front.base
    assert {each["n"]: each["at"] for each in data["members"]} == {
        each.number: each.score for each in swept.verdict.front.members
    }
    assert f"<h2>Loss against {AIM}</h2>" in page
    assert "has no curve" not in page, "the base as it is has no step"


class _Marks(NullTracker):
    """Remembers the tags that runs are given."""

    def __init__(self) -> None:
        self.tags: dict[int | None, dict[str, Any]] = {}

    def mark(self, number: int | None, tags: Mapping[str, Any], *, again: bool = False) -> None:
        if not again:
            self.tags.setdefault(number, {}).update(tags)


def test_mlflow_says_how_each_stands_and_its_objective_is_the_loss(swept: Sweep) -> None:
    verdict, marks = swept.verdict, _Marks()
    assert verdict.front is not None
    assert verdict.control is not None
    chosen = [each.number for each in verdict.finalists]
    show_colours(marks, swept.records, chosen, verdict.control.number, verdict.front)
    told = {number: tags["sweeps.front"] for number, tags in marks.tags.items() if "sweeps.front" in tags}
    assert told == {each.number: each.stands for each in verdict.front.members}
    text = run_text(swept, verdict, swept.records)
    assert f"| {AIM} ± standard error |" in text
    for each in verdict.front.members:
        assert f"{each.score:.3f} ± {each.score_error:.3f} |" in text


def test_a_model_of_the_front_is_handed_over_with_how_it_stands(
    swept: Sweep, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert swept.verdict.front is not None
    grown = [each for each in swept.verdict.front.members if not each.original]
    for each in grown:
        args = ["export", "aimed", "--trial", str(each.number), "--runs", str(swept.folders.artifacts)]
        assert main([*args, "--out", str(tmp_path / str(each.number)), "--json"]) == 0
        said = json.loads(capsys.readouterr().out)["what"]
        assert each.than is None or in_words(each) in said
        assert (tmp_path / str(each.number) / "config.json").exists()


def test_a_trial_of_the_front_without_its_score_is_no_result(path: str) -> None:
    agenda = agenda_of(load_spec(path), parallel=1)
    control = taken(agenda)
    points = [Point(step, step * 64, 0.0, 0.0, 3.0) for step in control.report_steps]
    agenda.report(control.number, control.attempt, points)
    agenda.finish(control.number, control.attempt, Outcome(State.COMPLETE))
    found = agenda.ledger.record(control.number)
    assert (found.state, found.value, found.front_score) == (State.FAIL, None, None)
    assert AIM in (found.reason or "")


def test_a_finished_sweep_is_read_again_as_it_was(swept: Sweep) -> None:
    again = run(swept.spec, Silent(), runner="inline")
    assert again.records == swept.records
    assert again.verdict.front == swept.verdict.front


@pytest.mark.slow
def test_killed_while_it_searches_and_run_again_it_ends_as_its_twin(
    swept: Sweep, tmp_path: Path, tiny_model: Callable[[str], Path]
) -> None:
    """By SIGKILL, once some of the search's trials have their scores."""
    path = write_aimed(
        tmp_path,
        tiny_model("llama"),
        objective=FRONT,
        tasks="kobest_copa",
        **{"{top: 2, seeds: 1}": "{top: 2, seeds: 2}"},
    )
    scores = tmp_path / "runs" / "aimed" / "trials" / "0002" / "tasks" / "kobest_copa.json"
    command = [sys.executable, "-m", "sweeps", "run", path, "--runner", "inline"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as driver:
        deadline = time.monotonic() + 240
        while not scores.exists() and driver.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        driver.send_signal(signal.SIGKILL)
    assert scores.exists()
    again = run(load_spec(path), Silent(), runner="inline")

    def ended(sweep: Sweep) -> list[tuple[Any, ...]]:
        return [(r.role, dict(r.params), r.seed, r.state, r.value, r.front_score) for r in sweep.records]

    assert ended(again) == ended(swept)
    assert again.verdict.front == swept.verdict.front
