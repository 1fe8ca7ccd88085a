"""Several texts: in a spec, in a sweep from its first point to its answer, and what of them is refused."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from sweeps.by_text import TextLoss
from sweeps.checks.preflight import check
from sweeps.curve import CURVE, read_curve
from sweeps.driver.service import run
from sweeps.errors import SpecError
from sweeps.folders import Folders
from sweeps.ledger.reading import read_file
from sweeps.promotion import Promotion
from sweeps.records import Point, Role, State
from sweeps.report.by_source import by_source_text, forgotten_line
from sweeps.report.promotions import promotions_text
from sweeps.results.card_tables import source_section, tables_of
from sweeps.results.finding import find
from sweeps.results.promotions import promotions
from sweeps.results.sweep import Sweep
from sweeps.spec import Spec, load_spec
from sweeps.tracking.batches import batches
from sweeps.tracking.events import parse
from sweeps.worker.trial import for_workers

Write = Callable[..., Path]
DATA = "source: {text}, heldout_fraction: 0.2, sequence_length: 16, eval_tokens: 64, test_tokens: 64"
TEXTS = (
    "sources: {{a: {{source: {a}, weight: 3}}, b: {b}}}, measured_only: {{kept: {kept}}}, "
    "heldout_fraction: 0.2, sequence_length: 16, eval_tokens: 96, test_tokens: 768"
)


def texts(folder: Path) -> dict[str, Path]:
    """Three texts of different words, each of its own kind."""
    words = {"a": "bottles of beer on the wall", "b": "def f(x): return x", "kept": "층을 넣은 모델"}
    made = {}
    for name, line in words.items():
        made[name] = folder / f"{name}.jsonl"
        rows = (json.dumps({"text": f"{line} {name} {n}\n"}, ensure_ascii=False) for n in range(240))
        made[name].write_text("\n".join(rows))
    return made


def mixed_spec(write: Write, folder: Path, name: str = "mixed", **more: Any) -> Path:
    path = write(name, **{"trials": 3, **more})
    content = path.read_text()
    start = content.index("data: {") + len("data: {")
    end = content.index("}\ntrial:")
    path.write_text(content[:start] + TEXTS.format(**texts(folder)) + content[end:])
    return path


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    """A whole sweep over two texts, with a third one that is only measured."""
    from tests.conftest import save_tiny_model
    from tests.sweeps.conftest import SPEC, Silent

    root = tmp_path_factory.mktemp("mixed")
    given = {"model": save_tiny_model(root / "model"), "text": "TEXT", "trials": 3, "study": "sqlite"}
    content = SPEC.format(name="mixed", runs=root / "runs", tracking="null", **given)
    content = content.replace(
        content[content.index("data: {") : content.index("trial:")],
        "data: {" + TEXTS.format(**texts(root)) + "}\n",
    ).replace("seeds: 1", "seeds: 2")
    (root / "mixed.yaml").write_text(content)
    return run(load_spec(str(root / "mixed.yaml")), Silent(), runner="inline")


def test_every_measurement_has_every_text_and_the_loss_is_the_mean_of_the_trained_ones(sweep: Sweep) -> None:
    assert {record.state for record in sweep.records} <= {State.COMPLETE, State.PRUNED}
    for record in sweep.records:
        points = read_curve(sweep.folders.trial(record.number) / CURVE)
        for point in points:
            assert list(point.sources) == ["a", "b", "kept"]
            mean = 0.75 * point.sources["a"].eval_loss + 0.25 * point.sources["b"].eval_loss
            assert point.eval_loss == pytest.approx(mean, rel=1e-12)
        assert record.sources == points[-1].sources
        # A byte a token, and all but the ends of documents are text: the two readings agree but for those.
        for each in record.sources.values():
            assert each.bits_per_byte == pytest.approx(each.eval_loss / math.log(2), rel=0.1)


def test_runs_under_fresh_seeds_have_test_losses_of_every_text_by_block(sweep: Sweep) -> None:
    fresh = [record for record in sweep.records if record.role.fresh]
    assert fresh
    for record in fresh:
        blocks = {name: each.test_losses for name, each in record.sources.items()}
        assert {len(losses) for losses in blocks.values()} == {16}
        mean = [0.75 * a + 0.25 * b for a, b in zip(blocks["a"], blocks["b"], strict=True)]
        assert record.test_losses == pytest.approx(mean, rel=1e-12)
        assert all(each.test_bits_per_byte for each in record.sources.values())
    for record in sweep.records:
        assert record.role.fresh or not any(each.test_losses for each in record.sources.values())


def test_the_base_is_measured_once_and_kept_in_the_study(sweep: Sweep) -> None:
    from sweeps.worker.trial import WorkerContext
    from tli.models.loading import load_model
    from tli.training.evaluate import evaluate

    base = sweep.ledger.study.base_sources
    view = read_file(sweep.spec.study_url, "mixed")
    assert view is not None
    assert view.study.base_sources == base  # by SQL alone
    control = next(record for record in sweep.records if record.role is Role.CONTROL)
    first = read_curve(sweep.folders.trial(control.number) / CURVE)[0]
    assert base == first.sources
    context = WorkerContext(for_workers(sweep.spec))
    model = load_model(Path(sweep.spec.base.model))
    for name, blocks in context.testing.blocks.windows.items():
        by_hand = [evaluate(model, block).loss for block in blocks]
        assert base[name].test_losses == pytest.approx(by_hand, abs=1e-6)
        assert base[name].eval_loss == pytest.approx(
            evaluate(model, context.heldout.windows[name]).loss, abs=1e-6
        )


def test_the_answer_has_each_text_with_its_difference_to_the_base(sweep: Sweep) -> None:
    verdict = sweep.verdict
    found, base = verdict.sources, sweep.ledger.study.base_sources
    assert found is not None
    assert [(text.name, text.weight) for text in found.texts] == [("a", 0.75), ("b", 0.25), ("kept", None)]
    assert found.compared == 6
    runs = {
        "control": [r for r in sweep.records if r.replicate_of == verdict.control.number],
        "grown": [r for r in sweep.records if r.replicate_of == verdict.best_grown],
    }
    for text in found.texts:
        assert text.measure == "test"
        assert [each.model for each in text.models] == ["base", "control", "grown"]
        for each in text.models[1:]:
            ours = fmean(fmean(run.sources[text.name].test_losses) for run in runs[each.model])
            assert each.loss == pytest.approx(ours)
            assert each.difference == pytest.approx(ours - fmean(base[text.name].test_losses))
            assert each.half_width is not None
            assert each.half_width > 0
            assert each.n == 2
    plain = verdict.to_json()["sources"]
    assert [each["name"] for each in plain["texts"]] == ["a", "b", "kept"]
    assert plain["objective"] == {"a": 0.75, "b": 0.25}
    assert plain["texts"][0]["models"][1]["high"] is not None
    shown = "\n".join(by_source_text(verdict))
    for word in ("a", "b", "kept", "the base", "0.75 x a + 0.25 x b", "never trained on"):
        assert word in shown
    assert max(map(len, shown.splitlines())) <= 100


def test_what_was_forgotten_is_said_where_it_is_shown(sweep: Sweep) -> None:
    found = sweep.verdict.sources
    assert found is not None

    def with_grown(difference: float, half_width: float | None) -> Any:
        return replace(
            found,
            texts=tuple(
                replace(
                    text,
                    models=tuple(
                        replace(
                            each,
                            difference=difference if text.name == "kept" else -1.0,
                            half_width=half_width,
                        )
                        if each.model != "base"
                        else each
                        for each in text.models
                    ),
                )
                for text in found.texts
            ),
        )

    line = forgotten_line(with_grown(0.05, 0.02))
    assert line is not None
    assert "kept +0.0500 (95 %: +0.0300 to +0.0700)" in line
    assert line.endswith("; the original +0.0500")
    assert forgotten_line(with_grown(0.05, 0.06)) is None  # not shown
    assert forgotten_line(with_grown(0.05, None)) is None
    assert forgotten_line(None) is None


def test_texts_are_metrics_that_mlflow_groups(sweep: Sweep) -> None:
    record = next(record for record in sweep.records if record.role.fresh)
    points = read_curve(sweep.folders.trial(record.number) / CURVE)
    event = {
        "kind": "points",
        "number": record.number,
        "attempt": 1,
        "train": [],
        "evals": [p.to_json() for p in points],
    }
    read = parse(json.dumps(event).encode())
    assert read is not None
    (batch,) = batches([read])
    last = {metric.key: metric.value for metric in batch.metrics}
    assert last["eval_loss/a"] == record.sources["a"].eval_loss
    assert last["bits_per_byte/kept"] == record.sources["kept"].bits_per_byte
    assert last["test_loss/b"] == pytest.approx(fmean(record.sources["b"].test_losses))


def test_a_point_is_read_back_and_nothing_else_is_one() -> None:
    losses = {"web": TextLoss(1.0, None, (1.0, 2.0), 0.5)}
    point = Point(1, 2, 3.0, 4.0, 5.0, sources=losses)
    plain = json.loads(json.dumps(point.to_json()))
    assert Point.from_json(plain) == point
    assert "sources" not in Point(1, 2, 3.0, 4.0, 5.0).to_json()  # as curves of earlier versions are
    assert not replace(point, sources={"web": TextLoss(math.nan)}).finite
    for wrong in (
        [],
        {"web": 1.0},
        {"web": {**plain["sources"]["web"], "more": 1}},
        {"web": {**plain["sources"]["web"], "eval_loss": "1"}},
    ):
        with pytest.raises((ValueError, TypeError, KeyError, AttributeError)):
            Point.from_json({**plain, "sources": wrong})


def test_the_study_is_found_again_with_its_texts(sweep: Sweep) -> None:
    again = find("mixed", runs=str(sweep.folders.artifacts))
    assert again.spec.data == sweep.spec.data
    assert again.verdict.sources == sweep.verdict.sources
    assert Spec.from_json(sweep.spec.to_json()) == sweep.spec
    other = Spec.from_json(
        {**sweep.spec.to_json(), "data": {**sweep.spec.to_json()["data"], "measured_only": {}}}
    )
    assert other.hash != sweep.spec.hash


WRONG = """
name: wrong
base: {model: builtin:tiny-llama}
data:
  sources:
    web-x: {source: text.txt, weight: 1}
    web: {source: text.txt, wieght: 1}
    below: {source: text.txt, weight: -1}
    nothing: {source: text.txt, weight: 0}
    none: {source: text.txt, weight: .nan}
    word: {source: text.txt, weight: "0.3"}
    short: 3
    empty: {weight: 1}
  measured_only: {general: builtin:stdlib, web: other.txt}
  split: test
  eval_tokens: 128
trial:
  recipe: {tokens: 100_000, batch_tokens: 2048}
budget: {trials: 2}
"""


def test_what_is_wrong_with_texts_is_said_at_once_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(WRONG)
    with pytest.raises(SpecError) as caught:
        load_spec(str(path))
    said = {problem.where.rpartition(" ")[2]: problem for problem in caught.value.problems}
    assert {
        "data.sources",
        "data.sources.web.wieght",
        "data.sources.below.weight",
        "data.sources.nothing.weight",
        "data.sources.none.weight",
        "data.sources.word.weight",
        "data.sources.short",
        "data.sources.empty.source",
        "data.measured_only.web",
        "data.split",
    } <= set(said)
    assert said["data.sources"].remedy == "web_x"
    assert said["data.sources.web.wieght"].remedy == "data.sources.web.weight"
    assert all(problem.where.startswith(f"{path}:") for problem in caught.value.problems)


def test_two_texts_of_one_name_are_refused(write_spec: Write, tmp_path: Path) -> None:
    path = mixed_spec(write_spec, tmp_path)
    path.write_text(path.read_text().replace(", b: ", ", a: "))
    with pytest.raises(SpecError) as caught:
        load_spec(str(path))
    assert "a" in str(caught.value)


@pytest.mark.parametrize("weight", ["1.0e-300", "1.0e+300"])
def test_a_text_that_no_trial_takes_a_sequence_of_is_refused(
    write_spec: Write, tmp_path: Path, weight: str
) -> None:
    path = mixed_spec(write_spec, tmp_path)
    path.write_text(path.read_text().replace("weight: 3", f"weight: {weight}"))
    with pytest.raises(SpecError) as caught:
        load_spec(str(path))
    (problem,) = caught.value.problems
    little = "a" if "-" in weight else "b"
    assert problem.where.endswith(f"data.sources.{little}.weight")
    assert "measured_only" in problem.expected


def test_a_promotion_has_its_losses_by_text_in_json_in_the_summary_and_on_its_card(sweep: Sweep) -> None:
    found, number = sweep.verdict, len(sweep.records)
    assert found.sources is not None
    own = next(each for each in sweep.records if each.number == found.best_grown)
    run_ = next(each for each in sweep.records if each.replicate_of == own.number)  # with losses on test text
    promotion = Promotion(own.number, own.steps)
    long = replace(run_, number=number, role=Role.PROMOTION, replicate_of=None, promotion=promotion)
    records = [*sweep.records, long]
    (row,) = promotions(records, sources=found.sources)
    assert list(row["sources"]) == ["a", "b", "kept"]
    base = sweep.ledger.study.base_sources["kept"]
    kept = row["sources"]["kept"]
    assert kept["loss"] == fmean(long.sources["kept"].test_losses)
    assert kept["difference"] == pytest.approx(kept["loss"] - fmean(base.test_losses))
    lines = promotions_text(records, found.sources)
    assert any(f"{kept['difference']:+.4f}" in line and f"trial {number}" in line for line in lines)
    card = "\n".join(source_section(tables_of(sweep, found, records, long)[1], number))
    assert f"| **this, trial {number}** | {kept['loss']:.4f} |" in card
    # That of a trial of the sweep has its own model in the table, with intervals.
    card = "\n".join(source_section(tables_of(sweep, found, records, own)[1], own.number))
    grown = found.sources.on("kept", "grown")
    assert grown is not None
    assert f"**this, trial {own.number}** | {grown.loss:.4f}" in card
    assert " ± " in card


def test_texts_that_cannot_be_used_are_found_before_anything_is_written(
    write_spec: Write, tmp_path: Path
) -> None:
    path = mixed_spec(write_spec, tmp_path)
    content = path.read_text()
    made = texts(tmp_path)
    made["b"].write_text('{"text": "one"}\n{"text": "two"}\n{"text": "three"}\n')  # too little to hold out of
    path.write_text(
        content.replace(f"kept: {made['kept']}", f"kept: {made['a']}, gone: {tmp_path}/gone/*.txt")
    )
    with pytest.raises(SpecError) as caught:
        check(load_spec(str(path)))
    said = {problem.where.rpartition(" ")[2]: problem for problem in caught.value.problems}
    assert set(said) == {"data.measured_only.kept.source", "data.measured_only.gone.source"}
    assert "'a'" in said["data.measured_only.kept.source"].got
    path.write_text(content)
    with pytest.raises(SpecError) as caught:
        check(load_spec(str(path)))
    places = {problem.where.rpartition(" ")[2] for problem in caught.value.problems}
    assert places == {"data.sources.b.source"}
    assert not (tmp_path / "runs").exists()


def test_passes_over_each_text_are_said(write_spec: Write, tmp_path: Path) -> None:
    spec = load_spec(str(mixed_spec(write_spec, tmp_path)), overrides=["trial.recipe.tokens=65_536"])
    (note,) = [note for note in check(spec).notes if note.startswith("every batch is")]
    assert "75 % a" in note
    assert "25 % b" in note
    assert note.count("which begins again") == 2
    assert "kept" not in note


def test_workers_get_absolute_paths_of_every_text(
    write_spec: Write, tmp_path: Path, monkeypatch: Any
) -> None:
    path = mixed_spec(write_spec, tmp_path)
    path.write_text(path.read_text().replace(f"{tmp_path}/", ""))
    monkeypatch.chdir(tmp_path)
    spec = load_spec(str(path))
    working = for_workers(spec)
    assert working.data.sources["a"].source == str(tmp_path / "a.jsonl")
    assert working.data.measured_only["kept"].source == str(tmp_path / "kept.jsonl")
    assert working.data.sources["a"].weight == 3
    assert spec.data.sources["a"].source == "a.jsonl"


def test_a_secret_in_a_text_is_refused(write_spec: Write, tmp_path: Path) -> None:
    path = mixed_spec(write_spec, tmp_path)
    with pytest.raises(SpecError) as caught:
        load_spec(str(path), overrides=["data.sources.a.source=https://u:hunter2@host/x.txt"])
    assert any("data.sources.a.source" in problem.where for problem in caught.value.problems)
    assert "hunter2" not in str(caught.value)


@pytest.mark.slow
def test_a_mixed_sweep_that_is_killed_goes_on_to_the_same_losses(write_spec: Write, tmp_path: Path) -> None:
    for name in ("whole", "killed"):
        path = mixed_spec(write_spec, tmp_path, name)
        path.write_text(path.read_text().replace("tokens: 512", "tokens: 4096"))  # time to be killed in
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "sweeps", "run", "--runner", "inline"]
    subprocess.run([*command, "whole.yaml"], cwd=tmp_path, env=environment, check=True, timeout=300)
    folder = Folders(tmp_path / "runs", "killed").trial(1)
    with subprocess.Popen([*command, "killed.yaml"], cwd=tmp_path, env=environment) as started:
        deadline = time.monotonic() + 240
        while not (folder / CURVE).exists():
            assert started.poll() is None, "it ended before it was killed"
            assert time.monotonic() < deadline
            time.sleep(0.02)
        started.send_signal(signal.SIGKILL)
    left = find("killed", runs=str(tmp_path / "runs"))
    assert not left.ledger.finished
    assert left.records[1].state is State.RUNNING, "killed while it trained"
    subprocess.run([*command, "killed.yaml"], cwd=tmp_path, env=environment, check=True, timeout=300)
    one, other = (find(name, runs=str(tmp_path / "runs")).records for name in ("whole", "killed"))
    assert other[1].attempt == 2
    for ours, theirs in zip(one[:2], other[:2], strict=True):
        assert ours.losses == pytest.approx(theirs.losses)
        assert set(ours.sources) == {"a", "b", "kept"}
        assert ours.sources == theirs.sources
