"""Arguments of another type: an InputError at their place, before any work, from every public function of tli."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tli
from tests.conftest import save_tiny_model
from tli.data.batches import Batches
from tli.errors import InputError

Call = Callable[[Any], object]  # of a model in memory
PLAN = tli.plan(4, k=4)
IDS = np.arange(34).reshape(2, 17)
BATCHES = Batches(np.arange(1000) % 100, 16, rows=4, seed=0)
RECIPE = tli.Recipe(tokens=128, batch_tokens=64)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("types") / "model"
    save_tiny_model(folder)
    return tli.load_model(folder)


CALLS: dict[str, tuple[Call, list[str]]] = {
    "grow a folder": (lambda _: tli.grow("folder", PLAN), ["model"]),  # type: ignore[arg-type]
    "grow by settings": (lambda m: tli.grow(m, {"k": 4}, seed="1"), ["plan", "seed"]),  # type: ignore[arg-type]
    "evaluate nothing": (lambda m: tli.evaluate(m, None), ["windows"]),  # type: ignore[arg-type]
    "evaluate a list": (lambda m: tli.evaluate(m, [[1, 2]]), ["windows"]),  # type: ignore[arg-type]
    "evaluate a name": (lambda _: tli.evaluate("model", IDS), ["model"]),  # type: ignore[arg-type]
    "upscale a model": (lambda m: tli.upscale(m, 3), ["model", "folder"]),  # type: ignore[arg-type]
    "upscale a flag": (lambda _: tli.upscale("a", "b", allow_remote_code=1), ["allow_remote_code"]),  # type: ignore[arg-type]
    "verify a model": (lambda m: tli.verify(m, base=4), ["folder", "base"]),  # type: ignore[arg-type]
    "find a number": (lambda _: tli.find(3, revision=4), ["model", "revision"]),  # type: ignore[arg-type]
    "load a number": (lambda _: tli.load_model(3), ["model"]),  # type: ignore[arg-type]
    "load to a number": (lambda _: tli.load_model("a", 3), ["device"]),  # type: ignore[arg-type]
    "load to nowhere": (lambda _: tli.load_model("a", "nowhere"), ["device"]),
    "plan a text": (lambda _: tli.plan("8"), ["depth"]),  # type: ignore[arg-type]
    "plan an injection": (lambda _: tli.plan(8, tli.Injection(m=2)), ["injection.k"]),  # type: ignore[arg-type]
    "plan an old name": (lambda _: tli.plan(8, sets=4), ["injection.sets"]),  # type: ignore[call-arg]
    "a rate as text": (
        lambda _: tli.Recipe(learning_rate="a", tokens=1.5, clip=True),  # type: ignore[arg-type]
        ["recipe.learning_rate", "recipe.tokens", "recipe.clip"],
    ),
    "train a name": (
        lambda _: tli.Training("a", {}, [], None),  # type: ignore[arg-type]
        ["model", "recipe", "batches", "heldout"],
    ),
    "train a seed": (lambda m: tli.Training(m, RECIPE, BATCHES, IDS, seed=1.5), ["seed"]),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", CALLS)
def test_a_wrong_type_is_named_at_its_argument(
    name: str, model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    call, places = CALLS[name]
    with pytest.raises(InputError) as caught:
        call(model)
    assert [problem.where for problem in caught.value.problems] == places
    assert max(len(str(problem)) for problem in caught.value.problems) < 250
    assert list(tmp_path.iterdir()) == []


def test_the_remedy_is_what_to_write() -> None:
    with pytest.raises(InputError) as caught:
        tli.plan(8, tli.Injection("dus", m=2))  # type: ignore[arg-type]
    (problem,) = caught.value.problems
    assert problem.remedy == "method='dus', m=2"
    assert tli.plan(8, method="dus", m=2).new_depth == 12
    with pytest.raises(InputError) as caught:
        tli.plan(8, sets=4)  # type: ignore[call-arg]
    assert caught.value.problems[0].remedy == "least_important_sets"


def test_numbers_of_numpy_are_numbers() -> None:
    recipe = tli.Recipe(learning_rate=np.float32(0.5), tokens=np.int64(128), batch_tokens=64)  # type: ignore[arg-type]
    assert recipe.steps == 2
