"""A base in memory: fp32 weights from safetensors, never remote code."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def quieten(threads: int | None = None) -> None:
    """Set this process up for work: no progress bars of other libraries, torch held to `threads`.

    More torch threads than free cores spin against each other and cost tens of times the speed.
    """
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    if threads is not None:
        torch.set_num_threads(threads)


def load_model(folder: Path, device: str = "cpu") -> PreTrainedModel:
    """The causal language model of a folder, in fp32, in eval mode.

    Args:
        folder: a checked folder (`tli.base.find`).
        device: a torch device.
    """
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        str(folder), dtype=torch.float32, use_safetensors=True, trust_remote_code=False, local_files_only=True
    )
    return model.to(device).eval()


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True)
