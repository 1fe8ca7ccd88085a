"""What `tli.growth.cost` tells of every type that grows, against what is written and what torch counts.

The parameters are those of the written checkpoint. The FLOPs are those that `torch.utils.flop_counter` counts of
one training step, forward and backward, with eager attention and experts: kernels for them are not seen, or
counted as what they do not do. Convolutions are left out of both: `tli.growth.cost` has none, and the counter takes the
backward pass of a depthwise one for that of a full one. Where `registry.json` has a reason under `scan`, the
products that the counter calls `bmm` are left out too, and with them, of what is told, what grows with the length.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel

from tests.tli.registry import rows, tiny
from tests.tli.test_registry import EXACT, GROWN, base_of, planned
from tli.architectures.mixtures import MIXTURES
from tli.checkpoint.reader import Checkpoint
from tli.growth.attention_sizes import scans
from tli.growth.cost import cost
from tli.growth.in_memory import grow, injected_parameters
from tli.growth.on_disk import upscale_folder
from tli.models.base import Base, find
from tli.planning.experts import Experts
from tli.planning.injection import Injection
from tli.planning.plan import Plan, plan, plan_for

LENGTH, ROWS = 16, 2
CLOSE = 2e-3  # of all types: a router's last row, a pooler of one token, a shift by one token
# By default, one of each kind: flat and sectioned; experts fused, apart and all run; latent and sparse
# attention; heads of several widths; per-layer embeddings; a prompt, a scan, a state space; a decoder's half.
SELECTED = {
    *("llama", "gemma3", "gemma4", "fuyu", "granitemoe", "dbrx", "llama4", "deepseek_v32", "bart"),
    *("gemma4_text", "cpmant", "mamba2", "mamba", "inkling_text"),
}
EVERY = [pytest.param(name, marks=() if name in SELECTED else pytest.mark.slow) for name in GROWN]


def counted(model: PreTrainedModel, names: frozenset[str] | None = None) -> dict[str, float]:
    """FLOPs a token of one training step by kinds of operation; with `names`, of training those alone."""
    model.eval().set_attn_implementation("eager")
    model.set_experts_implementation("eager")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(names is None or name in names)
    tokens = torch.randint(1, 256, (ROWS, LENGTH), generator=torch.Generator().manual_seed(0))
    with FlopCounterMode(display=False) as counter:
        model(input_ids=tokens, use_cache=False).logits.float().logsumexp(-1).mean().backward()
    found = {str(key).rpartition(".")[2]: value for key, value in counter.get_flop_counts()["Global"].items()}
    return {key: value / tokens.numel() for key, value in found.items() if "convolution" not in key}


def told(base: Base, decided: Plan, length: int = LENGTH, **settings: Any) -> float:
    found = cost(base, decided, sequence_length=length, **settings)
    return found.flops_per_token


def compare(base: Base, decided: Plan, model: PreTrainedModel) -> None:
    row = rows().get(base.facts.model_type, {})
    if "not_counted" in row:
        return
    found, expected = told(base, decided), counted(model)
    if "scan" not in row:
        assert found == pytest.approx(sum(expected.values()), rel=CLOSE)
        return
    assert found < sum(expected.values())
    matrices = 2 * found - told(base, decided, 2 * LENGTH)
    assert matrices == pytest.approx(
        sum(expected[key] for key in ("mm", "addmm") if key in expected), rel=CLOSE
    )


def written(folder: Path) -> int:
    return sum(tensor.count for tensor in Checkpoint.open(folder).tensors.values())


@pytest.mark.parametrize("model_type", EVERY)
def test_costs_of_the_base_and_of_a_grown_model(model_type: str, tmp_path: Path) -> None:
    model = base_of(model_type)
    model.save_pretrained(tmp_path / "base")
    base = find(str(tmp_path / "base"))
    decided = planned(model, model_type, "identity" if model_type in EXACT else "copy")
    upscale_folder(base, tmp_path / "grown", decided)
    control = plan(base.facts.depth, method="none")
    for each, folder in ((control, "base"), (decided, "grown")):
        found = cost(base, each, sequence_length=LENGTH)
        assert found.parameters == written(tmp_path / folder)
        assert find(str(tmp_path / folder)).facts.parameters == found.parameters
    if model_type not in (
        "mamba",
        "falcon_mamba",
        "jamba",
        "zamba",
    ):  # of which the counter sees the products
        assert scans(base.checkpoint.tensors) == ("scan" in rows().get(model_type, {}))
    compare(base, control, model)
    compare(base, decided, grow(model, decided))


@pytest.mark.parametrize(
    ("model_type", "method"),
    [
        pytest.param(name, method, marks=() if name in ("qwen2", "llama") else pytest.mark.slow)
        for name in MIXTURES
        for method in ("moe", "tli")
    ],
)
def test_costs_of_experts(model_type: str, method: str, tmp_path: Path) -> None:
    model = tiny(model_type, **({"use_sliding_window": False} if model_type.startswith("qwen") else {}))
    model.save_pretrained(tmp_path / "base")
    base = find(str(tmp_path / "base"))
    injection = Injection(method, k=None if method == "moe" else 2, experts=Experts(4, 2))
    decided = plan_for(injection, base.facts.depth)
    upscale_folder(base, tmp_path / "grown", decided)
    grown = grow(model, decided)
    found = cost(base, decided, sequence_length=LENGTH)
    assert found.parameters == written(tmp_path / "grown")
    assert told(base, decided) == pytest.approx(sum(counted(grown).values()), rel=CLOSE)
    # Of the lowest layer that learns, gradients of some inputs are told that nothing needs.
    alone = counted(grown, injected_parameters(grown, decided))
    assert told(base, decided, train="injected") == pytest.approx(sum(alone.values()), rel=0.03)


def test_a_head_that_an_older_file_repeats_is_counted_once(tmp_path: Path) -> None:
    """It is the embedding's, byte for byte; a type that ignores `tie_word_embeddings` has two that differ."""
    from safetensors.torch import load_file, save_file

    model = base_of("gemma")
    model.save_pretrained(tmp_path)
    once = find(str(tmp_path)).facts.parameters
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    assert find(str(tmp_path)).facts.parameters == once
    tensors["lm_head.weight"][0, 0] += 1
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    assert find(str(tmp_path)).facts.parameters == once + tensors["lm_head.weight"].numel()
