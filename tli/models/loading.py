"""Loads a base in fp32 from safetensors, never with remote code."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tli.errors import CheckpointError, Problem

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
        folder: a checked folder (`tli.models.base.find`).
        device: a torch device.
    """
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        str(folder), dtype=torch.float32, use_safetensors=True, trust_remote_code=False, local_files_only=True
    )
    return model.to(device).eval()


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder.

    Raises:
        CheckpointError: there is none, or none that can be loaded.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True)
    except Exception as error:  # noqa: BLE001 - the library raises a dozen kinds for one mistake
        reason = " ".join((str(error) or type(error).__name__).split())[:120]
        raise CheckpointError(_no_tokenizer(folder, f" that can be loaded ({reason})")) from None
    # For some architectures transformers makes up one that knows its special tokens and nothing else.
    if len(tokenizer) <= len(tokenizer.get_added_vocab()):
        raise CheckpointError(_no_tokenizer(folder))
    return tokenizer


def _no_tokenizer(folder: Path, reason: str = "") -> Problem:
    expected = "the model's tokenizer beside its weights"
    return Problem(str(folder), f"no tokenizer{reason}", expected, "copying tokenizer.json of the original")
