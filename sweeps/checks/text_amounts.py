"""How far the text goes: what to know where there is less of it than the spec makes of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sweeps.spec import Spec
from tli.data.manifests import token_counts

_PASSES = 1.05  # over the training text by one trial, above which it is worth a word


def amount_notes(spec: Spec, train: int, heldout: int, test: int, *, about: bool = False) -> Iterator[str]:
    """What to know where there is less text than the spec makes of it.

    Args:
        spec: of the sweep.
        train: tokens of the training side.
        heldout: tokens of the held-out side.
        test: tokens of the test side.
        about: whether these are estimates.
    """
    some, data, tokens = "about " if about else "", spec.data, spec.trial.recipe.tokens
    wanted = max(1, data.eval_tokens // data.sequence_length)
    if (heldout - 1) // data.sequence_length < wanted:
        yield (
            f"held-out text: {some}{heldout:,} tokens are there, and data.eval_tokens asks for "
            f"{data.eval_tokens:,}; every loss is measured on those alone, and is the less certain for it"
        )
    if (test - 1) // data.sequence_length < max(1, data.test_tokens // data.sequence_length):
        yield (
            f"test text: {some}{test:,} tokens are there, and data.test_tokens asks for "
            f"{data.test_tokens:,}; claims rest on those alone"
        )
    takes = {"every trial takes": tokens}
    takes |= {f"budget.ladder[{n}] takes": rung for n, rung in enumerate(spec.budget.ladder)}
    for what, amount in takes.items():
        passes = amount / max(train, 1)
        if passes > _PASSES:
            yield (
                f"training text: {some}{train:,} tokens are there, and {what} {amount:,}: "
                f"{some}{passes:,.1f} passes over it (epochs)"
            )


def kept_text_notes(spec: Spec, folder: Path, digest: str) -> Iterator[str]:
    """The same of the token files of a sweep that was run; nothing where they are gone.

    Args:
        spec: of the sweep.
        folder: of token files.
        digest: of the text.
    """
    counts = token_counts(folder, digest)
    if counts is None:
        return iter(())
    return amount_notes(spec, counts["train"], counts["heldout"], counts["test"])
