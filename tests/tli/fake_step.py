"""Peak memory of a training step of a real model of transformers under fake tensors: nothing is allocated."""

from __future__ import annotations

import json
import types
import weakref
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import distributed as dist
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoModelForCausalLM

from tli.models.descriptions import Description
from tli.training.frozen import keep_halved


@dataclass(frozen=True)
class Peak:
    """Bytes at the highest point of a step, by what they are; `parameters` is a count."""

    parameters: int
    passes: int  # forward and backward, with both moments
    step: int  # the optimizer's

    @property
    def whole(self) -> int:
        return max(self.passes, self.step)


@dataclass(frozen=True)
class Step:
    """How a step is made.

    Attributes:
        rows: of a pass.
        sequence: tokens of a row.
        precision: fp32 or bf16, as the training loop has it.
        checkpointing: whether layers keep their inputs alone.
        losses: the module that calculates logits in pieces; None has them all at once.
        fused: whether the optimizer is.
        injected: positions of the only trained layers; None trains all.
        norms: whether the norms of other layers are trained with these.
        ranks: under FSDP2, of which this is one.
        halved: whether frozen matrices are kept in bfloat16, as where all of their values are such numbers.
    """

    rows: int = 1
    sequence: int = 2048
    precision: str = "fp32"
    checkpointing: bool = False
    losses: Any = None
    fused: bool = False
    injected: frozenset[int] | None = None
    ranks: int = 1
    halved: bool = False
    norms: bool = False


def fake_peak(config: Any, step: Step) -> Peak:
    """Peak of the second step of a model of this configuration, so that the moments are there."""
    if step.ranks == 1:
        return _measured(config, step, None)
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=step.ranks)
    try:
        return _measured(config, step, dist.init_device_mesh("cpu", (step.ranks,)))
    finally:
        dist.destroy_process_group()


def _measured(config: Any, step: Step, mesh: Any) -> Peak:
    with FakeTensorMode(allow_non_fake_inputs=True):
        model = _model(config, step, mesh)
        trained = [p for p in model.parameters() if p.requires_grad]
        how = {"fused": True} if step.fused else {"foreach": True}
        optimizer = torch.optim.AdamW(trained, lr=1e-3, **how)
        tracker = Tracker()
        tracker.hold([*model.parameters(), *model.buffers()])
        with tracker:
            for _ in range(2):
                tracker.peak = tracker.held
                windows = torch.randint(0, 9, (step.rows, step.sequence + 1))
                if step.losses is not None and mesh is None:
                    step.losses.add_gradients(model, windows, step.precision)
                else:
                    model.mean_loss(windows, step.precision, step.losses).backward()
                passes, tracker.peak = tracker.peak, tracker.held
                optimizer.step()
                optimizer.zero_grad()
        return Peak(sum(p.numel() for p in model.parameters()), passes, tracker.peak)


def _model(config: Any, step: Step, mesh: Any) -> Any:
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.tie_weights()
    model.train()
    if step.checkpointing:
        model.gradient_checkpointing_enable()
    if step.injected is not None:
        for name, parameter in model.named_parameters():
            new = any(f".layers.{i}." in name for i in step.injected)
            parameter.requires_grad_(new or (step.norms and "norm" in name))
    if step.halved and mesh is None:
        _halve(model)
    elif step.halved:  # rows of whatever is frozen
        for parameter in model.parameters():
            if not parameter.requires_grad:
                parameter.data = parameter.detach().to(torch.bfloat16)
    model.mean_loss = types.MethodType(_mean_loss, model)
    if mesh is not None:
        _shard(model, mesh, policy=step.precision == "bf16")
    return model


def _halve(model: Any) -> None:
    """As `halve_frozen` does, which looks at values: fake tensors have none."""
    names = Counter(id(each) for _, each in model.named_parameters(remove_duplicate=False))
    for module in list(model.modules()):
        weight = getattr(module, "weight", None)
        frozen = type(module) in (torch.nn.Linear, torch.nn.Embedding) and not weight.requires_grad
        if frozen and names[id(weight)] == 1:
            weight.data = weight.detach().to(torch.bfloat16)
            keep_halved(module)


def described(config: Any, folder: Path) -> Description:
    """What headers would say of a model of this configuration."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    model.tie_weights()
    tensors = {name: list(parameter.shape) for name, parameter in model.named_parameters()}
    folder.mkdir()
    (folder / "config.json").write_text(config.to_json_string())
    content = {"hub": "", "revision": "", "dtype": "F32", "tensors": tensors}
    (folder / "tensors.json").write_text(json.dumps(content))
    return Description(str(folder), folder)


def _shard(model: Any, mesh: Any, *, policy: bool) -> None:
    """FSDP2 over each layer and the root."""
    more = {}
    if policy:
        more["mp_policy"] = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    for layer in model.get_decoder().layers:
        fully_shard(layer, mesh=mesh, **more)
    fully_shard(model, mesh=mesh, **more)
    register_fsdp_forward_method(
        model, "mean_loss"
    )  # so that the root's hooks run around the body and the head


class Tracker(TorchDispatchMode):
    """Bytes of all storages that are alive, and the most of them at any one time."""

    def __init__(self) -> None:
        super().__init__()
        self.held = self.peak = 0
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, kinds: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(issubclass(kind, DTensor) for kind in kinds):
            return NotImplemented  # asked again with what is on this rank
        result = func(*args, **(kwargs or {}))
        self.hold(tree_leaves(result))
        return result

    def __enter__(self) -> Self:
        self._resize = torch.UntypedStorage.resize_
        resize = self._resize

        def counted(storage: torch.UntypedStorage, size: int) -> Any:
            """FSDP2 frees and takes what it gathers by resizing, which no operation shows."""
            if storage._cdata in self._sizes:
                self._count(storage._cdata, size)
            return resize(storage, size)

        torch.UntypedStorage.resize_ = counted
        super().__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        torch.UntypedStorage.resize_ = self._resize

    def hold(self, values: Any) -> None:
        """Count the storages of tensors, from now until nothing refers to them."""
        for value in values:
            if not isinstance(value, torch.Tensor):
                continue
            storage = (value.to_local() if isinstance(value, DTensor) else value).untyped_storage()
            key = storage._cdata
            if key not in self._sizes:
                self._sizes[key] = 0
                weakref.finalize(storage, self._free, key)
            self._count(key, storage.nbytes())

    def _count(self, key: int, size: int) -> None:
        self.held += size - self._sizes[key]
        self._sizes[key] = size
        self.peak = max(self.peak, self.held)

    def _free(self, key: int) -> None:
        self.held -= self._sizes.pop(key)


def _mean_loss(model: Any, windows: torch.Tensor, precision: str, losses: Any) -> torch.Tensor:
    if losses is not None:
        found: torch.Tensor = losses.token_losses(model, windows, precision).mean()
        return found
    with torch.autocast(windows.device.type, torch.bfloat16, enabled=precision == "bf16"):
        logits = model(input_ids=windows[:, :-1], use_cache=False).logits
    return torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), windows[:, 1:].flatten())
