"""How many tokens of held-out and of test text are measured."""

from __future__ import annotations

from sweeps.spec import Spec


def measured_tokens(spec: Spec, heldout: int | None = None) -> int:
    """Held-out tokens that one whole trial is measured on, over all its measurements: whole sequences.

    Args:
        spec: a checked spec.
        heldout: tokens of held-out text that are there; None where that is not known.
    """
    return len(spec.report_steps()) * _whole_windows(spec, spec.data.eval_tokens, heldout)


def tokens_of_the_test(spec: Spec, heldout: int | None = None) -> int:
    """Test tokens that each run under a fresh seed is measured on after its last step: whole sequences.

    Args:
        spec: a checked spec.
        heldout: tokens of held-out text that are there, of test text as many; None where that is not known.
    """
    return _whole_windows(spec, spec.data.test_tokens, heldout)


def _whole_windows(spec: Spec, tokens: int, available: int | None) -> int:
    """So many tokens in whole sequences, of those that are there."""
    length = spec.data.sequence_length
    windows = tokens // length
    if available is not None:
        windows = min(windows, max(available - 1, 0) // length)
    return windows * length
