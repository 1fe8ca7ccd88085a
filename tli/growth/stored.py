"""The layers of a model in memory as its files hold them: under their names, and in their tensors.

transformers calls some tensors otherwise than the files do, and joins others when it loads them: the matrices
of all experts of a layer become one tensor. First weights depend on both: drawn numbers on the name and the
size of a tensor, an arc or a prediction on what is one tensor. So that a folder grows on disk into what the
model loaded from it grows into in memory, both go by the files. What a loaded model was loaded from, it
remembers; a model that was made from a configuration has the files that it would be saved to. The table of
conversions is that of transformers, used as in saving, but on views: nothing is copied.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tli.architectures.family import Family
from tli.errors import FamilyError, Problem
from tli.initializers.layers import split
from tli.models.halved import halved_weights
from tli.planning.plan import Plan

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

Tensors = Mapping[str, "Tensor"]
_PLAIN = ("copy", "identity", "damped")


@dataclass(frozen=True)
class StoredLayers:
    """The old layers of a model: each with its tensors by their names in the layer, in memory and in files.

    `tensors[layer]` are the model's own, of the names of its module tree; `parts[layer]` views of them, of
    the names in files. `model` is the one whose conversions are used. With `halved`, what it keeps in
    bfloat16 stands for numbers in float32 (`tli.models.halved`), and is read as such.
    """

    model: PreTrainedModel
    family: Family
    tensors: tuple[Tensors, ...]
    parts: tuple[Tensors, ...]
    halved: bool = False

    @classmethod
    def of(cls, model: PreTrainedModel, family: Family, plan: Plan) -> StoredLayers:
        """Of a model in memory.

        A plan that copies, zeroes and scales alone makes the same of tensors whatever they are called and
        joined: then the names of the module tree are used. Raises FamilyError where another plan needs what
        files hold, and that is no part of what is in memory.
        """
        depth = len(list(model.get_submodule(family.layers).children()))
        tensors: list[dict[str, Tensor]] = [{} for _ in range(depth)]
        for name, tensor in model.state_dict().items():
            layer, rest = split(family.layers, name)
            if layer is not None:
                tensors[layer][rest] = tensor
        injection = plan.injection
        plain = injection.init in _PLAIN and injection.source != "both" and injection.noise == 0
        halved = any(halved_weights(model))
        if plain or not plan.injected:
            return cls(model, family, tuple(tensors), tuple(tensors), halved)
        full = [_parts(model, family, layer, held) for layer, held in enumerate(tensors)]
        prefix = family.stored_layers([name for parts in full for name in parts], depth)
        inside: list[dict[str, Tensor]] = [{} for _ in range(depth)]
        for layer, parts in enumerate(full):
            for name, part in parts.items():
                number, rest = split(prefix, name)
                if number != layer:
                    raise FamilyError(_strange(f"{name}, which is of layer {layer} in memory"))
                inside[layer][rest] = part
        return cls(model, family, tuple(tensors), tuple(inside), halved)

    @property
    def shapes(self) -> list[dict[str, tuple[int, ...]]]:
        """The shapes of what files hold of each layer."""
        return [{name: tuple(part.shape) for name, part in parts.items()} for parts in self.parts]

    def read(self, layer: int, name: str) -> Tensor:
        """A tensor of an old layer by its name in files."""
        part = self.parts[layer][name]
        return part.float() if self._halved(part) else part

    def empty_like(self, layer: int) -> tuple[Tensors, Tensors]:
        """New tensors, not yet set, of an old layer's names, shapes and types; and the parts of them."""
        import torch

        tensors = {
            name: torch.empty_like(tensor, dtype=torch.float32 if self._halved(tensor) else None)
            for name, tensor in self.tensors[layer].items()
        }
        if self.parts[layer] is self.tensors[layer]:
            return tensors, tensors
        parts = _parts(self.model, self.family, layer, tensors)
        return tensors, dict(zip(self.parts[layer], parts.values(), strict=True))

    def _halved(self, tensor: Tensor) -> bool:
        import torch

        return self.halved and tensor.dtype == torch.bfloat16


def _parts(model: PreTrainedModel, family: Family, layer: int, tensors: Tensors) -> dict[str, Tensor]:
    """Views of the tensors of a layer by their full names in files."""
    return parts_in_files(
        model, {f"{family.layers}.{layer}.{name}": tensor for name, tensor in tensors.items()}
    )


def parts_in_files(model: PreTrainedModel, tensors: Tensors) -> dict[str, Tensor]:
    """Views of tensors by their full names in files; given are full names in the module tree.

    The tensors may be on the meta device: then the views tell where the parts lie in them. Raises FamilyError
    where what files hold is no part of what is in memory.
    """
    import torch
    from torch.overrides import TorchFunctionMode
    from transformers.core_model_loading import revert_weight_conversion

    class Views(TorchFunctionMode):
        """Leaves out the one step by which the conversions copy what they cut."""

        def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            return args[0] if func is torch.Tensor.contiguous else func(*args, **(kwargs or {}))

    try:
        with torch.no_grad(), Views():
            parts: dict[str, Tensor] = revert_weight_conversion(model, dict(tensors))
    except (ValueError, NotImplementedError, RuntimeError) as error:  # quantised ones have no way back
        raise FamilyError(_strange(" ".join(str(error).split())[:200])) from None
    ours = {storage_of(tensor) for tensor in tensors.values()}
    for name, part in parts.items():
        if storage_of(part) not in ours:
            raise FamilyError(_strange(f"{name} in its files, joined from several in memory"))
    if sum(part.numel() for part in parts.values()) != sum(tensor.numel() for tensor in tensors.values()):
        raise FamilyError(_strange(f"files that do not hold all of {next(iter(tensors), 'it')}"))
    return parts


def storage_of(tensor: Tensor) -> int:
    """What a tensor and its views have in common, on the meta device as well."""
    return int(tensor.untyped_storage()._cdata)


def _strange(got: str) -> Problem:
    expected = "files whose tensors are those in memory, or parts of them"
    return Problem("model", got, expected, "tli upscale of its folder")
