"""The loss of each token, with and without the logits of all tokens in memory at once.

The logits of a large vocabulary take more memory than all else in a training pass: 8,192 tokens of 128,256
words are 4 GB in float32, and a plain cross-entropy holds four of that. So the hidden states of a large pass
go through the model's head in pieces, and of a piece nothing is kept but its losses and gradients.

The head is the model's own `forward` with its body standing still: scalings, caps and projections of an
architecture are applied by its own code. A few architectures do more around their body than that; these have
`head_apart=False` in their row of the table, and all their logits at once, as has a small pass of any model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from types import MethodType
from typing import TYPE_CHECKING, Any, cast

import torch
from torch.utils.checkpoint import checkpoint

from tli.architectures.table import FAMILIES

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SMALL = 2**25  # logits of a pass that are not worth pieces: 128 MiB in float32
# Of a piece, by the kind of device: a matrix product that keeps a GPU busy, in 2 to 4 GiB.
LOGITS_AT_ONCE = {"cuda": 2**29, "cpu": 2**26}
_SOFTMAX_AT_ONCE = 2**25  # in float32, within a piece


def token_losses(
    model: PreTrainedModel, windows: torch.Tensor, precision: str = "fp32", **inputs: torch.Tensor
) -> torch.Tensor:
    """Cross-entropy of each next token, fp32. Differentiable; a large pass is calculated again, piece by
    piece, for its gradients.

    Args:
        model: any causal language model.
        windows: token ids, shape [rows, sequence_length + 1].
        precision: fp32, or bf16 autocast.
        inputs: what the model is given beside the ids, such as `position_ids` [rows, sequence_length].

    Returns:
        Losses in nats, shape [rows * sequence_length].
    """
    if not in_pieces(model, windows):
        with _autocast(windows, precision):
            logits = model(input_ids=windows[:, :-1], use_cache=False, **inputs).logits
        return torch.nn.functional.cross_entropy(
            logits.float().flatten(0, 1), windows[:, 1:].flatten(), reduction="none"
        )
    if is_sharded(model):
        return _as_method(model)(windows, precision, inputs)
    return _losses_in_pieces(model, windows, precision, inputs)


def _losses_in_pieces(
    model: PreTrainedModel, windows: torch.Tensor, precision: str, inputs: dict[str, torch.Tensor]
) -> torch.Tensor:
    with _autocast(windows, precision):
        hidden = _hidden_states(model, windows, inputs)
        found = [
            checkpoint(_piece_losses, model, *piece, use_reentrant=False)
            for piece in _pieces(model, windows, hidden)
        ]
    return torch.cat(found)


def is_sharded(model: PreTrainedModel) -> bool:
    """Whether other processes hold parts of a model's parameters (FSDP2)."""
    return hasattr(next(model.parameters()), "device_mesh")


def _as_method(model: PreTrainedModel) -> Callable[..., torch.Tensor]:
    """The losses in pieces as a method of a sharded model, around which its root gathers its parameters."""
    name = "_losses_in_pieces"
    if not hasattr(model, name):
        from torch.distributed.fsdp import register_fsdp_forward_method

        setattr(model, name, MethodType(_losses_in_pieces, model))
        register_fsdp_forward_method(model, name)
    return cast("Callable[..., torch.Tensor]", getattr(model, name))


def add_gradients(
    model: PreTrainedModel,
    windows: torch.Tensor,
    precision: str = "fp32",
    share: float = 1.0,
    *,
    compiled: bool = False,
    **inputs: torch.Tensor,
) -> torch.Tensor:
    """Add the gradients of a share of the mean loss to those of the parameters.

    As `(token_losses(...).mean() * share).backward()`, but that each piece goes back through the head at
    once: nothing is calculated twice. But for a model that is sharded, whose gradients are reduced in one go.

    Args:
        model: any causal language model.
        windows: token ids, shape [rows, sequence_length + 1].
        precision: fp32, or bf16 autocast.
        share: of these windows in the batch.
        compiled: whether softmax and its gradient are one compiled kernel, as the layers may be.
        inputs: what the model is given beside the ids.

    Returns:
        The share of the mean loss, in nats, on the device and without a graph.
    """
    if not in_pieces(model, windows) or is_sharded(model):
        loss = token_losses(model, windows, precision, **inputs).mean() * share
        loss.backward()  # type: ignore[no-untyped-call] # torch's
        return loss.detach()
    with _autocast(windows, precision):
        hidden = _hidden_states(model, windows, inputs)
    cut = hidden.detach().requires_grad_(hidden.requires_grad)
    weight = share / windows[:, 1:].numel()
    total = torch.zeros((), device=hidden.device)
    for piece in _pieces(model, windows, cut):
        with _autocast(windows, precision):
            loss = _piece_losses(model, *piece, compiled=compiled).sum() * weight
        if loss.requires_grad:
            loss.backward()  # type: ignore[no-untyped-call] # torch's
        total += loss.detach()
    if cut.grad is not None:
        hidden.backward(cut.grad)  # type: ignore[no-untyped-call] # torch's
    return total


def in_pieces(model: PreTrainedModel, windows: torch.Tensor) -> bool:
    """Whether the logits of these windows are so many that they are calculated in pieces."""
    return windows[:, 1:].numel() * _vocabulary(model) > SMALL and _has_head_apart(model)


def _has_head_apart(model: PreTrainedModel) -> bool:
    family = FAMILIES.get(model.config.model_type)
    return family is not None and family.head_apart


def _vocabulary(model: PreTrainedModel) -> int:
    return int(model.config.get_text_config(decoder=True).vocab_size)


def _autocast(windows: torch.Tensor, precision: str) -> torch.autocast:
    return torch.autocast(windows.device.type, torch.bfloat16, enabled=precision == "bf16")


def _body(model: PreTrainedModel) -> torch.nn.Module:
    """The module whose output the head reads."""
    body: torch.nn.Module = model.base_model
    if body is model:
        body = cast("Any", model).get_decoder()
    if body is model:  # as of a text model that bears the prefix of a larger one
        body = model.get_submodule(FAMILIES[cast("Any", model).config.model_type].layers.rpartition(".")[0])
    # A decoder alone is wrapped once more in the classes of some encoder-decoders.
    inner = getattr(body, "decoder", None)
    return inner if isinstance(inner, torch.nn.Module) and not hasattr(body, "embed_tokens") else body


def _hidden_states(
    model: PreTrainedModel, windows: torch.Tensor, inputs: dict[str, torch.Tensor]
) -> torch.Tensor:
    """What the head is given, shape [rows, sequence_length, width]."""
    found: torch.Tensor = _body(model)(input_ids=windows[:, :-1], use_cache=False, **inputs)[0]
    return found


def _pieces(
    model: PreTrainedModel, windows: torch.Tensor, hidden: torch.Tensor
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Pieces of equal size, but for the last: ids and hidden states of tokens in a row, and the next ids."""
    most = LOGITS_AT_ONCE.get(windows.device.type, LOGITS_AT_ONCE["cpu"])
    rows = max(1, most // _vocabulary(model))
    flat = (windows[:, :-1].flatten(), hidden.flatten(0, 1), windows[:, 1:].flatten())
    return zip(*(torch.split(each, rows) for each in flat), strict=True)


def _piece_losses(
    model: PreTrainedModel,
    ids: torch.Tensor,
    hidden: torch.Tensor,
    targets: torch.Tensor,
    *,
    compiled: bool = False,
) -> torch.Tensor:
    """Losses of tokens in a row, of their hidden states [tokens, width]."""
    with _standing_still(_body(model), hidden[None]):
        # Not by calling the model: hooks of a sharded one run once a pass, around all of this.
        logits: torch.Tensor = model.forward(input_ids=ids[None], use_cache=False).logits[0]
    found: torch.Tensor = _CrossEntropy.apply(logits, targets, compiled)  # type: ignore[no-untyped-call] # torch's
    return found


@contextmanager
def _standing_still(body: torch.nn.Module, hidden: torch.Tensor) -> Iterator[None]:
    """Within, the body gives these hidden states, whatever it is called with."""
    from transformers.modeling_outputs import BaseModelOutputWithPast

    class _Output(BaseModelOutputWithPast):  # type: ignore[misc] # of an untyped library
        """Hidden states, and nothing of what else a body may be asked for."""

        def __getattr__(self, _name: str) -> None:
            return None

    def forward(*_given: Any, **_named: Any) -> Any:
        return _Output(last_hidden_state=hidden)

    own = body.__dict__.get("forward")  # of a layer or body that was wrapped
    body.forward = forward
    try:
        yield
    finally:
        if own is None:
            del body.forward
        else:
            body.forward = own


class _CrossEntropy(torch.autograd.Function):
    """Cross-entropy of each row of logits, whose gradient is calculated with it, in the type of the logits.

    Softmax is in float32, over a few rows at once: beside the logits there is one tensor of their size, where
    the plain way holds three in float32.
    """

    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, targets: torch.Tensor, compiled: bool) -> torch.Tensor:  # noqa: FBT001
        """Losses, shape [rows], of logits [rows, vocabulary] and targets [rows]."""
        wanted = targets[:, None]
        if compiled and ctx.needs_input_grad[0]:
            losses, gradient = _compiled()(logits, wanted)
            ctx.save_for_backward(gradient)
            return cast("torch.Tensor", losses)
        rows = max(1, _SOFTMAX_AT_ONCE // logits.shape[-1])
        gradient = torch.empty_like(logits) if ctx.needs_input_grad[0] else None
        losses = torch.empty(len(logits), dtype=torch.float32, device=logits.device)
        for start in range(0, len(logits), rows):
            part = slice(start, start + rows)
            logarithms = torch.log_softmax(logits[part], dim=-1, dtype=torch.float32)
            losses[part] = -logarithms.gather(-1, wanted[part])[:, 0]
            if gradient is not None:
                chances = logarithms.exp_()
                chances.scatter_add_(-1, wanted[part], chances.new_full((1, 1), -1.0).expand_as(wanted[part]))
                gradient[part] = chances
        if gradient is not None:
            ctx.save_for_backward(gradient)  # which a checkpoint around this does not keep
        return losses

    @staticmethod
    def backward(ctx: Any, upstream: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        """Once: the gradient is weighted in place."""
        (gradient,) = ctx.saved_tensors
        return gradient.mul_(upstream[:, None]), None, None


def _losses_and_gradient(logits: torch.Tensor, wanted: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Losses of each row, and their gradient by the logits; to be compiled, so that no more is stored."""
    logarithms = torch.log_softmax(logits.float(), dim=-1)
    hit = torch.arange(logits.shape[-1], device=logits.device) == wanted
    losses = -torch.where(hit, logarithms, 0.0).sum(-1)
    return losses, (logarithms.exp() - hit.float()).to(logits.dtype)


@cache
def _compiled() -> Any:
    return torch.compile(_losses_and_gradient, fullgraph=True, dynamic=False)
