"""A trial over several ranks: what is refused, what fits, and that a sweep over ranks is the sweep of one process."""

from __future__ import annotations

import json
import os
import signal
import statistics
import time
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from sweeps.checks import machine
from sweeps.checks.placement import Node, fitting, placement_problem
from sweeps.checks.recipe import recipe_problems
from sweeps.driver.on_ray.peers import assignment_from
from sweeps.driver.on_ray.tuner import start_cluster, stop_cluster
from sweeps.driver.service import run
from sweeps.errors import SpecError
from sweeps.folders import Folders
from sweeps.records import Cause, Outcome, State
from sweeps.report.status import status_text
from sweeps.spec import Spec, load_spec
from sweeps.worker.endings import leave_ending, left_ending
from sweeps.worker.ranks import Ending, is_broken, joint_ending
from sweeps.worker.trial import cached_context, for_workers, run_trial
from tests.bench.processes import descendants
from tests.sweeps.conftest import WriteSpec, agenda_of, taken
from tests.tli.test_sharded import tensors
from tli.architectures.table import FAMILIES
from tli.models.base import find
from tli.training.state_names import name_of

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


def test_layers_that_share_weights_are_refused(
    write_spec: WriteSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As zamba's, of which a trial would fail."""
    base = find(load_spec(str(write_spec())).base.model)
    shares = replace(FAMILIES["llama"], shared_kinds=("hybrid",))
    monkeypatch.setitem(FAMILIES, base.facts.model_type, shares)
    spec = load_spec(str(write_spec()), overrides={"resources.workers": 2})
    (problem,) = recipe_problems(spec, base)
    assert "resources.workers" in problem.where
    assert ("hybrid" in problem.got, problem.remedy) == (True, "1")
    assert list(recipe_problems(load_spec(str(write_spec())), base)) == []


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
    ("nodes", "resources", "got", "remedy"),
    [
        (2, {"workers": 3, "cpus": 1}, "1 CPU and 0 GPUs for each of 3 ranks", "resources.workers: 2"),
        (2, {"workers": 2, "cpus": 2}, "2 CPUs and 0 GPUs for each of 2 ranks", "smaller trials"),
        (2, {"workers": 1, "cpus": 2}, "2 CPUs and 0 GPUs for one trial", "smaller trials"),
        (2, {"workers": 2, "cpus": 1}, None, None),
    ],
    ids=str,
)
def test_a_group_that_no_set_of_nodes_could_hold_is_refused(
    write_spec: WriteSpec, nodes: int, resources: dict[str, int], got: str | None, remedy: str | None
) -> None:
    """Nodes of one CPU each: more ranks than there are CPUs, or ranks that are larger than a node."""
    overrides = {f"resources.{name}": value for name, value in resources.items()}
    overrides["trial.recipe.batch_tokens"] = 96
    spec = load_spec(str(write_spec()), overrides=overrides)
    problem = placement_problem(spec, [Node(1, 0)] * nodes)
    assert (problem and problem.got, problem and problem.remedy) == (got, remedy)
    if problem is not None:
        assert "1 CPU and 0 GPUs, 1 CPU and 0 GPUs" in problem.expected


def test_what_a_trial_waits_for_is_said_while_it_waits(write_spec: WriteSpec) -> None:
    spec = load_spec(str(write_spec()))
    agenda = agenda_of(spec)
    first = taken(agenda)
    why = "resources: 4 bundles of 1 GPU asked, 2 free"
    agenda.waits(first.number, first.attempt, why)
    assert [record.waits for record in agenda.records()] == [why]
    assert f"waits for {why}" in status_text(agenda.records(), driven=True)
    assert "waits for" not in status_text(agenda.records(), driven=False)
    agenda.waits(first.number, first.attempt, None)
    assert [record.waits for record in agenda.records()] == [None]
    agenda.finish(first.number, first.attempt, Outcome(State.FAIL, "no such", Cause.REFUSED))
    agenda.waits(first.number, first.attempt, why)  # a word that comes late
    assert [record.waits for record in agenda.records()] == [None]


def test_how_an_attempt_ended_is_read_from_disk_for_that_attempt_alone(
    write_spec: WriteSpec, tmp_path: Path
) -> None:
    spec = load_spec(str(write_spec()))
    folders, attempt = Folders(spec.root, spec.name), taken(agenda_of(spec))
    died = Outcome(State.FAIL, "rank 1 of 2 died", Cause.LOST)
    assert left_ending(folders, attempt) is None
    assert leave_ending(folders, attempt, died)
    assert left_ending(folders, attempt) == died
    assert left_ending(folders, replace(attempt, token="another")) is None
    place = folders.ending(attempt.number, attempt.attempt)
    for damaged in ("", "[]", "{}", '{"token": 1}', place.read_text().replace('"FAIL"', '"COMPLETE"')):
        place.write_text(damaged)
        assert left_ending(folders, attempt) is None
    place.unlink()
    place.symlink_to(tmp_path / "elsewhere")
    assert leave_ending(folders, attempt, died)
    assert not (tmp_path / "elsewhere").exists()
    folders.drop_checkpoints(attempt.number)
    assert not place.exists()


def test_a_state_that_cannot_be_taken_up_is_said(write_spec: WriteSpec, silent: Any) -> None:
    """Of the one that is there a byte is another: the trial begins afresh, and the user knows."""
    spec = load_spec(str(write_spec()))
    agenda = agenda_of(spec, on_note=silent.note)
    first = taken(agenda)
    folders = Folders(spec.root, spec.name)
    states = folders.make(folders.checkpoints(first.number))
    (states / f"{name_of(3, first.owner, 'f' * 64)}.safetensors").write_bytes(b"\0" * 64)
    for points in run_trial(
        cached_context(json.dumps(for_workers(spec).to_json())),
        first,
        folders,
        on_note=lambda text: agenda.note(first.number, text),
    ):
        assert points[0].step == 0, "it begins afresh"
        break
    (said,) = silent.notes
    assert said.startswith(f"trial {first.number} begins afresh")
    assert "step-00000003" in said


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


# Seconds from SIGKILL until the driver has taken the trial back, and until its next attempt has measured something:
# new processes load their libraries in between, and the machine may be busy.
NOTICED, WENT_ON = 15.0, 120.0
SMALL = {"budget.trials": 3, "sampler.name": "random", "stopping.rule": "none", "resources.parallel": 1}


@pytest.mark.ranks
@pytest.mark.ray
@pytest.mark.timeout(1200)
def test_a_sweep_over_two_ranks_is_that_of_one_process(
    write_spec: WriteSpec, silent: Any, tmp_path: Path
) -> None:
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
    assert both.export(tmp_path / "both") == alone.export(tmp_path / "alone")
    _same_model(tmp_path / "both", tmp_path / "alone")


@pytest.mark.ranks
@pytest.mark.ray
@pytest.mark.timeout(1200)
def test_a_rank_that_is_killed_costs_no_trial(
    write_spec: WriteSpec, silent: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGKILL of rank 1, and of rank 0, in the middle: the trial goes on, under its cause, and it is told."""
    killed: list[tuple[int, float]] = []  # trial, when
    noticed: dict[int, float] = {}
    went_on: dict[int, float] = {}

    def update(records: Any, phase: str) -> None:
        now = time.monotonic()
        for number, since in killed:
            record = records[number]
            if record.retries:
                noticed.setdefault(number, now - since)
            if record.attempt == 2 and record.step > record.retries["at"]:
                went_on.setdefault(number, now - since)
        running = [record for record in records if not record.state.finished]
        if running and running[0].number >= len(killed) and len(killed) < 2 and running[0].step > 0:
            there = ranks() if not killed else workers()
            if len(there) == 1:  # while Ray gives a process another title it has none
                os.kill(there[0], signal.SIGKILL)
                killed.append((running[0].number, now))

    changes = {"tokens: 512": "tokens: 6400"}
    alone = run(
        load_spec(str(write_spec("alone", replace=changes)), overrides=SMALL), silent, runner="inline"
    )
    monkeypatch.setattr(silent, "update", update)
    spec = load_spec(str(write_spec(replace=changes)), overrides={**SMALL, "resources.workers": 2})
    both = run(spec, silent, runner="ray")
    assert len(killed) == 2
    told = [note for note in silent.notes if "runs again" in note]
    assert told == ["trial 0 runs again: rank 1 of 2 died", "trial 1 runs again: its worker died"]
    print(f"noticed after {noticed}, went on after {went_on} s")
    assert max(noticed.values()) < NOTICED, noticed
    assert went_on.keys() == noticed.keys() == {0, 1}
    assert max(went_on.values()) < WENT_ON, went_on
    assert [record.retries.get(Cause.LOST) for record in both.records[:2]] == [1, 1]
    for one, other in zip(alone.records, both.records, strict=True):
        assert list(other.losses.values()) == pytest.approx(list(one.losses.values()), abs=1e-5)
    assert ranks() == workers() == []


@pytest.mark.ranks
@pytest.mark.ray
def test_rank_0_that_notices_nothing_ends_at_once_with_the_rank_that_died(
    write_spec: WriteSpec, tmp_path: Path
) -> None:
    """As over NCCL, where a sum waits for ever: rank 0 sleeps while the other one begins its part, and is killed."""
    import ray
    from ray.exceptions import RayActorError
    from ray.util import placement_group
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    spec = for_workers(load_spec(str(write_spec()), overrides={"resources.workers": 2}))
    folders, attempt = Folders(spec.root, spec.name), taken(agenda_of(spec))
    start_cluster(spec, None)
    try:
        bundles = placement_group([{"CPU": 1}] * 2)
        strategy = PlacementGroupSchedulingStrategy(bundles, placement_group_bundle_index=0)
        lead = ray.remote(Lead).options(num_cpus=1, scheduling_strategy=strategy)
        rank0 = lead.remote(json.dumps(spec.to_json()), asdict(attempt))
        (pid,) = ray.get(rank0.begin.remote(), timeout=240)
        asleep = rank0.sleep.remote()
        began = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(RayActorError):
            ray.get(asleep, timeout=60)
        assert time.monotonic() - began < NOTICED
    finally:
        stop_cluster()
    assert left_ending(folders, attempt) == Outcome(State.FAIL, "rank 1 of 2 died", Cause.LOST)
    assert ranks() == []


class Lead:
    """Rank 0, which does not train."""

    def __init__(self, spec: str, given: dict[str, Any]) -> None:
        from sweeps.driver.on_ray.peers import Peers

        self._attempt, self._text = assignment_from(given), spec
        read = Spec.from_json(json.loads(spec))
        folders = Folders(read.root, read.name)
        self._peers = Peers(read, lambda outcome: leave_ending(folders, self._attempt, outcome))

    def begin(self) -> list[int]:
        self._peers.begin(self._text, self._attempt)
        return self._peers.processes

    def sleep(self) -> None:
        time.sleep(600)


@pytest.mark.ranks
@pytest.mark.ray
@pytest.mark.timeout(1200)
def test_a_group_that_has_to_wait_says_so_until_it_runs(
    write_spec: WriteSpec, silent: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of the two CPUs of a cluster is another program's, until the trial has said what it waits for."""
    import ray
    from ray.cluster_utils import Cluster

    said: list[str | None] = []

    def update(records: Any, phase: str) -> None:
        waits = records[0].waits
        if said[-1:] != [waits]:
            said.append(waits)
            if waits is not None:
                ray.kill(ray.get_actor("holding", namespace="another"))

    monkeypatch.setattr(silent, "update", update)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    try:
        ray.init(address=cluster.address, namespace="another", logging_level="ERROR", log_to_driver=False)
        holding = ray.remote(Holding).options(num_cpus=1, name="holding", lifetime="detached").remote()
        ray.get(holding.there.remote())
        ray.shutdown()
        spec = load_spec(str(write_spec()), overrides={**SMALL, "resources.workers": 2})
        sweep = run(spec, silent, runner="ray", address=cluster.address)
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert said == [None, "resources: 2 bundles of 1 CPU asked, 1 free", None]
    assert {record.state for record in sweep.records} == {State.COMPLETE}


class Holding:
    """Has a CPU."""

    def there(self) -> None:
        """It has."""


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


def _same_model(one: Path, other: Path) -> None:
    """The same files, and the same tensors but for what sums over ranks round otherwise."""
    names = {path.name for path in one.iterdir()}
    assert names == {path.name for path in other.iterdir()}
    for name in names - {"lineage.json", "README.md"}:  # which name the sweep
        if not name.endswith(".safetensors"):
            assert (one / name).read_bytes() == (other / name).read_bytes(), name
    first, second = tensors(one), tensors(other)
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert tensor.dtype == second[name].dtype, name
        assert tensor.sub(second[name]).abs().max() < 1e-4, name


def ranks() -> list[int]:
    """Processes below this one that are a rank beside rank 0."""
    return _named(b"ray::Peer")


def workers() -> list[int]:
    """Processes below this one that are rank 0 of a trial."""
    return _named(b"ray::ResourceTrainable", b"ray::SlotTrainable")  # in a call of Tune's, and between two


def _named(*starts: bytes) -> list[int]:
    return [pid for pid in descendants(os.getpid()) if _words(pid).startswith(starts)]


def _words(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
