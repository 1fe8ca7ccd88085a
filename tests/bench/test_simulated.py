"""The simulator and what is measured with it, at a size of seconds."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sweeps.records import State
from tests.bench import bench_selection
from tests.bench.bench_scale import grow, jump, main, resume
from tests.bench.landscape import best_loss, true_loss
from tests.bench.simulator import World, opened


def test_a_study_grows_and_its_next_driver_goes_on(tmp_path: Path) -> None:
    world = World(tmp_path, "sqlite", 40, slots=3)
    marks = grow(world, [10, 20])
    assert [mark.trials for mark in marks] == [10, 20]
    assert all(0 < mark.cpu < 1 and 0 < mark.ask < 1000 for mark in marks)
    resumed = resume(world)
    with opened(world) as simulation:
        records = simulation.ledger.trials()
        left = [record.number for record in records if not record.state.finished]
    # The last that ended was not replaced any more: its slot is free, the two others were taken.
    assert len(records) == 22
    assert resumed["trials"] == 22
    assert resumed["number"] == left[0], "what was left running comes first"
    assert {record.state for record in records} == {State.COMPLETE, State.PRUNED, State.RUNNING}


def test_a_simulated_sweep_ends_and_is_the_same_again(tmp_path: Path) -> None:
    def swept(name: str) -> list[tuple[State, int, float | None]]:
        with opened(World(tmp_path, "sqlite", 12, slots=3, name=name)) as simulation:
            ended = list(simulation.run())
            assert ended == list(range(1, len(simulation.ledger.trials()) + 1))
            assert simulation.ledger.asked == 12
            assert simulation.agenda.finished
            assert simulation.seconds > 0
            return [(record.state, record.step, record.loss) for record in simulation.ledger.trials()]

    assert swept("one") == swept("other")


def test_no_choice_is_better_than_the_best(tmp_path: Path) -> None:
    world = World(tmp_path, "sqlite", 8, slots=2)
    chosen = bench_selection.sweep(world)
    assert best_loss() <= chosen.loss + 1e-6
    times, reached = bench_selection.times_random(world.spec(), 0, chosen)
    assert times > 0
    assert reached, "eight trials find nothing that two thousand do not"


def test_the_best_is_where_every_part_is_best() -> None:
    settings = {
        "injection": {"method": "tli", "k": 1, "init": "identity"},
        "recipe": {"learning_rate": 10**-2.87},
    }
    assert best_loss() <= true_loss(settings)
    settings["injection"]["init"] = "random"  # type: ignore[index]
    assert true_loss(settings) > best_loss() * (1 + bench_selection.NEAR)


def test_copies_are_trials_like_any_other(tmp_path: Path) -> None:
    world = World(tmp_path, "sqlite", 60, slots=2)
    grow(world, [8])
    mark = jump(world, 30, 3)
    assert mark.trials == 30
    with opened(world) as simulation:
        records = simulation.ledger.trials()
        assert [record.number for record in records] == list(range(30))
        # Of the first nine one was running; then come the others in turn, but for control and baseline.
        assert dict(records[9].losses) == dict(records[15].losses)
        assert any(dict(records[9].losses) == dict(record.losses) for record in records[2:9])
        assert list(simulation.run(2)) == [1, 2]


@pytest.mark.slow
@pytest.mark.parametrize("more", [[], ["--copied", "4"]])
def test_the_command_prints_every_figure(more: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--trials", "10", "30", "--slots", "3", "--stores", "sqlite", *more]) == 0
    out = capfd.readouterr().out
    assert len(re.findall(r"^\| sqlite \| 3 \| [13]\d \|( [\d.,]+ \|){6}$", out, re.MULTILINE)) == 2
    assert re.search(
        r"^sqlite, 3 slots: 1\d to 3\d trials: [\d.]+ times the CPU, .*resume of 3\d trials to trial \d+ running",
        out,
        re.MULTILINE,
    )
