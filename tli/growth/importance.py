"""Block influence: how much each layer changes the hidden state, measured on text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tli.architectures.lookup import family_of, loading_problems
from tli.data.dataset import Source
from tli.data.encode import Encoder
from tli.data.split import always_trained
from tli.errors import CheckpointError, DataError, Problem
from tli.models.base import Base
from tli.models.quantised import training_problems

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor
    from transformers import PreTrainedModel

SEQUENCE = 128  # tokens of one sequence, or the model's context where that is shorter
SEQUENCES = 32
_CHARACTERS = 32  # of a token at most, or nearly so: more of a document need not be tokenised


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


def measure(
    base: Base, source: Source, *, model: PreTrainedModel | None = None, where: str = "text"
) -> tuple[float, ...]:
    """`layer_changes` of a base on the beginning of a text, of at most 32 sequences of 128 tokens.

    The text is what is trained on under every split of the source by a share of up to one half
    (`tli.data.split.always_trained`): the same for a plan and for every sweep on that source, and never
    held out.

    Args:
        base: the model, and its tokenizer.
        source: builtin:stdlib, files, or a dataset.
        model: the base where it is in memory already.
        where: the setting or option that names the text, for messages.

    Raises:
        DataError: there is no text, or too little of it.
        CheckpointError: quantised weights, or no tokenizer.
    """
    import torch

    from tli.models.loading import load_model, load_tokenizer

    family = family_of(base.facts.model_type)
    problems = training_problems(base) + loading_problems(family)
    if problems:
        raise CheckpointError(*problems)
    length = min(SEQUENCE, base.facts.context or SEQUENCE)
    encoder = Encoder(load_tokenizer(base.folder), base.folder, "int64")
    wanted = SEQUENCES * length
    ids: list[int] = []
    for document in always_trained(source):
        for chunk in document.chunks():
            ids += encoder.ids([chunk[: wanted * _CHARACTERS]])[0]
            if len(ids) >= wanted:
                break
        if len(ids) >= wanted:
            break
    count = min(SEQUENCES, len(ids) // length)
    if not count:
        raise DataError(Problem(where, f"{len(ids)} tokens", f"at least {length}, one sequence", "more text"))
    tokens = torch.tensor(ids[: count * length]).reshape(count, length)
    return layer_changes(model if model is not None else load_model(base), tokens)
