"""Promotions: which trial, from which state, killed and gone on with; kept out of the sweep's answer."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import psutil
import pytest
from transformers import AutoModelForCausalLM

from sweeps.__main__ import main
from sweeps.curve import CURVE
from sweeps.driver.promoting import promote
from sweeps.driver.promotion_plan import Where, Wish, plan_promotion, tokens_of
from sweeps.driver.schedule.agenda import Agenda, Idle
from sweeps.driver.service import run
from sweeps.errors import SpecError
from sweeps.ledger import Ledger
from sweeps.promotion import Promotion
from sweeps.records import Role, State, TrialRecord
from sweeps.results.compare import compare
from sweeps.results.finding import find
from sweeps.results.promotions import longer, promotions
from sweeps.results.sweep import Sweep
from sweeps.spec import load_spec
from sweeps.tracking import NullTracker
from tests.servers import MlflowServer
from tests.sweeps.conftest import Silent, copied, ran_in
from tli.training.recipe import Recipe

SWEPT = {
    "stopping: {rule: asha, grace: 0.25, keep: 0.5}": "stopping: {rule: none}",
    "warmup: 0.0": "warmup: 0.25, schedule: wsd, decay: 0.5",
    "tokens: 512": "tokens: 256",
}
INLINE = Where(runs="runs", runner="inline")


@pytest.fixture(scope="module")
def carried_out(tmp_path_factory: pytest.TempPathFactory, tiny_model: Callable[[str], Path]) -> Path:
    """The folder of a sweep whose rate stays at its peak for half of a trial. Shared: look only."""
    return ran_in(tmp_path_factory.mktemp("promoted"), tiny_model("llama"), trials=3, changes=SWEPT)


@pytest.fixture
def here(carried_out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a copy of it."""
    return copied(carried_out, tmp_path, monkeypatch)


def planned(tokens: int | str = 1024, **wish: Any) -> Any:
    return plan_promotion(Wish("tiny", tokens, **{"grown": wish.get("trial") is None, **wish}), INLINE)


def promoted(tokens: int | str = 1024, watcher: Any = None, **wish: Any) -> TrialRecord:
    """The promotion, carried out."""
    sweep = promote(planned(tokens, **wish), INLINE, watcher or Silent())
    return [record for record in sweep.records if record.role is Role.PROMOTION][-1]


def grown(sweep: Sweep) -> TrialRecord:
    number = sweep.verdict.answer.grown
    return next(record for record in sweep.records if record.number == number)


class Killed(Silent):
    """Ends the driver as a kill does, without a word to the ledger, at a step of a long run."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self._step = step

    def update(self, records: Any, phase: str) -> None:
        assert phase == "promotion"
        if any(record.step >= self._step for record in records):
            raise KeyboardInterrupt


def test_a_long_run_reproduces_its_trial_and_is_the_same_from_its_state_afresh_and_after_a_kill(
    here: Path,
) -> None:
    trial = grown(find("tiny", runs="runs"))
    state = Recipe(**trial.settings["recipe"]).shared_steps
    assert 0 < state < trial.steps
    afresh_in = here / "afresh"
    shutil.copytree(here / "runs", afresh_in)
    (run_,) = planned().long_runs
    assert (run_.promotion.begins, run_.first_step) == (trial.number, state)
    with pytest.raises(KeyboardInterrupt):
        promoted(watcher=Killed(state + 1))
    standing = find("tiny", runs="runs").records[-1]
    assert (standing.role, standing.state, standing.attempt) == (Role.PROMOTION, State.RUNNING, 1)
    (run_,) = planned().long_runs
    assert run_.record == standing, "the same command goes on with it"
    record = promoted(out=here / "long")
    assert (record.number, record.attempt, record.state) == (standing.number, 2, State.COMPLETE)
    assert record.steps == 16
    first = [step for step in trial.losses if step <= state]
    assert len(first) > 1
    assert {step: record.losses[step] for step in first} == {step: trial.losses[step] for step in first}
    assert record.losses[record.steps] != trial.losses[trial.steps]
    # Afresh, where the trial's state is gone: bit for bit the same.
    for branch in afresh_in.glob("tiny/trials/*/branch"):
        shutil.rmtree(branch)
    where = Where(runs=str(afresh_in), runner="inline")
    plan = plan_promotion(Wish("tiny", 1024, grown=True), where)
    assert plan.long_runs[0].promotion == Promotion(
        trial.number, trial.steps, None, f"no state of trial {trial.number} was kept"
    )
    other = promote(plan, where, Silent()).records[-1]
    assert other.losses == record.losses
    assert other.test_losses == record.test_losses
    _loads(here / "long", trial)


def _loads(folder: Path, trial: TrialRecord) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert sum(each.numel() for each in model.parameters()) == trial.costs["parameters"]
    lineage = json.loads((folder / "lineage.json").read_text())
    assert lineage["training"]["tokens"] == 1024


def test_a_promotion_is_no_trial_of_the_sweep(here: Path) -> None:
    before = find("tiny", runs="runs")
    said, rows = before.verdict.to_json(), len(before.rows())
    best = optuna.load_study(study_name="tiny", storage="sqlite:///runs/study.db").best_trial.number
    record = promoted(control=True)
    control = find("tiny", runs="runs").records[-1]
    assert (control.role, control.promotion.beside) == (Role.PROMOTED_CONTROL, record.number)  # type: ignore[union-attr]
    assert control.flops == pytest.approx(record.flops, rel=0.05)
    assert control.steps > record.steps
    sweep = find("tiny", runs="runs")
    assert sweep.verdict.to_json() == said
    assert sweep.ledger.finished
    assert len(sweep.rows()) == rows + 2
    assert optuna.load_study(study_name="tiny", storage="sqlite:///runs/study.db").best_trial.number == best
    assert {r.number for r in sweep.records if r.budgeted} == {r.number for r in before.records if r.budgeted}
    (row,) = promotions(sweep.records, sweep.model_of)
    assert (row["trial"], row["of"], row["tokens"]) == (record.number, said["best_grown"], 1024)
    assert row["control"]["trial"] == control.number
    assert row["against_control"]["loss"] == pytest.approx(record.value - control.value)  # type: ignore[operator]
    assert Path(row["model"]).is_dir()
    assert {entry.record.role for entry in compare("tiny", f"tiny:{record.number}", runs="runs").entries} >= {
        Role.PROMOTION,
        Role.CONTROL,
    }
    # The sweep goes on with more trials, and the model of the promotion stays.
    after = run("tiny.yaml", Silent(), overrides=["budget.trials=4"], runner="inline")
    assert after.records[record.number] == record
    assert sum(r.budgeted for r in after.records) == 4
    assert after.model_of(record) is not None


def test_a_sweep_leaves_a_long_run_that_was_stopped_alone(here: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        promoted(watcher=Killed(2))
    standing = find("tiny", runs="runs").records[-1]
    assert find("tiny", runs="runs").ledger.finished
    spec = load_spec("tiny.yaml", runs=str(here / "runs"))
    with Ledger.driven(spec.study_url, spec) as ledger:
        agenda = Agenda(ledger, NullTracker(), parallel=1)
        assert [r.number for r in ledger.unfinished()] == [standing.number]
        assert agenda.next() is Idle.FINISHED, "neither as left behind nor as an orphan, nor waited for"
        assert agenda._standing() == []
    after = run("tiny.yaml", Silent(), runner="inline")
    assert after.records[-1] == standing
    assert (here / "runs/tiny/trials" / f"{grown(after).number:04d}" / "branch").is_dir()


@pytest.mark.slow
def test_a_finished_one_is_said_to_be_and_a_longer_one_goes_on_from_it(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert here.is_dir()
    words = ["promote", "tiny", "--grown", "--runner", "inline", "-q"]
    assert main([*words, "--tokens", "1_024"]) == 0
    capsys.readouterr()
    count = len(find("tiny", runs="runs").records)
    assert main([*words, "--tokens", "1K", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["plan"][0]["trial"] == count - 1, "1,000 tokens are as many batches as 1,024"
    assert len(find("tiny", runs="runs").records) == count
    assert main([*words, "--tokens", "900", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    number = found["promotion"]["trial"]
    assert (found["promotion"]["state"], found["plan"][0]["trial"]) == ("COMPLETE", None), "900 is another"
    assert found["plan"][0]["begins"] not in (None, number, count - 1), "the longer one was before"
    assert main([*words, "--tokens", "1024"]) == 0
    assert "finished before" in capsys.readouterr().out
    assert len(find("tiny", runs="runs").records) == count + 1
    (longest,) = planned(2048).long_runs
    assert longest.promotion.begins == count - 1, "the one with 1,024 tokens"
    assert longest.first_step == 8
    record = promoted(2048)
    shorter = find("tiny", runs="runs").records[count - 1]
    assert all(record.losses[step] == shorter.losses[step] for step in shorter.losses if step <= 8)


def test_a_state_is_no_start_where_the_rate_falls_over_the_whole_run(here: Path) -> None:
    sweep = find("tiny", runs="runs")
    trial = grown(sweep)
    recipe = {**trial.settings["recipe"], "schedule": "cosine"}
    falling = replace(trial, settings={**trial.settings, "recipe": recipe})
    from sweeps.results.promotions import long_run

    records = [falling if each.number == trial.number else each for each in sweep.records]
    found = long_run(Role.PROMOTION, falling, 1024, records, sweep.folders)
    assert (found.promotion.begins, found.first_step) == (None, 0)
    assert "cosine" in found.promotion.why
    assert long_run(Role.PROMOTION, trial, 1024, sweep.records, sweep.folders).first_step > 0
    assert (here / "runs").is_dir()


def test_amounts_of_as_many_batches_are_one_run(here: Path) -> None:
    sweep = find("tiny")
    trial = next(each for each in sweep.records if each.role is Role.BASELINE)
    batch = trial.settings["recipe"]["batch_tokens"]
    assert longer(trial, 20 * batch - 1) == longer(trial, 20 * batch) != longer(trial, 20 * batch + 1)


@pytest.mark.parametrize(
    ("recipe", "steps", "longer_shared"),
    [
        ({"schedule": "constant", "warmup": 0.1}, 100, 1000),
        ({"schedule": "wsd", "warmup": 0.1, "decay": 0.2}, 80, 800),
        ({"schedule": "wsd", "warmup": 0.9, "decay": 0.2}, 90, 800),
        ({"schedule": "linear"}, 0, 0),
        ({"schedule": "cosine"}, 0, 0),
    ],
)
def test_the_rates_of_a_longer_run_are_the_trials_up_to_the_state(
    recipe: dict[str, Any], steps: int, longer_shared: int
) -> None:
    own = Recipe(tokens=6400, batch_tokens=64, **recipe)
    settings = {"recipe": own.to_json(), "injection": {}, "seed": 0}
    record = TrialRecord(0, Role.SEARCH, State.COMPLETE, {}, settings, 0, own.steps)
    long = Recipe(**longer(record, 64_000)["recipe"])
    assert (own.shared_steps, long.shared_steps) == (steps, longer_shared)
    assert long.warmup_steps == own.warmup_steps
    assert [long.rate(step) for step in range(steps)] == [own.rate(step) for step in range(steps)]


@pytest.mark.parametrize(
    ("text", "tokens"),
    [("2B", 2 * 10**9), ("500M", 5 * 10**8), ("1_000_000", 10**6), ("1.5k", 1500), (7, 7), ("2,000", 2000)],
)
def test_tokens_are_read_as_they_are_written(text: int | str, tokens: int) -> None:
    assert tokens_of(text) == tokens


@pytest.mark.parametrize(
    "text", ["", "B", "2Q", "-1", "0", "1.5", "1e9", "0.0001K", "²", "9" * 40, "1.2.3", "B2"]
)
def test_what_is_no_number_of_tokens_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match="tokens: got"):
        tokens_of(text)


@pytest.mark.parametrize(
    ("words", "where", "got"),
    [
        (["--tokens", "256"], "--tokens", "256"),
        (["--tokens", "many"], "--tokens", "'many'"),
        (["--tokens", "9000B"], "--tokens", "9,000,000,000,000"),
        (["--tokens", "1K", "--trial", "77"], "--trial", "77, which is not there"),
        (["--tokens", "1K", "--trial", "0", "--control"], "--control", "the original"),
        (["--tokens", "1K", "--ranks", "3"], "--ranks", "3"),
        (["--tokens", "1K", "--ranks", "0"], "--ranks", "0"),
        (["--tokens", "1K", "--register", ""], "--register", "empty"),
        (["--tokens", "1K", "--out", "tiny.yaml/out"], "--out", "which cannot be written to"),
        (["--tokens", "1K", "--ranks", "2", "--runner", "inline"], "--ranks", "2"),
        (["--tokens", "1K", "--out", "tiny.yaml"], "--out", "something that exists"),
        (["--tokens", "1K", "--register"], "--register", "tracking: null"),
        (["--tokens", "1K", "--register", "a/b", "--tracking", "sqlite"], "--register", "'a/b'"),
    ],
    ids=str,
)
def test_what_cannot_be_promoted_is_refused_and_nothing_is_written(
    here: Path, capsys: pytest.CaptureFixture[str], words: list[str], where: str, got: str
) -> None:
    files = {path: path.stat().st_mtime_ns for path in (here / "runs").rglob("*") if path.is_file()}
    given = words if "--trial" in words else [*words, "--grown"]
    assert main(["promote", "tiny", *given]) == 2
    said = capsys.readouterr().err
    assert f"{where}: got " in said
    assert got in said
    assert "expected" in said
    assert {path: path.stat().st_mtime_ns for path in (here / "runs").rglob("*") if path.is_file()} == files


@pytest.mark.parametrize(
    ("state", "reason", "said"),
    [
        (State.PRUNED, "stopped by asha at step 2", "stopped early: stopped by asha"),
        (State.FAIL, "diverged: no number", "failed: diverged"),
        (State.RUNNING, None, "is not complete"),
        (State.WAITING, None, "was not run yet"),
        (None, None, "was not run here"),
    ],
    ids=str,
)
def test_only_a_complete_trial_of_the_sweep_is_promoted(
    here: Path, monkeypatch: pytest.MonkeyPatch, state: State | None, reason: str | None, said: str
) -> None:
    sweep = find("tiny", runs="runs")
    number = grown(sweep).number
    known = list(sweep.records)
    changed = {"role": Role.OTHER} if state is None else {"state": state, "reason": reason, "value": None}
    known[number] = replace(known[number], **changed)  # type: ignore[arg-type]
    monkeypatch.setattr(Sweep, "records", known)
    with pytest.raises(SpecError, match=f"trial: got {number}, which.*{said}"):
        planned(trial=number)
    assert (here / "runs").is_dir()


def test_a_promotion_of_a_promotion_names_the_trial_to_promote(here: Path) -> None:
    record = promoted()
    with pytest.raises(SpecError, match=rf"itself a promotion of trial \d+.*--trial {record.promotion.of}"):  # type: ignore[union-attr]
        planned(2048, trial=record.number)
    assert here.is_dir()


def test_one_that_diverged_is_not_run_again_and_one_that_failed_otherwise_is(here: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        promoted(watcher=Killed(2))
    sweep = find("tiny", runs="runs")
    standing = sweep.records[-1]
    with Ledger.driven(sweep.spec.study_url, sweep.ledger.spec) as ledger:
        ledger.tell(standing.number, 1, State.FAIL, reason="diverged: held-out loss is nan at step 3")
    with pytest.raises(SpecError, match=r"tokens: got 1,024, with which trial .* diverged"):
        planned()
    assert planned(2048).long_runs[0].record is None
    assert here.is_dir()


# -- killed for real, and registered ---------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(1800)
def test_a_promotion_on_ray_survives_the_death_of_worker_and_driver(here: Path) -> None:
    """SIGKILL, first to a worker, then to the driver; the export of the third start loads."""
    command = [sys.executable, "-m", "sweeps", "promote", "tiny", "--tokens", "300K", "--grown", "-q"]
    trial = grown(find("tiny", runs="runs"))
    number = len(find("tiny", runs="runs").records)
    folder = here / "runs/tiny/trials" / f"{number:04d}"
    with subprocess.Popen(command, start_new_session=True) as driver:
        try:
            until(lambda: (folder / CURVE).is_file() and bool(workers(driver.pid)), driver)
            for process in workers(driver.pid):
                process.kill()
            until(lambda: find("tiny", runs="runs").records[-1].attempt == 2, driver)
            until(lambda: any((folder / "checkpoints").glob("step-*")), driver)
        finally:
            driver.kill()
    standing = find("tiny", runs="runs").records[-1]
    assert standing.state is State.RUNNING
    done = subprocess.run(
        [*command, "--out", "long"], capture_output=True, text=True, timeout=1200, check=False
    )
    assert done.returncode == 0, done.stderr
    record = find("tiny", runs="runs").records[-1]
    assert (record.number, record.state) == (standing.number, State.COMPLETE)
    assert record.attempt > 2
    first = [step for step in trial.losses if step <= Recipe(**trial.settings["recipe"]).shared_steps]
    assert [record.losses[step] for step in first] == [trial.losses[step] for step in first]
    model = AutoModelForCausalLM.from_pretrained(here / "long")
    assert sum(each.numel() for each in model.parameters()) == trial.costs["parameters"]


def until(true: Callable[[], bool], driver: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 240
    while not true():
        assert driver.poll() is None, "it ended"
        assert time.monotonic() < deadline
        time.sleep(0.2)


def workers(driver: int) -> list[psutil.Process]:
    """The processes of a driver's cluster that train."""
    below = psutil.Process(driver).children(recursive=True)
    return [each for each in below if each.name().startswith("ray::ResourceTrainable")]


@pytest.mark.slow
def test_a_registration_that_a_dead_server_did_not_take_is_made_by_sync(
    here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("mlflow")
    from mlflow.tracking import MlflowClient

    (tmp_path / "server").mkdir()
    server = MlflowServer(tmp_path / "server")
    words = [
        "promote",
        "tiny",
        "--grown",
        "--runner",
        "inline",
        "-q",
        "--tokens",
        "512",
        "--register",
        "mine",
    ]
    assert main([*words, "--tracking", server.uri]) == 0
    said = capsys.readouterr().out
    assert "has not registered it as mine yet" in said
    assert "sweeps sync tiny" in said
    server.start()
    try:
        assert main(["sync", "tiny", "--tracking", server.uri, "-q"]) == 0
        client = MlflowClient(server.uri)
        (version,) = client.search_model_versions("name='mine'")
        run = client.get_run(version.run_id)
        assert run.data.tags["sweeps.role"] == "promotion"
        assert version.tags["sweeps.promotes"] == run.data.tags["sweeps.promotes"]
        assert {"config.json", "model.safetensors"} <= {
            Path(each.path).name for each in client.list_artifacts(version.run_id, "model")
        }
        capsys.readouterr()
        assert main([*words, "--tracking", server.uri]) == 0
        assert "registered in MLflow as mine, version 1" in capsys.readouterr().out
        assert len(client.search_model_versions("name='mine'")) == 1
    finally:
        server.close()
