"""Downstream tasks without the harness: official files, names, shots, differences. The harness itself is imported
in tests/sweeps/test_evaluation.py alone, for that takes seconds.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from tests.kobest import write_kobest
from tli.cli.commands import main as run
from tli.errors import DataError
from tli.tasks import available
from tli.tasks.available import Wanted
from tli.tasks.checks import task_problems
from tli.tasks.kobest import KOBEST, documents, files_of
from tli.tasks.paired import mcnemar, paired_difference
from tli.tasks.scores import Metric, TaskScore, read_scores, write_scores


@pytest.fixture
def kobest(tmp_path: Path) -> Path:
    return write_kobest(tmp_path / "kobest", test=6, train=4)


def test_official_files_have_the_columns_and_labels_of_the_hub(kobest: Path) -> None:
    first = {name: documents(name, files_of(name, kobest)["test"])[:2] for name in KOBEST}
    assert [row["label"] for row in first["kobest_copa"]] == [0, 1]  # written as 1 and 2
    assert [row["label"] for row in first["kobest_boolq"]] == [0, 1]  # False, TRUE
    assert [row["label"] for row in first["kobest_wic"]] == [0, 1]
    assert set(first["kobest_copa"][0]) == {"premise", "question", "alternative_1", "alternative_2", "label"}
    assert set(first["kobest_hellaswag"][0]) == {"context", *(f"ending_{i}" for i in range(1, 5)), "label"}
    assert {len(documents(name, path)) for name in KOBEST for path in [files_of(name, kobest)["train"]]} == {
        4
    }


def test_quotes_are_those_of_a_cell_only_where_they_are_doubled_within(tmp_path: Path) -> None:
    lines = [
        "ID\tText\tQuestion\tAnswer",
        '1\t"국제시장"은 영화이다.\t"국제시장"은 책인가?\tFALSE',  # a sentence that begins with a quotation
        '2\t"그는 ""빙고""를 외쳤다."\t외쳤는가?\ttrue',
    ]
    path = tmp_path / "test.tsv"
    path.write_text("\ufeff" + "\r\n".join(lines) + "\r\n", encoding="utf-8")
    first, second = documents("kobest_boolq", path)
    assert first == {"paragraph": '"국제시장"은 영화이다.', "question": '"국제시장"은 책인가?', "label": 0}
    assert second["paragraph"] == '그는 "빙고"를 외쳤다.'
    assert second["label"] == 1


@pytest.mark.parametrize(
    ("text", "place", "got"),
    [
        ("sentence\tquestion\t1\t2\tAnswer\na\t원인\tb\tc\t0\n", ":2:1", "'0'"),
        ("sentence\tquestion\t1\t2\tAnswer\na\t원인\tb\tc\n", ":2:1", "cells"),
        ("sentence\tquestion\t1\tAnswer\n", ":1:1", "'2'"),
        ("sentence\tquestion\t1\t2\tAnswer\n", "test.tsv", "no rows"),
    ],
)
def test_files_of_another_kind_are_refused_at_their_line(
    text: str, place: str, got: str, tmp_path: Path
) -> None:
    (tmp_path / "test.tsv").write_text(text, encoding="utf-8")
    with pytest.raises(DataError) as raised:
        documents("kobest_copa", tmp_path / "test.tsv")
    (problem,) = raised.value.problems
    assert problem.where.endswith(place)
    assert got in problem.got


def test_all_that_is_wrong_with_local_tasks_is_said_at_once(kobest: Path) -> None:
    (kobest / "WiC" / "test.tsv").unlink()
    (kobest / "SentiNeg" / "train.tsv").unlink()
    (kobest / "SentiNeg" / "dev.tsv").unlink()
    wanted = Wanted(("kobest_copa", "kobest_wic", "kobest_sentineg"), shots=5, tasks_from=str(kobest))
    problems = {
        problem.got.partition(",")[0]: problem for problem in task_problems(wanted, "evaluation.tasks")
    }
    assert problems["5"].where == "evaluation.shots"
    assert problems["5"].remedy == "4"
    assert "WiC/" in problems["kobest_wic"].remedy  # what to download, and where to put it
    assert problems["kobest_sentineg"].remedy == "shots: 0"
    assert (
        task_problems(Wanted(("kobest",), shots=4, tasks_from=str(write_kobest(kobest, test=6, train=4))))
        == []
    )


def test_without_the_extra_it_says_what_to_install(
    kobest: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(available, "find_spec", lambda _name: None)
    given = ["--tasks", "kobest_cpa,kobest_copa", "--tasks-from", str(kobest), "--shots", "9"]
    assert run(["eval", "builtin:tiny-llama", *given]) == 2
    said = capsys.readouterr().err
    assert "tli-sweeps[eval]" in said
    assert "try kobest_copa" in said
    assert "--shots: got 9; expected at most 4" in said
    assert "Traceback" not in said


def test_amounts_that_make_no_sense_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["eval", "builtin:tiny-llama", "--tasks", ",", "--limit", "0", "--shots", "-1", "--json"]) == 2
    problems = json.loads(capsys.readouterr().out)["problems"]
    assert [problem["path"] for problem in problems] == ["--tasks", "--shots", "--limit"]


def test_the_paired_interval_covers_what_it_should() -> None:
    """Of 150 pairs of models with a known difference, the 95 % interval has it in 89 to 99 %."""
    covered = 0
    for seed in range(150):
        draw = random.Random(seed)
        skill = [draw.random() for _ in range(80)]
        ours = [float(draw.random() < min(1.0, s + 0.05 * (1 - s))) for s in skill]
        theirs = [float(draw.random() < s) for s in skill]
        found = paired_difference([ours], [theirs])
        assert found is not None
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= sum(0.05 * (1 - s) for s in skill) / 80 <= found.high
    assert 0.89 <= covered / 150 <= 0.99


def test_documents_that_never_differ_have_no_interval() -> None:
    found = paired_difference([[1.0, 0.0, 1.0]], [[1.0, 0.0, 1.0]])
    assert found is not None
    assert (found.mean, found.low, found.significant, found.p) == (0.0, None, False, 1.0)
    assert paired_difference([[1.0, 0.0]], [[1.0]]) is None  # other documents
    several = paired_difference([[1.0, 0.0], [1.0, 1.0]], [[0.0, 0.0], [1.0, 0.0]])
    assert several is not None
    assert (several.mean, several.runs, several.p) == (0.5, 2, None)


def test_mcnemar_is_the_exact_one() -> None:
    assert mcnemar(0, 5) == pytest.approx(2 / 2**5)
    assert mcnemar(3, 3) == 1.0
    assert mcnemar(1, 9) == pytest.approx(2 * (1 + 10) / 2**10)


def test_scores_on_disk_belong_to_one_model(tmp_path: Path) -> None:
    score = TaskScore("t", 0, None, {"acc": Metric(0.5, 0.1)}, {"acc": (0.0, 1.0)}, 0.5, "abc", 1.0)
    write_scores(tmp_path / "t.json", score, "one")
    assert read_scores(tmp_path / "t.json", "one") == score
    assert read_scores(tmp_path / "t.json", "another") is None
    (tmp_path / "t.json").write_text((tmp_path / "t.json").read_text()[:40])
    assert read_scores(tmp_path / "t.json", "one") is None
