"""Sweeps found again: moved, kept elsewhere, broken, unreachable; and what is taken from them."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import sqlite3
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sweeps.__main__ import main
from sweeps.checks import stores
from sweeps.driver.service import run
from sweeps.driver.single import assignment_of
from sweeps.errors import SpecError
from sweeps.folders import Folders
from sweeps.ledger import Ledger
from sweeps.records import State
from sweeps.results.finding import NoSweepError, find, found, named, resumed
from sweeps.results.listing import sweeps_in
from sweeps.spec import load_spec
from tests.sweeps.conftest import SPEC, Silent, copied

AWAY = "postgresql://me:secret@127.0.0.1:1/sweeps"
LOOKS: dict[str, list[str]] = {
    "status": ["status", "tiny"],
    "best": ["best", "tiny"],
    "export": ["export", "tiny", "--out", "best"],
    "resume": ["resume", "tiny", "--runner", "inline"],
    "trial": ["trial", "tiny", "1", "--out", "again"],
}


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, save_model: Any) -> Path:
    """A folder with `tiny.yaml` and its sweep of four trials under `runs`. Shared: copy it."""
    root = tmp_path_factory.mktemp("ran")
    text = root / "text.txt"
    text.write_text("".join(f"{n} bottles of beer on the wall, {n} bottles of beer.\n" for n in range(200)))
    model = save_model(root / "model")
    given = {"model": model, "text": text, "trials": 4, "study": "sqlite", "tracking": "null"}
    (root / "tiny.yaml").write_text(SPEC.format(name="tiny", runs="runs", **given))
    run(load_spec(str(root / "tiny.yaml"), runs=str(root / "runs")), Silent(), runner="inline")
    return root


@pytest.fixture
def place(ran: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a copy of that sweep."""
    return copied(ran, tmp_path, monkeypatch)


def keep(folder: str, **changes: Any) -> None:
    """Change what stands in the kept spec of a sweep."""
    file = Path("runs") / folder / "spec.json"
    values = json.loads(file.read_text())
    for section, given in changes.items():
        values[section] = {**(values[section] or {}), **given} if isinstance(given, dict) else given
    file.write_text(json.dumps(values))


def refused(command: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line with which a command refuses, at once and without making anything."""
    before = sorted(str(path) for path in Path.cwd().rglob("*") if not path.name.endswith(("-wal", "-shm")))
    capsys.readouterr()
    started = time.perf_counter()
    code = main(command)
    seconds = time.perf_counter() - started
    out, err = capsys.readouterr()
    assert (code, out) == (2, ""), err
    assert seconds < 4  # a store that is away is not tried again and again
    after = sorted(str(path) for path in Path.cwd().rglob("*") if not path.name.endswith(("-wal", "-shm")))
    assert after == before
    (line,) = err.splitlines()
    assert line.startswith("error: ")
    return line.removeprefix("error: ")


# -- where the user named it --------------------------------------------------------------------------------------


def test_a_sweep_that_was_moved_goes_on_where_it_is(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    moved = place.parent / "moved"
    (place / "runs").rename(moved)
    sweep = find("tiny", runs=str(moved))
    assert sweep.folders.artifacts == sweep.spec.root == moved
    assert sweep.spec.study_url == f"sqlite:///{moved}/study.db"
    assert len(sweep.records) == 6
    assert main(["resume", "tiny", "--runs", str(moved), "--runner", "inline", "--trials", "5"]) == 0
    assert not (place / "runs").exists()
    records = find("tiny", runs=str(moved)).records
    assert [record.number for record in records[:6]] == [0, 1, 2, 3, 4, 5]
    assert len([record for record in records if record.role.value in ("control", "baseline", "search")]) == 5
    assert json.loads((moved / "tiny/spec.json").read_text())["storage"]["artifacts"] == str(moved)


def test_the_studys_budget_and_settings_are_taken_and_the_files_stores_and_resources(place: Path) -> None:
    text = (place / "tiny.yaml").read_text()
    text = text.replace("trials: 4", "trials: 9").replace("parallel: 2", "parallel: 1")
    (place / "tiny.yaml").write_text(text.replace("tracking: null", "tracking: {uri: 'http://me:pw@host:1'}"))
    spec = find("tiny.yaml").spec
    assert spec.budget.trials == 4
    assert spec.resources.parallel == 1
    assert spec.tracking_uri == "http://me:pw@host:1"
    assert resumed("tiny.yaml") == spec
    assert resumed("tiny.yaml", more={"budget.trials": 7}).budget.trials == 7


def test_resume_with_a_file_that_compares_something_else_is_refused(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = place / "tiny.yaml"
    file.write_text(file.read_text().replace("rule: asha", "rule: none"))
    assert refused(["resume", "tiny.yaml", "--runner", "inline"], capsys) == (
        "study 'tiny': got another spec (stopping.rule: asha -> none); "
        "expected the spec that the study was made with; try name: tiny-2, or the old value"
    )
    assert len(find("tiny.yaml").records) == 6  # to look at it is no reason to refuse


def test_resume_of_a_budget_that_is_none(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(["resume", "tiny", "--trials", "1"], capsys)
    assert line.startswith("--trials 1: budget.trials: got 1; expected a whole number of at least 2")


def test_no_login_goes_to_an_mlflow_that_a_kept_spec_alone_names(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keep("tiny", tracking={"uri": "http://me:***@127.0.0.1:1"})
    for command in (LOOKS["resume"], ["sync", "tiny"]):
        assert refused(command, capsys) == (
            "runs/tiny/spec.json tracking.uri: got 'http://me:***@127.0.0.1:1', a server named by the kept spec "
            "alone; expected its address from you, as a login may be sent to it; "
            "try --tracking URI, or the sweep's own spec file as NAME"
        )
    assert resumed("tiny", tracking="http://me:pw@host:1").tracking_uri == "http://me:pw@host:1"
    for uri, said in {"http://me:***@host": "without its password", "ftp://host": "got 'ftp://host'"}.items():
        line = refused([*LOOKS["resume"], "--tracking", uri], capsys)
        assert line.startswith("--tracking: ")
        assert said in line
    assert find("tiny").verdict.best is not None


def test_a_trial_is_looked_up_in_the_study_that_the_spec_names(place: Path) -> None:
    with contextlib.closing(sqlite3.connect(place / "runs/study.db")) as study:
        study.execute("VACUUM INTO 'elsewhere.db'")
    for file in (place / "runs").glob("study.db*"):
        file.unlink()
    spec = load_spec("tiny.yaml", overrides=[f"storage.study=sqlite:///{place}/elsewhere.db"])
    assert assignment_of(spec, 5).settings["seed"] == 1
    with pytest.raises(SpecError, match=r"N: got 9; expected one of 0 to 5; try sweeps status tiny"):
        assignment_of(spec, 9)
    unknown = load_spec("tiny.yaml")  # of which no study is there
    assert assignment_of(unknown, 1).settings == unknown.trial.model_dump()
    with pytest.raises(SpecError, match=r"N: got 5; expected one of 0 to 1; try `sweeps run` first"):
        assignment_of(unknown, 5)


@pytest.mark.postgres
def test_postgresql_with_a_password(
    place: Path, postgres_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    # The server trusts everybody on its socket; what is looked at is which password would be sent.
    url = postgres_url.replace("postgres:@", "postgres:secret@")
    assert "secret" in url
    given = [
        "--runs",
        str(place / "runs"),
        "--runner",
        "inline",
        "--set",
        f"storage.study={url}",
        "--set",
        "name=pg",
    ]
    assert main(["run", "tiny.yaml", *given]) == 0
    kept = json.loads(Path("runs/pg/spec.json").read_text())
    assert ":***@" in kept["storage"]["study"]
    with pytest.raises(SpecError, match=r"named by the kept spec alone"):
        find("pg")
    bare = postgres_url.replace("postgres:@", "postgres@")
    assert find("pg", study=url.replace("secret", "***")).spec.study_url == bare  # libpq's to find
    assert find("pg", study=url).spec.study_url == url
    (place / "pg.yaml").write_text(
        (place / "tiny.yaml").read_text().replace("name: tiny", "name: pg").replace('"sqlite"', f'"{url}"')
    )
    assert resumed("pg.yaml").study_url == url
    assert main(["resume", "pg.yaml", "--runner", "inline", "--trials", "5"]) == 0
    assert len([r for r in find("pg.yaml").records if r.replicate_of is None]) == 5
    assert main(["trial", "pg.yaml", "1", "--out", "again"]) == 0
    assert "secret" not in capsys.readouterr().out


# -- what cannot be read ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("look", LOOKS)
def test_no_password_goes_to_a_server_that_a_kept_spec_alone_names(
    look: str, place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", "secret")
    with socket.create_server(("127.0.0.1", 0)) as planted:
        url = f"postgresql://me:***@127.0.0.1:{planted.getsockname()[1]}/sweeps"
        keep("tiny", storage={"study": url})
        assert refused(LOOKS[look], capsys) == (
            f"runs/tiny/spec.json storage.study: got '{url}', a server named by the kept spec alone; "
            "expected its address from you, as a login may be sent to it; try --study "
            "postgresql://USER:PASSWORD@HOST/DATABASE (study=), or the sweep's own spec file as NAME"
        )
        assert main(["list"]) == 0
        assert "a server named by the kept spec alone" in capsys.readouterr().out
        planted.settimeout(0.2)
        with pytest.raises(TimeoutError):
            planted.accept()


@pytest.mark.parametrize("method", [3, 5])  # in clear; MD5 of it
def test_no_password_of_the_environment_is_sent_in_clear(
    method: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", "canary")
    heard: list[bytes] = []

    def ask(server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = server.accept()
                with client:
                    client.settimeout(2)
                    heard.append(client.recv(1000))
                    if heard[-1][4:8] in (b"\x04\xd2\x16/", b"\x04\xd2\x160"):  # TLS or GSS is wanted
                        client.sendall(b"N")
                        heard.append(client.recv(1000))
                    client.sendall(
                        b"R"
                        + struct.pack("!ii", 8 + 4 * (method == 5), method)
                        + b"salt"[: 4 * (method == 5)]
                    )
                    heard.append(client.recv(1000))

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=ask, args=(server,), daemon=True).start()
        (problem,) = stores.postgres(
            f"postgresql://me@127.0.0.1:{server.getsockname()[1]}/x?sslmode=disable&gssencmode=disable",
            "here",
        )
    assert len(heard) >= 2, "it was asked"
    assert not any(b"canary" in each or each.startswith(b"p") for each in heard)
    assert "require_auth" in problem.remedy
    assert "authentication method requirement" in problem.got


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize(
    ("study", "said"),
    [
        ("nonsense", "got 'nonsense'; expected sqlite, or an address sqlite:///FILE or postgresql://"),
        ("sqlite:///text.txt", "got 'text.txt', which is no SQLite file; expected "),
        ("sqlite:///model", "got 'model', a folder; expected a file for SQLite"),
        ("sqlite:///broken.db", "got 'broken.db', which is broken ("),
        ("sqlite:///other.db", "got 'other.db', which holds something else (no table 'studies'); expected "),
        (AWAY, "got 'postgresql://me:***@127.0.0.1:1/sweeps' (127.0.0.1:1: Connection refused); expected "),
    ],
)
def test_a_study_that_cannot_be_read(
    study: str, said: str, look: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "broken.db").write_bytes(b"SQLite format 3\x00" + b"\x55" * 5000)
    with contextlib.closing(sqlite3.connect(place / "other.db")) as other:
        other.execute("CREATE TABLE experiments (name TEXT)")
        other.commit()
    assert refused([*LOOKS[look], "--study", study], capsys).startswith(f"--study: {said}")


def test_tables_of_another_optuna(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with contextlib.closing(sqlite3.connect(place / "runs/study.db")) as study:
        study.execute("VACUUM INTO 'newer.db'")
    with contextlib.closing(sqlite3.connect(place / "newer.db")) as newer:
        newer.execute("UPDATE alembic_version SET version_num = 'v99.0.0.a'")
        newer.commit()
    line = refused(["status", "tiny", "--study", "sqlite:///newer.db"], capsys)
    assert line.startswith("--study: got 'sqlite:///newer.db' (The runtime optuna version ")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda kept: kept.write_text("{not json"), "got a file that cannot be read (Expecting property"),
        (lambda kept: kept.write_text("[1]"), "got no mapping; expected a spec as it was run"),
        (lambda kept: kept.write_bytes(b"\xff\xfe"), "got a file that cannot be read ("),
        (lambda kept: kept.write_text('{"name": "tiny"}'), " base: got nothing; expected a mapping"),
        (lambda kept: kept.parent.rename("runs/other"), "got no sweep in runs; expected one of other"),
    ],
)
def test_a_kept_spec_that_cannot_be_read(
    change: Callable[[Path], object], said: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change(place / "runs/tiny/spec.json")
    assert main(LOOKS["status"]) == 2
    assert said in capsys.readouterr().err.splitlines()[0]


def test_list_shows_what_it_cannot_read(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("away", "broken", "renamed"):
        (place / "runs" / name).mkdir()
        shutil.copy(place / "runs/tiny/spec.json", place / "runs" / name)
    keep("away", name="away", storage={"study": AWAY})
    (place / "runs/broken/spec.json").write_text("{")
    listed = sweeps_in(place / "runs")
    assert list(listed) == ["away", "broken", "renamed", "tiny"]
    assert listed["tiny"].reason is None
    assert listed["tiny"].finished
    assert len(listed["tiny"].records) == 6
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    head, told = out.split("\n\nCould not be read\n")
    assert head.splitlines()[1].startswith("tiny        6         4 ")
    away, broken, renamed = told.splitlines()
    assert away.startswith(
        "  away: got 'postgresql://me:***@127.0.0.1:1/sweeps', a server named by the kept spec"
    )
    assert "; try --study postgresql://" in away
    assert broken.startswith("  broken: got a file that cannot be read (")
    assert renamed == "  renamed: got the sweep 'tiny' in a folder of another name; try renaming the folder"
    assert main(["list", "--json"]) == 0
    as_json = {row["sweep"]: row for row in json.loads(capsys.readouterr().out)["sweeps"]}
    read, unread = as_json["tiny"], as_json["renamed"]
    assert (read["trial_count"], read["finished"], read["unreadable"]) == (6, True, None)
    assert unread["unreadable"] == "the sweep 'tiny' in a folder of another name; try renaming the folder"
    assert unread["trial_count"] is unread["finished"] is None


def test_runs_that_is_a_file(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = "--runs: got 'text.txt', a file; expected the folder of all results"
    assert refused(["list", "--runs", "text.txt"], capsys) == told
    assert refused(["status", "tiny", "--runs", "text.txt"], capsys) == told


@pytest.mark.parametrize("reference", ["nothing", "", "model", "x" * 300, "../..", "runs/tiny"])
def test_names_of_nothing(reference: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(["status", reference], capsys)
    assert line == f"{reference or 'NAME'}: got no sweep in runs; expected one of tiny; try sweeps list"


def test_a_spec_that_was_not_run(place: Path) -> None:
    file = place / "tiny.yaml"
    file.write_text(file.read_text().replace("name: tiny", "name: other"))
    with pytest.raises(
        NoSweepError, match=r"other: got no study of this name in .*; try sweeps run tiny.yaml"
    ):
        find("tiny.yaml")
    with pytest.raises(NoSweepError, match=r"other: got no study at "):
        found(named("tiny.yaml", runs="nowhere"))
    assert not (place / "nowhere").exists()


def said(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[Any, str]:
    """What a command that ends well answers in JSON, and what it notes."""
    assert main([*words, "--json"]) == 0
    told = capsys.readouterr()
    return json.loads(told.out), told.err


def test_answers_before_the_end_say_so(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, words in enumerate((["best", "tiny"], ["export", "tiny", "--out", "a"])):
        answer, notes = said(words, capsys)
        assert notes == ""
        assert answer["progress"]["finished"] is True, number
    sweep = find("tiny")
    with Ledger.driven(sweep.spec.study_url, with_more_trials(sweep.ledger.spec, 9), {}):
        answer, notes = said(["best", "tiny"], capsys)
        assert "4 of 9 trials have ended; process" in notes
        assert answer["progress"]["go_on"] is None
    for words in (["best", "tiny"], ["export", "tiny", "--out", "b"], ["best", "tiny", "--runs", "runs"]):
        answer, notes = said(words, capsys)
        assert "4 of 9 trials have ended; `sweeps resume tiny` goes on" in notes
        assert len(notes.splitlines()) == 1
        assert answer["progress"] | {"driver": None} == {
            "finished": False,
            "ended": 4,
            "budget": 9,
            "replicates_ended": answer["progress"]["replicates_ended"],
            "driver": None,
            "go_on": "sweeps resume tiny",
        }
    assert main(["compare", "tiny"]) == 0
    assert "4 of 9" in capsys.readouterr().out


def with_more_trials(spec: Any, trials: int) -> Any:
    return spec.model_copy(update={"budget": spec.budget.model_copy(update={"trials": trials})})


def test_a_sweep_whose_trials_all_failed(write_spec: Any, capsys: pytest.CaptureFixture[str]) -> None:
    spec = load_spec(str(write_spec()))
    spec.root.mkdir()
    ledger = Ledger.open(spec.study_url, spec)
    for _ in range(2):
        assignment = ledger.ask()
        assert assignment is not None
        ledger.tell(assignment.number, assignment.attempt, State.FAIL, reason="no memory")
    Folders(spec.root, spec.name).write_spec(spec.to_json())
    runs = ["--runs", str(spec.root)]
    for words in (["compare", "tiny"], ["export", "tiny", "--out", "x"], ["best", "tiny"]):
        assert main([*words, *runs]) in (1, 2)
        told = "".join(capsys.readouterr())
        assert "all 2 failed" in told
        assert "sweeps status" in told
        assert " yet" not in told


# -- what is taken home -------------------------------------------------------------------------------------------


def test_exports_that_cannot_be(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stopped = next(r.number for r in find("tiny").records if r.state.value == "PRUNED")
    number = str(stopped)
    assert refused(["export", "tiny", "--out", "best", "--trial", number], capsys) == (
        f"trial {number}: got one that was stopped early; expected one of the trials that were kept: 0, 1; "
        f"try sweeps trial tiny {number} --out best, to train it here"
    )
    assert refused(["export", "tiny", "--out", "best", "--trial", "99"], capsys) == (
        "sweep tiny: got trial 99, which is not there; expected a complete trial; try sweeps status tiny"
    )
    assert refused(["export", "tiny", "--out", "model"], capsys).startswith(
        "model: got something that exists"
    )
    assert refused(["export", "tiny", "--out", "text.txt/x"], capsys).startswith("text.txt/x: got a place ")
    url = find("tiny").spec.study_url
    ledger = Ledger.open(url, find("tiny").ledger.spec)
    running = ledger.ask()
    assert running is not None
    assert refused(["export", "tiny", "--out", "best", "--trial", str(running.number)], capsys) == (
        f"trial {running.number}: got one that is running; expected a complete trial; "
        "try `sweeps status tiny`, and waiting"
    )


def test_a_trial_into_what_is_no_folder(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(["trial", "tiny", "1", "--out", "text.txt"], capsys) == (
        "--out: got text.txt, which exists; expected a new folder; try --out text.txt-2"
    )
    line = refused(["trial", "tiny", "1", "--out", "text.txt/new"], capsys)
    assert line == (
        f"--out: got text.txt/new in {place}/text.txt; expected a folder in one to write to; try another name"
    )


def test_names_and_errors_from_elsewhere_steer_no_terminal(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = place / "runs" / "odd\x1b[2J"
    folder.mkdir()
    (folder / "spec.json").write_text("[]")
    for command in (
        ["list"],
        ["list", "--json"],
        ["status", folder.name],
        ["export", "tiny", "--out", "\x1b[2J/x"],
    ):
        main(command)
        said = "".join(capsys.readouterr())
        assert "\x1b" not in said
    main(["list"])
    assert r"odd\x1b[2J" in capsys.readouterr().out


def test_a_fault_of_ours_is_told_without_what_it_quotes(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("could not open postgresql://me:it's s3cret\x1b[2J@host/db")

    monkeypatch.setattr("sweeps.results.finding.find", broken)
    assert main(["status", "tiny"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("Traceback")
    assert err.endswith("RuntimeError: could not open postgresql://me:***@host/db\n")
