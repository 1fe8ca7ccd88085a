"""Every registered causal-LM type has a tiny model that runs, or a reason why not, which still holds."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.tli.registry import VOCABULARY, model_types, rows, tiny

LENGTH = 12


def logits(model_type: str) -> Tensor:
    """Of one text of 12 tokens, shape (12, vocabulary)."""
    text = torch.randint(1, VOCABULARY - 1, (1, LENGTH), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found: Tensor = tiny(model_type)(input_ids=text).logits
    assert found.shape == (1, LENGTH, VOCABULARY)
    return found[0]


@pytest.mark.parametrize("model_type", model_types())
def test_every_type_runs_or_says_why_not(model_type: str) -> None:
    row = rows().get(model_type, {})
    if "cannot" in row:
        # Where it runs after all, or fails by something else, the reason is out of date.
        with pytest.raises((AttributeError, ImportError, ValueError), match=row["raises"]):
            logits(model_type)
        return
    found = logits(model_type)
    assert torch.isfinite(found).all()
    assert found.std(dim=0).min() > 0, "a logit that is the same at every position"
    assert found.abs().max() < 1e3


def test_rows_are_of_registered_types_and_say_something() -> None:
    assert sorted(set(rows()) - set(model_types())) == []
    known = {
        "settings",
        "cannot",
        "raises",
        "no_cache",
        "no_reload",
        "plan",
        "to_grow",
        "no_bfloat16",
        "train_length",
        "scan",
        "not_counted",
    }
    assert {
        name: sorted(set(row) - known) for name, row in rows().items() if not row or set(row) - known
    } == {}
    assert [name for name, row in rows().items() if ("cannot" in row) != ("raises" in row)] == []


def test_at_least_95_in_100_types_run() -> None:
    refused = [name for name, row in rows().items() if "cannot" in row]
    assert len(refused) <= 0.05 * len(model_types()), refused
