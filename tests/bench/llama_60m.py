"""A Llama of 60 million parameters, between the packaged base and real models: `python -m tests.bench.llama_60m DIR`.

Random weights, and the tokenizer of the packaged base. With `--tokens 500000` it is first trained on so many tokens
of the built-in text: minutes on two cores.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path
from typing import Any

SHAPE = {
    "hidden_size": 640,
    "intermediate_size": 1920,
    "num_hidden_layers": 12,
    "num_attention_heads": 10,
    "num_key_value_heads": 5,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": True,
}
_BATCH, _SEQUENCE = 2048, 128


def write(folder: Path, *, tokens: int = 0, seed: int = 0) -> Path:
    """Make the model and write its folder, which must not exist."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from tli.models.base import find, vocabulary_of
    from tli.models.model_files import copy_side_files

    packaged = find("builtin:tiny-llama")
    torch.manual_seed(seed)
    ends = {name: packaged.config[name] for name in ("bos_token_id", "eos_token_id")}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=vocabulary_of(packaged.config), **ends, **SHAPE))
    if tokens:
        _train(model, packaged, tokens, seed)
    folder.mkdir(parents=True)
    model.save_pretrained(folder)
    copy_side_files(packaged.folder, folder)
    return folder


def _train(model: Any, packaged: Any, tokens: int, seed: int) -> None:
    from tli.data.batches import open_tokens
    from tli.data.settings import DataSettings
    from tli.training.loop import Training
    from tli.training.recipe import Recipe

    with tempfile.TemporaryDirectory() as cache:
        text = open_tokens(DataSettings(source="builtin:stdlib"), packaged, Path(cache))
        recipe = Recipe(learning_rate=1e-3, tokens=tokens, batch_tokens=_BATCH, precision="bf16")
        batches = text.batches(sequence_length=_SEQUENCE, batch_tokens=_BATCH, seed=seed)
        heldout = text.heldout_windows(sequence_length=_SEQUENCE, eval_tokens=8192)
        training = Training(model, recipe, batches, heldout)
        for progress in training.run([*range(0, recipe.steps, 20), recipe.steps]):
            print(f"step {progress.step}: {progress.eval_loss:.4f} ({progress.seconds:.0f} s)", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.llama_60m", description=__doc__)
    parser.add_argument("folder", type=Path, help="folder to write; must not exist")
    parser.add_argument(
        "--tokens", type=int, default=0, help="of the built-in text, trained on first; 0 for none"
    )
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.folder.exists():
        parser.error(f"{options.folder} exists")
    write(options.folder, tokens=options.tokens, seed=options.seed)
    size = sum(path.stat().st_size for path in options.folder.glob("*.safetensors"))
    shutil.rmtree(options.folder / ".cache", ignore_errors=True)
    print(f"{options.folder}: {size / 4e6:.1f} million parameters")


if __name__ == "__main__":
    main()
