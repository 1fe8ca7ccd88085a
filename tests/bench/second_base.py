"""The second base of the recorded tables: a GPT-NeoX of 1.2 million parameters, trained on WikiText-2 articles."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

VOCABULARY = 2048
END = "<|endoftext|>"


def train_base(folder: Path, text: Path | None, *, steps: int, device: str) -> str:
    """Write `base/` and `articles.jsonl` into a folder; returns what the base's held-out loss is.

    The tokenizer is made where there is none yet, so that it can be made on another machine. The rate rises
    and stays, as that of the built-in base.
    """
    import torch
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    from tests.bench.record import make_tokens
    from tli.data.batches import Tokens
    from tli.training.loop import Training
    from tli.training.recipe import Recipe

    base = folder / "base"
    if text is not None:
        _write_articles(folder / "articles.jsonl", text)
        base.mkdir(exist_ok=True)
        _train_tokenizer(base, folder / "articles.jsonl")
    torch.manual_seed(0)
    model = GPTNeoXForCausalLM(
        GPTNeoXConfig(
            vocab_size=VOCABULARY, hidden_size=96, intermediate_size=384, num_hidden_layers=8,
            num_attention_heads=4, max_position_embeddings=512, bos_token_id=0, eos_token_id=0,
        )
    )  # fmt: skip
    model.save_pretrained(base)  # token files are made for a base's vocabulary
    if text is not None:
        make_tokens("wikitext", folder)
    if steps == 0:
        return "no steps"
    tokens = Tokens(folder / "tokens-wikitext")
    recipe = Recipe(
        learning_rate=3e-3, tokens=steps * 2048, warmup=0.05, schedule="constant", weight_decay=0.1
    )
    batches = tokens.batches(sequence_length=128, batch_tokens=2048, seed=1000)
    heldout = tokens.heldout_windows(sequence_length=128, eval_tokens=16_384)
    training = Training(model.to(device), recipe, batches, heldout)
    losses = [round(each.eval_loss, 4) for each in training.run([*range(0, steps, 250), steps])]
    model.cpu().save_pretrained(base)
    return f"held-out loss by 250 steps: {losses}"


def _write_articles(path: Path, text: Path) -> None:
    from tests.bench.record import articles

    found = [
        each for file in sorted(text.glob("*.txt")) for each in articles(file.read_text(encoding="utf-8"))
    ]
    path.write_text("".join(json.dumps({"text": each}) + "\n" for each in found))


def _train_tokenizer(folder: Path, path: Path) -> None:
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    def texts() -> Iterator[str]:
        for line in path.read_text().splitlines():
            yield json.loads(line)["text"]

    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(texts(), vocab_size=VOCABULARY, special_tokens=[END], show_progress=False)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer._tokenizer, bos_token=END, eos_token=END, model_max_length=512
    ).save_pretrained(folder)
