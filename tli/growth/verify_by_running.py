"""Checks that load a grown model in plain transformers and run it: logits, ties, generation with a cache."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tli.growth.verify_report import Check, Subject
from tli.models.base import Base
from tli.models.quantised import method_of

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


_PROMPT = 16  # tokens


_GENERATED = 8


_ROUNDING = 1e-4  # of the largest logit: how far float32 may go with sums in another order


_TYPES = {"F16": 2e-3, "BF16": 2e-2}  # the same, where weights were rounded to their type


def runs(subject: Subject) -> Iterator[Check]:
    """Loads the folder in plain transformers, and compares what it computes."""
    import torch

    if method := method_of(subject.written.config):
        yield Check("loads", ok=True, detail=f"not run: {method} weights need a library of their own")
        return
    expected = None
    prompt = _prompt(subject.written)
    with torch.no_grad():
        try:
            if subject.plan.preserves and not subject.trained:
                expected = _loaded(subject.base.folder)[0](prompt).logits
            model, missing = _loaded(subject.written.folder)
        except (RuntimeError, ValueError, KeyError, OSError) as error:  # what from_pretrained raises
            yield Check("loads", ok=False, detail=" ".join(str(error).split())[:300])
            return
        yield Check(
            "loads", not missing, f"{type(model).__name__}" + "".join(f"; lacks {n}" for n in missing[:3])
        )
        tied = _ties(model)
        if not tied.ok and _ties(_loaded(subject.base.folder)[0]).detail == tied.detail:
            tied = replace(tied, ok=True, detail=f"{tied.detail}; so it is in the base")
        yield tied
        found = model(prompt).logits
        if expected is not None:
            yield _logits(subject, found, expected)
        generated = _generated(model, prompt)
        if not generated.ok and not _generated(_loaded(subject.base.folder)[0], prompt).ok:
            generated = replace(generated, ok=True, detail=f"{generated.detail}; so does the base")
        yield generated


def _logits(subject: Subject, found: Tensor, expected: Tensor) -> Check:
    """Whether the model computes what the base does: bit for bit, or with experts up to rounding."""
    import torch

    difference = (found - expected).abs().max().item()
    equal = torch.equal(found, expected)
    detail = "bit-equal to the base's" if equal else f"differ from the base's by up to {difference:.3g}"
    experts = subject.plan.experts
    if experts is None:
        return Check("logits", equal, f"{detail}, in float32")
    share = _ROUNDING
    if experts.granularity & (experts.granularity - 1):  # times three, a number is rounded to its type
        share = max(share, _TYPES.get(subject.base.facts.dtype, 0.0))
    limit = share * (1 + expected.abs().max().item())
    return Check("logits", difference <= limit, f"{detail}, at most {limit:.3g} is rounding, in float32")


def _loaded(folder: Path) -> tuple[PreTrainedModel, list[str]]:
    """The model in float32, and the names of weights that its folder did not have."""
    import torch
    from transformers import AutoModelForCausalLM

    model, report = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=torch.float32,
        use_safetensors=True,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # to be told of them
        trust_remote_code=False,
        local_files_only=True,
    )
    with torch.no_grad():
        for parameter in model.parameters():
            # Mapped files are aligned in another way at another depth, and sums would round otherwise.
            parameter.data = parameter.data.clone()
    mismatched = {name if isinstance(name, str) else name[0] for name in report["mismatched_keys"]}
    return model.eval(), sorted(mismatched | set(report["missing_keys"]))


def _prompt(base: Base) -> Tensor:
    """Token ids of shape (1, 16), the same each time."""
    import torch

    facts = base.facts
    length = min(_PROMPT, (facts.context or _PROMPT + _GENERATED) - _GENERATED)
    return torch.randint(0, facts.vocabulary, (1, length), generator=torch.Generator().manual_seed(0))


def _ties(model: PreTrainedModel) -> Check:
    """Whether head and embedding are one tensor exactly when the configuration says so."""
    config = model.config.get_text_config(decoder=True)
    wanted = bool(getattr(config, "tie_word_embeddings", False))
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    tied = head is not None and head.weight is embedding.weight
    said = {True: "one tensor", False: "two tensors"}
    return Check(
        "ties", tied == wanted, f"head and embedding are {said[tied]}, the configuration says {said[wanted]}"
    )


def _generated(model: PreTrainedModel, prompt: Tensor) -> Check:
    """`generation`, which a few architectures cannot do: they see the whole text, or keep no cache."""
    try:
        return generation(model, prompt)
    except (RuntimeError, AttributeError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())[:100]
        return Check("generation", ok=False, detail=f"does not run with a cache ({reason})")


def generation(model: PreTrainedModel, prompt: Tensor) -> Check:
    """Greedy generation with a cache against one pass over the whole text without; `prompt` has shape (1, n).

    Compared by logits: a layer that reads another one's cache is far off, while a tie between two tokens may
    fall either way by rounding.
    """
    import torch

    text, step, cache = prompt, prompt, None
    logits = []
    for _ in range(_GENERATED):
        output = model(input_ids=step, past_key_values=cache, use_cache=True)
        cache = output.past_key_values
        logits.append(output.logits[:, -1])
        step = logits[-1].argmax(-1, keepdim=True)
        text = torch.cat([text, step], dim=1)
    whole = model(input_ids=text[:, :-1], use_cache=False).logits[:, prompt.shape[1] - 1 :]
    difference = (torch.stack(logits, 1) - whole).abs().max().item()
    close = difference <= _ROUNDING * (1 + whole.abs().max().item())
    detail = f"{_GENERATED} tokens with cache, logits within {difference:.1e} of those without"
    return Check("generation", close, detail)
