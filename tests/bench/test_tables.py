"""Recorded tables as landscapes, and the benchmark of searching on one, at a size of seconds."""

from __future__ import annotations

import json
import math
import statistics
from pathlib import Path
from typing import Any

import pytest

from tests.bench import bench_search
from tests.bench.tables import Table

RATES = (1e-4, 5e-4, 1e-3, 2e-3, 1e-2)
SHARED = 0.05  # that seed 1 is above seed 0


def loss(k: int | None, init: str | None, scale: float | None, rate: float, share: float) -> float:
    end = 3.1 + 0.02 * math.log(rate / 1e-3) ** 2
    end += 0.01 * (init == "copy") + 0.004 * math.log2(k or 8) / 3 + 0.02 * (scale or 0.0)
    return end + 0.2 * (1 - share) ** 2


@pytest.fixture
def file(tmp_path: Path) -> str:
    """A small table: two kinds of first weights, damped ones at two scales; the highest rate diverged with K=1."""
    cells: list[dict[str, Any]] = []
    ways = [(None, None, None)]
    ways += [
        (k, i, s)
        for k in (1, 4)
        for i, s in (("identity", None), ("copy", None), ("damped", 0.2), ("damped", 0.8))
    ]
    for seed in (0, 1):
        for k, init, scale in ways:
            for rate in RATES:
                own = 0.001 * math.sin(37 * (k or 0) + 11 * len(init or "") + 1e4 * rate) * seed
                curve: list[float | None] = [
                    loss(k, init, scale, rate, step / 8) + SHARED * seed + own for step in range(0, 9, 2)
                ]
                if k == 1 and rate == 1e-2:
                    curve = [*curve[:2], None]
                method = "none" if k is None else "tli"
                cells.append(
                    {"method": method, "k": k, "init": init, "scale": scale, "matched": None, "learning_rate": rate,
                     "seed": seed, "flops_per_token": 2.0 + 8 / (k or 1e9), "validation": curve, "test": []}
                )  # fmt: skip
    cells.append({**cells[0], "matched": 4, "validation": [9.0] * 5})
    plain = {
        "name": "small",
        "steps": 8,
        "measured": [0, 2, 4, 6, 8],
        "control_flops_per_token": 2.0,
        "cells": cells,
    }
    path = tmp_path / "small.json"
    path.write_text(json.dumps(plain))
    return str(path)


def settings(
    rate: float, k: int | None = 4, init: str | None = "copy", scale: float | None = None, seed: int = 0
) -> dict[str, Any]:
    method = "none" if k is None else "tli"
    injection = {"method": method, "k": k or 4, "init": init, "scale": scale}
    return {"injection": injection, "recipe": {"learning_rate": rate}, "seed": seed}


def test_what_was_recorded_is_replayed(file: str) -> None:
    table = Table.read(file)
    assert table.loss_at(settings(5e-4), 8) == pytest.approx(loss(4, "copy", None, 5e-4, 1.0))
    assert table.loss_at(settings(5e-4), 4) == pytest.approx(loss(4, "copy", None, 5e-4, 0.5))
    control = settings(1e-3, k=None, init=None)
    assert table.loss_at(control, 8) == pytest.approx(loss(None, None, None, 1e-3, 1.0))
    assert math.isnan(table.loss_at(settings(1e-2, k=1), 8))
    assert table.seconds_per_step(control) == pytest.approx(1.0)
    assert table.seconds_per_step(settings(1e-3, k=1)) == pytest.approx(5.0)


def test_between_what_was_recorded_it_is_smooth(file: str) -> None:
    table = Table.read(file)
    losses = [table.loss_at(settings(10**x), 8) for x in (-3.3, -3.2, -3.1, -3.0)]
    assert losses == sorted(losses, reverse=True)
    assert losses[1] == pytest.approx(loss(4, "copy", None, 10**-3.2, 1.0), abs=0.004)
    damped = table.loss_at(settings(1e-3, init="damped", scale=0.5), 8)
    assert damped == pytest.approx(loss(4, "damped", 0.5, 1e-3, 1.0))
    assert table.loss_at(settings(1e-3), 3) == pytest.approx(
        (table.loss_at(settings(1e-3), 2) + table.loss_at(settings(1e-3), 4)) / 2
    )
    assert table.best == pytest.approx(loss(1, "identity", None, 1e-3, 1.0) + SHARED / 2, abs=1e-3)
    assert table.best_of(4, "copy") == pytest.approx(loss(4, "copy", None, 1e-3, 1.0) + SHARED / 2, abs=1e-3)


def test_further_seeds_differ_by_the_residual_that_was_recorded(file: str) -> None:
    table = Table.read(file)
    assert 1e-4 < table.residual(1e-3, 8) < 2e-3
    ends = [table.loss_at(settings(1e-3, seed=2 * seed), 8) for seed in range(1, 300)]
    assert statistics.fmean(ends) == pytest.approx(loss(4, "copy", None, 1e-3, 1.0), abs=3e-4)
    assert statistics.stdev(ends) == pytest.approx(table.residual(1e-3, 8), rel=0.15)
    assert ends[0] == table.loss_at(settings(1e-3, seed=2), 8), "a trial replayed has the same losses"
    assert table.loss_at(settings(1e-3, seed=3), 8) == pytest.approx(ends[0] + SHARED, abs=6e-3)


def test_the_benchmark_prints_a_row_and_goes_on_with_what_is_kept(
    file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench_search, "_RANDOM_SEEDS", 3)
    out = tmp_path / "out.jsonl"
    given = ["--tables", file, "--trials", "10", "--slots", "2", "--seeds", "1", "--out", str(out)]
    assert bench_search.main([*given, "--methods", "random", "ours"]) == 0
    head, _, random, ours = capsys.readouterr().out.splitlines()
    assert len(random.split("|")) == len(ours.split("|")) == len(head.split("|"))
    (first, second) = (json.loads(line) for line in out.read_text().splitlines())
    assert (first["method"], second["method"]) == ("random", "ours")
    assert first["stopped"] == 0
    assert second["off"] >= -1e-6
    assert set(second["answers"]) == {"injection.k", "injection.init"}

    def never(*_: Any) -> None:
        pytest.fail("it is kept")

    monkeypatch.setattr(bench_search, "sweep", never)
    assert bench_search.main([*given, "--methods", "random", "ours"]) == 0
    assert capsys.readouterr().out.splitlines()[2:] == [random, ours]
