"""Arguments of another type: an InputError at their place, before anything is read or written, from all of `sweeps`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import sweeps
from sweeps.driver.watchers import Quiet
from sweeps.folders import Folders
from sweeps.results.sweep import Sweep


class OnlyNotes:
    """No watcher: it takes no update."""

    def note(self, text: str) -> None:
        """To nowhere."""


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """One that nothing may be asked of: its arguments are wrong."""
    monkeypatch.chdir(tmp_path)
    return Sweep(sweeps.load_spec("quickstart"), Folders(tmp_path / "runs", "quickstart"), None)  # type: ignore[arg-type]


CALLS: dict[str, tuple[Callable[[Any], object], list[str]]] = {
    "run a number": (lambda _: sweeps.run(3), ["spec"]),  # type: ignore[arg-type]
    "run with everything wrong": (
        lambda _: sweeps.run(None, OnlyNotes(), address=8, extend="yes", runner=3),  # type: ignore[arg-type]
        ["watcher", "address", "extend", "runner", "spec"],
    ),
    "run with a class": (lambda _: sweeps.run("quickstart", Quiet), ["watcher"]),  # type: ignore[arg-type]
    "run with settings": (
        lambda _: sweeps.run("quickstart", overrides=3, runs=4),  # type: ignore[arg-type]
        ["overrides", "runs"],
    ),
    "load a number": (lambda _: sweeps.load_spec(3), ["reference"]),  # type: ignore[arg-type]
    "find a number": (lambda _: sweeps.find(3, runs=3, study=3), ["reference", "runs", "study"]),  # type: ignore[arg-type]
    "find a sweep": (sweeps.find, ["reference"]),
    "compare a sweep": (sweeps.compare, ["references[0]"]),
    "compare mixed": (lambda _: sweeps.compare(["a"], 4, by="recipe.lr"), ["references[1]"]),  # type: ignore[list-item, arg-type]
    "compare by a number": (lambda _: sweeps.compare("a", by=3, runs=2), ["by", "runs"]),  # type: ignore[arg-type]
    "export a text": (lambda sweep: sweep.export("out", trial="3"), ["trial"]),
    "export a trial to a number": (lambda sweep: sweeps.export(sweep, 4, trial=True), ["out", "trial"]),  # type: ignore[arg-type]
    "export a number": (lambda _: sweeps.export(4, "out"), ["sweep"]),  # type: ignore[arg-type]
    "a spec of a number": (lambda _: sweeps.Spec.from_json(3), ["plain"]),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", CALLS)
def test_a_wrong_type_is_named_at_its_argument(name: str, sweep: Any, tmp_path: Path) -> None:
    call, places = CALLS[name]
    with pytest.raises(sweeps.InputError) as caught:
        call(sweep)
    assert [problem.where for problem in caught.value.problems] == places
    assert max(len(str(problem)) for problem in caught.value.problems) < 250
    assert list(tmp_path.iterdir()) == []


def test_a_spec_by_its_sections_is_checked_as_one_of_a_file() -> None:
    with pytest.raises(sweeps.SpecError) as caught:
        sweeps.Spec(name="x")
    assert [problem.where for problem in caught.value.problems] == ["Spec base", "Spec data", "Spec budget"]
    whole = sweeps.load_spec("quickstart")
    made = sweeps.Spec(**whole.to_json())
    assert made == whole
    assert made.hash == whole.hash
    with pytest.raises(sweeps.SpecError) as caught:
        sweeps.Spec(**{**whole.to_json(), "budget": {"trials": 0}})
    assert [problem.where for problem in caught.value.problems] == ["Spec budget.trials"]


def test_sweeps_are_compared_by_name_one_by_one_or_as_a_list(sweep: Any, tmp_path: Path) -> None:
    told = []
    for call in (lambda: sweeps.compare("a", "b"), lambda: sweeps.compare(["a", "b"])):
        with pytest.raises(sweeps.InputError) as caught:
            call()
        told.append([problem.where for problem in caught.value.problems])
    assert told == [["a", "b"]] * 2
