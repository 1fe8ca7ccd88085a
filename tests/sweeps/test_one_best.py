"""The same best trial in every place: the answer, tables, MLflow's ranking, and what Optuna calls the best."""

from __future__ import annotations

import contextlib
import json
import random
import sqlite3
from pathlib import Path
from typing import Any

import optuna
import pytest

from sweeps.addresses import absolute, driven
from sweeps.driver.service import run
from sweeps.errors import SpecError
from sweeps.ledger import Ledger, look, open_storage
from sweeps.records import Point, Role, State, TrialRecord
from sweeps.report.next_commands import Screen
from sweeps.report.status import Line, list_text
from sweeps.report.styled import plain
from sweeps.report.summary import best_lines
from sweeps.results.ranking import behind, best_of, ranking
from sweeps.results.selection import verdict
from sweeps.results.sentence import handed_over, sentence
from sweeps.results.tables import trial_rows
from sweeps.spec import Spec, load_spec
from tests.sweeps.conftest import Silent, WriteSpec, delivered_here
from tests.sweeps.null_sweeps import World
from tests.sweeps.null_sweeps import sweep as made
from tests.sweeps.test_summary import record

LOSSES = {"a": 3.30, "b": 3.20, "c": 3.10}  # of three searched trials


def _told(ledger: Ledger, loss: float, role: Role | None = None) -> int:
    settings = ledger.spec.trial.model_dump()
    assignment = ledger.ask() if role is None else ledger.start(role, settings)
    assert assignment is not None
    number, point = assignment.number, Point(assignment.steps, 512, 1.0, 1.0, loss)
    ledger.report(number, 1, [point])
    ledger.tell(number, 1, State.COMPLETE)
    return number


def _best(url: str, spec: Spec) -> int:
    """As another program sees it that opens the study now."""
    return optuna.load_study(study_name=spec.name, storage=driven(absolute(url))).best_trial.number


def test_optunas_best_is_the_best_grown_and_can_change(url: str, spec: Spec) -> None:
    with Ledger.driven(url, spec) as ledger:
        control = _told(ledger, 3.0, Role.CONTROL)
        high, middle, low = (_told(ledger, loss) for loss in LOSSES.values())
        assert _best(url, spec) == low != control
        before = list(map(repr, ledger.trials()))
        seen = ledger._mirror.visible.trials[low]
        for answer, behind, best in (
            ("grow", [low], middle),
            ("not shown", [low, middle], high),
            ("grow", [], low),
        ):
            ledger.note_answer(answer, best, behind)
            assert _best(url, spec) == best
            assert (
                look(url).get_best_trial(ledger._mirror.study_id).number == best
            )  # optuna-dashboard asks so
            assert (ledger.study.all()["sweeps:best"], ledger.study.all()["sweeps:answer"]) == (best, answer)
            again = Ledger.read(url, spec.name)
            # The records, and what the sampler and the stopping rule see, stay what they were.
            assert list(map(repr, again.trials())) == list(map(repr, ledger.trials())) == before
            assert again._mirror.visible.trials[low] == ledger._mirror.visible.trials[low] == seen
            assert ledger._mirror._trials == again._mirror._trials


def test_a_trial_of_another_program_is_left_as_it_is(url: str, spec: Spec) -> None:
    with Ledger.driven(url, spec) as ledger:
        own = _told(ledger, 3.2)
        theirs = optuna.trial.create_trial(
            params={"x": 1.0},
            distributions={"x": optuna.distributions.FloatDistribution(0, 2)},
            values=[9.0],
            system_attrs={"constraints": [2.0]},
        )
        study = optuna.load_study(study_name=spec.name, storage=open_storage(url))
        study.add_trial(theirs)
        ledger.refresh()
        ledger.note_answer("not shown", own, [])
        assert study.get_trials()[-1].system_attrs["constraints"] == [2.0]


@pytest.mark.parametrize("behind", [[], [1]])
def test_saying_it_again_writes_nothing(
    url: str, spec: Spec, behind: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Ledger.driven(url, spec) as ledger:
        for loss in (3.2, 3.1):
            _told(ledger, loss)
        ledger.note_answer("grow", 0, behind)
        monkeypatch.setattr("sweeps.ledger.store.writing.constrain", None)
        monkeypatch.setattr(type(ledger.study), "_set", None)
        ledger.note_answer("grow", 0, behind)


WORLDS = {
    "grow": World(better=15.0),
    "the original": World(matched=0.004),
    "open": World(noisy=dict.fromkeys(range(30), 4.0)),
    "one seed": World(seeds=1),
}


@pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)
@pytest.mark.parametrize("chance", range(5))
def test_every_place_names_the_same_trial(world: World, chance: int) -> None:
    records = made(world, random.Random(chance))
    found = verdict(records, seeds=world.seeds)
    number = found.answer.trial
    assert number is not None
    best = best_of(found)
    assert best is not None
    assert best.number == number == ranking(found, records)[0]
    rows = {row["trial"]: row for row in trial_rows(records, found)}
    assert [n for n, row in rows.items() if row["best"]] == [n for n, row in rows.items() if row["rank"] == 1]
    assert rows[number]["best"]
    listed = list_text({"s": Line(records, driven=False, best=best)}).splitlines()[1].split()
    assert listed[6:8] == [str(number), f"{best.mean:.4f}"]
    page = plain(best_lines(found, records, Screen("s", "s")))
    table = page.partition("\nUnder fresh seeds\n")[2].splitlines()
    (marked,) = (line for line in table if line.split()[1:2] == ["best"] and line.split()[2] != "grown")
    assert marked.split()[0] == str(number)
    grow = found.answer.grow
    assert page.startswith(f"s: {grow}")
    if grow != "not shown":
        assert f"(trial {number})" in " ".join(page.split()).partition(" loss trial")[0]


def test_the_ranking_begins_with_the_answer_and_has_every_complete_trial_once() -> None:
    records = made(World(matched=0.004), random.Random(1))
    found = verdict(records)
    numbers = ranking(found, records)
    assert len(set(numbers)) == len(numbers)
    searched = {r.number for r in records if not r.role.fresh and r.state is State.COMPLETE}
    assert set(numbers) - {found.answer.trial} == searched - {found.answer.trial}
    assert numbers[0] == found.answer.trial != found.answer.grown


def test_what_fresh_seeds_put_behind_is_behind_and_no_other_trial() -> None:
    def searched(number: int, loss: float, **fields: Any) -> TrialRecord:
        return record(number, fields.pop("role", Role.SEARCH), State.COMPLETE, number, {50: loss}, **fields)

    records = [
        searched(0, 3.0, role=Role.CONTROL, settings={"injection": {"method": "none"}}),
        searched(1, 3.5),
        searched(2, 3.4),  # the lowest under the seed that chose it
        *(searched(10 + n, 3.45, role=Role.REPLICATE, replicate_of=1, seed=n) for n in (1, 2, 3)),
        *(searched(20 + n, 3.55, role=Role.REPLICATE, replicate_of=2, seed=n) for n in (1, 2, 3)),
    ]
    found = verdict(records, top=2)
    assert found.answer.grown == 1
    assert behind(found, records) == [2]
    assert behind(verdict(records[:2]), records[:2]) == []
    assert behind(verdict([]), []) == []


@pytest.mark.parametrize("more", [{}, {"control.matched": True, "finalists.seeds": 3}], ids=["", "matched"])
def test_a_sweep_whose_lowest_loss_does_not_last_says_so_in_optuna_mlflow_and_its_export(
    write_spec: WriteSpec, tmp_path: Path, empty_mlflow: Path, more: dict[str, Any]
) -> None:
    """A whole sweep; afterwards its study, its ranking, its exports."""
    spec = load_spec(
        str(
            write_spec(
                trials=6, tracking="{uri: sqlite}", replace={"top: 1": "top: 3", "tokens: 512": "tokens: 256"}
            )
        ),
        overrides=more,
    )
    with delivered_here(empty_mlflow):
        sweep = run(spec, Silent(), runner="inline")
    records, found = sweep.records, sweep.verdict
    answer = found.answer
    study = optuna.load_study(study_name=spec.name, storage=spec.study_url)
    assert study.best_trial.number == answer.grown
    assert study.user_attrs["sweeps:best"] == answer.trial
    assert study.user_attrs["sweeps:answer"] == sentence(found, records)
    assert sweep.export(tmp_path / "best") == answer.trial
    assert sweep.export(tmp_path / "grown", grown=True) == answer.grown
    for name, number in (("best", answer.trial), ("grown", answer.grown)):
        told = json.loads((tmp_path / name / "lineage.json").read_text())
        assert told["trial"] == number
        assert told["best"] is (number == answer.trial)
        assert told["what"] == handed_over(found, records, number)
    with pytest.raises(SpecError, match="grown beside trial=1"):
        sweep.export(tmp_path / "both", grown=True, trial=1)
    with contextlib.closing(sqlite3.connect(spec.root / "mlflow.db")) as mlflow:
        tags = (
            "SELECT a.value, b.value FROM tags a JOIN tags b USING (run_uuid) WHERE a.key = ? AND b.key = ?"
        )
        first = [t for t, rank in mlflow.execute(tags, ("sweeps.trial", "sweeps.rank")) if rank == "1"]
        assert first == [f"{spec.name}/{answer.trial}"]
        ((best, note),) = mlflow.execute(tags, ("sweeps.best", "mlflow.note.content"))
    assert (best, note.partition("\n")[0]) == (str(answer.trial), f"{spec.name}: {sentence(found, records)}")
    # Matched controls keep one model, replicates none.
    matched = [r for r in records if r.role is Role.MATCHED]
    assert bool(matched) is bool(more)
    assert sum(sweep.model_of(r) is not None for r in matched) == (1 if matched else 0)
    assert not any(sweep.model_of(r) for r in records if r.role is Role.REPLICATE)
