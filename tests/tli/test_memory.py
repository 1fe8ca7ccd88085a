"""The arithmetic of memory against steps of real models under fake tensors, within a tenth."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig

from tests.tli.fake_step import Step, described, fake_peak
from tli.growth.activations import Setting
from tli.growth.memory import PIECES, kept_base, memory
from tli.models import descriptions
from tli.planning.injection import Injection
from tli.planning.plan import plan_for

ROOM = 0.1
MODELS = ("llama-3.2-1b", "qwen3-4b", "olmo-2-7b", "gemma-3-4b", "llama-3.1-8b")


def configured(name: str, layers: int) -> Any:
    """The language model's configuration, with another number of layers of the same widths."""
    folder = Path(descriptions.__file__).parent / "descriptions" / name
    config = AutoConfig.from_pretrained(folder).get_text_config()
    config.num_hidden_layers = layers
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:layers]
    return config


def in_pieces(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module that calculates logits in pieces, with those of a GPU."""
    losses = pytest.importorskip("tli.training.losses")
    monkeypatch.setitem(losses.LOGITS_AT_ONCE, "cpu", PIECES["cuda"])
    return losses


def compared(name: str, step: Step, tmp_path: Path, *, layers: int = 2) -> None:
    real = fake_peak(configured(name, layers), step)
    k = None if step.injected is None else layers // 2 // len(step.injected)
    injection = Injection("none") if k is None else Injection("tli", k=k)
    depth = layers if step.injected is None else layers - len(step.injected)
    base = described(configured(name, depth), tmp_path / "described")
    setting = Setting(
        tokens=step.rows * step.sequence,
        precision=step.precision,  # type: ignore[arg-type]
        train="all" if step.injected is None else "injected",
        ranks=step.ranks,
        checkpointing=int(step.checkpointing),
        pieces=PIECES["cuda"] if step.losses else 0,
        fused=step.fused,
    )
    plan = plan_for(injection, depth)
    assert plan.injected == tuple(sorted(step.injected or ()))
    told = memory(base, plan, setting)
    assert told.total == pytest.approx(real.whole, rel=ROOM), (told, real)
    # A part that is there all the time, to the byte.
    assert told.weights == 4 * real.parameters // step.ranks


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("gemma-3-4b", Step(precision="bf16", fused=True)),
        ("llama-3.1-8b", Step(precision="bf16", checkpointing=True, fused=True, ranks=4)),
    ],
)
def test_the_estimate_is_that_of_a_real_step(name: str, step: Step, tmp_path: Path) -> None:
    compared(name, step, tmp_path)


def test_with_logits_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = in_pieces(monkeypatch)
    compared("qwen3-4b", Step(precision="bf16", checkpointing=True, losses=losses, fused=True), tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("ranks", [1, 4, 8])
def test_every_way_to_train(name: str, ranks: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = in_pieces(monkeypatch)
    ways = product(("fp32", "bf16"), (False, True), (None, losses), (False, True))
    for index, (precision, checkpointing, pieces, fused) in enumerate(ways):
        step = Step(2, 2048, precision, checkpointing, pieces, fused, None, ranks)
        (tmp_path / str(index)).mkdir()
        compared(name, step, tmp_path / str(index), layers=3)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["llama-3.2-1b", "llama-3.1-8b"])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "halved"])
def test_only_injected_layers_are_trained(
    name: str, checkpointing: bool, precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`halved`: bf16, what is frozen in two bytes."""
    losses = in_pieces(monkeypatch)
    halved = precision == "halved"
    precision = "bf16" if halved else precision
    injected = frozenset({2, 5})
    step = Step(2, 2048, precision, checkpointing, losses, fused=True, injected=injected, halved=halved)
    base = described(configured(name, 4), tmp_path / "base")
    real = fake_peak(configured(name, 6), step)
    frozen = 2 if halved else 4
    setting = Setting(
        4096,
        precision,  # type: ignore[arg-type]
        "injected",
        1,
        int(checkpointing),
        PIECES["cuda"],
        fused=True,
        frozen=frozen,
    )
    told = memory(base, plan_for(Injection("tli", k=2), 4), setting)
    assert told.total == pytest.approx(real.whole, rel=ROOM)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["llama-3.2-1b", "llama-3.1-8b"])  # tied, and not
@pytest.mark.parametrize("train", ["injected", "injected+norms"])
@pytest.mark.parametrize("halved", [False, True])
@pytest.mark.parametrize("ranks", [2, 8])
def test_only_injected_layers_are_trained_over_ranks(
    name: str, train: Any, halved: bool, ranks: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of what is frozen are kept in two bytes, in layers of which the norms are trained, too."""
    losses, norms = in_pieces(monkeypatch), train == "injected+norms"
    injected = frozenset({2, 5})
    step = Step(2, 2048, "bf16", True, losses, True, injected, ranks, halved, norms)
    base = described(configured(name, 4), tmp_path / "base")
    real, plan = fake_peak(configured(name, 6), step), plan_for(Injection("tli", k=2), 4)
    setting = Setting(4096, "bf16", train, ranks, 1, PIECES["cuda"], fused=True, frozen=2 if halved else 4)
    told = memory(base, plan, setting)
    assert told.total == pytest.approx(real.whole, rel=ROOM), (told, real)
    assert kept_base(base, plan, replace(setting, kept=setting.frozen)) <= told.weights * ROOM


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("name", "ranks"), [("llama-3.2-1b", 1), ("llama-3.1-8b", 8)])
def test_of_all_layers(name: str, ranks: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = in_pieces(monkeypatch)
    depth = {"llama-3.2-1b": 20, "llama-3.1-8b": 40}[name]
    step = Step(1, 4096, "bf16", True, losses, True, None, ranks)
    compared(name, step, tmp_path, layers=depth)


class TestWhatIsSaved:
    """Each way to save memory does."""

    BASE = descriptions.described("llama-3.1-8b")
    WHOLE = Setting(8192, "bf16", pieces=PIECES["cuda"], fused=True)

    def total(self, **other: Any) -> int:
        assert self.BASE is not None
        return memory(self.BASE, plan_for(Injection("tli", k=4), 32), replace(self.WHOLE, **other)).total

    @pytest.mark.parametrize(
        "other",
        [
            {"tokens": 4096},
            {"checkpointing": 1},
            {"checkpointing": 2},
            {"ranks": 4},
            {"train": "injected"},
            {"moments": 2.1},
            {"train": "injected", "frozen": 2},
        ],
    )
    def test_less_than_without(self, other: dict[str, Any]) -> None:
        assert self.total(**other) < self.total()

    def test_moments_in_8_bits_are_copied_one_tensor_at_a_time(self) -> None:
        """Where the optimizer is not one kernel: not as many bytes as all gradients."""
        assert self.total(moments=2.1, fused=False) < self.total(fused=False) - 5 * 10**10

    def test_all_checkpointed_is_less_than_every_second_one(self) -> None:
        assert self.total(checkpointing=1) < self.total(checkpointing=2)

    def test_frozen_in_half_is_less_than_in_float32(self) -> None:
        assert self.total(train="injected", frozen=2) < self.total(train="injected")


def test_it_loads_no_torch() -> None:
    code = (
        "import sys\nfrom tli.models.descriptions import described\nfrom tli.growth.memory import memory\n"
        "from tli.growth.activations import Setting\nfrom tli.planning.plan import plan_for\n"
        "from tli.planning.injection import Injection\n"
        "memory(described('qwen3-4b'), plan_for(Injection('tli', k=4), 36), Setting(4096))\n"
        "print([name for name in ('torch', 'transformers', 'pydantic') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
