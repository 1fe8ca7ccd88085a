"""The same best trial in every place: the answer, tables, MLflow's ranking, and what Optuna calls the best."""

from __future__ import annotations

import optuna
import pytest

from sweeps.addresses import absolute, driven
from sweeps.ledger import Ledger, look, open_storage
from sweeps.records import Point, Role, State
from sweeps.spec import Spec

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
