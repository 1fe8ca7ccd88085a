"""MLflow's pages and optuna-dashboard, as `sweeps ui` serves them, in a real browser: clicked through, without an error.

`SHOTS=FOLDER` in the environment keeps a picture of each page.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("optuna_dashboard")
pytest.importorskip("aiohttp")

from sweeps.results.finding import find
from sweeps.results.sentence import sentence
from sweeps.results.sweep import Sweep
from sweeps.tracking.appearance import FINALISTS, run_name
from sweeps.tracking.sync import sync
from tests.browser import CHROMIUM, Browser
from tests.sweeps.conftest import ran_in
from tests.sweeps.test_ui import Serving, free_port

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")]
PATIENCE = 120.0  # seconds; MLflow's page runs four megabytes of scripts, on a machine that may be busy
_LINES = "document.querySelectorAll('.js-plotly-plot .scatterlayer .trace').length > 3"


@pytest.fixture(scope="module")
def shown(
    tiny_model: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Sweep, Serving]]:
    root = tmp_path_factory.mktemp("pages")
    ran_in(root, tiny_model("llama"), trials=6)
    sweep = find("tiny", runs=str(root / "runs"))
    sync(sweep, "sqlite")
    serving = Serving(
        study_url=sweep.spec.study_url,
        mlflow_uri=f"sqlite:///{root / 'runs' / 'mlflow.db'}",
        door={"port": free_port(), "dashboard_port": free_port()},
        study="tiny",
        ranked=True,
    )
    yield sweep, serving
    serving.end(signal.SIGTERM)


@pytest.fixture
def browser() -> Iterator[Browser]:
    with Browser() as found:
        found.size(1200, 900)
        yield found
        assert not found.errors


def picture(browser: Browser, name: str) -> None:
    if folder := os.environ.get("SHOTS"):
        browser.rest(2.0)
        browser.shot(Path(folder) / f"{name}.png")


def element(tag: str, text: str) -> str:
    return f"[...document.querySelectorAll('{tag}')].find(e => e.innerText.startsWith({text!r}))"


def test_mlflow_opens_on_the_answer_the_gap_and_the_finalists_colours(
    shown: tuple[Sweep, Serving], browser: Browser
) -> None:
    sweep, serving = shown
    found, records = sweep.verdict, sweep.records
    browser.open(serving.pages["MLflow"])
    browser.wait(_LINES, PATIENCE)
    text = browser.text()
    assert "Sweep: gap to the control" in text
    assert text.index("control_gap") < text.index("eval_loss")
    assert "shared view" not in text.lower(), "how to change a view, which cannot be done here"
    assert "Welcome to MLflow Assistant" not in text
    assert f"tiny: {sentence(found, records)[:60]}" in text
    best = records[found.finalists[0].number]
    assert run_name(best) in text
    drawn = browser.evaluate(
        "[...document.querySelectorAll('.js-plotly-plot .js-line')].map(e => getComputedStyle(e).stroke)"
    )
    blue = tuple(int(FINALISTS[0][at : at + 2], 16) for at in (1, 3, 5))
    assert "rgb({}, {}, {})".format(*blue) in drawn
    picture(browser, "mlflow-charts")
    # The description, opened, has the table of finalists and the report's place.
    browser.click(
        "document.querySelector('[data-component-id=\"mlflow.experiment.metadata_editor.expand_button\"]')"
    )
    browser.wait("document.body.innerText.includes('less the control')", PATIENCE)
    assert str(sweep.folders.report) in browser.text()
    picture(browser, "mlflow-description")
    # The theme, by MLflow's own switch in its settings.
    browser.evaluate("localStorage.setItem('databricks-dark-mode-pref', 'dark')")
    browser.evaluate("localStorage.setItem('_mlflow_dark_mode_toggle_enabled', 'true')")
    browser.open("about:blank")
    browser.open(serving.pages["MLflow"])
    browser.wait(_LINES, PATIENCE)
    picture(browser, "mlflow-dark")


def test_mlflows_table_has_our_settings_and_a_run_says_what_it_is(
    shown: tuple[Sweep, Serving], browser: Browser
) -> None:
    sweep, serving = shown
    best = sweep.records[sweep.verdict.finalists[0].number]
    browser.open(serving.pages["MLflow"].replace("CHART", "TABLE"))
    browser.wait("document.querySelectorAll('[col-id=\"params.`rate`\"]').length > 3", PATIENCE)
    columns = browser.evaluate(
        "[...document.querySelectorAll('.ag-header-cell')].map(e => e.getAttribute('col-id'))"
    )
    wanted = ["metrics.`objective_gap`", "params.`grown`", "params.`first_weights`", "params.`rate`"]
    assert [column for column in columns if column in wanted] == wanted
    ends = browser.evaluate(
        "[...document.querySelectorAll('.ag-row [col-id=\"tags.`sweeps.end`\"]')].map(e => e.innerText)"
    )
    assert "complete" in ends
    picture(browser, "mlflow-table")
    browser.click(element("a", run_name(best)))
    browser.wait("document.body.innerText.includes('About this run')", PATIENCE)
    browser.wait(f"document.body.innerText.includes('Trial {best.number}, ')", PATIENCE)
    assert "complete, held-out loss" in browser.text()
    picture(browser, "mlflow-run")


def test_optuna_dashboard_opens_on_the_sweeps_best_and_its_note_says_why(
    shown: tuple[Sweep, Serving], browser: Browser
) -> None:
    sweep, serving = shown
    grown = sweep.verdict.answer.grown
    browser.open(serving.pages["Optuna"])
    browser.wait(f"document.body.innerText.includes('Best Trial (number={grown})')", PATIENCE)
    browser.wait("document.querySelectorAll('.js-plotly-plot').length > 1", PATIENCE)
    text = browser.text()
    assert "sweeps:answer" in text
    assert '{"' not in text, "raw JSON"
    picture(browser, "optuna-study")
    here = browser.evaluate("location.pathname")
    base = serving.pages["Optuna"].split("/dashboard")[0]
    browser.open(f"{base}{here}/trials?numbers={grown}")
    browser.wait("document.body.innerText.includes('Intermediate Values')", PATIENCE)
    browser.wait("document.body.innerText.includes('the best grown model')", PATIENCE)
    text = browser.text()
    assert "sweeps:role" in text
    assert '{"' not in text, "raw JSON"
    picture(browser, "optuna-trial")
    browser.open(f"{base}{here}/note")
    browser.wait("document.body.innerText.includes('grow')", PATIENCE)
    picture(browser, "optuna-note")
