"""What the tests of `tli.sharded` do in every one of several processes."""

from __future__ import annotations

import gc
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tli.data.batches import Batches
from tli.errors import InputError
from tli.growth.in_memory import grow, injected_parameters
from tli.models.base import find
from tli.models.loading import load_model
from tli.planning.experts import Experts
from tli.planning.plan import Plan, plan
from tli.sharded.base import read_base
from tli.sharded.export import write_sharded_model
from tli.sharded.growth import grow_sharded
from tli.sharded.processes import Group
from tli.sharded.resuming import load_latest_sharded
from tli.sharded.rows import local_of, own_part
from tli.sharded.states import ShardedSaver
from tli.training.export import write_model
from tli.training.loop import Training
from tli.training.moments import moment_tensors, moment_types
from tli.training.moments import trained as trained_parameters
from tli.training.optimizer import untrained
from tli.training.recipe import Recipe
from tli.training.state import save_state

HELDOUT = np.random.default_rng(7).integers(0, 200, (5, 17))
STEPS = 5


def planned(**how: Any) -> Plan:
    """A plan by its keywords, `experts` as those of Experts, for models of four layers."""
    if "experts" in how:
        how["experts"] = Experts(**how["experts"])
    return plan(4, **how)


def training(model: Any, decided: Plan, *, packed: bool = False, **recipe: Any) -> Training:
    """Over the same text, however many ranks; `packed`: of documents of one to thirty tokens."""
    drawn = np.random.default_rng(3)
    text = drawn.integers(0, 200, 2000).astype(np.uint16)
    starts = np.cumsum([0, *drawn.integers(1, 30, 120)]).astype(np.uint64) if packed else None
    how = Recipe(tokens=STEPS * 128, batch_tokens=128, learning_rate=3e-3, **recipe)
    injected = injected_parameters(model, decided)
    return Training(model, how, Batches(text, 16, 8, 0, starts), HELDOUT, injected=injected, seed=1)


def losses(made: Training, *reports: int) -> list[float]:
    """Held-out and train losses, in order."""
    found = []
    for progress in made.run(reports or (0, 2, STEPS)):
        found += [progress.eval_loss, *(loss for _, loss in progress.train_loss)]
    return found


def trained(group: Group, folder: str, plans: list[dict[str, Any]], **recipe: Any) -> list[Any]:
    """For each plan: the largest difference of a weight from growing in one process, and of a loss."""
    base = read_base(find(folder), group)
    whole = load_model(folder)
    results = []
    for how in plans:
        decided = planned(**how)
        model = grow_sharded(base, decided, seed=5)
        other = grow(whole, decided, seed=5)
        wrong = unequal(model, other, group)
        here = losses(training(model, decided, **recipe))
        there = losses(training(other, decided, **recipe))
        results.append([wrong, max(abs(a - b) for a, b in zip(here, there, strict=True)), len(here)])
    return results


def unequal(model: Any, alone: Any, group: Group) -> list[str]:
    """Parameters and buffers that are not those of a whole model, bit for bit."""
    wrong = [
        name
        for (name, mine), (other, theirs) in zip(
            model.named_parameters(), alone.named_parameters(), strict=True
        )
        if name != other or not torch.equal(local_of(mine), own_part(theirs, group.ranks))
    ]
    buffers = dict(alone.named_buffers())
    named = list(model.named_buffers())
    wrong += [name for name, buffer in named if not torch.equal(buffer, buffers[name])]
    return wrong + sorted(buffers.keys() - {name for name, _ in named})


class Allocations(TorchDispatchMode):
    """The largest storage that an operation made."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor) and made.device.type != "meta":
            self.largest = max(self.largest, made.untyped_storage().nbytes())
        return made


def memory(group: Group, folder: str, init: str) -> dict[str, int]:
    """Bytes that a rank holds of base and grown model, that it read, and of the largest tensor that it made."""
    found = find(folder)
    with Allocations() as allocations:
        base = read_base(found, group)
        model = grow_sharded(base, planned(k=2, init=init), seed=5)
    return {
        "base": sum(rows.local.nbytes for rows in base.rows.values()),
        "whole": sum(tensor.nbytes for tensor in found.checkpoint.tensors.values()),
        "read": base.bytes_read,
        "grown": sum(local_of(p).nbytes for p in model.parameters()),
        "grown whole": sum(p.numel() * 4 for p in model.parameters()),
        "largest": allocations.largest,
        "largest tensor": max(p.numel() * 4 for p in model.parameters()),
    }


def saved(group: Group, folder: str, states: str, stop: int, **recipe: Any) -> list[float]:
    """Trains to a step, writes a state and goes on; the losses after it."""
    made = of_plan(group, folder, **recipe)
    losses(made, *range(stop + 1))
    saver = ShardedSaver(Path(states), lambda: None, group, "me")
    saver.save(made)
    after = losses(made, *range(stop + 1, STEPS + 1))
    saver.wait()
    saver.close()
    return after


def resumed(group: Group, folder: str, states: str, owner: str = "me", **recipe: Any) -> list[float] | None:
    """The losses after the newest state; None where there is none."""
    made = of_plan(group, folder, **recipe)
    if not load_latest_sharded(made, Path(states), group, owner):
        return None
    return losses(made, *range(made.step + 1, STEPS + 1))


def of_plan(group: Group, folder: str, **recipe: Any) -> Training:
    """A grown model in training."""
    decided = planned(k=2, init="identity")
    return training(grow_sharded(read_base(find(folder), group), decided, seed=5), decided, **recipe)


def alone(folder: str, **recipe: Any) -> Training:
    """The same in this process."""
    decided = planned(k=2, init="identity")
    return training(grow(load_model(folder), decided, seed=5), decided, **recipe)


def across(group: Group, folder: str, states: str, recipe: dict[str, Any]) -> list[list[float]]:
    """What is lost after step 2 by one process that is not interrupted, and by the ranks that take its state up;
    after step 3 by a process that takes up the ranks' own state. Rank 0 is that one process.
    """
    found = []
    if group.ranks.rank == 0:
        first = alone(folder, **recipe)
        losses(first, 0, 1, 2)
        save_state(first, Path(states), "me")
        found = [losses(first, 3, 4, 5)]
    torch.distributed.barrier()
    made = of_plan(group, folder, **recipe)
    assert load_latest_sharded(made, Path(states), group, "me")
    assert made.step == 2
    found.append(losses(made, 3))
    saver = ShardedSaver(Path(states), lambda: None, group, "me")
    saver.save(made)
    saver.wait()
    saver.close()
    found[-1] += losses(made, 4, 5)
    if group.ranks.rank == 0:
        last = alone(folder, **recipe)
        assert load_latest_sharded(last, Path(states), None, "me")
        assert last.step == 3
        found.append(losses(last, 4, 5))
    torch.distributed.barrier()
    return found


def moments(group: Group, folder: str, **recipe: Any) -> dict[str, Any]:
    """Of a step of the ranks and of one process: bytes of moments by parameter, and codes that are not the same."""
    mine, whole = of_plan(group, folder, **recipe), alone(folder, **recipe)
    for each in (mine, whole):
        each.model.train()
        each._advance()
    found, other = {}, 0
    parameters = dict(whole.model.named_parameters())
    for name, parameter in trained_parameters(mine):
        here = moment_tensors(mine, name, parameter)
        there = moment_tensors(whole, name, parameters[name])
        assert here.keys() == there.keys() == moment_types(mine, name, parameter).keys()
        found[name] = sum(each.nbytes for each in here.values())
        codes = [key for key in here if ".codes." in key]
        other += sum(int((here[key] != own_part(there[key], group.ranks)).sum()) for key in codes)
    shapes = {name: list(parameter.shape) for name, parameter in parameters.items()}
    return {"bytes": found, "shapes": shapes, "other": other}


def state_and_export(group: Group, folder: str, out: str) -> None:
    """Trains to the end, writes a state and the model."""
    made = of_plan(group, folder)
    losses(made)
    saver = ShardedSaver(Path(out) / "states", lambda: None, group, "me")
    saver.save(made)
    saver.wait()
    saver.close()
    beside = find(folder).folder
    write_sharded_model(made.model, Path(out) / "ranks", beside=beside, lineage={}, group=group)


def export_of_state(group: Group, folder: str, out: str) -> int:
    """One process takes that state up and writes the model; the step that it was at."""
    made = alone(folder)
    assert load_latest_sharded(made, Path(out) / "states", None, "me")
    write_model(made.model, Path(out) / "alone", beside=find(folder).folder, lineage={})
    return made.step


def exported(group: Group, folder: str, out: str, limit: int | None, **how: Any) -> None:
    """Writes the grown model from the ranks, and by rank 0 the one grown in one process."""
    decided = planned(**how)
    base = find(folder)
    model = grow_sharded(read_base(base, group), decided, seed=5)
    more = {} if limit is None else {"limit": limit}
    lineage = {"made": "by a test"}
    write_sharded_model(model, Path(out) / "ranks", beside=base.folder, lineage=lineage, group=group, **more)
    if group.ranks.rank == 0:
        whole = grow(load_model(folder), decided, seed=5)
        write_model(whole, Path(out) / "alone", beside=base.folder, lineage=lineage)


def full_disk(group: Group, folder: str, states: str) -> list[str]:
    """Rank 0 cannot write: what every rank says, and that the state before stays."""

    def no_room() -> None:
        raise OSError(28, "No space left on device", states)

    made = of_plan(group, folder)
    good = ShardedSaver(Path(states), lambda: None, group, "me")
    good.save(made)
    good.wait()
    good.close()
    bad = ShardedSaver(Path(states), no_room, group, "me")
    said = []
    bad.save(made)
    try:
        bad.wait()
    except OSError as error:
        said.append(str(error.errno))
    bad.close()
    assert not [path for path in Path(states).iterdir() if path.name.startswith(".")]
    return said


def spoilt(group: Group, folder: str, states: str) -> bool:
    """With a byte of the newest state changed: whether the one before is taken up."""
    made = of_plan(group, folder)
    saver = ShardedSaver(Path(states), lambda: None, group, "me")
    for step in (1, 2):
        losses(made, step)
        saver.save(made)
        saver.wait()
    saver.close()
    if group.ranks.rank == 0:
        newest = max(Path(states).glob("step-*"))
        shutil.rmtree(newest / "none", ignore_errors=True)
        file = min(newest.glob("*.safetensors"))
        data = bytearray(file.read_bytes())
        data[-5] ^= 1
        file.write_bytes(data)
    torch.distributed.barrier()
    again = of_plan(group, folder)
    return load_latest_sharded(again, Path(states), group, "me") and again.step == 1


def in_bfloat16(group: Group, folder: str, plan: dict[str, Any]) -> dict[str, Any]:
    """Trained in bfloat16: the types of the weights, and the largest difference from float32."""
    decided = planned(**plan)
    base = read_base(find(folder), group)
    model = grow_sharded(base, decided, seed=5, precision="bf16")
    half = losses(training(model, decided, precision="bf16"))
    full = losses(training(grow_sharded(base, decided, seed=5), decided))
    types = {str(parameter.dtype) for parameter in model.parameters()}
    return {"types": sorted(types), "difference": max(abs(a - b) for a, b in zip(half, full, strict=True))}


def undivided(group: Group, folder: str) -> list[str]:
    """What a training says of rows that its ranks do not divide."""
    try:
        of_plan(group, folder)
    except InputError as error:
        return [error.problems[0].where, error.problems[0].remedy]
    return []


def everything(group: Group, folder: str, plans: list[dict[str, Any]], out: str) -> list[Any]:
    """Of `trained`, `saved` and `resumed` the results; `exported` leaves its own."""
    found = [trained(group, folder, plans), saved(group, folder, f"{out}/states", 2)]
    found.append(resumed(group, folder, f"{out}/states"))
    exported(group, folder, out, None, k=2, init="identity")
    return found


def storages(tensors: Any) -> dict[int, int]:
    """Bytes by storage of this rank's rows."""
    kept = (local_of(each.detach()).untyped_storage() for each in tensors)
    return {each.data_ptr(): each.nbytes() for each in kept if each.nbytes()}


def in_memory() -> int:
    """Bytes of all tensors that are alive in this process, without those of models without memory."""
    gc.collect()
    there = [each for each in gc.get_objects() if isinstance(each, torch.Tensor)]
    plain = [local_of(each) for each in there if each.device.type != "meta"]
    return sum(
        {each.untyped_storage().data_ptr(): each.untyped_storage().nbytes() for each in plain}.values()
    )


def frozen_alike(
    group: Group, folder: str, recipes: list[dict[str, Any]], plans: list[dict[str, Any]]
) -> Any:
    """Of trainings one after the other over one base in bfloat16, each against the same over rows in float32:
    losses, first weights that are not the same, types, and bytes beside those of the base.
    """
    base, wide = read_base(find(folder), group, halved=True), read_base(find(folder), group)
    kept = {name: each.local.clone() for name, each in base.rows.items()}
    found, memory = [], []
    for recipe, how in zip(recipes, plans, strict=True):
        decided, precision = planned(**how), recipe.get("precision", "fp32")

        def frozen(model: Any, decided: Plan = decided, recipe: dict[str, Any] = recipe) -> Any:
            given = Recipe(tokens=128, batch_tokens=128, learning_rate=1e-3, **recipe)
            return untrained(model, given, injected_parameters(model, decided))

        model = grow_sharded(base, decided, seed=5, precision=precision, frozen=frozen)
        other = grow_sharded(wide, decided, seed=5, precision=precision)
        wrong = [
            name
            for (name, mine), theirs in zip(model.named_parameters(), other.parameters(), strict=True)
            if not torch.equal(local_of(mine).float(), local_of(theirs))
        ]
        shared = storages(each.local for each in base.rows.values())
        own = sum(size for at, size in storages(model.parameters()).items() if at not in shared)
        new = sum(local_of(each.detach()).numel() for each in model.parameters() if each.requires_grad)
        half = sum(each.dtype == torch.bfloat16 for each in model.parameters())
        made = training(model, decided, **recipe)
        asked = [each for each in made.model.parameters() if each.requires_grad]
        assert {each.dtype for each in asked} == {torch.float32}
        same = losses(made) == losses(training(other, decided, **recipe))
        found.append({"wrong": wrong, "same": same, "half": half, "own": own, "trained": 4 * new})
        del model, other, made, asked
        memory.append(in_memory())
    assert all(torch.equal(kept[name], each.local) for name, each in base.rows.items())
    return {
        "trainings": found,
        "memory": memory,
        "base": sum(each.local.nbytes for each in base.rows.values()),
    }


def written_frozen(group: Group, folder: str, out: str) -> list[float]:
    """New layers trained under bf16 over ranks: saved, gone on with, taken up, and written out."""
    decided, found = planned(k=2, init="mean"), find(folder)
    base = read_base(found, group, halved=True)
    recipe: dict[str, Any] = {"train": "injected", "precision": "bf16"}

    def made() -> Training:
        def frozen(model: Any) -> Any:
            return {name for name, _ in model.named_parameters()} - injected_parameters(model, decided)

        model = grow_sharded(base, decided, seed=5, precision="bf16", frozen=frozen)
        return training(model, decided, **recipe)

    first = made()
    losses(first, 0, 1, 2)
    saver = ShardedSaver(Path(out) / "states", lambda: None, group, "me")
    saver.save(first)
    after = losses(first, 3, 4, 5)
    saver.wait()
    saver.close()
    second = made()
    assert load_latest_sharded(second, Path(out) / "states", group, "me")
    assert losses(second, 3, 4, 5) == after
    write_sharded_model(second.model, Path(out) / "ranks", beside=found.folder, lineage={}, group=group)
    return after


class Traffic(TorchDispatchMode):
    """Bytes that this rank sends to the others: of each collective all but its own share of the whole."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self._size = size
        self.sent: dict[str, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func)
        # The larger of the two tensors is the whole: what is gathered, or what is summed.
        if "_allgather_base_" in name or "_reduce_scatter_base_" in name:
            whole = max(each.nbytes for each in args[:2])
            kind = "gathered" if "gather" in name else "summed"
            self.sent[kind] = self.sent.get(kind, 0) + whole * (self._size - 1) // self._size
        return func(*args, **(kwargs or {}))


def sent(group: Group, folder: str, recipes: list[dict[str, Any]]) -> list[dict[str, int]]:
    """What a rank sends in one optimizer step, as it trains, under each recipe."""
    base, decided = read_base(find(folder), group), planned(k=2)
    found = []
    for recipe in recipes:
        model = grow_sharded(base, decided, seed=5, precision=recipe.get("precision", "fp32"))
        made = training(model, decided, **recipe)
        made.model.train()
        made._advance()
        with Traffic(group.ranks.size) as traffic:
            made._advance()
        found.append(traffic.sent)
    return found
