"""The mixture-of-experts class that a dense architecture becomes (sparse upcycling), as data. No torch.

`tli.initializers.upcycle` makes the weights. Names: in memory transformers 5 holds all experts of a layer
in two tensors, `mlp.experts.gate_up_proj` of shape (experts, 2 * inner, hidden) and `mlp.experts.down_proj`
of shape (experts, hidden, inner), behind a router `mlp.gate.weight` of shape (experts, hidden). On disk,
there as on the hub, each matrix of each expert is a tensor of its own, under the names of a row here.

The loss stays that of the language model alone: `output_router_logits` is false. Who wants the load balancing
of the classes sets it to true in config.json, where `router_aux_loss_coef` weighs it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tli.errors import FamilyError, PlanError, Problem
from tli.planning.experts import Experts

DENSE = {"mlp.gate_proj.weight": "gate", "mlp.up_proj.weight": "up", "mlp.down_proj.weight": "down"}
FUSED = {"router": "mlp.gate.weight", "gate_up": "mlp.experts.gate_up_proj", "down": "mlp.experts.down_proj"}
_SHARED = ("gate_proj", "up_proj", "down_proj")
_SLIDING, _FULL = "sliding_attention", "full_attention"


@dataclass(frozen=True)
class Mixture:
    """What must be known of one dense `model_type` to turn it into its mixture of experts.

    `defaults` are the dense class's own, for keys that a config.json may leave out and that the target class
    would read otherwise; `dropped` keys mean nothing to the target, or something else.
    """

    model_type: str
    dense: str  # the class in memory
    target: str  # model_type of the mixture
    architecture: str  # its class
    block: str  # what holds router and experts in a layer, on disk
    stored: Mapping[str, str]  # an expert's matrices, on disk
    count_key: str
    inner_key: str
    windows: str  # where the target reads sliding windows: never, as-is, each layer or all layers
    defaults: Mapping[str, Any]
    dropped: tuple[str, ...] = ()
    added: Mapping[str, Any] = field(default_factory=dict)
    refusals: tuple[tuple[str, str], ...] = ()  # config key that must be false or empty, and why
    shared: bool = False  # the target has a shared expert, which gets no neurons

    @property
    def router(self) -> str:
        """The router's name in a layer, on disk."""
        return f"{self.block}.gate.weight"

    def expert(self, number: int, kind: str) -> str:
        """The name on disk of a matrix (gate, up, down) of an expert, in a layer."""
        return f"{self.block}.experts.{number}.{self.stored[kind]}.weight"

    def shared_tensors(self, hidden: int) -> dict[str, tuple[int, ...]]:
        """Names, on disk and in memory, and shapes of what a shared expert without neurons has in a layer.

        The target adds the shared expert to the chosen ones whatever the router says. Of size zero it adds
        nothing, costs nothing, and each token goes through as many experts as the settings say.
        """
        if not self.shared:
            return {}
        shapes = {"gate_proj": (0, hidden), "up_proj": (0, hidden), "down_proj": (hidden, 0)}
        named = {f"mlp.shared_expert.{name}.weight": shapes[name] for name in _SHARED}
        return {**named, "mlp.shared_expert_gate.weight": (1, hidden)}


_W = {"gate": "w1", "up": "w3", "down": "w2"}
_PROJ = {"gate": "gate_proj", "up": "up_proj", "down": "down_proj"}
_ALL = {"rope_theta": 10000.0, "num_attention_heads": 32}
_NO_BIAS = "the feed-forward and attention matrices of {} have no biases"
_EVERY_LAYER = {"norm_topk_prob": True, "decoder_sparse_step": 1, "mlp_only_layers": []}
_QWEN = {"sliding_window": 4096, "max_window_layers": 28, "use_sliding_window": False}
_ROWS = (
    Mixture(
        "llama",
        "LlamaForCausalLM",
        "mixtral",
        "MixtralForCausalLM",
        block="block_sparse_moe",
        stored=_W,
        count_key="num_local_experts",
        inner_key="intermediate_size",
        windows="never",
        defaults={
            **_ALL,
            "intermediate_size": 11008,
            "num_key_value_heads": None,
            "head_dim": None,
            "max_position_embeddings": 2048,
            "rms_norm_eps": 1e-6,
        },
        dropped=("attention_bias", "mlp_bias", "pretraining_tp", "layer_types"),
        refusals=(
            ("attention_bias", _NO_BIAS.format("mixtral")),
            ("mlp_bias", _NO_BIAS.format("mixtral")),
        ),
    ),
    Mixture(
        "mistral",
        "MistralForCausalLM",
        "mixtral",
        "MixtralForCausalLM",
        block="block_sparse_moe",
        stored=_W,
        count_key="num_local_experts",
        inner_key="intermediate_size",
        windows="as-is",
        defaults={
            **_ALL,
            "intermediate_size": 14336,
            "head_dim": None,
            "rms_norm_eps": 1e-6,
            "sliding_window": 4096,
        },
        dropped=("layer_types",),
    ),
    Mixture(
        "qwen2",
        "Qwen2ForCausalLM",
        "qwen2_moe",
        "Qwen2MoeForCausalLM",
        block="mlp",
        stored=_PROJ,
        count_key="num_experts",
        inner_key="moe_intermediate_size",
        windows="each layer",
        defaults={**_ALL, **_QWEN, "intermediate_size": 22016, "num_key_value_heads": 32},
        added={**_EVERY_LAYER, "qkv_bias": True, "shared_expert_intermediate_size": 0},
        shared=True,
    ),
    Mixture(
        "qwen3",
        "Qwen3ForCausalLM",
        "qwen3_moe",
        "Qwen3MoeForCausalLM",
        block="mlp",
        stored=_PROJ,
        count_key="num_experts",
        inner_key="moe_intermediate_size",
        windows="all layers",
        defaults={
            **_ALL,
            **_QWEN,
            "intermediate_size": 22016,
            "num_key_value_heads": 32,
            "head_dim": 128,
        },
        dropped=("layer_types", "max_window_layers"),
        added=_EVERY_LAYER,
    ),
)
MIXTURES: Mapping[str, Mixture] = {row.model_type: row for row in _ROWS}
_ANY = (
    ("quantization_config", "the router and new experts cannot be calculated in quantised weights"),
    ("auto_map", "its code is of the dense model"),
)


def mixture_of(model_type: str | None, where: str = "config.json: model_type") -> Mixture:
    """The row of a dense architecture. Raises FamilyError for one that is not known."""
    if model_type is not None and model_type in MIXTURES:
        return MIXTURES[model_type]
    raise FamilyError(_unknown(model_type, where))


def dense_type(model_type: str) -> str:
    """A dense architecture that becomes `model_type`; where there is none, `model_type` itself."""
    return next((row.model_type for row in _ROWS if row.target == model_type), model_type)


def moe_problems(
    config: Mapping[str, Any], experts: Experts, where: str = "injection.experts"
) -> list[Problem]:
    """Everything in a dense model's configuration that stands against these experts.

    `experts` has a count and no problems of its own (`tli.planning.experts.expert_problems`).
    """
    row = MIXTURES.get(config.get("model_type", ""))
    if row is None:
        return [_unknown(config.get("model_type"), f"{where}.count")]
    problems = []
    for key, reason in (*row.refusals, *_ANY):
        if config.get(key):
            got = f"{experts.count} for a model whose config.json sets {key}"
            problems.append(Problem(f"{where}.count", got, f"a model without it, as {reason}", "null"))
    if row.windows == "all layers" and len(set(_layer_types(row, config))) > 1:
        got = f"{experts.count} for a model with sliding windows in some layers"
        expected = f"them in all layers or none, as {row.target} has one window for all"
        problems.append(Problem(f"{where}.count", got, expected, "null"))
    inner = inner_size(config)
    if type(inner) is not int or inner < 1:
        problems.append(Problem("config.json: intermediate_size", repr(inner), "a whole number from 1"))
        return problems
    if inner % experts.granularity:
        expected = f"a divisor of {inner}, the neurons of a feed-forward part"
        nearest = str(_nearest_divisor(inner, experts.granularity))
        problems.append(Problem(f"{where}.granularity", str(experts.granularity), expected, nearest))
    if experts.drop > 0 and dropped(experts, inner) == 0:
        expected = f"0, or at least one of {inner} neurons"
        problems.append(Problem(f"{where}.drop", repr(experts.drop), expected, f"{1 / inner:.2g}"))
    return problems


def require_mixture(config: Mapping[str, Any], experts: Experts) -> Mixture:
    """The row of a model that can have these experts. Raises FamilyError or PlanError with all problems."""
    row = mixture_of(config.get("model_type"), "injection.experts.count")
    problems = moe_problems(config, experts)
    if problems:
        raise PlanError(*problems)
    return row


def moe_config(config: Mapping[str, Any], experts: Experts) -> dict[str, Any]:
    """The content of the mixture's config.json from that of the dense model, of the same depth.

    What the dense class takes for a key that is not there is written out where the target takes another
    value. Raises FamilyError and PlanError.
    """
    row = require_mixture(config, experts)
    assert experts.count is not None
    read = {**row.defaults, **config}
    moved = {key: value for key, value in read.items() if key not in row.dropped} | dict(row.added)
    moved |= {
        "model_type": row.target,
        "architectures": [row.architecture],
        row.count_key: experts.count * experts.granularity,
        row.inner_key: read["intermediate_size"] // experts.granularity,
        "num_experts_per_tok": experts.top_k * experts.granularity,
        "output_router_logits": False,
    }
    if moved.get("num_key_value_heads", 0) is None:
        moved["num_key_value_heads"] = read["num_attention_heads"]
    if moved.get("head_dim", 0) is None:
        moved["head_dim"] = read["hidden_size"] // read["num_attention_heads"]
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if "rope_theta" in rope and "rope_theta" not in config:
        del moved["rope_theta"]
    if row.windows == "never":
        moved["sliding_window"] = None
    elif row.windows != "as-is":
        types = _layer_types(row, config)
        moved["use_sliding_window"] = _SLIDING in types
        if row.windows == "each layer":
            moved["layer_types"] = types
    return moved


def inner_size(config: Mapping[str, Any]) -> Any:
    """Neurons of a feed-forward part, of a known architecture; not yet checked to be a number."""
    return {**MIXTURES[config["model_type"]].defaults, **config}["intermediate_size"]


def dropped(experts: Experts, inner: int) -> int:
    """How many of `inner` neurons are drawn anew: the share, rounded down as in arXiv 2502.19261."""
    return int(experts.drop * inner + 1e-6)


def _layer_types(row: Mixture, config: Mapping[str, Any]) -> list[str]:
    """The attention of each layer, as a dense qwen reads it."""
    read = {**row.defaults, **config}
    if not read["use_sliding_window"] or read["sliding_window"] is None:
        return [_FULL] * read["num_hidden_layers"]
    if read.get("layer_types") is not None:
        return list(read["layer_types"])
    return [_SLIDING if n >= read["max_window_layers"] else _FULL for n in range(read["num_hidden_layers"])]


def _unknown(model_type: str | None, where: str) -> Problem:
    got = f"experts for {model_type!r} (no mixture-of-experts class is known that computes the same)"
    return Problem(where, got, f"a model of type {', '.join(MIXTURES)}", "null")


def _nearest_divisor(number: int, near: int) -> int:
    """The divisor of `number` that is nearest to `near`; 1 is one, so the search ends."""
    steps = (part for step in range(near) for part in (near - step, near + step))
    return next(part for part in steps if number % part == 0)
