"""Experts of models in memory: what the dense model computed, and what makes the experts differ."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedModel,
)

from tests.conftest import TINY, VOCABULARY
from tli.architectures.mixtures import MIXTURES
from tli.errors import FamilyError, PlanError
from tli.growth.in_memory import grow, injected_parameters
from tli.initializers.upcycle import Upcycling, expert_parameters, upcycle
from tli.planning.experts import Experts
from tli.planning.plan import plan

Dense = Callable[..., PreTrainedModel]


@pytest.fixture
def dense() -> Dense:
    """A random model of four layers of width 32, whose gains and biases are not one and zero."""

    def make(model_type: str = "llama", **settings: Any) -> PreTrainedModel:
        torch.manual_seed(0)
        plain = {"attention_bias": False, "mlp_bias": False} if model_type == "llama" else {}
        given = {"vocab_size": VOCABULARY, **TINY[model_type], **plain, **settings}
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **given))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.1)
        return model.eval()

    return make


def logits(model: PreTrainedModel, tokens: Tensor) -> Tensor:
    with torch.no_grad():
        return model(tokens).logits


def close(found: Tensor, expected: Tensor) -> bool:
    return bool((found - expected).abs().max() <= 1e-5 * expected.abs().max())


def blocks(model: PreTrainedModel) -> list[Any]:
    return [layer.mlp for layer in model.model.layers]


ALIKE = [Experts(4, 1), Experts(8, 2), Experts(4, 1, granularity=2), Experts(8, 2, granularity=4)]
ALIKE += [Experts(4, 2, granularity=3, router_scale=20.0), Experts(2, 2)]


class TestTheFunctionIsPreserved:
    @pytest.mark.parametrize("experts", ALIKE, ids=Experts.describe)
    @pytest.mark.parametrize("tied", [False, True])
    @pytest.mark.parametrize("model_type", MIXTURES)
    def test_in_float32(
        self, dense: Dense, tokens: Tensor, model_type: str, tied: bool, experts: Experts
    ) -> None:
        model = dense(model_type, tie_word_embeddings=tied)
        grown = upcycle(model, experts, seed=3)
        assert type(grown).__name__ == MIXTURES[model_type].architecture
        assert close(logits(grown, tokens), logits(model, tokens))
        assert (grown.get_output_embeddings().weight is grown.get_input_embeddings().weight) == tied

    @pytest.mark.parametrize("experts", ALIKE, ids=Experts.describe)
    @pytest.mark.parametrize("model_type", MIXTURES)
    def test_to_the_last_digits_of_float64(self, dense: Dense, model_type: str, experts: Experts) -> None:
        """Of the experts that the router chose. The classes themselves weigh them in float32, so here the
        weights come from its logits in float64."""
        model = dense(model_type).double()
        grown = upcycle(model, experts)
        grown.set_experts_implementation("eager")  # the grouped kernel knows no float64
        states = torch.randn(40, 32, dtype=torch.float64)
        for before, after in zip(blocks(model), blocks(grown), strict=True):
            with torch.no_grad():
                scores, _, chosen = after.gate(states)
                weights = scores.softmax(-1).gather(1, chosen)
                found = after.experts(states, chosen, weights / weights.sum(-1, keepdim=True))
                expected = before(states)
            assert (found - expected).abs().max() <= 1e-12 * expected.abs().max()

    @pytest.mark.parametrize("init", ["identity", "damped"])
    @pytest.mark.parametrize("model_type", MIXTURES)
    def test_depth_then_experts(self, dense: Dense, tokens: Tensor, model_type: str, init: str) -> None:
        model = dense(model_type)
        decided = plan(4, 2, init=init, experts=Experts(4, 2, granularity=2))
        grown = grow(model, decided)
        assert len(blocks(grown)) == 6
        deeper = grow(model, plan(4, 2, init=init))
        assert close(logits(grown, tokens), logits(deeper, tokens))
        assert close(logits(grown, tokens), logits(model, tokens)) == decided.preserves

    @pytest.mark.parametrize(
        ("model_type", "settings"),
        [
            ("mistral", {"sliding_window": 4}),
            ("qwen2", {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 2}),
            ("qwen3", {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 0}),
            ("llama", {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 100.0}}),
            ("llama", {"head_dim": 16, "hidden_act": "gelu", "rms_norm_eps": 0.1}),
            ("qwen3", {"attention_bias": True, "head_dim": 16}),
        ],
    )
    def test_with_other_settings(
        self, dense: Dense, tokens: Tensor, model_type: str, settings: dict[str, Any]
    ) -> None:
        model = dense(model_type, **settings)
        assert not close(logits(dense(model_type), tokens), logits(model, tokens))
        assert close(logits(upcycle(model, Experts(4, 2)), tokens), logits(model, tokens))

    @pytest.mark.parametrize("model_type", MIXTURES)
    def test_generation_with_a_cache(self, dense: Dense, tokens: Tensor, model_type: str) -> None:
        model = dense(model_type)
        grown = upcycle(model, Experts(8, 2))
        settings = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
        assert torch.equal(grown.generate(tokens, **settings), model.generate(tokens, **settings))


@pytest.mark.parametrize("decided", [plan(4, method="moe"), plan(4, 2, experts=Experts(4, 2, drop=0.5))])
def test_the_original_is_left_as_it_is(dense: Dense, tokens: Tensor, decided: Any) -> None:
    model = dense().train()
    model.requires_grad_(requires_grad=False)
    before = copy.deepcopy(model.state_dict())
    grown = grow(model, decided)
    assert grown.training
    assert grown.name_or_path == model.name_or_path
    assert grown.generation_config.to_dict() == model.generation_config.to_dict()
    assert all(p.requires_grad and p.is_leaf and p.device.type == "cpu" for p in grown.parameters())
    with torch.no_grad():
        for tensor in (*grown.parameters(), *grown.buffers()):
            tensor.fill_(7.0)
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_type_is_kept(dense: Dense, tokens: Tensor, dtype: torch.dtype) -> None:
    model = dense("qwen2").to(dtype)
    grown = upcycle(model, Experts(4, 2, drop=0.25, noise=0.1, granularity=2))
    assert {parameter.dtype for parameter in grown.parameters()} == {dtype}
    assert logits(grown, tokens).isfinite().all()


class TestRouters:
    def test_their_deviation_is_relative_to_the_initialisers(self, dense: Dense) -> None:
        model = dense(initializer_range=0.1)
        for scale in (1.0, 0.25):
            grown = upcycle(model, Experts(64, 2, router_scale=scale))
            for block in blocks(grown):
                weight = block.gate.weight.detach()
                assert weight.std().item() == pytest.approx(0.1 * scale, rel=0.1)
                assert abs(weight.mean().item()) < 0.02 * scale

    def test_parts_of_an_expert_are_chosen_together(self, dense: Dense) -> None:
        grown = upcycle(dense(), Experts(8, 2, granularity=4))
        for block in blocks(grown):
            rows = block.gate.weight.view(8, 4, 32)
            assert torch.equal(rows, rows[:, :1].expand(8, 4, 32))
            with torch.no_grad():
                chosen = block.gate(torch.randn(500, 32))[2].sort(-1).values.view(500, 2, 4)
            assert torch.equal(chosen // 4, (chosen // 4)[..., :1].expand(500, 2, 4))
            assert torch.equal(chosen % 4, torch.arange(4).expand(500, 2, 4))

    def test_all_experts_are_found(self, dense: Dense) -> None:
        grown = upcycle(dense(), Experts(8, 2))
        with torch.no_grad():
            chosen = blocks(grown)[0].gate(torch.randn(500, 32))[2]
        assert chosen.unique().numel() == 8

    def test_layers_and_seeds_differ(self, dense: Dense) -> None:
        model = dense()
        first, again, other = (upcycle(model, Experts(4, 2), seed=seed) for seed in (1, 1, 2))
        drawn = [block.gate.weight for block in (*blocks(first), *blocks(other))]
        assert len({tuple(weight.flatten().tolist()) for weight in drawn}) == 8
        for name, parameter in again.named_parameters():
            assert torch.equal(parameter, dict(first.named_parameters())[name])


def unfused(block: Any) -> dict[str, Tensor]:
    """Matrices of all experts: gate and up (experts, inner, hidden), down (experts, hidden, inner)."""
    gate, up = block.experts.gate_up_proj.detach().chunk(2, dim=1)
    return {"gate": gate, "up": up, "down": block.experts.down_proj.detach()}


def original(block: Any) -> dict[str, Tensor]:
    return {kind: getattr(block, f"{kind}_proj").weight.detach() for kind in ("gate", "up", "down")}


def changed_neurons(block: Any, before: Any) -> dict[str, Tensor]:
    """For each matrix, which neurons of which expert differ from the dense ones: (experts, inner)."""
    first = original(before)
    return {
        kind: (matrix != first[kind]).any(dim=1 if kind == "down" else 2)
        for kind, matrix in unfused(block).items()
    }


class TestWhatMakesExpertsDiffer:
    @pytest.mark.parametrize(("drop", "count"), [(0.5, 24), (0.3, 14), (1.0, 48), (1 / 48, 1)])
    def test_so_many_neurons_are_drawn_anew(self, dense: Dense, drop: float, count: int) -> None:
        model = dense()
        for before, after in zip(
            blocks(model), blocks(upcycle(model, Experts(4, 2, drop=drop))), strict=True
        ):
            changed = changed_neurons(after, before)
            assert torch.equal(changed["gate"], changed["up"])
            assert torch.equal(changed["gate"], changed["down"])
            assert (changed["gate"].sum(1) == count).all()
            if drop < 1:
                assert len({tuple(row.tolist()) for row in changed["gate"]}) == 4
            drawn = unfused(after)["gate"][changed["gate"]].view(4, count, 32)
            assert not torch.equal(drawn[0], drawn[1])

    def test_from_the_distribution_that_they_had(self) -> None:
        torch.manual_seed(0)
        config = {"model_type": "llama", "intermediate_size": 400, "hidden_size": 300}
        upcycling = Upcycling.of(config, Experts(2, 1, drop=0.5), seed=0)
        matrix = torch.randn(400, 300) * 3 + 5
        matrix[200:] += 100 * torch.randn(200, 1)
        for expert in range(2):
            for kind, old in (("gate", matrix), ("down", matrix.T.contiguous())):
                new = upcycling.matrix(0, kind, expert, old)
                axis = 0 if kind == "down" else 1
                changed = (new != old).any(dim=axis)
                was, now = (x[changed] if axis else x[:, changed] for x in (old, new))
                assert changed.sum() == 200
                assert abs(now.mean() - was.mean()) < 0.03 * was.std()
                assert now.std().item() == pytest.approx(was.std().item(), rel=0.02)

    def test_what_was_dropped_can_be_zero(self, dense: Dense, tokens: Tensor) -> None:
        """The down projection of an identity layer: its neurons may be drawn anew, and it adds nothing still."""
        model = dense()
        grown = grow(model, plan(4, 4, experts=Experts(4, 2, drop=0.5, noise=0.1)))
        assert not blocks(grown)[4].experts.down_proj.any()
        assert changed_neurons(blocks(grown)[4], blocks(model)[3])["gate"].any(1).all()

    def test_noise_is_relative_to_each_matrix(self, dense: Dense) -> None:
        model = dense()
        with torch.no_grad():
            blocks(model)[0].up_proj.weight.mul_(100)
        grown = upcycle(model, Experts(4, 2, noise=0.1))
        for before, after in zip(blocks(model), blocks(grown), strict=True):
            for kind, matrix in unfused(after).items():
                old = original(before)[kind]
                for expert in matrix:
                    assert ((expert - old).std() / old.std()).item() == pytest.approx(0.1, rel=0.1)
                assert not torch.equal(matrix[0], matrix[1])

    @pytest.mark.parametrize("granularity", [2, 3])
    def test_finer_parts_are_cut_from_the_same_experts(self, dense: Dense, granularity: int) -> None:
        model, settings = dense(), {"drop": 0.5, "noise": 0.1}
        whole = upcycle(model, Experts(4, 2, **settings))
        finer = upcycle(model, Experts(4, 2, granularity=granularity, **settings))
        for one, parts in zip(map(unfused, blocks(whole)), map(unfused, blocks(finer)), strict=True):
            for kind in ("gate", "up"):
                assert torch.equal(parts[kind].reshape(4, 48, 32), one[kind])
            down = (
                parts["down"].view(4, granularity, 32, 48 // granularity).transpose(1, 2).reshape(4, 32, 48)
            )
            assert torch.equal(down, one["down"] * granularity)


class TestTraining:
    def test_the_gradient_reaches_the_router_and_every_chosen_expert(self, dense: Dense) -> None:
        grown = upcycle(dense(), Experts(4, 2, drop=0.5))
        tokens = torch.randint(0, VOCABULARY, (8, 32))
        chosen: list[Tensor] = []
        hooks = [
            block.gate.register_forward_hook(lambda _m, _i, out: chosen.append(out[2]))
            for block in blocks(grown)
        ]
        grown(tokens, labels=tokens).loss.backward()
        assert len(hooks) == len(chosen) == 4
        for block, indices in zip(blocks(grown), chosen, strict=True):
            assert block.gate.weight.grad.abs().sum() > 0
            used = indices.unique()
            assert used.numel() == 4
            for weight in (block.experts.gate_up_proj, block.experts.down_proj):
                assert (weight.grad.abs().sum((1, 2)) > 0).nonzero().flatten().tolist() == used.tolist()

    def test_a_router_of_equal_experts_moves_from_the_second_step_on(self, dense: Dense) -> None:
        grown = upcycle(dense(), Experts(4, 2)).train()
        tokens = torch.randint(0, VOCABULARY, (8, 32))
        optimizer = torch.optim.SGD(grown.parameters(), lr=0.5)
        sizes = []
        for _ in range(2):
            optimizer.zero_grad()
            grown(tokens, labels=tokens).loss.backward()
            sizes.append(max(block.gate.weight.grad.abs().max().item() for block in blocks(grown)))
            optimizer.step()
        assert sizes[0] < 1e-6 < 1e-5 < sizes[1]

    @pytest.mark.parametrize("model_type", MIXTURES)
    def test_a_few_steps_lower_the_loss(self, dense: Dense, model_type: str) -> None:
        grown = grow(dense(model_type), plan(4, 2, experts=Experts(4, 2, drop=0.25, granularity=2))).train()
        tokens = torch.randint(0, VOCABULARY, (4, 32))
        optimizer = torch.optim.AdamW(grown.parameters(), lr=3e-3)
        losses = []
        for _ in range(6):
            optimizer.zero_grad()
            loss = grown(tokens, labels=tokens).loss
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert all(map(math.isfinite, losses))
        assert losses[-1] < 0.9 * losses[0]

    def test_the_loss_is_that_of_the_language_model_alone(self, dense: Dense, tokens: Tensor) -> None:
        model = dense()
        grown = upcycle(model, Experts(4, 2))
        assert grown(tokens, labels=tokens).loss.item() == pytest.approx(
            model(tokens, labels=tokens).loss.item(), rel=1e-5
        )


@pytest.mark.parametrize("model_type", MIXTURES)
def test_routers_experts_and_new_layers_are_what_is_injected(dense: Dense, model_type: str) -> None:
    decided = plan(4, 2, experts=Experts(4, 2))
    grown = grow(dense(model_type), decided)
    found = injected_parameters(grown, decided)
    layers = {name for name, _ in grown.named_parameters() if name.startswith("model.layers.")}
    experts = {
        f"model.layers.{n}.mlp.{leaf}" for n in range(6) for leaf in ("gate.weight", "experts.down_proj")
    }
    experts |= {f"model.layers.{n}.mlp.experts.gate_up_proj" for n in range(6)}
    new = {name for name in layers if name.startswith(("model.layers.2.", "model.layers.5."))}
    assert decided.injected == (2, 5)
    assert found == experts | new
    assert expert_parameters(grown) == experts


class TestRefusals:
    def test_another_class_than_the_causal_one(self) -> None:
        config = AutoConfig.for_model(
            "llama", **{**TINY["llama"], "attention_bias": False, "mlp_bias": False}
        )
        model = AutoModelForSequenceClassification.from_config(config)
        with pytest.raises(
            FamilyError, match="got LlamaForSequenceClassification; expected a LlamaForCausalLM"
        ):
            upcycle(model, Experts(4, 2))

    def test_settings_that_do_not_fit_the_model(self, dense: Dense) -> None:
        with pytest.raises(
            PlanError, match=r"injection\.experts\.granularity: got 5; expected a divisor of 48"
        ):
            grow(dense(), plan(4, 2, experts=Experts(4, 2, granularity=5)))
        with pytest.raises(PlanError, match=r"of mixtral have no biases"):
            grow(dense("llama", mlp_bias=True), plan(4, method="moe"))
        with pytest.raises(FamilyError, match=r"injection\.experts\.count: got experts for 'gpt2'"):
            grow(dense("gpt2"), plan(4, method="moe"))
        with pytest.raises(PlanError, match="got 8; expected 4"):
            grow(dense(), plan(8, method="moe"))
