"""Parameters and matrix products of a checkpoint's layers, from headers alone.

Weights in files have many names. What multiplies is found by what it is not: a bias, a table that is looked
up, a convolution over a few neighbours, attention to what another model computed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tli.architectures.config import section_of
from tli.architectures.family import Family
from tli.architectures.lookup import family_of
from tli.checkpoint.header import TensorInfo
from tli.growth.attention_sizes import ATTENTION, DISTANCES, HEADS, attention_width
from tli.models.base import Base
from tli.models.config_checks import setting

_CHOSEN = ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k", "moe_top_k", "top_k_experts")
_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
_EVERY_EXPERT = ("llama4", "llama4_text")  # run for each token; what was not chosen is weighed with zero
AHEAD = {"prophetnet": "ngram"}  # so many tokens ahead are predicted, each in a stream of its own

# Tensors of two or more dimensions that no matrix product reads.
_NOT_MULTIPLIED = re.compile(
    r"(^|[._])(bias|D|ape|tid2eid|seg_embed)$|embedding\.|time_mix|conv[^.]*(\.weight)?$"
)
_CROSS = re.compile(r"(^|\.)(cross_attn|encoder_attn|crossattention)\.")  # not run on text alone
_EXPERT = re.compile(r"(^|\.)experts\.(?!router\.)")
_ADAPTER = re.compile(r"adapter_list\.(\d+)\.")  # of the so many-th layer that shares its other weights
_INDEXER = "indexer."  # picks the keys of a sparse attention by scores of its own, without a gradient
_PICKING = re.compile(r"\.(wq_b|q_proj|weights_proj)\.weight$")  # whose outputs meet every key

# A norm in a layer; of queries or keys, with the projection that it follows.
_NORM = re.compile(
    r"(?P<module>(?:.*\.)?)(?:(?P<part>[qk])_?(?:layer)?norm|[a-z_]*(?:norm|ln)[a-z_0-9]*)\.weight$"
)


@dataclass(frozen=True)
class LayerSizes:
    """Of one layer, in elements.

    Attributes:
        parameters: of all its tensors.
        multiplied: of the matrices that a token is multiplied with; of experts, those that it goes through.
        attention: width of all heads together, the mean of that of queries and that of values; 0 where no
            scores are made.
        picking: of `multiplied`, that in what picks keys for a sparse attention: no gradient goes through it.
        picked_by: width of the scores that pick.
        inner: width of the feed-forward part; of all that a token goes through, where there are experts.
        experts: of `parameters`, those of router and experts that the plan adds.
        chosen: of `multiplied`, that in the router and the chosen experts that the plan adds.
        normed: widths of what root-mean-square norms read, all together; of a norm of heads, of all heads.
        centred: the same of norms with a bias, which keep less for their gradient.
        widened: widths of the hidden states of the feed-forward part, of every matrix that makes some.
    """

    parameters: int
    multiplied: float
    attention: float
    inner: int
    picking: int = 0
    picked_by: float = 0
    experts: int = 0
    chosen: int = 0
    normed: int = 0
    centred: int = 0
    widened: float = 0


def layer_sizes(base: Base) -> list[LayerSizes]:
    """The sizes of every layer of the base. Raises FamilyError."""
    family = family_of(base.facts.model_type)
    tensors, depth = base.checkpoint.tensors, base.facts.depth
    prefix = f"{family.stored_layers(tensors, depth)}."
    inside: list[dict[str, TensorInfo]] = [{} for _ in range(depth)]
    for name, tensor in tensors.items():
        layer, _, rest = name.removeprefix(prefix).partition(".")
        if name.startswith(prefix) and int(layer) < depth and not family.is_buffer(rest):
            inside[int(layer)][rest] = tensor
    config = section_of(base.config)
    shared = _shared(config, family, inside)
    known: dict[
        object, LayerSizes
    ] = {}  # most layers are like others; of hundreds of experts that saves time
    sizes = []
    for index, weights in enumerate(inside):
        alike = (
            index if index in shared else tuple((name, tensor.shape) for name, tensor in weights.items()),
            _share(config, base.facts.model_type, index),
            _compression(config, index),
        )
        if alike not in known:
            known[alike] = _layer(base, index, weights, shared.get(index, weights))
        sizes.append(known[alike])
    return sizes


def _shared(
    config: Mapping[str, Any], family: Family, inside: list[dict[str, TensorInfo]]
) -> dict[int, dict[str, TensorInfo]]:
    """What runs in each layer of a kind that shares its weights, of which files hold one copy."""
    kinds = config.get(family.lists[0]) if family.shared_kinds else None
    if not isinstance(kinds, list):
        return {}
    same = [index for index, kind in enumerate(kinds[: len(inside)]) if kind in family.shared_kinds]
    every = {name: tensor for index in same for name, tensor in inside[index].items()}

    def runs(name: str, rank: int) -> bool:
        adapter = _ADAPTER.search(name)
        return adapter is None or int(adapter[1]) == rank

    return {
        index: {name: tensor for name, tensor in every.items() if runs(name, rank)}
        for rank, index in enumerate(same)
    }


def _layer(
    base: Base, index: int, weights: Mapping[str, TensorInfo], runs: Mapping[str, TensorInfo]
) -> LayerSizes:
    config, hidden = section_of(base.config), base.facts.hidden_size
    family = family_of(base.facts.model_type)
    run = {name: tensor for name, tensor in runs.items() if not _CROSS.search(name)}
    if len(run) < len(runs) and not any(ATTENTION.search(name) for name in run):
        run = {}  # a layer that attends to an image alone is passed over where there is none
    matrices = {
        name: tensor
        for name, tensor in run.items()
        if len(tensor.shape) > 1 and not _NOT_MULTIPLIED.search(name)
    }
    share, experts = _share(config, base.facts.model_type, index)
    # What writes to the stream is (hidden, width) or, in gpt2, (width, hidden): its other side is the width.
    written = [tensor for name, tensor in matrices.items() if family.writes_residual(name)]
    plain = [tensor for tensor in written or matrices.values() if len(tensor.shape) == 2]
    indexer = {name: tensor for name, tensor in matrices.items() if _INDEXER in name}
    # Half of the work on distances: nothing behind them learns.
    distances = sum(tensor.count for name, tensor in matrices.items() if name.endswith(DISTANCES))
    streams = 1 + number(config, AHEAD.get(base.facts.model_type))
    rate = _compression(config, index)
    norms = list(_norms(run))
    return LayerSizes(
        parameters=sum(tensor.count for tensor in weights.values()),
        multiplied=streams
        * sum(
            _work(name, tensor, config, hidden) * (share if _is_expert(name, tensor, experts) else 1)
            for name, tensor in matrices.items()
        ),
        # A stream that predicts further ahead attends to the text and to itself.
        attention=(2 * streams - 1) * attention_width(config, run, hidden) * (1 + (1 / rate if rate else 0)),
        picking=distances + sum(tensor.count for tensor in indexer.values()),
        picked_by=sum(_picked_by(name, tensor, rate) for name, tensor in indexer.items()),
        inner=max((tensor.count // hidden for tensor in plain), default=0),
        normed=sum(width for width, biased in norms if not biased),
        centred=sum(width for width, biased in norms if biased),
        widened=sum(
            tensor.count / hidden * (share if _is_expert(name, tensor, experts) else 1)
            for name, tensor in matrices.items()
            if not ATTENTION.search(name) and not family.writes_residual(name)
        ),
    )


def _norms(run: Mapping[str, TensorInfo]) -> Iterator[tuple[int, bool]]:
    """The width of what each norm reads, and whether it has a bias."""
    for name, tensor in run.items():
        match = _NORM.search(name)
        if match is None or len(tensor.shape) != 1:
            continue
        projected = run.get(f"{match['module']}{match['part']}_proj.weight") if match["part"] else None
        width = projected.shape[0] if projected is not None else tensor.shape[0]
        yield width, f"{name.removesuffix('weight')}bias" in run


def number(config: Mapping[str, Any], *names: str | None) -> int:
    """A whole number from a configuration; 0 where it has none."""
    value = setting(config, *filter(None, names))
    return value if isinstance(value, int) else 0


def _work(name: str, tensor: TensorInfo, config: Mapping[str, Any], hidden: int) -> int:
    """Elements that a token is multiplied with in one matrix: its own, but where it is used several times."""
    if name.endswith("rel_logits_proj.proj"):  # by every head
        return tensor.count * (number(config, *HEADS) or 1)
    if name.endswith("altup.modality_router.weight"):  # for the prediction and for its correction
        return 2 * tensor.count
    if name.endswith(
        "altup.prediction_coefs.weight"
    ):  # what it makes mixes the streams: a number for each two
        return tensor.count + tensor.shape[0] * hidden
    if name.endswith(("hc_attn_fn", "hc_ffn_fn")):  # the same, but for the hyper connections of deepseek
        return tensor.count + number(config, "hc_mult") ** 2 * hidden
    if name.endswith(DISTANCES):  # by twice as many distances as there are tokens
        return 2 * tensor.count
    return tensor.count


def _compression(config: Mapping[str, Any], index: int) -> int | None:
    """How many keys of a layer are put into one that is attended to as well; None where none are."""
    rates, kinds = config.get("compress_rates"), config.get("layer_types")
    if not isinstance(rates, dict) or not isinstance(kinds, list) or index >= len(kinds):
        return None
    rate = rates.get(kinds[index])
    return rate if isinstance(rate, int) and rate > 0 else None


def _picked_by(name: str, tensor: TensorInfo, rate: int | None) -> float:
    """Width of the scores, over all keys, that an indexer's matrix makes."""
    if not _PICKING.search(name) or (rate and name.endswith("weights_proj.weight")):
        return 0.0
    return tensor.shape[0] / (rate or 1)


def _share(config: Mapping[str, Any], model_type: str, index: int) -> tuple[float, int | None]:
    """The share of a layer's experts that a token goes through, and how many there are."""
    inner = config.get("ffn_config")
    read = {**config, **inner} if isinstance(inner, dict) else config
    chosen, experts = (_of_layer(setting(read, *names), index) for names in (_CHOSEN, _EXPERTS))
    if not chosen or not experts or model_type in _EVERY_EXPERT:
        return 1.0, experts
    # Those that hand their input on are chosen like others: as often as others, until it is known better.
    idle = _of_layer(setting(read, "zero_expert_num"), index) or 0
    return min(1.0, chosen / (experts + idle)), experts


def _of_layer(value: Any, index: int) -> int | None:
    """A number that a configuration has for all layers, or one for each."""
    if isinstance(value, list):
        value = value[index] if index < len(value) else None
    return value if isinstance(value, int) else None


def _is_expert(name: str, tensor: TensorInfo, experts: int | None) -> bool:
    """Whether a matrix is of routed experts: one of them, or all in one tensor."""
    fused = len(tensor.shape) == 3 and tensor.shape[0] == experts and "shared" not in name
    return fused or _EXPERT.search(name) is not None
