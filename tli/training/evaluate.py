"""Held-out loss, and the readings of it: perplexity, and bits per byte, which compare across tokenizers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tli.argument_types import WHOLE, Kind, instance_of, require_types
from tli.errors import DataError, Problem
from tli.training.ranks import ranks_of

if TYPE_CHECKING:
    import numpy as np
    import torch
    from transformers import PreTrainedModel

    from tli.data.token_bytes import TokenBytes

WINDOWS = Kind("ids, as an array or tensor", attributes=("shape", "dtype", "min", "max"))
TOKENS_AT_ONCE = 4096  # bounds the memory of a pass


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` measured.

    Attributes
    ----------
    loss : float
        Mean cross-entropy, nats per token.
    tokens : int
        How many were predicted.
    bits_per_byte : float or None
        Loss of the predicted tokens that stand for text, in bits for each UTF-8 byte of just those tokens: it
        compares across tokenizers. Special tokens are left out of both. None where bytes were not given.
    """

    loss: float
    tokens: int
    bits_per_byte: float | None = None

    @property
    def perplexity(self) -> float:
        """exp(loss)."""
        return math.exp(self.loss)


def evaluate(
    model: PreTrainedModel,
    windows: np.ndarray | torch.Tensor,
    *,
    at_once: int = TOKENS_AT_ONCE,
    sizes: TokenBytes | None = None,
) -> Evaluation:
    """Measure the mean loss of a model on token ids.

    At the precision of its weights, however it was trained: losses of different recipes compare, and a
    written model has the loss that was measured.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Any causal language model; its mode (train or eval) is kept.
    windows : array or tensor of int
        Token ids, shape [windows, sequence_length + 1]: each but the first of a window is predicted. Packed
        (`tli.data.packing`), with a last side of 2: each but the first of a document, which sees no other.
    at_once : int, default 4096
        Most tokens that go through the model together, but for one window at least; changes the memory that
        is needed, and the loss by no more than rounding.
    sizes : tli.data.token_bytes.TokenBytes, optional
        How many bytes each token stands for (`tli.data.token_bytes.token_bytes`), for bits per byte.

    Returns
    -------
    Evaluation
        ``loss`` in nats per token, over ``tokens`` predicted ones; with `sizes`, ``bits_per_byte``.

    Raises
    ------
    InputError
        No model, windows of another shape, no whole numbers, no ids of the model's vocabulary, or packed
        windows for a model that does not keep documents apart.

    Examples
    --------
    >>> import numpy, tli
    >>> model = tli.load_model("my-model/")
    >>> windows = numpy.arange(34).reshape(2, 17)
    >>> found = tli.evaluate(model, windows)
    >>> found.tokens, found.loss > 0
    (32, True)
    """
    import numpy as np
    import torch

    from tli.data.packing import predicted_tokens
    from tli.training.losses import token_losses
    from tli.training.packed import require_packing

    expected = "a model of transformers"
    require_types(
        model=(model, instance_of(torch.nn.Module, expected, 'tli.load_model("my-model/")')),
        windows=(windows, WINDOWS),
        at_once=(at_once, WHOLE),
    )
    _refuse_others(windows, model.get_input_embeddings().num_embeddings)
    if windows.ndim == 3:
        require_packing(model, windows.shape[1] - 1, "windows")
    rows = max(1, at_once // (windows.shape[1] - 1))
    ranks = ranks_of(model)
    own = windows[ranks.rank :: ranks.size]
    passes = -(-len(windows[:: ranks.size]) // rows)  # of rank 0, which has the most
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    total = torch.zeros(2, dtype=torch.float64, device=device)  # of all tokens, and of those that are text
    with torch.no_grad():
        for start in range(0, passes * rows, rows):
            part = own[start : start + rows]
            # Layers are gathered from all ranks: one that has no windows left computes beside the others.
            losses = token_losses(model, torch.as_tensor(part if len(part) else windows[:1]).to(device))
            if len(part):
                total[0] += losses.double().sum()
            if len(part) and sizes is not None:
                scored = torch.as_tensor(sizes.scored(np.asarray(part)).ravel()).to(device)
                total[1] += (losses.double() * scored).sum()
    model.train(was_training)
    count = max(1, predicted_tokens(windows))
    loss = ranks.total(float(total[0])) / count
    if sizes is None:
        return Evaluation(loss, count)
    nats, size = ranks.total(float(total[1])), sizes.count(np.asarray(windows))
    return Evaluation(loss, count, nats / math.log(2) / size if size else None)


def _refuse_others(windows: np.ndarray | torch.Tensor, vocabulary: int) -> None:
    """Raises DataError for windows that are none."""
    shape = tuple(windows.shape)
    whole = str(windows.dtype).rpartition(".")[2].lstrip("u").startswith("int")
    got = "" if whole else f"numbers of type {windows.dtype}"
    if len(shape) not in (2, 3) or shape[0] < 1 or shape[1] < 2 or shape[2:] not in ((), (2,)):
        got = f"shape {list(shape)}"
    ids = windows if got or len(shape) == 2 else windows[..., 0]
    if not got and not (int(ids.min()) >= 0 and int(ids.max()) < vocabulary):
        got = f"ids from {int(ids.min())} to {int(ids.max())}"
    if got:
        expected = f"ids from 0 to {vocabulary - 1} of shape [windows, sequence_length + 1]"
        raise DataError(Problem("windows", got, expected, "ids of this model's tokenizer"))
