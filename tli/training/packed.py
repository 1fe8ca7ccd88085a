"""Packed windows in a model: documents in one row that do not see each other.

transformers makes the attention's mask of the positions, which start anew with each document, as long as it
is given no mask and keeps no cache. An architecture that takes no positions, or carries a state along, mixes
the documents all the same: whether a model keeps them apart is tried, not looked up.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import torch

from tli.architectures.config import DEPTH_KEYS
from tli.errors import InputError, Problem
from tli.training.ranks import ranks_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from tli.models.base import Base

_NEAR = (
    1e-3  # of logits' deviation: rounding is a hundred times smaller, another document a hundred times larger
)
_LENGTH = 48  # tokens of a row that a small model is tried with, and its sizes
_NARROW, _WORDS, _NOISE = 64, 512, 0.05
_BEGINNING = 8  # tokens of a document, in which a state or a convolution that is carried on shows most
_known: WeakKeyDictionary[torch.nn.Module, dict[int, list[Problem]]] = WeakKeyDictionary()


def split_packed(windows: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor], torch.Tensor]:
    """What packed windows hold.

    Args:
        windows: shape [rows, sequence_length + 1, 2], ids and each token's place in its document.

    Returns:
        The ids, shape [rows, sequence_length + 1]; what the model is given beside them; and which next tokens
        are predicted, shape [rows * sequence_length]: all but the first of a document.
    """
    ids, places = windows.unbind(-1)
    return ids, {"position_ids": places[:, :-1]}, places[:, 1:].flatten() != 0


def share_of(part: torch.Tensor, rows: torch.Tensor) -> float | torch.Tensor:
    """Of the tokens that are predicted in all rows of windows, how many are in a part of these."""
    if rows.ndim == 2:
        return len(part) / len(rows)
    return torch.count_nonzero(part[:, 1:, 1]) / torch.count_nonzero(rows[:, 1:, 1]).clamp(min=1)


def require_no_mask(inputs: Collection[str]) -> None:
    """Refuses what would switch the separation of packed documents off without a word.

    Args:
        inputs: names of what a model is to be given beside packed windows.

    Raises:
        InputError: a mask, or a cache.
    """
    wrong = [name for name in ("attention_mask", "use_cache", "past_key_values") if name in inputs]
    if wrong:
        expected = "packed windows alone: beside a mask or a cache, documents see each other"
        raise InputError(*(Problem(name, "given with packed windows", expected, "stream") for name in wrong))


def packing_problems(
    model: PreTrainedModel, sequence_length: int, where: str = "data.packing"
) -> list[Problem]:
    """That a model does not keep packed documents apart: found by trying two, alone and packed, once a model.

    Args:
        model: any causal language model, as it is trained; its mode is kept.
        sequence_length: of the windows that it is to be trained on.
        where: the setting's place in messages.

    Returns:
        One problem, or none.
    """
    known = _known.setdefault(model, {})
    if sequence_length not in known:
        was_training = model.training
        model.eval()
        with torch.no_grad():
            known[sequence_length] = _tried(model, sequence_length)
        model.train(was_training)
    return [replace(problem, where=where) for problem in known[sequence_length]]


def _tried(model: PreTrainedModel, sequence_length: int) -> list[Problem]:
    expected = "a model that keeps documents apart by the positions of their tokens"
    first = max(1, sequence_length // 3)
    lengths = (first, max(1, sequence_length - first))
    device = next(model.parameters()).device
    vocabulary = model.get_input_embeddings().num_embeddings
    drawn = torch.Generator().manual_seed(0)
    one, other = (torch.randint(0, vocabulary, (1, each), generator=drawn).to(device) for each in lengths)
    ids = torch.cat([torch.cat([one, other], 1), torch.cat([other, one], 1)])
    counted = [torch.arange(each) for each in lengths]
    places = torch.stack([torch.cat(counted), torch.cat(counted[::-1])]).to(device)
    try:
        alone = [model(input_ids=each, use_cache=False).logits[0].float() for each in (one, other)]
        packed = model(input_ids=ids, position_ids=places, use_cache=False).logits.float()
    except (TypeError, ValueError, RuntimeError, IndexError, NotImplementedError) as error:
        if ranks_of(model).size > 1 and isinstance(error, RuntimeError):
            raise  # perhaps of a rank that is gone; the base was tried before by one process
        got = f"'documents', with which {model.config.model_type!r} cannot be run ({_line(error)})"
        return [Problem("", got, expected, "stream")]
    near = _NEAR * float(torch.cat(alone).std())
    for row, length, wanted in ((packed[0], lengths[0], alone[1]), (packed[1], lengths[1], alone[0])):
        # Token by token: a router that rounding tips over changes one, another document all of them.
        apart = (row[length:] - wanted).abs().amax(-1)
        if float(apart[:_BEGINNING].max()) > near or float(apart.median()) > near:
            got = f"'documents', which {model.config.model_type!r} mixes: one depends on the one before it"
            return [Problem("", got, expected, "stream")]
    return []


def require_packing(model: PreTrainedModel, sequence_length: int, where: str = "data.packing") -> None:
    """Raises InputError where `packing_problems` finds something."""
    if problems := packing_problems(model, sequence_length, where):
        raise InputError(*problems)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:80] or type(error).__name__


def base_problems(base: Base, sequence_length: int, where: str = "data.packing") -> list[Problem]:
    """What `packing_problems` finds of a small model of the base's architecture, with weights that are drawn.

    None where no such model can be made: then the base itself is tried before it is trained.
    """
    try:
        small = _stand_in(base)
    except Exception:  # noqa: BLE001 - configurations refuse small sizes in ways of their own
        return []
    return packing_problems(small, min(sequence_length, _LENGTH), where)


def _stand_in(base: Base) -> PreTrainedModel:
    """A model of the base's configuration, of small sizes and as few layers as show all of its kinds."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(base.folder)
    for part in {id(each): each for each in (config, config.get_text_config(decoder=True))}.values():
        kinds = getattr(part, "layer_types", None) or []
        depth = max([2, *(kinds.index(kind) + 1 for kind in kinds)])
        for name in DEPTH_KEYS:
            if isinstance(getattr(part, name, None), int):
                setattr(part, name, min(depth, getattr(part, name)))
        if kinds:
            with suppress(AttributeError):  # of some it follows from other settings
                part.layer_types = list(kinds[:depth])
        sizes = {"intermediate_size": _NARROW, "moe_intermediate_size": _NARROW, "vocab_size": _WORDS}
        for name, size in sizes.items():
            if isinstance(getattr(part, name, None), int):
                setattr(part, name, min(size, getattr(part, name)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        for weight in made.parameters():  # zeros, as of some gates, would hide what is behind them
            weight.data.add_(torch.randn_like(weight), alpha=_NOISE)
    return made
