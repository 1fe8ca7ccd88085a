"""The command as people run it: real processes, killed and resumed, looked at from outside, taken home.

Once the sweep stands, what a process of its own would add to a command is loading the libraries anew: it runs in this one.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import optuna
import pytest

from sweeps.__main__ import main
from sweeps.ledger import open_storage
from tests.forked import command, forked
from tli.__main__ import main as tli

pytestmark = pytest.mark.ray

TRIALS = 8


def sweeps(*arguments: object, cwd: Path, timeout: float = 240) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sweeps", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=timeout, check=False)


class Done(NamedTuple):
    """What a command came to."""

    returncode: int
    stdout: str
    stderr: str


Here = Callable[..., Done]


@pytest.fixture
def here(
    killed_and_resumed: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Here:
    """`here("best", "tiny")`: a command of `sweeps` in the folder of the sweep, in this process."""
    monkeypatch.chdir(killed_and_resumed["root"])
    for name in ("SWEEPS_RUNS", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)

    def command(*arguments: object, main: Callable[[list[str]], int] = main) -> Done:
        capsys.readouterr()
        code = main(list(map(str, arguments)))
        return Done(code, *capsys.readouterr())

    return command


def trials(url: str, name: str) -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(study_name=name, storage=open_storage(url)).trials


def ended(url: str, name: str) -> int:
    try:
        return sum(trial.state.is_finished() for trial in trials(url, name))
    except KeyError:
        return 0


@pytest.fixture(scope="module")
def killed_and_resumed(tmp_path_factory: pytest.TempPathFactory, save_model: Any) -> dict[str, Any]:
    """A sweep whose driver got SIGKILL in the middle, run again by the same command, then asked for more."""
    from tests.sweeps.conftest import SPEC

    root = tmp_path_factory.mktemp("killed")
    model = save_model(root / "model", "llama")
    text = root / "text.txt"
    text.write_text("".join(f"{n} bottles of beer on the wall, {n} bottles of beer.\n" for n in range(400)))
    spec = root / "tiny.yaml"
    # Long enough for a kill to meet trials that run.
    given = SPEC.format(
        name="tiny",
        model=model,
        text=text,
        trials=TRIALS,
        study="sqlite",
        runs="runs",
        tracking="{uri: sqlite}",
    ).replace("tokens: 512", "tokens: 4800")
    spec.write_text(given)
    url = f"sqlite:///{root}/runs/study.db"
    log = (root / "first.log").open("w")
    first = subprocess.Popen(
        [sys.executable, "-m", "sweeps", "run", spec.name],
        cwd=root,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    deadline = time.monotonic() + 150
    while not (root / "runs/study.db").exists() or ended(url, "tiny") < 3:
        assert first.poll() is None, (root / "first.log").read_text()
        assert time.monotonic() < deadline, (root / "first.log").read_text()
        time.sleep(0.1)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    at_kill = trials(url, "tiny")
    second = sweeps("run", spec.name, cwd=root)
    return {"root": root, "spec": spec, "url": url, "at_kill": at_kill, "second": second}


def test_kill_and_resume_loses_nothing_and_runs_nothing_twice(killed_and_resumed: dict[str, Any]) -> None:
    second = killed_and_resumed["second"]
    assert second.returncode == 0, second.stderr
    at_kill, after = killed_and_resumed["at_kill"], trials(killed_and_resumed["url"], "tiny")
    running = [t.number for t in at_kill if t.state.name == "RUNNING"]
    assert running, "the kill met no trial that ran"
    assert len(at_kill) < TRIALS, "the kill came too late"
    for trial in at_kill:
        now = after[trial.number]
        assert now.params == trial.params
        assert trial.intermediate_values.items() <= now.intermediate_values.items()
        if trial.state.is_finished():
            assert (now.state, now.value, now.datetime_complete) == (
                trial.state,
                trial.value,
                trial.datetime_complete,
            )
    assert all(trial.state.is_finished() for trial in after)
    roles = Counter(trial.user_attrs["sweeps:role"] for trial in after)
    assert roles["control"] == roles["baseline"] == 1
    assert sum(n for role, n in roles.items() if role != "replicate") == TRIALS
    attempts = {t.number: t.user_attrs["sweeps:attempt"] for t in after}
    assert {number for number, attempt in attempts.items() if attempt == 2} == set(running)
    assert set(attempts.values()) == {1, 2}


def told(trial: Any) -> tuple[str, float | None]:
    """State and value in the sweep's words: to Optuna, controls and replicates are PRUNED and have none."""
    if "sweeps:value" in trial.user_attrs:
        assert (trial.state.name, trial.value) == ("PRUNED", None)
        return "COMPLETE", trial.user_attrs["sweeps:value"]
    return trial.state.name, trial.value


def test_mlflow_has_one_run_per_trial_and_each_point_once(killed_and_resumed: dict[str, Any]) -> None:
    import mlflow

    root, after = killed_and_resumed["root"], trials(killed_and_resumed["url"], "tiny")
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{root}/runs/mlflow.db")
    experiment = client.get_experiment_by_name("tiny")
    runs = client.search_runs([experiment.experiment_id])
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert len(parents) == 1
    children = {run.data.tags["sweeps.trial"]: run for run in runs if run is not parents[0]}
    assert len(children) == len(runs) - 1 == len(after)
    for trial in after:
        run = children[f"tiny/{trial.number}"]
        assert run.data.tags["mlflow.parentRunId"] == parents[0].info.run_id
        state, value = told(trial)
        assert run.data.tags["sweeps.state"] == state
        history = client.get_metric_history(run.info.run_id, "eval_loss")
        assert {point.step: point.value for point in history} == trial.intermediate_values
        assert len(history) == len(trial.intermediate_values)
        steps = [point.step for point in client.get_metric_history(run.info.run_id, "train_loss")]
        assert sorted(steps) == list(range(1, max(trial.intermediate_values) + 1))
        if state == "COMPLETE":
            assert run.data.metrics["objective"] == value
    best = parents[0].data.tags["sweeps.best"]
    assert children[f"tiny/{best}"].data.tags["sweeps.rank"] == "1"


def test_export_round_trip(killed_and_resumed: dict[str, Any], here: Here) -> None:
    """Plain transformers gives the loss that the ledger holds."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from tli.data.batches import open_tokens
    from tli.data.settings import DataSettings
    from tli.models.base import find
    from tli.training.evaluate import evaluate

    root = killed_and_resumed["root"]
    done = here("export", "tiny", "--out", "best/", "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    recorded = trials(killed_and_resumed["url"], "tiny")[answer["trial"]]
    model = AutoModelForCausalLM.from_pretrained(root / "best")
    assert model.dtype == torch.float32
    data = DataSettings(
        source=str(root / "text.txt"), heldout_fraction=0.2, sequence_length=16, eval_tokens=64
    )
    tokens = open_tokens(data, find(str(root / "model")), root / "cache")
    loss = evaluate(model, tokens.heldout_windows(sequence_length=16, eval_tokens=64)).loss
    assert loss == pytest.approx(recorded.value, rel=1e-6)
    assert answer["heldout_loss"] == recorded.value
    tokenizer = AutoTokenizer.from_pretrained(root / "best")
    prompt = tokenizer("7 bottles", return_tensors="pt")
    assert model.generate(**prompt, max_new_tokens=4, do_sample=False).shape[1] > prompt["input_ids"].shape[1]
    lineage = json.loads((root / "best" / "lineage.json").read_text())
    assert lineage["trial"] == answer["trial"]
    again = here("export", "tiny", "--out", "best/")
    assert again.returncode == 2
    assert again.stderr == (
        "error: best: got something that exists; expected a folder to be made; "
        "try another name, or removing it\n"
    )
    proven = here("verify", "best", main=tli)
    assert proven.returncode == 0, proven.stdout + proven.stderr


def test_looking_at_a_sweep(killed_and_resumed: dict[str, Any], here: Here) -> None:
    after = trials(killed_and_resumed["url"], "tiny")
    status = json.loads(here("status", "tiny", "--json").stdout)
    assert status["finished"] is True
    assert [t["state"] for t in status["trials"]] == [told(t)[0] for t in after]
    best = json.loads(here("best", "tiny", "--json").stdout)
    assert after[best["best"]].state.name == "COMPLETE"
    assert best["control"]["trial"] == 0
    shown = here("best", "tiny")
    assert shown.stdout.startswith("tiny: ")
    assert " ".join(shown.stdout.split()).startswith(f"tiny: {best['sentence']}")
    plan = json.loads(here("plan", "tiny.yaml", "--json", "--calibrate").stdout)
    assert plan["flops_per_second"] > 0
    assert [shape["cost"]["depth"] for shape in plan["shapes"]] == [4, 8, 6, 5]
    healthy = here("doctor", "--json")
    assert {finding["name"] for finding in json.loads(healthy.stdout)["findings"]} >= {
        "python",
        "study",
        "disk",
    }


def test_one_trial_again_for_a_debugger_gives_the_same_losses(
    killed_and_resumed: dict[str, Any], here: Here
) -> None:
    after = trials(killed_and_resumed["url"], "tiny")
    done = here("trial", "tiny.yaml", 1, "--out", "again", "--json")
    assert done.returncode == 0, done.stderr
    points = [json.loads(line) for line in done.stdout.splitlines()]
    assert {point["step"]: point["eval_loss"] for point in points} == after[1].intermediate_values
    assert trials(killed_and_resumed["url"], "tiny")[1].datetime_complete == after[1].datetime_complete


def test_what_is_enqueued_outside_is_run_by_a_resume(killed_and_resumed: dict[str, Any], here: Here) -> None:
    url = killed_and_resumed["url"]
    before = len(trials(url, "tiny"))
    study = optuna.load_study(study_name="tiny", storage=open_storage(url))
    wanted = {"injection.k": 2, "injection.init": "identity", "recipe.learning_rate": 0.0042}
    study.enqueue_trial(wanted)
    done = here("resume", "tiny", "--runner", "inline")
    assert done.returncode == 0, done.stderr
    trial = trials(url, "tiny")[before]
    assert trial.params == wanted
    assert trial.state.name in ("COMPLETE", "PRUNED")
    assert trial.system_attrs["sweeps:settings"]["recipe"]["learning_rate"] == 0.0042


def test_two_sweeps_share_a_database_and_a_driver_is_alone(
    killed_and_resumed: dict[str, Any], here: Here
) -> None:
    """A second sweep beside the first, both at once; each study has its own trials, MLflow its own experiments."""
    root, url = killed_and_resumed["root"], killed_and_resumed["url"]
    before = [(t.number, t.state, t.value) for t in trials(url, "tiny")]
    other = killed_and_resumed["spec"].read_text().replace("name: tiny", "name: other").replace("4800", "512")
    (root / "other.yaml").write_text(other)
    words = ("sweeps", "run", "other.yaml", "--runner", "inline")
    with contextlib.ExitStack() as stack:
        both = [stack.enter_context(forked(command, *words, folder=root)) for _ in range(2)]
        outputs = [process.communicate(timeout=200) for process in both]
    codes = sorted(process.returncode for process in both)
    assert codes == [0, 1], outputs
    refused = next(o[1] for p, o in zip(both, outputs, strict=True) if p.returncode == 1)
    assert refused.startswith("error: other is being driven by process ")
    assert "Traceback" not in refused
    assert [(t.number, t.state, t.value) for t in trials(url, "tiny")] == before
    roles = Counter(t.user_attrs["sweeps:role"] for t in trials(url, "other"))
    assert sum(n for role, n in roles.items() if role != "replicate") == TRIALS
    listed = here("list", "--json")
    assert {row["sweep"] for row in json.loads(listed.stdout)["sweeps"]} == {"tiny", "other"}


def test_a_changed_spec_is_refused_with_the_difference(
    killed_and_resumed: dict[str, Any], here: Here
) -> None:
    url = killed_and_resumed["url"]
    before = [(t.number, t.state) for t in trials(url, "tiny")]
    done = here("run", "tiny.yaml", "--set", "trial.recipe.learning_rate=2e-3")
    assert done.returncode == 2
    assert "trial.recipe.learning_rate: 0.001 -> 0.002" in done.stderr
    assert "Traceback" not in done.stderr
    assert [(t.number, t.state) for t in trials(url, "tiny")] == before
