"""The report: one page, whole without a network, with the numbers of the answer; and the command that writes it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from html import unescape as html_unescape
from pathlib import Path
from typing import Any

import pytest

from sweeps.driver import report_page
from sweeps.errors import Problem, SpecError
from sweeps.records import Role, State
from sweeps.report.page.html import page
from sweeps.results.finding import find
from sweeps.results.searched import searched_in
from sweeps.results.selection import verdict
from sweeps.results.sentence import sentence
from sweeps.results.sweep import Sweep
from sweeps.results.verdict import Verdict
from sweeps.search_answers import Along, SearchAnswers
from sweeps.spec import load_spec
from sweeps.tracking import NullTracker
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
    return page(answered(records, answers), records, answers, **{**given, **changes})


def browsed(folder: Path, text: str) -> str:
    """The page as Chromium has drawn it; a message on its console fails the test."""
    if CHROMIUM is None:
        pytest.skip("no Chromium here")
    (folder / "report.html").write_text(text)
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}",
        "--enable-logging=stderr", "--virtual-time-budget=3000", "--dump-dom", str(folder / "report.html"),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "CONSOLE" not in done.stderr, done.stderr
    return done.stdout


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
    k = by_path["injection.k"]
    one, other = (
        replace(k.values[0], value=value, says=says) for value, says in ((2, "as good"), (16, "no better"))
    )
    made_up = replace(k, reason=None, between=None, value=4, as_good=(2,), values=(one, other))
    text = page(replace(found, settings=(made_up,)), records, None, again={}, spec={"name": "quickstart"})
    assert "<span>K?</span><b>4</b><small>as good: 2; not shown to be worse: 16</small>" in text
    assert f">{found.best} (the answer)<" in text
    nothing = replace(found, settings=(), answer=replace(found.answer, grow="not shown"))
    text = page(nothing, records, None, again={}, spec={"name": "quickstart"})
    assert text.count('<div class="card open"><span>') == 4
    assert "(the answer)" not in text
    assert f">{found.best} (handed over)<" in text
    assert re.findall(r'class="card open"><span>.*?</span><b>(.*?)</b>', text)[0] == "not shown"


def test_cells_that_were_never_tried_are_blank() -> None:
    _, answers = kept()
    pair = answers.pairs["injection.k", "injection.init"]
    never = sum(not each.tried for each in pair.values())
    assert 0 < never == made().count('<td class="none">not tried</td>')


def test_choices_that_make_no_pair_of_k_and_first_weights_are_shown_one_by_one() -> None:
    _, answers = kept()
    alone = replace(answers, pairs={}, values={"injection.method": answers.values["injection.init"]})
    text = made(answers=alone)
    estimates = answers.values["injection.init"]
    assert "<h2>Choices</h2>" in text
    shown = text.split('<th scope="row">injection.method</th>', 1)[1].split("</tr>")[0]
    assert shown.count("<td") == len(estimates)
    assert all(
        f"{each.complete} of {each.tried} to the end" in shown for each in estimates.values() if each.tried
    )


def test_tables_of_the_terminal_stand_in_it_as_they_are() -> None:
    text = made(more=[[], ["Downstream tasks", "  kobest_copa acc  0.51 < 0.55"]])
    assert "<h2>Downstream tasks</h2>" in text
    assert "<pre>  kobest_copa acc  0.51 &lt; 0.55</pre>" in text


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


def test_a_browser_draws_every_figure_without_an_error(tmp_path: Path) -> None:
    _, answers = kept()
    along = Along((1e-4, 1e-3, 1e-2), (3.2, 3.0, 3.4), (0.1, 0.01, 0.1))
    text = made(answers=replace(answers, valleys={1: along, 8: along}))
    shown = browsed(tmp_path, text)
    for name in FIGURES:
        drawn = shown.split(f'id="{name}"', 1)[1]
        assert drawn.index("<svg") < drawn.index("</div>"), name
    assert shown.count("<path d=") > 30


def test_every_choice_of_a_reader_changes_what_is_shown(tmp_path: Path) -> None:
    """Axis, sort, hover, pins and theme, by events as a mouse and a keyboard make them."""
    acts = """
      const q = (s) => document.querySelector(s), out = {};
      const on = (e, kind, more) => e.dispatchEvent(new (kind.startsWith('key') ? KeyboardEvent : PointerEvent)(
        kind, {bubbles: true, clientX: 40, clientY: 40, ...more}));
      const axis = () => [...document.querySelectorAll('#gap text')].map((t) => t.textContent).join('|');
      const before = axis();
      q('[data-amount=tokens]').click();
      out.axis = axis() !== before && axis().includes('training tokens');
      out.pressed = q('[data-amount=tokens]').getAttribute('aria-pressed');
      const column = (n) => [...q('table.sorts').tBodies[0].rows].map((r) => Number(r.cells[n].dataset.v));
      q('table.sorts th:nth-child(4) button').click();
      out.sorted = column(3);
      q('table.sorts th:nth-child(4) button').click();
      out.reversed = column(3);
      const row = q('table.sorts tbody tr');
      row.focus();
      on(row, 'keydown', {key: 'Enter'});
      out.pinned = document.querySelectorAll('svg .pin').length;
      out.dimmed = document.querySelectorAll('svg .dim').length;
      on(document.body, 'keydown', {key: 'Escape'});
      out.freed = document.querySelectorAll('.pin').length;
      on(q('#curves path[data-n]'), 'pointermove');
      out.tip = q('#tip').textContent;
      out.shown = getComputedStyle(q('#tip')).display;
      const ground = () => getComputedStyle(document.body).backgroundColor;
      out.grounds = [ground()];
      q('#theme').click();
      out.grounds.push(ground());
      q('#theme').click();
      out.grounds.push(ground());
      document.body.dataset.out = JSON.stringify(out);
    """
    done = browsed(tmp_path, made().replace("</body>", f"<script>{acts}</script></body>"))
    out = json.loads(html_unescape(re.search(r'<body data-out="([^"]*)"', done).group(1)))  # type: ignore[union-attr]
    assert (out["axis"], out["pressed"], out["shown"]) == (True, "true", "block")
    assert out["sorted"] == sorted(out["sorted"])
    assert out["reversed"] == out["sorted"][::-1]
    assert min(out["pinned"], out["dimmed"]) > 0
    assert out["freed"] == 0
    assert re.match(r"\d+: ", out["tip"])
    assert out["grounds"][0] == out["grounds"][2] != out["grounds"][1]


def test_the_front_is_drawn_with_its_intervals(tmp_path: Path) -> None:
    records, answers = kept()
    spec = load_spec("quickstart", overrides=["objective=[eval_loss, flops_per_token]"])
    found = verdict(records, depth=8, per=spec.spread)
    assert found.front is not None
    text = page(found, records, answers, again={}, spec={"name": "quickstart"})
    members = data_of(text)["front"]["members"]
    shown = {each.number: each for each in found.front.members}
    assert {each["n"]: (each["at"], each["mean"]) for each in members} == {
        number: (each.times, each.mean or 0.0) for number, each in shown.items()
    }
    drawn = browsed(tmp_path, text).split('id="front"', 1)[1]
    marks = {int(number) for number in re.findall(r'<g data-n="(\d+)"', drawn.split("</div>", 1)[0])}
    assert marks == shown.keys()
    assert 'id="front"' not in made()


@pytest.mark.slow
def test_a_front_of_scores_is_drawn_upwards_to_the_right_with_the_base(tmp_path: Path) -> None:
    records, answers = kept()
    spec = load_spec("quickstart", overrides=["objective=[eval_loss, flops_per_token]"])
    found = verdict(records, depth=8, per=spec.spread)
    assert found.front is not None
    members = tuple(
        replace(each, cost=None, times=None, score=0.4 + 0.1 * n, score_half_width=0.02, by_means=True)
        for n, each in enumerate(found.front.members)
    )
    front = replace(
        found.front, cost=None, members=members, score="copa/acc", higher_is_better=True, base=0.3
    )
    text = page(replace(found, front=front), records, answers, again={}, spec={"name": "quickstart"})
    drawn = browsed(tmp_path, text).split('id="front"', 1)[1].split("</div>", 1)[0]
    places = re.findall(r'<g data-n="(\d+)".*?<line x1="([\d.]+)" x2="([\d.]+)"', drawn)
    assert [int(number) for number, *_ in places] == [each.number for each in members]
    middles = [(float(left) + float(right)) / 2 for _, left, right in places]
    assert middles == sorted(middles), "a higher score lies further to the right"
    assert "copa/acc (higher is better)" in drawn
    assert ">base</text>" in drawn


# -- while a sweep runs ---------------------------------------------------------------------------


def test_a_sweep_that_runs_has_a_page_as_soon_as_a_trial_is_complete(
    finished: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sweeps.driver.report_page import ReportPage

    sweep, told = finished, []
    monkeypatch.setattr(NullTracker, "report", lambda _: told.append(sweep.folders.report.read_text()))
    sweep.folders.report.unlink(missing_ok=True)
    notes: list[str] = []
    report = ReportPage(sweep, NullTracker(), notes.append)
    report.update([replace(record, value=None) for record in sweep.records], "search")
    assert report._thread is None, "no trial is complete"
    report.update(sweep.records, "search")
    assert report._thread is not None
    report._thread.join(30)
    assert sweep.folders.report.is_file()
    first = report._thread
    report.update(sweep.records, "search")
    assert report._thread is first, "not twice in a minute"
    assert len(told) == 1
    report.finish()
    assert len(told) == 2
    assert data_of(told[1])["finalists"] == [each.number for each in sweep.verdict.finalists]
    monkeypatch.setattr(report_page, "write_report", raising)
    report.finish()
    assert notes == ["no report: --out: got a full disk; expected room"]


def raising(*_: Any) -> None:
    raise SpecError(Problem("--out", "a full disk", "room"))


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
