"""A sweep as a job of a real cluster: a head and a worker node, token authentication, the jobs server."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest

from sweeps.ledger import open_storage
from tests.servers import ROOT, LocalCluster

pytestmark = pytest.mark.ray

RAY = str(Path(sys.executable).with_name("ray"))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    cluster = LocalCluster(tmp_path_factory.mktemp("runs"))
    yield cluster
    cluster.close()


@pytest.fixture
def shell(cluster: LocalCluster) -> dict[str, str]:
    """The environment of a shell that talks to it."""
    return {**os.environ, **cluster.environment}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a user submits from: this project, as git has it."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("tli", "sweeps", "pyproject.toml"):
        source = ROOT / name
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(source, folder / name, ignore=ignore) if source.is_dir() else shutil.copy(
            source, folder
        )
    return folder


def test_ray_job_submit(cluster: LocalCluster, shell: dict[str, str], checkout: Path) -> None:
    """The plain command of Ray, word for word; the results are read from the study and from MLflow."""
    import mlflow

    job = "python -m sweeps run quickstart-small"
    done = subprocess.run(
        [RAY, "job", "submit", "--submission-id", "plain", "--working-dir", ".", "--", *job.split()],
        cwd=checkout,
        env=shell,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Job 'plain' succeeded" in done.stdout
    assert "sweeps export quickstart-small --out best/" in done.stdout
    runs = cluster.runs
    study = optuna.load_study(
        study_name="quickstart-small", storage=open_storage(f"sqlite:///{runs}/study.db")
    )
    roles = [trial.user_attrs["sweeps:role"] for trial in study.trials]
    assert roles.count("control") == roles.count("baseline") == 1
    assert sum(role not in ("replicate", "matched control") for role in roles) == 6
    assert all(trial.state.is_finished() for trial in study.trials)
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{runs}/mlflow.db")
    experiment = client.get_experiment_by_name("quickstart-small")
    assert len(client.search_runs([experiment.experiment_id])) == len(study.trials) + 1
    assert (runs / "quickstart-small" / "trials" / "0000" / "final-1" / "model.safetensors").is_file()


def test_the_token_is_in_a_folder_of_ours_alone(shell: dict[str, str]) -> None:
    token = Path(shell["RAY_AUTH_TOKEN_PATH"])
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert stat.S_IMODE(token.parent.stat().st_mode) == 0o700


def test_without_the_token_nothing_is_taken(
    cluster: LocalCluster, shell: dict[str, str], checkout: Path
) -> None:
    environment = {k: v for k, v in shell.items() if not k.startswith("RAY_AUTH")}
    done = subprocess.run(
        [sys.executable, "-m", "sweeps", "submit", "quickstart-small", "--address", cluster.address],
        cwd=checkout,
        env={**environment, "RAY_AUTH_MODE": "disabled", "HOME": str(checkout)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "token" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow  # a kind of the fault suite, too: many-submissions
def test_sweeps_submit_is_one_job_however_often(
    cluster: LocalCluster, shell: dict[str, str], checkout: Path
) -> None:
    """A finished sweep submitted three times at once: one job, which finds nothing left to do."""
    command = [sys.executable, "-m", "sweeps", "submit", "quickstart-small", "--runs", str(cluster.runs)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    together = [subprocess.Popen(command, cwd=checkout, env=shell, **pipes) for _ in range(3)]
    outputs = [process.communicate(timeout=200)[0] for process in together]
    assert [process.returncode for process in together] == [0, 0, 0], outputs
    assert sum("sweep-quickstart-small: submitted" in output for output in outputs) == 1, outputs
    assert all("Best: trial" in output for output in outputs)
