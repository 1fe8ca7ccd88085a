"""`sweeps status` and `sweeps list`: interrupted trials are called so, and what is piped is not cut."""

from __future__ import annotations

import io
import sys

import pytest

from sweeps.__main__ import main
from sweeps.folders import Folders
from sweeps.ledger import Ledger
from sweeps.records import Role, State
from sweeps.report.status import Line, list_text, status_text
from sweeps.spec import Spec
from tests.sweeps.conftest import agenda_of, taken
from tests.sweeps.test_summary import record

LONG = {f"recipe.some_long_setting_{place}": 1 / 3 for place in range(4)}
RECORDS = [
    record(0, Role.CONTROL, State.COMPLETE, 0, {0: 3.8, 50: 3.72}),
    record(1, Role.SEARCH, State.RUNNING, 2, {0: 3.8}),
    record(2, Role.SEARCH, State.WAITING, 2, {}, params=LONG),
    record(3, Role.SEARCH, State.FAIL, 2, {0: 3.8}, reason="a long story\n" * 20),
]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_running_trial_without_a_driver_is_interrupted() -> None:
    driven, left = (status_text(RECORDS, driven=driven).splitlines() for driven in (True, False))
    assert driven[0] == "1 waiting, 1 running, 1 complete, 1 failed"
    assert left[0] == "1 waiting, 1 interrupted, 1 complete, 1 failed"
    assert [line.split()[2] for line in driven[3:]] == ["complete", "running", "waiting", "failed"]
    assert [line.split()[2] for line in left[3:]] == ["complete", "interrupted", "waiting", "failed"]


def test_lines_are_cut_at_a_terminal_alone() -> None:
    whole = status_text(RECORDS, driven=True).splitlines()
    assert whole[5].endswith("some_long_setting_3=0.3333")
    assert whole[6].endswith("a long story " * 19 + "a long story")
    cut = status_text(RECORDS, driven=True, width=60).splitlines()
    assert max(map(len, cut)) == 60
    assert [line for line in cut if len(line) < 60] == [line for line in whole if len(line) < 60]


def test_the_list_has_a_column_for_interrupted_ones_where_there_are_any() -> None:
    complete = [each for each in RECORDS if each.state is State.COMPLETE]
    lines = list_text({"a": Line(RECORDS, driven=False), "b": Line(RECORDS, driven=True)}).splitlines()
    columns = lines[0].split()[:7]
    assert columns == ["sweep", "trials", "complete", "stopped", "failed", "running", "interrupted"]
    assert [line.split()[5:7] for line in lines[1:]] == [["0", "1"], ["1", "0"]]
    for line in (Line(RECORDS, driven=True), Line(complete, driven=False)):
        assert "interrupted" not in list_text({"a": line})


def test_the_commands_ask_the_lease(
    spec: Spec, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    taken(agenda_of(spec))
    Folders(spec.root, spec.name).write_spec(spec.to_json())
    runs = ["--runs", str(spec.root)]
    status = ["status", spec.name, "--study", spec.study_url]
    listed = ["list"] if spec.storage.study == "sqlite" else status  # no list asks a server

    def shown(*words: str) -> str:
        assert main([*words, *runs]) == 0
        return capsys.readouterr().out

    assert "1 interrupted" in shown(*status)
    assert "interrupted" in shown(*listed)
    with Ledger.driven(spec.study_url, spec):
        assert "1 running" in shown(*status)
        assert "interrupted" not in shown(*listed)
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr(sys, "stdout", terminal := Terminal())
    assert main([*status, *runs]) == 0
    (line,) = (line for line in terminal.getvalue().splitlines() if line.split()[:1] == ["0"])
    assert len(line) <= 40
