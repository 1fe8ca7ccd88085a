"""Three ways to train the same model on the same batches: the project's loop, a bare one, `transformers.Trainer`."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch

from tests.gpu.shapes import Shape, batches_of, heldout_of, model_of, recipe_of
from tli.training.acceleration import checkpoint_activations, compile_layers
from tli.training.loop import EVALUATION, Training

if TYPE_CHECKING:
    from tli.data.batches import Batches

OURS, BARE, TRAINER = "our loop", "bare loop", "Trainer"


class Ours:
    """`tli.training.loop.Training`, as a trial runs it."""

    def __init__(self, shape: Shape, device: torch.device, **recipe: Any) -> None:
        model = model_of(shape, device)
        self._steps, self._warm, self._device = 0, shape.warm, device
        # The loss before training is given, so that nothing is measured at step 0.
        self.training = Training(
            model, recipe_of(shape, **recipe), batches_of(shape), heldout_of(shape), initial_loss=20.0
        )

    def warm(self) -> None:
        """The steps before those that count."""
        self.run(self._warm)

    def run(self, steps: int) -> float:
        """Seconds of the next steps, as the loop counts them itself."""
        before, started = self.training.seconds, clock(self._device)
        self._steps += steps
        ended = started

        def watch(work: str) -> None:
            nonlocal ended
            if work == EVALUATION:  # all steps are done
                ended = clock(self._device)

        for _ in self.training.run([self._steps], watch):
            pass
        return ended - started if self._device.type == "cpu" else self.training.seconds - before


class Bare:
    """What is written by hand for one purpose: no reports, no states, all logits at once, no wait between steps."""

    def __init__(self, shape: Shape, device: torch.device, **recipe: Any) -> None:
        self._recipe = recipe_of(shape, **recipe)
        self._shape, self._device = shape, device
        self._model = model_of(shape, device)
        checkpoint_activations(self._model, self._recipe.activation_checkpointing)
        if self._recipe.compile:
            compile_layers(self._model)
        kernel = {"fused": True} if device.type == "cuda" else {"foreach": True}
        self._optimizer = torch.optim.AdamW(
            self._model.parameters(),
            lr=self._recipe.learning_rate,
            betas=(0.9, 0.95),
            weight_decay=0.0,
            **kernel,
        )
        self._batches: Batches = batches_of(shape)
        self._step = 0
        if device.type == "cuda":
            torch.set_float32_matmul_precision("high")

    def warm(self) -> None:
        """The steps before those that count."""
        self.run(self._shape.warm)

    def run(self, steps: int) -> float:
        """Seconds of the next steps."""
        started = clock(self._device)
        for _ in range(steps):
            rows = torch.from_numpy(self._batches[self._step])
            if self._device.type == "cuda":
                rows = rows.pin_memory()
            rows = rows.to(self._device, non_blocking=True)
            for part in rows.split(self._shape.micro // self._shape.sequence):
                with torch.autocast(
                    self._device.type, torch.bfloat16, enabled=self._recipe.precision == "bf16"
                ):
                    logits = self._model(input_ids=part[:, :-1], use_cache=False).logits
                loss = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), part[:, 1:].flatten())
                (loss / self._shape.passes).backward()
                del logits, loss
            torch.nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
            self._optimizer.step()
            self._optimizer.zero_grad(set_to_none=True)
            self._step += 1
        settle(self._device)
        return clock(self._device) - started


class ByTrainer:
    """`transformers.Trainer` with the same settings, and nothing logged, saved or evaluated."""

    def __init__(self, shape: Shape, device: torch.device, **recipe: Any) -> None:
        self._recipe, self._shape, self._device = recipe_of(shape, **recipe), shape, device
        self._model = model_of(shape, device)
        checkpoint_activations(self._model, self._recipe.activation_checkpointing)
        if self._recipe.compile:
            compile_layers(self._model)
        batches = batches_of(shape)
        windows = [row for step in range(shape.steps + shape.warm) for row in batches[step]]
        # Its labels are the ids themselves: it shifts them, and so predicts one token fewer of each window.
        self._data = [{"input_ids": row[:-1], "labels": row[:-1]} for row in windows]

    def warm(self) -> None:
        """Nothing: each `run` begins with steps that do not count."""

    def run(self, steps: int) -> float:
        """Seconds of so many steps, after those that do not count."""
        from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments
        from transformers.utils import logging as wording

        device, warm = self._device, self._shape.warm
        times: list[float] = []

        class Clock(TrainerCallback):
            def on_step_end(self, *_given: Any, **_named: Any) -> None:
                if len(times) == warm - 1:  # between those that count nothing waits
                    settle(device)
                times.append(clock(device))

            def on_train_end(self, *_given: Any, **_named: Any) -> None:
                settle(device)
                times.append(clock(device))

        wording.set_verbosity_error()
        wording.disable_progress_bar()
        logging.getLogger("accelerate").setLevel(logging.ERROR)
        with tempfile.TemporaryDirectory() as folder:
            settings = TrainingArguments(
                output_dir=folder, max_steps=steps + warm, learning_rate=self._recipe.learning_rate,
                per_device_train_batch_size=self._shape.micro // self._shape.sequence,
                gradient_accumulation_steps=self._shape.passes, adam_beta2=0.95, max_grad_norm=1.0,
                optim="adamw_torch_fused" if device.type == "cuda" else "adamw_torch",
                bf16=self._recipe.precision == "bf16", use_cpu=device.type == "cpu", tf32=None,
                lr_scheduler_type="constant", logging_strategy="no", save_strategy="no", report_to=[],
                disable_tqdm=True, dataloader_num_workers=0, dataloader_pin_memory=device.type == "cuda", seed=0,
            )  # fmt: skip
            trainer = Trainer(self._model, settings, train_dataset=self._data, callbacks=[Clock()])
            trainer.remove_callback(PrinterCallback)
            trainer.train()
        return times[-1] - times[warm - 1]


CONTENDERS: dict[str, Any] = {OURS: Ours, BARE: Bare, TRAINER: ByTrainer}


def without_trainer() -> str | None:
    """Why `transformers.Trainer` cannot be run here; None where it can."""
    try:
        import accelerate
    except ImportError:
        return "accelerate is not installed"
    return None if accelerate else "accelerate is empty"


def clock(device: torch.device) -> float:
    """Seconds: on a CPU of processor time, which other programs do not lengthen."""
    return time.process_time() if device.type == "cpu" else time.perf_counter()


def settle(device: torch.device) -> None:
    """Wait for a device."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def names() -> Iterator[str]:
    """Of the contenders that can be run here."""
    return (name for name in CONTENDERS if name != TRAINER or without_trainer() is None)
