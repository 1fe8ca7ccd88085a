"""Verifies a grown folder against its lineage: byte by byte, and by running it."""

from __future__ import annotations

import filecmp
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from tli.architectures.config import section_of
from tli.checkpoint.header import BITS, FLOATS, TensorInfo
from tli.checkpoint.tensors import finite
from tli.checkpoint.writer import Buffer, Output, Zeros
from tli.errors import InputError
from tli.growth.on_disk import grown_config, planned
from tli.growth.verify_by_running import runs
from tli.growth.verify_report import Check, Report, Subject
from tli.initializers.upcycle import config_difference
from tli.models.base import Base, find
from tli.models.lineage import read_lineage
from tli.models.model_files import side_files
from tli.models.references import brings_code
from tli.planning.experts import Experts
from tli.planning.plan import Plan

_TOWERS = re.compile(r"vision|audio|image")  # beside the language model; limits in them may be infinite
_PIECE = 2**24  # bytes compared at a time


def verify_folder(folder: Path, base: Base, *, load: bool = True) -> Report:
    """Checks the folder against `base` and the plan in its lineage.json.

    Without `load` the bytes are compared, but the model is not run. With it, base and result are held in
    float32, one after the other. A model that was trained after the upscaling is checked for all that
    training keeps. Raises InputError when there is no model or no lineage to check.
    """
    lineage = read_lineage(folder)
    plan = Plan.from_json(lineage["plan"], f"{folder}: lineage.json: plan")
    subject = Subject(find(str(folder)), base, plan, lineage)
    checks = [_base, _depth, _beside, _tensors, _finite]
    if load:
        checks += [runs]
    return Report(str(folder), tuple(result for check in checks for result in _made(check, subject)))


_Look = Callable[[Subject], Iterator[Check]]


def _made(look: _Look, subject: Subject) -> Iterator[Check]:
    """The results of one look; what it cannot read is its result."""
    try:
        yield from look(subject)
    except InputError as error:
        yield Check(look.__name__.lstrip("_"), ok=False, detail=str(error))


def _base(subject: Subject) -> Iterator[Check]:
    expected, found = subject.lineage["base"]["fingerprint"], subject.base.fingerprint
    detail = f"{subject.base.name}, {found[:12]}"
    if expected != found:
        detail += f"; the lineage names {subject.lineage['base']['name']}, {expected[:12]}"
    yield Check("base", expected == found, detail)


def _depth(subject: Subject) -> Iterator[Check]:
    """The configuration: new depth, and per-layer lists as the plan moves them."""
    base, plan = subject.base, subject.plan
    if plan.experts is not None:
        yield from _experts(subject, plan.experts)
    depth = subject.written.facts.depth
    if not plan.injected or plan.experts is not None:  # of which all settings were just looked at
        detail = f"{depth} layers, the base has {plan.depth}"
        yield Check("depth", depth == plan.new_depth, detail)
        return
    expected = section_of(grown_config(base, plan))
    found = section_of(subject.written.config)
    moved = section_of(base.config)
    for key in (key for key in expected if expected[key] != moved.get(key)):
        if found.get(key) != expected[key]:
            yield Check("depth", ok=False, detail=f"{key} is {found.get(key)!r}, not {expected[key]!r}")
            return
    yield Check("depth", ok=True, detail=f"{plan.new_depth} layers from {plan.depth}")


def _beside(subject: Subject) -> Iterator[Check]:
    """What belongs to the base beside its weights, byte by byte."""
    base, written = subject.base.folder, subject.written.folder
    names = side_files(base, code=brings_code(base, subject.base.config))
    for name in names:
        exists = (written / name).is_file()
        if not exists or not filecmp.cmp(base / name, written / name, shallow=False):
            detail = f"{name} {'differs from the base' if exists else 'is missing'}"
            yield Check("beside", ok=False, detail=detail)
            return
    yield Check("beside", ok=True, detail=f"{len(names)} files as in the base: {', '.join(names)}")


def _experts(subject: Subject, experts: Experts) -> Iterator[Check]:
    """The configuration of the mixture."""
    found = subject.written.config
    difference = config_difference(grown_config(subject.base, subject.plan), found)
    detail = difference or f"{found['model_type']}, {experts.describe()}"
    yield Check("experts", difference is None, detail)


def _tensors(subject: Subject) -> Iterator[Check]:
    """Every tensor byte by byte; of a trained model, only which there are."""
    outputs = {
        output.name: output for output in planned(subject.base, subject.plan, seed=subject.lineage["seed"])
    }
    found = subject.written.checkpoint.tensors
    for name in [*outputs, *found]:
        if (name in outputs) != (name in found):
            yield Check(
                "tensors", ok=False, detail=f"{name} is {'missing' if name in outputs else 'too many'}"
            )
            return
        if found[name].shape != outputs[name].shape:
            detail = f"{name} has shape {list(found[name].shape)}, not {list(outputs[name].shape)}"
            yield Check("tensors", ok=False, detail=detail)
            return
    if subject.trained:
        yield Check(
            "tensors", ok=True, detail=f"{len(found)}, of the planned shapes; trained since, so not compared"
        )
        return
    difference = next(filter(None, (_difference(outputs[name], found[name]) for name in outputs)), None)
    detail = difference or f"{len(found)}, each byte as planned"
    yield Check("tensors", difference is None, detail)


def _difference(output: Output, found: TensorInfo) -> str | None:
    """Where a written tensor first differs from what was planned, by element."""
    if found.dtype != output.dtype:
        return f"{output.name} is {found.dtype}, not {output.dtype}"
    place = 0
    with found.file.open("rb") as file:
        file.seek(found.start)
        for expected in _pieces(output):
            got = file.read(len(expected))
            if expected != got:
                byte = place + next(n for n, value in enumerate(expected) if got[n : n + 1] != bytes([value]))
                source = output.content
                what = (
                    f"{source.name} of the base" if isinstance(source, TensorInfo) else "what the plan says"
                )
                return f"{output.name} differs from {what}, first at element {8 * byte // BITS[found.dtype]}"
            place += len(expected)
    return None


def _pieces(output: Output) -> Iterator[Buffer]:
    if isinstance(output.content, TensorInfo):
        yield from output.content.pieces(_PIECE)
    elif isinstance(output.content, Zeros):
        for start in range(0, output.nbytes, _PIECE):
            yield bytes(min(_PIECE, output.nbytes - start))
    else:
        yield from output.content.pieces()


def _finite(subject: Subject) -> Iterator[Check]:
    """No infinity and no not-a-number, in any tensor of a type that arithmetic is done on."""
    found = subject.written.checkpoint.tensors.values()
    infos = [info for info in found if info.dtype in FLOATS and not _TOWERS.search(info.name)]
    bad = next((info.name for info in infos if not finite(info)), None)
    yield Check("finite", bad is None, f"{len(infos)} tensors" if bad is None else f"{bad} is not")
