"""What a trial is measured on: held-out windows and test blocks of one text, or of each of several."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from math import fsum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeps.by_text import Sources, TextLoss
from sweeps.records import Assignment, Point, Role
from sweeps.spec.data_settings import DataSettings
from sweeps.spec.section import Settings
from sweeps.worker.saving import TESTING, OnWork
from tli.data.corpus import matching_files
from tli.data.dataset import at_home

if TYPE_CHECKING:
    from tli.data.mixture import Mixture
    from tli.data.settings import DataSettings as TliData
    from tli.models.base import Base
    from tli.training.evaluate import Evaluation
    from tli.training.loop import Training

TEST_BLOCKS = 16  # equal parts of the test text, between which its loss varies


@dataclass(frozen=True)
class Blocks:
    """Windows of each text in order, in as many blocks for each; `weights` of the texts in the mean."""

    windows: Mapping[str, tuple[Any, ...]]
    weights: Mapping[str, float]

    @property
    def count(self) -> int:
        """Blocks of each text."""
        return len(next(iter(self.windows.values())))


@dataclass(frozen=True)
class Tested:
    """Losses on blocks of the test text: the weighted mean of each, and those of each of several texts."""

    losses: tuple[float, ...]
    texts: Mapping[str, tuple[float, ...]]
    bits_per_byte: Mapping[str, float | None]

    def beside(self, sources: Sources) -> Sources:
        """Held-out losses with these added."""
        return {
            name: replace(each, test_losses=self.texts[name], test_bits_per_byte=self.bits_per_byte[name])
            for name, each in sources.items()
        }


class Testing:
    """Adds losses on the test text to the points that have them."""

    def __init__(self, texts: Mixture, data: DataSettings, heldout: Any) -> None:
        """Cut nothing yet.

        Args:
            texts: whose test side it is.
            data: how much of it is read.
            heldout: what `held_out` gave, for the bytes of tokens.
        """
        self._texts, self._data, self._heldout = texts, data, heldout
        self._base: Sources = {}  # losses of the base, once it was tested

    @cached_property
    def blocks(self) -> Blocks:
        """Windows of each text's test side in order, in blocks that differ by one window at the most."""
        return blocks_of(self._texts, self._data)

    def added_to(self, point: Point, assignment: Assignment, training: Training, on_work: OnWork) -> Point:
        """The point with losses on the test text, where the model is tested now.

        That is after the last step of a run under a fresh seed, and of a promotion. Of several texts a
        control is tested before its first step, too: it is the base then.
        """
        if point.step == assignment.steps and (assignment.role.fresh or assignment.role.promoted):
            found = tested(self.blocks, self._heldout, training, on_work)
            return replace(point, test_losses=found.losses, sources=found.beside(point.sources))
        if point.step == 0 and assignment.role is Role.CONTROL and point.sources:
            if not self._base:
                found = tested(self.blocks, self._heldout, training, on_work)
                self._base = found.beside(point.sources)
            return replace(point, sources=self._base)
        return point


def placed(data: DataSettings, cache: Path) -> DataSettings:
    """The section with absolute paths, and datasets on the hub at the commits that they are at now.

    Raises:
        DataError: a dataset cannot be found on the hub.
    """
    found = {each.where: _places(each.pinned(cache).settings) for each in data.portions()}
    named = {
        group: {
            name: each.model_copy(update=_known(found[f"data.{group}.{name}"], each))
            for name, each in texts.items()
        }
        for group, texts in (("sources", data.sources), ("measured_only", data.measured_only))
    }
    return data.model_copy(update={**found.get("data", {}), **named})


def _places(pinned: TliData) -> dict[str, Any]:
    """The settings of one text that are others in a process with another working folder."""
    sources: dict[str, Any] = {
        source.where.rpartition(".")[2]: str(at_home(source.name).absolute())
        for source in pinned.sources
        if matching_files(source.name) or source.folder
    }
    return sources | {"revision": pinned.revision, "heldout_revision": pinned.heldout_revision}


def _known(settings: Mapping[str, Any], section: Settings) -> dict[str, Any]:
    """Those that a section has: a text that is only measured has no held-out text of its own."""
    return {name: value for name, value in settings.items() if name in type(section).model_fields}


def held_out(texts: Mixture, data: DataSettings, base: Base) -> Any:
    """Held-out windows: of one text as they are, of several by name, with the bytes of tokens."""
    from tli.data.token_bytes import token_bytes
    from tli.training.heldout import HeldOut

    windows = texts.heldout_windows(sequence_length=data.sequence_length, eval_tokens=data.eval_tokens)
    if not data.named:
        return next(iter(windows.values()))
    return HeldOut(windows, texts.shares, token_bytes(base.folder))


def blocks_of(texts: Mixture, data: DataSettings) -> Blocks:
    """The test windows of each text in blocks, as many for each, that differ by one window at the most."""
    windows = texts.test_windows(sequence_length=data.sequence_length, test_tokens=data.test_tokens)
    count = min(TEST_BLOCKS, *map(len, windows.values()))
    cut = {}
    for name, each in windows.items():
        ends = [len(each) * block // count for block in range(count + 1)]
        cut[name] = tuple(each[start:end] for start, end in itertools.pairwise(ends))
    return Blocks(cut, texts.shares)


def sources_of(texts: Mapping[str, Evaluation]) -> Sources:
    """Held-out losses of several texts as a point has them."""
    return {name: TextLoss(each.loss, each.bits_per_byte) for name, each in texts.items()}


def tested(blocks: Blocks, heldout: Any, training: Training, on_work: OnWork) -> Tested:
    """Mean losses on the blocks of the test text, nats per token; the mean of these is the test loss.

    Args:
        blocks: of the test text.
        heldout: what `held_out` gave, for the bytes of tokens.
        training: whose model is tested.
        on_work: called before each block.
    """
    from tli.training.evaluate import evaluate

    sizes = getattr(heldout, "sizes", None)
    found: dict[str, list[Evaluation]] = {name: [] for name in blocks.windows}
    for block in range(blocks.count):
        on_work(TESTING)
        for name, windows in blocks.windows.items():
            at_once = training.evaluated_at_once
            found[name].append(evaluate(training.model, windows[block], at_once=at_once, sizes=sizes))
    means = tuple(
        fsum(weight * found[name][block].loss for name, weight in blocks.weights.items())
        for block in range(blocks.count)
    )
    texts = {name: tuple(each.loss for each in measured) for name, measured in found.items()}
    if sizes is None:
        return Tested(means, texts, {})
    counts = {name: [sizes.count(each) for each in cut] for name, cut in blocks.windows.items()}
    return Tested(means, texts, {name: _whole(each, counts[name]) for name, each in found.items()})


def _whole(measured: list[Evaluation], sizes: list[int]) -> float | None:
    """Bits per byte of blocks together, by the bytes of each."""
    total = sum(sizes)
    pairs = zip(measured, sizes, strict=True)
    return fsum((each.bits_per_byte or 0.0) * size for each, size in pairs) / total if total else None
