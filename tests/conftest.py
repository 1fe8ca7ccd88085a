"""Fixtures for all tests: tiny real models, saved once a session, and one thread for everything."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported; programs that tests start inherit it
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# Some hundred processes start here: without bytecode each of them would compile our modules for half a second.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

settings.register_profile("anywhere", deadline=None)  # a busy machine is no fault of what is tested
settings.load_profile("anywhere")

_LLAMA = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
_GPT = {"n_embd": 32, "n_layer": 4, "n_head": 4, "n_positions": 64}
_NEOX = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4}

TINY: dict[str, dict[str, Any]] = {
    "llama": {**_LLAMA, "tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True},
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": {**_LLAMA, "head_dim": 8},
    "gpt2": _GPT,
    "gpt_neox": {**_NEOX, "max_position_embeddings": 64},
    "phi3": {**_LLAMA, "pad_token_id": 0},
    "granite": _LLAMA,
    "olmo": _LLAMA,
    "stablelm": _LLAMA,
    "smollm3": {**_LLAMA, "pad_token_id": 0},
    "starcoder2": _LLAMA,
    "phi": _LLAMA,
    "gptj": {**_GPT, "rotary_dim": 4},
    "bloom": {"hidden_size": 32, "n_layer": 4, "n_head": 4},
}
VOCABULARY = 257  # every byte, and the end of a text

SaveModel = Callable[..., Path]


def pytest_collection_finish() -> None:
    """What was imported and collected stays: no collection of garbage looks through its million objects again."""
    gc.collect()
    gc.freeze()


def _tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: number for number, letter in enumerate(letters)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>")


def save_tiny_model(
    folder: Path,
    model_type: str = "llama",
    *,
    dtype: str = "float32",
    shard: str = "1GB",
    seed: int = 0,
    **config: Any,
) -> Path:
    """Save a random model and a byte tokenizer."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()  # would stand among what a test reads of standard error
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    ends = {"bos_token_id": VOCABULARY - 1, "eos_token_id": VOCABULARY - 1}
    given = {"vocab_size": VOCABULARY, **ends, **TINY.get(model_type, {}), **config}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **given))
    with torch.no_grad():
        # Biases and gains that are not zero and one, so that a test sees which of them were touched.
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model.to(getattr(torch, dtype)).save_pretrained(folder, max_shard_size=shard)
    _tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def save_model() -> SaveModel:
    """`save_model(folder, "qwen3", dtype=..., shard=..., **config)`: a random model and a byte tokenizer."""
    return save_tiny_model


@pytest.fixture(scope="session")
def tiny_model(save_model: SaveModel, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`tiny_model("llama")`: the folder of a random 4-layer model of width 32. Shared: do not change it."""
    root = tmp_path_factory.mktemp("models")

    def folder(model_type: str = "llama") -> Path:
        path = root / model_type
        return path if path.exists() else save_model(path, model_type)

    return folder


@pytest.fixture
def tokens() -> Any:
    """A batch of token ids, shape (2, 12), without the end of text."""
    import torch

    return torch.randint(0, VOCABULARY - 1, (2, 12), generator=torch.Generator().manual_seed(1))
