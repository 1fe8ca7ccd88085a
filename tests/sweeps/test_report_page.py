"""The report: one page, whole without a network, with the numbers of the answer; and the command that writes it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sweeps.records import Role, State
from sweeps.report.page.html import page
from sweeps.results.finding import find
from sweeps.results.selection import verdict
from sweeps.results.sentence import sentence
from sweeps.results.setting_answers import searched_in
from sweeps.results.sweep import Sweep
from sweeps.results.verdict import Verdict
from sweeps.search_answers import Along, SearchAnswers
from sweeps.spec import load_spec
from tests.real_quickstart import kept
from tests.sweeps.conftest import ran_in

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FIGURES = ("forest-tokens", "forest-compute", "gap", "curves", "rates")


def answered(records: Any, answers: SearchAnswers) -> Verdict:
    searched = searched_in(load_spec("quickstart"), records, answers)
    return verdict(records, depth=8, searched=searched)


def made(records: Any = None, answers: SearchAnswers | None = None, **changes: Any) -> str:
    known, found = kept()
    records, answers = records or known, answers or found
    given: dict[str, Any] = {"again": {"command": "sweeps run quickstart"}, "spec": {"name": "quickstart"}}
    return page("quickstart", answered(records, answers), records, answers, **{**given, **changes})


def data_of(text: str) -> Any:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found
    return json.loads(found.group(1))


def test_its_numbers_are_those_of_the_answer() -> None:
    records, answers = kept()
    found = answered(records, answers)
    data = data_of(made())
    assert [claim["mean"] for claim in data["claims"]] == [claim.mean for claim in found.claims]
    assert [claim["low"] for claim in data["claims"]] == [claim.low for claim in found.claims]
    assert data["margin"] == found.margin.nats
    assert data["finalists"] == [each.number for each in found.finalists]
    claim = data["claims"][0]
    assert len(claim["dots"]) == 3
    assert sum(claim["dots"]) / 3 == pytest.approx(claim["mean"])
    by_number = {record.number: record for record in records}
    ends = {trial["n"]: trial["curve"][1][-1] for trial in data["trials"] if trial["curve"][1]}
    assert all(ends[n] == pytest.approx(by_number[n].loss, abs=1e-6) for n in ends)


def test_its_first_words_are_the_sentence_and_each_card_answers_or_says_that_it_does_not() -> None:
    records, answers = kept()
    text = made()
    found = answered(records, answers)
    assert f"<h1>quickstart: {sentence(found, records)}</h1>" in text
    cards = re.findall(r'<div class="card( open)?"><span>(.*?)</span><b>(.*?)</b>', text)
    assert [title for _, title, _ in cards] == [
        "Better than training on?", "K?", "First weights?", "Learning rate?",
    ]  # fmt: skip
    by_path = {each.path: each for each in found.settings}
    assert cards[1][2] == str(by_path["injection.k"].value)
    nothing = replace(found, settings=(), answer=replace(found.answer, grow="not shown"))
    text = page("quickstart", nothing, records, None, again={}, spec={})
    assert text.count('<div class="card open"><span>') == 4
    assert re.findall(r'class="card open"><span>.*?</span><b>(.*?)</b>', text)[0] == "not shown"


def test_cells_that_were_never_tried_are_blank() -> None:
    _, answers = kept()
    pair = answers.pairs["injection.k", "injection.init"]
    never = sum(not each.tried for each in pair.values())
    assert 0 < never == made().count('<td class="none">not tried</td>')


def test_it_asks_no_network_and_runs_nothing_that_a_trial_says() -> None:
    records, _ = kept()
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"
    failed = replace(
        records[5], number=999, state=State.FAIL, value=None, reason=evil, role=Role.SEARCH, request="x"
    )
    text = made([*records, failed], notes=[evil])
    assert evil not in text
    assert text.count("<script") == 2
    assert "alert(1)" in data_of(text)["trials"][-1]["reason"]
    without = re.sub(r'xmlns="[^"]*"|http://www\.w3\.org/2000/svg', "", text)
    assert not re.search(r"(?:https?:)?//[a-z]", without.replace("// --", ""))


def test_a_thousand_trials_are_under_two_megabytes() -> None:
    records, _ = kept()
    base = next(r for r in records if r.role is Role.SEARCH and r.state is State.COMPLETE)
    curve = {step: 3.0 + 1.0 / (step + 1) for step in range(0, 25, 2)}
    many = [replace(base, number=1000 + n, losses=curve, request=f"r{n}") for n in range(1000)]
    assert len(made([*records, *many]).encode()) < 2_000_000


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_a_browser_draws_every_figure_without_an_error(tmp_path: Path) -> None:
    _, answers = kept()
    along = Along((1e-4, 1e-3, 1e-2), (3.2, 3.0, 3.4), (0.1, 0.01, 0.1))
    text = made(answers=replace(answers, valleys={1: along, 8: along}))
    (tmp_path / "report.html").write_text(text)
    command = [
        str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}",
        "--enable-logging=stderr", "--virtual-time-budget=3000", "--dump-dom", str(tmp_path / "report.html"),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "CONSOLE" not in done.stderr
    for name in FIGURES:
        drawn = done.stdout.split(f'id="{name}"', 1)[1]
        assert drawn.index("<svg") < drawn.index("</div>"), name
    assert done.stdout.count("<path d=") > 30


# -- the command ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tiny_model: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    root = tmp_path_factory.mktemp("report")
    ran_in(root, tiny_model("llama"), trials=2)
    return find("tiny", runs=str(root / "runs"))


def test_the_command_writes_it_beside_the_trials_and_replaces_only_its_own(
    finished: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from sweeps.__main__ import main

    name, runs = finished.spec.name, str(finished.folders.artifacts)
    assert main(["report", name, "--runs", runs]) == 0
    written = Path(capsys.readouterr().out.strip())
    assert written == finished.folders.sweep / "report.html"
    assert main(["report", name, "--runs", runs]) == 0
    capsys.readouterr()
    other = tmp_path / "page.html"
    other.write_text("mine")
    assert main(["report", name, "--runs", runs, "--out", str(other)]) == 2
    assert other.read_text() == "mine"
    assert "--force" in capsys.readouterr().err
    assert main(["report", name, "--runs", runs, "--out", str(other), "--force"]) == 2, "that is no page"
    store = finished.folders.artifacts / "study.db"
    before = store.read_bytes()
    assert main(["report", name, "--runs", runs, "--out", str(store), "--force"]) == 2
    assert store.read_bytes() == before
    other.write_text("<!DOCTYPE html><title>old</title>")
    capsys.readouterr()
    assert main(["report", name, "--runs", runs, "--out", str(other), "--force", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["out"] == str(other)
    assert data_of(other.read_text())["finalists"] == [each.number for each in finished.verdict.finalists]
    assert main(["report", name, "--runs", runs, "--out", str(tmp_path / "none" / "page.html")]) == 2
    assert not (tmp_path / "none").exists()
