"""A study in a file is read without Optuna, and as Optuna reads it; what only Optuna can read is left to it."""

from __future__ import annotations

import contextlib
import math
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import optuna
import pytest

from sweeps.errors import SpecError
from sweeps.ledger import Ledger, is_readable, read_file
from sweeps.ledger.reading import FileLedger
from sweeps.ledger.store.rows import read_study
from sweeps.results.finding import find
from tests.sweeps.conftest import ran_in


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, save_model: Any) -> Path:
    """The folder `runs` of a sweep `tiny` that has ended, with trials that other programs added. Shared: copy it."""
    root = tmp_path_factory.mktemp("read")
    ran_in(root, save_model(root / "model"), trials=4)
    study = optuna.load_study(study_name="tiny", storage=f"sqlite:///{root}/runs/study.db")
    study.enqueue_trial({"injection.k": 2, "recipe.learning_rate": 1e-3}, user_attrs={"by": "hand"})
    for values, state in (
        ([1.5], optuna.trial.TrialState.COMPLETE),
        ([math.inf], optuna.trial.TrialState.COMPLETE),
        (None, optuna.trial.TrialState.FAIL),
    ):
        other = optuna.trial.create_trial(
            state=state,
            values=values,
            params={"x": 3, "y": 0.5, "z": None},
            distributions={
                "x": optuna.distributions.IntDistribution(1, 9, step=2),
                "y": optuna.distributions.FloatDistribution(0.1, 1.0, log=True),
                "z": optuna.distributions.CategoricalDistribution([None, True, 1.5, "a"]),
            },
            intermediate_values={0: math.nan, 3: math.inf, 7: -math.inf, 9: 0.25},
        )
        study.add_trial(other)
    return root / "runs"


@pytest.fixture
def runs(ran: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "runs"
    shutil.copytree(ran, folder)
    return folder


def url(runs: Path) -> str:
    return f"sqlite:///{runs}/study.db"


def spoil(runs: Path, statement: str) -> None:
    with contextlib.closing(sqlite3.connect(runs / "study.db")) as store:
        assert store.execute(statement).rowcount > 0
        store.commit()


def test_what_is_read_is_what_optuna_reads(runs: Path) -> None:
    ours, theirs = read_file(url(runs), "tiny"), Ledger.read(url(runs), "tiny")
    assert ours is not None
    assert len(ours.trials()) >= 10
    assert list(map(repr, ours.trials())) == list(map(repr, theirs.trials()))  # NaN is not equal to itself
    assert (ours.spec, ours.depth, ours.finished) == (theirs.spec, theirs.depth, theirs.finished)
    assert (ours.driver, ours.study.all()) == (theirs.driver, theirs.study.all())
    assert [ours.owner(each) for each in ours.trials()] == [theirs.owner(each) for each in theirs.trials()]


def test_the_tables_are_those_of_the_optuna_that_is_installed(ran: Path) -> None:
    """Or every answer takes as long as importing it."""
    assert is_readable(url(ran))


def test_a_study_that_is_driven_is_read_as_it_is_now(runs: Path) -> None:
    looked = read_file(url(runs), "tiny")
    assert looked is not None
    before = len(looked.trials())
    assert looked.driver is None
    with Ledger.driven(url(runs), looked.spec) as ledger:
        waiting = ledger.take_waiting()
        assert waiting is not None
        assert (looked.driver or "").startswith("process ")
        assert looked.trials()[waiting.number].state == "RUNNING"
        asked = ledger.ask()
        assert asked is not None
        assert len(looked.trials()) == before + 1
    assert looked.driver is None


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE alembic_version SET version_num = 'v9'",
        "UPDATE version_info SET schema_version = 13",
        "UPDATE trials SET number = 90 WHERE number = 1",
        "UPDATE trials SET state = 'ASLEEP' WHERE number = 1",
        "UPDATE trials SET datetime_start = 'long ago' WHERE number = 1",
        "UPDATE trial_system_attributes SET value_json = '{' WHERE key = 'sweeps:settings'",
        'UPDATE trial_params SET distribution_json = \'{"name": "UniformDistribution", "attributes": {}}\'',
        "UPDATE trial_params SET param_value = 99 WHERE param_name = 'injection.k'",
        "UPDATE trial_values SET value = NULL",
        "UPDATE trial_intermediate_values SET intermediate_value = 'low'",
        "UPDATE study_user_attributes SET value_json = '\"{}\"' WHERE key = 'sweeps:spec'",
        "UPDATE study_user_attributes SET value_json = '7' WHERE key = 'sweeps:identity'",
        "DELETE FROM study_user_attributes WHERE key = 'sweeps:spec'",
        "DROP TABLE trial_params",
    ],
)
def test_what_is_not_as_optuna_writes_it_is_left_to_optuna(runs: Path, statement: str) -> None:
    with contextlib.closing(sqlite3.connect(runs / "study.db")) as store:
        store.execute(statement)
        store.commit()
    assert read_file(url(runs), "tiny") is None


def test_a_study_spoiled_beneath_its_reader_is_refused_in_words(runs: Path) -> None:
    sweep = find("tiny", runs=str(runs))
    assert isinstance(sweep.ledger, FileLedger)
    assert sweep.records
    spoil(runs, "UPDATE trials SET datetime_start = 'long ago' WHERE number = 1")
    with pytest.raises(SpecError, match="row that Optuna cannot read"):
        _ = sweep.records


def test_a_file_that_is_none_and_a_name_that_is_none(tmp_path: Path, ran: Path) -> None:
    (tmp_path / "text.db").write_text("no database")
    assert read_study(tmp_path / "text.db", "tiny") is None
    assert read_study(tmp_path / "none.db", "tiny") is None
    assert not (tmp_path / "none.db").exists()
    assert read_study(ran / "study.db", "other") is None
    assert read_file("postgresql://host/database", "tiny") is None


def test_a_lease_that_cannot_be_read_ends_no_command(runs: Path) -> None:
    spoil(runs, "UPDATE sweeps_lease SET owner = '[', expires = 9e12")
    assert find("tiny", runs=str(runs)).ledger.driver is not None  # it may be of a later version
