"""Whether the losses of several sweeps can be compared: over one base, one text, measured alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sweeps.commands import command
from sweeps.errors import Problem
from sweeps.results.sweep import Sweep

_TEXT = ("shown", "heldout", "heldout_fraction", "text_field", "split", "sources", "measured_only")
_MEASURED = ("sequence_length", "eval_tokens")


def differences(sweeps: Sequence[Sweep]) -> Iterator[Problem]:
    """What makes the losses of sweeps those of different things: base, text, or how it was measured.

    Bases and texts go by their digests in the studies, so that a folder may have moved.
    """
    first, *others = sweeps
    for other in others:
        runs = other.folders.artifacts
        for what, ours, theirs in _told_apart(first, other):
            yield Problem(
                other.spec.name,
                f"{what} {theirs}",
                f"{ours}, as {first.spec.name} has: losses over different {_plural(what)} are not comparable",
                f"each beside its own control: {command('best', other.spec.name, runs=runs)}",
            )


def _told_apart(one: Sweep, other: Sweep) -> Iterator[tuple[str, str, str]]:
    named = {
        "base": ([sweep.spec.base.model, sweep.spec.base.revision] for sweep in (one, other)),
        "text": ([getattr(sweep.spec.data, field) for field in _TEXT] for sweep in (one, other)),
    }
    for what, (ours, theirs) in named.items():
        known = [sweep.ledger.study.input_digests.get(what) for sweep in (one, other)]
        by_digest = None not in known
        if (known[0] != known[1]) if by_digest else (ours != theirs):
            digests = [f" (digest {digest[:12]})" if digest else "" for digest in known]
            yield what, f"{ours[0]!r}{digests[0]}", f"{theirs[0]!r}{digests[1]}"
    for field in _MEASURED:
        values = [getattr(sweep.spec.data, field) for sweep in (one, other)]
        if values[0] != values[1]:
            yield f"data.{field}", *map(str, values)  # type: ignore[misc]


def _plural(what: str) -> str:
    return {"base": "bases", "text": "texts", "data.sequence_length": "lengths"}.get(what, "held-out batches")
