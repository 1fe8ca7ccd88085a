"""Training states of several ranks, each of which writes its rows; taken up by any number of ranks.

A state is a folder of safetensors files, one a rank, that torch's distributed checkpointing (DCP) writes and
reads, and a manifest with every file's digest, written last; the folder gets its name when all of it is on
the disk. What counts, whose it is and how long it is kept is as in `tli.training.state`.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict_saver import save

from tli.checkpoint.atomic import disk_space_problems, remove_stale, write_text
from tli.errors import CheckpointError
from tli.files import sync
from tli.sharded.processes import Group
from tli.sharded.rows import local_of, sharded
from tli.sharded.state_folders import MANIFEST, digest_of, exchanged
from tli.training.moments import moment_tensors, moment_types, trained
from tli.training.state import written_progress
from tli.training.state_names import drop_older, name_of

if TYPE_CHECKING:
    from tli.training.loop import Training


@dataclass(frozen=True)
class _State:
    """This rank's part of a training as it was at one step, on the CPU and sharing nothing with it."""

    step: int
    tensors: dict[str, Tensor]
    manifest: dict[str, Any]
    nbytes: int


class ShardedSaver:
    """Writes the states of one training into one folder, at most one at a time; every rank has one.

    Of all its methods, `save` and `wait` are called by all ranks, in the same order. Not thread-safe.
    """

    def __init__(self, folder: Path, before: Callable[[], None], group: Group, owner: str = "") -> None:
        """Nothing happens before the first `save`.

        Args:
            folder: of the states, one that every rank sees; it is made.
            before: called in the thread before each is written, for what has to be on disk before it counts.
            group: of the ranks.
            owner: what the states bear, to be taken up for it alone.
        """
        self._folder, self._before, self._group, self._owner = folder, before, group, owner
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="saver")
        self._writing: Future[None] | None = None

    @property
    def busy(self) -> bool:
        """Whether one is being written by this rank; others may be done before."""
        return self._writing is not None and not self._writing.done()

    def save(self, training: Training) -> None:
        """Copy this rank's part of a training, and have it written; waits for the one before.

        Raises:
            OSError: the one before could not be written, on whichever rank. Earlier ones stay.
        """
        self.wait()
        state = _copied_state(training, self._owner, self._group)
        self._writing = self._thread.submit(self._write, state)

    def wait(self) -> None:
        """Wait until nothing is being written.

        Raises:
            OSError: the last one could not be written, on whichever rank; all raise.
        """
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def close(self) -> None:
        """Let the one that is being written end, well or badly: it is not needed any more."""
        self._thread.shutdown()

    def _write(self, state: _State) -> None:
        group, aside = self._group, self._aside(state.step)
        needed = sum(exchanged(group, state.nbytes))
        _all_or_none(group, lambda: self._prepare(aside, needed))
        try:
            writer = HuggingFaceStorageWriter(str(aside), save_distributed=True)
            _save(state.tensors, writer, group)
            digests: dict[str, str] = {}
            _all_or_none(group, lambda: digests.update(_own_digests(aside, group.ranks.rank)))
            files = {name: digest for part in exchanged(group, digests) for name, digest in part.items()}
            _all_or_none(group, lambda: self._finish(aside, state, files))
        except OSError:
            if group.ranks.rank == 0:
                shutil.rmtree(aside, ignore_errors=True)
            raise

    def _aside(self, step: int) -> Path:
        pid = exchanged(self._group, os.getpid())[0]
        return self._folder / f".step-{step:08d}.tmp-{pid}"

    def _prepare(self, aside: Path, needed: int) -> None:
        if self._group.ranks.rank:
            return
        self._before()
        self._folder.mkdir(parents=True, exist_ok=True)
        remove_stale(self._folder, ".step-*.tmp-*")
        if disk_space_problems(self._folder, needed):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._folder))
        aside.mkdir()

    def _finish(self, aside: Path, state: _State, files: dict[str, str]) -> None:
        """By rank 0: the manifest, the name, and none but the last two kept."""
        if self._group.ranks.rank:
            return
        text = json.dumps({**state.manifest, "files": dict(sorted(files.items()))}, allow_nan=False)
        write_text(aside / MANIFEST, text)
        for path in aside.iterdir():
            sync(path)
        sync(aside)
        digest = hashlib.sha256(text.encode()).hexdigest()
        target = self._folder / name_of(state.step, self._owner, digest)
        if target.exists():  # the very same state
            shutil.rmtree(aside)
        else:
            aside.rename(target)
        sync(self._folder)
        drop_older(target, self._owner)


def _copied_state(training: Training, owner: str, group: Group) -> _State:
    rank = group.ranks.rank
    own = {f"rng.{rank}": torch.get_rng_state()}
    if group.device.type == "cuda":
        own[f"rng.cuda.{rank}"] = torch.cuda.get_rng_state(group.device)
    nbytes = sum(tensor.nbytes for tensor in own.values())
    tensors, steps = dict(own), {}
    for name, parameter in trained(training):
        held = {f"model.{name}": local_of(parameter.detach())}
        shapes = {f"model.{name}": tuple(parameter.shape)}
        held |= moment_tensors(training, name, parameter)
        shapes |= {key: shape for key, (_, shape) in moment_types(training, name, parameter).items()}
        if kept := training.optimizer.state.get(parameter):
            steps[name] = float(kept["step"])
        for key, value in held.items():
            local = value.to("cpu", copy=True)
            nbytes += local.nbytes
            tensors[key] = sharded(local, shapes[key], group)
    progress = {"progress": written_progress(training), "owner": owner, "optimizer_steps": steps}
    return _State(training.step, tensors, {**progress, "ranks": group.ranks.size}, nbytes)


def _save(tensors: dict[str, Tensor], writer: HuggingFaceStorageWriter, group: Group) -> None:
    """Raises OSError on every rank where one could not write."""
    try:
        save(tensors, storage_writer=writer, process_group=group.writers)
    except CheckpointException as error:
        faults = [fault for fault, _ in error.failures.values()]
        first = next((fault for fault in faults if isinstance(fault, OSError)), None)
        if first is None:
            raise
        raise OSError(first.errno, first.strerror or str(first), first.filename) from error


def _own_digests(folder: Path, rank: int) -> dict[str, str]:
    """Digests by name of what this rank wrote."""
    return {path.name: digest_of(path) for path in folder.glob(f"shard-{rank + 1:05d}-*.safetensors")}


def _all_or_none(group: Group, work: Callable[[], None]) -> None:
    """Do this rank's part; where one fails, all raise OSError."""
    fault: tuple[Any, ...] | None = None
    try:
        work()
    except (OSError, CheckpointError) as error:
        if isinstance(error, OSError):
            fault = (error.errno or errno.EIO, error.strerror or str(error), error.filename)
        else:
            fault = (errno.EIO, str(error), None)
    for found in exchanged(group, fault):
        if found is not None:
            raise OSError(*found)
