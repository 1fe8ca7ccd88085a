from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.bench.processes import descendants
from tli.data import encode
from tli.data.corpus import Document, stdlib_documents
from tli.data.encode import Encoder, encoded, groups
from tli.data.sides import SIDES, Side
from tli.models.base import _BUILTINS
from tli.models.loading import load_tokenizer

FOLDER = _BUILTINS / "tiny-llama"


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(load_tokenizer(FOLDER), FOLDER, "uint16")


@pytest.fixture(scope="module")
def docs() -> list[tuple[Side, Document]]:
    found = [doc for doc, _ in zip(stdlib_documents(heldout=False), range(40), strict=False)]
    return [(SIDES[number % 3], doc) for number, doc in enumerate(found)]


def made(encoder: Encoder, docs: list[tuple[Side, Document]], workers: int) -> list[bytes]:
    parts = list(encoded(groups(docs), encoder, workers))
    return [b"".join(part.ids[side] for part in parts) for side in SIDES]


def test_pieces_of_a_long_document_have_the_tokens_of_the_whole(
    encoder: Encoder, docs: list[tuple[Side, Document]], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = made(encoder, docs, 1)
    monkeypatch.setattr(encode, "LONGEST", 5000)
    monkeypatch.setattr(encode, "_GROUP", 9000)
    pieces = [piece for group in groups(docs) for piece in group]
    assert len(pieces) > 2 * len(docs)
    assert max(len(piece.text) for piece in pieces) <= 5000
    assert "".join(piece.text for piece in pieces) == "".join(doc.text for _, doc in docs)
    assert made(encoder, docs, 1) == whole
    ends = np.frombuffer(whole[0], np.uint16) == encoder._end
    assert ends.sum() == sum(side == "train" for side, _ in docs)


def test_text_without_words_is_cut_too() -> None:
    document = Document("x", "é" * (2 * encode.LONGEST + 5))
    (group,) = [list(encode._pieces("train", document))]
    assert [len(piece.text) for piece in group] == [encode.LONGEST, encode.LONGEST, 5]
    assert [(piece.first, piece.last) for piece in group] == [(True, False), (False, False), (False, True)]


def test_processes_give_the_bytes_of_one(
    encoder: Encoder, docs: list[tuple[Side, Document]], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = made(encoder, docs, 1)
    monkeypatch.setattr(encode, "_ALONE", 1)
    monkeypatch.setattr(encode, "_GROUP", 20_000)
    monkeypatch.setattr(encode, "_result", lambda _group, future, _encoder: future.result())  # no standing in
    assert made(encoder, docs, 2) == whole


def test_workers_that_die_are_stood_in_for(
    encoder: Encoder, docs: list[tuple[Side, Document]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As below a script without a guard, whose workers would start workers."""
    whole = made(encoder, docs, 1)
    monkeypatch.setattr(encode, "_ALONE", 1)
    monkeypatch.setattr(encode, "_GROUP", 20_000)
    monkeypatch.setattr(encode, "_start", os._exit)
    assert made(encoder, docs, 2) == whole


def test_an_encoder_of_a_slow_tokenizer_travels_by_its_folder(tiny_model: Callable[[str], Path]) -> None:
    class Slow:
        eos_token_id = None

        def __call__(self, texts: list[str], **_: object) -> dict[str, list[list[int]]]:
            return {"input_ids": [[7] for _ in texts]}

    here = Encoder(Slow(), tiny_model("llama"), "uint16")  # type: ignore[arg-type]
    assert here.ids(["a", "b"]) == [[7], [7]]
    there = pickle.loads(pickle.dumps(here))
    assert there._loaded is None
    assert there._tokenizer() is not None


KILLED = """
import sys
from pathlib import Path
from tli.data import encode
from tli.models.base import find
from tli.data.batches import DataSettings, open_tokens
if __name__ == "__main__":
    encode._ALONE, encode._GROUP = 1, 2000
    def show(now):
        if now.tokens > 50_000:
            print("going", flush=True)
    open_tokens(DataSettings(), find("builtin:tiny-llama"), Path(sys.argv[1]), on_progress=show, workers=2)
"""


@pytest.mark.slow
def test_workers_go_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(KILLED)
    running = subprocess.Popen(
        [sys.executable, str(program), str(tmp_path / "cache")], stdout=subprocess.PIPE, text=True
    )
    assert running.stdout is not None
    assert running.stdout.readline() == "going\n"
    below = [pid for pid in descendants(running.pid) if pid != running.pid]
    assert len(below) >= 2
    running.send_signal(signal.SIGKILL)
    running.wait()
    until = time.monotonic() + 20
    while any(alive(pid) for pid in below) and time.monotonic() < until:
        time.sleep(0.05)
    assert not [pid for pid in below if alive(pid)]
    assert [path.name for path in (tmp_path / "cache").iterdir() if not path.name.startswith(".")] == []


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
