"""The spec's section on downstream tasks: read strictly, no part of what makes results comparable; what is due."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sweeps.checks.evaluation import evaluation_notes
from sweeps.checks.preflight import check
from sweeps.errors import SpecError
from sweeps.records import Role, State, TrialRecord
from sweeps.results.evaluated import base_due, failures, runs_due, scores_of
from sweeps.spec import Spec, difference, load_spec
from sweeps.task_scores import Score, TaskScores
from tests.kobest import write_kobest


@pytest.fixture
def scored(write_spec: Any, tmp_path: Path) -> Any:
    """`scored("{tasks: [kobest_copa]}")`: a spec with this section."""
    plain = write_spec().read_text()

    def read(section: str) -> Spec:
        path = tmp_path / "scored.yaml"
        path.write_text(f"{plain}evaluation: {section}\n")
        return load_spec(str(path))

    return read


def test_every_mistake_is_said_at_once_at_its_place(scored: Any) -> None:
    with pytest.raises(SpecError) as raised:
        scored(
            "{tasks: [kobest_copa, kobest_copa, ' '], on: [finalist, base], shots: -1, limit: 0, taskz: 1}"
        )
    found = {problem.where.rpartition(" ")[2]: problem for problem in raised.value.problems}
    assert set(found) >= {
        "evaluation.tasks[1]",
        "evaluation.tasks[2]",
        "evaluation.on[0]",
        "evaluation.shots",
        "evaluation.limit",
        "evaluation.taskz",
    }
    assert found["evaluation.on[0]"].remedy == "finalists"
    assert "tasks" in found["evaluation.taskz"].remedy


@pytest.mark.parametrize("section", ["{shots: 3}", "{tasks: [kobest_copa], on: []}", "{tasks_from: here}"])
def test_settings_that_score_nothing_are_refused(section: str, scored: Any) -> None:
    with pytest.raises(SpecError):
        scored(section)


def test_it_is_no_part_of_what_makes_results_comparable(scored: Any, write_spec: Any) -> None:
    plain, section = load_spec(str(write_spec())), scored("{tasks: [kobest_copa], limit: 5}")
    assert difference(plain, section) == []
    assert plain.hash == section.hash
    assert plain.changeable != section.changeable  # a finished sweep goes on
    assert "evaluation.tasks" not in plain.changeable  # and one that scores nothing is what it was
    assert Spec.from_json(section.to_json()) == section


def test_what_is_missing_is_said_before_anything_is_reserved(scored: Any, tmp_path: Path) -> None:
    kobest = write_kobest(tmp_path / "kobest", test=4, train=2)
    (kobest / "WiC" / "test.tsv").unlink()
    spec = scored(f"{{tasks: [kobest_copa, kobest_wic], shots: 3, tasks_from: {kobest}}}")
    with pytest.raises(SpecError) as raised:
        check(spec)
    places = [problem.where for problem in raised.value.problems]
    assert any(place.endswith("evaluation.shots") and "scored.yaml:" in place for place in places)
    assert any("WiC" in problem.remedy for problem in raised.value.problems)
    assert not spec.root.exists()
    (note,) = evaluation_notes(spec)
    assert "at most 4 models on 2 tasks" in note  # a finalist, the baseline, the control, the base


def record(number: int, role: Role, **given: Any) -> TrialRecord:
    method = given.pop("method", "tli")
    settings = {"injection": {"method": method, "k": 2}, "recipe": {"learning_rate": 1e-3}, "seed": 0}
    known = {"state": State.COMPLETE, "params": {}, "settings": settings, "seed": 0, "steps": 8, "value": 3.0}
    return TrialRecord(number=number, role=role, **{**known, **given})


def test_only_what_has_no_scores_that_compare_is_due(scored: Any) -> None:
    spec = scored("{tasks: [kobest_copa], limit: 5, shots: 0}")
    scores = {"kobest_copa": TaskScores(0, 5, 5, 0.5, "x", {"acc": Score(0.6)})}
    others = {"kobest_copa": TaskScores(0, None, 9, 0.5, "y", {"acc": Score(0.7)})}
    records = [
        record(0, Role.CONTROL, method="none"),
        record(1, Role.BASELINE),
        record(2, Role.REPLICATE, replicate_of=0, seed=1, method="none", tasks=scores),
        record(3, Role.REPLICATE, replicate_of=1, seed=1, tasks=others),  # of another limit
        record(4, Role.MATCHED, replicate_of=1, seed=1, method="none"),
        record(5, Role.SEARCH, value=4.0),
    ]
    assert [run.number for run in runs_due(spec, records)] == [3, 4]
    assert base_due(spec, records)
    made = {"tasks": ["kobest_copa"], "shots": 0, "limit": 5}
    failed = record(
        6, Role.EVALUATION, replicate_of=3, evaluation=made, state=State.FAIL, reason="no", value=None
    )
    base = record(7, Role.EVALUATION, evaluation=made, steps=0, method="none", tasks=scores)
    records += [failed, base]
    assert [run.number for run in runs_due(spec, records)] == [4]
    assert not base_due(spec, records)
    assert failures(spec, records) == {3: "no"}
    assert scores_of(spec, None, records)["kobest_copa"][0].number == 7
    assert scores_of(spec, records[3], records) == {}
    control_only = scored("{tasks: [kobest_copa], limit: 5, shots: 0, on: [control]}")
    assert [run.number for run in runs_due(control_only, records)] == [4]
    assert not base_due(control_only, records[:6])
