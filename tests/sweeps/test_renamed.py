"""A sweep that an earlier version ran, under the names that its settings had then: nothing of it is lost."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from sweeps.driver.service import run
from sweeps.ledger import Ledger
from sweeps.results.compare import compare
from sweeps.results.finding import find, resumed
from sweeps.results.sweep import Sweep
from sweeps.spec import load_spec
from sweeps.spec.renamed import first_settings, todays_path, todays_settings, todays_spec
from tests.sweeps.conftest import Silent

COLUMNS = (
    ("study_user_attributes", "value_json"),
    ("trial_user_attributes", "value_json"),
    ("trial_system_attributes", "value_json"),
    ("trial_params", "param_name"),
)


def as_first_named(runs: Path) -> None:
    """A study and its kept spec as the version wrote them that called the setting `sets`."""
    with contextlib.closing(sqlite3.connect(runs / "study.db")) as store, store:
        changed = 0
        for table, column in COLUMNS:
            renamed = f"UPDATE {table} SET {column} = replace({column}, 'least_important_sets', 'sets')"
            changed += store.execute(f"{renamed} WHERE {column} LIKE '%least_important_sets%'").rowcount
        assert changed > 6
    kept = runs / "tiny" / "spec.json"
    kept.write_text(kept.read_text().replace("least_important_sets", "sets"))


@pytest.mark.parametrize("by_optuna", [False, True])
def test_a_sweep_under_the_first_names_is_the_same_sweep(
    write_spec: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_optuna: bool
) -> None:
    searched = {"injection.k: {choice: [1, 2, 4]}": "injection.least_important_sets: {choice: [1, 2]}"}
    path = write_spec(trials=4, replace=searched)
    run(load_spec(str(path)), Silent(), runner="inline")
    runs = str(tmp_path / "runs")
    before = find("tiny", runs=runs)
    best, records = before.verdict.best, before.records
    as_first_named(tmp_path / "runs")
    if by_optuna:
        monkeypatch.setattr("sweeps.results.finding.read_file", lambda *_: None)
    after = find("tiny", runs=runs)
    assert isinstance(after, Sweep)
    assert after.records == records
    assert after.verdict.best == best
    assert after.export(tmp_path / "best") == best
    assert compare(["tiny"], runs=runs).entries[0].key == "tiny:0"
    more = resumed("tiny", runs=runs, more={"budget.trials": 5})
    run(more, Silent(), runner="inline", extend=True)
    ledger = Ledger.read(more.study_url, "tiny")
    assert [record.value for record in ledger.trials()[:4]] == [record.value for record in records[:4]]
    assert ledger.finished


def test_names_are_changed_where_they_are_those_of_a_setting() -> None:
    old = {"injection": {"k": 2, "sets": 1}, "recipe": {"sets": 3}}
    new = {"injection": {"k": 2, "least_important_sets": 1}, "recipe": {"sets": 3}}
    assert todays_settings(old) == new
    assert first_settings(new) == old
    assert todays_settings(new) is new
    assert todays_path("injection.sets") == "injection.least_important_sets"
    assert (todays_path("sets"), todays_path(3), todays_path("recipe.sets")) == ("sets", 3, "recipe.sets")
    spec = {
        "trial": old,
        "search": {"injection.sets": {"choice": [1], "when": {"injection.sets": 1}}, "injection.k": 3},
        "finalists": {"top": 1, "per": "injection.sets"},
    }
    name = "injection.least_important_sets"
    assert todays_spec(spec) == {
        "trial": new,
        "search": {name: {"choice": [1], "when": {name: 1}}, "injection.k": 3},
        "finalists": {"top": 1, "per": name},
    }
    assert todays_spec([]) == todays_spec(None) == {}
