"""That a GPU calculates what the CPU does, and that nothing waits for it between reports."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from tests.gpu.loss import with_limits
from tests.gpu.shapes import SIZES, batches_of, heldout_of, model_of, recipe_of
from tests.gpu.table import Row, judged
from tli.growth.in_memory import grow
from tli.planning.plan import plan
from tli.training.evaluate import evaluate
from tli.training.loop import EVALUATION, STEP, Training
from tli.training.losses import add_gradients
from tli.training.state import load_latest, save_state

_TINY = SIZES["tiny"][0]
_STEPS = 4


def rows(device: torch.device) -> Iterator[Row]:
    """Small models, in seconds."""
    yield from _identity(device)
    yield _loss(device)
    yield from _pieces(device)
    yield from _steps(device)
    yield _state(device)


def _identity(device: torch.device) -> Iterator[Row]:
    ids = torch.from_numpy(heldout_of(_TINY)).to(device)
    for dtype in (torch.float32, torch.bfloat16):
        base = model_of(_TINY, device, dtype).eval()
        grown = grow(base, plan(_TINY.config["num_hidden_layers"], k=2, init="identity"))
        with torch.no_grad():
            logits = [model(input_ids=ids, use_cache=False).logits for model in (base, grown)]
        same = torch.equal(*logits)
        name = str(dtype).rpartition(".")[2]
        yield judged(
            f"grown by identity, {name}", "logits bit-equal" if same else "logits differ", holds=same
        )


def _loss(device: torch.device) -> Row:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        there = evaluate(model_of(_TINY, torch.device("cpu")).to(device), heldout_of(_TINY)).loss
    finally:
        torch.set_float32_matmul_precision(before)
    here = evaluate(model_of(_TINY, torch.device("cpu")), heldout_of(_TINY)).loss
    apart = abs(here - there)
    return judged(
        "held-out loss, fp32", f"{there:.6f}, on the CPU {here:.6f} (at most 1e-5 apart)", holds=apart <= 1e-5,
        apart=apart,
    )  # fmt: skip


def _pieces(device: torch.device) -> Iterator[Row]:
    """With a vocabulary so large that its logits are never all there, against them all."""
    vocabulary = 128_256 if device.type == "cuda" else 2048
    wide = replace(_TINY, config={**_TINY.config, "vocab_size": vocabulary}, micro=640)
    ids = torch.from_numpy(batches_of(wide)[0][:40]).to(device)
    for precision, bound in (("fp32", 1e-5), ("bf16", 1e-2)):
        model = model_of(wide, device)
        loss = with_limits(500 * vocabulary, lambda m=model, p=precision: add_gradients(m, ids, p))
        got = _gradients(model)
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            logits = model(input_ids=ids[:, :-1], use_cache=False).logits
        plain = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten())
        plain.backward()
        wanted = _gradients(model)
        apart = float((got - wanted).norm() / wanted.norm())
        off = abs(float(loss) / float(plain.detach()) - 1)
        yield judged(
            f"loss without logits, {precision}", f"loss {off:.1e}, gradients {apart:.1e} apart (at most {bound:g})",
            holds=off <= min(bound, 1e-5) and apart <= bound, loss=off, gradients=apart,
        )  # fmt: skip


def _gradients(model: torch.nn.Module) -> torch.Tensor:
    """All of them in one piece; the model has none afterwards."""
    found = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    model.zero_grad(set_to_none=True)
    return found


def _training(device: torch.device, **recipe: object) -> Training:
    model = model_of(_TINY, torch.device("cpu")).to(device)
    settings = recipe_of(_TINY, learning_rate=1e-3, tokens=_STEPS * _TINY.batch, **recipe)
    return Training(model, settings, batches_of(replace(_TINY, steps=_STEPS + 2)), heldout_of(_TINY))


def _steps(device: torch.device) -> Iterator[Row]:
    """A few steps here and on the CPU, and what waited for the device between two reports."""
    for precision, bound in (("fp32", 5e-3), ("bf16", 3e-2)):
        here = _training(torch.device("cpu"), precision=precision)
        wanted = [loss for progress in here.run([_STEPS]) for _, loss in progress.train_loss]
        there = _training(device, precision=precision)
        with _waits(device) as (watch, waits):
            got = [loss for progress in there.run([_STEPS], watch) for _, loss in progress.train_loss]
        apart = max(abs(a - b) for a, b in zip(got, wanted, strict=True))
        yield judged(
            f"{_STEPS} steps, {precision}", f"losses {apart:.1e} apart from the CPU's (at most {bound:g})",
            holds=apart <= bound, apart=apart,
        )  # fmt: skip
        ours = [place for place in waits if "transformers" not in place]
        said = ", ".join(sorted(set(ours))) or "none"
        theirs = f"; in transformers {len(waits) - len(ours)}: {', '.join(sorted(set(waits) - set(ours)))}"
        yield judged(
            f"waits between reports, {precision}", said + (theirs if len(waits) > len(ours) else ""),
            holds=not ours, waits=waits,
        )  # fmt: skip


@contextmanager
def _waits(device: torch.device) -> Iterator[tuple[Callable[[str], None], list[str]]]:
    """Places in the code that wait for the device in steps after the first, which sets the optimizer up."""
    done, places = 0, []

    def watch(work: str) -> None:
        nonlocal done
        if device.type == "cuda":
            done += work == STEP
            torch.cuda.set_sync_debug_mode("warn" if work == STEP and done > 1 else "default")

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            yield watch, places
        finally:
            watch(EVALUATION)
    places += [
        f"{'/'.join(Path(each.filename).parts[-2:])}:{each.lineno}"
        for each in caught
        if "called a synchronizing" in str(each.message)
    ]


def _state(device: torch.device) -> Row:
    whole = _training(device)
    wanted = [loss for progress in whole.run([_STEPS]) for _, loss in progress.train_loss]
    half = _training(device)
    for _ in half.run([_STEPS // 2]):
        pass
    with tempfile.TemporaryDirectory() as folder:
        save_state(half, Path(folder))
        again = _training(device)
        found = load_latest(again, Path(folder))
    got = [loss for progress in again.run([_STEPS]) for _, loss in progress.train_loss]
    apart = max(abs(a - b) for a, b in zip(got, wanted[-len(got) :], strict=True))
    return judged(
        "a training taken up again", f"losses {apart:.1e} apart (at most 1e-5)", holds=found and apart <= 1e-5,
        apart=apart,
    )  # fmt: skip
