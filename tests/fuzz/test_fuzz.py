"""The fuzz targets, in seconds by default; 100,000 runs and more by `make test ARGS="-m slow -k fuzz"`."""

from __future__ import annotations

import pytest

from tests.fuzz import fuzz_config, fuzz_header, fuzz_kept, fuzz_plan

_SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("target", "runs"),
    [
        (fuzz_header, 2_000),
        (fuzz_plan, 2_000),
        (fuzz_config, 500),
        *(pytest.param(target, 60_000, marks=_SLOW) for target in (fuzz_header, fuzz_plan, fuzz_config)),
    ],
)
def test_fuzz(target: object, runs: int) -> None:
    accepted, refused = target.run(runs, seed=runs)  # type: ignore[attr-defined]
    assert accepted > runs / 10, "most of what is made must not be refused at the door"
    assert refused > runs / 10


@pytest.mark.parametrize("runs", [400, pytest.param(60_000, marks=pytest.mark.slow)])
def test_fuzz_what_is_read_back(runs: int) -> None:
    read, refused = fuzz_kept.run(runs, seed=runs)
    assert read > runs / 20, "much of what is changed can be read all the same"
    assert refused > runs / 10
