"""Loads a base in fp32 from safetensors, never with remote code."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from tli.argument_types import STRING, require_types
from tli.errors import CheckpointError, InputError, Problem
from tli.models.base import Base, find

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
    # Where it is installed transformers loads it, and it tells of each of its kernels that does not fit here.
    logging.getLogger("torchao").setLevel(logging.ERROR)
    logging.getLogger("torch.utils._pytree").setLevel(logging.ERROR)
    if threads is not None:
        torch.set_num_threads(threads)


def load_model(
    model: str | os.PathLike[str] | Base,
    device: str = "cpu",
    *,
    revision: str | None = None,
    allow_remote_code: bool = False,
) -> PreTrainedModel:
    """Load a causal language model in float32, in eval mode; from safetensors, and without code of its own.

    Parameters
    ----------
    model : str, path-like or Base
        A folder, a hub id, ``builtin:tiny-llama``, or what `find` found, which is not checked again.
    device : str, default "cpu"
        A torch device, as ``cuda`` or ``cuda:1``.
    revision : str, optional
        Branch, tag or commit of a hub id.
    allow_remote_code : bool, default False
        Accept a model that brings code; it is not run.

    Returns
    -------
    transformers.PreTrainedModel
        Its parameters are float32, 4 bytes each.

    Raises
    ------
    InputError
        What `find` refuses, or no device of torch.

    Examples
    --------
    >>> import tli
    >>> model = tli.load_model("my-model/")
    >>> str(model.dtype), model.training
    ('torch.float32', False)
    """
    require_types(device=(device, STRING))
    _require_device(device)
    if not isinstance(model, Base):
        model = find(model, revision=revision, allow_remote_code=allow_remote_code)
    return _loaded(model.folder, device)


def _require_device(name: str) -> None:
    import torch

    try:
        torch.device(name)
    except RuntimeError:
        expected = "a device of torch, as cpu, cuda or cuda:1"
        raise InputError(Problem("device", repr(name), expected, "cpu")) from None


def _loaded(folder: Path, device: str) -> PreTrainedModel:
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
