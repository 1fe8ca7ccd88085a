"""Experts from dense feed-forward parts (sparse upcycling): the arithmetic, and `upcycle` in memory.

Each expert starts as the dense part (sparse upcycling, arXiv 2212.05055) and the router is drawn. On top of
that, for each expert apart: a share of its neurons is drawn anew, from a normal distribution of the mean and
deviation that their weights had in each matrix (drop-upcycling, arXiv 2502.19261), and noise is added.

With a granularity g each expert is cut along its neurons into g parts that are experts of their own (virtual
groups, arXiv 2410.07524). The parts of one expert have the same row in the router, so the g * k largest are
all parts of k experts, each at the g-th part of its expert's weight; down projections times g make up for
that. Where two experts tie, as they do in bfloat16 for some tokens in a thousand, a token may get parts of
both and of neither all.

Experts that are alike compute what the dense part did, whichever are chosen: their weights add up to one. It
also means that the router has no gradient until the first step has made them differ.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tli.architectures.lookup import family_of
from tli.architectures.mixtures import DENSE, FUSED, Mixture, dropped, inner_size, moe_config, require_mixture
from tli.errors import CheckpointError, FamilyError, Problem
from tli.initializers.layers import place
from tli.initializers.normal import normal_tensor, normals
from tli.planning.experts import Experts

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor
    from transformers import PreTrainedModel

_KINDS = ("gate", "up", "down")
_NOT_OF_THE_PLAN = ("dtype", "transformers_version")


@dataclass(frozen=True)
class Upcycling:
    """All that decides the experts of one model besides the weights that are there."""

    experts: Experts
    mixture: Mixture
    seed: int
    deviation: float  # standard deviation of the router's weights
    inner: int  # neurons of the dense feed-forward part

    @classmethod
    def of(cls, config: Mapping[str, Any], experts: Experts, seed: int) -> Upcycling:
        """For the dense model that `config` (as in config.json) is of. Raises FamilyError and PlanError."""
        mixture = require_mixture(config, experts)
        deviation = experts.router_scale * (config.get("initializer_range") or 0.02)
        return cls(experts, mixture, seed, deviation, inner_size(config))

    @property
    def count(self) -> int:
        """Experts before they are cut finer."""
        assert self.experts.count is not None
        return self.experts.count

    @property
    def copies(self) -> bool:
        """Whether each expert has the numbers of the dense part."""
        return self.experts.preserves

    def router(self, position: int, hidden: int) -> np.ndarray:
        """The router of the layer at `position`: (experts, hidden), in float32."""
        import numpy as np

        parts = normals(self._seed_of(position, "router"), self.count * hidden)
        drawn = np.concatenate(list(parts)).reshape(self.count, hidden)
        drawn *= self.deviation
        return drawn.repeat(self.experts.granularity, axis=0)

    def matrix(self, position: int, kind: str, expert: int, dense: Tensor) -> Tensor:
        """A matrix of an expert that is not yet cut, from the dense one of shape (inner, hidden), or for
        `down` (hidden, inner); may be `dense` itself. Arithmetic is in at least float32, rounded once.
        """
        import torch

        if self.copies and (kind != "down" or self.experts.granularity == 1):
            return dense
        value = dense.to(torch.promote_types(dense.dtype, torch.float32))
        if self.experts.drop > 0:
            # The same neurons in all three matrices.
            generator = torch.Generator().manual_seed(self._seed_of(position, f"{expert}/neurons"))
            order = torch.randperm(self.inner, generator=generator)
            neurons = order[: dropped(self.experts, self.inner)].to(dense.device)
            axis = 1 if kind == "down" else 0
            old = value.index_select(axis, neurons)
            drawn = self._drawn(position, f"{expert}/{kind}/drop", old) * old.std() + old.mean()
            value = value.index_copy(axis, neurons, drawn)
        if self.experts.noise > 0:
            drawn = self._drawn(position, f"{expert}/{kind}/noise", value)
            value = value + drawn * value.std() * self.experts.noise
        if kind == "down":
            value = value * self.experts.granularity
        return value.to(dense.dtype)

    def part(self, kind: str, number: int, matrix: Tensor) -> Tensor:
        """The neurons of part `number` of an expert's matrix; a view."""
        width = self.inner // self.experts.granularity
        return matrix.narrow(1 if kind == "down" else 0, number * width, width)

    def _drawn(self, position: int, use: str, like: Tensor) -> Tensor:
        return normal_tensor(like.shape, self._seed_of(position, use)).to(like)

    def _seed_of(self, position: int, use: str) -> int:
        """A seed for each use: their order does not matter."""
        key = hashlib.sha256(f"{self.seed}/{position}/experts/{use}".encode()).digest()
        return int.from_bytes(key[:8], "little") >> 1


def upcycle(
    model: PreTrainedModel, experts: Experts, *, seed: int = 0, share: bool = False
) -> PreTrainedModel:
    """A new model with experts in every layer: of the matching class, and of the type, device and mode of
    `model`, every parameter trainable.

    `model` is left as it is. With `share` the tensors that stay as they are belong to both models, which
    saves memory where `model` is needed no more. Raises FamilyError and PlanError with all problems.
    """
    import torch
    from transformers.initialization import no_init_weights

    upcycling = Upcycling.of(model.config.to_dict(), experts, seed)
    with torch.device("meta"), no_init_weights():
        grown = empty_mixture(model, upcycling)
    with torch.no_grad():
        _fill(grown, model, upcycling, share=share)
    if model.can_generate():
        grown.generation_config = copy.deepcopy(model.generation_config)
    grown.name_or_path = model.name_or_path
    return grown.train(model.training)


def empty_mixture(model: PreTrainedModel, upcycling: Upcycling) -> PreTrainedModel:
    """A model of the matching class with experts, as the surroundings have it made: on the meta device, say.

    Raises FamilyError where `model` is not of the dense class.
    """
    import transformers

    mixture = upcycling.mixture
    if type(model).__name__.removeprefix("FSDP") != mixture.dense:
        raise FamilyError(Problem("model", type(model).__name__, f"a {mixture.dense}"))
    settings = moe_config(model.config.to_dict(), upcycling.experts)
    config = transformers.AutoConfig.for_model(settings.pop("model_type"), **settings)
    config._attn_implementation = model.config._attn_implementation
    made: PreTrainedModel = getattr(transformers, mixture.architecture)(config)
    return made


def config_difference(expected: Mapping[str, Any], found: Mapping[str, Any]) -> str | None:
    """Where a written configuration is not the expected one, as its class reads both: that of a trained model
    was written by transformers. Raises CheckpointError for one that the class does not take.
    """
    expected, found = _read(expected), _read(found)
    for key in ("model_type", *expected):
        if key not in _NOT_OF_THE_PLAN and found.get(key) != expected[key]:
            return f"{key} is {found.get(key)!r}, not {expected[key]!r}"
    return None


def _read(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration with all that its class adds."""
    from transformers import AutoConfig

    settings = {key: value for key, value in config.items() if key != "model_type"}
    try:
        return dict(AutoConfig.for_model(config["model_type"], **settings).to_dict())
    except (TypeError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(Problem("config.json", reason, "what transformers reads")) from None


def expert_parameters(model: PreTrainedModel) -> frozenset[str]:
    """Names of the parameters of routers and experts in a model that `upcycle` made."""
    ends = tuple(f".{name}" for name in FUSED.values())
    return frozenset(name for name, _ in model.named_parameters() if name.endswith(ends))


def _fill(grown: PreTrainedModel, model: PreTrainedModel, upcycling: Upcycling, *, share: bool) -> None:
    """Puts the tensors of `model` into the empty `grown`, and experts and routers."""
    from torch import nn

    parameters = dict(model.named_parameters(remove_duplicate=False))
    layers = family_of(upcycling.mixture.model_type).layers
    made: dict[int, nn.Parameter] = {}  # by the identity of the source, so that tied weights stay tied
    new: dict[str, Tensor] = {}
    for name, _ in list(grown.named_parameters(remove_duplicate=False)):
        if name in parameters:
            source = parameters[name]
            if id(source) not in made:
                made[id(source)] = nn.Parameter(source.detach() if share else source.detach().clone())
            parameter = made[id(source)]
        else:
            if name not in new:
                position, _, _ = name.removeprefix(f"{layers}.").partition(".")
                new = dict(_new_tensors(f"{layers}.{position}", int(position), parameters, upcycling))
            parameter = nn.Parameter(new.pop(name))
        module, leaf = place(grown, name)
        module._parameters[leaf] = parameter
    buffers = dict(model.named_buffers(remove_duplicate=False))
    for name, _ in list(grown.named_buffers(remove_duplicate=False)):
        module, leaf = place(grown, name)
        module._buffers[leaf] = buffers[name].clone()


def _new_tensors(
    layer: str, position: int, parameters: Mapping[str, Tensor], upcycling: Upcycling
) -> Iterator[tuple[str, Tensor]]:
    """Router and experts of one layer, as they are called and fused in memory."""
    import torch

    dense = {kind: parameters[f"{layer}.{name}"].detach() for name, kind in DENSE.items()}
    hidden, inner = dense["down"].shape
    granularity = upcycling.experts.granularity
    count, width = upcycling.count * granularity, inner // granularity
    yield f"{layer}.{FUSED['router']}", torch.from_numpy(upcycling.router(position, hidden)).to(dense["gate"])
    for name, shape in upcycling.mixture.shared_tensors(hidden).items():
        yield f"{layer}.{name}", dense["down"].new_zeros(shape)
    gate_up = dense["gate"].new_empty((count, 2 * width, hidden))
    down = dense["down"].new_empty((count, hidden, width))
    into: dict[str, Callable[[int], Tensor]] = {
        "gate": lambda number: gate_up[number, :width],
        "up": lambda number: gate_up[number, width:],
        "down": lambda number: down[number],
    }
    for expert in range(upcycling.count):
        for kind in _KINDS:
            whole = upcycling.matrix(position, kind, expert, dense[kind])
            for part in range(granularity):
                into[kind](expert * granularity + part).copy_(upcycling.part(kind, part, whole))
    yield f"{layer}.{FUSED['gate_up']}", gate_up
    yield f"{layer}.{FUSED['down']}", down
