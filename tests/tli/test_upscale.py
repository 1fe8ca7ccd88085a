from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from tli.architectures.lookup import family_of
from tli.errors import FamilyError, PlanError
from tli.growth.in_memory import grow, injected_parameters
from tli.planning.injection import INITS
from tli.planning.plan import Plan, plan

Tiny = Callable[[str], Path]
Save = Callable[..., Path]


def load(folder: Path, **settings: Any) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(folder, **settings).eval()


def logits(model: PreTrainedModel, tokens: Tensor) -> Tensor:
    with torch.no_grad():
        return model(tokens).logits


def layer(model: PreTrainedModel, position: int) -> dict[str, Tensor]:
    prefix = f"{family_of(model.config.model_type).layers}.{position}."
    return {
        name.removeprefix(prefix): p.detach()
        for name, p in model.named_parameters()
        if name.startswith(prefix)
    }


def outside(model: PreTrainedModel) -> dict[str, Tensor]:
    prefix = f"{family_of(model.config.model_type).layers}."
    return {name: p.detach() for name, p in model.named_parameters() if not name.startswith(prefix)}


def assert_same(left: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    assert left.keys() == right.keys()
    for name, value in left.items():
        assert torch.equal(value, right[name]), name


def assert_generates_alike(model: PreTrainedModel, tokens: Tensor) -> None:
    """A layer that writes into another layer's cache passes every forward test; only generating shows it."""
    settings = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    with_cache = model.generate(tokens, **settings, use_cache=True)
    assert torch.equal(with_cache, model.generate(tokens, **settings, use_cache=False))
    assert with_cache.shape[1] == tokens.shape[1] + 8


@pytest.fixture
def base(tiny_model: Tiny) -> PreTrainedModel:
    return load(tiny_model("llama"))


@pytest.mark.parametrize("init", INITS)
def test_the_base_is_untouched_and_shares_nothing(base: PreTrainedModel, init: str) -> None:
    before = copy.deepcopy(base)
    grown = grow(base, plan(4, 2, init=init))
    with torch.no_grad():
        for tensor in (*grown.parameters(), *grown.buffers()):
            tensor.zero_()
    assert_same(dict(base.named_parameters()), dict(before.named_parameters()))
    assert_same(dict(base.named_buffers()), dict(before.named_buffers()))
    assert base.config.to_dict() == before.config.to_dict()


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("model_type", ["llama", "gpt2"])
def test_a_grown_model_survives_saving(
    tiny_model: Tiny, tmp_path: Path, init: str, model_type: str, tokens: Tensor
) -> None:
    grown = grow(load(tiny_model(model_type)), plan(4, 3, init=init, scale=0.25))
    grown.save_pretrained(tmp_path)
    again = load(tmp_path)
    assert torch.equal(logits(again, tokens), logits(grown, tokens))
    assert_same(dict(again.named_parameters()), dict(grown.named_parameters()))


def test_damped_lies_between_identity_and_copy(base: PreTrainedModel) -> None:
    half, third = (grow(base, plan(4, 4, init="damped", scale=scale)) for scale in (0.5, 0.3))
    for name, old in layer(base, 3).items():
        factor = 1.0 if name.split(".")[1] not in ("o_proj", "down_proj") else 0.5
        assert torch.equal(layer(half, 4)[name], old * factor)
        torch.testing.assert_close(layer(third, 4)[name], old * (1.0 if factor == 1.0 else 0.3))
    ends = {0.0: "identity", 1.0: "copy"}
    for scale, init in ends.items():
        assert_same(
            layer(grow(base, plan(4, 4, init="damped", scale=scale)), 4),
            layer(grow(base, plan(4, 4, init=init)), 4),
        )


def test_mean_is_of_the_two_neighbours(base: PreTrainedModel) -> None:
    grown = grow(base, plan(4, 2, init="mean"))
    for position, (before, after) in {2: (1, 2), 5: (2, 3)}.items():
        for name, value in layer(grown, position).items():
            assert torch.equal(value, (layer(base, before)[name] + layer(base, after)[name]) / 2)


def test_random_is_as_training_starts(tiny_model: Tiny) -> None:
    grown = grow(load(tiny_model("qwen3")), plan(4, 2, init="random"))
    for position in (2, 5):
        for name, value in layer(grown, position).items():
            if value.dim() == 1:
                assert torch.equal(value, torch.ones_like(value)), name
            else:
                assert 0.018 < value.std() < 0.022, name
                assert abs(value.mean()) < 0.002, name
    assert not torch.equal(layer(grown, 2)["mlp.up_proj.weight"], layer(grown, 5)["mlp.up_proj.weight"])


def test_random_biases_are_zero_and_gpt2_draws_by_depth(tiny_model: Tiny) -> None:
    drawn = layer(grow(load(tiny_model("gpt2")), plan(4, 1, init="random")), 1)
    assert not drawn["attn.c_attn.bias"].any()
    assert not drawn["ln_1.bias"].any()
    assert drawn["ln_1.weight"].eq(1).all()
    assert drawn["attn.c_attn.weight"].std() == pytest.approx(0.02, rel=0.1)
    assert drawn["mlp.c_proj.weight"].std() == pytest.approx(0.02 / (2 * 8) ** 0.5, rel=0.1)


def test_random_depends_on_the_seed_alone(base: PreTrainedModel) -> None:
    decided = plan(4, 2, init="random")
    first = grow(base, decided, seed=7)
    torch.manual_seed(123)
    assert_same(dict(grow(base, decided, seed=7).named_parameters()), dict(first.named_parameters()))
    other = grow(base, decided, seed=8)
    assert not torch.equal(layer(other, 2)["mlp.up_proj.weight"], layer(first, 2)["mlp.up_proj.weight"])


def test_growing_leaves_the_global_generator_alone(base: PreTrainedModel) -> None:
    before = torch.get_rng_state()
    grow(base, plan(4, 2, init="random"))
    assert torch.equal(torch.get_rng_state(), before)


def test_ties_types_modes_and_layer_numbers_are_kept(tiny_model: Tiny) -> None:
    base = load(tiny_model("llama"), dtype=torch.bfloat16).requires_grad_(False).train()
    base.generation_config.max_new_tokens = 17
    grown = grow(base, plan(4, 2, init="mean"))
    assert grown.lm_head.weight is grown.model.embed_tokens.weight
    assert {p.dtype for p in grown.parameters()} == {torch.bfloat16}
    assert grown.training
    assert all(module.training for module in grown.modules())
    assert all(p.requires_grad for p in grown.parameters())
    assert [block.self_attn.layer_idx for block in grown.model.layers] == list(range(6))
    assert grown.generation_config.max_new_tokens == 17
    assert grown.config.dtype == torch.bfloat16
    assert not any(tensor.is_meta for tensor in (*grown.parameters(), *grown.buffers()))


def test_untied_heads_stay_untied(tiny_model: Tiny) -> None:
    grown = grow(load(tiny_model("mistral")), plan(4, 2))
    assert grown.lm_head.weight is not grown.model.embed_tokens.weight


def test_every_injected_parameter_learns(base: PreTrainedModel, tokens: Tensor) -> None:
    """With zeroed outputs the first step reaches only these outputs; the second reaches everything."""
    grown = grow(base.train(), plan(4, 2, init="identity"))
    optimizer = torch.optim.AdamW(grown.parameters(), lr=1e-3)
    for _ in range(2):
        optimizer.zero_grad()
        grown(tokens, labels=tokens).loss.backward()
        optimizer.step()
    parameters = dict(grown.named_parameters())
    for name in injected_parameters(grown, plan(4, 2)):
        grad = parameters[name].grad
        # A bias of the keys moves all scores of a query alike, which softmax does not see.
        assert grad is not None
        assert grad.any() or name.endswith("k_proj.bias"), name


def test_injected_parameters_are_those_of_the_new_layers(base: PreTrainedModel) -> None:
    decided = plan(4, 2)
    grown = grow(base, decided)
    names = injected_parameters(grown, decided)
    per_layer = len(layer(base, 0))
    assert len(names) == 2 * per_layer
    assert {name.split(".")[2] for name in names} == {"2", "5"}
    assert injected_parameters(base, plan(4, method="none")) == frozenset()


def test_positions_are_not_mistaken_for_longer_numbers(save_model: Save, tmp_path: Path) -> None:
    deep = load(save_model(tmp_path / "deep", num_hidden_layers=12))
    decided = plan(12, 1)
    names = injected_parameters(grow(deep, decided), decided)
    assert {int(name.split(".")[2]) for name in names} == set(range(1, 24, 2))


def test_the_control_is_an_equal_copy(base: PreTrainedModel) -> None:
    control = grow(base.requires_grad_(False), plan(4, method="none"))
    assert_same(dict(control.named_parameters()), dict(base.named_parameters()))
    assert control.lm_head.weight is control.model.embed_tokens.weight
    assert control.model.embed_tokens.weight.data_ptr() != base.model.embed_tokens.weight.data_ptr()
    assert all(p.requires_grad for p in control.parameters())


def test_growing_twice(base: PreTrainedModel, tokens: Tensor) -> None:
    twice = grow(grow(base, plan(4, 2)), plan(6, 3))
    assert twice.config.num_hidden_layers == 8
    assert torch.equal(logits(twice, tokens), logits(base, tokens))
    assert_generates_alike(twice, tokens)


@pytest.mark.parametrize(
    ("model_type", "settings"),
    [
        ("qwen2", {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 2}),
        ("qwen3", {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 2}),
        ("smollm3", {"use_sliding_window": True, "sliding_window": 4, "no_rope_layer_interval": 2}),
        ("mistral", {"sliding_window": 4}),
        ("gpt_neox", {"use_parallel_residual": False}),
    ],
)
def test_settings_of_a_layer_move_with_it(
    save_model: Save, tmp_path: Path, model_type: str, settings: dict[str, Any], tokens: Tensor
) -> None:
    base = load(save_model(tmp_path / "base", model_type, **settings))
    grown = grow(base, plan(4, 1))
    assert torch.equal(logits(grown, tokens), logits(base, tokens))
    for key in ("layer_types", "no_rope_layers"):
        old = getattr(base.config, key, None)
        if old is not None:
            assert getattr(grown.config, key) == [old[source] for source in plan(4, 1).sources]
    grown.save_pretrained(tmp_path / "grown")
    assert torch.equal(logits(load(tmp_path / "grown"), tokens), logits(base, tokens))
    assert_generates_alike(grown, tokens)


def test_a_plan_for_another_depth_is_refused(base: PreTrainedModel) -> None:
    for decided in (plan(8, 4), plan(8, method="none")):
        with pytest.raises(PlanError, match=r"got [48]; expected [48], the"):
            grow(base, decided)


def test_unknown_and_impossible_architectures_are_refused_with_the_reason(
    save_model: Save, tmp_path: Path, base: PreTrainedModel
) -> None:
    with pytest.raises(
        FamilyError, match=r"'t5' \(not known which .*\); expected one of the \d+ architectures"
    ):
        family_of("t5")
    scaled = load(save_model(tmp_path / "scaled", "gpt2", scale_attn_by_inverse_layer_idx=True))
    with pytest.raises(FamilyError, match="layers behind a new one would change"):
        grow(scaled, plan(4, 2))
    post = load(save_model(tmp_path / "post", "bloom", apply_residual_connection_post_layernorm=True))
    with pytest.raises(FamilyError, match="residual stream itself passes a norm"):
        grow(post, plan(4, 2))
    base.config.rates_by_layer = [1, 2, 3, 4]
    with pytest.raises(
        FamilyError, match=r"rates_by_layer: got .*; expected no list with one entry per layer"
    ):
        grow(base, plan(4, 2))


def test_the_plan_type_is_what_grow_reads(base: PreTrainedModel) -> None:
    decided = Plan.from_json(plan(4, 2, init="random").to_json())
    assert_same(
        dict(grow(base, decided).named_parameters()),
        dict(grow(base, plan(4, 2, init="random")).named_parameters()),
    )
