from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.forked import forked
from tli.data import corpus, tokenise
from tli.data.amounts import amounts
from tli.data.batches import Batches, Tokens, open_tokens, tokens_ready
from tli.data.corpus import Document
from tli.data.encode import Encoder
from tli.data.settings import DataSettings
from tli.data.sides import SIDES
from tli.data.sources import source_problems
from tli.data.split import three_sides
from tli.errors import CheckpointError, DataError, InputError
from tli.models.base import Base, find
from tli.models.loading import load_tokenizer

Tiny = Callable[[str], Path]
Save = Callable[..., Path]
END = 256


@pytest.fixture
def base(tiny_model: Tiny) -> Base:
    return find(str(tiny_model("llama")))


@pytest.fixture
def own(tiny_model: Tiny, tmp_path: Path) -> Path:
    """A model folder that a test may change."""
    return Path(shutil.copytree(tiny_model("llama"), tmp_path / "model"))


def write(path: Path, texts: Iterable[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


def data(source: Path, **values: object) -> DataSettings:
    return replace(DataSettings(source=str(source), sequence_length=8), **values)  # type: ignore[arg-type]


def refused(error: type[InputError], settings: DataSettings, base: Base, cache: Path) -> str:
    with pytest.raises(error) as caught:
        open_tokens(settings, base, cache)
    assert not [path for path in cache.iterdir() if path.name != ".lock"], "something was left behind"
    return str(caught.value)


def texts(ids: np.ndarray, base: Base) -> list[str]:
    """The documents of one side, out of its tokens."""
    ends = np.flatnonzero(ids == END)
    parts = np.split(np.asarray(ids), ends + 1)
    assert len(parts[-1]) == 0, "no end of text after the last document"
    tokenizer = load_tokenizer(base.folder)
    return [tokenizer.decode(part[:-1].tolist()) for part in parts[:-1]]


# -- token files ----------------------------------------------------------------------------------------------


def test_tokens_are_the_text(base: Base, tmp_path: Path) -> None:
    written = [f"document {number} é" for number in range(40)]
    tokens = open_tokens(data(write(tmp_path / "a.jsonl", written)), base, tmp_path / "cache")
    train, heldout, test = (texts(ids, base) for ids in (tokens.train, tokens.heldout, tokens.test))
    assert sorted(train + heldout + test) == sorted(written)
    assert (len(heldout), len(test)) == (1, 1)
    size = sum(len(text.encode()) for text in heldout)
    assert tokens.bytes_per_token == size / len(tokens.heldout)
    assert tokens.train.dtype == np.uint16


def test_tokens_are_what_transformers_gives(base: Base, own: Path) -> None:
    """Also of a tokenizer that was saved with a length to cut and to fill to."""
    plain = load_tokenizer(base.folder)
    written = ["abc", "é" * 50, "x<|end|>y", "  two\n\nlines"]
    expected = [plain(text, add_special_tokens=False)["input_ids"] for text in written]
    assert Encoder(plain, base.folder, "uint16").ids(written) == expected
    cutting = json.loads((own / "tokenizer.json").read_text())
    cutting["truncation"] = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    cutting["padding"] = {
        "strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": None,
        "pad_id": 0, "pad_type_id": 0, "pad_token": "!",
    }  # fmt: skip
    (own / "tokenizer.json").write_text(json.dumps(cutting))
    assert Encoder(load_tokenizer(own), own, "uint16").ids(written) == expected


def test_the_digest_is_of_all_sides(base: Base, tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", "abcdefgh")
    tokens = open_tokens(data(source), base, tmp_path / "cache")
    content = b"".join((tokens.folder / f"{side}.bin").read_bytes() for side in SIDES)
    assert tokens.digest == hashlib.sha256(content).hexdigest()
    # The same text elsewhere, under another name, and read in other batches, has the same one.
    shutil.copy(source, tmp_path / "b.jsonl")
    again = open_tokens(data(tmp_path / "b.jsonl", sequence_length=16), base, tmp_path / "other")
    assert again.folder.name != tokens.folder.name
    assert again.digest == tokens.digest
    write(source, "abcdefgi")
    assert open_tokens(data(source), base, tmp_path / "cache").digest != tokens.digest


def test_token_files_are_made_once(base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = data(write(tmp_path / "a.jsonl", "abcdefgh"))
    cache = tmp_path / "cache"
    assert not tokens_ready(settings, base, cache)
    first = open_tokens(settings, base, cache)
    assert tokens_ready(settings, base, cache)
    inode = (first.folder / "train.bin").stat().st_ino
    monkeypatch.chdir(tmp_path)
    for same in (settings, replace(settings, source="a.jsonl"), replace(settings, eval_tokens=1)):
        assert open_tokens(same, base, cache).folder == first.folder
    assert (first.folder / "train.bin").stat().st_ino == inode


def cut_short(folder: Path) -> None:
    (folder / "train.bin").write_bytes((folder / "train.bin").read_bytes()[:-2])


def without_digest(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["digest"]
    (folder / "manifest.json").write_text(json.dumps(manifest))


def half_a_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text("{")


def no_side(folder: Path) -> None:
    (folder / "heldout.bin").unlink()


@pytest.mark.parametrize("harm", [cut_short, without_digest, half_a_manifest, no_side])
def test_token_files_that_are_not_whole_are_made_again(
    base: Base, tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    settings, cache = data(write(tmp_path / "a.jsonl", "abcdefgh")), tmp_path / "cache"
    tokens = open_tokens(settings, base, cache)
    before = [np.array(side) for side in (tokens.train, tokens.heldout, tokens.test)]
    harm(tokens.folder)
    assert not tokens_ready(settings, base, cache)
    again = open_tokens(settings, base, cache)
    assert again.folder == tokens.folder
    assert again.digest == tokens.digest
    for old, new in zip(before, (again.train, again.heldout, again.test), strict=True):
        np.testing.assert_array_equal(old, new)


def test_what_changes_the_tokens_changes_their_name(base: Base, own: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    a, b = (write(tmp_path / f"{name}.jsonl", letters) for name, letters in (("a", "abcd"), ("b", "efgh")))
    seen = []

    def note(settings: DataSettings, base: Base) -> None:
        seen.append(open_tokens(settings, base, cache).folder.name)

    note(data(a), base)
    note(data(a, heldout_fraction=0.5), base)
    note(data(a, heldout=str(b)), base)
    note(data(b, heldout=str(a)), base)
    c = write(tmp_path / "c.jsonl", "ij")
    note(data(tmp_path / "[ab].jsonl", heldout=str(c)), base)
    note(data(a, heldout=str(tmp_path / "[bc].jsonl")), base)
    os.utime(a, (1, 1))
    note(data(a), base)
    tokenizer = json.loads((own / "tokenizer.json").read_text())
    tokenizer["pre_tokenizer"]["use_regex"] = False
    (own / "tokenizer.json").write_text(json.dumps(tokenizer))
    note(data(a), find(str(own)))
    (own / "special_tokens_map.json").write_text('{"eos_token": "<|end|>"}')
    note(data(a), find(str(own)))
    assert len(set(seen)) == len(seen)


def test_a_dataset_folder_that_changes_is_tokenised_again(base: Base, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    folder, cache = tmp_path / "saved", tmp_path / "cache"
    seen = []
    for letters in ("abcdefgh", "abcdefgi"):
        datasets.Dataset.from_dict({"text": list(letters)}).save_to_disk(str(folder))
        seen.append(open_tokens(data(folder), base, cache))
    assert seen[0].folder != seen[1].folder
    found = [text for ids in (seen[1].train, seen[1].heldout, seen[1].test) for text in texts(ids, base)]
    assert sorted(found) == list("abcdefgi")
    assert open_tokens(data(folder), base, cache).folder == seen[1].folder


def make_tokens(folder: Path, source: Path, cache: Path) -> None:
    tokens = open_tokens(DataSettings(source=str(source)), find(str(folder)), cache)
    print((tokens.folder / "train.bin").stat().st_ino, tokens.digest)


def test_processes_that_start_together_make_one(base: Base, tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", (f"text {number}" for number in range(50)))
    with contextlib.ExitStack() as stack:
        given = (base.folder, source, tmp_path / "cache")
        running = [stack.enter_context(forked(make_tokens, *given, folder=tmp_path)) for _ in range(2)]
        answers = {process.communicate(timeout=60)[0] for process in running}
    assert [process.returncode for process in running] == [0, 0]
    assert len(answers) == 1


# -- tokenizers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model_type", ["llama", "gpt2"])
def test_a_base_without_a_tokenizer(tiny_model: Tiny, tmp_path: Path, model_type: str) -> None:
    """For gpt2, transformers makes one up that gives nothing for any text."""
    own = tmp_path / "model"
    shutil.copytree(tiny_model(model_type), own, ignore=shutil.ignore_patterns("*token*"))
    settings = data(write(tmp_path / "a.jsonl", "abcdefgh"))
    message = refused(CheckpointError, settings, find(str(own)), tmp_path / "cache")
    assert message.startswith(f"{own}: got no tokenizer")
    assert message.endswith(
        "expected the model's tokenizer beside its weights; try copying tokenizer.json of the original"
    )


def test_a_broken_tokenizer(own: Path, tmp_path: Path) -> None:
    (own / "tokenizer.json").write_text("{")
    settings = data(write(tmp_path / "a.jsonl", "abcdefgh"))
    message = refused(CheckpointError, settings, find(str(own)), tmp_path / "cache")
    assert message.startswith(f"{own}: got no tokenizer that can be loaded (")


def test_a_tokenizer_of_another_model(save_model: Save, tmp_path: Path) -> None:
    ends = {"bos_token_id": 0, "eos_token_id": 0}
    model = save_model(tmp_path / "model", vocab_size=200, **ends)
    source = write(tmp_path / "a.jsonl", "abcdefgh")
    message = refused(CheckpointError, data(source), find(str(model)), tmp_path / "cache")
    assert message == (
        f"{model}: got a tokenizer that gives the id 256; expected ids below 200, the model's vocabulary; "
        "try the tokenizer that the model was made with"
    )
    larger = save_model(tmp_path / "larger", vocab_size=300)
    open_tokens(data(source), find(str(larger)), tmp_path / "cache")
    with pytest.raises(CheckpointError):  # what was made for a model with room for them is none of its own
        open_tokens(data(source), find(str(model)), tmp_path / "cache")


def test_ids_above_16_bits_are_kept(save_model: Save, tmp_path: Path) -> None:
    ends = {"bos_token_id": 0, "eos_token_id": 0, "hidden_size": 8, "intermediate_size": 8}
    model = save_model(tmp_path / "model", vocab_size=70_000, **ends)
    tokenizer = json.loads((model / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"]["a"] = 69_999
    (model / "tokenizer.json").write_text(json.dumps(tokenizer))
    tokens = open_tokens(
        data(write(tmp_path / "a.jsonl", ["aa", "bb"] * 2)), find(str(model)), tmp_path / "cache"
    )
    assert max(tokens.train.max(), tokens.heldout.max()) == 69_999


def test_a_tokenizer_without_a_model_is_enough(own: Path, tmp_path: Path) -> None:
    """The built-in base is trained on tokens of a tokenizer that has no model yet."""
    for path in [*own.glob("*.safetensors"), own / "config.json"]:
        path.unlink()
    base = Base("new", own)
    tokens = open_tokens(data(write(tmp_path / "a.jsonl", "abcdefgh")), base, tmp_path / "cache")
    assert [len(ids) for ids in (tokens.train, tokens.heldout, tokens.test)] == [12, 2, 2]


# -- the split ------------------------------------------------------------------------------------------------


def split(docs: list[Document], fraction: float) -> tuple[list[Document], list[Document]]:
    sides = list(three_sides(lambda: docs, fraction))
    train = [doc for side, doc in sides if side == "train"]
    return train, [doc for side, doc in sides if side == "heldout" or (side == "test" and not doc.start)]


@given(
    st.lists(st.text("ab", min_size=2, max_size=3), min_size=2, max_size=30),
    st.floats(0.01, 0.9),
    st.randoms(use_true_random=False),
)
@settings(max_examples=200, deadline=None)
def test_no_text_is_on_both_sides_whatever_the_order(
    written: list[str], fraction: float, random: object
) -> None:
    docs = [Document(str(number), text) for number, text in enumerate(written)]
    if len(set(written)) == 1:
        with pytest.raises(DataError):
            split(docs, fraction)
        return
    train, heldout = split(docs, fraction)
    assert train
    assert heldout
    assert not {doc.text for doc in train} & {doc.text for doc in heldout}
    assert sorted(doc.name for doc in train + heldout) == sorted(doc.name for doc in docs)
    enough = len(heldout) >= round(fraction * len(docs))
    assert enough or len({doc.text for doc in train}) == 1  # one text must be left to train on
    random.shuffle(docs)  # type: ignore[attr-defined]
    again = split(docs, fraction)
    for side, other in zip((train, heldout), again, strict=True):
        assert {doc.name for doc in side} == {doc.name for doc in other}


def test_a_share_of_different_documents_is_held_out_exactly() -> None:
    docs = [Document(str(number), f"text {number}") for number in range(200)]
    train, heldout = split(docs, 0.05)
    assert (len(train), len(heldout)) == (190, 10)
    more = split(docs, 0.1)[1]
    assert set(heldout) < set(more)


def test_a_single_document_is_cut_and_its_end_held_out(base: Base, tmp_path: Path) -> None:
    text = "".join(chr(97 + number % 26) for number in range(100))
    (tmp_path / "a.txt").write_text(text)
    tokens = open_tokens(data(tmp_path / "a.txt", heldout_fraction=0.2), base, tmp_path / "cache")
    assert texts(tokens.train, base) == [text[:80]]
    assert texts(tokens.heldout, base) == [text[80:90]]
    assert texts(tokens.test, base) == [text[90:]]


def test_documents_that_are_all_the_same(base: Base, tmp_path: Path) -> None:
    settings = data(write(tmp_path / "a.jsonl", ["same"] * 9))
    assert refused(DataError, settings, base, tmp_path / "cache") == (
        "data.source: got 9 documents that are all the same; expected documents that differ; "
        "try data.heldout: TEXT OF ITS OWN"
    )


def test_nothing_but_blanks(base: Base, tmp_path: Path) -> None:
    settings = data(write(tmp_path / "a.jsonl", ["", " ", "\n"]))
    assert refused(DataError, settings, base, tmp_path / "cache") == (
        "data.source: got no text; expected text; try another source\n"
        "data.heldout: got no text; expected text; try another source"
    )


def test_held_out_text_of_its_own(base: Base, tmp_path: Path) -> None:
    train = write(tmp_path / "train.jsonl", ["one", "two", "two"])
    heldout = write(tmp_path / "heldout.jsonl", ["three", "four"])
    tokens = open_tokens(data(train, heldout=str(heldout)), base, tmp_path / "cache")
    assert texts(tokens.train, base) == ["one", "two", "two"]
    assert sorted(texts(tokens.heldout, base) + texts(tokens.test, base)) == ["four", "three"]


def test_a_document_on_both_sides_is_refused(base: Base, tmp_path: Path) -> None:
    train = write(tmp_path / "train.jsonl", ["one", "two"])
    heldout = write(tmp_path / "heldout.jsonl", ["three", "two", "two"])
    assert refused(DataError, data(train, heldout=str(heldout)), base, tmp_path / "cache") == (
        f"data.heldout: got 2 documents that are also trained on, first '{heldout}:2' = '{train}:2'; "
        "expected text of its own; try remove them from one side"
    )


def test_a_file_on_both_sides_is_refused_before_it_is_read(tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text(name)
    (tmp_path / "link.txt").symlink_to(tmp_path / "b.txt")
    (problem,) = source_problems(data(tmp_path / "[ab].txt", heldout=str(tmp_path / "link.txt")))
    assert str(problem).startswith(f"data.heldout: got '{tmp_path}/b.txt', which is also trained on")


# -- windows and batches --------------------------------------------------------------------------------------


def batches(tokens: int = 101, *, seed: int = 0, rows: int = 3) -> Batches:
    return Batches(np.arange(tokens, dtype=np.uint16), 8, rows, seed)


def test_every_window_once_an_epoch_across_its_boundary() -> None:
    """12 windows in batches of 5: the third batch ends one epoch and begins another."""
    made = batches(rows=5)
    starts = [int(row[0]) for step in range(12) for row in made[step]]
    every = set(range(0, 96, 8))
    epochs = [starts[first : first + 12] for first in range(0, 60, 12)]
    assert all(set(epoch) == every for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 5
    for row in made[2]:
        np.testing.assert_array_equal(row, np.arange(row[0], row[0] + 9))
    assert made[2].dtype == np.int64
    assert made[2].shape == (5, 9)


def test_batches_are_a_function_of_seed_and_step() -> None:
    first, same, other = batches(), batches(), batches(seed=1)
    in_order = [first[step] for step in range(9)]
    for step in (8, 0, 5):  # whatever was asked for before
        np.testing.assert_array_equal(same[step], in_order[step])
    assert any((other[step] != in_order[step]).any() for step in range(9))


def test_text_too_short_for_a_batch() -> None:
    assert len(batches(25)[0]) == 3
    with pytest.raises(DataError, match=r"^data.source: got 24 tokens; expected at least 25; try more text"):
        batches(24)


def test_held_out_windows_are_spread_and_do_not_overlap(base: Base, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("".join(chr(33 + number % 90) for number in range(800)))
    tokens: Tokens = open_tokens(data(tmp_path / "a.txt", heldout_fraction=0.5), base, tmp_path / "cache")
    assert len(tokens.heldout) == 201
    every = tokens.heldout_windows(sequence_length=8, eval_tokens=10**6)
    assert every.shape == (25, 9)
    np.testing.assert_array_equal(every[:, :-1].flatten(), tokens.heldout[:200])
    np.testing.assert_array_equal(every[:, 1:].flatten(), tokens.heldout[1:])
    few = tokens.heldout_windows(sequence_length=8, eval_tokens=24)
    np.testing.assert_array_equal(few, every[[0, 12, 24]])
    assert tokens.heldout_windows(sequence_length=200, eval_tokens=1).shape == (1, 201)
    with pytest.raises(DataError, match=r"^data.heldout: got 201 tokens; expected at least 202"):
        tokens.heldout_windows(sequence_length=201, eval_tokens=1)


# -- a limit, progress, several processes ---------------------------------------------------------------------


def many(path: Path, count: int = 400) -> Path:
    return write(path, (f"document {number} " + "word " * (number % 50) for number in range(count)))


def test_a_limit_ends_the_training_side(base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tli.data.encode._GROUP", 500)
    source = many(tmp_path / "a.jsonl")
    whole = open_tokens(data(source), base, tmp_path / "cache")
    read = []
    documents = corpus.documents
    monkeypatch.setattr(
        corpus, "documents", lambda *given: (read.append(doc.name) or doc for doc in documents(*given))
    )
    some = open_tokens(data(source, max_tokens=3001), base, tmp_path / "cache")
    assert some.folder != whole.folder
    np.testing.assert_array_equal(some.train, whole.train[:3001])
    # Of the held-out side as much as goes with that, of the same documents.
    assert len(some.heldout) + len(some.test) >= 3001 * 0.05 / 0.95
    assert len(some.heldout) + len(some.test) < len(whole.heldout) * 1.2
    np.testing.assert_array_equal(some.heldout, whole.heldout[: len(some.heldout)])
    np.testing.assert_array_equal(some.test, whole.test[: len(some.test)])
    assert len(read) < 400 + 200, "the rest was not read a second time"
    # More than there is changes nothing; held-out text of its own is read whole.
    more = open_tokens(data(source, max_tokens=10**9), base, tmp_path / "cache")
    assert more.digest == whole.digest
    own = write(tmp_path / "own.jsonl", ["held out", "too"])
    held = open_tokens(data(source, heldout=str(own), max_tokens=3001), base, tmp_path / "cache")
    assert len(held.train) == 3001
    assert sorted(texts(held.heldout, base) + texts(held.test, base)) == ["held out", "too"]


def test_processes_make_the_token_files_of_one(
    base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tli.data.encode._GROUP", 500)
    monkeypatch.setattr("tli.data.encode._ALONE", 2)
    settings = data(many(tmp_path / "a.jsonl"), max_tokens=9000)
    alone, several = (open_tokens(settings, base, tmp_path / str(n), workers=n) for n in (1, 2))
    for name in ("train.bin", "heldout.bin", "test.bin", "manifest.json"):
        assert (alone.folder / name).read_bytes() == (several.folder / name).read_bytes()


def test_progress_is_told_and_may_end_the_work(
    base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tli.data.encode._GROUP", 500)
    monkeypatch.setattr(tokenise, "_OFTEN", 0.0)
    settings, told = data(many(tmp_path / "a.jsonl")), []
    made = open_tokens(settings, base, tmp_path / "cache", on_progress=told.append)
    assert told[-1].tokens == len(made.train) + len(made.heldout) + len(made.test)
    shares = [each.share for each in told]
    assert shares == sorted(shares)
    assert shares[0] == 0.0
    assert shares[-1] == pytest.approx(1.0)

    def enough(now: tokenise.Progress) -> None:
        if now.tokens > 500:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        open_tokens(settings, base, tmp_path / "other", on_progress=enough)
    assert [path.name for path in (tmp_path / "other").iterdir()] == [".lock"]


@pytest.mark.parametrize(
    ("files", "settings"),
    [
        (["one document of some words"], {}),
        ([f"file {number} " * 50 for number in range(5)], {}),
        ([f"file {number}" for number in range(200)], {"heldout_fraction": 0.3, "max_tokens": 900}),
        (["one", "two", "three"], {"heldout": "own.txt"}),
    ],
)
def test_a_small_text_is_counted_as_its_token_files_will_be(
    base: Base, tmp_path: Path, files: list[str], settings: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.txt").write_text("text of its own")
    for number, text in enumerate(files):
        (tmp_path / f"{number:03}.md").write_text(text)
    given = data(tmp_path / "*.md", **settings)
    found, made = amounts(given, base), open_tokens(given, base, tmp_path / "cache")
    assert found is not None
    assert found.counted
    assert found.train == len(made.train)
    if given.max_tokens is None:
        assert (found.heldout, found.test) == (len(made.heldout), len(made.test))


def test_a_larger_text_is_estimated(base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tli.data.amounts._COUNTED", 100)
    monkeypatch.setattr("tli.data.amounts._SAMPLE", 2000)
    given = data(many(tmp_path / "a.jsonl"), heldout_fraction=0.2)
    found, made = amounts(given, base), open_tokens(given, base, tmp_path / "cache")
    assert found is not None
    assert not found.counted
    assert found.train == pytest.approx(len(made.train), rel=0.2)
    assert found.heldout + found.test == pytest.approx(len(made.heldout) + len(made.test), rel=0.3)
    assert amounts(replace(given, source="owner/name"), base) is None
