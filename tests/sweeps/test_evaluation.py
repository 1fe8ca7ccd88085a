"""Downstream tasks of a sweep, with the real harness on tiny files: equal to it by hand, in the ledger, resumed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest

from sweeps.__main__ import main
from sweeps.cli import documents
from sweeps.driver.promoting import promote
from sweeps.driver.promotion_plan import Where, Wish, plan_promotion
from sweeps.driver.service import run
from sweeps.driver.single import assignment_of
from sweeps.errors import PreemptedError
from sweeps.folders import Folders
from sweeps.records import Role
from sweeps.report.tasks import task_lines, tasks_text
from sweeps.results.sweep import Sweep
from sweeps.results.tasks import tasks_of
from sweeps.spec import Spec, load_spec
from sweeps.task_scores import FOLDER
from sweeps.worker.saving import SCORING
from sweeps.worker.trial import WorkerContext, for_workers, run_trial
from tests.kobest import real_kobest, write_kobest
from tests.ranks import on_ranks
from tests.sweeps.conftest import SPEC, Silent, copied
from tests.sweeps.rank_scores import scored_by
from tli.models.base import find
from tli.tasks.available import Wanted
from tli.tasks.kobest import KOBEST, files_of
from tli.tasks.kobest import documents as rows_of
from tli.tasks.sizes import size_of

_TASKS = "evaluation: {{tasks: [{tasks}], shots: {shots}, limit: {limit}, tasks_from: {kobest}}}\n"


def write(
    root: Path, model: Path, kobest: Path, *, tasks: str = "kobest_copa", shots: int = 1, limit: Any = 6
) -> str:
    text = root / "text.txt"
    text.write_text("".join(f"{n} bottles of beer on the wall, {n} bottles of beer.\n" for n in range(200)))
    given = {"model": model, "text": text, "trials": 3, "study": "sqlite", "tracking": "null"}
    spec = SPEC.format(name="scored", runs=root / "runs", **given).replace("matched: false", "matched: true")
    path = root / "scored.yaml"
    path.write_text(spec + _TASKS.format(tasks=tasks, shots=shots, limit=limit, kobest=kobest))
    return str(path)


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, tiny_model: Callable[[str], Path]) -> Sweep:
    root = tmp_path_factory.mktemp("scored")
    kobest = write_kobest(root / "kobest", test=8, train=4)
    return run(load_spec(write(root, tiny_model("llama"), kobest)), Silent(), runner="inline")


def by_hand(
    model: Path, kobest: Path, scratch: Path, name: str, shots: int, limit: int | None
) -> dict[str, Any]:
    """The harness on a folder, as its own documentation has it, with a task file made by hand."""
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    files = {}
    for split, path in files_of(name, kobest).items():
        files[split] = str(scratch / f"{name}-{split}.jsonl")
        Path(files[split]).write_text("".join(json.dumps(row) + "\n" for row in rows_of(name, path)))
    official = Path(lm_eval.__file__).parent / "tasks" / "kobest" / f"{name}.yaml"
    extra = "  - {metric: acc_norm, aggregation: mean}\n" if name == "kobest_hellaswag" else ""
    (scratch / f"{name}.yaml").write_text(
        f"include: {official}\ntask: {name}\ndataset_path: json\ndataset_name: null\n"
        f"dataset_kwargs: {{data_files: {json.dumps(files)}, cache_dir: {scratch / 'cache'}}}\n"
        f"metric_list:\n  - {{metric: acc, aggregation: mean}}\n{extra}"
        "  - {metric: f1, aggregation: !function lm_eval.tasks.kobest.utils.macro_f1_score}\n"
    )
    found = lm_eval.simple_evaluate(
        model=HFLM(pretrained=str(model), device="cpu", dtype="float32", batch_size=4),
        tasks=[name],
        num_fewshot=shots,
        limit=limit,
        task_manager=TaskManager(include_path=str(scratch), include_defaults=False),
    )
    documents = [sample["acc"] for sample in found["samples"][name]]
    return {**found["results"][name], "documents": documents}


def test_scores_are_those_of_the_harness_by_hand(
    swept: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "lm_eval.evaluator.add_env_info", lambda _results: None
    )  # asks the machine for versions
    trial = next(record for record in swept.records if record.role is Role.MATCHED)  # whose model is kept
    swept.export(tmp_path / "model", trial=trial.number)
    kobest = Path(str(swept.spec.evaluation.tasks_from))
    hand = by_hand(tmp_path / "model", kobest, tmp_path, "kobest_copa", 1, 6)
    ours = trial.tasks["kobest_copa"]
    assert ours.metrics["acc"].value == hand["acc,none"]
    assert ours.metrics["acc"].stderr == hand["acc_stderr,none"]
    assert ours.metrics["f1"].value == hand["f1,none"]
    kept = json.loads((swept.folders.trial(trial.number) / FOLDER / "kobest_copa.json").read_text())
    assert kept["documents"]["acc"] == hand["documents"]
    assert (ours.count, ours.chance) == (6, 0.5)


def test_fresh_runs_their_controls_and_the_base_are_scored_and_nothing_else(swept: Sweep) -> None:
    scored = Counter(record.role for record in swept.records if record.tasks)
    assert scored[Role.REPLICATE] == sum(record.role is Role.REPLICATE for record in swept.records)
    assert scored[Role.MATCHED] == sum(record.role is Role.MATCHED for record in swept.records) > 0
    assert scored[Role.EVALUATION] == 1
    assert set(scored) == {Role.REPLICATE, Role.MATCHED, Role.EVALUATION}
    (base,) = [record for record in swept.records if record.role is Role.EVALUATION]
    assert (base.steps, base.loss, base.original) == (0, swept.records[0].initial_loss, True)
    spent = swept.verdict.spent
    assert spent.tokens_of_search + spent.tokens_saved == 3 * 512
    assert swept.ledger.finished


def test_plain_optuna_reads_each_number(swept: Sweep) -> None:
    study = optuna.load_study(study_name="scored", storage=swept.spec.study_url)
    replicate = next(record for record in swept.records if record.role is Role.REPLICATE)
    attributes = study.trials[replicate.number].user_attrs
    score = replicate.tasks["kobest_copa"].metrics["acc"]
    assert attributes["kobest_copa acc"] == score.value
    assert attributes["kobest_copa acc_stderr"] == score.stderr
    assert study.best_trial.number == swept.verdict.best_grown


def test_the_answer_has_base_control_and_winner_side_by_side(swept: Sweep) -> None:
    records = swept.records
    table = tasks_of(swept)
    assert table is not None
    row = table.rows[0]
    assert (row.task, row.metric, row.main, row.documents) == ("kobest_copa", "acc", True, 6)
    fresh = [r for r in records if r.role is Role.REPLICATE and r.replicate_of == swept.verdict.best_grown]
    assert row.winner is not None
    assert row.winner.value == fresh[0].tasks["kobest_copa"].metrics["acc"].value
    assert row.winner.stderr == pytest.approx(fresh[0].tasks["kobest_copa"].metrics["acc"].stderr)
    assert row.control is not None
    assert row.matched is not None
    assert row.base is not None
    assert row.against_control is not None
    assert row.against_control.mean == pytest.approx(row.winner.value - row.control.value)
    assert (table.missing, table.failed) == ((), ())
    found = documents.ran(swept, swept.verdict, {})["verdict"]["tasks"]
    assert found["scores"][0]["against_control"]["interval"] == "bootstrap over documents, 95 %"
    ((label, line),) = task_lines(table)
    assert label == "tasks"
    assert f"{row.winner.value:.3f}" in line
    assert all(len(each) <= 80 for each in tasks_text(table))
    assert {"kobest_copa acc", "kobest_copa acc_stderr"} <= set(swept.rows()[0])


def test_a_plan_counts_the_sequences_and_tokens_that_go_through_a_model(
    swept: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tli.models.loading import load_model, load_tokenizer
    from tli.tasks.harness import Harness

    base = find(swept.spec.base.model)
    wanted = Wanted(("kobest_copa", "kobest_boolq"), 1, 5, swept.spec.evaluation.tasks_from)
    model, tokenizer, harness = load_model(base), load_tokenizer(base.folder), Harness(wanted)
    for name in wanted.names:
        rows: list[int] = []
        seen = model.register_forward_pre_hook(lambda _, given: rows.append(given[0].numel()))  # noqa: B023
        harness.score(model, tokenizer, name, batch=1)  # so nothing is padded
        seen.remove()
        size = size_of(harness, tokenizer, name, base.facts.context)
        assert (size.documents, size.sequences, size.tokens) == (5, len(rows), sum(rows))


def test_a_plan_says_what_scoring_takes_and_what_is_trained_again(
    swept: Sweep, tmp_path: Path, tiny_model: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    root = swept.folders.artifacts.parent

    def planned(*words: str) -> tuple[dict[str, Any], str]:
        assert main(["plan", path, "--json", *words]) == 0
        found = json.loads(capsys.readouterr().out)
        assert main(["plan", path, *words]) == 0
        return found, capsys.readouterr().out

    path = str(root / "scored.yaml")
    found, said = planned()
    # A finalist and the baseline, the control and the matched one, under one fresh seed, and the base.
    assert found["scoring"]["models"] == {"finalists": 2, "control": 2, "base": 1}
    (task,) = found["scoring"]["tasks"]
    assert task["documents"] == 6
    assert found["scoring"]["sequences"] == 5 * task["sequences"]
    assert found["scoring"]["total"]["tokens"] == 5 * task["tokens"]
    assert "scored on tasks after training, at most 5 models" in said
    assert "nothing of it is left to run" in said
    roles = [(each["role"], each["count"]) for each in found["runs"]]
    assert roles == [
        ("control", 1),
        ("baseline", 1),
        ("search", 1),
        ("replicate", 1),
        ("replicate", 2),
        ("matched control", 1),
        ("evaluation", 1),
    ]
    assert found["left"]["again"] == []
    # Other documents: every run under a fresh seed is trained again, and the base scored.
    other, said = planned("--set", "evaluation.limit=4")
    fresh = [record for record in swept.records if record.role.fresh]
    assert other["left"]["again"] == [record.number for record in fresh]
    assert other["left"]["runs"]["evaluation"] == len(fresh) + 1
    assert other["left"]["tokens"] == sum(record.tokens or 0 for record in fresh)
    assert other["left"]["flops"] == pytest.approx(sum(record.flops or 0 for record in fresh))
    assert any(swept.model_of(record) for record in fresh), (
        "a matched control keeps its model, and is among them"
    )
    assert "trained again" in said
    assert "not kept" not in said
    # One more seed and trial: what comes after a search that is not over is known at most.
    more, _ = planned("--set", "budget.trials=4", "--set", "finalists.seeds=2")
    assert more["left"]["runs"] == {
        "control": 0,
        "baseline": 0,
        "search": 1,
        "replicate": 6,
        "matched control": 2,
        "ladder rung": 0,
        "evaluation": 0,
    }
    seeds, _ = planned("--set", "finalists.seeds=2")
    assert seeds["left"]["runs"]["replicate"] == len(
        {r.replicate_of for r in fresh if r.role is Role.REPLICATE}
    )
    # What is not comparable is another sweep, and said to be.
    refused, said = planned("--set", "trial.recipe.tokens=1024")
    assert refused["left"] is None
    assert any("needs another name" in note for note in refused["notes"])


def test_a_promotion_and_the_control_beside_it_stand_in_the_table_and_on_its_card(
    swept: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    copied(swept.folders.artifacts.parent, tmp_path, monkeypatch)
    where = Where(runs="runs", runner="inline")
    assert main(["promote", "scored", "--tokens", "1024", "--grown", "--control", "--plan", "--json"]) == 0
    scoring = [each["scoring"] for each in json.loads(capsys.readouterr().out)["plan"]]
    assert [(each["tasks"], each["documents"]) for each in scoring] == [(["kobest_copa"], 6)] * 2
    assert scoring[0]["tokens"] == scoring[1]["tokens"] > 0
    assert scoring[0]["flops"] > scoring[1]["flops"] > 0, "the grown model is deeper"
    assert main(["promote", "scored", "--tokens", "1024", "--grown", "--plan"]) == 0
    assert "scored  on kobest_copa after its last step: 6 documents" in capsys.readouterr().out
    before = json.dumps(documents.ran(swept, swept.verdict, {})["verdict"]["tasks"]["scores"])
    sweep = promote(plan_promotion(Wish("scored", 1024, grown=True, control=True), where), where, Silent())
    long, beside = sweep.records[-2:]
    assert (long.role, beside.role) == (Role.PROMOTION, Role.PROMOTED_CONTROL)
    table = tasks_of(sweep)
    assert table is not None
    (found,) = table.promotions
    assert (found.trial, found.of, found.control) == (long.number, swept.verdict.best_grown, beside.number)
    row = found.rows[0]
    ours, theirs = (each.tasks["kobest_copa"].metrics["acc"] for each in (long, beside))
    assert (row.task, row.metric, row.documents, row.chance) == ("kobest_copa", "acc", 6, 0.5)
    assert row.promotion is not None
    assert row.control is not None
    assert (row.promotion.value, row.promotion.runs) == (ours.value, (long.number,))
    assert row.promotion.stderr == pytest.approx(ours.stderr)
    assert row.control.value == theirs.value
    assert row.base == table.rows[0].base
    assert row.against_control is not None
    assert row.against_control.mean == pytest.approx(ours.value - theirs.value)
    assert row.against_control.p is not None, "one seed of each: McNemar's exact test"
    assert row.against_base is not None
    answer = documents.ran(sweep, sweep.verdict, {})["verdict"]["tasks"]
    assert answer["promotions"][0]["scores"][0]["against_control"]["runs"] == 1
    assert answer["promotions"][0]["unscored"] == []
    assert json.dumps(answer["scores"]) == before, "the sweep's own scores are as they were"
    lines = tasks_text(table)
    assert any(line.split()[:2] == ["kobest_copa", "acc"] and f"{ours.value:.3f}" in line for line in lines)
    assert any(f"trial {long.number} less" in line for line in lines)
    assert all(len(each) <= 80 for each in lines)
    card = _card(sweep, tmp_path, long.number)
    assert f"| the original beside it, trial {beside.number} | **this, trial {long.number}** |" in card
    assert f"{ours.value:.3f} ± " in card
    assert f"**this, trial {beside.number}**" in _card(sweep, tmp_path, beside.number)


def _card(sweep: Sweep, folder: Path, number: int) -> str:
    """What the card of an exported model says of tasks."""
    sweep.export(folder / f"model-{number}", trial=number)
    text = (folder / f"model-{number}" / "README.md").read_text()
    return text.partition("## Downstream tasks")[2]


def test_the_card_of_an_exported_model_has_the_table_of_tasks(swept: Sweep, tmp_path: Path) -> None:
    table, number = tasks_of(swept), swept.verdict.best_grown
    assert table is not None
    assert number is not None
    row = table.rows[0]
    assert row.winner is not None
    assert row.base is not None
    card = _card(swept, tmp_path, number)
    head, line = (
        next(each for each in card.splitlines() if each.startswith(start))
        for start in ("| task", "| kobest_copa acc")
    )
    cells = dict(zip(head.split(" | "), line.split(" | "), strict=True))
    assert cells["the base"].startswith(f"{row.base.value:.3f} ± ")
    assert cells[f"**this, trial {number}** |"].startswith(f"{row.winner.value:.3f} ± ")
    assert "- kobest_copa acc: " in card
    assert f"against the original, trial {table.control}" in card


def test_an_evaluation_that_is_changed_later_runs_only_what_is_missing(
    swept: Sweep, tiny_model: Callable[[str], Path]
) -> None:
    before, root = swept.records, swept.folders.artifacts.parent
    kobest = root / "kobest"
    again = run(load_spec(write(root, tiny_model("llama"), kobest, limit=4)), Silent(), runner="inline")
    added = again.records[len(before) :]
    assert {record.role for record in added} == {Role.EVALUATION}
    scored = {record.number for record in before if record.role.fresh}
    assert Counter(record.replicate_of for record in added) == Counter([*scored, None])
    assert again.records[: len(before)] == before
    copies = {record.replicate_of: record for record in added if record.replicate_of is not None}
    assert all(copies[number].losses == before[number].losses for number in scored)  # the same model again
    table = tasks_of(again)
    assert table is not None
    assert (table.limit, table.rows[0].documents, table.missing) == (4, 4, ())
    number = len(again.records)
    assert len(run(again.spec, Silent(), runner="inline").records) == number


@pytest.fixture
def assigned(tmp_path: Path, tiny_model: Callable[[str], Path]) -> Iterator[tuple[Spec, Any]]:
    """A run under a fresh seed of a sweep with two tasks, not yet begun."""
    kobest = write_kobest(tmp_path / "kobest", test=8, train=4)
    tasks = "kobest_copa, kobest_sentineg"
    spec = for_workers(load_spec(write(tmp_path, tiny_model("llama"), kobest, tasks=tasks, limit=20)))
    assignment = assignment_of(spec, 1)
    return spec, type(assignment)(**{**vars(assignment), "role": Role.REPLICATE, "owner": "one"})


def test_an_interrupted_evaluation_goes_on_without_training_again(assigned: Any) -> None:
    spec, assignment = assigned
    folders, context, done = Folders(spec.root, spec.name), WorkerContext(spec), Counter[str]()

    def stops(work: str) -> None:
        done[work] += 1
        copa = folders.trial(1) / FOLDER / "kobest_copa.json"
        if work == SCORING and copa.exists():
            raise PreemptedError("told to go")

    with pytest.raises(PreemptedError):
        list(run_trial(context, assignment, folders, stops))
    assert done["step"] == assignment.steps
    first = (folders.trial(1) / FOLDER / "kobest_copa.json").read_bytes()
    calls: list[str] = []
    points = [point for each in run_trial(context, assignment, folders, calls.append) for point in each]
    assert "step" not in calls
    assert calls.count(SCORING) > 0
    assert set(points[-1].tasks) == {"kobest_copa", "kobest_sentineg"}
    assert points[-1].train_loss
    assert (folders.trial(1) / FOLDER / "kobest_copa.json").read_bytes() == first  # not scored a second time


def test_a_task_that_cannot_be_scored_costs_no_trained_model(assigned: Any) -> None:
    spec, assignment = assigned
    (Path(spec.evaluation.tasks_from) / "COPA" / "test.tsv").unlink()
    folders = Folders(spec.root, spec.name)
    points = [point for each in run_trial(WorkerContext(spec), assignment, folders) for point in each]
    assert points[-1].step == assignment.steps
    assert points[-1].tasks == {}


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", KOBEST)
def test_all_five_with_the_official_files(name: str, tmp_path: Path) -> None:
    from tli.tasks.harness import evaluate_tasks

    kobest, base = real_kobest(), find("builtin:tiny-llama")
    limit = 40
    (ours,) = evaluate_tasks(base, Wanted((name,), 2, limit, str(kobest)))
    hand = by_hand(base.folder, kobest, tmp_path, name, 2, limit)
    assert {metric: score.value for metric, score in ours.metrics.items()} == {
        key.partition(",")[0]: value
        for key, value in hand.items()
        if key.endswith(",none") and "_stderr" not in key
    }
    assert ours.metrics["acc"].stderr == hand["acc_stderr,none"]
    assert list(ours.documents["acc"]) == hand["documents"]


@pytest.mark.ranks
def test_ranks_score_a_model_together_as_one_process_does(
    tmp_path: Path, tiny_model: Callable[[str], Path]
) -> None:
    kobest = write_kobest(tmp_path / "kobest", test=8, train=4)
    path = write(tmp_path, tiny_model("llama"), kobest, tasks="kobest_copa, kobest_wic")
    alone = scored_by(WorkerContext(for_workers(load_spec(path))), 1)
    ranks = on_ranks(2, "tests.sweeps.rank_scores:on_a_rank", path=path, number=2)
    for found in ranks:
        assert found["loss"] == pytest.approx(alone["loss"], abs=1e-5)
        assert found["tasks"] == alone["tasks"]
    assert ranks[0]["written"] == ["kobest_copa.json", "kobest_wic.json"]
