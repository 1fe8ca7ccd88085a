"""Looking changes nothing: no byte, no file, no table, no journal mode, whatever lies there."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy

from sweeps import addresses, readonly_sqlite
from sweeps.__main__ import main
from sweeps.checks import stores
from sweeps.cli.doctor import examine
from sweeps.errors import SpecError
from sweeps.ledger import look, open_storage
from sweeps.ledger.store.storage import engine_of
from sweeps.results.finding import find
from sweeps.results.listing import sweeps_in
from sweeps.spec import load_spec
from tests.sweeps.conftest import copied, ran_in

COMMANDS = {
    "list": (["list"], 0),
    "status": (["status", "tiny"], 0),
    "best": (["best", "tiny", "--json"], 0),
    "compare": (["compare", "tiny", "--by", "injection.k"], 0),
    "export": (["export", "tiny", "--out", "../best"], 0),
    "validate": (["validate", "tiny.yaml"], 0),
    "plan": (["plan", "tiny.yaml"], 0),
    "doctor": (["doctor"], None),  # of this machine it may say what it likes
    "trial that is not there": (["trial", "tiny", "99", "--out", "../again"], 2),
}


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, save_model: Any) -> Path:
    """A folder with `tiny.yaml` and its sweep under `runs`. Shared: copy it."""
    root = tmp_path_factory.mktemp("looked-at")
    ran_in(root, save_model(root / "model"), trials=3)
    return root


@pytest.fixture
def place(ran: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a copy of that sweep."""
    return copied(ran, tmp_path, monkeypatch)


def tree(folder: Path) -> dict[str, tuple[int, bytes | None]]:
    """Every file and folder below a folder: when it was last changed, and what is in it."""
    return {
        str(path): (path.lstat().st_mtime_ns, path.read_bytes() if path.is_file() else None)
        for path in (folder, *folder.rglob("*"))
    }


def as_it_ended(_: Path) -> None:
    """No process has the store open: nothing lies beside it."""


def as_a_killed_driver_left_it(study: Path) -> None:
    """What was written last stands in the journal alone."""
    aside = study.with_name("aside")
    with contextlib.closing(sqlite3.connect(study)) as driver:
        driver.execute("PRAGMA wal_autocheckpoint=0")
        driver.execute("UPDATE studies SET study_name = study_name")
        driver.commit()
        aside.mkdir()
        for file in study.parent.glob("study.db*"):
            shutil.copy(file, aside)
    for file in aside.iterdir():
        file.replace(study.parent / file.name)
    aside.rmdir()
    assert study.with_name("study.db-wal").stat().st_size


def as_a_copy_of_that(study: Path) -> None:
    """The journal's index is no part of many a backup."""
    as_a_killed_driver_left_it(study)
    study.with_name("study.db-shm").unlink()


@pytest.mark.parametrize("left", [as_it_ended, as_a_killed_driver_left_it, as_a_copy_of_that])
def test_commands_that_look_change_no_byte(
    left: Callable[[Path], None], place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    left(place / "runs/study.db")
    before = tree(place)
    for name, (command, code) in COMMANDS.items():
        got = main(command)
        assert code in (None, got), f"{name}: {capsys.readouterr()}"
        after = tree(place)
        assert [path for path in before | after if before.get(path) != after.get(path)] == [], name
    assert len(find("tiny").records) == 5


def test_a_folder_that_may_not_be_written_to_can_be_looked_at(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sweeps.checks.machine.writable", lambda _: False)
    assert main(["status", "tiny"]) == 0
    assert main(["list"]) == 0
    assert "Could not be read" not in capsys.readouterr().out


def test_a_look_sees_what_a_driver_writes_meanwhile(tmp_path: Path) -> None:
    """Beside one that opens and closes the file all the time, so that its journal comes and goes."""
    url = addresses.url_of(tmp_path / "study.db")
    study = open_storage(url).create_new_study([optuna.study.StudyDirection.MINIMIZE], "busy")
    ended = threading.Event()

    def drive() -> None:
        while not ended.is_set():
            storage = optuna.storages.RDBStorage(url, engine_kwargs={"poolclass": sqlalchemy.NullPool})
            for _ in range(5):
                storage.create_new_trial(study)

    driver = threading.Thread(target=drive)
    driver.start()
    seen, until = [0], time.monotonic() + 1.0
    try:
        while time.monotonic() < until:
            store = look(url)
            assert store is not None
            seen.append(store.get_n_trials(study))
    finally:
        ended.set()
        driver.join()
    assert seen == sorted(seen)
    assert seen[-1] > 5


# -- stores that are not ours -------------------------------------------------------------------------------------


def planted(place: Path, study: str | None = None, *, tracking: str | None = None) -> None:
    """Have the kept spec name another study, or another MLflow."""
    kept = place / "runs/tiny/spec.json"
    values = json.loads(kept.read_text())
    if study is not None:
        values["storage"]["study"] = study
    if tracking is not None:
        values["tracking"] = {"uri": tracking}
    kept.write_text(json.dumps(values))


@pytest.mark.parametrize(
    "tables", [["recipes (id)"], ["studies (study_id INTEGER, study_name TEXT)", "recipes (id)"], []]
)
@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_a_planted_spec_that_names_the_file_of_another_program(
    mode: str, tables: list[str], place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with contextlib.closing(sqlite3.connect(place / "foreign.db")) as foreign:
        foreign.execute(f"PRAGMA journal_mode={mode}")
        for table in tables:
            foreign.execute(f"CREATE TABLE {table}")
        if len(tables) == 2:
            foreign.execute("INSERT INTO studies VALUES (1, 'tiny')")
        foreign.commit()
    planted(place, "sqlite:///foreign.db")
    before = tree(place)
    for command in (
        ["status", "tiny"],
        ["best", "tiny"],
        ["compare", "tiny"],
        ["ui", "tiny"],
        ["sync", "tiny"],
    ):
        assert main(command) == 2
    assert main(["list"]) == 0
    assert main(["doctor", "--study", "sqlite:///foreign.db"]) in (0, 1)
    assert tree(place) == before
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("file", ["new.db", "runs/../new.db", "theirs.db"])
def test_a_planted_spec_makes_no_store_outside_its_folder(
    file: str, place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is there is not written to either: it may be an MLflow of the user's."""
    with contextlib.closing(sqlite3.connect(place / "theirs.db")) as theirs:
        theirs.execute("CREATE TABLE experiments (id)")
    monkeypatch.setattr("sweeps.ui.server.serve", lambda _, tracking, **__: 0 if tracking is None else 9)
    for uri in (f"sqlite:///{file}", f"sqlite:///{place / file}"):
        planted(place, tracking=uri)
        before = tree(place)
        for words in (["sync", "tiny"], ["resume", "tiny", "--runner", "inline"]):
            assert main(words) == 2
            said = capsys.readouterr().err
            assert "tracking.uri: got" in said
            assert "that the kept spec alone names" in said
            assert "--tracking URI" in said
        assert main(["ui", "tiny"]) == 0
        assert "note: without MLflow" in capsys.readouterr().out
        for words in (
            ["status", "tiny"],
            ["best", "tiny"],
            ["list"],
            ["trial", "tiny", "99", "--out", "../x"],
        ):
            main(words)
        assert tree(place) == before


@pytest.mark.parametrize("name", ["study.db", "mlflow.db"])
@pytest.mark.parametrize("there", [True, False])
def test_a_store_that_is_a_link_is_not_followed(
    name: str, there: bool, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    away, link = place / "away.db", place / "runs" / name
    if there and link.exists():
        shutil.move(link, away)
    elif there:
        away.touch()
    link.unlink(missing_ok=True)
    link.symlink_to(away)
    before = tree(place)
    tracked = ["--set", "tracking.uri=sqlite"]
    commands = [["run", "tiny.yaml", "--runner", "inline", *tracked], ["validate", "tiny.yaml", *tracked]]
    commands += [["sync", "tiny", "--tracking", "sqlite"]]
    commands += [[word, "tiny"] for word in ("status", "best", "compare", "ui")] if name == "study.db" else []
    for words in commands:
        assert main(words) == 2, words
        said = capsys.readouterr().err
        assert f"{name}'" in said or words[0] not in ("run", "validate")
        assert "a link" in said or not there
    assert main(["list"]) == 0
    assert tree(place) == before


@pytest.mark.parametrize("name", ["tokens", "mlartifacts", "tiny", "tiny/trials"])
def test_a_folder_that_is_a_link_is_found_before_anything_runs(
    name: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    link = place / "runs" / name
    if link.exists():
        shutil.move(link, place / "away")
    else:
        (place / "away").mkdir()
    link.symlink_to(place / "away")
    before = tree(place)
    for command in ("validate", "plan", "run"):
        assert main([command, "tiny.yaml"]) == 2
        assert f"runs/{name}: got a link" in capsys.readouterr().err
    assert tree(place) == before


def test_a_planted_spec_that_names_a_pipe_or_a_device(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(place / "pipe")
    for file in (place / "pipe", Path("/dev/zero")):
        planted(place, f"sqlite:///{file}")
        assert main(["status", "tiny"]) == 2
        assert f"{str(file)!r}, which is no file" in capsys.readouterr().err
        assert main(["list"]) == 0


@pytest.mark.postgres
def test_an_empty_database_on_a_server_is_left_empty(place: Path, postgres_url: str) -> None:
    base, _, options = postgres_url.partition("/postgres?")
    admin = sqlalchemy.create_engine(addresses.driven(postgres_url), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.exec_driver_sql("CREATE DATABASE empty_one")
    url = f"{base}/empty_one?{options}"
    assert main(["validate", "tiny.yaml", "--set", f"storage.study={url}"]) == 0
    assert main(["status", "tiny.yaml", "--study", url]) == 2
    assert look(url) is None
    engine = sqlalchemy.create_engine(addresses.driven(url))
    assert sqlalchemy.inspect(engine).get_table_names() == []
    engine.dispose()
    writer, reader = open_storage(url), look(url)
    assert reader is not None
    with pytest.raises(optuna.exceptions.StorageInternalError) as caught:
        reader.create_new_study([optuna.study.StudyDirection.MINIMIZE], "never")
    assert "read-only transaction" in str(caught.value.__cause__)
    for each in (writer, reader):
        engine_of(each).dispose()
    with admin.connect() as connection:
        connection.exec_driver_sql("DROP DATABASE empty_one WITH (FORCE)")
    admin.dispose()


# -- stores of another Optuna -------------------------------------------------------------------------------------


def aged(study: Path) -> None:
    """The tables as Optuna 2.10 would mark them: its revision, its version."""
    with contextlib.closing(sqlite3.connect(study)) as store:
        store.execute("UPDATE alembic_version SET version_num = 'v2.6.0.a'")
        store.execute("UPDATE version_info SET library_version = '2.10.1'")
        store.commit()


def unversioned(study: Path) -> None:
    """From before there were revisions."""
    with contextlib.closing(sqlite3.connect(study)) as store:
        store.execute("DROP TABLE alembic_version")
        store.commit()


@pytest.mark.parametrize("age", [aged, unversioned])
def test_every_command_says_how_to_upgrade_an_old_store(
    age: Callable[[Path], None], place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    age(place / "runs/study.db")
    before = tree(place)
    url = addresses.url_of(place / "runs/study.db")
    (study,) = [finding for finding in examine(Path("runs")) if finding.name == "study"]
    assert study.ok is False
    assert study.remedy.startswith(f"optuna storage upgrade --storage {url}")
    for command in (
        ["validate", "tiny.yaml"],
        ["run", "tiny.yaml", "--runner", "inline"],
        ["status", "tiny"],
    ):
        capsys.readouterr()
        assert main(command) == 2
        assert "optuna storage upgrade --storage sqlite:///" in capsys.readouterr().err
    assert "optuna storage upgrade --storage sqlite:///" in str(sweeps_in(Path("runs"))["tiny"].reason)
    shutil.rmtree(place / "runs/tiny")  # a store without a sweep beside it
    assert main(["list"]) == 0
    assert "optuna storage upgrade" in capsys.readouterr().out
    after = tree(place / "runs")
    assert after[str(place / "runs/study.db")] == before[str(place / "runs/study.db")]


def test_a_store_of_a_newer_optuna(place: Path) -> None:
    with contextlib.closing(sqlite3.connect(place / "runs/study.db")) as store:
        store.execute("UPDATE alembic_version SET version_num = 'v99.0.0.a'")
        store.commit()
    with pytest.raises(SpecError) as caught:
        find("tiny")
    assert caught.value.problems[0].remedy == "pip install --upgrade optuna"


# -- addresses ----------------------------------------------------------------------------------------------------

NAMES = [
    "feature%2Fbranch",
    "My%20Drive",
    "why?",
    "a#b",
    "two words",
    "größe",
    "{SCHEMA_VERSION}",
    "a&b=c@d:e+f",
]


@pytest.mark.parametrize("name", NAMES)
def test_the_address_of_a_file_means_that_file(name: str, tmp_path: Path) -> None:
    file = tmp_path / name / "study.db"
    url = addresses.url_of(file)
    assert addresses.file_of(url) == Path(str(sqlalchemy.make_url(url).database)) == file
    assert addresses.absolute(url) == url
    file.parent.mkdir()
    with contextlib.closing(sqlite3.connect(file)) as made:
        made.execute("CREATE TABLE studies (study_name)")
        made.commit()
    assert list(stores.store(url, "here", table="studies")) == []
    with contextlib.closing(readonly_sqlite.connect(file)) as opened:
        assert opened.execute("SELECT name FROM sqlite_master").fetchall() == [("studies",)]
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_home_folder_is_the_users(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(place))
    spec = load_spec("tiny.yaml", overrides=["storage.artifacts=~/runs"])
    assert spec.study_url == addresses.url_of(place / "runs/study.db")
    with pytest.raises(SpecError, match="no home folder here"):
        load_spec("tiny.yaml", overrides=["storage.artifacts=~nobody-of-that-name/x"])
    file = place / "home.yaml"
    file.write_text((place / "tiny.yaml").read_text().replace("artifacts: runs", 'artifacts: "~/runs"'))
    assert find("home.yaml").folders.sweep == place / "runs/tiny"


@pytest.mark.parametrize("name", ["feature%2F{SCHEMA_VERSION}", "why?"])
def test_a_store_lies_in_its_folder_whatever_that_is_called(name: str, tmp_path: Path) -> None:
    file = tmp_path / name / "study.db"
    url = addresses.url_of(file)
    open_storage(url).create_new_study([optuna.study.StudyDirection.MINIMIZE], "here")
    store = look(url)
    assert store is not None
    assert [each.study_name for each in store.get_all_studies()] == ["here"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [name]
    assert file.is_file()
    (finding,) = [each for each in examine(file.parent) if each.name == "study"]
    assert (finding.ok, finding.detail) == (True, f"{file}, 1 studies")
