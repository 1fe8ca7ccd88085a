"""What is known of mixtures: configurations and refusals. The weights: test_moe_memory, test_moe_folder."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from transformers import AutoConfig, AutoModelForCausalLM

from tli.architectures.mixtures import (
    MIXTURES,
    dense_type,
    inner_size,
    mixture_of,
    moe_config,
    moe_problems,
    require_mixture,
)
from tli.errors import FamilyError, InputError, PlanError
from tli.planning.checks import injection_problems
from tli.planning.experts import Experts, expert_problems
from tli.planning.injection import Injection
from tli.planning.plan import Plan, plan

# What a config.json says at the least; the rest is left to the class.
SMALL = {"vocab_size": 64, "hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 8}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 512,
}
WINDOWS = {"use_sliding_window": True, "sliding_window": 4}
EIGHT = Experts(8, 2)


def loaded(config: dict[str, Any]) -> Any:
    settings = {key: value for key, value in config.items() if key != "model_type"}
    return AutoConfig.for_model(config["model_type"], **settings)


@pytest.mark.parametrize("model_type", MIXTURES)
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"rope_theta": 5e5},
        {"rope_scaling": LLAMA3, "rope_theta": 5e5},
        {"rope_scaling": {**LLAMA3, "rope_theta": 3e4}},
        {"rope_parameters": LLAMA3},
        {"num_key_value_heads": 2, "head_dim": 16, "rms_norm_eps": 1e-3, "intermediate_size": 96},
        {"hidden_act": "gelu", "attention_dropout": 0.25, "tie_word_embeddings": True},
        {"max_position_embeddings": 77, "bos_token_id": 3, "eos_token_id": [4, 5], "dtype": "bfloat16"},
    ],
    ids=lambda settings: "-".join(settings) or "defaults",
)
def test_what_both_classes_read_is_read_alike(model_type: str, settings: dict[str, Any]) -> None:
    """Above all what a config.json leaves out, as the two classes have other defaults."""
    config = {"model_type": model_type, **SMALL, **settings}
    dense, mixture = loaded(config).to_dict(), loaded(moe_config(config, EIGHT)).to_dict()
    changed = {"model_type", "architectures", "layer_types"}
    if MIXTURES[model_type].windows != "as-is":
        changed.add("sliding_window")  # 0 or null where it is off
    assert dense.get("head_dim") == mixture.get("head_dim")
    both = (dense.keys() & mixture.keys()) - changed
    assert {key: mixture[key] for key in both} == {key: dense[key] for key in both}
    assert {"rope_parameters", "num_key_value_heads", "rms_norm_eps", "intermediate_size"} <= both
    assert mixture["model_type"] == MIXTURES[model_type].target


@pytest.mark.parametrize("model_type", MIXTURES)
def test_even_the_number_of_heads_may_be_left_out(model_type: str) -> None:
    config = {"model_type": model_type, **SMALL}
    del config["num_attention_heads"]
    dense, mixture = loaded(config), loaded(moe_config(config, EIGHT))
    for key in ("num_attention_heads", "num_key_value_heads"):
        assert getattr(mixture, key) == getattr(dense, key)


@pytest.mark.parametrize("model_type", MIXTURES)
def test_the_experts_settings_reach_the_class(model_type: str) -> None:
    config = {"model_type": model_type, **SMALL, "intermediate_size": 96}
    found = loaded(moe_config(config, Experts(6, 2, granularity=3)))
    row = MIXTURES[model_type]
    assert (found.num_experts if row.count_key == "num_experts" else found.num_local_experts) == 18
    assert found.num_experts_per_tok == 6
    assert getattr(found, row.inner_key) == 32
    assert found.output_router_logits is False
    if row.target != "mixtral":
        assert (found.norm_topk_prob, found.decoder_sparse_step, found.mlp_only_layers) == (True, 1, [])
    assert config == {"model_type": model_type, **SMALL, "intermediate_size": 96}


@pytest.mark.parametrize("model_type", MIXTURES)
def test_no_key_of_the_dense_class_is_left_behind(model_type: str) -> None:
    dense = AutoConfig.for_model(model_type, **SMALL).to_dict()
    row = MIXTURES[model_type]
    written = moe_config(dense, EIGHT)
    known = AutoConfig.for_model(row.target).to_dict().keys()
    assert written.keys() - known <= {"head_dim", "num_experts"}  # qwen3_moe saves this as num_local_experts


class TestSlidingWindows:
    def test_mistral_keeps_its_window_and_llama_has_none(self) -> None:
        for given in (7, None):
            config = {"model_type": "mistral", **SMALL, "sliding_window": given}
            assert loaded(moe_config(config, EIGHT)).sliding_window == given
        assert loaded(moe_config({"model_type": "mistral", **SMALL}, EIGHT)).sliding_window == 4096
        stray = {"model_type": "llama", **SMALL, "sliding_window": 7}  # read by mixtral, not by llama
        assert loaded(moe_config(stray, EIGHT)).sliding_window is None

    @pytest.mark.parametrize(
        "settings",
        [
            {},
            {**WINDOWS, "max_window_layers": 2},
            {**WINDOWS, "max_window_layers": 0},
            {**WINDOWS, "max_window_layers": 9},
            {**WINDOWS, "layer_types": ["full_attention", "sliding_attention"] * 2},
            {"sliding_window": 4, "max_window_layers": 2},
            {"use_sliding_window": True, "sliding_window": None, "max_window_layers": 2},
        ],
    )
    def test_qwen2_keeps_the_attention_of_each_layer(self, settings: dict[str, Any]) -> None:
        config = {"model_type": "qwen2", **SMALL, **settings}
        dense, mixture = loaded(config), loaded(moe_config(config, EIGHT))
        assert mixture.layer_types == dense.layer_types
        assert (mixture.sliding_window or None) == (
            dense.sliding_window if "sliding_attention" in dense.layer_types else None
        )

    @pytest.mark.parametrize(("count", "window"), [(0, 4), (4, None), (9, None)])
    def test_qwen3_has_one_window_for_all_layers(self, count: int, window: int | None) -> None:
        config = {"model_type": "qwen3", **SMALL, **WINDOWS, "max_window_layers": count}
        assert loaded(moe_config(config, EIGHT)).sliding_window == window

    @pytest.mark.parametrize(
        "settings",
        [{"max_window_layers": 2}, {"layer_types": ["full_attention", "sliding_attention"] * 2}],
    )
    def test_qwen3_with_several_is_refused(self, settings: dict[str, Any]) -> None:
        config = {"model_type": "qwen3", **SMALL, **WINDOWS, **settings}
        (problem,) = moe_problems(config, EIGHT)
        assert problem.where == "injection.experts.count"
        assert "as qwen3_moe has one window for all" in problem.expected


class TestRefusals:
    def test_an_architecture_without_a_mixture(self) -> None:
        (problem,) = moe_problems({"model_type": "gpt2"}, EIGHT, "trial.injection.experts")
        assert problem.where == "trial.injection.experts.count"
        assert problem.expected == "a model of type llama, mistral, qwen2, qwen3"
        with pytest.raises(FamilyError, match="experts for 'gpt2'"):
            require_mixture({"model_type": "gpt2"}, EIGHT)
        for unknown in (None, "mixtral"):
            with pytest.raises(FamilyError, match="a model of type llama, mistral"):
                mixture_of(unknown)

    def test_biases_have_no_place(self) -> None:
        config = {"model_type": "llama", **SMALL, "attention_bias": True, "mlp_bias": True}
        problems = moe_problems(config, EIGHT)
        assert [problem.got for problem in problems] == [
            "8 for a model whose config.json sets attention_bias",
            "8 for a model whose config.json sets mlp_bias",
        ]
        with pytest.raises(PlanError, match="of mixtral have no biases"):
            moe_config(config, EIGHT)
        assert moe_problems({**config, "model_type": "qwen3"}, EIGHT) == []

    @pytest.mark.parametrize("key", ["quantization_config", "auto_map"])
    def test_what_no_router_can_be_made_for(self, key: str) -> None:
        (problem,) = moe_problems({"model_type": "qwen2", **SMALL, key: {"x": "y"}}, EIGHT)
        assert key in problem.got

    @pytest.mark.parametrize(("granularity", "nearest"), [(5, 4), (7, 6), (96, None), (97, 96), (48, None)])
    def test_neurons_that_cannot_be_divided(self, granularity: int, nearest: int | None) -> None:
        config = {"model_type": "llama", **SMALL, "intermediate_size": 96}
        problems = moe_problems(config, Experts(8, 2, granularity=granularity))
        assert [problem.remedy for problem in problems] == ([str(nearest)] if nearest else [])
        assert all(problem.where == "injection.experts.granularity" for problem in problems)

    def test_a_share_of_no_neuron(self) -> None:
        config = {"model_type": "llama", **SMALL, "intermediate_size": 96}
        (problem,) = moe_problems(config, Experts(8, 2, drop=0.01))
        assert (problem.where, problem.got) == ("injection.experts.drop", "0.01")
        assert moe_problems(config, Experts(8, 2, drop=0.0105)) == []

    def test_all_at_once(self) -> None:
        config = {"model_type": "llama", **SMALL, "mlp_bias": True, "intermediate_size": 96}
        with pytest.raises(PlanError) as caught:
            moe_config(config, Experts(8, 2, drop=0.001, granularity=5))
        assert [problem.where.rpartition(".")[2] for problem in caught.value.problems] == [
            "count",
            "granularity",
            "drop",
        ]

    @pytest.mark.parametrize("inner", [0, "96", None, 9.5, True])
    def test_a_width_that_is_none(self, inner: Any) -> None:
        (problem,) = moe_problems({"model_type": "llama", **SMALL, "intermediate_size": inner}, EIGHT)
        assert problem.where == "config.json: intermediate_size"

    def test_a_router_of_zeros(self) -> None:
        alike, parts = Experts(8, router_scale=0), Experts(8, router_scale=0, drop=0.5, granularity=2)
        assert "equal experts stay equal" in expert_problems(alike)[0].expected
        assert "parts of experts are not chosen together" in expert_problems(parts)[0].expected
        assert expert_problems(Experts(8, router_scale=0, drop=0.5)) == []
        assert expert_problems(Experts(None, router_scale=0)) == []

    @pytest.mark.parametrize("experts", [Experts(router_scale=0), Experts(top_k=9)])
    def test_the_usual_number_of_experts_counts_too(self, experts: Experts) -> None:
        """A plan that is accepted is one that can be read back."""
        assert injection_problems(Injection("moe", experts=experts), 4)
        with pytest.raises(InputError):
            plan(4, method="moe", experts=experts)
        decided = plan(4, method="moe")
        assert Plan.from_json(decided.to_json()) == decided


def test_a_mixture_is_traced_back_to_an_architecture() -> None:
    assert [dense_type(name) for name in ("mixtral", "qwen2_moe", "qwen3_moe", "gpt2")] == [
        "llama",
        "qwen2",
        "qwen3",
        "gpt2",
    ]


def test_the_table_names_classes_that_exist() -> None:
    for row in MIXTURES.values():
        for model_type, name in ((row.model_type, row.dense), (row.target, row.architecture)):
            config = AutoConfig.for_model(model_type)
            assert AutoModelForCausalLM._model_mapping[type(config)].__name__ == name
        assert (
            inner_size({"model_type": row.model_type})
            == AutoConfig.for_model(row.model_type).intermediate_size
        )


def test_knowing_and_refusing_needs_no_torch() -> None:
    code = (
        "import sys; from tli.planning.experts import Experts; from tli.architectures.mixtures import moe_config\n"
        "moe_config({'model_type': 'qwen2', 'num_hidden_layers': 2, 'num_attention_heads': 2}, Experts(4))\n"
        "import tli.growth.on_disk\n"
        "assert not {'torch', 'transformers', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
