"""Normal numbers without torch are torch's, to the last bit."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from tli.checkpoint.tensors import BLOCK, PART, parts
from tli.initializers import normal
from tli.initializers.normal import ROUGHNESS, normal_tensor, normals, rough_normals

COUNTS = (0, 1, 2, 15, 16, 17, 31, 100, 1000, PART - 1, PART, PART + 1, PART + 15, PART + 16, 2 * PART + 5)
FEW = "af4e5bb5", "3c913455"  # of torch 2.13.0 on AVX2: 7 and 1,000 numbers of seed 5, their SHA-256


def of_torch(seed: int, count: int, deviation: float = 1.0) -> np.ndarray:
    return torch.empty(count).normal_(0.0, deviation, generator=torch.Generator().manual_seed(seed)).numpy()


def joined(arrays: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.empty(0, np.float32), *arrays])


def same(one: np.ndarray, other: np.ndarray) -> bool:
    return one.dtype == other.dtype == np.float32 and one.tobytes() == other.tobytes()


avx2 = pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"), reason="torch draws another way here"
)


@avx2
@pytest.mark.parametrize("count", COUNTS)
def test_they_are_torchs(count: int) -> None:
    for seed, deviation in ((0, 1.0), (1, 0.02), (2**62 + 12345, 0.3)):
        drawn = list(normals(seed, count, deviation))
        assert [len(part) for part in drawn] == [end - start for start, end in parts(count)]
        assert same(joined(drawn), of_torch(seed, count, deviation))


@avx2
@pytest.mark.slow
def test_all_of_a_long_stream_are_torchs() -> None:
    """2^28 numbers: of the 2^24 lengths and 2^24 angles that there are, all but some four hundred of a million."""
    generator = torch.Generator().manual_seed(3)
    for part in normals(3, 2**28):
        assert same(part, torch.empty(len(part)).normal_(generator=generator).numpy())


def test_they_are_the_same_on_every_machine() -> None:
    told = [hashlib.sha256(joined(list(normals(5, count))).tobytes()).hexdigest()[:8] for count in (7, 1000)]
    assert tuple(told) == FEW


@pytest.mark.slow
def test_tensors_are_the_same_where_torch_draws_another_way() -> None:
    code = (
        "import hashlib, torch; from tli.initializers.normal import normal_tensor\n"
        "print(torch.backends.cpu.get_cpu_capability())\n"
        "print(hashlib.sha256(normal_tensor((50, 20), 5).numpy().tobytes()).hexdigest()[:8])"
    )
    environment = {**os.environ, "ATEN_CPU_CAPABILITY": "default"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout.split() == ["DEFAULT", FEW[1]]
    assert normal_tensor((), 5).shape == ()
    assert hashlib.sha256(normal_tensor((50, 20), 5).numpy().tobytes()).hexdigest()[:8] == FEW[1]


@pytest.mark.parametrize("count", [count for count in COUNTS if count >= BLOCK])
def test_rough_ones_are_near_and_know_the_exact_ones(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(normal, "_AT_ONCE", 4096)
    chosen = np.random.default_rng(0)
    for exact, rough in zip(normals(4, count), rough_normals(4, count), strict=True):
        assert np.abs(exact - rough.values).max() < ROUGHNESS / 4
        places = np.unique(np.concatenate([[0, len(exact) - 1], chosen.integers(0, len(exact), 50)]))
        assert same(rough.exact(places), exact[places])
        everywhere = np.arange(len(exact))
        assert same(rough.exact(everywhere), exact)
