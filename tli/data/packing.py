"""Windows that know where documents start: ids with each token's place in its document.

A window is cut from the stream of tokens as without packing, so the same text is trained on in the same
order. What it knows beside its ids is where documents start: the places of a document that began in an
earlier window begin anew with the window, whose tokens are all that the model sees.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    import numpy as np
    import torch

Packing = Literal["stream", "documents"]
PACKINGS: tuple[Packing, ...] = get_args(Packing)


def windows_at(
    ids: np.ndarray, begins: Sequence[int], length: int, starts: np.ndarray | None = None
) -> np.ndarray:
    """Windows of a stream of tokens.

    Args:
        ids: token ids, shape [tokens].
        begins: where each window begins.
        length: tokens of a window.
        starts: where documents start, ascending; None where windows take no notice of documents.

    Returns:
        Token ids, shape [windows, length]; with `starts` shape [windows, length, 2], the second being each
        token's place in its document, from 0.
    """
    import numpy as np

    rows = np.stack([ids[begin : begin + length] for begin in begins]).astype(np.int64)
    if starts is None:
        return rows
    places = np.asarray(begins, dtype=np.int64)[:, None] + np.arange(length)
    latest = np.asarray(starts, dtype=np.int64)[np.searchsorted(starts, places, side="right") - 1]
    return np.stack([rows, places - np.maximum(latest, places[:, :1])], axis=-1)


def predicted_tokens(windows: np.ndarray | torch.Tensor) -> int:
    """How many tokens of windows are predicted: all but the first of each, and of each document in it."""
    if len(windows.shape) == 2:
        return int(windows.shape[0] * (windows.shape[1] - 1))
    return int((windows[:, 1:, 1] != 0).sum())
