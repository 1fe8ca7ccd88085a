"""Where MLflow may be: addresses that are right, and what is said of others."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest

from sweeps.tracking import store_uri, tracking_problems
from sweeps.tracking.store import from_within


@pytest.mark.parametrize(
    "uri",
    [
        "sqlite",
        "sqlite:///runs.db",
        "http://mlflow:5000",
        "https://user:pw@tracking.example/path",
        "http://[::1]:1",
        "postgresql://me@db/mlflow",
        "postgresql+psycopg2://me:secret@db:5432/mlflow",
        "mysql+pymysql://db/x",
    ],
)
def test_addresses_that_are_right(uri: str) -> None:
    assert tracking_problems(uri) == []


HINT = '"sqlite", the address of a server (http://HOST:PORT) or of a database (postgresql://...)'


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("", f"tracking.uri: got ''; expected {HINT}; try http://127.0.0.1:5000"),
        ("http://a b", f"tracking.uri: got 'http://a b'; expected {HINT}; try http://127.0.0.1:5000"),
        ("http://", "tracking.uri: got 'http://'; expected a host name after ://; try http://127.0.0.1:5000"),
        (
            "http://mlflow:99999",
            "tracking.uri: got 'http://mlflow:99999'; expected a port between 1 and 65535; try http://mlflow:5000",
        ),
        (
            "https://me:secret@mlflow:x/",
            (
                "tracking.uri: got 'https://me:***@mlflow:x/'; expected a port between 1 and 65535; "
                "try https://mlflow:5000"
            ),
        ),
        (
            "./mlruns",
            (
                f"tracking.uri: got './mlruns'; expected {HINT}; "
                'try "sqlite" (MLflow no longer keeps runs in plain folders)'
            ),
        ),
        (
            "file:///tmp/mlruns",
            (
                f"tracking.uri: got 'file:///tmp/mlruns'; expected {HINT}; "
                'try "sqlite" (MLflow no longer keeps runs in plain folders)'
            ),
        ),
        ("mlflow:5000", f"tracking.uri: got 'mlflow:5000'; expected {HINT}; try http://mlflow:5000"),
        ("ftp://mlflow", f"tracking.uri: got 'ftp://mlflow'; expected {HINT}; try http://127.0.0.1:5000"),
        (
            "sqlite:runs.db",
            "tracking.uri: got 'sqlite:runs.db'; expected sqlite://...; try sqlite:///mlflow.db",
        ),
        ("http://[::1", f"tracking.uri: got 'http://[::1'; expected {HINT}; try http://127.0.0.1:5000"),
    ],
)
def test_addresses_that_are_wrong(uri: str, message: str) -> None:
    assert [str(problem) for problem in tracking_problems(uri)] == [message]


def test_sqlite_means_a_file_among_the_artifacts_and_relative_files_are_where_the_driver_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert store_uri("sqlite", Path("runs")) == f"sqlite:///{tmp_path}/runs/mlflow.db"
    assert store_uri("sqlite:///mine.db", Path("runs")) == f"sqlite:///{tmp_path}/mine.db"
    assert store_uri("sqlite:////data/mine.db", Path("runs")) == "sqlite:////data/mine.db"
    assert store_uri("http://mlflow:5000", Path("runs")) == "http://mlflow:5000"


@pytest.mark.parametrize("name", ["feature%2Fb", "why?", "größe", "a#b", "two words"])
def test_mlflows_file_lies_in_its_folder_whatever_that_is_called(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sqlalchemy.engine import make_url

    folder = tmp_path / name
    uri = store_uri("sqlite", folder)
    assert make_url(uri).database == f"{folder}/mlflow.db"
    assert store_uri(uri, tmp_path) == uri
    monkeypatch.chdir(tmp_path)
    opened = from_within(uri)
    assert Path(str(make_url(opened).database)).absolute() == folder / "mlflow.db"
    # As MLflow takes it apart, which decodes nothing, to make its folder.
    made = Path(opened.removeprefix("sqlite:///")).parent
    assert made.absolute() == folder.absolute()


@pytest.mark.slow  # MLflow takes its time
@pytest.mark.parametrize("name", ["feature%2Fb", "why?"])
def test_a_real_delivery_into_such_a_folder(name: str, tmp_path: Path) -> None:
    from sweeps.tracking import Tracker

    runs = tmp_path / name
    runs.mkdir()
    tracker = Tracker("sqlite", study="quick", folder=runs / "quick", artifacts=runs)
    tracker.open_sweep({}, {})
    assert tracker.close(60.0)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    with contextlib.closing(sqlite3.connect(runs / "mlflow.db")) as base:
        places = base.execute("SELECT artifact_location FROM experiments WHERE name = 'quick'").fetchall()
    assert places == [((runs / "mlartifacts" / "quick").as_uri(),)]
