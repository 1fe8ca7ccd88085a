"""Applies a plan to a folder without loading it.

`tli.growth.in_memory` does it in memory. Both ask `tli.initializers.initial` for the weights of new layers,
so the same plan, base and seed give the same numbers.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tli.architectures.config import deepen_json, section_of
from tli.architectures.lookup import family_of
from tli.architectures.mixtures import moe_config, require_mixture
from tli.checkpoint import atomic
from tli.checkpoint.header import FLOATS, TensorInfo
from tli.checkpoint.reader import SINGLE
from tli.checkpoint.tensors import bytes_of, read_tensor
from tli.checkpoint.writer import Computed, Content, Output, Pieces, Progress, Zeros, write_shards
from tli.errors import CheckpointError, InputError, Problem
from tli.growth.experts_on_disk import moe_outputs
from tli.initializers.elementwise import Infos, first_pieces
from tli.initializers.initial import Initial, InitKind
from tli.initializers.layers import layout_of, same_depth, split, widened_pieces
from tli.models.base import Base, find
from tli.models.lineage import lineage, write_lineage
from tli.models.model_files import copy_side_files, side_files
from tli.models.quantised import quantised_problems, with_moved_settings
from tli.models.references import brings_code
from tli.planning.plan import Plan

if TYPE_CHECKING:
    from torch import Tensor

_ROOM_TO_SPARE = 2**20  # bytes: headers, index, lineage


def upscale_folder(
    src: Path | Base, dst: Path, plan: Plan, *, seed: int = 0, progress: Progress | None = None
) -> None:
    """Writes the deepened model of folder `src` to the new folder `dst`, at the speed of a file copy.

    Copied tensors move as ranges of bytes and zeros are not written. What is made number by number is made
    part by part beside the copying; for aligned and predicted layers alone torch is imported, and holds one
    tensor at a time (`tli.initializers.align` and `tli.initializers.predict` say what theirs hold). Names,
    types and the size of shards stay the source's. Tokenizer and generation settings are copied, and
    `lineage.json` says what was done. `dst` appears when it is complete. `progress(done, total)` is called
    with bytes. Raises InputError with all problems.
    """
    base = src if isinstance(src, Base) else find(str(src))
    outputs = planned(base, plan, seed=seed)
    config = grown_config(base, plan)
    code = brings_code(base.folder, base.config)
    needed = sum(output.nbytes for output in outputs if not isinstance(output.content, Zeros))
    beside = [base.folder / name for name in side_files(base.folder, code=code)]
    needed += sum(path.stat().st_size for path in beside) + _ROOM_TO_SPARE
    atomic.clear(dst)
    problems = atomic.exists_problems(dst) + atomic.disk_space_problems(dst, needed)
    if problems:
        raise CheckpointError(*problems)
    shards = base.checkpoint.shards
    limit = max(sum(tensor.nbytes for tensor in shard.tensors) for shard in shards)
    single = shards[0].file.name == SINGLE
    # The fingerprint reads parts of the source; beside the copy, which waits for the disk, it costs no time.
    with atomic.new_folder(dst) as folder, ThreadPoolExecutor(1) as executor:
        written = executor.submit(lineage, base, plan, seed=seed)
        write_shards(
            folder,
            outputs,
            limit=None if single else limit,
            metadata=shards[0].metadata,
            progress=progress,
        )
        copy_side_files(base.folder, folder, code=code)
        text = json.dumps(config, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        (folder / "config.json").write_text(text, encoding="utf-8")
        write_lineage(folder, written.result())


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
        config = with_moved_settings(config, plan)
    return config if plan.experts is None else moe_config(config, plan.experts)


def planned(base: Base, plan: Plan, *, seed: int) -> list[Output]:
    """Every tensor of the grown model and where its bytes come from, in the order of the source's files.

    Raises FamilyError, PlanError, and CheckpointError for arithmetic on types that torch has none for.
    """
    same_depth(base.facts.depth, plan)
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
    shapes: list[dict[str, tuple[int, ...]]] = [{} for _ in range(plan.depth)]
    for info in tensors.values():
        layer, rest = split(prefix, info.name)
        if layer is not None and layer < plan.depth:
            shapes[layer][rest] = info.shape
    initial = Initial.of(plan, family, section_of(base.config), seed, layout_of(shapes, family))
    positions: dict[int, list[int]] = {}
    for position, source in enumerate(plan.sources):
        positions.setdefault(source, []).append(position)
    outputs = []
    for info in _in_order(base):
        layer, rest = split(prefix, info.name)
        if layer is None:
            outputs.append(_outside(initial, info))
        elif layer >= plan.depth:  # prediction of several tokens, stored as layers behind the last
            name = f"{prefix}.{layer + plan.new_depth - plan.depth}.{rest}"
            outputs.append(Output(name, info.dtype, info.shape, info))
        for position in positions.get(layer, ()) if layer is not None else ():
            content: Content = info
            if position in plan.injected:
                content = _content(initial, position, rest, info, _infos(tensors, prefix))
            outputs.append(Output(f"{prefix}.{position}.{rest}", info.dtype, info.shape, content))
    return outputs


def _outside(initial: Initial, info: TensorInfo) -> Output:
    """A tensor that is in no layer; one that has a part for each layer grows with them."""
    plan, axis = initial.plan, initial.family.axis_of_layers(info.name)
    if axis is None or not plan.injected:
        return Output(info.name, info.dtype, info.shape, info)
    if info.shape[axis] % plan.depth:
        expected = f"a multiple of {plan.depth} along axis {axis}, a part for each layer"
        raise CheckpointError(Problem(f"{info.file}: {info.name}", f"shape {list(info.shape)}", expected))
    size = info.shape[axis] // plan.depth * plan.new_depth
    shape = (*info.shape[:axis], size, *info.shape[axis + 1 :])
    return Output(info.name, info.dtype, shape, Pieces(lambda: widened_pieces(info, axis, plan)))


def _infos(tensors: Mapping[str, TensorInfo], prefix: str) -> Infos:
    return lambda layer, name: tensors[f"{prefix}.{layer}.{name}"]


def _in_order(base: Base) -> Iterator[TensorInfo]:
    for shard in base.checkpoint.shards:
        yield from shard.tensors


def _content(initial: Initial, position: int, rest: str, info: TensorInfo, infos: Infos) -> Content:
    """Where a tensor of a new layer comes from: `info` is its source layer's."""
    floating = info.dtype != "BOOL" and info.dtype[0] not in "IU"
    kind = initial.init_kind(rest, floating=floating)
    if kind is InitKind.COPY:
        return info
    if kind is InitKind.ZEROS:
        return Zeros()
    if info.dtype not in FLOATS:
        expected = f"one of {', '.join(FLOATS)}, as {initial.plan.injection.init} calculates with them"
        raise CheckpointError(Problem(f"{info.file}: {info.name}", info.dtype, expected, "copy or identity"))
    if initial.elementwise:
        return Pieces(lambda: first_pieces(initial.steps(position, rest, len(info.shape)), rest, infos))

    def read(layer: int, name: str) -> Tensor:
        return read_tensor(infos(layer, name))

    return Computed(lambda: bytes_of(initial.initialize(position, rest, read)))
