"""The models that are measured: sizes of Llama with random weights, made on the device, and what they cost."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tli.data.batches import Batches
from tli.growth.activations import Setting
from tli.growth.cost import Cost, cost
from tli.growth.memory import PIECES, memory
from tli.models.base import Base, find
from tli.planning.plan import Plan
from tli.training.recipe import Recipe

if TYPE_CHECKING:
    from transformers import LlamaConfig, PreTrainedModel


@dataclass(frozen=True)
class Shape:
    """A model and how it is trained. Sizes are in tokens; a step is `micro` tokens, `passes` times."""

    name: str
    config: Mapping[str, Any]
    sequence: int
    micro: int
    passes: int
    steps: int
    warm: int = 2
    recipe: Mapping[str, Any] = field(default_factory=dict)
    rounds: int = 1  # in which contenders take turns

    @property
    def batch(self) -> int:
        """Tokens of a step."""
        return self.micro * self.passes


def _llama(hidden: int, inner: int, layers: int, heads: int, groups: int, **more: Any) -> dict[str, Any]:
    sizes = {"hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": layers}
    return {**sizes, "num_attention_heads": heads, "num_key_value_heads": groups, **more}


_BF16 = {"precision": "bf16"}
_WORDS = {"vocab_size": 128_256, "max_position_embeddings": 8192, "rope_theta": 500_000.0}
_1B = _llama(2048, 8192, 16, 32, 8, head_dim=64, tie_word_embeddings=True, **_WORDS)
_3B = _llama(3072, 8192, 28, 24, 8, head_dim=128, tie_word_embeddings=True, **_WORDS)
_60M = _llama(512, 1536, 8, 8, 4, vocab_size=32_000, tie_word_embeddings=False, max_position_embeddings=2048)
_TINY = _llama(32, 48, 4, 4, 2, vocab_size=257, tie_word_embeddings=True, max_position_embeddings=64)
_BUILTIN = _llama(128, 384, 8, 4, 2, vocab_size=2048, tie_word_embeddings=True, max_position_embeddings=512)

# By what `--size` names: the shape that most is measured with, and one that only fits with less kept.
SIZES: dict[str, tuple[Shape, ...]] = {
    "full": (
        Shape("1B", _1B, 4096, 8192, 4, steps=6, recipe=_BF16),
        Shape("3B", _3B, 4096, 4096, 4, steps=4, warm=1, recipe={**_BF16, "activation_checkpointing": 1}),
    ),
    "60m": (Shape("60M", _60M, 256, 512, 1, steps=1, warm=1, rounds=2),),
    "builtin": (Shape("built-in", _BUILTIN, 128, 2048, 1, steps=4, rounds=5),),
    "tiny": (
        Shape("tiny", _TINY, 16, 32, 2, steps=1, warm=1, recipe=_BF16),
        Shape("tiny, less kept", _TINY, 16, 32, 1, steps=1, warm=1, recipe={"activation_checkpointing": 1}),
    ),
}


def config_of(shape: Shape) -> LlamaConfig:
    """Its configuration."""
    from transformers import LlamaConfig

    return LlamaConfig(**shape.config, bos_token_id=1, eos_token_id=2, use_cache=False)


def model_of(shape: Shape, device: torch.device, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """A model with random weights, made on the device, the same for every call."""
    from transformers import LlamaForCausalLM

    torch.manual_seed(0)
    with torch.device(device):
        model = LlamaForCausalLM(config_of(shape))
    model.tie_weights()
    return model.to(dtype).train()


def batches_of(shape: Shape) -> Batches:
    """Batches of random ids."""
    length = shape.batch * (shape.steps * shape.rounds + shape.warm + 2) + 1
    ids = np.random.default_rng(0).integers(0, shape.config["vocab_size"], length).astype(np.uint32)
    return Batches(ids, shape.sequence, shape.batch // shape.sequence, 0)


def heldout_of(shape: Shape) -> np.ndarray:
    """One window of random ids."""
    ids = np.random.default_rng(1).integers(0, shape.config["vocab_size"], (1, shape.sequence + 1))
    return ids.astype(np.int64)


def recipe_of(shape: Shape, **over: Any) -> Recipe:
    """AdamW at a small rate, for as many steps as a measurement may take."""
    sizes = {"batch_tokens": shape.batch, "micro_batch_tokens": shape.micro}
    settings = {"learning_rate": 1e-4, "tokens": shape.batch * 1000, **sizes, **shape.recipe, **over}
    return Recipe(**settings)


def described(shape: Shape, folder: Path) -> Base:
    """The shape as a base on disk: its configuration, and a file that is all header, its tensors a hole."""
    with torch.device("meta"):
        from transformers import LlamaForCausalLM

        model = LlamaForCausalLM(config_of(shape))
    model.tie_weights()
    folder.mkdir(parents=True)
    config = {**config_of(shape).to_dict(), "architectures": ["LlamaForCausalLM"], "dtype": "float32"}
    (folder / "config.json").write_text(json.dumps(config))
    header, end = {}, 0
    for name, parameter in model.named_parameters():
        start, end = end, end + 4 * parameter.numel()
        header[name] = {"dtype": "F32", "shape": list(parameter.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    return find(str(folder))


def cost_of(shape: Shape, base: Base, plan: Plan) -> Cost:
    """What `tli plan` says that it costs."""
    return cost(base, plan, sequence_length=shape.sequence)


def memory_of(shape: Shape, base: Base, plan: Plan, device: torch.device, checkpointing: int = 0) -> int:
    """Bytes that `sweeps plan` says it takes to train."""
    setting = Setting(
        tokens=shape.micro, precision="bf16", checkpointing=checkpointing, pieces=PIECES[device.type],
        fused=device.type == "cuda",
    )  # fmt: skip
    return memory(base, plan, setting).total


def attention_flops(shape: Shape) -> float:
    """Of a token's attention scores, forward and backward, over the full square."""
    width = shape.config["num_attention_heads"] * shape.config.get(
        "head_dim", shape.config["hidden_size"] // shape.config["num_attention_heads"]
    )
    return 12.0 * shape.config["num_hidden_layers"] * width * shape.sequence


def gib(count: float) -> float:
    """Bytes in GiB, to two places or, where it is small, three digits."""
    found = count / 2**30
    return round(found, 2) if found >= 1 or found == 0 else round(found, 2 - math.floor(math.log10(found)))
