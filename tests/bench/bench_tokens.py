"""Text to tokens, against `datasets.map`: `python -m tests.bench.bench_tokens FOLDER [--megabytes 1000]`.

Writes a jsonl file of varied text under FOLDER (the standard library's functions and classes, in another order each
time), of which the token file of the built-in base takes so many megabytes, and tokenises it in processes of its own:

  tli       `open_tokens`: the split, both token files, their digest
  datasets  `load_dataset("json")` and `map` with the same tokenizer and as many processes, into its Arrow cache

Prints a row for LOG.md: tokens, seconds, tokens per second, and the peak of the proportional set sizes of all
processes. Both must have made the same number of tokens.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.bench.processes import Watched
from tli.data.corpus import stdlib_documents

BYTES_PER_TOKEN = 3.1  # of this text under the built-in tokenizer
WIDTH = 2  # bytes of a token in the file
PARTS = 12  # pieces of the standard library in one document


def main() -> None:
    options = arguments()
    if options.child:
        print(json.dumps({"tli": tli, "datasets": datasets}[options.child](options)))
        return
    options.folder.mkdir(parents=True, exist_ok=True)
    size = write_text(options.folder / "text.jsonl", int(options.megabytes * 1e6 / WIDTH * BYTES_PER_TOKEN))
    print(f"text: {size / 1e6:,.0f} MB of jsonl")
    made = {}
    for side in options.sides:
        made[side] = measured(side, options)
        print(f"{side:9} {row(made[side])}", flush=True)
    counts = {side: each["text_tokens"] for side, each in made.items()}
    assert len(set(counts.values())) == 1, counts


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--megabytes", type=float, default=300.0, help="of the token file, about")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--sides", nargs="+", default=["tli", "datasets"])
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser.parse_args()


def write_text(path: Path, wanted: int) -> int:
    """At least so many bytes of text, a document a row; no two documents are the same."""
    if not path.exists():
        draw = random.Random(0)
        parts = [part for doc in stdlib_documents(heldout=False) for part in doc.text.split("\n\n\n")]
        size = 0
        with path.open("w", encoding="utf-8") as out:
            while size < wanted:
                text = "\n\n\n".join(draw.choices(parts, k=PARTS)).encode(errors="replace").decode()
                size += len(text.encode())
                out.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
    return path.stat().st_size


def measured(side: str, options: argparse.Namespace) -> dict[str, Any]:
    for left in ("tokens", "arrow"):
        shutil.rmtree(options.folder / left, ignore_errors=True)
    program = [sys.executable, "-m", "tests.bench.bench_tokens", str(options.folder), "--child", side]
    child = subprocess.Popen(
        [*program, "--processes", str(options.processes)], stdout=subprocess.PIPE, text=True
    )
    watched = Watched(child.pid)
    out, _ = child.communicate()
    watched.stop()
    assert child.returncode == 0, side
    answer: dict[str, Any] = json.loads(out.splitlines()[-1])
    return {**answer, "peak": watched.peak, "processor": watched.seconds}


def tli(options: argparse.Namespace) -> dict[str, Any]:
    from tli.data.batches import open_tokens
    from tli.data.settings import DataSettings
    from tli.models.base import find

    base, started = find("builtin:tiny-llama"), time.monotonic()
    settings = DataSettings(source=str(options.folder / "text.jsonl"))
    made = open_tokens(settings, base, options.folder / "tokens", workers=options.processes)
    seconds = time.monotonic() - started
    total = len(made.train) + len(made.heldout) + len(made.test)
    documents = sum(1 for _ in (options.folder / "text.jsonl").open("rb"))
    size = sum(file.stat().st_size for file in made.folder.glob("*.bin"))
    return {"tokens": total, "text_tokens": total - documents, "seconds": seconds, "bytes": size}


def datasets(options: argparse.Namespace) -> dict[str, Any]:
    import pyarrow.compute as pc
    from datasets import load_dataset
    from transformers import AutoTokenizer

    from tli.models.base import find

    tokenizer = AutoTokenizer.from_pretrained(str(find("builtin:tiny-llama").folder))
    started = time.monotonic()
    rows = load_dataset(
        "json",
        data_files=str(options.folder / "text.jsonl"),
        split="train",
        cache_dir=str(options.folder / "arrow"),
    )
    made = rows.map(
        lambda batch: {"input_ids": tokenizer(batch["text"], add_special_tokens=False)["input_ids"]},
        batched=True,
        num_proc=options.processes,
        remove_columns=rows.column_names,
    )
    seconds = time.monotonic() - started
    total = int(pc.sum(pc.list_value_length(made.data.column("input_ids"))).as_py())
    size = sum(file.stat().st_size for file in (options.folder / "arrow").rglob("*.arrow"))
    return {"tokens": total, "text_tokens": total, "seconds": seconds, "bytes": size}


def row(made: dict[str, Any]) -> str:
    rate = made["tokens"] / made["seconds"]
    return (
        f"{made['tokens']:,} tokens in {made['seconds']:,.0f} s, {rate:,.0f} tokens/s, processor time "
        f"{made['processor']:,.0f} s, peak {made['peak'] / 2**20:,.0f} MiB, {made['bytes'] / 1e6:,.0f} MB written"
    )


if __name__ == "__main__":
    main()
