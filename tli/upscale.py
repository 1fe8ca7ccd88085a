"""Applies a plan: to a model in memory (`grow`), or to a folder without loading it (`upscale_folder`).

Both ask `tli.initial` for the weights of new layers, so the same plan, base and seed give the same numbers.
"""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tli import aside
from tli.base import Base, find
from tli.checkpoint_io import INDEX, SINGLE
from tli.combine import Layout, Read
from tli.config import deepen, deepen_json, section_of
from tli.errors import CheckpointError, InputError, PlanError, Problem
from tli.families import family_of
from tli.family import Family
from tli.header import FLOATS, TensorInfo
from tli.initial import Initial, Way
from tli.lineage import FILE, lineage, write_lineage
from tli.moe import dense_type, moe_config, require_mixture
from tli.moe_outputs import moe_outputs
from tli.plan import Plan
from tli.quantised import moved_settings, quantised_problems
from tli.shards import Computed, Output, Progress, Zeros, write_shards
from tli.tensor_bytes import bytes_of, read_tensor
from tli.upcycle import expert_parameters, upcycle

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

_SIDECARS = ("*.json", "*.txt", "*.jinja", "*.model", "LICENSE*", "NOTICE*")
_WRITTEN_ANEW = ("config.json", INDEX, FILE)
_ROOM_TO_SPARE = 2**20  # bytes: headers, index, lineage


def grow(model: PreTrainedModel, plan: Plan, *, seed: int = 0) -> PreTrainedModel:
    """A new model of the new depth: same type, device and mode, every parameter trainable; and of the same
    class, or with experts of the matching one (`tli.moe`).

    `model` is left as it is and shares no storage with the new one. Costs one copy of the weights: nothing is
    initialised that is then overwritten. `seed` is of all that is drawn. Raises FamilyError for an
    architecture or a stack that cannot be upscaled so, and PlanError for a plan of another depth.
    """
    if plan.unchanged:
        return _copied(model, plan)
    if plan.experts is None:
        return _deepened(model, plan, seed)
    _same_depth(_model_depth(model), plan)
    require_mixture(model.config.to_dict(), plan.experts)
    if not plan.injected:
        return upcycle(model, plan.experts, seed=seed)
    return upcycle(_deepened(model, plan, seed), plan.experts, seed=seed, share=True)


def _deepened(model: PreTrainedModel, plan: Plan, seed: int) -> PreTrainedModel:
    import torch
    from transformers.initialization import no_init_weights

    family = family_of(model.config.model_type, "model_type")
    config = deepen(model.config, family, plan)
    for part in (config, config.get_text_config(decoder=True)):
        if isinstance(part.dtype, str):  # as a saved model has it
            part.dtype = getattr(torch, part.dtype)
    with torch.device("meta"), no_init_weights():
        grown = type(model)(config)
    inner = config.get_text_config(decoder=True).to_dict()
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters(remove_duplicate=False)}
    initial = Initial.of(plan, family, inner, seed, _layout(shapes, family.layers, family, plan))
    with torch.no_grad():
        _fill(grown, model, initial)
    if model.can_generate():
        grown.generation_config = copy.deepcopy(model.generation_config)
    grown.name_or_path = model.name_or_path
    return grown.train(model.training)


def injected_parameters(model: PreTrainedModel, plan: Plan) -> frozenset[str]:
    """Names of the parameters that the base has none of in a grown model; empty for the control.

    Those of the injected layers and, where the plan has experts, all routers and experts: experts start as
    copies, but to become different from each other is what they are there for.
    """
    if plan.unchanged:
        return frozenset()
    layers = family_of(dense_type(model.config.model_type), "model_type").layers
    prefixes = tuple(f"{layers}.{position}." for position in plan.injected)
    new = frozenset(name for name, _ in model.named_parameters() if name.startswith(prefixes))
    return new if plan.experts is None else new | expert_parameters(model)


def upscale_folder(
    src: Path | Base, dst: Path, plan: Plan, *, seed: int = 0, progress: Progress | None = None
) -> None:
    """Writes the deepened model of folder `src` to the new folder `dst`, at the speed of a file copy.

    Copied tensors move as ranges of bytes and zeros are not written; torch is imported for what is calculated
    alone, and holds one tensor at a time (`tli.align` and `tli.predict` say what theirs hold). Names, types
    and the size of shards stay the source's. Tokenizer and generation settings are copied, and `lineage.json`
    says what was done. `dst` appears when it is complete. `progress(done, total)` is called with bytes.
    Raises InputError with all problems.
    """
    base = src if isinstance(src, Base) else find(str(src))
    outputs = planned(base, plan, seed=seed)
    config = grown_config(base, plan)
    sidecars = list(_sidecars(base))
    needed = sum(output.nbytes for output in outputs if not isinstance(output.content, Zeros))
    needed += sum(path.stat().st_size for path in sidecars) + _ROOM_TO_SPARE
    problems = aside.taken(dst) + aside.no_room(dst, needed)
    if problems:
        raise CheckpointError(*problems)
    shards = base.checkpoint.shards
    limit = max(sum(tensor.nbytes for tensor in shard.tensors) for shard in shards)
    single = shards[0].file.name == SINGLE
    # The fingerprint reads the source once; beside the copy, which waits for the disk, it costs little time.
    with aside.new_folder(dst) as folder, ThreadPoolExecutor(1) as executor:
        told = executor.submit(lineage, base, plan, seed=seed)
        write_shards(
            folder,
            outputs,
            limit=None if single else limit,
            metadata=shards[0].metadata,
            progress=progress,
        )
        for path in sidecars:
            shutil.copyfile(path, folder / path.name)
        text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
        (folder / "config.json").write_text(text, encoding="utf-8")
        write_lineage(folder, told.result())


def growth_problems(base: Base, plan: Plan) -> list[Problem]:
    """Why a plan cannot be applied to a base, from its headers and configuration; none where it can."""
    problems: list[Problem] = []
    for look in (lambda: grown_config(base, plan), lambda: planned(base, plan, seed=0)):
        try:
            look()
        except InputError as error:
            problems += [problem for problem in error.problems if problem not in problems]
    return problems


def grown_config(base: Base, plan: Plan) -> dict[str, Any]:
    """The content of the grown model's config.json. Raises FamilyError and PlanError."""
    config = base.config
    if plan.injected:
        config = deepen_json(config, base.folder, family_of(config["model_type"]), plan)
        if "quantization_config" in config:
            config["quantization_config"] = moved_settings(config["quantization_config"], plan)
    return config if plan.experts is None else moe_config(config, plan.experts)


def planned(base: Base, plan: Plan, *, seed: int) -> list[Output]:
    """Every tensor of the grown model and where its bytes come from, in the order of the source's files.

    Raises FamilyError, PlanError, and CheckpointError for arithmetic on types that torch has none for.
    """
    _same_depth(base.facts.depth, plan)
    problems = quantised_problems(base, plan)
    if problems:
        raise CheckpointError(*problems)
    if plan.experts is None:
        return _planned_layers(base, plan, seed)
    require_mixture(base.config, plan.experts)
    layers = family_of(base.config["model_type"]).stored_layers(base.checkpoint.tensors, plan.depth)
    deeper = _planned_layers(base, plan, seed)
    return moe_outputs(deeper, base.config, plan.experts, layers=layers, seed=seed)


def _planned_layers(base: Base, plan: Plan, seed: int) -> list[Output]:
    tensors = base.checkpoint.tensors
    if not plan.injected:
        return [Output(info.name, info.dtype, info.shape, info) for info in _in_order(base)]
    family = family_of(base.config["model_type"])
    prefix = family.stored_layers(tensors, plan.depth)
    shapes = {name: info.shape for name, info in tensors.items()}
    layout = _layout(shapes, prefix, family, plan)
    initial = Initial.of(plan, family, section_of(base.config), seed, layout)
    positions: dict[int, list[int]] = {}
    for position, source in enumerate(plan.sources):
        positions.setdefault(source, []).append(position)
    outputs = []
    for info in _in_order(base):
        layer, rest = _split(prefix, info.name)
        if layer is None:
            outputs.append(_outside(initial, info))
        elif layer >= plan.depth:  # prediction of several tokens, stored as layers behind the last
            name = f"{prefix}.{layer + plan.new_depth - plan.depth}.{rest}"
            outputs.append(Output(name, info.dtype, info.shape, info))
        for position in positions.get(layer, ()) if layer is not None else ():
            content: TensorInfo | Zeros | Computed = info
            if position in plan.injected:
                content = _content(initial, position, rest, info, _reading(tensors, prefix))
            outputs.append(Output(f"{prefix}.{position}.{rest}", info.dtype, info.shape, content))
    return outputs


def _layout(shapes: Mapping[str, tuple[int, ...]], prefix: str, family: Family, plan: Plan) -> Layout:
    """The shapes of the weights of every old layer by their names in it, from those of all tensors."""
    layout: list[dict[str, tuple[int, ...]]] = [{} for _ in range(plan.depth)]
    for name, shape in shapes.items():
        layer, rest = _split(prefix, name)
        if layer is not None and layer < plan.depth and not family.is_buffer(rest):
            layout[layer][rest] = shape
    return layout


def _outside(initial: Initial, info: TensorInfo) -> Output:
    """A tensor that is in no layer; one that has a part for each layer grows with them."""
    plan, axis = initial.plan, initial.family.axis_of_layers(info.name)
    if axis is None or not plan.injected:
        return Output(info.name, info.dtype, info.shape, info)
    size = info.shape[axis] // plan.depth * plan.new_depth
    shape = (*info.shape[:axis], size, *info.shape[axis + 1 :])
    return Output(
        info.name, info.dtype, shape, Computed(lambda: bytes_of(_widened(read_tensor(info), axis, plan)))
    )


def _widened(tensor: Tensor, axis: int, plan: Plan) -> Tensor:
    """The parts of a tensor along an axis, one for each layer, as the plan has the layers."""
    import torch

    parts = tensor.detach().chunk(plan.depth, dim=axis)
    return torch.cat([parts[source] for source in plan.sources], dim=axis)


def _reading(tensors: Mapping[str, TensorInfo], prefix: str) -> Read:
    return lambda layer, name: read_tensor(tensors[f"{prefix}.{layer}.{name}"])


def _in_order(base: Base) -> Iterator[TensorInfo]:
    for shard in base.checkpoint.shards:
        yield from shard.tensors


def _content(
    initial: Initial, position: int, rest: str, info: TensorInfo, read: Read
) -> TensorInfo | Zeros | Computed:
    """Where a tensor of a new layer comes from: `info` is its source layer's."""
    floating = info.dtype != "BOOL" and info.dtype[0] not in "IU"
    way = initial.way(rest, floating=floating)
    if way is Way.COPY:
        return info
    if way is Way.ZEROS:
        return Zeros()
    if info.dtype not in FLOATS:
        expected = f"one of {', '.join(FLOATS)}, as {initial.plan.injection.init} calculates with them"
        raise CheckpointError(Problem(f"{info.file}: {info.name}", info.dtype, expected, "copy or identity"))
    return Computed(lambda: bytes_of(initial.first_values(position, rest, read)))


def _sidecars(base: Base) -> Iterator[Path]:
    """Files that go with the weights: tokenizer, generation settings, licence. Not the model card, which
    speaks of another model, and code only for a model that was allowed to bring some.
    """
    patterns = (*_SIDECARS, "*.py") if base.config.get("auto_map") else _SIDECARS
    found = {path for pattern in patterns for path in base.folder.glob(pattern)}
    return (path for path in sorted(found) if path.is_file() and path.name not in _WRITTEN_ANEW)


def _copied(model: PreTrainedModel, plan: Plan) -> PreTrainedModel:
    _same_depth(_model_depth(model), plan)
    copied = copy.deepcopy(model)
    copied.zero_grad(set_to_none=True)
    return copied.requires_grad_()


def _model_depth(model: PreTrainedModel) -> int:
    config = model.config.get_text_config(decoder=True)
    return int(config.num_hidden_layers)


def _same_depth(depth: int, plan: Plan) -> None:
    if depth != plan.depth:
        raise PlanError(Problem("plan.depth", str(plan.depth), f"{depth}, the model's number of layers"))


def _fill(grown: PreTrainedModel, model: PreTrainedModel, initial: Initial) -> None:
    """Puts copies of the tensors of `model` into the empty `grown`, and first weights into its new layers."""
    from torch import nn

    parameters = dict(model.named_parameters(remove_duplicate=False))
    buffers = dict(model.named_buffers(remove_duplicate=False))
    read = _reader({**buffers, **parameters}, initial.family.layers)

    def made_of(name: str) -> Tensor:
        position, rest = _split(initial.family.layers, name)
        # What is no parameter is no weight either, but for the few that the stream is multiplied with.
        weight = _source(initial, name) in parameters or initial.family.is_multiplier(rest)
        if position is not None and position in initial.plan.injected and weight:
            return initial.first_values(position, rest, read)
        source = {**buffers, **parameters}[_source(initial, name)].detach()
        axis = initial.family.axis_of_layers(name)
        return source.clone() if axis is None else _widened(source, axis, initial.plan)

    made: dict[int, nn.Parameter] = {}  # by the identity of the source, so that tied weights stay tied
    for name, _ in list(grown.named_parameters(remove_duplicate=False)):
        position, _ = _split(initial.family.layers, name)
        if position is not None and position in initial.plan.injected:
            parameter = nn.Parameter(made_of(name))
        else:
            source = id(parameters[_source(initial, name)])
            if source not in made:
                made[source] = nn.Parameter(made_of(name))
            parameter = made[source]
        module, leaf = _place(grown, name)
        module._parameters[leaf] = parameter
    for name, _ in list(grown.named_buffers(remove_duplicate=False)):
        module, leaf = _place(grown, name)
        module._buffers[leaf] = made_of(name)


def _split(layers: str, name: str) -> tuple[int | None, str]:
    """`model.layers.3.mlp.up_proj.weight` -> (3, "mlp.up_proj.weight"); (None, name) outside the layers."""
    if not name.startswith(f"{layers}."):
        return None, name
    position, _, rest = name.removeprefix(f"{layers}.").partition(".")
    return int(position), rest


def _source(initial: Initial, name: str) -> str:
    position, rest = _split(initial.family.layers, name)
    return name if position is None else f"{initial.family.layers}.{initial.plan.sources[position]}.{rest}"


def _reader(parameters: Mapping[str, nn.Parameter], layers: str) -> Read:
    return lambda layer, name: parameters[f"{layers}.{layer}.{name}"].detach()


def _place(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    path, _, leaf = name.rpartition(".")
    return model.get_submodule(path), leaf
