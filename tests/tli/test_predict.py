from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from tli.errors import FamilyError
from tli.growth.in_memory import grow
from tli.growth.on_disk import upscale_folder
from tli.initializers import predict
from tli.initializers.predict import Predicted
from tli.planning.plan import plan

Save = Callable[..., Path]


def waves(depth: int, shape: tuple[int, int], rank: int, turn: float = 0.4) -> list[Tensor]:
    """Matrices on a circle: each is the mean of its neighbours, divided by cos(turn)."""
    draw = torch.Generator().manual_seed(0)
    low, high = (
        torch.randn(shape[0], rank, generator=draw) @ torch.randn(rank, shape[1], generator=draw)
        for _ in "ab"
    )
    angles = [torch.tensor(turn * number) for number in range(depth)]
    return [angle.cos() * low + angle.sin() * high for angle in angles]


def asked(weights: list[Tensor], pair: tuple[int, int]) -> Tensor:
    predicted = Predicted([{"w": tuple(weight.shape)} for weight in weights])
    return predicted(pair, "w", lambda layer, _name: weights[layer])


@pytest.mark.parametrize("shape", [(12, 40), (40, 12), (20, 20)])
@pytest.mark.parametrize("directions", [512, 8])
def test_it_finds_the_law_that_layers_follow(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int], directions: int
) -> None:
    """Also in a basis that has just the directions there are, and from either side of a matrix."""
    monkeypatch.setattr(predict, "_RIDGE", 1e-6)
    monkeypatch.setattr(predict, "_DIRECTIONS", directions)
    weights = waves(9, shape, rank=3)
    for pair in ((2, 4), (7, 8), (0, 1)):
        mean = (weights[pair[0]] + weights[pair[1]]) / 2
        expected = mean / torch.tensor(0.4).cos()
        torch.testing.assert_close(asked(weights, pair), expected, atol=2e-3, rtol=1e-3)
        assert (mean - expected).abs().max() > 0.05


def test_with_the_ridge_it_lies_between_the_mean_and_the_law() -> None:
    weights = waves(9, (12, 40), rank=3)
    mean = (weights[2] + weights[4]) / 2
    found, law = asked(weights, (2, 4)) - mean, weights[3] - mean
    share = (found * law).sum() / law.square().sum()
    assert 0.3 < share < 1
    assert (found - law).norm() < 0.7 * law.norm()


def test_outside_of_the_basis_it_is_the_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predict, "_DIRECTIONS", 4)
    weights = [torch.randn(16, 30, generator=torch.Generator().manual_seed(n)) for n in range(5)]
    missed = asked(weights, (1, 2)) - (weights[1] + weights[2]) / 2
    assert torch.linalg.matrix_rank(missed, rtol=1e-4) == 4


def test_the_same_law_from_any_orientation() -> None:
    weights = waves(6, (10, 30), rank=4)
    turned = asked([weight.T.contiguous() for weight in weights], (2, 3))
    torch.testing.assert_close(turned.T, asked(weights, (2, 3)))


def test_layers_that_tell_little_of_each_other_make_it_smaller_than_the_mean() -> None:
    weights = [torch.randn(8, 400, generator=torch.Generator().manual_seed(n)) for n in range(12)]
    assert asked(weights, (5, 6)).norm() < 0.6 * ((weights[5] + weights[6]) / 2).norm()


def test_zeros_and_numbers_that_are_none_are_the_mean() -> None:
    zeros = [torch.zeros(4, 6)] * 4
    assert torch.equal(asked(zeros, (1, 2)), zeros[0])
    broken = [torch.full((4, 6), float("nan")), *waves(3, (4, 6), rank=2)]
    assert asked(broken, (0, 1)).isnan().all()


def test_vectors_are_the_mean() -> None:
    weights = [torch.randn(6, generator=torch.Generator().manual_seed(n)) for n in range(4)]
    assert torch.equal(asked(weights, (1, 2)), (weights[1] + weights[2]) / 2)


def test_a_fit_is_made_once_for_each_name_whatever_the_order() -> None:
    weights = {name: waves(5, (6, 9), rank=2, turn=turn) for name, turn in {"a": 0.3, "b": 0.5}.items()}
    asked_for: list[tuple[int, str]] = []

    def read(layer: int, name: str) -> Tensor:
        asked_for.append((layer, name))
        return weights[name][layer]

    predicted = Predicted([dict.fromkeys(weights, (6, 9))] * 5)
    first = [predicted(pair, name, read) for pair in ((0, 1), (1, 2), (3, 4)) for name in "ab"]
    seen = len(asked_for)
    again = [predicted(pair, name, read) for name in "ba" for pair in ((3, 4), (1, 2), (0, 1))]
    assert len(asked_for) - seen == 6 * 4  # two neighbours, for the mean and for what it misses
    assert seen == 6 * 4 + 2 * (1 + 5)  # to find that there are few rows, and for the map
    for left, right in zip(first, (again[5], again[2], again[4], again[1], again[3], again[0]), strict=True):
        assert torch.equal(left, right)


def test_only_layers_with_a_tensor_of_that_name_and_shape_take_part() -> None:
    weights = waves(4, (6, 9), rank=2)
    alike = [{"w": (6, 9)}, {"other": (3,)}, {"w": (6, 9)}, {"w": (6, 9)}, {"w": (5, 9)}, {"w": (6, 9)}]
    members = dict(zip((0, 2, 3, 5), weights, strict=True))
    found = Predicted(alike)((2, 3), "w", lambda layer, _name: members[layer])
    assert torch.equal(found, asked(weights, (1, 2)))
    assert Predicted(alike).problems({0, 2, 3, 5}) == []
    (problem,) = Predicted(alike).problems({0, 4})
    assert problem.got == "predicted, where 1 of 6 layers hold w in its shape"


@pytest.mark.parametrize("depth", [1, 2])
def test_fewer_than_three_layers_are_no_example(save_model: Save, tmp_path: Path, depth: int) -> None:
    base = save_model(tmp_path / "base", num_hidden_layers=depth)
    decided = plan(depth, 1, init="predicted")
    told = rf"injection.init: got predicted, where {depth} of {depth} layers hold .*; expected at least 3.*; try mean$"
    with pytest.raises(FamilyError, match=told):
        grow(AutoModelForCausalLM.from_pretrained(base), decided)
    with pytest.raises(FamilyError, match=told):
        upscale_folder(base, tmp_path / "out", decided)
    assert [path.name for path in tmp_path.iterdir()] == ["base"]


def test_three_layers_are_one(save_model: Save, tmp_path: Path) -> None:
    base = AutoModelForCausalLM.from_pretrained(save_model(tmp_path / "base", num_hidden_layers=3))
    grown, plain = (grow(base, plan(3, 3, init=init)) for init in ("predicted", "mean"))
    name = "model.layers.3.mlp.up_proj.weight"
    assert grown.state_dict()[name].isfinite().all()
    assert not torch.equal(grown.state_dict()[name], plain.state_dict()[name])
