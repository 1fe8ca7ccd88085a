"""The loss in pieces is the plain loss, with its gradients, for every architecture, and holds no more logits."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel
from transformers.utils import logging

from tests.tli.registry import VOCABULARY, model_types, rows, tiny
from tli.architectures.table import FAMILIES
from tli.models.loading import load_model
from tli.training import losses
from tli.training.losses import add_gradients, in_pieces, token_losses

Tiny = Callable[[str], Path]
GROWN = [
    name for name in model_types() if FAMILIES[name].refused is None and "cannot" not in rows().get(name, {})
]
# Tied, capped, scaled, projected; a head behind a part of its own; layers with experts; and the plain way.
FEW = ("llama", "gemma2", "cohere", "opt", "bert", "llama4", "cpmant", "mixtral", "prophetnet")
PIECE = 9  # tokens


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    logging.set_verbosity_error()
    monkeypatch.setattr(losses, "SMALL", 0)
    monkeypatch.setattr(losses, "LOGITS_AT_ONCE", {"cpu": PIECE * VOCABULARY})
    monkeypatch.setattr(losses, "_SOFTMAX_AT_ONCE", 4 * VOCABULARY)
    yield
    logging.set_verbosity_warning()


def model_of(model_type: str) -> PreTrainedModel:
    """In training mode, which some types need for gradients; none of them draws a number."""
    model = tiny(model_type, **rows().get(model_type, {}).get("to_grow", {}))
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        elif isinstance(getattr(module, "dropout", None), float):
            module.dropout = 0.0
    return model.train(model_type == "reformer")


def windows_for(model_type: str) -> torch.Tensor:
    length = rows().get(model_type, {}).get("train_length", 12)
    return torch.randint(1, 256, (2, length + 1), generator=torch.Generator().manual_seed(1))


def gradients(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return found


def plain(model: PreTrainedModel, windows: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    logits = model(input_ids=windows[:, :-1], use_cache=False).logits
    wanted = torch.nn.functional.cross_entropy(
        logits.float().flatten(0, 1), windows[:, 1:].flatten(), reduction="none"
    )
    wanted.mean().backward()
    return wanted.detach(), gradients(model)


def proven(model_type: str) -> None:
    model, windows = model_of(model_type), windows_for(model_type)
    wanted, their = plain(model, windows)
    assert in_pieces(model, windows) is (model_type != "prophetnet")
    size = torch.cat([each.flatten() for each in their.values()]).norm()
    torch.manual_seed(0)
    found = token_losses(model, windows)
    torch.testing.assert_close(found.detach(), wanted, rtol=2e-6, atol=1e-6)
    found.mean().backward()
    ways = [gradients(model)]
    torch.manual_seed(0)
    whole = add_gradients(model, windows, share=0.5)
    torch.testing.assert_close(whole, 0.5 * wanted.mean(), rtol=2e-6, atol=0)
    ways.append({name: 2 * each for name, each in gradients(model).items()})
    for ours in ways:
        for name, theirs in their.items():
            apart = (ours.get(name, torch.zeros_like(theirs)) - theirs).norm()
            assert apart <= 2e-6 * size, name
        assert all(not each.any() for name, each in ours.items() if name not in their)


@pytest.mark.parametrize("model_type", FEW)
def test_pieces_have_the_losses_and_gradients_of_all_at_once(model_type: str) -> None:
    proven(model_type)


@pytest.mark.slow
@pytest.mark.parametrize("model_type", [name for name in GROWN if name not in FEW])
def test_pieces_of_every_registered_type(model_type: str) -> None:
    proven(model_type)


def test_the_head_never_sees_more_than_a_piece(tiny_model: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    model, windows = load_model(tiny_model("llama")), windows_for("llama")
    seen: list[int] = []
    model.lm_head.register_forward_hook(lambda _head, _given, logits: seen.append(logits[..., 0].numel()))
    with torch.no_grad():
        token_losses(model, windows)
    assert seen == [9, 9, 6]
    add_gradients(model, windows)
    assert seen[3:] == [9, 9, 6], "nothing is calculated twice"
    monkeypatch.setattr(losses, "SMALL", windows[:, 1:].numel() * VOCABULARY)
    token_losses(model, windows)
    assert seen[6:] == [24]


def test_no_piece_is_kept_until_the_backward_pass(tiny_model: Tiny) -> None:
    def of_logits() -> int:
        tensors = [each for each in gc.get_objects() if type(each) is torch.Tensor]
        return sum(each.shape[-1:] == (VOCABULARY,) and each.numel() >= 6 * VOCABULARY for each in tensors)

    model, windows = load_model(tiny_model("llama")), windows_for("llama")
    found = token_losses(model, windows)
    assert of_logits() == 0
    found.sum().backward()
    del found
    logits = model(input_ids=windows[:, :-1], use_cache=False).logits
    assert of_logits() == 1
    assert logits.shape == (2, 12, VOCABULARY)


def test_pieces_under_autocast_are_as_near_as_all_at_once(tiny_model: Tiny) -> None:
    model, windows = load_model(tiny_model("llama")), windows_for("llama")
    wanted, their = plain(model, windows)
    loss = add_gradients(model, windows, "bf16")
    assert loss.dtype == torch.float32
    assert 0 < abs(float(loss) - float(wanted.mean())) < 0.05
    ours = gradients(model)
    assert {each.dtype for each in ours.values()} == {torch.float32}
    apart = sum(float((ours[name] - each).norm() ** 2) for name, each in their.items()) ** 0.5
    assert apart < 0.05 * sum(float(each.norm() ** 2) for each in their.values()) ** 0.5


def test_a_frozen_body_and_a_frozen_head(tiny_model: Tiny) -> None:
    model, windows = load_model(tiny_model("gpt_neox")), windows_for("llama")
    wanted, their = plain(model, windows)
    body = {name for name in their if not name.startswith("embed_out")}
    for frozen in (body, their.keys() - body):
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name not in frozen)
        assert float(add_gradients(model, windows)) == pytest.approx(float(wanted.mean()), rel=1e-6)
        ours = gradients(model)
        assert ours.keys() == their.keys() - frozen
        for name, each in ours.items():
            torch.testing.assert_close(each, their[name], rtol=1e-4, atol=1e-7)


def test_a_body_is_as_before_whatever_happens(tiny_model: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    model, windows = load_model(tiny_model("llama")), windows_for("llama")
    own = model.model.forward
    model.model.forward = own  # as of a body that was wrapped
    token_losses(model, windows)
    assert model.model.__dict__["forward"] is own
    del model.model.forward

    def failing(_hidden: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("no room for logits")

    monkeypatch.setattr(model.lm_head, "forward", failing)
    with pytest.raises(torch.OutOfMemoryError):
        token_losses(model, windows)
    assert "forward" not in model.model.__dict__


@pytest.fixture
def alone() -> Iterator[None]:
    """A process group of this process alone: a sharded model has its hooks in it, and all of its parts."""
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("model_type", ["llama", "gpt_neox"])
def test_pieces_of_a_sharded_model(tiny_model: Tiny, model_type: str, alone: None) -> None:
    """Called past its root it would meet parameters that are not gathered."""
    from torch.distributed.fsdp import fully_shard

    model, windows = load_model(tiny_model(model_type)), windows_for("llama")
    wanted, their = plain(model, windows)
    for layer in model.get_submodule(FAMILIES[model_type].layers):  # type: ignore[union-attr]
        fully_shard(layer, mesh=torch.distributed.init_device_mesh("cpu", (1,)))
    fully_shard(model, mesh=torch.distributed.init_device_mesh("cpu", (1,)))
    assert losses.is_sharded(model)
    with torch.no_grad():
        torch.testing.assert_close(token_losses(model, windows), wanted, rtol=2e-6, atol=1e-6)
    for _ in range(2):
        loss = add_gradients(model, windows, share=0.5)
        assert float(loss) == pytest.approx(0.5 * float(wanted.mean()), rel=1e-6)
    for name, each in gradients(model).items():
        whole = each.full_tensor()  # type: ignore[operator]
        torch.testing.assert_close(
            whole, their[name], rtol=1e-4, atol=1e-6, msg=lambda said, n=name: f"{n}: {said}"
        )
