from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from tli.data import split
from tli.data.corpus import Document
from tli.data.dataset import Source
from tli.data.settings import DataSettings
from tli.data.split import always_trained, stretches, two_sides
from tli.errors import DataError


def documents(count: int, *, repeated: int = 1) -> list[Document]:
    return [Document(f"{number}", f"text {number // repeated}") for number in range(count)]


def held(docs: list[Document], fraction: float) -> list[str]:
    return [doc.name for heldout, doc in two_sides(lambda: docs, fraction) if heldout]


@pytest.mark.parametrize("most", [10, 10_000])
def test_sides_do_not_depend_on_the_order_with_few_texts_or_many(
    most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(split, "MOST", most)
    docs = documents(2000, repeated=2)
    names = held(docs, 0.1)
    assert set(names) == set(held(docs[::-1], 0.1))
    assert set(names) == set(held(sorted(docs, key=lambda doc: doc.text), 0.1))
    assert 140 < len(names) < 260
    for name in names:
        assert str(int(name) ^ 1) in names, "equal documents are on one side"
    assert set(names) <= set(held(docs, 0.3))


def test_many_texts_are_not_read_to_the_end_for_their_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(split, "MOST", 10)
    seen: list[int] = []

    def read() -> Iterator[Document]:
        for number in range(1000):
            seen.append(number)
            yield Document(str(number), f"text {number}")

    next(two_sides(read, 0.1))
    assert len(seen) == 12  # eleven to know that there are more than ten, and the first


def test_more_text_than_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """200 MB of documents pass; what is kept of them is some bytes each."""

    def read() -> Iterator[Document]:
        for number in range(2000):
            yield Document(str(number), f"{number}" + "x" * 100_000)

    tracemalloc.start()
    sides = [heldout for heldout, _ in two_sides(read, 0.1)]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (len(sides), sum(sides)) == (2000, 200)
    assert peak < 5e6


def write(path: Path, texts: list[str]) -> str:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return str(path)


def test_shared_documents_are_counted_and_named(tmp_path: Path) -> None:
    train = write(tmp_path / "train.jsonl", [f"text {number}" for number in range(100)])
    heldout = write(tmp_path / "heldout.jsonl", ["own", "text 7", "text 99", "text 7", "text 100"])
    settings = DataSettings(source=train, heldout=heldout)
    first, _ = stretches(settings)
    with pytest.raises(DataError) as caught:
        list(first.documents)
    (problem,) = caught.value.problems
    assert problem.where == "data.heldout"
    assert problem.got == f"3 documents that are also trained on, first '{heldout}:2' = '{train}:8'"


def test_a_single_long_document_is_cut_without_being_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tli.data.corpus._HELD", 100)
    text = "".join(f"{number} é\n" for number in range(1000))
    (tmp_path / "a.txt").write_text(text)
    (stretch,) = stretches(DataSettings(source=str(tmp_path / "a.txt"), heldout_fraction=0.25))
    (_, train), (side, end) = stretch.documents
    assert side
    cut = len(text) - len(text) // 4
    assert "".join(train.chunks()) == text[:cut]
    assert "".join(end.chunks()) == text[cut:]


@pytest.mark.parametrize("fraction", [0.01, 0.2, 0.5])
def test_what_is_always_trained_on_is_never_held_out(tmp_path: Path, fraction: float) -> None:
    path = write(tmp_path / "a.jsonl", [f"text {number}" for number in range(300)])
    always = [doc.text for doc in always_trained(Source(path))]
    (stretch,) = stretches(DataSettings(source=path, heldout_fraction=fraction))
    assert not {doc.text for heldout, doc in stretch.documents if heldout} & set(always)
    assert len(always) == 150


def test_what_is_always_trained_on_of_one_text_many_times(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", ["same"] * 3)
    assert [doc.text for doc in always_trained(Source(path))] == ["same"] * 3
