"""First weights made part by part against the same formulas in torch on whole tensors, byte for byte."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from tli.checkpoint import tensors
from tli.checkpoint.header import TensorInfo
from tli.checkpoint.reader import read_header
from tli.checkpoint.tensors import bytes_of, parts
from tli.checkpoint.writer import Output, Zeros, write_shards
from tli.errors import CheckpointError
from tli.initializers import elementwise, layers, normal
from tli.initializers.elementwise import Start, Steps, first_pieces
from tli.initializers.normal import normal_tensor
from tli.planning.plan import plan

Tiny = Callable[[str], Path]
TYPES = (torch.bfloat16, torch.float16, torch.float32, torch.float64)
CASES: dict[str, dict[str, Any]] = {
    "source": {"start": Start.SOURCE},
    "scaled": {"start": Start.SOURCE, "scale": 0.3},
    "gain": {"start": Start.SOURCE, "scale": 0.7, "offset": 1.0},
    "mean": {"start": Start.MEAN},
    "arc": {"start": Start.ARC},
    "noise": {"start": Start.SOURCE, "noise": 0.1},
    "all": {"start": Start.ARC, "scale": 0.5, "noise": 0.3},
    "more noise": {"start": Start.MEAN, "noise": 1e4},
    "less noise": {"start": Start.MEAN, "noise": 1e-9},
    "constant": {"start": Start.CONSTANT, "constant": 1.0, "scale": 0.1},
    "drawn": {"start": Start.DRAWN, "deviation": 0.02},
    "drawn, scaled": {"start": Start.DRAWN, "deviation": 0.02, "scale": 0.5},
    "drawn, noise": {"start": Start.DRAWN, "deviation": 0.02, "noise": 0.1},
}


def reference(steps: Steps, old: Tensor, pair: tuple[Tensor, Tensor]) -> Tensor:
    """The formulas with torch, as they were before anything was made in parts."""
    precise = torch.promote_types(old.dtype, torch.float32)
    below, above = (tensor.to(torch.promote_types(tensor.dtype, torch.float32)) for tensor in pair)
    if steps.start is Start.SOURCE:
        value = old.to(precise)
    elif steps.start is Start.CONSTANT:
        value = torch.full_like(old, steps.constant).to(precise)
    elif steps.start is Start.DRAWN:
        value = normal_tensor(old.shape, steps.seed, steps.deviation).to(old.dtype).to(precise)
    elif steps.start is Start.MEAN:
        value = (below + above) / 2
    else:
        lengths = [(one * one).sum(dtype=torch.float64).item() ** 0.5 for one in (below, above)]
        cosine = (below * above).sum(dtype=torch.float64).item() / (lengths[0] * lengths[1])
        stretch = sum(lengths) / 2 / (2 + 2 * cosine) ** 0.5
        value = below * (stretch / lengths[0]) + above * (stretch / lengths[1])
    if steps.scale != 1:
        value = (value + steps.offset) * steps.scale - steps.offset
    if steps.noise > 0:
        drawn = normal_tensor(old.shape, steps.noise_seed).to(value)
        value = value + drawn * value.std(correction=0) * steps.noise
    return value.to(old.dtype)


def saved(folder: Path, tensors: list[Tensor]) -> list[TensorInfo]:
    folder.mkdir()
    save_file({str(number): tensor for number, tensor in enumerate(tensors)}, folder / "x.safetensors")
    infos = {info.name: info for info in read_header(folder / "x.safetensors").tensors}
    return [infos[str(number)] for number in range(len(tensors))]


def made(steps: Steps, infos: list[TensorInfo]) -> bytes:
    return b"".join(first_pieces(steps, "x", lambda layer, _name: infos[layer]))


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("case", CASES)
def test_they_are_what_torch_makes_of_whole_tensors(case: str, dtype: torch.dtype, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(1)
    for number, shape in enumerate([(3, 4), (37, 19), (3, 70001)]):
        tensors = [torch.randn(shape, generator=generator).mul(0.02).to(dtype) for _ in range(3)]
        tensors[0].view(-1)[:3] = torch.tensor([-0.0, 1e-7, 3.0])
        infos = saved(tmp_path / str(number), tensors)
        steps = Steps(source=0, layers=(1, 2), seed=3, noise_seed=4, **CASES[case])
        expected = reference(steps, tensors[0], (tensors[1], tensors[2]))
        found = torch.frombuffer(bytearray(made(steps, infos)), dtype=dtype).reshape(shape)
        if dtype is torch.float64 and (steps.noise or steps.start is Start.ARC):
            # Sums in float64 that are not rounded to fewer digits show their order in the last ones.
            torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-15)
        else:
            assert bytes_of(found) == bytes_of(expected)


@pytest.mark.parametrize("case", ["mean", "arc", "all"])
def test_neighbours_of_another_type_are_taken_as_they_are(case: str, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(1)
    tensors = [
        torch.randn(30, 31, generator=generator).to(dtype)
        for dtype in (torch.bfloat16, torch.float32, torch.float64)
    ]
    infos = saved(tmp_path / "x", tensors)
    steps = Steps(source=0, layers=(1, 2), noise_seed=4, **CASES[case])
    below, above = tensors[1].double(), tensors[2]
    assert made(steps, infos) == bytes_of(reference(steps, tensors[0], (below, above)))


@pytest.mark.parametrize("dtype", TYPES[:3], ids=str)
@pytest.mark.parametrize("case", [case for case in CASES if "drawn" not in case and case != "constant"])
def test_what_is_no_finite_number_comes_out_as_in_torch(
    case: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    tensors = [torch.linspace(-1, 1, 64).reshape(8, 8).to(dtype) for _ in range(3)]
    for tensor, value in zip(tensors, (float("inf"), float("-inf"), float("nan")), strict=True):
        tensor.view(-1)[5] = value
        tensor.view(-1)[6] = torch.finfo(dtype).max
    infos = saved(tmp_path / "x", tensors)
    steps = Steps(source=0, layers=(0, 1), noise_seed=4, **{**CASES[case], "start": Start.MEAN})
    found = torch.frombuffer(bytearray(made(steps, infos)), dtype=dtype).reshape(8, 8)
    expected = reference(steps, tensors[0], (tensors[0], tensors[1]))
    assert torch.equal(found.isnan(), expected.isnan())
    assert torch.equal(found.nan_to_num(0.125), expected.nan_to_num(0.125))


def test_every_bfloat16_is_rounded_as_torch_does() -> None:
    upper = torch.arange(2**16, dtype=torch.int32) << 16
    for lower in (0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF):
        values = (upper | lower).view(torch.float32)
        found = torch.from_numpy(tensors.rounded(values.numpy(), "BF16").view("i2")).view(torch.bfloat16)
        expected = values.to(torch.bfloat16)
        assert torch.equal(found.isnan(), expected.isnan())
        assert torch.equal(
            found[~found.isnan()].view(torch.int16), expected[~found.isnan()].view(torch.int16)
        )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_rough_numbers_are_mended_where_it_shows(
    dtype: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With numbers that are as rough as they may be."""
    asked = []

    class Rougher(normal.Rough):
        def exact(self, places: Any) -> Any:
            asked.append(len(places) / len(self.values))
            return super().exact(places)

    def rougher(seed: int, count: int) -> Any:
        for part in normal.rough_normals(seed, count):
            yield Rougher(part.values + normal.ROUGHNESS * 0.99, part._uniform, part._last)

    monkeypatch.setattr(elementwise, "rough_normals", rougher)
    tensor = torch.randn(300, 301, generator=torch.Generator().manual_seed(0)).to(dtype)
    infos = saved(tmp_path / "x", [tensor])
    for case in ("noise", "drawn"):
        steps = Steps(source=0, seed=3, noise_seed=4, **CASES[case])
        assert made(steps, infos) == bytes_of(reference(steps, tensor, (tensor, tensor)))
    assert 0 < max(asked) < 0.1


def test_parts_cover_a_tensor_and_none_is_less_than_a_block() -> None:
    for count in (0, 1, 15, 16, 2**16, 2**16 + 1, 2**16 + 15, 2**16 + 16, 3 * 2**16 + 7):
        places = list(parts(count))
        assert [end for _, end in places[:-1]] == [start for start, _ in places[1:]]
        assert sum(end - start for start, end in places) == count
        assert all(end - start >= min(count, 16) for start, end in places)


def test_a_file_that_is_cut_short_is_told_of(tmp_path: Path) -> None:
    infos = saved(tmp_path / "x", [torch.ones(100, 100), torch.ones(100, 100)])
    with (tmp_path / "x/x.safetensors").open("r+b") as file:
        file.truncate(infos[1].start + 1000)
    with pytest.raises(CheckpointError, match=r"x\.safetensors: 1: got an early end of the file"):
        made(Steps(Start.MEAN, 0, (0, 1)), infos)


@pytest.mark.parametrize("piece", [1, 100, 2**20])
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.int8], ids=str)
def test_parts_of_layers_move_as_in_torch(
    axis: int, piece: int, dtype: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layers, "_PIECE", piece)
    tensor = torch.arange(8 * 12 * 3).reshape(8, 12, 3).to(dtype)
    (info,) = saved(tmp_path / "x", [tensor])
    decided = plan(4, 2)
    found = bytearray().join(layers.widened_pieces(info, axis, decided))
    expected = layers.widened(tensor, axis, decided)
    assert torch.equal(torch.frombuffer(found, dtype=dtype).reshape(expected.shape), expected)


RUN = """
import sys
from tli.cli.commands import main
code = main(sys.argv[1:])
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM:"))
print(peak.split()[1], "torch" in sys.modules, "transformers" in sys.modules)
sys.exit(code)
"""


@pytest.mark.parametrize(
    "options",
    [
        "--init mean",
        "--init slerp --noise 0.1",
        "--init random",
        "--method moe --experts 2 --granularity 2",
    ],
)
def test_by_command_in_little_memory_and_without_torch(
    tiny_model: Tiny, tmp_path: Path, options: str
) -> None:
    """A model whose matrices have 8 MB each on disk."""
    base, wide = tmp_path / "base", 2**17
    shutil.copytree(tiny_model("llama"), base)
    config = json.loads((base / "config.json").read_text())
    config |= {"num_hidden_layers": 1, "intermediate_size": wide, "vocab_size": 16}
    config |= {"attention_bias": False, "mlp_bias": False}
    (base / "config.json").write_text(json.dumps(config))
    (base / "model.safetensors").unlink()
    hidden = config["hidden_size"]
    infos = [
        info
        for info in read_header(tiny_model("llama") / "model.safetensors").tensors
        if ".0." in info.name and not info.name.endswith("bias")
    ]
    outputs = [
        Output("model.embed_tokens.weight", "BF16", (16, hidden), Zeros()),
        Output("model.norm.weight", "BF16", (hidden,), Zeros()),
        Output("lm_head.weight", "BF16", (16, hidden), Zeros()),
    ]
    for info in infos:
        shape = tuple(wide if ".mlp." in info.name and size != hidden else size for size in info.shape)
        outputs.append(Output(info.name, "BF16", shape, Zeros()))
    write_shards(base, outputs, limit=None, metadata={"format": "pt"})
    command = [sys.executable, "-c", RUN, "upscale", str(base), str(tmp_path / "out"), *options.split()]
    done = subprocess.run(
        command + ([] if "moe" in options else ["--k", "1"]), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    peak, *heavy = done.stdout.split()[-3:]
    assert heavy == ["False", "False"]
    assert int(peak) * 1024 < 70e6  # 45 MB are Python, numpy and parts; one matrix in float32 takes 17 MB
