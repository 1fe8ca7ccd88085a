"""Trains the built-in base again: `python -m tli.builtin --out FOLDER`.

A Llama of 1.8 million parameters and its byte-level BPE tokenizer, trained on the training side of the
built-in text. The rate rises and then stays constant to the end: a base whose rate had decayed would only
have its annealing undone by every short trial. The packaged weights are the default arguments' result.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import sys
import tempfile
import time
from pathlib import Path

VOCABULARY = 2048
END = "<|endoftext|>"


def main(arguments: list[str] | None = None) -> int:
    """Train tokenizer and model, and write the folder."""
    parser = argparse.ArgumentParser(prog="python -m tli.builtin", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to write; must not exist")
    parser.add_argument("--steps", type=int, default=2600, help="optimizer steps of 2,048 tokens")
    parser.add_argument("--rate", type=float, default=3e-3, help="the constant learning rate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--threads", type=int, default=1, help="torch threads; 1 gives the same bytes each time"
    )
    options = parser.parse_args(arguments)
    if options.out.exists():
        parser.error(f"{options.out} exists")

    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from tli.data import corpus
    from tli.data.batches import open_tokens
    from tli.data.settings import DataSettings
    from tli.data.token_bytes import token_bytes
    from tli.models.base import Base
    from tli.training.evaluate import evaluate
    from tli.training.loop import Training
    from tli.training.recipe import Recipe

    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    started = time.time()
    aside = Path(tempfile.mkdtemp(dir=options.out.absolute().parent, prefix=f".{options.out.name}."))
    _train_tokenizer(aside)
    base = Base(name="builtin:tiny-llama", folder=aside, revision=None)
    with tempfile.TemporaryDirectory() as cache:
        tokens = open_tokens(DataSettings(source=corpus.STDLIB), base, Path(cache))
        print(f"{len(tokens.train):,} training and {len(tokens.heldout):,} held-out tokens", flush=True)
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=VOCABULARY,
                hidden_size=128,
                intermediate_size=384,
                num_hidden_layers=8,
                num_attention_heads=4,
                num_key_value_heads=2,
                max_position_embeddings=512,
                tie_word_embeddings=True,
                initializer_range=0.02,
                bos_token_id=0,
                eos_token_id=0,
            )
        )
        recipe = Recipe(
            learning_rate=options.rate, tokens=options.steps * 2048, warmup=100 / options.steps,
            schedule="constant", weight_decay=0.1,
        )  # fmt: skip
        batches = tokens.batches(sequence_length=128, batch_tokens=2048, seed=options.seed)
        heldout = tokens.heldout_windows(sequence_length=128, eval_tokens=16_384)
        training = Training(model, recipe, batches, heldout)
        for progress in training.run([*range(0, options.steps, 100), options.steps]):
            print(f"step {progress.step}: {progress.eval_loss:.4f} ({progress.seconds:.0f} s)", flush=True)
        every = tokens.heldout_windows(sequence_length=128, eval_tokens=10**9)
        final = evaluate(model, every, sizes=token_bytes(base.folder))
    model.save_pretrained(aside)
    facts = {
        "command": f"python -m tli.builtin --out {options.out.name} --steps {options.steps} "
        f"--rate {options.rate} --seed {options.seed}",
        "text": "Python's standard library, training side of tli.data.corpus.stdlib_documents",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "tokens_seen": options.steps * 2048,
        "heldout_loss_nats_per_token": round(final.loss, 4),
        "heldout_tokens": final.tokens,
        "heldout_bits_per_byte": round(final.bits_per_byte or 0.0, 4),
        "seconds": round(time.time() - started),
        "schedule": "constant; not annealed, so that short trials have something to gain",
        "licence": "weights Apache-2.0; trained on text under the PSF licence",
    }
    (aside / "training.json").write_text(json.dumps(facts, indent=1, allow_nan=False) + "\n")
    shutil.rmtree(aside / ".cache", ignore_errors=True)
    aside.chmod(0o755)
    aside.rename(options.out)
    print(json.dumps(facts, indent=1, allow_nan=False))
    return 0


def _train_tokenizer(folder: Path) -> None:
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    from tli.data import corpus

    tokenizer = ByteLevelBPETokenizer()
    texts = (document.text for document in corpus.stdlib_documents(heldout=False))
    tokenizer.train_from_iterator(texts, vocab_size=VOCABULARY, special_tokens=[END], show_progress=False)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer._tokenizer, bos_token=END, eos_token=END, model_max_length=512
    ).save_pretrained(folder)


if __name__ == "__main__":
    sys.exit(main())
