"""Empty models: with no memory for weights, or with this rank's rows of them, ready to train under FSDP.

A model whose weights are on the meta device has everything but their values: modules, shapes, ties, and the
names that its files have. Rotary frequencies and other buffers that no file holds are computed as the model
is built.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

from tli.architectures.family import Family
from tli.errors import FamilyError, Problem
from tli.initializers.layers import place
from tli.sharded.processes import Group
from tli.sharded.rows import Rows, local_of, shape_problem, sharded

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def without_weights(build: Callable[[], PreTrainedModel]) -> PreTrainedModel:
    """A model whose parameters are on the meta device, and its buffers computed, on the CPU."""
    from transformers.initialization import no_init_weights

    with _parameters_on_meta(), no_init_weights():
        model = build()
    model.tie_weights()
    return model


def rows_of_weights(
    build: Callable[[], PreTrainedModel],
    family: Family,
    group: Group,
    precision: str = "fp32",
    shared: Callable[[PreTrainedModel], Mapping[str, Tensor]] | None = None,
) -> PreTrainedModel:
    """A model under FSDP of which this rank has memory for its rows of every weight, their values not yet
    set but for those that it shares.

    Each layer is gathered when its turn comes; the embedding, the head and what else is outside the layers
    together, so that tied weights stay one. Buffers are empty, too.

    Args:
        build: makes the model; under the meta device.
        family: where its layers are.
        group: of the ranks.
        precision: fp32, or bf16: weights, their gradients' sums and the optimizer stay float32, and layers
            compute
            in bfloat16.
        shared: gives rows of weights that are not trained, by name, of the model while it has no memory: they
            are the model's own from then on, ask for no gradient, and under bf16 may be bfloat16 numbers,
            which layers get as they are.

    Raises:
        FamilyError: a weight without rows, or layers that share one.
    """
    from transformers.initialization import no_init_weights

    with torch.device("meta"), no_init_weights():
        model = build()
    model.tie_weights()
    refuse_indivisible(model, family)
    _keep_names_in_files(model)
    given = {} if shared is None else shared(model)
    policy = (
        MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
        if precision == "bf16"
        else MixedPrecisionPolicy()
    )
    for layer in model.get_submodule(family.layers).children():
        fully_shard(layer, mesh=group.mesh, mp_policy=policy)
    # Without a backward behind it, as in an evaluation, the root would stay gathered: no rows to be saved.
    fully_shard(model, mesh=group.mesh, mp_policy=policy, reshard_after_forward=True)
    _give_memory(model, given, group)
    return model


def _keep_names_in_files(model: PreTrainedModel) -> None:
    """Have the model know what its weights are called in files.

    Otherwise transformers looks for that by the name of the model's class when it is saved, and FSDP2 gives
    the model a class of another name: GPT-NeoX would lose its `embed_out`.
    """
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import PrefixChange

    if getattr(model, "_weight_conversions", None) is None:
        found = get_model_conversion_mapping(model, add_legacy=False)
        # As transformers does for a model that was not loaded: a prefix may not have been there.
        model._weight_conversions = [each for each in found if not isinstance(each, PrefixChange)] or None


def _give_memory(model: nn.Module, given: Mapping[str, Tensor], group: Group) -> None:
    """Have every weight on the meta device be rows that are given, or new ones. FSDP2 takes them as they are
    at the first pass, and copies the given ones where a rank has fewer rows than others.
    """
    made: dict[int, nn.Parameter] = {}  # tied ones once
    for name, parameter in list(model.named_parameters(remove_duplicate=False)):
        if id(parameter) not in made:
            rows = given.get(name)
            if rows is None:
                rows = torch.empty_like(local_of(parameter.detach()), device=group.device)
            weight = sharded(rows, parameter.shape, group)
            made[id(parameter)] = nn.Parameter(weight, requires_grad=name not in given)
        module, leaf = place(model, name)
        module._parameters[leaf] = made[id(parameter)]


Frozen = Callable[["PreTrainedModel"], AbstractSet[str]]


def common_rows(
    frozen: Frozen | None, of_base: Callable[[str], Rows | None], precision: str
) -> Callable[[PreTrainedModel], dict[str, Tensor]]:
    """What `rows_of_weights` shares: rows that a base has of weights that are not trained.

    Args:
        frozen: names of such weights of a model without memory.
        of_base: the rows that are a weight's by its name; None where it has none so.
        precision: of the model: under fp32 layers get weights as they are kept, which is to be float32.
    """

    def shared(model: PreTrainedModel) -> dict[str, Tensor]:
        found = {name: of_base(name) for name in (frozen(model) if frozen is not None else ())}
        return {
            name: rows.local
            for name, rows in found.items()
            if rows is not None and (precision == "bf16" or rows.local.dtype == torch.float32)
        }

    return shared


def set_buffers(model: nn.Module, value: Callable[[str], Tensor], device: torch.device) -> None:
    """Give every buffer of a model its values, copied to the device, by its name."""
    for name, _ in list(model.named_buffers(remove_duplicate=False)):
        module, leaf = place(model, name)
        module._buffers[leaf] = value(name).detach().to(device, copy=True)


def refuse_indivisible(model: PreTrainedModel, family: Family) -> None:
    """Raises FamilyError for a model that ranks cannot hold together."""
    problems = []
    owners: dict[int, str] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if (got := shape_problem(name, parameter)) is not None:
            problems.append(_indivisible(got))
        number = name.removeprefix(f"{family.layers}.").partition(".")[0]
        owner = number if name.startswith(f"{family.layers}.") else ""
        if owners.setdefault(id(parameter), owner) != owner:
            problems.append(_indivisible(f"{name}, which is shared between layers"))
    if problems:
        raise FamilyError(*problems)


def _indivisible(got: str) -> Problem:
    return Problem("model", got, "weights whose rows ranks divide, each of one layer", "a single rank")


@contextmanager
def _parameters_on_meta() -> Iterator[None]:
    """Has every parameter that is registered given up for one without memory; one at a time is allocated."""
    register = nn.Module.register_parameter

    def registered(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        register(module, name, parameter)
        if parameter is not None:
            module._parameters[name] = nn.Parameter(
                parameter.to("meta"), requires_grad=parameter.requires_grad
            )

    nn.Module.register_parameter = registered  # type: ignore[method-assign, assignment] # put back below
    try:
        yield
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign]
