"""Settings with a value for each layer: how they move with their layers, and which plans they rule out.

What a setting means follows from its name, whatever the architecture. A setting that no row here speaks of is
about the whole model, but a list with an entry for each layer that nothing is known of is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tli.architectures.family import Family
from tli.errors import Problem
from tli.planning.plan import Plan

Value = Any


def kind_problems(values: Mapping[str, Any], family: Family, plan: Plan, where: str) -> Iterator[Problem]:
    """Where a plan would change what an old layer is, or what it reads, by moving it."""
    yield from _periods(values, family, plan, where)
    yield from _sharing(values, plan, where)
    yield from _indexers(values, plan, where)
    yield from _alone(values, family, plan, where)


def moved_by(key: str, value: Value, plan: Plan) -> Callable[[Value, Plan], Value] | None:
    """How a setting moves with its layers; None for one that is about the whole model."""
    if key in _MOVES:
        return _MOVES[key]
    # Both are lists in some architectures, and numbers or nothing per layer in the others.
    if key in _LISTS and isinstance(value, (list, tuple, str)):
        return _spliced
    if "layer" in key and isinstance(value, (list, tuple)) and len(value) == plan.depth:
        return _unknown
    return None


def _spliced(value: Value, plan: Plan) -> Value:
    if len(value) != plan.depth:
        raise ValueError(f"{plan.depth} entries, one per layer")
    moved = [value[source] for source in plan.sources]
    return "".join(moved) if isinstance(value, str) else moved


def _unknown(_value: Value, _plan: Plan) -> Value:
    raise ValueError("no list with one entry per layer that nothing is known of")


def _indices(value: Value, plan: Plan) -> Value:
    return [position for position, source in enumerate(plan.sources) if source in set(value)]


def _leading(value: Value, plan: Plan) -> Value:
    """A number of layers from the bottom. One beyond the depth means all of them, and must go on so."""
    if value >= plan.depth:
        return value + plan.new_depth - plan.depth
    moved = sum(source < value for source in plan.sources)
    if any((source < value) != (position < moved) for position, source in enumerate(plan.sources)):
        raise ValueError("layers of both kinds in one piece each; this plan mixes them")
    return moved


def _trailing(value: Value, plan: Plan) -> Value:
    if value > plan.depth:
        raise ValueError(f"at most {plan.depth}, the number of layers")
    return plan.new_depth - _leading(plan.depth - value, plan) if value else value


def _last(value: Value, plan: Plan) -> Value:
    """The index of the last layer of a kind, which all layers below it are of."""
    return _leading(value + 1, plan) - 1


def _one_based(value: Value, plan: Plan) -> Value:
    return [index + 1 for index in _indices([index - 1 for index in value], plan)]


def _keyed(value: Value, plan: Plan) -> Value:
    """Settings of some layers by their index, as text of equal width."""
    width = max((len(str(key)) for key in value), default=1)
    by_layer = {int(key): settings for key, settings in value.items()}
    positions = [(position, source) for position, source in enumerate(plan.sources) if source in by_layer]
    return {f"{position:0{width}}": by_layer[source] for position, source in positions}


def _with_depth(value: Value, plan: Plan) -> Value:
    """A factor that is divided by the root of the depth, so that it stays what it is."""
    return value * (plan.new_depth / plan.depth) ** 0.5


def _cycled(value: Value, plan: Plan) -> Value:
    """A pattern that is repeated over the layers, spelled out."""
    if not value:
        raise ValueError("at least one entry")
    return [value[source % len(value)] for source in plan.sources]


def _runs(value: Value, plan: Plan) -> Value:
    """`[[[kind, kind], times], ...]`, spelled out as one run."""
    kinds = [kind for pattern, times in value for _ in range(times) for kind in pattern]
    return [[_spliced(kinds, plan), 1]]


_LISTS = (
    "layer_types",
    "mlp_layer_types",
    "no_rope_layers",
    "indexer_types",
    "layer_rope_theta",
    "activation_sparsity_pattern",
    "intermediate_size",
    "num_attention_heads_per_layer",
    "attention_layers",
    "attn_layers",
    "layers_block_type",
    "moe_topk",
    "num_experts",
    "num_shared_expert",
    "moe_intermediate_size",
    "hybrid_override_pattern",
)
_MOVES: Mapping[str, Callable[[Value, Plan], Value]] = {
    **dict.fromkeys(
        (
            "attn_layer_indices",
            "mlp_only_layers",
            "moe_layers",
            "cross_attention_layers",
            "full_attn_idxs",
            "hybrid_layer_ids",
        ),
        _indices,
    ),
    **dict.fromkeys(
        ("first_k_dense_replace", "num_dense_layers", "max_window_layers", "moe_layer_start_index"), _leading
    ),
    "moe_layer_end_index": _last,
    "ple_layer_ids": _one_based,
    "per_layer_config": _keyed,
    "scale_depth": _with_depth,
    "num_kv_shared_layers": _trailing,
    "block_types": _cycled,
    "attention_types": _runs,
}


def spell_out_steps(values: Mapping[str, Any], new: dict[str, Value], plan: Plan) -> None:
    """`decoder_sparse_step` n makes every n-th layer a mixture of experts, by its index. Spelled out instead
    as the list of those that are none.
    """
    step, dense = values.get("decoder_sparse_step"), values.get("mlp_only_layers") or []
    if plan.injected and step is not None and step > 1:
        sources = enumerate(plan.sources)
        new["mlp_only_layers"] = [i for i, source in sources if source in dense or (source + 1) % step]
        new["decoder_sparse_step"] = 1


def _periods(values: Mapping[str, Any], family: Family, plan: Plan, where: str) -> Iterator[Problem]:
    """Layers whose kind follows from their index alone: every layer must keep its own."""
    for period_key, offset_key in family.periods:
        period = values.get(period_key) or 1
        offset = -1 if offset_key is None else values.get(offset_key) or 0
        if any(
            ((i - offset) % period == 0) != ((source - offset) % period == 0)
            for i, source in enumerate(plan.sources)
        ):
            expected = f"whole periods of {period} layers, as a layer's kind follows from its index"
            remedy = f"sets and blocks of multiples of {period} layers"
            yield Problem(f"{where}: {period_key}", f"{period}, which this plan breaks", expected, remedy)


def _sharing(values: Mapping[str, Any], plan: Plan, where: str) -> Iterator[Problem]:
    """The last layers may read keys and values of the last one before them of their kind: it must stay so."""
    count = values.get("num_kv_shared_layers")
    if not count:
        return
    first = plan.depth - count
    kinds = values.get("layer_types") or [None] * plan.depth
    for kind in dict.fromkeys(kinds[first:]):
        old = max((n for n in range(first) if kinds[n] == kind), default=None)
        below = [(i, s) for i, s in enumerate(plan.sources) if s < first and kinds[s] == kind]
        if old is not None and (below[-1][1] != old or below[-1][0] in plan.injected):
            expected = f"no new layer between {old} and {first}, whose keys and values the last ones read"
            remedy = f"layers 0:{old} or {first}:"
            yield Problem(f"{where}: num_kv_shared_layers", str(count), expected, remedy)
            return


def _indexers(values: Mapping[str, Any], plan: Plan, where: str) -> Iterator[Problem]:
    """A layer may attend where the last one before it with an indexer said: it must stay that one."""
    kinds = values.get("indexer_types") or []
    if len(kinds) != plan.depth or "shared" not in kinds:
        return
    if "full" not in kinds[: kinds.index("shared")]:
        yield Problem(
            f"{where}: indexer_types", short(kinds), "an indexer below the first layer that shares one"
        )
        return
    own = [i for i, source in enumerate(plan.sources) if kinds[source] == "full"]
    for position, source in enumerate(plan.sources):
        if kinds[source] == "shared" and position not in plan.injected:
            leader = max(i for i in own if i < position)
            before = max(n for n in range(source) if kinds[n] == "full")
            if plan.sources[leader] != before or leader in plan.injected:
                expected = f"no new indexer between layer {before} and {source}, which reads that of {before}"
                remedy = f"after {','.join(str(n) for n, kind in enumerate(kinds) if kind == 'shared')}"
                yield Problem(f"{where}: indexer_types", short(kinds), expected, remedy)
                return


def _alone(values: Mapping[str, Any], family: Family, plan: Plan, where: str) -> Iterator[Problem]:
    """Layers that must not be copied, or moved."""
    sources, last = plan.sources, plan.depth - 1
    if family.fixed_layer == "first" and (sources.index(0) or sources.count(0) > 1):
        expected = "a plan that leaves the first layer, which has a form of its own, alone"
        yield Problem(f"{where}: model_type", family.model_type, expected, "layers 1:")
    if family.fixed_layer == "last" and (sources[-1] != last or sources.count(last) > 1):
        expected = "a plan that leaves the last layer, which has a form of its own, alone"
        yield Problem(f"{where}: model_type", family.model_type, expected, f"layers 0:{last}")
    kinds = values.get(family.lists[0]) if family.shared_kinds else None
    if kinds and any(kinds[sources[position]] in family.shared_kinds for position in plan.injected):
        got = f"{kinds!r}"
        expected = f"no copy of a layer of kind {' or '.join(family.shared_kinds)}, which share their weights"
        free = ",".join(str(n) for n, kind in enumerate(kinds) if kind not in family.shared_kinds)
        yield Problem(f"{where}: {family.lists[0]}", short(got), expected, f"after {free}")


def short(value: Value) -> str:
    """A value in at most 80 characters."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
