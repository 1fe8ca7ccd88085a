"""A finished sweep's study to whoever knows Optuna alone: its best trial, its figures, its table, its notes."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import optuna
import pytest

from sweeps.addresses import absolute, driven
from sweeps.ledger import Ledger, look
from sweeps.ledger.dashboard_notes import note_attributes
from sweeps.ledger.reading import read_file
from sweeps.ledger.store.marks import parted, united
from sweeps.records import Role, State
from sweeps.results.finding import find
from sweeps.results.sentence import sentence
from sweeps.results.sweep import Sweep
from tests.sweeps.conftest import ran_in


@pytest.fixture(scope="module")
def finished(tiny_model: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    root = tmp_path_factory.mktemp("optuna")
    ran_in(root, tiny_model("llama"), trials=5)
    return find("tiny", runs=str(root / "runs"))


@pytest.fixture(scope="module")
def study(finished: Sweep) -> optuna.Study:
    """As any program opens it."""
    return optuna.load_study(study_name=finished.spec.name, storage=driven(absolute(finished.spec.study_url)))


def searched(sweep: Sweep) -> dict[int, float]:
    """The complete trials of the search, with their losses."""
    found = (r for r in sweep.records if r.role in (Role.BASELINE, Role.SEARCH))
    return {r.number: r.value for r in found if r.state is State.COMPLETE and r.value is not None}


def test_its_best_is_that_of_sweeps_best(
    finished: Sweep, study: optuna.Study, capsys: pytest.CaptureFixture[str]
) -> None:
    from sweeps.__main__ import main

    assert main(["best", "tiny", "--json", "--runs", str(finished.folders.artifacts)]) == 0
    told = json.loads(capsys.readouterr().out)
    (best,) = (each for each in told["finalists"] if each["trial"] == told["answer"]["grown"])
    assert study.best_trial.number == best["trial"]
    assert study.best_params == best["params"]
    by_number = {record.number: record for record in finished.records}
    assert study.best_value == by_number[best["trial"]].value


def test_its_figures_are_of_the_search_alone(finished: Sweep, study: optuna.Study) -> None:
    pytest.importorskip("plotly")
    figures = optuna.visualization
    losses = searched(finished)
    history = {trace.name: trace for trace in figures.plot_optimization_history(study).data}
    shown = dict(zip(history["Objective Value"].x, history["Objective Value"].y, strict=True))
    infeasible = history.get("Infeasible Trial")
    shown |= dict(zip(infeasible.x, infeasible.y, strict=True)) if infeasible else {}
    assert shown == losses, "neither a control nor a run under a fresh seed"
    assert history["Best Value"].y[-1] == study.best_value
    names = {name for trial in study.trials for name in trial.params}
    (importances,) = figures.plot_param_importances(study).data
    assert set(importances.y) <= names
    for trace in figures.plot_slice(study).data:
        assert len(trace.x) <= len(losses)
        assert set(trace.y) <= set(losses.values())
    for figure in (figures.plot_parallel_coordinate(study), figures.plot_contour(study)):
        assert figure.data
    (distribution,) = figures.plot_edf([study]).data
    assert (min(distribution.x), max(distribution.x)) == (min(losses.values()), max(losses.values()))
    curves = {trace.name: dict(zip(trace.x, trace.y, strict=True)) for trace in
              figures.plot_intermediate_values(study).data}  # fmt: skip
    for record in finished.records:
        assert curves[f"Trial{record.number}"] == record.losses
    bars = Counter({trace.name: len(trace.y) for trace in figures.plot_timeline(study).data})
    assert bars["COMPLETE"] == len(losses)
    assert bars.total() == len(finished.records)


def test_its_table_has_texts_and_numbers_where_people_read(finished: Sweep, study: optuna.Study) -> None:
    table = study.trials_dataframe(attrs=("number", "value", "params", "user_attrs", "state"))
    roles = {record.number: record.role.value for record in finished.records}
    assert dict(zip(table["number"], table["user_attrs_sweeps:role"], strict=True)) == roles
    assert table.loc[table["value"].idxmin(), "user_attrs_sweeps:role"] in ("search", "baseline")
    for trial in study.trials:
        for name, value in trial.user_attrs.items():
            assert isinstance(value, str | int | float), name
            assert "{" not in str(value), name
            assert len(str(value)) < 80, name
    control = next(t for t in study.trials if t.user_attrs["sweeps:role"] == "control")
    assert control.user_attrs["sweeps:method"] == "none"
    assert control.user_attrs["sweeps:learning_rate"] == 1e-3


def test_optuna_dashboard_says_of_the_best_trial_why_and_shows_nothing_that_only_we_read(
    finished: Sweep, study: optuna.Study
) -> None:
    notes = pytest.importorskip("optuna_dashboard._note")
    found, records = finished.verdict, finished.records
    kept = study._storage.get_study_system_attrs(study._study_id)
    body = notes.get_note_from_system_attrs(kept, None)["body"]
    assert body == f"**sweeps**: {sentence(found, records)}"
    best = notes.get_note_from_system_attrs(kept, study.best_trial._trial_id)["body"]
    assert best.startswith(f"**sweeps**: trial {found.answer.grown}, ")
    assert "the best grown model" in best
    assert found.control is not None
    control = study.trials[found.control.number]._trial_id
    assert notes.get_note_from_system_attrs(kept, control)["body"]
    shown = look(finished.spec.study_url, shown=True)
    assert shown is not None
    assert shown.get_best_trial(study._study_id).number == found.answer.grown
    (frozen,) = shown.get_all_studies()
    for attributes in (frozen.user_attrs, shown.get_study_user_attrs(study._study_id)):
        assert attributes["sweeps:answer"] == sentence(found, records)
        assert all(isinstance(value, str | int | float | None) for value in attributes.values())
        assert not any("{" in str(value) for value in attributes.values())
    assert "sweeps:spec" in study.user_attrs, "where it is read"


def test_a_study_of_an_earlier_version_is_read_as_before(finished: Sweep, tmp_path: Path) -> None:
    """Then all of it stood in the user attributes."""
    file = tmp_path / "study.db"
    shutil.copy(finished.folders.artifacts / "study.db", file)
    with closing(sqlite3.connect(file)) as store:
        ours = store.execute(
            "SELECT trial_id, key, value_json FROM trial_system_attributes WHERE key LIKE 'sweeps:%'"
        ).fetchall()
        assert {"sweeps:settings", "sweeps:totals", "sweeps:trial"} <= {key for _, key, _ in ours}
        into = "INSERT INTO trial_user_attributes (trial_id, key, value_json) VALUES (?, ?, ?)"
        store.executemany(into, ours)
        store.execute("DELETE FROM trial_system_attributes WHERE key LIKE 'sweeps:%'")
        store.commit()
    url = f"sqlite:///{file}"
    by_sql = read_file(url, "tiny")
    assert by_sql is not None
    expected = list(map(repr, finished.records))
    assert list(map(repr, by_sql.trials())) == expected
    assert list(map(repr, Ledger.read(url, "tiny").trials())) == expected
    assert list(map(repr, Ledger.read(finished.spec.study_url, "tiny").trials())) == expected


def test_attributes_are_parted_and_united_again() -> None:
    given = {
        "sweeps:role": "search",
        "sweeps:settings": {"injection": {"k": 2}},
        "sweeps:test_losses": [3.0],
        "sweeps:hidden": True,
        "theirs": {"a": 1},
    }
    user, system = parted(given)
    assert user == {"sweeps:role": "search", "theirs": {"a": 1}}
    assert united(user, {**system, "completed_rung_0": 3.0}) == (given, {"completed_rung_0": 3.0})
    # Of an attribute in both, as after an earlier version, the later one counts: it is among the system's.
    assert united({"sweeps:totals": {"tokens": 1}}, {"sweeps:totals": {"tokens": 2}})[0] == {
        "sweeps:totals": {"tokens": 2}
    }


def test_a_note_is_written_once_in_pieces_and_never_over_another() -> None:
    stored: dict[str, Any] = {}
    stored |= note_attributes(stored, 7, "x" * 5000)
    assert (stored["dashboard:7:note_ver"], min(stored)) == (1, "dashboard:7:note_str:0")
    assert note_attributes(stored, 7, "x" * 5000) == {}
    stored |= note_attributes(stored, 7, "short")
    assert stored["dashboard:7:note_ver"] == 2
    said = "".join(stored[f"dashboard:7:note_str:{place}"] for place in range(3))
    assert said == "**sweeps**: short"
    assert note_attributes({"dashboard:note_str:0": "mine", "dashboard:note_ver": 4}, None, "ours") == {}
