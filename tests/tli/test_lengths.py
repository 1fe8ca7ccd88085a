"""A text as long as a model is said to take runs, and what is too long is refused before a sweep starts."""

from __future__ import annotations

import pytest
import torch

from tests.tli.registry import rows, tiny
from tests.tli.test_registry import GROWN
from tli.architectures.lengths import context_of, length_problems

# Positions by another name, behind the padding token's id, in a section, and without a limit.
SELECTED = ("llama", "gemma3", "mpt", "whisper", "roberta", "xmod", "prophetnet", "bloom")
UNLIMITED = 100  # tokens for a model that sets no limit


@pytest.mark.parametrize(
    "model_type", [pytest.param(name, marks=() if name in SELECTED else pytest.mark.slow) for name in GROWN]
)
def test_a_text_of_the_whole_context_runs(model_type: str) -> None:
    model = tiny(model_type)
    length = context_of(model.config.to_dict()) or UNLIMITED
    tokens = torch.randint(1, 256, (1, length), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.isfinite(model(input_ids=tokens, use_cache=False).logits).all()
    told = length_problems(
        model.config.to_dict(), rows().get(model_type, {}).get("train_length", 16), "here", "it"
    )
    assert told == []


@pytest.mark.parametrize("model_type", ["mpt", "whisper", "roberta", "prophetnet", "gpt2", "gemma3"])
def test_what_is_longer_is_refused(model_type: str) -> None:
    config = tiny(model_type).config.to_dict()
    context = context_of(config)
    assert context is not None
    assert length_problems(config, context, "here", "it") == []
    (problem,) = length_problems(config, context + 1, "here", "it")
    assert (problem.where, problem.got, problem.remedy) == ("here", str(context + 1), str(context))


def test_a_table_of_positions_takes_one_length() -> None:
    config = tiny("reformer").config.to_dict()
    assert [length_problems(config, length, "here", "it") == [] for length in (16, 63, 64)] == [
        False,
        False,
        True,
    ]
    chunked = {**config, "axial_pos_embds": False}
    assert [length_problems(chunked, length, "here", "it") == [] for length in (16, 18)] == [True, False]
