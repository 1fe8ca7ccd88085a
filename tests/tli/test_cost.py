from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM

from tests.conftest import TINY
from tli.errors import FamilyError
from tli.growth.activations import Setting
from tli.growth.cost import cost
from tli.growth.in_memory import grow, injected_parameters
from tli.growth.memory import memory
from tli.models.base import find
from tli.planning.plan import plan

Tiny = Callable[[str], Path]


@pytest.mark.parametrize("model_type", TINY)
def test_parameters_are_those_of_the_grown_model(tiny_model: Tiny, model_type: str) -> None:
    base = find(str(tiny_model(model_type)))
    decided = plan(4, 3)
    grown = grow(AutoModelForCausalLM.from_pretrained(base.folder), decided)
    told = cost(base, decided, sequence_length=16)
    assert told.depth == 6
    assert told.parameters == sum(p.numel() for p in grown.parameters())
    sizes = dict(grown.named_parameters())
    assert told.injected_parameters == sum(sizes[n].numel() for n in injected_parameters(grown, decided))
    assert cost(base, plan(4, method="none"), sequence_length=16).parameters == sum(
        p.numel() for p in AutoModelForCausalLM.from_pretrained(base.folder).parameters()
    )


@pytest.mark.parametrize("model_type", ["llama", "mistral", "qwen3", "gpt2", "gpt_neox", "phi3"])
@pytest.mark.parametrize("train", ["all", "injected"])
def test_flops_are_those_that_torch_counts(tiny_model: Tiny, model_type: str, train: str) -> None:
    """Torch's counter knows matrices and attention; what it does not see (norms, sums) is left out here too."""
    base = find(str(tiny_model(model_type)))
    decided = plan(4, 2)
    model = AutoModelForCausalLM.from_pretrained(base.folder, attn_implementation="eager")
    grown = grow(model, decided).eval()
    if train == "injected":
        names = injected_parameters(grown, decided)
        for name, parameter in grown.named_parameters():
            parameter.requires_grad_(name in names)
    tokens = torch.randint(0, 256, (2, 16))
    with FlopCounterMode(display=False) as counter:
        loss = grown(tokens).logits.float().logsumexp(-1).mean()
        loss.backward()
    told = cost(base, decided, sequence_length=16, train=train)
    assert told.flops_per_token == pytest.approx(counter.get_total_flops() / tokens.numel(), rel=0.03)


@pytest.mark.parametrize("model_type", ["llama", "gpt2"])
def test_memory_is_of_the_right_size(tiny_model: Tiny, model_type: str) -> None:
    base = find(str(tiny_model(model_type)))
    decided = plan(4, 2)
    grown = grow(AutoModelForCausalLM.from_pretrained(base.folder), decided).eval()
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    tokens = torch.randint(0, 256, (32, 64))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = grown(tokens, labels=tokens).loss
    weights = {p.untyped_storage().data_ptr() for p in grown.parameters()}
    activations = sum(size for place, size in kept.items() if place not in weights)
    loss.backward()
    told = memory(base, decided, Setting(tokens.numel()))
    real = activations + 4 * sum(4 * p.numel() for p in grown.parameters())
    assert real / 2 < told.total < real * 2


def test_training_the_injected_layers_alone_is_cheaper(tiny_model: Tiny) -> None:
    base = find(str(tiny_model("llama")))
    every, new = (cost(base, plan(4, 4), sequence_length=16, train=train) for train in ("all", "injected"))
    assert new.flops_per_token < every.flops_per_token
    few, many = (memory(base, plan(4, 4), Setting(32, train=train)) for train in ("injected", "all"))
    assert few.total < many.total
    assert new.parameters == every.parameters


def test_an_unknown_architecture_is_refused(tiny_model: Tiny, tmp_path: Path) -> None:
    base = find(str(tiny_model("llama")))
    base.config["model_type"] = "unknown"
    with pytest.raises(FamilyError):
        cost(base, plan(4, 2), sequence_length=16)


def test_costs_need_no_torch(tiny_model: Tiny) -> None:
    code = (
        "import sys; from tli.models.base import find; from tli.growth.cost import cost; from tli.planning.plan import plan\n"
        "cost(find(sys.argv[1]), plan(4, 2), sequence_length=8)\n"
        "assert not {'torch', 'transformers', 'numpy', 'huggingface_hub'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(tiny_model("llama"))], check=True)
