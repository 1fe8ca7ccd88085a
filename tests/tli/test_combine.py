from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tli.initializers.combine import mean, slerp


def between(below: Tensor, above: Tensor) -> Tensor:
    return slerp((0, 1), "x", lambda layer, _name: (below, above)[layer])


def cosine(left: Tensor, right: Tensor) -> float:
    return torch.cosine_similarity(left.flatten().double(), right.flatten().double(), dim=0).item()


@pytest.mark.parametrize("shape", [(40, 30), (30,), (3, 5, 7)])
def test_slerp_halves_the_angle_and_keeps_the_length(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    below, above = torch.randn(shape, generator=generator), 3 * torch.randn(shape, generator=generator) + 1
    middle = between(below, above)
    angle = torch.tensor(cosine(below, above)).double().acos()
    for end in (below, above):
        assert cosine(middle, end) == pytest.approx((angle / 2).cos().item(), abs=1e-6)
    assert middle.norm().item() == pytest.approx((below.norm() + above.norm()).item() / 2, rel=1e-6)
    assert torch.equal(middle, between(above, below))


def test_slerp_of_equal_lengths_is_mergekits() -> None:
    """mergekit: the two vectors times sin(angle / 2) / sin(angle)."""
    generator = torch.Generator().manual_seed(1)
    below, above = (torch.nn.functional.normalize(torch.randn(50, generator=generator), dim=0) for _ in "ab")
    angle = torch.tensor(cosine(below, above)).acos()
    torch.testing.assert_close(between(below, above), (below + above) * (angle / 2).sin() / angle.sin())


@pytest.mark.parametrize("other", ["the same", "longer", "opposite", "zero", "nearly parallel"])
def test_slerp_is_the_mean_where_there_is_no_arc(other: str) -> None:
    below = torch.randn(20, 10, generator=torch.Generator().manual_seed(2))
    above = {
        "the same": below.clone(),
        "longer": 5 * below,
        "opposite": -2 * below,
        "zero": torch.zeros_like(below),
        "nearly parallel": below + 0.02 * below.roll(1),
    }[other]
    assert torch.equal(between(below, above), (below + above) / 2)
    assert torch.equal(between(above, below), (below + above) / 2)


@pytest.mark.parametrize(
    ("dtype", "precise"),
    [
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_arithmetic_is_in_float32_at_least(dtype: torch.dtype, precise: torch.dtype) -> None:
    one, other = torch.tensor([1.0, 2.0], dtype=dtype), torch.tensor([2.0, -1.0], dtype=dtype)
    for combine in (mean, slerp):
        assert combine((0, 1), "x", lambda layer, _name: (one, other)[layer]).dtype == precise
