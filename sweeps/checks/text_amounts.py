"""How far the text goes: what to know where there is less of it than the spec makes of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from sweeps.spec import Spec
from sweeps.spec.data_settings import SINGLE
from tli.data.manifests import token_counts
from tli.data.portions import shares

_PASSES = 1.05  # over the training text by one trial, above which it is worth a word


def amount_notes(
    spec: Spec, name: str, train: int, heldout: int, test: int, *, about: bool = False
) -> Iterator[str]:
    """What to know of one text where there is less of it than the spec makes of it.

    Args:
        spec: of the sweep.
        name: of the text.
        train: tokens of the training side.
        heldout: tokens of the held-out side.
        test: tokens of the test side.
        about: whether these are estimates.
    """
    some, data = "about " if about else "", spec.data
    of = f" of {name}" if data.named else ""
    share = shares(data.portions()).get(name)  # None of a text that is only measured
    wanted = {"eval_tokens": data.eval_tokens // data.texts, "test_tokens": data.test_tokens // data.texts}
    if (heldout - 1) // data.sequence_length < max(1, wanted["eval_tokens"] // data.sequence_length):
        yield (
            f"held-out text{of}: {some}{heldout:,} tokens are there, and data.eval_tokens asks for "
            f"{wanted['eval_tokens']:,}; every loss is measured on those alone, "
            "and is the less certain for it"
        )
    if (test - 1) // data.sequence_length < max(1, wanted["test_tokens"] // data.sequence_length):
        yield (
            f"test text{of}: {some}{test:,} tokens are there, and data.test_tokens asks for "
            f"{wanted['test_tokens']:,}; claims rest on those alone"
        )
    takes = {"every trial takes": spec.trial.recipe.tokens}
    takes |= {f"budget.ladder[{n}] takes": rung for n, rung in enumerate(spec.budget.ladder)}
    for what, amount in takes.items():
        tokens = round(amount * (share or 0.0))
        passes = tokens / max(train, 1)
        if passes > _PASSES:
            yield (
                f"training text{of}: {some}{train:,} tokens are there, and {what} {tokens:,}: "
                f"{some}{passes:,.1f} passes over it (epochs)"
            )


def mixture_notes(spec: Spec, train: Mapping[str, int], *, about: bool = False) -> Iterator[str]:
    """The share of each of several texts, and how often a trial passes over it.

    Args:
        spec: of the sweep.
        train: tokens of each training side, of those texts where that is known.
        about: whether these are estimates.
    """
    found = shares(spec.data.portions())
    if len(found) < 2:
        return
    some = "about " if about else ""
    parts = []
    for name, share in found.items():
        passes = ""
        if name in train:
            over = spec.trial.recipe.tokens * share / max(train[name], 1)
            passes = f" ({some}{over:,.2g} passes over its text{', which begins again' * (over > 1)})"
        parts.append(f"{100 * share:.3g} % {name}{passes}")
    yield f"every batch is {', '.join(parts)}"


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
    return amount_notes(spec, SINGLE, counts["train"], counts["heldout"], counts["test"])
