"""Proof that a written folder is what its lineage says: from its bytes, and by loading and running it."""

from __future__ import annotations

import filecmp
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tli.base import Base, find
from tli.config import section_of
from tli.errors import InputError, VerificationError
from tli.experts import Experts
from tli.header import BITS, FLOATS, TensorInfo
from tli.lineage import read_lineage
from tli.model_files import side_files
from tli.plan import Plan
from tli.quantised import method_of
from tli.references import brings_code
from tli.shards import Buffer, Output, Zeros
from tli.tensor_bytes import finite
from tli.upcycle import config_difference
from tli.upscale import grown_config, planned

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

_TOWERS = re.compile(r"vision|audio|image")  # beside the language model; limits in them may be infinite
_PROMPT = 16  # tokens
_GENERATED = 8
_PIECE = 2**24  # bytes compared at a time
_ROUNDING = 1e-4  # of the largest logit: how far float32 may go with sums in another order
_TYPES = {"F16": 2e-3, "BF16": 2e-2}  # the same, where weights were rounded to their type


@dataclass(frozen=True)
class Check:
    """One thing that was looked at; `detail` says what was found, or the first difference."""

    name: str
    ok: bool
    detail: str


@dataclass(frozen=True)
class Report:
    """All checks of a folder, in the order they were made."""

    folder: str
    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Whether everything is as it should be."""
        return all(check.ok for check in self.checks)

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {"folder": self.folder, "ok": self.ok, "checks": [asdict(check) for check in self.checks]}

    def require(self) -> None:
        """Raises VerificationError with the first difference."""
        for check in self.checks:
            if not check.ok:
                raise VerificationError(f"{self.folder}: {check.name}: {check.detail}")


@dataclass(frozen=True)
class _Subject:
    """What is verified, and against what."""

    written: Base
    base: Base
    plan: Plan
    lineage: dict[str, Any]

    @property
    def trained(self) -> bool:
        """Whether the weights went on from where the plan put them."""
        return "training" in self.lineage


def verify_folder(folder: Path, base: Base, *, load: bool = True) -> Report:
    """Checks the folder against `base` and the plan in its lineage.json.

    Without `load` the bytes are compared, but the model is not run. With it, base and result are held in
    float32, one after the other. A model that was trained after the upscaling is checked for all that
    training keeps. Raises InputError when there is no model or no lineage to check.
    """
    told = read_lineage(folder)
    plan = Plan.from_json(told["plan"], f"{folder}: lineage.json: plan")
    subject = _Subject(find(str(folder)), base, plan, told)
    checks = [_base, _depth, _beside, _tensors, _finite]
    if load:
        checks += [_runs]
    return Report(str(folder), tuple(result for check in checks for result in _made(check, subject)))


_Look = Callable[[_Subject], Iterator[Check]]


def _made(look: _Look, subject: _Subject) -> Iterator[Check]:
    """The results of one look; what it cannot read is its result."""
    try:
        yield from look(subject)
    except InputError as error:
        yield Check(look.__name__.lstrip("_"), ok=False, detail=str(error))


def _base(subject: _Subject) -> Iterator[Check]:
    expected, found = subject.lineage["base"]["fingerprint"], subject.base.fingerprint
    detail = f"{subject.base.name}, {found[:12]}"
    if expected != found:
        detail += f"; the lineage names {subject.lineage['base']['name']}, {expected[:12]}"
    yield Check("base", expected == found, detail)


def _depth(subject: _Subject) -> Iterator[Check]:
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


def _beside(subject: _Subject) -> Iterator[Check]:
    """What belongs to the base beside its weights, byte by byte."""
    base, written = subject.base.folder, subject.written.folder
    names = side_files(base, code=brings_code(base, subject.base.config))
    for name in names:
        there = (written / name).is_file()
        if not there or not filecmp.cmp(base / name, written / name, shallow=False):
            detail = f"{name} {'differs from the base' if there else 'is missing'}"
            yield Check("beside", ok=False, detail=detail)
            return
    yield Check("beside", ok=True, detail=f"{len(names)} files as in the base: {', '.join(names)}")


def _experts(subject: _Subject, experts: Experts) -> Iterator[Check]:
    """The configuration of the mixture."""
    found = subject.written.config
    difference = config_difference(grown_config(subject.base, subject.plan), found)
    detail = difference or f"{found['model_type']}, {experts.describe()}"
    yield Check("experts", difference is None, detail)


def _tensors(subject: _Subject) -> Iterator[Check]:
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


def _finite(subject: _Subject) -> Iterator[Check]:
    """No infinity and no not-a-number, in any tensor of a type that arithmetic is done on."""
    found = subject.written.checkpoint.tensors.values()
    infos = [info for info in found if info.dtype in FLOATS and not _TOWERS.search(info.name)]
    bad = next((info.name for info in infos if not finite(info)), None)
    yield Check("finite", bad is None, f"{len(infos)} tensors" if bad is None else f"{bad} is not")


def _runs(subject: _Subject) -> Iterator[Check]:
    """Loads the folder in plain transformers, and compares what it computes."""
    import torch

    if method := method_of(subject.written.config):
        yield Check("loads", ok=True, detail=f"not run: {method} weights need a library of their own")
        return
    expected = None
    prompt = _prompt(subject.written)
    with torch.no_grad():
        try:
            if subject.plan.preserves and not subject.trained:
                expected = _loaded(subject.base.folder)[0](prompt).logits
            model, missing = _loaded(subject.written.folder)
        except (RuntimeError, ValueError, KeyError, OSError) as error:  # what from_pretrained raises
            yield Check("loads", ok=False, detail=" ".join(str(error).split())[:300])
            return
        yield Check(
            "loads", not missing, f"{type(model).__name__}" + "".join(f"; lacks {n}" for n in missing[:3])
        )
        tied = _ties(model)
        if not tied.ok and _ties(_loaded(subject.base.folder)[0]).detail == tied.detail:
            tied = replace(tied, ok=True, detail=f"{tied.detail}; so it is in the base")
        yield tied
        found = model(prompt).logits
        if expected is not None:
            yield _logits(subject, found, expected)
        generated = _generated(model, prompt)
        if not generated.ok and not _generated(_loaded(subject.base.folder)[0], prompt).ok:
            generated = replace(generated, ok=True, detail=f"{generated.detail}; so does the base")
        yield generated


def _logits(subject: _Subject, found: Tensor, expected: Tensor) -> Check:
    """Whether the model computes what the base does: bit for bit, or with experts up to rounding."""
    import torch

    difference = (found - expected).abs().max().item()
    equal = torch.equal(found, expected)
    detail = "bit-equal to the base's" if equal else f"differ from the base's by up to {difference:.3g}"
    experts = subject.plan.experts
    if experts is None:
        return Check("logits", equal, f"{detail}, in float32")
    share = _ROUNDING
    if experts.granularity & (experts.granularity - 1):  # times three, a number is rounded to its type
        share = max(share, _TYPES.get(subject.base.facts.dtype, 0.0))
    limit = share * (1 + expected.abs().max().item())
    return Check("logits", difference <= limit, f"{detail}, at most {limit:.3g} is rounding, in float32")


def _loaded(folder: Path) -> tuple[PreTrainedModel, list[str]]:
    """The model in float32, and the names of weights that its folder did not have."""
    import torch
    from transformers import AutoModelForCausalLM

    model, told = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=torch.float32,
        use_safetensors=True,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # to be told of them
        trust_remote_code=False,
        local_files_only=True,
    )
    with torch.no_grad():
        for parameter in model.parameters():
            # Mapped files are aligned in another way at another depth, and sums would round otherwise.
            parameter.data = parameter.data.clone()
    mismatched = {name if isinstance(name, str) else name[0] for name in told["mismatched_keys"]}
    return model.eval(), sorted(mismatched | set(told["missing_keys"]))


def _prompt(base: Base) -> Tensor:
    """Token ids of shape (1, 16), the same each time."""
    import torch

    facts = base.facts
    length = min(_PROMPT, (facts.context or _PROMPT + _GENERATED) - _GENERATED)
    return torch.randint(0, facts.vocabulary, (1, length), generator=torch.Generator().manual_seed(0))


def _ties(model: PreTrainedModel) -> Check:
    """Whether head and embedding are one tensor exactly when the configuration says so."""
    config = model.config.get_text_config(decoder=True)
    told = bool(getattr(config, "tie_word_embeddings", False))
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    tied = head is not None and head.weight is embedding.weight
    said = {True: "one tensor", False: "two tensors"}
    return Check(
        "ties", tied == told, f"head and embedding are {said[tied]}, the configuration says {said[told]}"
    )


def _generated(model: PreTrainedModel, prompt: Tensor) -> Check:
    """`generation`, which a few architectures cannot do: they see the whole text, or keep no cache."""
    try:
        return generation(model, prompt)
    except (RuntimeError, AttributeError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())[:100]
        return Check("generation", ok=False, detail=f"does not run with a cache ({reason})")


def generation(model: PreTrainedModel, prompt: Tensor) -> Check:
    """Greedy generation with a cache against one pass over the whole text without; `prompt` has shape (1, n).

    Compared by logits: a layer that reads another one's cache is far off, while a tie between two tokens may
    fall either way by rounding.
    """
    import torch

    text, step, cache = prompt, prompt, None
    logits = []
    for _ in range(_GENERATED):
        output = model(input_ids=step, past_key_values=cache, use_cache=True)
        cache = output.past_key_values
        logits.append(output.logits[:, -1])
        step = logits[-1].argmax(-1, keepdim=True)
        text = torch.cat([text, step], dim=1)
    whole = model(input_ids=text[:, :-1], use_cache=False).logits[:, prompt.shape[1] - 1 :]
    difference = (torch.stack(logits, 1) - whole).abs().max().item()
    close = difference <= _ROUNDING * (1 + whole.abs().max().item())
    detail = f"{_GENERATED} tokens with cache, logits within {difference:.1e} of those without"
    return Check("generation", close, detail)
