"""How much each layer changes the hidden state, measured on text: where a new layer disturbs least."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tli.base import Base
from tli.corpus import STDLIB, documents, stdlib_documents
from tli.errors import CheckpointError, DataError, Problem
from tli.families import family_of, loading_problems
from tli.quantised import training_problems

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor
    from transformers import PreTrainedModel

SEQUENCE = 128  # tokens of one sequence, or the model's context where that is shorter
SEQUENCES = 32


def layer_changes(model: PreTrainedModel, tokens: Tensor | np.ndarray) -> tuple[float, ...]:
    """One minus the cosine between a layer's input and output, the mean over positions; for each layer.

    This is the block influence of arXiv 2403.03853. `tokens` are ids of shape (sequences, length). Raises
    FamilyError for an architecture whose layers are not known.
    """
    import torch

    layers = model.get_submodule(family_of(model.config.model_type, "model_type").layers)
    changes = [0.0] * len(layers)

    def watch(index: int) -> Any:
        def look(_module: Any, given: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
            before = given[0] if given else named["hidden_states"]
            after = output[0] if isinstance(output, tuple) else output
            cosine = torch.cosine_similarity(before.float(), after.float(), dim=-1)
            changes[index] += (1 - cosine).mean().item() / len(tokens)

        return look

    watched = [layer.register_forward_hook(watch(i), with_kwargs=True) for i, layer in enumerate(layers)]
    training = model.training
    try:
        with torch.no_grad():
            for sequence in torch.as_tensor(tokens, device=model.device):
                model.eval()(sequence[None], use_cache=False)
    finally:
        model.train(training)
        for hook in watched:
            hook.remove()
    return tuple(changes)


def measure(base: Base, source: str, *, where: str = "text") -> tuple[float, ...]:
    """`layer_changes` of a base model on the beginning of a text, of at most 32 sequences of 128 tokens.

    `source` is builtin:stdlib or names files. Raises DataError where
    there is no text, or too little of it, and CheckpointError for quantised weights.
    """
    import torch

    from tli.loading import load_model, load_tokenizer

    family = family_of(base.facts.model_type)
    problems = training_problems(base) + loading_problems(family)
    if problems:
        raise CheckpointError(*problems)
    length = min(SEQUENCE, base.facts.context or SEQUENCE)
    tokenizer = load_tokenizer(base.folder)
    ids: list[int] = []
    found = stdlib_documents(heldout=False) if source == STDLIB else documents(source)
    for document in found:
        ids += tokenizer.encode(document.text, add_special_tokens=False)
        if len(ids) >= SEQUENCES * length:
            break
    count = min(SEQUENCES, len(ids) // length)
    if not count:
        raise DataError(Problem(where, f"{len(ids)} tokens", f"at least {length}, one sequence", "more text"))
    return layer_changes(load_model(base.folder), torch.tensor(ids[: count * length]).reshape(count, length))
