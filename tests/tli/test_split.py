from __future__ import annotations

import json
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tli.data import split
from tli.data.corpus import Document
from tli.data.dataset import Source
from tli.data.settings import DataSettings
from tli.data.sides import SIDES
from tli.data.split import always_trained, stretches, three_sides
from tli.errors import DataError


def documents(count: int, *, repeated: int = 1) -> list[Document]:
    return [Document(f"{number}", f"text {number // repeated}") for number in range(count)]


def held(docs: list[Document], fraction: float) -> list[str]:
    return [doc.name for side, doc in three_sides(lambda: docs, fraction) if side != "train"]


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

    next(three_sides(read, 0.1))
    assert len(seen) == 12  # eleven to know that there are more than ten, and the first


def test_more_text_than_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """200 MB of documents pass; what is kept of them is some bytes each."""

    def read() -> Iterator[Document]:
        for number in range(2000):
            yield Document(str(number), f"{number}" + "x" * 100_000)

    tracemalloc.start()
    sides = Counter(side for side, _ in three_sides(read, 0.1))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sides == {"train": 1800, "heldout": 100, "test": 100}
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
    sides = {side: "".join(document.chunks()) for side, document in stretch.documents}
    cut, half = len(text) - len(text) // 4, len(text) // 8
    assert sides == {"train": text[:cut], "heldout": text[cut : cut + half], "test": text[cut + half :]}


def test_half_of_what_is_not_trained_on_is_test_text_whatever_the_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docs = documents(400, repeated=2)
    for most in (10, 10_000):
        monkeypatch.setattr(split, "MOST", most)
        by_side = {
            side: {doc.text for each, doc in three_sides(lambda: docs, 0.2) if each == side} for side in SIDES
        }
        again = {
            side: {doc.text for each, doc in three_sides(lambda: docs[::-1], 0.2) if each == side}
            for side in SIDES
        }
        assert by_side == again
        assert len(set.union(*by_side.values())) == sum(map(len, by_side.values())) == 200
        assert 12 <= len(by_side["test"]) <= 28
        assert 12 <= len(by_side["heldout"]) <= 28


@pytest.mark.parametrize("count", [1, 2, 3, 50])
def test_text_that_is_held_out_alone_has_two_halves(tmp_path: Path, count: int) -> None:
    train, own = write(tmp_path / "a.jsonl", ["one", "two"]), [f"text number {each}" for each in range(count)]
    heldout = write(tmp_path / "b.jsonl", own)
    _, stretch = stretches(DataSettings(source=train, heldout=heldout))
    sides: dict[str, list[str]] = {"heldout": [], "test": []}
    for side, document in stretch.documents:
        sides[side].append("".join(document.chunks()))
    if count == 1:
        assert sides == {"heldout": ["text n"], "test": ["umber 0"]}
    else:
        assert sorted(sides["heldout"] + sides["test"]) == sorted(own)
        assert abs(len(sides["heldout"]) - len(sides["test"])) <= 1
    assert all(sides.values())


@pytest.mark.parametrize("fraction", [0.01, 0.2, 0.5])
def test_what_is_always_trained_on_is_never_held_out(tmp_path: Path, fraction: float) -> None:
    path = write(tmp_path / "a.jsonl", [f"text {number}" for number in range(300)])
    always = [doc.text for doc in always_trained(Source(path))]
    (stretch,) = stretches(DataSettings(source=path, heldout_fraction=fraction))
    assert not {doc.text for side, doc in stretch.documents if side != "train"} & set(always)
    assert len(always) == 150


def test_what_is_always_trained_on_of_one_text_many_times(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", ["same"] * 3)
    assert [doc.text for doc in always_trained(Source(path))] == ["same"] * 3
