"""Secrets stay where they are: none is kept, shown, logged, or handed on to a program that has no use for it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sweeps import environment
from sweeps.__main__ import main
from sweeps.addresses import masked_address, secret_name, without_userinfo
from sweeps.driver import service
from sweeps.errors import SpecError
from sweeps.spec import Spec, load_spec
from sweeps.tracking import Tracker
from sweeps.wording import formatted, masked
from tests.canaries import DATABASES, ENVIRONMENT, MARK, SERVERS, TEXTS, Onlooker, in_files
from tests.servers import LocalCluster

WriteSpec = Callable[..., Path]
# What MLflow's own process may be given, and Ray's with its workers.
MLFLOWS = {"MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "PGPASSWORD", "MYSQL_PWD"}
RAYS = {"RAY_AUTH_TOKEN", "RAY_REDIS_PASSWORD", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"}


# -- addresses and text -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", [*DATABASES, *SERVERS])
def test_no_form_of_an_address_shows_its_secret(address: str) -> None:
    hidden = masked_address(address)
    assert MARK not in hidden
    assert "***" in hidden
    assert masked_address(hidden) == hidden  # what was kept is kept again as it is
    for seen in (
        masked(address),
        formatted(address),
        formatted([address]),
        formatted({"uri": address}),
        masked(f"'{address}'"),
    ):
        assert MARK not in seen


@pytest.mark.parametrize("text", TEXTS)
def test_no_text_shows_its_secret(text: str) -> None:
    assert MARK not in masked(text)
    assert MARK not in masked(f"first line\n{text}\nlast line")
    assert masked(masked(text)) == masked(text)


@pytest.mark.parametrize(
    "address",
    [
        "sqlite",
        "sqlite:////data/me@host/c#/a:b@c/study.db?mode=ro",
        "postgresql://me@db.example/sweeps?sslmode=verify-full&sslrootcert=/etc/ca.pem&connect_timeout=3",
        "postgresql://postgres:@/postgres?host=/run/pg",
        "http://[::1]:5000/mlflow",
        "https://mlflow.example",
    ],
)
def test_an_address_without_secrets_stays_as_it_is(address: str) -> None:
    assert masked_address(address) == masked(address) == address


def test_of_an_address_all_but_the_secret_is_shown() -> None:
    shown_at = {
        "postgresql://u@dom:pw2@h:5432/db?sslmode=require": "postgresql://u@dom:***@h:5432/db?sslmode=require",
        "postgresql://me@h/db?user=x&sslpassword=pw": "postgresql://me@h/db?user=x&sslpassword=***",
        "https://me:pw@h/x?access_token=t&page=1": "https://me:***@h/x?access_token=***&page=***",
        "https://token@h": "https://***@h",
    }
    assert {address: masked_address(address) for address in shown_at} == shown_at


def test_other_text_is_left_alone() -> None:
    for text in (
        "recipe.tokens: 512 -> 1024", "eval_tokens=64, batch_tokens=2048", "K=4 identity lr 1.2e-03",
        "the jobs server refused the token: Unauthorized", "its user, password and name",
        "author=me, tokenizer=x, sslkey=/etc/key.pem", "https://example.org/a/b.html says: no",
    ):  # fmt: skip
        assert masked(text) == text


@pytest.mark.parametrize(
    "piece",
    [
        "a",
        "a.",
        "a ",
        "a=",
        "'a",
        '"a":',
        "a://",
        "a:b@",
        "a://b:",
        "?a=",
        "eyJ-",
        "hf_",
        "bearer ",
        "a://b:c@ ",
        "\\'",
    ],
)
def test_a_long_text_takes_no_long_time(piece: str) -> None:
    text = piece * (50_000 // len(piece))
    started = time.process_time()
    masked(text)
    masked(f"x {text}")
    formatted({"a": [text]})
    assert time.process_time() - started < 2


def test_a_deep_value_can_be_shown() -> None:
    deep: Any = f"http://me:{MARK}@h"
    for _ in range(400):
        deep = [deep]
    assert MARK not in formatted(deep)


def test_names_of_secrets() -> None:
    assert [name for name in ENVIRONMENT if not secret_name(name)] == [
        "DATABASE_URL",
        "MLFLOW_TRACKING_USERNAME",
    ]
    for name in (
        "TOKENIZERS_PARALLELISM",
        "OMP_NUM_THREADS",
        "PATH",
        "HOME",
        "SWEEPS_RUNS",
        "HF_HOME",
        "PWD",
    ):
        assert not environment.is_secret(name, "/home/me")
    assert environment.is_secret("DATABASE_URL", ENVIRONMENT["DATABASE_URL"])
    assert not environment.is_secret(
        "https_proxy", "http://me:pw@proxy:3128"
    )  # without it nothing is reached


@pytest.mark.parametrize("address", [f"http://h:{MARK}", f"http://me:{MARK}@h:x", f"http://me:12/{MARK}@h"])
def test_an_address_that_cannot_be_asked(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["doctor", "--study", address, "--address", address, "--json"])
    assert main(["submit", "quickstart", "--address", address]) == 2
    err = capsys.readouterr().err
    assert "Traceback" not in err
    assert "jobs server" in err


def test_readers_that_quote_a_password_as_a_port_are_given_none() -> None:
    assert without_userinfo("http://me:pw@host/x") == "http://host/x"
    assert without_userinfo("http://host:1/x@y") == "http://host:1/x@y"


# -- what is kept and what is said ---------------------------------------------------------------------------------


def test_no_command_shows_the_secret_of_an_address(
    write_spec: WriteSpec, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    spec = str(write_spec())
    for number, address in enumerate((*DATABASES, *SERVERS)):
        commands = [
            ["validate", spec, "--set", f"storage.study={json.dumps(address)}"],
            ["validate", spec, "--set", f"storage.study={address}"],
            ["validate", spec, "--set", f"tracking={{uri: {json.dumps(address)}}}", "--json"],
            ["status", "tiny", "--study", address],
            ["submit", spec, "--address", address],
            ["validate", spec, "--set", f"storage: {{study: '{address}'}}"],
            ["validate", spec, "--set", f"data.source={json.dumps(address)}"],
            ["validate", spec, "--set", f"base.model={json.dumps(address)}"],
            ["validate", spec, "--set", f"trial.injection.layers={json.dumps(address)}"],
            ["validate", spec, "--runs", address],
            ["validate", spec, "--address", address],
        ]
        for words in commands[number % 7 :: 7]:
            main(words)
            said = "".join(capsys.readouterr())
            assert MARK not in said, words
            assert "Traceback" not in said, words
    assert list(tmp_path.rglob("spec.json")) == []


@pytest.mark.parametrize(
    "setting", ["base.model", "base.revision", "data.source", "data.heldout", "data.split"]
)
def test_settings_that_are_kept_take_no_secret(setting: str, write_spec: WriteSpec) -> None:
    with pytest.raises(SpecError) as caught:
        load_spec(str(write_spec()), overrides=[f"{setting}=https://me:{MARK}@host/x"])
    assert [problem.got for problem in caught.value.problems] == ["'https://me:***@host/x'"]
    assert MARK not in str(caught.value)


@pytest.mark.parametrize("address", DATABASES)
def test_a_spec_is_kept_without_its_secrets(address: str, write_spec: WriteSpec) -> None:
    overrides = [f"storage.study={json.dumps(address)}"]
    try:
        spec = load_spec(str(write_spec()), overrides=overrides)
    except SpecError:
        return  # such an address is refused
    assert spec.study_url == address
    seen = [
        json.dumps(spec.to_json()),
        repr(spec),
        repr(spec.storage),
        repr(spec._source),
        str(spec.identity()),
    ]
    assert [text for text in seen if MARK in text] == []
    again = Spec.from_json(spec.to_json())
    assert again.to_json() == spec.to_json()
    assert again.hash == spec.hash


# -- a whole sweep --------------------------------------------------------------------------------------------------


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A home, a folder for temporary files and a working folder, in an environment full of canaries."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    for name in ("home", "tmp"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.postgres
def test_a_sweep_writes_and_says_no_secret(
    planted: Path,
    write_spec: WriteSpec,
    postgres_url: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The server trusts its socket, so that any password opens it."""
    monkeypatch.setattr(service, "_TRACKING_SECONDS", 0.5)  # MLflow is away
    study = postgres_url.replace("postgres:@", f"postgres:it's a {MARK}@") + f"&sslpassword={MARK}"
    assert MARK in study
    tracking = f"{{uri: 'http://me:{MARK}@127.0.0.1:1/?access_token={MARK}'}}"
    spec = write_spec("canary", trials=3, study=study, tracking=tracking)
    there = ["canary", "--study", study]
    commands = {
        "run": [str(spec), "--runner", "inline"],
        "status": there,
        "best": [*there, "--json"],
        "list": [],
        "compare": there,
        "export": [*there, "--out", "best"],
        "resume": there,
        "doctor": ["--study", study],
    }
    with Onlooker(os.getpid()) as seen:
        for command, words in commands.items():
            main([command, *words])
            out, err = capsys.readouterr()
            assert MARK not in out + err, command
            assert ("named by the kept spec alone" in err) == (command == "resume"), err
    assert (planted / "best/lineage.json").is_file()
    assert in_files(planted, but=[spec]) == []
    assert "sweeps:spec" in (kept := everything_in(postgres_url))
    assert MARK not in kept
    assert [words for words in seen.words if MARK.encode() in words] == []
    assert seen.told(b"sweeps.tracking") == MLFLOWS


@pytest.mark.parametrize(
    ("words", "warned"), [(["--set", f"storage.study=postgresql://me:{MARK}@h/x"], True), ([], False)]
)
def test_a_secret_among_the_words_of_a_run_is_pointed_out(
    words: list[str], warned: bool, write_spec: WriteSpec, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", str(write_spec()), "--runner", "inline", "--set", "base.model=nowhere", *words]) == 2
    err = capsys.readouterr().err
    assert ("PGPASSWORD" in err) == warned
    assert MARK not in err


def everything_in(url: str) -> str:
    """All that stands in a database."""
    from sqlalchemy import MetaData, create_engine

    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    tables = MetaData()
    tables.reflect(engine)
    with engine.connect() as connection:
        rows = [tuple(row) for table in tables.sorted_tables for row in connection.execute(table.select())]
    engine.dispose()
    return str(rows)


def test_what_the_delivery_logs_and_keeps(planted: Path) -> None:
    """MLflow quotes the address of a server that is away; how far a delivery came is kept by a digest."""
    sweep = planted / "sweep"
    address = f"http://me:{MARK}@127.0.0.1:1/?access_token={MARK}"
    tracker = Tracker(address, study="s", folder=sweep, artifacts=planted)
    tracker.open_sweep({"uri": address, "nested": {"list": [address]}}, {"sweeps.study": address})
    deadline = time.monotonic() + 60
    while not (said := (sweep / "outbox.log").read_text()) and time.monotonic() < deadline:
        time.sleep(0.1)
    tracker.close(1.0)
    assert "not delivered" in said
    assert "http://me:***@127.0.0.1:1" in said
    assert in_files(planted) == []


def test_the_digest_of_a_store_does_not_know_its_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.store.entities import PagedList

    from sweeps.tracking import delivery

    class Client:
        """An MLflow with nothing in it."""

        def __init__(self, _: str) -> None:
            self.search_runs = lambda *_, **__: PagedList([], None)
            self.get_experiment_by_name = lambda _: None
            self.create_experiment = lambda *_, **__: "7"

    monkeypatch.setattr(delivery, "MlflowClient", Client)
    (tmp_path / "outbox.jsonl").touch()
    targets = []
    for login in ("me:one@", "me:other@", "me:other@another-"):
        target = {"uri": f"http://{login}host", "study": "s", "identity": None, "folder": str(tmp_path)}
        delivery.Delivery({**target, "artifact_root": None, "restore": False}).prepare()
        targets.append(json.loads((tmp_path / "outbox.sent").read_text())["target"])
    assert targets[0] == targets[1] != targets[2]


# -- jobs -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A jobs server that remembers what it was given."""
    server = SimpleNamespace(given=[], list_jobs=list, get_address=lambda: f"http://me:{MARK}@head:8265")

    def submit_job(**job: Any) -> str:
        server.given.append(job)
        return str(job["submission_id"])

    server.submit_job = submit_job
    monkeypatch.setattr("sweeps.driver.on_ray.submit.connect", lambda _: server)
    return server


@pytest.mark.parametrize(
    "setting",
    [
        f"storage.study=postgresql://me:{MARK}@h/db",
        f"storage.study=postgresql://me@h/db?sslpassword={MARK}",
        f"tracking.uri=https://{MARK}@h",
        f'tracking={{uri: "http\\x3a//me:{MARK}@h"}}',
    ],
)
def test_no_secret_becomes_a_word_of_a_job(
    setting: str,
    jobs: SimpleNamespace,
    write_spec: WriteSpec,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    words = ["--working-dir", str(tmp_path), "--no-wait", "--set", setting, "--set", "budget.trials=7"]
    assert main(["submit", str(write_spec()), *words]) == 2
    out, err = capsys.readouterr()
    assert jobs.given == []
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith("error: --set ")
    assert "PGPASSWORD" in line
    assert MARK not in line


def test_a_secret_in_the_file_of_a_job_is_pointed_out(
    jobs: SimpleNamespace, write_spec: WriteSpec, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    spec = write_spec(study=f"postgresql://me:{MARK}@h/db")
    words = ["--working-dir", str(tmp_path), "--no-wait", "--set", "budget.trials=7"]
    assert main(["submit", str(spec), *words]) == 0
    out, err = capsys.readouterr()
    (job,) = jobs.given
    assert MARK not in str(job) + out + err
    assert err.startswith(f"note: {spec}:")
    assert "storage.study" in err
    assert "PGPASSWORD" in err
    assert {".env", ".netrc", ".pgpass"} <= set(job["runtime_env"]["excludes"])


# -- Ray ------------------------------------------------------------------------------------------------------------


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.postgres
def test_a_sweep_on_ray_writes_no_secret_and_hands_none_on(write_spec: WriteSpec, postgres_url: str) -> None:
    """Of Ray's own folder every byte is looked at: it keeps words of drivers, and environments of workers."""
    study = postgres_url.replace("postgres:@", f"postgres:{MARK}@")
    spec = write_spec("rayed", trials=4)
    place = Path(tempfile.mkdtemp(prefix="swc", dir="/tmp"))  # Ray's sockets need a short path
    variables = {
        **os.environ,
        **ENVIRONMENT,
        "HOME": str(place),
        "TMPDIR": str(place),
        "RAY_TMPDIR": str(place),
    }
    command = [sys.executable, "-m", "sweeps", "run", str(spec), "--set", f"storage.study={study}"]
    try:
        with (place / "out").open("wb") as out:
            driver = subprocess.Popen(command, env=variables, stdout=out, stderr=out, cwd=place)
            with Onlooker(driver.pid) as seen:
                meanwhile: set[str] = set()
                while driver.poll() is None:  # Tune's snapshots are there while it runs only
                    meanwhile.update(in_files(*place.glob("sweeps-tune-*")))
                    time.sleep(0.5)
        assert driver.returncode == 0, (place / "out").read_text()
        assert meanwhile == set()
        assert any(b"PL_DISABLE_FORK" in log.read_bytes() for log in place.rglob("logs/*.*")), (
            "Ray logs environments"
        )
        assert in_files(place, spec.parent / "runs") == []
        kept = everything_in(postgres_url)
        assert "rayed" in kept
        assert MARK not in kept
        assert [words for words in seen.words if MARK.encode() in words] == []
        # What Ray keeps as the driver's entrypoint are its words at that time.
        assert b"storage.study=postgresql://postgres:***@" in seen.own
        assert any(b"ray::SlotTrainable" in words for words in seen.words)
        assert seen.told() == RAYS
    finally:
        shutil.rmtree(place, ignore_errors=True)


@pytest.mark.ray
@pytest.mark.slow
def test_a_job_is_given_no_secret_of_the_shell_that_submits_it(write_spec: WriteSpec, tmp_path: Path) -> None:
    """Nodes have an environment of their own; of the shell's, nothing reaches the cluster."""
    cluster = LocalCluster(tmp_path / "runs")
    try:
        spec = write_spec(trials=3, runs=cluster.runs)
        shell = {**os.environ, **ENVIRONMENT, **cluster.environment, "HOME": str(tmp_path)}
        del shell["RAY_AUTH_TOKEN"]
        words = ["submit", str(spec), "--working-dir", str(tmp_path), "--runs", str(cluster.runs)]

        def said(*command: str) -> tuple[int, str]:
            run = [sys.executable, "-m", *command]
            done = subprocess.run(run, capture_output=True, text=True, env=shell, timeout=240, check=False)
            assert MARK not in done.stdout + done.stderr
            return done.returncode, done.stdout + done.stderr

        assert said("sweeps", *words, "--set", f"tracking.uri=http://me:{MARK}@h")[0] == 2
        code, text = said("sweeps", *words)
        assert code == 0, text
        assert "sweeps best tiny" in text
        assert "sweep-tiny" in said("ray.scripts.scripts", "job", "list")[1]
        assert list(cluster.folder.rglob("logs/*.*")), "Ray's logs are looked at"
        assert in_files(cluster.folder, tmp_path) == []
    finally:
        cluster.close()
