"""A trial over several ranks: what is refused, what fits, and that a sweep over ranks is the sweep of one process."""

from __future__ import annotations

import os
import signal
import statistics
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from sweeps.checks import machine
from sweeps.checks.placement import Node, fitting
from sweeps.driver.service import run
from sweeps.errors import SpecError
from sweeps.records import Cause, Outcome, State
from sweeps.spec import load_spec
from sweeps.worker.ranks import Ending, is_broken, joint_ending
from tests.bench.processes import descendants
from tests.sweeps.conftest import WriteSpec

BROKEN = Ending(Outcome(State.FAIL, "Connection closed by peer", Cause.ERROR), broken=True)
LOST = Ending(Outcome(State.FAIL, "rank 1 of 2 died", Cause.LOST))
NO_MEMORY = Ending(Outcome(State.FAIL, "out of memory", Cause.OUT_OF_MEMORY))


@pytest.mark.parametrize(
    ("overrides", "where", "remedy"),
    [
        ({"resources.workers": 3}, "trial.recipe.batch_tokens", "96"),
        ({"resources.workers": 2, "resources.gpus": 0.5}, "resources.gpus", "1"),
        ({"resources.gpus": 4}, "resources.gpus", "1, with resources.workers: 4"),
        ({"resources.workers": 0}, "resources.workers", "1"),
    ],
    ids=str,
)
def test_what_ranks_cannot_do_is_refused(
    write_spec: WriteSpec, overrides: dict[str, Any], where: str, remedy: str
) -> None:
    with pytest.raises(SpecError) as refused:
        load_spec(str(write_spec()), overrides=overrides)
    found = {
        problem.where.rpartition(" ")[2].partition("=")[0]: problem for problem in refused.value.problems
    }
    assert remedy in {problem.remedy for problem in refused.value.problems}, refused.value.problems
    assert any(where in place for place in found), found


def test_ranks_that_this_machine_does_not_hold_are_refused(
    write_spec: WriteSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sweeps.checks.preflight import check

    monkeypatch.setattr(machine, "cores", lambda: 3)
    spec = load_spec(str(write_spec()), overrides={"resources.workers": 4, "resources.cpus": 1})
    with pytest.raises(SpecError) as refused:
        check(spec)
    (problem,) = refused.value.problems
    assert "resources.workers" in problem.where
    assert (problem.got, problem.remedy) == ("4", "3")


def test_gpus_that_ranks_could_not_use_are_refused(
    write_spec: WriteSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine shows GPUs, and torch has none of them, or no NCCL."""
    import torch

    from sweeps.checks.preflight import check

    if torch.cuda.is_available():
        pytest.skip("there are GPUs")
    monkeypatch.setattr(machine, "gpus", lambda: 2)
    spec = load_spec(str(write_spec()), overrides={"resources.workers": 2, "resources.gpus": 1})
    with pytest.raises(SpecError) as refused:
        check(spec)
    assert [problem.remedy for problem in refused.value.problems] == ["0, or resources.workers: 1"]


@pytest.mark.parametrize(
    ("nodes", "cpus", "gpus", "workers", "count"),
    [
        ([(2, 0)], 1, 0, 2, 1),
        ([(1, 0), (1, 0)], 1, 0, 2, 1),  # one rank on each of two nodes
        ([(3, 0), (3, 0)], 1, 0, 2, 3),
        ([(8, 8)], 1, 1, 4, 2),
        ([(8, 4), (8, 4)], 1, 1, 8, 1),
        ([(1, 0), (1, 0)], 2, 0, 2, 0),
    ],
)
def test_ranks_are_placed_on_one_node_or_several(
    nodes: list[tuple[int, int]], cpus: int, gpus: int, workers: int, count: int
) -> None:
    assert fitting([Node(*each) for each in nodes], cpus, gpus, workers) == count


@pytest.mark.parametrize(
    ("own", "other", "cause"),
    [
        (NO_MEMORY, BROKEN, Cause.OUT_OF_MEMORY),  # its own fault, whatever the others saw of it
        (BROKEN, NO_MEMORY, Cause.OUT_OF_MEMORY),  # a peer's alone
        (BROKEN, LOST, Cause.LOST),
        (BROKEN, BROKEN, Cause.ERROR),
        (BROKEN, None, Cause.ERROR),
    ],
)
def test_a_trial_ends_by_the_fault_that_came_first(own: Ending, other: Ending | None, cause: Cause) -> None:
    assert joint_ending(own, lambda _seconds: other, 0.0).cause is cause


def test_what_gloo_says_of_a_rank_that_is_gone_is_known() -> None:
    said = "[../third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:4711"
    assert is_broken(RuntimeError(said))
    assert not is_broken(ValueError(said))
    assert not is_broken(RuntimeError("shapes do not match"))


SMALL = {"budget.trials": 3, "sampler.name": "random", "stopping.rule": "none", "resources.parallel": 1}


@pytest.mark.ranks
@pytest.mark.ray
@pytest.mark.timeout(1200)
def test_a_sweep_over_two_ranks_is_that_of_one_process(write_spec: WriteSpec, silent: Any) -> None:
    given = load_spec(str(write_spec("alone")), overrides=SMALL)
    alone = run(given, silent, runner="inline")
    wanted = load_spec(str(write_spec("both")), overrides={**SMALL, "resources.workers": 2})
    both = run(wanted, silent, runner="ray")
    assert len(both.records) == 5  # the control, the baseline, a searched one; two under a fresh seed
    for one, other in zip(alone.records, both.records, strict=True):
        assert (other.role, other.settings, other.state) == (one.role, one.settings, one.state)
        assert other.losses.keys() == one.losses.keys()
        assert list(other.losses.values()) == pytest.approx(list(one.losses.values()), abs=1e-5)
        assert other.test_losses == pytest.approx(one.test_losses, abs=1e-5)
    assert [record.retries for record in both.records] == [{}] * len(both.records)
    assert ranks() == []


@pytest.mark.ranks
@pytest.mark.ray
@pytest.mark.timeout(1200)
def test_a_rank_that_is_killed_costs_no_trial(
    write_spec: WriteSpec, silent: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGKILL of rank 1, and of rank 0, in the middle: the trial goes on, under the name of its cause."""
    killed: list[int] = []

    def update(records: Any, phase: str) -> None:
        running = [record for record in records if not record.state.finished]
        if running and running[0].number >= len(killed) and len(killed) < 2 and running[0].step > 0:
            (pid,) = ranks() if not killed else workers()
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)

    changes = {"tokens: 512": "tokens: 6400"}
    alone = run(
        load_spec(str(write_spec("alone", replace=changes)), overrides=SMALL), silent, runner="inline"
    )
    monkeypatch.setattr(silent, "update", update)
    spec = load_spec(str(write_spec(replace=changes)), overrides={**SMALL, "resources.workers": 2})
    both = run(spec, silent, runner="ray")
    assert len(killed) == 2
    assert [record.retries.get(Cause.LOST) for record in both.records[:2]] == [1, 1]
    for one, other in zip(alone.records, both.records, strict=True):
        assert list(other.losses.values()) == pytest.approx(list(one.losses.values()), abs=1e-5)
    assert ranks() == workers() == []


@pytest.mark.ranks
@pytest.mark.ray
@pytest.mark.timeout(1200)
def test_ranks_stay_warm_from_trial_to_trial(write_spec: WriteSpec, silent: Any) -> None:
    """The same processes for all trials: the second trial begins where the first had to load libraries."""
    import optuna

    wanted = load_spec(str(write_spec()), overrides={**SMALL, "budget.trials": 6, "resources.workers": 2})
    sweep = run(wanted, silent, runner="ray")
    study = optuna.load_study(study_name="tiny", storage=wanted.study_url)
    times = sorted((trial.datetime_start, trial.datetime_complete) for trial in study.trials)
    gaps = [(begun - ended).total_seconds() for (_, ended), (begun, _) in pairwise(times)]
    assert len(sweep.records) == len(gaps) + 1
    assert statistics.median(gaps) < 2.0, gaps


def ranks() -> list[int]:
    """Processes below this one that are a rank beside rank 0."""
    return _named(b"ray::Peer")


def workers() -> list[int]:
    """Processes below this one that are rank 0 of a trial."""
    return _named(b"ray::ResourceTrainable")


def _named(start: bytes) -> list[int]:
    return [pid for pid in descendants(os.getpid()) if _words(pid).startswith(start)]


def _words(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
