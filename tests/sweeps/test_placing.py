"""How many trials fit at once: what Ray really places, one node after the other."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeps.checks import machine
from sweeps.checks.placement import Node, fitting, on_one_gpu, slots, this_machine
from sweeps.errors import SpecError
from sweeps.spec import Spec, load_spec

WriteSpec = Callable[..., Path]
# Nodes as (CPUs, GPUs), CPUs and GPUs of a trial, and how many fit.
CASES = [
    ([(6, 1)], 1, 0.2, 5),
    ([(11, 1)], 1, 0.1, 10),
    ([(15, 4)], 1, 0.3, 12),
    ([(3, 0)] * 3, 2, 0, 3),
    ([(2, 1), (2, 0)], 2, 0.5, 1),
    ([(4, 1)], 1, 1 / 3, 3),
    ([(4, 2)], 1, 1, 2),
    ([(1, 0), (1, 8)], 2, 0, 0),
]


@pytest.mark.parametrize(("nodes", "cpus", "gpus", "count"), CASES)
def test_what_fits(nodes: list[tuple[int, int]], cpus: int, gpus: float, count: int) -> None:
    assert fitting([Node(*each) for each in nodes], cpus, gpus) == count


@given(
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 3)), max_size=4),
    st.integers(1, 5),
    st.integers(0, 10_000),
)
def test_as_many_as_can_be_put_one_by_one(nodes: list[tuple[int, int]], cpus: int, units: int) -> None:
    """Against placing them: every trial takes the first node with CPUs enough and one GPU with room."""
    placed = 0
    for have, gpus in nodes:
        free, left = have, [10_000] * gpus
        while free >= cpus and placed < 10_000:
            if units:
                device = next((index for index, room in enumerate(left) if room >= units), None)
                if device is None:
                    break
                left[device] -= units
            free -= cpus
            placed += 1
    assert fitting([Node(*each) for each in nodes], cpus, units / 10_000) == placed


@given(st.integers(1, 10_000))
def test_of_one_gpu_no_more_is_taken_than_there_is(units: int) -> None:
    share = units / 10_000
    count = on_one_gpu(share)
    assert count * units <= 10_000 < (count + 1) * units


def test_slots_are_what_fits_and_is_allowed(write_spec: WriteSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "cores", lambda: 8)
    monkeypatch.setattr(machine, "gpus", lambda: 2)
    for resources, expected in (
        ("{cpus: 1, parallel: null}", 8),
        ("{cpus: 3, parallel: null}", 2),
        ("{cpus: 1, parallel: 3}", 3),
        ("{cpus: 1, gpus: 1, parallel: null}", 2),
        ("{cpus: 1, gpus: 0.3, parallel: null}", 6),
        ("{cpus: 16, parallel: null}", 1),
    ):
        assert slots(on(write_spec, f"resources={resources}"), [this_machine()]) == expected, resources


@pytest.mark.parametrize("gpus", ["2", "1.5", "0.00004"])
def test_gpus_that_a_trial_would_not_use_are_refused(write_spec: WriteSpec, gpus: str) -> None:
    with pytest.raises(SpecError) as caught:
        on(write_spec, f"resources.gpus={gpus}")
    (problem,) = caught.value.problems
    assert "resources.gpus" in problem.where
    assert problem.remedy.partition(",")[0] in ("1", "0.1")
    assert re.search("one GPU|share of a GPU", problem.expected)


@pytest.mark.parametrize("gpus", ["0", "0.0001", "0.3", "1", "1.0"])
def test_shares_of_one_gpu_are_taken(write_spec: WriteSpec, gpus: str) -> None:
    assert on(write_spec, f"resources.gpus={gpus}").resources.gpus == float(gpus)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize(("nodes", "cpus", "gpus", "count"), CASES[:6])
def test_ray_places_as_many(nodes: list[tuple[int, int]], cpus: int, gpus: float, count: int) -> None:
    """On a cluster of several nodes on this machine, with CPUs and GPUs that are only said to be there."""
    import ray
    from ray.cluster_utils import Cluster
    from ray.util import placement_group

    from sweeps.driver.on_ray.cluster_nodes import nodes as alive

    cluster = Cluster()
    try:
        for number, (have, devices) in enumerate(nodes):
            cluster.add_node(
                num_cpus=have, num_gpus=devices, object_store_memory=80 * 2**20, node_name=str(number)
            )
        ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False)
        groups = []
        while len(groups) <= count and (group := placement_group([{"CPU": cpus, "GPU": gpus}])).wait(3):
            groups.append(group)
        assert len(groups) == count == fitting(alive(), cpus, gpus)
    finally:
        ray.shutdown()
        cluster.shutdown()


def on(write_spec: WriteSpec, *overrides: str) -> Spec:
    return load_spec(str(write_spec()), overrides=list(overrides))
